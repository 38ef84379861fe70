//! Forward secrecy and post-compromise security (DM-20): a thief takes the whole state of a member,
//! the signature key included, and reads what is on the wire.

use super::*;
use crate::group::send::SendGroup;

/// What a thief can do with a stolen session, who sees every frame: it is another instance of the
/// victim that never sends.
struct Thief(DmlsSession);

fn steal(world: &World, victim: usize) -> Thief {
    let session = &world.members[victim].session;
    let blob = session.to_blob_for_tests();
    let config = Arc::clone(&world.members[victim].config);
    Thief(DmlsSession::from_stolen(&blob, config, world.members[victim].policy, world.now))
}

impl Thief {
    /// Follows what was sent, and gives the data that it could read of a sender.
    fn read(&mut self, world: &World, frames: &[(usize, Bytes)], of: usize) -> Vec<Vec<u8>> {
        for (from, frame) in frames {
            if index(*from).0 != self.0.roster.me {
                let _ = self.0.handle_frame(world.now, index(*from), frame.clone());
            }
        }
        let mut data = Vec::new();
        while let Some(event) = self.0.poll_event() {
            if let DmlsEvent::Message { from, data: read } = event
                && from == index(of)
            {
                data.push(read.to_vec());
            }
        }
        data
    }

    /// Tries every stolen group on every frame, whatever the order.
    fn opens_any(&mut self, frames: &[(usize, Bytes)]) -> bool {
        let groups: Vec<SendGroup> =
            self.0.peers.values_mut().filter_map(|peer| peer.group.take()).collect();
        let mut groups = groups;
        frames.iter().filter(|(_, frame)| frame[0] == u8::from(DmlsMessageType::Message)).any(
            |(_, frame)| {
                let frame = Frame::parse(frame.clone(), usize::MAX).unwrap();
                groups.iter_mut().any(|group| group.open(frame.body()).is_ok())
            },
        )
    }
}

fn universe(leaf_replacement: bool) -> World {
    let setup = Setup { stores: true, leaf_replacement, ..Setup::default() };
    let mut world = setup.joined(3);
    for member in 0..3 {
        world.act(member, DmlsSession::update).unwrap();
    }
    world.pass(Duration::from_secs(12));
    for member in 0..3 {
        world.act(member, DmlsSession::commit).unwrap();
    }
    world.pass(Duration::from_secs(12));
    world
}

// DM-20, a control: without healing the thief reads on.
#[test]
fn a_thief_reads_on_until_the_victim_updates() {
    let mut world = universe(true);
    let mut thief = steal(&world, 2);
    let before = world.recorded.len();
    world.act(1, DmlsSession::update).unwrap();
    world.protect(1, b"read by the thief");
    world.deliver_all();
    assert_eq!(thief.read(&world, &world.recorded[before..], 1), [b"read by the thief"]);
}

// DM-20: after the victim's update and the commits of the others, nothing opens any more.
#[test]
fn after_an_update_and_the_commits_of_the_others_a_thief_reads_nothing() {
    let mut world = universe(true);
    let mut thief = steal(&world, 2);
    let before = world.recorded.len();
    world.act(2, DmlsSession::update).unwrap();
    world.pass(Duration::from_secs(3));
    for member in [0, 1] {
        assert!(world.act(member, DmlsSession::commit).unwrap());
    }
    world.deliver_all();
    for member in 0..3 {
        world.protect(member, b"healed");
    }
    world.act(0, DmlsSession::update).unwrap();
    world.protect(0, b"healed for good");
    world.deliver_all();
    let frames = world.recorded[before..].to_vec();
    for of in [0, 1] {
        assert!(thief.read(&world, &frames, of).is_empty());
    }
    assert!(!thief.opens_any(&frames));
    assert_eq!(world.data(2, 0).last().unwrap(), b"healed for good");
}

// DM-20: what the documentation says of universes without leaf replacement. The imported key shuts
// the thief out of the owner's group, but the victim's leaf there is still the stolen one.
#[test]
fn pre_shared_keys_alone_shut_a_thief_out_but_leave_the_stolen_leaf() {
    let mut world = universe(false);
    let stolen =
        world.members[0].session.own.as_ref().unwrap().leaf(Roster::leaf_in(0, 2)).unwrap();
    let mut thief = steal(&world, 2);
    let before = world.recorded.len();
    world.act(2, DmlsSession::update).unwrap();
    world.pass(Duration::from_secs(3));
    assert!(world.act(0, DmlsSession::commit).unwrap());
    world.protect(0, b"healed by the key alone");
    // The update of the victim can be followed by nobody who has only its old state.
    world.deliver_all();
    assert!(thief.read(&world, &world.recorded[before..], 0).is_empty());
    let leaf = world.members[0].session.own.as_ref().unwrap().leaf(Roster::leaf_in(0, 2)).unwrap();
    assert!(leaf == stolen, "the leaf was replaced");
}

/// What a thief reads who gets hold of the key that was imported after the theft.
fn read_with_the_imported_key(leaf_replacement: bool) -> Vec<Vec<u8>> {
    let mut world = universe(leaf_replacement);
    let mut thief = steal(&world, 2);
    let before = world.recorded.len();
    world.act(2, DmlsSession::update).unwrap();
    world.pass(Duration::from_secs(3));
    assert!(world.act(0, DmlsSession::commit).unwrap());
    world.act(0, DmlsSession::update).unwrap();
    world.protect(0, b"after another path");
    world.deliver_all();
    let known = &world.members[0].session.epochs[&2];
    let entry = known.get(known.newest()).unwrap();
    let entry =
        psk::EpochEntry { psk: entry.psk.clone(), leaf: entry.leaf.clone(), digest: entry.digest };
    let epochs = thief.0.epochs.get_mut(&2).unwrap();
    epochs.insert(known.newest(), entry, world.now.monotonic);
    thief.read(&world, &world.recorded[before..], 0)
}

// DM-20: the same, for whom the imported key is not enough.
#[test]
fn only_with_leaf_replacement_a_stolen_key_does_not_let_a_thief_in_again() {
    assert_eq!(read_with_the_imported_key(false), [b"after another path"]);
    assert!(read_with_the_imported_key(true).is_empty());
}

// DM-20: what was sent in earlier epochs cannot be read with later state.
#[test]
fn a_thief_cannot_read_what_was_recorded_before() {
    let mut world = universe(true);
    let before = world.recorded.len();
    for member in 0..3 {
        world.protect(member, b"long ago");
    }
    world.pass(Duration::from_secs(12));
    for member in 0..3 {
        world.act(member, DmlsSession::update).unwrap();
    }
    world.pass(Duration::from_secs(12));
    let mut thief = steal(&world, 2);
    assert!(!thief.opens_any(&world.recorded[before..]));
}
