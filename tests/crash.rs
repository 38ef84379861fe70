//! Crash injection: a client and a server with their sessions in files, each a process of its own, are
//! killed (SIGKILL) at every step of handshake, rekey and resumption, and go on.
//!
//! The steps are numbered as they come: before, during and after each commit of the session store,
//! after each load, before, in the middle of and after each write to the socket, after each read, and
//! around what the application does. One test for each party and each kind of connection kills at
//! step 0, 1, 2 and so on, until a connection comes to its end without the step. The last test kills
//! both at random steps, also several times in a row.
//!
//! What has to hold, checked after each connection and each death:
//!
//! - A session that both ends have stored is resumed, whoever was killed where (2P-14, 2P-21). The
//!   server stores a new one after the client, so that this is as soon as the server has it. Until
//!   then, a full handshake takes place; if the client had stored the session, it is told why.
//! - Messages are delivered in order, none twice, and whatever was acknowledged by its echo is among
//!   them. What was sent on a connection that died without an echo may have been delivered or not:
//!   the client asks, and sends what has not (2P-21).
//! - Early data is delivered at most once; what the client is told was accepted, once; what it is told
//!   was rejected, never (TL-08).
//! - The session files are whole, in every page.
//!
//! Environment: `CRASH_ROUNDS`, how many seeds the random test goes through (8); `CRASH_SEED`, the
//! first of them (1). A failure names its seed. A longer run:
//!
//! ```text
//! CRASH_ROUNDS=500 CRASH_SEED=1000 cargo test --test crash at_random -- --nocapture
//! ```

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::env;

use mls_channel::HandshakeKind;

use crate::parent::{Party, Plan, Way, World};

#[path = "crash/child.rs"]
mod child;
#[path = "crash/log.rs"]
mod log;
#[path = "crash/parent.rs"]
mod parent;
#[path = "crash/steps.rs"]
mod steps;

/// Connections of one seed.
const CONNECTIONS: u64 = 12;

/// More steps than a connection has at either end.
const MAX_STEPS: u64 = 500;

#[test]
#[ignore = "the processes that the other tests start"]
fn child_process() {
    child::run();
}

// 2P-14, 2P-21
#[test]
fn full_handshake_client_killed() {
    kill_in_full_handshake(Party::Client);
}

// 2P-14, 2P-21
#[test]
fn full_handshake_server_killed() {
    kill_in_full_handshake(Party::Server);
}

// 2P-14, 2P-21, TL-08
#[test]
fn resumption_and_rekeys_client_killed() {
    kill_in_resumption(Party::Client, Way::Connect);
}

// 2P-14, 2P-21, TL-08
#[test]
fn resumption_and_rekeys_server_killed() {
    kill_in_resumption(Party::Server, Way::Connect);
}

// 2P-14, 2P-18, 2P-21
#[test]
fn call_back_and_rekeys_client_killed() {
    kill_in_resumption(Party::Client, Way::Call);
}

// 2P-14, 2P-18, 2P-21
#[test]
fn call_back_and_rekeys_server_killed() {
    kill_in_resumption(Party::Server, Way::Call);
}

/// Kills at each step of the first connection of two parties.
fn kill_in_full_handshake(party: Party) {
    let (mut resumed, mut full) = (0, 0);
    // Rekeys are the same as after a resumption.
    let plan = Plan { messages: 1, ..Plan::new(Way::Connect) };
    for step in 0..MAX_STEPS {
        let mut world = World::new();
        let outcome = world.connection(plan.killing(party, step));
        if !outcome.somebody_was_killed() {
            assert!(full > 0 && resumed > 0, "{step} steps: {resumed} resumed, {full} full");
            println!("{step} steps of the {party:?}: then {resumed} resumed, {full} full");
            return;
        }
        world.revive();
        // The processes check that it is no full handshake if there is a session.
        let kind = world.connection(plan).kind.unwrap();
        match kind {
            HandshakeKind::Resumed => resumed += 1,
            _ => full += 1,
        }
        // Whatever was there before, now there is a session.
        let kind = world.connection(plan).kind;
        assert_eq!(kind, Some(HandshakeKind::Resumed), "step {step}\n{world}");
    }
    panic!("no end of steps");
}

/// Kills at each step of a connection that resumes a session.
fn kill_in_resumption(party: Party, way: Way) {
    let mut world = World::with_session();
    for step in 0..MAX_STEPS {
        let outcome = world.connection(Plan::new(way).killing(party, step));
        if !outcome.somebody_was_killed() {
            for what in ["before", "during", "after"] {
                for operation in ["commit", "write"] {
                    assert!(world.killed.contains(&format!("{what} {operation}")), "{what}");
                }
            }
            assert!(world.rekeys.iter().all(|rekeys| *rekeys > step), "{:?}", world.rekeys);
            println!("{step} steps of the {party:?}, {way:?}: resumed each time");
            return;
        }
        world.revive();
        // Every other time the server is the one who begins.
        let again = if step % 2 == 0 { Way::Connect } else { Way::Call };
        let outcome = world.connection(Plan::new(again));
        assert_eq!(outcome.kind, Some(HandshakeKind::Resumed), "step {step}\n{world}");
    }
    panic!("no end of steps");
}

// 2P-14, 2P-18, 2P-21, TL-08
#[test]
fn both_killed_at_random() {
    let number = |name: &str, default: u64| {
        env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let (first, rounds) = (number("CRASH_SEED", 1), number("CRASH_ROUNDS", 8));
    let (mut connections, mut killed) = (0, 0);
    for seed in first..first + rounds {
        println!("CRASH_SEED={seed}");
        let mut random = Random::new(seed);
        let mut world = World::new();
        let mut has_session = false;
        for _ in 0..CONNECTIONS {
            let way = match has_session && random.below(3) == 0 {
                true => Way::Call,
                false => Way::Connect,
            };
            let mut plan = Plan { close: random.below(2) == 0, ..Plan::new(way) };
            // Early steps are more likely, those of the handshake.
            for party in [Party::Client, Party::Server] {
                if random.below(3) > 0 {
                    let most = 1 + random.below(150);
                    plan = plan.killing(party, random.below(most));
                }
            }
            let outcome = world.connection(plan);
            connections += 1;
            killed += u64::from(outcome.client_killed) + u64::from(outcome.server_killed);
            if has_session && let Some(kind) = outcome.kind {
                assert_eq!(kind, HandshakeKind::Resumed, "{world}");
            }
            has_session |= outcome.done;
            for party in [Party::Client, Party::Server] {
                if random.below(6) == 0 {
                    world.kill(party);
                }
            }
            world.revive();
        }
        for way in [Way::Connect, Way::Call, Way::Connect] {
            let outcome = world.connection(Plan::new(way));
            if has_session {
                assert_eq!(outcome.kind, Some(HandshakeKind::Resumed), "{world}");
            }
            has_session = true;
        }
    }
    assert!(killed > connections / 4, "{killed} kills on {connections} connections");
    println!("{killed} kills on {connections} connections");
}

/// xorshift64, from a seed that was mixed first.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed ^ (mixed >> 32)) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}
