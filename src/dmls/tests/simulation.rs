//! Members that update, commit, send, fall silent, leave and crash by chance, over links that delay,
//! reorder between senders, cut and lose.
//!
//! A universe goes through many schedules; after each of them everything is delivered, and has to be as it
//! should be. `DMLS_SEEDS=100 cargo test --lib simulation` runs a hundred times as many.

use super::*;

/// What may happen in a run.
#[derive(Clone, Copy, Default)]
struct Run {
    count: usize,
    schedules: usize,
    leaf_replacement: bool,
    losses: bool,
    crashes: bool,
    leaves: Option<Leave>,
}

/// How a member leaves, in the middle of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// Somebody removes it.
    Removed,
    /// It is never heard of again, and the policy has to find out.
    Vanishes,
}

/// A universe on its way through the schedules.
struct Course {
    run: Run,
    seed: u64,
    numbers: Numbers,
    world: World,
    /// What each member has sent.
    sent: Vec<Vec<Vec<u8>>>,
    leaver: usize,
    has_left: bool,
}

const STEPS: usize = 16;

impl Run {
    fn policy(self, numbers: &mut Numbers) -> DmlsPolicy {
        let vanishes = self.leaves == Some(Leave::Vanishes);
        DmlsPolicy {
            update_messages: 20,
            update_interval: (numbers.below(4) == 0).then_some(Duration::from_secs(30)),
            remove_unacknowledged_after: vanishes.then_some(Duration::from_secs(300)),
            acknowledge_wait: Duration::from_millis([0, 500, 10_000][numbers.below(3)]),
            ..DmlsPolicy::default()
        }
    }

    /// One run. Every message of a member who stays arrives once, in the order of its sender, and all
    /// who stay agree whenever everything has been delivered.
    fn run(self, seed: u64) {
        let mut numbers = Numbers(seed);
        let policy = self.policy(&mut numbers);
        let leaf_replacement = self.leaf_replacement;
        let setup = Setup { policy, leaf_replacement, stores: self.crashes, ..Setup::default() };
        let mut world = setup.create(self.count);
        if self.crashes {
            world.deliver_all();
        }
        let leaver = numbers.below(self.count);
        let sent = vec![Vec::new(); self.count];
        let mut course = Course { run: self, seed, numbers, world, sent, leaver, has_left: false };
        for schedule in 0..self.schedules {
            course.schedule(schedule == self.schedules / 2);
            course.check();
        }
    }
}

impl Course {
    fn schedule(&mut self, leaves: bool) {
        let count = self.run.count;
        // Who says nothing, and of whom nothing arrives until the end.
        let silent = self.numbers.below(count);
        let stalled = self.numbers.below(2 * count);
        let leaves_at = self.numbers.below(STEPS);
        if self.run.losses && !self.has_left {
            let from = self.numbers.below(count);
            self.world.cut.push((from, (from + 1 + self.numbers.below(count - 1)) % count));
        }
        for step in 0..STEPS {
            let member = self.numbers.below(count);
            if leaves && step == leaves_at {
                self.leave(member);
            }
            match self.numbers.below(20) {
                0..6 if member != silent => self.protect(member),
                6 => drop(self.world.act(member, DmlsSession::update)),
                7 => drop(self.world.act(member, DmlsSession::commit)),
                8 => drop(self.world.act(member, DmlsSession::update_and_commit)),
                9 => {
                    self.world.now = self.world.now.after(Duration::from_millis(300));
                    self.world.serve_timers();
                }
                10 if self.run.losses => self.world.lose(member, (member + 1) % count),
                11 if self.run.crashes && !self.has_left => {
                    // What was received since the last frame left comes again: have it stored.
                    self.world.pass(Duration::from_secs(11));
                    self.world.restore(member);
                }
                _ => {
                    for _ in 0..count {
                        self.world.deliver_one_but(&mut self.numbers, stalled);
                    }
                }
            }
        }
        if !self.vanished() {
            self.world.cut.clear();
        }
        self.world.pass(Duration::from_secs(match self.run {
            _ if leaves && self.vanished() => 1000,
            Run { losses: true, .. } | Run { crashes: true, .. } => 100,
            _ => 25,
        }));
    }

    fn protect(&mut self, member: usize) {
        let data = self.sent[member].len().to_be_bytes().to_vec();
        if self.world.act(member, |session, now| session.protect(now, &data)).is_ok() {
            self.sent[member].push(data);
        }
    }

    fn leave(&mut self, by: usize) {
        let leaver = self.leaver;
        match self.run.leaves {
            Some(Leave::Vanishes) => {
                // Some of its last frames have reached some of the others.
                for other in (0..self.run.count).filter(|other| *other != leaver) {
                    for _ in 0..self.numbers.below(4) {
                        self.world.deliver(leaver, other);
                    }
                    self.world.cut.extend([(leaver, other), (other, leaver)]);
                }
                self.has_left = true;
            }
            Some(Leave::Removed) if by != leaver => {
                let remove = |session: &mut DmlsSession, now| session.remove(now, index(leaver));
                self.has_left = self.world.act(by, remove).is_ok();
            }
            _ => {}
        }
    }

    fn vanished(&self) -> bool {
        self.has_left && self.run.leaves == Some(Leave::Vanishes)
    }

    fn check(&mut self) {
        let Self { world, seed, sent, .. } = self;
        let stayers: Vec<usize> =
            (0..self.run.count).filter(|member| !self.has_left || *member != self.leaver).collect();
        world.agree(&stayers);
        for &at in &stayers {
            let node = &world.members[at];
            assert_eq!(node.session.members().count(), stayers.len(), "seed {seed}");
            let broken = node.events.iter().find(|event| {
                matches!(
                    event,
                    DmlsEvent::Refused { .. }
                        | DmlsEvent::Disagreement { .. }
                        | DmlsEvent::Discarded { .. }
                )
            });
            assert_eq!(broken, None, "seed {seed}");
            for &from in stayers.iter().filter(|from| **from != at) {
                assert_eq!(world.data(at, from), sent[from], "seed {seed}: {from} to {at}");
            }
            assert_eq!(held(&node.session), (0, 0), "seed {seed}");
            assert!(node.session.epochs.values().all(|epochs| epochs.len() <= 8), "seed {seed}");
        }
        if self.has_left && self.run.leaves == Some(Leave::Vanishes) {
            // What one of those who stay has got of it, all have.
            let last = |at: usize| world.data(at, self.leaver);
            assert!(stayers.iter().all(|at| last(*at) == last(stayers[0])), "seed {seed}");
        }
        world.recorded.clear();
        world.clear();
        sent.iter_mut().for_each(Vec::clear);
    }
}

/// Seeds of a test, and how many schedules each goes through.
fn seeds(start: u64, count: u64) -> std::ops::Range<u64> {
    let factor = std::env::var("DMLS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    start..start + count * factor
}

// DM-09, DM-13
#[test]
fn every_message_arrives_once_in_order_and_all_agree() {
    for seed in seeds(0, 10) {
        let count = [3, 3, 4, 5][usize::try_from(seed % 4).unwrap()];
        let schedules = 240 / count;
        Run { count, schedules, leaf_replacement: true, ..Run::default() }.run(seed);
    }
}

// DM-08
#[test]
fn the_same_without_leaf_replacement() {
    for seed in seeds(1_000_000, 10) {
        Run { count: 3, schedules: 100, ..Run::default() }.run(seed);
    }
}

// DM-14
#[test]
fn the_same_over_links_that_lose() {
    for seed in seeds(2_000_000, 6) {
        let run = Run { count: 4, schedules: 50, leaf_replacement: true, ..Run::default() };
        Run { losses: true, ..run }.run(seed);
    }
}

// DM-12
#[test]
fn the_same_when_a_member_is_removed() {
    for seed in seeds(3_000_000, 24) {
        let (count, losses) = (5, seed % 2 == 0);
        let run = Run { count, schedules: 3, leaf_replacement: true, losses, ..Run::default() };
        Run { leaves: Some(Leave::Removed), ..run }.run(seed);
    }
}

// DM-12, DM-14, DM-16
#[test]
fn the_same_when_a_member_vanishes() {
    for seed in seeds(4_000_000, 16) {
        let run = Run { count: 4, schedules: 3, leaf_replacement: true, ..Run::default() };
        Run { leaves: Some(Leave::Vanishes), ..run }.run(seed);
    }
}

#[test]
fn the_same_with_crashes() {
    for seed in seeds(5_000_000, 4) {
        let run = Run { count: 3, schedules: 20, leaf_replacement: true, ..Run::default() };
        Run { crashes: true, ..run }.run(seed);
    }
}
