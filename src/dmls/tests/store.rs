//! Sessions that are stored and restored.

use super::*;
use crate::error::SessionError;

fn world() -> World {
    Setup { stores: true, ..Setup::default() }.joined(3)
}

#[test]
fn a_restored_session_commits_before_it_sends() {
    let mut world = world();
    world.act(0, DmlsSession::update).unwrap();
    world.protect(0, b"before the crash");
    world.pass(Duration::from_secs(12));
    let used: Vec<_> = world.recorded.iter().map(|(_, frame)| frame.clone()).collect();
    world.restore(0);
    let epoch = world.members[0].session.epoch(index(0)).unwrap();
    world.protect(0, b"after the crash");
    assert_eq!(world.members[0].session.epoch(index(0)), Some(epoch + 1));
    world.deliver_all();
    for at in [1, 2] {
        assert_eq!(world.data(at, 0), [&b"before the crash"[..], b"after the crash"]);
    }
    assert!(world.recorded[used.len()..].iter().all(|(_, frame)| !used.contains(frame)));
    world.agree(&[0, 1, 2]);
}

#[test]
fn everyone_can_crash_and_the_universe_goes_on() {
    let mut world = world();
    for round in 0..3_u8 {
        for member in 0..3 {
            world.act(member, DmlsSession::update_and_commit).unwrap();
            world.protect(member, &[round]);
        }
        world.pass(Duration::from_secs(25));
        for member in 0..3 {
            world.restore(member);
        }
        world.pass(Duration::from_secs(25));
        world.agree(&[0, 1, 2]);
    }
    for member in 0..3 {
        world.act(member, DmlsSession::commit).unwrap();
    }
    world.deliver_all();
    world.agree(&[0, 1, 2]);
    // What was not stored yet when a receiver crashed may come twice; in order it is all the same.
    for at in 0..3 {
        for from in (0..3).filter(|from| *from != at) {
            let mut data = world.data(at, from);
            data.dedup();
            assert_eq!(data, [[0], [1], [2]]);
        }
    }
}

#[test]
fn lost_commits_are_sent_again_from_the_store() {
    let mut world = world();
    world.act(0, DmlsSession::update).unwrap();
    world.lose(0, 1);
    world.lose(0, 2);
    world.restore(0);
    world.protect(0, b"after the crash");
    world.pass(Duration::from_secs(60));
    world.agree(&[0, 1, 2]);
    assert_eq!(world.data(1, 0), [b"after the crash"]);
}

#[test]
fn a_session_that_was_restored_elsewhere_is_dead() {
    let mut world = world();
    let node = &mut world.members[0];
    let config = Arc::clone(&node.config);
    let restored = DmlsSession::restore(config, node.policy, b"universe", world.now).unwrap();
    let mut old = std::mem::replace(&mut node.session, restored);
    world.act(0, DmlsSession::update).unwrap();
    old.update(world.now).unwrap();
    assert_eq!(old.poll_frame().unwrap_err(), SessionError::Superseded.into());
    assert_eq!(old.protect(world.now, b"no"), Err(SessionError::Superseded.into()));
}

#[test]
fn what_is_not_stored_or_damaged_is_reported() {
    let mut world = world();
    let config = Arc::clone(&world.members[0].config);
    let policy = world.members[0].policy;
    let error = DmlsSession::restore(config, policy, b"another", world.now).unwrap_err();
    assert_eq!(error, SessionError::Unknown.into());
    let bare = Setup::default().configs(1).remove(0);
    let error = DmlsSession::restore(bare, policy, b"universe", world.now).unwrap_err();
    assert_eq!(error, SessionError::Unknown.into());
    let blob = world.members[0].session.to_blob_for_tests();
    for length in [0, 3, 6, 100, blob.len() - 1] {
        assert!(!DmlsSession::is_blob(&blob[..length]));
    }
    assert!(DmlsSession::is_blob(&blob));
    world.restore(0);
    let session = Setup::default().joined(2).members.remove(0).session;
    session.forget().unwrap();
}
