//! Members that break the rules. Only their own Send Groups suffer (DM-19).

use super::*;
use crate::{
    group::send::{CommitPlan, Psk},
    wire::{CommitFrame, EpochRef, Opaque},
};

pub(super) const MALLORY: usize = 2;

/// Three members, of which the last one is Mallory.
pub(super) fn world() -> World {
    Setup::default().joined(3)
}

/// What everyone but Mallory's Send Group can still do.
pub(super) fn assert_unharmed(world: &mut World) {
    world.pass(Duration::from_secs(3));
    world.clear();
    for member in [0, 1] {
        world.act(member, DmlsSession::update).unwrap();
        world.protect(member, b"unharmed");
    }
    world.pass(Duration::from_secs(12));
    for member in [0, 1] {
        world.act(member, DmlsSession::commit).unwrap();
        world.protect(member, b"and healed");
    }
    world.deliver_all();
    world.agree(&[0, 1]);
    assert_eq!(world.data(0, 1), [&b"unharmed"[..], b"and healed"]);
    assert_eq!(world.data(1, 0), [&b"unharmed"[..], b"and healed"]);
}

pub(super) fn refusals(world: &World, at: usize) -> Vec<Error> {
    let event = |event: &DmlsEvent| match event {
        DmlsEvent::Refused { member, error } => {
            assert_eq!(*member, index(MALLORY), "somebody else was refused: {error}");
            Some(error.clone())
        }
        _ => None,
    };
    world.members[at].events.iter().filter_map(event).collect()
}

/// A commit of Mallory's, with whatever header and plan.
pub(super) fn forged_commit(
    world: &mut World,
    imports: Vec<EpochRef>,
    proposals: Vec<Vec<u8>>,
    plan: CommitPlan<'_>,
) -> Bytes {
    let session = &mut world.members[MALLORY].session;
    let header = session.next_header(DmlsMessageType::Commit, imports, Vec::new()).unwrap();
    let plan = CommitPlan { authenticated_data: header, ..plan };
    let own = session.own.as_mut().unwrap();
    let (commit, _) = own.commit(plan).unwrap();
    let signature = Opaque(own.sign_commit(&proposals, &commit).unwrap());
    let proposals = proposals.into_iter().map(Opaque).collect();
    let commit = Opaque(commit);
    let body = encode_frame_part(&CommitFrame { proposals, commit, signature }).unwrap();
    Frame::new(DmlsMessageType::Commit, &body).unwrap().encoded().clone()
}

fn hand_to_all(world: &mut World, frame: &Bytes) {
    for to in [0, 1] {
        world.hand(MALLORY, to, frame.clone());
    }
}

// DM-01
#[test]
fn sending_in_the_send_group_of_another_is_refused() {
    let mut world = world();
    let session = &mut world.members[MALLORY].session;
    let header = session.next_header(DmlsMessageType::Message, Vec::new(), Vec::new()).unwrap();
    let group = session.peers.get_mut(&0).unwrap().group.as_mut().unwrap();
    let message = group.seal(header, b"I am member 0").unwrap();
    let frame = Frame::new(DmlsMessageType::Message, &message).unwrap().encoded().clone();
    world.hand(MALLORY, 1, frame.clone());
    assert_eq!(world.members[1].errors, [PeerMisbehaved::NotTheOwner.into()]);
    // Even if the transport lies about where it is from, nothing is delivered as the owner's.
    world.hand(0, 1, frame);
    assert!(world.data(1, 0).is_empty());
}

// DM-01
#[test]
fn a_frame_of_no_send_group_is_refused() {
    let mut other = Setup::default().joined(3);
    let mut world = world();
    other.protect(MALLORY, b"elsewhere");
    let (_, frame) = other.recorded.pop().unwrap();
    for (place, byte) in frame.clone().iter().enumerate() {
        let mut changed = frame.to_vec();
        changed[place] = byte ^ 1;
        // Lengths of MLS vectors trip a debug assertion of the decoder.
        if !(4..60).contains(&place) {
            let _ = world.members[0].session.handle_frame(world.now, index(MALLORY), changed);
        }
    }
    world.collect(0);
    assert_unharmed(&mut world);
}

// DM-07
#[test]
fn a_leaf_that_is_not_that_of_the_epoch_is_refused() {
    let mut world = world();
    world.act(0, DmlsSession::update).unwrap();
    world.pass(Duration::from_secs(2));
    // The key of member 0, but its leaf is left as it was.
    let session = &world.members[MALLORY].session;
    let entry = session.epochs[&0].get(2).unwrap();
    let import = session.epochs[&0].reference(0);
    let id = psk::psk_id(2, &session.roster.members[0].group_id);
    let secret = entry.psk.clone();
    let plan = CommitPlan {
        psks: vec![Psk { id: &id, secret: &secret }],
        update: true,
        ..CommitPlan::default()
    };
    let frame = forged_commit(&mut world, vec![import], Vec::new(), plan);
    hand_to_all(&mut world, &frame);
    for at in [0, 1] {
        let error = PeerMisbehaved::InvalidLeaf("not one for each import").into();
        assert_eq!(refusals(&world, at), [error]);
        assert_eq!(world.members[at].session.epoch(index(MALLORY)), Some(1));
    }
    assert_unharmed(&mut world);
}

// DM-05, DM-13
#[test]
fn a_key_of_an_epoch_that_never_was_is_refused_or_waited_for() {
    for (epoch, is_refused) in [(1, true), (0, true), (1_000_000, false)] {
        let mut world = world();
        world.act(0, DmlsSession::update).unwrap();
        world.pass(Duration::from_secs(2));
        let import = EpochRef { member: 0, epoch, digest: [0; 16] };
        let id = psk::psk_id(epoch, b"send group 0");
        let plan = CommitPlan {
            psks: vec![Psk { id: &id, secret: &[1; 32] }],
            update: true,
            ..CommitPlan::default()
        };
        let frame = forged_commit(&mut world, vec![import], Vec::new(), plan);
        world.hand(MALLORY, 1, frame);
        let expected: &[Error] = &[PeerMisbehaved::InvalidPsk.into()];
        assert_eq!(refusals(&world, 1), if is_refused { expected } else { &[] });
        assert_eq!(world.members[1].session.epoch(index(MALLORY)), Some(1));
        assert_unharmed(&mut world);
    }
}

// DM-05: the header is authenticated by Mallory, who can still lie in it.
#[test]
fn a_header_that_hides_an_import_is_refused() {
    let mut world = world();
    world.act(0, DmlsSession::update).unwrap();
    world.pass(Duration::from_secs(2));
    let import = world.members[MALLORY].session.epochs[&0].reference(0);
    let plan = CommitPlan { update: true, ..CommitPlan::default() };
    let frame = forged_commit(&mut world, vec![import], Vec::new(), plan);
    world.hand(MALLORY, 1, frame);
    assert_eq!(refusals(&world, 1), [PeerMisbehaved::InvalidHeader("other imports").into()]);
    assert_unharmed(&mut world);
}

// DM-19: Mallory shows two members two commits for one epoch.
#[test]
fn a_fork_is_found_out_and_incorporated_by_nobody() {
    // Without leaf replacement nothing but the disagreement keeps it from being incorporated.
    let setup = Setup { stores: true, leaf_replacement: false, ..Setup::default() };
    let mut world = setup.joined(3);
    let twin = {
        let session = &world.members[MALLORY].session;
        session.own.as_ref().unwrap().steal()
    };
    let plan = || CommitPlan { update: true, ..CommitPlan::default() };
    let first = forged_commit(&mut world, Vec::new(), Vec::new(), plan());
    world.members[MALLORY].session.own = Some(twin);
    let second = forged_commit(&mut world, Vec::new(), Vec::new(), plan());
    assert_ne!(first, second);
    world.hand(MALLORY, 0, first);
    world.hand(MALLORY, 1, second);
    world.pass(Duration::from_secs(3));
    for at in [0, 1] {
        let told = DmlsEvent::Disagreement { about: index(MALLORY), reporter: index(1 - at) };
        assert!(world.members[at].events.contains(&told));
    }
    world.pass(Duration::from_secs(30));
    assert!(!world.act(0, DmlsSession::commit).unwrap());
    assert_unharmed(&mut world);
}

// DM-13
#[test]
fn replays_change_nothing() {
    let mut world = world();
    for round in 0..3_u8 {
        for member in 0..3 {
            world.act(member, DmlsSession::update_and_commit).unwrap();
            world.protect(member, &[round]);
        }
        world.pass(Duration::from_secs(11));
    }
    let epochs: Vec<_> = (0..3).map(|at| world.epochs(at)).collect();
    for (from, frame) in std::mem::take(&mut world.recorded) {
        for to in (0..3).filter(|to| *to != from) {
            world.hand(from, to, frame.clone());
        }
    }
    world.deliver_all();
    for (at, expected) in epochs.iter().enumerate() {
        assert_eq!(world.epochs(at), *expected);
        for from in (0..3).filter(|from| *from != at) {
            assert_eq!(world.data(at, from), [[0], [1], [2]]);
        }
    }
    assert_unharmed(&mut world);
}

// DM-13, DM-19
#[test]
fn a_flood_of_future_frames_is_bounded() {
    let policy = DmlsPolicy {
        max_waiting_frames: 50,
        max_waiting_bytes: 100_000,
        max_frame_size: 10_000,
        ..DmlsPolicy::manual()
    };
    let mut world = Setup { policy, ..Setup::default() }.joined(3);
    world.protect(MALLORY, b"held back");
    world.lose(MALLORY, 0);
    for _ in 0..200 {
        world.protect(MALLORY, &[7; 5000]);
    }
    while world.on_link(MALLORY, 0) > 0 {
        world.deliver(MALLORY, 0);
        let (frames, bytes) = held(&world.members[0].session);
        assert!(frames <= 50 && bytes <= 100_000);
    }
    assert!(world.data(0, MALLORY).is_empty());
    // What did not fit is asked for, part by part.
    world.pass(Duration::from_secs(30));
    assert_eq!(world.data(0, MALLORY).len(), 201);
    assert_unharmed(&mut world);
}

// DM-19, CH-10
#[test]
fn a_gigantic_frame_is_refused_by_its_header() {
    let mut world = world();
    let mut frame = vec![6, 0xff, 0xff, 0xff];
    frame.resize(100, 0);
    world.hand(MALLORY, 0, frame.into());
    assert!(matches!(
        world.members[0].errors[..],
        [Error::InvalidMessage(crate::error::InvalidMessage::MessageTooLong { .. })]
    ));
    let refused = world.act(0, |session, now| session.protect(now, &vec![0; 2 << 20]));
    assert_eq!(refused, Err(ApiMisuse::MessageTooLong.into()));
    assert_unharmed(&mut world);
}

// DM-11, DM-19
#[test]
fn a_flood_of_updates_waits_and_costs_a_bounded_number_of_keys() {
    let mut world = world();
    for to in [0, 1] {
        // Nobody acknowledges anything.
        world.cut.push((to, MALLORY));
    }
    world.cut.push((0, 1));
    for _ in 0..100 {
        let plan = CommitPlan { update: true, ..CommitPlan::default() };
        let frame = forged_commit(&mut world, Vec::new(), Vec::new(), plan);
        let session = &mut world.members[MALLORY].session;
        session.outbox.push(&frame, true, usize::MAX);
        world.hand(MALLORY, 1, frame);
    }
    let session = &world.members[1].session;
    assert!(session.epochs[&2].len() <= 64 + 3);
    assert_eq!(held(session).0 + session.epochs[&2].len(), 100);
}

// DM-16: who keeps the rules stops before.
#[test]
fn own_updates_stop_while_nobody_acknowledges() {
    let mut world = world();
    world.cut.extend([(1, 0), (2, 0)]);
    let mut updates = 0;
    while world.act(0, DmlsSession::update).is_ok() {
        updates += 1;
        world.deliver_all();
    }
    assert_eq!(updates, 32);
    assert_eq!(world.act(0, DmlsSession::update).unwrap_err(), ApiMisuse::TooManyUpdates.into());
    world.protect(0, b"protecting waits for nobody");
    world.deliver_all();
    assert_eq!(world.data(1, 0).len(), 1);
}

// DM-06, DM-19
#[test]
fn a_leaf_update_of_somebody_else_is_refused() {
    let mut world = world();
    world.act(1, DmlsSession::update).unwrap();
    let (_, leaf_update) =
        world.recorded.iter().rfind(|(from, frame)| *from == 1 && frame[0] == 5).cloned().unwrap();
    // The one for Mallory, whichever it is, is not for member 0, or is not Mallory's.
    for to in [0, 1] {
        world.hand(MALLORY, to, leaf_update.clone());
    }
    assert!(!world.members[0].errors.is_empty() && !world.members[1].errors.is_empty());
    assert!(world.members[0].session.peers[&2].proposal.is_none());
    world.deliver_all();
    assert_unharmed(&mut world);
}

// DM-11
#[test]
fn an_acknowledgement_of_what_was_never_sent_is_refused() {
    let mut world = world();
    let entry = crate::wire::Received {
        newest: EpochRef { member: 0, epoch: 99, digest: [0; 16] },
        next: 1_000,
    };
    let data = encode_frame_part(&crate::wire::Acknowledgement { entries: vec![entry] }).unwrap();
    let now = world.now;
    let session = &mut world.members[MALLORY].session;
    session.send_sealed(now, DmlsMessageType::Acknowledge, &data).unwrap();
    world.collect(MALLORY);
    world.deliver_all();
    let error = PeerMisbehaved::InvalidHeader("of an Acknowledge").into();
    assert_eq!(refusals(&world, 0), [error]);
    assert_unharmed(&mut world);
}

// DM-02
#[test]
fn strangers_and_wrong_universes_are_refused() {
    let now = start();
    let configs = Setup::default().configs(2);
    let stranger = Config::builder()
        .identity(Identity::generate("stranger").unwrap())
        .authentication_service(AcceptAnyone)
        .build()
        .unwrap();
    let own = DmlsKeyPackages::new(&configs[0], now).unwrap();
    let theirs = DmlsKeyPackages::new(&stranger, now).unwrap();
    let member = |packages: &DmlsKeyPackages, id: &str| DmlsMember {
        key_packages: packages.frame().clone(),
        send_group_id: id.into(),
    };
    let universe = DmlsUniverse::new("u", vec![member(&own, "a"), member(&theirs, "b")]);
    let policy = DmlsPolicy::manual();
    let error = DmlsSession::create(configs[0].clone(), policy, &universe, own, now).unwrap_err();
    assert!(matches!(error, Error::PeerNotTrusted(_)), "{error}");
}

// DM-06, DM-07: a member and Mallory agree on another leaf than the one of the update.
#[test]
fn a_leaf_of_another_key_is_refused_by_receivers_and_by_owners() {
    use crate::group::send::LeafSeed;

    let mut world = world();
    world.act(0, DmlsSession::update).unwrap();
    world.pass(Duration::from_secs(2));
    let other = LeafSeed::new(zeroize::Zeroizing::new(vec![9; 32]));
    let header = encode_frame_part(&crate::wire::LeafHeader { message_type: 5, epoch: 2 }).unwrap();
    let accomplice = &mut world.members[0].session;
    let group = accomplice.peers.get_mut(&2).unwrap().group.as_mut().unwrap();
    let proposal = group.propose_leaf(&other, header.clone()).unwrap();
    let received = {
        let session = &mut world.members[MALLORY].session;
        session.own.as_mut().unwrap().receive_proposal(&proposal).unwrap()
    };
    let session = &world.members[MALLORY].session;
    let import = session.epochs[&0].reference(0);
    let secret = session.epochs[&0].get(2).unwrap().psk.clone();
    let id = psk::psk_id(2, b"send group 0");
    let plan = CommitPlan {
        psks: vec![Psk { id: &id, secret: &secret }],
        leaves: vec![&received],
        ..CommitPlan::default()
    };
    let frame = forged_commit(&mut world, vec![import], vec![proposal], plan);
    world.hand(MALLORY, 1, frame);
    assert_eq!(refusals(&world, 1), [PeerMisbehaved::InvalidLeaf("not that of the epoch").into()]);

    // The owner of a Send Group compares too, before it commits.
    let session = &mut world.members[0].session;
    let group = session.peers.get_mut(&1).unwrap().group.as_mut().unwrap();
    let proposal = group.propose_leaf(&other, header).unwrap();
    let frame = Frame::new(DmlsMessageType::LeafUpdate, &proposal).unwrap().encoded().clone();
    world.members[1].session.peers.get_mut(&0).unwrap().proposal = None;
    world.members[1].errors.clear();
    world.hand(0, 1, frame);
    let error = PeerMisbehaved::InvalidLeaf("not that of the epoch").into();
    assert_eq!(world.members[1].errors, [error]);
    assert!(world.members[1].session.peers[&0].proposal.is_none());
}
