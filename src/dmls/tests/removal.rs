//! Removal and its cascade.

use super::*;

fn removed(world: &World, at: usize) -> Vec<(usize, usize)> {
    let event = |event: &DmlsEvent| match event {
        DmlsEvent::Removed { member, by } => Some((usize::from(member.0), usize::from(by.0))),
        _ => None,
    };
    world.members[at].events.iter().filter_map(event).collect()
}

// DM-12
#[test]
fn who_sees_a_removal_removes_too_and_the_removed_member_learns_it() {
    let mut world = Setup::default().joined(4);
    world.protect(3, b"before");
    world.act(0, |session, now| session.remove(now, index(3))).unwrap();
    world.deliver_all();
    for at in 0..3 {
        assert_eq!(removed(&world, at), [(3, 0)]);
        assert_eq!(world.members[at].session.epoch(index(3)), None, "the group is kept");
        assert_eq!(world.epochs(at)[..3], [Some(2); 3]);
        assert_eq!(world.members[at].session.members().count(), 3);
    }
    assert!(world.members[3].events.contains(&DmlsEvent::RemovedSelf { by: index(0) }));
    let refused = world.act(3, |session, now| session.protect(now, b"still here?"));
    assert_eq!(refused, Err(ApiMisuse::Closed.into()));
    world.protect(1, b"without 3");
    world.deliver_all();
    assert_eq!(world.data(2, 1), [b"without 3"]);
    assert!(world.data(3, 1).is_empty());
    world.agree(&[0, 1, 2]);
}

// DM-12: those who have not seen the removal still refer to the removed member's epochs.
#[test]
fn commits_that_refer_to_a_removed_member_are_still_followed() {
    let policy = DmlsPolicy { acknowledge_wait: Duration::ZERO, ..DmlsPolicy::manual() };
    let mut world = Setup { policy, ..Setup::default() }.joined(4);
    world.act(3, DmlsSession::update).unwrap();
    while world.on_link(3, 1) > 0 {
        world.deliver(3, 1);
    }
    assert!(world.act(1, DmlsSession::commit).unwrap());
    world.act(0, |session, now| session.remove(now, index(3))).unwrap();
    // Member 2 sees the removal first, then the commit that refers to the update.
    while world.on_link(0, 2) > 0 {
        world.deliver(0, 2);
    }
    while world.on_link(1, 2) > 0 {
        world.deliver(1, 2);
    }
    world.deliver_all();
    world.agree(&[0, 1, 2]);
    assert!(world.members.iter().all(|node| !node.events.iter().any(is_refusal)));
}

fn is_refusal(event: &DmlsEvent) -> bool {
    matches!(event, DmlsEvent::Refused { .. })
}

// DM-12, DM-16
#[test]
fn a_member_that_falls_silent_is_removed_and_its_keys_with_it() {
    let policy = DmlsPolicy {
        update_interval: Some(Duration::from_secs(60)),
        remove_unacknowledged_after: Some(Duration::from_secs(600)),
        ..DmlsPolicy::default()
    };
    let mut world = Setup { policy, ..Setup::default() }.joined(4);
    for other in 0..3 {
        world.cut.extend([(3, other), (other, 3)]);
    }
    world.pass(Duration::from_secs(500));
    assert!(removed(&world, 0).is_empty());
    assert!(world.members[0].events.contains(&DmlsEvent::Lagging { member: index(3) }));
    world.pass(Duration::from_secs(500));
    for at in 0..3 {
        assert_eq!(removed(&world, at).len(), 1);
        assert_eq!(removed(&world, at)[0].0, 3);
    }
    world.cut.clear();
    world.pass(Duration::from_secs(5));
    world.agree(&[0, 1, 2]);
    let session = &world.members[0].session;
    assert!(session.epochs.values().all(|epochs| epochs.len() <= 3));
}

#[test]
fn nobody_removes_itself_or_a_stranger() {
    let mut world = Setup::default().joined(2);
    for who in [0, 2, 9] {
        let result = world.act(0, |session, now| session.remove(now, index(who)));
        assert_eq!(result, Err(ApiMisuse::UnknownMember.into()));
    }
}

#[test]
fn the_last_member_goes_on_alone() {
    let mut world = Setup::default().joined(2);
    world.act(0, |session, now| session.remove(now, index(1))).unwrap();
    world.protect(0, b"to nobody");
    world.act(0, DmlsSession::update).unwrap();
    world.deliver_all();
    assert_eq!(world.members[0].session.members().count(), 1);
    assert!(world.members[1].session.members().count() == 2 && world.data(1, 0).is_empty());
    assert_eq!(world.members[1].session.poll_timeout(), None);
}

// DM-12: two removals that cross.
#[test]
fn removals_of_different_members_at_once_end_alike_everywhere() {
    let mut world = Setup::default().joined(5);
    world.act(3, DmlsSession::update).unwrap();
    world.act(4, DmlsSession::update).unwrap();
    world.act(0, |session, now| session.remove(now, index(3))).unwrap();
    world.act(1, |session, now| session.remove(now, index(4))).unwrap();
    let mut numbers = Numbers(7);
    while world.deliver_one(&mut numbers) {}
    world.pass(Duration::from_secs(30));
    world.agree(&[0, 1, 2]);
    for at in 0..3 {
        assert_eq!(world.members[at].session.members().count(), 3);
        assert_eq!(world.epochs(at)[3..], [None, None]);
    }
}

// A frame and all that could give it away again are lost.
#[test]
fn a_lonely_frame_that_nobody_got_is_sent_again() {
    let mut world = Setup::default().joined(3);
    world.pass(Duration::from_secs(60));
    world.protect(0, b"lonely");
    world.lose(0, 1);
    world.lose(0, 2);
    world.pass(Duration::from_secs(60));
    assert!([1, 2].iter().all(|at| world.data(*at, 0) == [b"lonely"]));
}

// DM-12: member 4 has incorporated 3 before it saw that 3 leaves, then 4 is removed as well, and
// member 1 has incorporated that very update of 4.
#[test]
fn who_leaves_first_is_kept_for_who_leaves_second() {
    let policy = DmlsPolicy { acknowledge_wait: Duration::ZERO, ..DmlsPolicy::manual() };
    let mut world = Setup { policy, leaf_replacement: false, ..Setup::default() }.joined(5);
    let deliver = |world: &mut World, from, to| {
        while world.on_link(from, to) > 0 {
            world.deliver(from, to);
        }
    };
    world.act(3, DmlsSession::update).unwrap();
    world.deliver_all();
    world.act(4, DmlsSession::update_and_commit).unwrap();
    world.act(0, |session, now| session.remove(now, index(3))).unwrap();
    for (from, to) in [(0, 1), (0, 2), (1, 2), (2, 1), (1, 0), (2, 0), (4, 1)] {
        deliver(&mut world, from, to);
    }
    assert!(world.act(1, DmlsSession::commit).unwrap());
    world.act(0, |session, now| session.remove(now, index(4))).unwrap();
    for (from, to) in [(0, 2), (4, 2), (1, 2)] {
        deliver(&mut world, from, to);
    }
    world.pass(Duration::from_secs(30));
    assert!(world.members.iter().all(|node| !node.events.iter().any(is_refusal)));
    world.agree(&[0, 1, 2]);
    assert_eq!(world.epochs(2)[3..], [None, None]);
}
