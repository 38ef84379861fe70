//! Many rounds of everything at once, over a link that delays and cuts as a seed says.

use super::*;

/// A small generator, so that a schedule is its seed (SplitMix64).
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}

/// Delivers a random part of what `from` has sent.
fn deliver_some(pair: &mut Pair, from: Role, rng: &mut Rng) {
    let end = pair.end(from);
    if end.out.is_empty() {
        return;
    }
    let length = 1 + rng.below(end.out.len());
    let bytes = end.out.split_to(length);
    pair.inject(from.peer(), &bytes);
}

fn run(seed: u64, steps: usize, policy: RekeyPolicy) -> Pair {
    let identities = Identities::new();
    let limits = Limits::default().with_max_updates_without_data(u32::MAX);
    let mut pair = Pair::connect(
        identities.client().rekey_policy(policy).limits(limits),
        identities.server().rekey_policy(policy).limits(limits),
    );
    let mut rng = Rng(seed);
    let mut written = [Vec::new(), Vec::new()];
    let mut tickets = [0; 2];
    for step in 0..steps {
        let index = rng.below(2);
        let role = [Role::Initiator, Role::Responder][index];
        match rng.below(8) {
            0 | 1 => {
                let data = vec![u8::try_from(step % 251).unwrap(); rng.below(3000)];
                pair.write(role, &data);
                written[index].extend_from_slice(&data);
            }
            2 => tickets[index] = pair.rekey(role),
            3 => pair.advance(Duration::from_millis(rng.below(500) as u64)),
            _ => deliver_some(&mut pair, role, &mut rng),
        }
        assert_eq!((&pair.initiator.error, &pair.responder.error), (&None, &None), "seed {seed}");
        let (a, b) = pair.epochs();
        assert!(a.abs_diff(b) <= 1, "seed {seed}: epochs {a} and {b}");
    }
    pair.drive();
    assert_eq!(pair.responder.received, written[0], "seed {seed}");
    assert_eq!(pair.initiator.received, written[1], "seed {seed}");
    // Nobody's wish was lost.
    assert!(pair.initiator.statistics().own_updates >= tickets[0], "seed {seed}");
    assert!(pair.responder.statistics().own_updates >= tickets[1], "seed {seed}");
    let [a, b] = [&pair.initiator, &pair.responder].map(End::statistics);
    assert_eq!(a.epoch, 1 + a.own_updates + b.own_updates, "seed {seed}");
    assert_eq!((a.own_updates, b.own_updates), (b.peer_updates, a.peer_updates), "seed {seed}");
    pair.assert_works();
    pair
}

#[test]
fn random_schedules_keep_the_ends_in_step() {
    let mut crossed = 0;
    for seed in 0..40 {
        crossed += run(seed, 300, RekeyPolicy::manual()).initiator.statistics().crossed_updates;
    }
    assert!(crossed > 100, "the schedules have updates cross");
}

#[test]
fn random_schedules_with_policies_keep_the_ends_in_step() {
    let policy = RekeyPolicy::manual()
        .with_bytes(20_000)
        .with_records(50)
        .with_interval(Duration::from_secs(5));
    for seed in 100..120 {
        run(seed, 300, policy);
    }
}

// The same instant, again and again, under load.
#[test]
fn thousands_of_crossing_updates_end_in_the_same_epoch_with_every_byte_delivered() {
    const ROUNDS: u64 = 2000;
    let identities = Identities::new();
    let mut pair = Pair::connect(identities.client(), identities.server());
    let mut rng = Rng(7);
    let mut written = Vec::new();
    for _ in 0..ROUNDS {
        let data = vec![1; 1 + rng.below(200)];
        pair.write(Role::Initiator, &data);
        pair.rekey(Role::Initiator);
        pair.write(Role::Responder, &data);
        pair.rekey(Role::Responder);
        written.extend_from_slice(&data);
        while !pair.initiator.out.is_empty() || !pair.responder.out.is_empty() {
            let role = [Role::Initiator, Role::Responder][rng.below(2)];
            deliver_some(&mut pair, role, &mut rng);
        }
    }
    assert_eq!(pair.epochs(), (1 + 2 * ROUNDS, 1 + 2 * ROUNDS));
    assert_eq!(pair.initiator.statistics().crossed_updates, ROUNDS);
    assert_eq!(pair.initiator.received, written);
    assert_eq!(pair.responder.received, written);
    pair.assert_works();
}
