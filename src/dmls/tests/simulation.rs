//! Members that update, commit and send by chance, over links that delay and reorder.

use super::*;

/// One run. Every message arrives once, in the order of its sender, and everyone agrees in the end.
fn run(seed: u64, count: usize, steps: usize, leaf_replacement: bool, losses: bool) {
    let mut numbers = Numbers(seed);
    let policy = DmlsPolicy {
        update_messages: 20,
        update_interval: Some(Duration::from_secs(30)),
        remove_unacknowledged_after: None,
        acknowledge_wait: Duration::from_millis(u64::try_from(numbers.below(5)).unwrap() * 500),
        ..DmlsPolicy::default()
    };
    let mut world = Setup { policy, leaf_replacement, ..Setup::default() }.create(count);
    let mut sent: Vec<Vec<Vec<u8>>> = vec![Vec::new(); count];
    // Who says nothing for the whole run.
    let silent = numbers.below(count);
    for step in 0..steps {
        let member = numbers.below(count);
        match numbers.below(20) {
            0..6 if member != silent => {
                let data = step.to_be_bytes().to_vec();
                world.protect(member, &data);
                sent[member].push(data);
            }
            6 => drop(world.act(member, DmlsSession::update)),
            7 => drop(world.act(member, DmlsSession::commit)),
            8 => drop(world.act(member, DmlsSession::update_and_commit)),
            9 => {
                world.now = world.now.after(Duration::from_millis(300));
                for member in 0..count {
                    let due = world.members[member].session.poll_timeout();
                    if due.is_some_and(|due| due <= world.now.monotonic) {
                        world.act(member, DmlsSession::handle_timeout).unwrap();
                    }
                }
            }
            10 if losses => world.lose(member, (member + 1) % count),
            _ => {
                for _ in 0..count {
                    world.deliver_one(&mut numbers);
                }
            }
        }
    }
    world.pass(Duration::from_secs(if losses { 200 } else { 25 }));
    let everyone: Vec<_> = (0..count).collect();
    world.agree(&everyone);
    for at in 0..count {
        let refused = world.members[at].events.iter().find(|event| {
            matches!(event, DmlsEvent::Refused { .. } | DmlsEvent::Disagreement { .. })
        });
        assert_eq!(refused, None, "seed {seed}");
        for from in (0..count).filter(|from| *from != at) {
            assert_eq!(world.data(at, from), sent[from], "seed {seed}: {from} to {at}");
        }
        assert_eq!(held(&world.members[at].session), (0, 0));
    }
}

// DM-09, DM-13
#[test]
fn every_message_arrives_once_in_order_and_all_agree() {
    for seed in 0..12 {
        run(seed, 3 + usize::try_from(seed % 3).unwrap(), 250, true, false);
    }
}

// DM-08
#[test]
fn the_same_without_leaf_replacement() {
    for seed in 100..106 {
        run(seed, 4, 250, false, false);
    }
}

// DM-14
#[test]
fn the_same_over_links_that_lose() {
    for seed in 200..208 {
        run(seed, 4, 250, true, true);
    }
}
