//! Members that update, commit, send, leave and crash by chance, over links that delay, reorder
//! between senders, and lose.
//!
//! `DMLS_SEEDS=1000 cargo test --lib simulation` runs so many times more.

use super::*;

/// What may happen in a run.
#[derive(Clone, Copy, Default)]
struct Run {
    count: usize,
    leaf_replacement: bool,
    losses: bool,
    crashes: bool,
    /// A member is removed in the middle.
    removal: bool,
    /// A member vanishes in the middle, and the policy has to find out.
    vanishes: bool,
}

impl Run {
    fn policy(self, numbers: &mut Numbers) -> DmlsPolicy {
        DmlsPolicy {
            update_messages: 20,
            update_interval: Some(Duration::from_secs(30)),
            remove_unacknowledged_after: self.vanishes.then_some(Duration::from_secs(600)),
            // What a member leaves behind who vanishes is only safe to import when all have it.
            acknowledge_wait: match self.vanishes {
                true => Duration::from_secs(3600),
                false => Duration::from_millis([0, 500, 10_000][numbers.below(3)]),
            },
            ..DmlsPolicy::default()
        }
    }

    /// One run. Every message of a member who stays arrives once, in the order of its sender, and all
    /// who stay agree in the end.
    fn run(self, seed: u64) {
        let Self { count, .. } = self;
        let mut numbers = Numbers(seed);
        let policy = self.policy(&mut numbers);
        let leaf_replacement = self.leaf_replacement;
        let setup = Setup { policy, leaf_replacement, stores: self.crashes, ..Setup::default() };
        let mut world = setup.create(count);
        if self.crashes {
            world.deliver_all();
        }
        let mut sent: Vec<Vec<Vec<u8>>> = vec![Vec::new(); count];
        // Who never sends, and who leaves.
        let silent = numbers.below(count);
        let leaver = (self.removal || self.vanishes).then(|| numbers.below(count));
        for step in 0..250_usize {
            let member = numbers.below(count);
            if self.vanishes
                && step == 125
                && let Some(leaver) = leaver
            {
                for other in 0..count {
                    world.cut.extend([(leaver, other), (other, leaver)]);
                }
            }
            if self.removal
                && step == 125
                && let Some(leaver) = leaver.filter(|leaver| *leaver != member)
            {
                let remove = |session: &mut DmlsSession, now| session.remove(now, index(leaver));
                let _ = world.act(member, remove);
            }
            match numbers.below(20) {
                0..6 if member != silent => {
                    let data = step.to_be_bytes().to_vec();
                    if world.act(member, |session, now| session.protect(now, &data)).is_ok() {
                        sent[member].push(data);
                    }
                }
                6 => drop(world.act(member, DmlsSession::update)),
                7 => drop(world.act(member, DmlsSession::commit)),
                8 => drop(world.act(member, DmlsSession::update_and_commit)),
                9 => {
                    world.now = world.now.after(Duration::from_millis(300));
                    world.serve_timers();
                }
                10 if self.losses => world.lose(member, (member + 1) % count),
                11 if self.crashes => {
                    // What was received since the last frame left comes again: have it stored.
                    world.pass(Duration::from_secs(11));
                    world.restore(member);
                }
                _ => {
                    for _ in 0..count {
                        world.deliver_one(&mut numbers);
                    }
                }
            }
        }
        world.pass(Duration::from_secs(match self {
            Self { vanishes: true, .. } => 2000,
            Self { losses: true, .. } | Self { crashes: true, .. } => 200,
            _ => 25,
        }));
        let stayers: Vec<usize> = (0..count).filter(|member| Some(*member) != leaver).collect();
        let removed = world.members[stayers[0]].session.members().count() < count;
        let stayers = if removed { stayers } else { (0..count).collect() };
        assert!(!self.vanishes || removed, "seed {seed}: nobody noticed");
        world.agree(&stayers);
        for &at in &stayers {
            let node = &world.members[at];
            assert_eq!(node.session.members().count(), stayers.len(), "seed {seed}");
            let broken = node.events.iter().find(|event| {
                matches!(event, DmlsEvent::Refused { .. } | DmlsEvent::Disagreement { .. })
            });
            assert_eq!(broken, None, "seed {seed}");
            for &from in stayers.iter().filter(|from| **from != at) {
                assert_eq!(world.data(at, from), sent[from], "seed {seed}: {from} to {at}");
            }
            assert_eq!(held(&node.session), (0, 0));
            assert!(node.session.epochs.values().all(|epochs| epochs.len() <= 8), "seed {seed}");
        }
    }
}

fn seeds(start: u64, count: u64) -> std::ops::Range<u64> {
    let factor = std::env::var("DMLS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    start..start + count * factor
}

// DM-09, DM-13
#[test]
fn every_message_arrives_once_in_order_and_all_agree() {
    for seed in seeds(0, 12) {
        let count = 3 + usize::try_from(seed % 4).unwrap();
        Run { count, leaf_replacement: true, ..Run::default() }.run(seed);
    }
}

// DM-08
#[test]
fn the_same_without_leaf_replacement() {
    for seed in seeds(1_000_000, 4) {
        Run { count: 4, ..Run::default() }.run(seed);
    }
}

// DM-14
#[test]
fn the_same_over_links_that_lose() {
    for seed in seeds(2_000_000, 8) {
        Run { count: 4, leaf_replacement: true, losses: true, ..Run::default() }.run(seed);
    }
}

// DM-12
#[test]
fn the_same_when_a_member_is_removed() {
    for seed in seeds(3_000_000, 8) {
        let losses = seed % 2 == 0;
        Run { count: 5, leaf_replacement: true, removal: true, losses, ..Run::default() }.run(seed);
    }
}

// DM-12, DM-16
#[test]
fn the_same_when_a_member_vanishes() {
    for seed in seeds(4_000_000, 4) {
        Run { count: 4, leaf_replacement: true, vanishes: true, ..Run::default() }.run(seed);
    }
}

#[test]
fn the_same_with_crashes() {
    for seed in seeds(5_000_000, 4) {
        Run { count: 3, leaf_replacement: true, crashes: true, ..Run::default() }.run(seed);
    }
}
