//! Frames that others pass on.

use super::*;
use crate::wire::{CommitFrame, Opaque, ResendFrame, ResendOfFrame};

fn policy() -> DmlsPolicy {
    DmlsPolicy { acknowledge_wait: Duration::ZERO, ..DmlsPolicy::manual() }
}

fn setup() -> Setup {
    Setup { policy: policy(), ..Setup::default() }
}

fn vanish(world: &mut World, member: usize) {
    for other in (0..world.members.len()).filter(|other| *other != member) {
        world.cut.extend([(member, other), (other, member)]);
    }
}

// DM-13, DM-14: what only one member has got of another one that has gone is not lost for the rest.
#[test]
fn frames_of_a_member_that_vanished_come_from_those_who_have_them() {
    let mut world = setup().joined(4);
    world.act(3, DmlsSession::update).unwrap();
    world.protect(3, b"last words");
    while world.on_link(3, 0) > 0 {
        world.deliver(3, 0);
    }
    vanish(&mut world, 3);
    assert!(world.act(0, DmlsSession::commit).unwrap());
    world.protect(0, b"refers to it");
    world.pass(Duration::from_secs(30));
    for at in [1, 2] {
        assert_eq!(world.data(at, 3), [b"last words"]);
        assert_eq!(world.data(at, 0), [b"refers to it"]);
    }
    world.agree(&[0, 1, 2]);
    // What all have is not kept any longer.
    world.pass(Duration::from_secs(30));
    world.act(0, |session, now| session.remove(now, index(3))).unwrap();
    world.pass(Duration::from_secs(60));
    for at in [0, 1, 2] {
        let peers = &world.members[at].session.peers;
        assert_eq!(peers[&3].inbound.kept_bytes(), 0);
    }
}

// DM-12, DM-14: nobody waits for a member that was removed to answer.
#[test]
fn frames_of_a_member_that_was_removed_come_from_others_at_once() {
    let mut world = setup().joined(4);
    world.act(3, DmlsSession::update).unwrap();
    while world.on_link(3, 0) > 0 {
        world.deliver(3, 0);
    }
    vanish(&mut world, 3);
    assert!(world.act(0, DmlsSession::commit).unwrap());
    world.act(2, |session, now| session.remove(now, index(3))).unwrap();
    while world.on_link(2, 1) > 0 {
        world.deliver(2, 1);
    }
    world.pass(Duration::from_millis(500));
    world.agree(&[0, 1, 2]);
    assert!((0..3).all(|at| world.members[at].session.members().count() == 3));
}

// DM-19
#[test]
fn what_is_passed_on_is_not_believed() {
    let mut world = setup().joined(3);
    world.protect(0, b"genuine");
    let (_, genuine) = world.recorded.last().cloned().unwrap();
    world.lose(0, 1);
    let mut forged = genuine.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    // Member 2 passes on what it has made up, then what is genuine.
    let passed = DmlsSession::forward(index(0), &forged).unwrap();
    world.hand(2, 1, passed);
    assert!(world.members[1].events.iter().any(|event| {
        matches!(event, DmlsEvent::Discarded { member, .. } if *member == index(0))
    }));
    assert!(world.data(1, 0).is_empty());
    let passed = DmlsSession::forward(index(0), &genuine).unwrap();
    world.hand(2, 1, passed.clone());
    assert_eq!(world.data(1, 0), [b"genuine"]);
    // Once.
    world.hand(2, 1, passed);
    world.hand(0, 1, genuine.clone());
    assert_eq!(world.data(1, 0), [b"genuine"]);
    // A relay that is no member does it with a call. A frame of this party itself is nothing new.
    world.protect(0, b"by a relay");
    let (_, relayed) = world.recorded.last().cloned().unwrap();
    world.lose(0, 1);
    world.act(1, |session, now| session.handle_forwarded(now, index(0), relayed)).unwrap();
    assert_eq!(world.data(1, 0).len(), 2);
    world.act(0, |session, now| session.handle_forwarded(now, index(0), genuine.clone())).unwrap();
    // Whose it is said to be decides nothing, and frames for one member are not passed on.
    for (of, expected) in
        [(2, PeerMisbehaved::NotTheOwner.into()), (9, ApiMisuse::UnknownMember.into())]
    {
        let frame = genuine.clone();
        let result = world.act(1, |session, now| session.handle_forwarded(now, index(of), frame));
        assert_eq!(result, Err(expected));
    }
    let nested = DmlsSession::forward(index(0), &DmlsSession::forward(index(0), &genuine).unwrap());
    world.hand(2, 1, nested.unwrap());
    let error = PeerMisbehaved::UnexpectedMessage("Forwarded");
    assert_eq!(world.members[1].errors, [error.into()]);
    world.deliver_all();
    world.agree(&[0, 1, 2]);
}

// DM-19: a made-up commit that waits for an epoch that never comes does not hold the genuine one up.
#[test]
fn a_made_up_commit_keeps_no_genuine_one_out() {
    for by_its_sender in [true, false] {
        let mut world = setup().joined(3);
        world.act(0, DmlsSession::update).unwrap();
        let frames: Vec<_> = world.recorded.iter().map(|(_, frame)| frame.clone()).collect();
        let genuine = frames.into_iter().rfind(|frame| frame[0] == 4).unwrap();
        world.lose(0, 1);
        let import = EpochRef { member: 2, epoch: 99, digest: [0; 16] };
        let sequence = world.members[0].session.outbox.next() - 1;
        let session = &mut world.members[2].session;
        let header = FrameHeader {
            message_type: 4,
            sequence,
            resumed_from: None,
            imports: vec![import],
            digest: Opaque::default(),
        };
        let header = encode_frame_part(&header).unwrap();
        let group = session.peers.get_mut(&0).unwrap().group.as_mut().unwrap();
        let mut commit = group.seal(header, b"").unwrap();
        let content_type = 4 + 1 + group.id().len() + 8;
        commit[content_type] = 3;
        let (commit, signature) = (Opaque(commit), Opaque::default());
        let body = CommitFrame { proposals: Vec::new(), commit, signature };
        let body = encode_frame_part(&body).unwrap();
        let forged = Frame::new(DmlsMessageType::Commit, &body).unwrap();
        world.hand(2, 1, DmlsSession::forward(index(0), forged.encoded()).unwrap());
        assert_eq!(world.members[1].session.peers[&0].inbound.waiting().0, 1);
        if by_its_sender {
            world.hand(0, 1, genuine);
        } else {
            // It is still asked for.
            world.pass(Duration::from_secs(1));
        }
        assert_eq!(world.members[1].session.epoch(index(0)), Some(2));
        world.deliver_all();
        world.agree(&[0, 1, 2]);
    }
}

// DM-19: keeping frames for others costs a bounded amount, and the loudest gives way first.
#[test]
fn frames_for_others_are_kept_within_bounds() {
    let policy = DmlsPolicy { max_forwarded_bytes: 50_000, ..policy() };
    let mut world = Setup { policy, ..Setup::default() }.joined(4);
    world.pass(Duration::from_secs(30));
    world.cut.push((0, 2));
    world.cut.push((3, 2));
    world.protect(0, b"a quiet word");
    for _ in 0..100 {
        world.protect(3, &[7; 4000]);
    }
    world.deliver_all();
    let kept = |world: &World, of: u16| {
        let inbound = &world.members[1].session.peers[&of].inbound;
        (inbound.kept(0, u64::MAX).count(), inbound.kept_bytes())
    };
    assert!(kept(&world, 3).1 <= 50_000 && kept(&world, 3).0 >= 10);
    let quiet = kept(&world, 0).0;
    assert!(quiet >= 1);
    // Asking is answered, and not more often than it can be needed.
    let ask = |of, first, end| {
        let frame = ResendOfFrame { member: of, wanted: ResendFrame { first, end } };
        let body = encode_frame_part(&frame).unwrap();
        Frame::new(DmlsMessageType::ResendOf, &body).unwrap().encoded().clone()
    };
    let before = world.on_link(1, 2);
    for _ in 0..3 {
        world.hand(2, 1, ask(0, 0, u64::MAX));
    }
    assert_eq!(world.on_link(1, 2), before + quiet);
    world.hand(2, 1, ask(9, 0, 1));
    let error = PeerMisbehaved::InvalidHeader("of a ResendOf").into();
    assert_eq!(world.members[1].errors, [error]);
}

// DM-19: every member knows the key of the content, and can encrypt something else under it.
#[test]
fn the_content_of_a_bulk_message_cannot_be_exchanged() {
    let mut world = setup().joined(3);
    let data = vec![7; 10_000];
    world.protect(0, &data);
    let (_, genuine) = world.recorded.last().cloned().unwrap();
    assert_eq!(genuine[0], u8::from(DmlsMessageType::BulkMessage));
    world.lose(0, 1);
    let mut changed = genuine.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    world.hand(2, 1, DmlsSession::forward(index(0), &changed).unwrap());
    let told =
        DmlsEvent::Discarded { member: index(0), error: PeerMisbehaved::BadRecordMac.into() };
    assert!(world.members[1].events.contains(&told));
    // The genuine one still opens: nothing was used up.
    world.hand(2, 1, DmlsSession::forward(index(0), &genuine).unwrap());
    assert_eq!(world.data(1, 0), [&data[..]]);
    // From its sender it is the sender's fault.
    world.protect(0, &data);
    let (_, genuine) = world.recorded.last().cloned().unwrap();
    world.lose(0, 1);
    let mut changed = genuine.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    world.hand(0, 1, changed.into());
    assert!(world.members[1].session.peers[&0].inbound.closed().is_some());
}

// DM-19: a message of another kind in a frame could use up what a commit will need.
#[test]
fn a_proposal_is_no_message() {
    let mut world = setup().joined(3);
    world.act(2, DmlsSession::update).unwrap();
    let leaf_update = world.recorded.iter().rev().find(|(from, frame)| {
        let frame = Frame::parse(frame.clone(), usize::MAX).unwrap();
        let is_for_0 = frame.body().windows(12).any(|bytes| bytes == b"send group 0");
        *from == 2 && frame.message_type == DmlsMessageType::LeafUpdate && is_for_0
    });
    let mut disguised = leaf_update.unwrap().1.to_vec();
    disguised[0] = DmlsMessageType::Message.into();
    world.hand(2, 1, DmlsSession::forward(index(0), &disguised).unwrap());
    assert!(!world.members[1].errors.is_empty());
    assert_eq!(world.members[1].session.peers[&0].inbound.waiting().0, 0);
}
