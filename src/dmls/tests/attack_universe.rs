//! Members that reach for the Send Groups of others (DM-19).

use super::{
    attack::{MALLORY, assert_unharmed, forged_commit, refusals, world},
    *,
};
use crate::group::send::CommitPlan;

fn update() -> CommitPlan<'static> {
    CommitPlan { update: true, ..CommitPlan::default() }
}

fn incorporated(world: &World, at: usize, of: usize) -> Vec<Vec<MemberIndex>> {
    let event = |event: &DmlsEvent| match event {
        DmlsEvent::EpochChanged { member, incorporated, .. } if *member == index(of) => {
            Some(incorporated.clone())
        }
        _ => None,
    };
    world.members[at].events.iter().filter_map(event).collect()
}

// DM-12, DM-19
#[test]
fn a_member_that_was_removed_removes_nobody() {
    let mut world = Setup::default().joined(4);
    world.act(0, |session, now| session.remove(now, index(MALLORY))).unwrap();
    while world.on_link(0, 1) > 0 {
        world.deliver(0, 1);
    }
    // Member 1 has not seen yet whether everybody else has removed Mallory, and still reads its frames.
    let plan = CommitPlan { removals: vec![1, 3], ..update() };
    let frame = forged_commit(&mut world, Vec::new(), Vec::new(), plan);
    world.hand(MALLORY, 1, frame);
    world.pass(Duration::from_secs(30));
    world.agree(&[0, 1, 3]);
    for at in [0, 1, 3] {
        let left: Vec<_> = world.members[at].session.members().map(|(who, _)| who).collect();
        assert_eq!(left, [index(0), index(1), index(3)]);
    }
}

// DM-11, DM-12
#[test]
fn a_member_that_was_removed_keeps_no_keys() {
    let mut world = Setup { stores: true, ..Setup::default() }.joined(3);
    world.act(2, DmlsSession::update).unwrap();
    world.deliver_all();
    world.act(0, |session, now| session.remove(now, index(2))).unwrap();
    world.deliver_all();
    let session = &mut world.members[2].session;
    assert!(session.own.is_none() && session.seed.is_none());
    assert!(session.peers.values().all(|peer| peer.group.is_none()));
    assert!(session.epochs.values().all(|epochs| epochs.len() == 0));
    assert_eq!(session.epoch(index(2)), None);
    // Nor does the store, although there was nothing to send.
    world.restore(2);
    assert!(world.members[2].session.own.is_none());
    let refused = world.act(2, |session, now| session.protect(now, b"still here?"));
    assert_eq!(refused, Err(ApiMisuse::Closed.into()));
}

// DM-19: keys are unique in a group, so a copied one could keep the original out.
#[test]
fn a_member_that_copies_the_key_of_another_one_keeps_nobody_out() {
    for told in [true, false] {
        let mut world = world();
        world.act(0, DmlsSession::update).unwrap();
        while world.on_link(0, MALLORY) > 0 {
            world.deliver(0, MALLORY);
        }
        let (_, seed) = world.members[0].session.seed.clone().unwrap();
        let plan = CommitPlan { leaf: Some(seed.clone()), ..update() };
        let commit = forged_commit(&mut world, Vec::new(), Vec::new(), plan);
        // Mallory's session does what it does after a commit.
        let now = world.now;
        let session = &mut world.members[MALLORY].session;
        let parsed = Frame::parse(commit, usize::MAX).unwrap();
        session.send_in_order(now, DmlsMessageType::Commit, parsed.body()).unwrap();
        session.committed(now, &[], Some(seed)).unwrap();
        world.collect(MALLORY);
        if !told {
            world.lose(MALLORY, 0);
            world.cut.push((MALLORY, 0));
        }
        world.pass(Duration::from_secs(12));
        assert!(world.act(1, DmlsSession::commit).unwrap());
        assert_eq!(incorporated(&world, 1, 1), [[index(0)]]);
        let error = Error::from(PeerMisbehaved::InvalidLeaf("the key of somebody else"));
        assert_eq!(refusals(&world, 0), if told { vec![error] } else { vec![] });
        assert_unharmed(&mut world);
    }
}

// DM-19: a commit of Mallory's that one member cannot read is incorporated by nobody, or that member
// could not follow those who did.
#[test]
fn an_update_that_one_member_refuses_is_incorporated_by_nobody() {
    let setup = Setup { leaf_replacement: false, ..Setup::default() };
    let mut world = setup.joined(4);
    let frame = forged_commit(&mut world, Vec::new(), Vec::new(), update());
    let mut spoiled = frame.to_vec();
    *spoiled.last_mut().unwrap() ^= 1;
    for (to, frame) in [(0, frame.clone()), (1, spoiled.into()), (3, frame)] {
        world.hand(MALLORY, to, frame);
    }
    assert_eq!(refusals(&world, 1), [PeerMisbehaved::InvalidCommit.into()]);
    world.pass(Duration::from_secs(60));
    for at in [0, 3] {
        assert!(!world.act(at, DmlsSession::commit).unwrap());
        let told = DmlsEvent::Disagreement { about: index(MALLORY), reporter: index(1) };
        assert!(world.members[at].events.contains(&told));
    }
    world.deliver_all();
    world.clear();
    assert_unharmed(&mut world);
}

// DM-19: the limit of this. Who says that it has seen something else holds healing up, the application
// is told, and with the removal of the liar it goes on.
#[test]
fn a_member_that_lies_about_digests_holds_healing_up_until_it_is_removed() {
    let mut world = world();
    world.act(0, DmlsSession::update).unwrap();
    let newest = EpochRef { member: 0, epoch: 2, digest: [9; 16] };
    let lie = crate::wire::Received { newest, next: 1 };
    let data = encode_frame_part(&crate::wire::Acknowledgement { entries: vec![lie] }).unwrap();
    let now = world.now;
    let session = &mut world.members[MALLORY].session;
    session.send_sealed(now, DmlsMessageType::Acknowledge, &data).unwrap();
    world.collect(MALLORY);
    world.pass(Duration::from_secs(60));
    let told = DmlsEvent::Disagreement { about: index(0), reporter: index(MALLORY) };
    assert!(world.members[1].events.contains(&told) && world.members[0].events.contains(&told));
    assert!(!world.act(1, DmlsSession::commit).unwrap());
    world.act(1, |session, now| session.remove(now, index(MALLORY))).unwrap();
    world.pass(Duration::from_secs(2));
    assert!(world.act(1, DmlsSession::commit).unwrap());
    world.deliver_all();
    world.agree(&[0, 1]);
}

// DM-06, DM-19: a proposal can be opened once, and Mallory has it first.
#[test]
fn a_leaf_update_that_somebody_else_passes_on_is_not_used_up() {
    let mut world = world();
    world.act(1, DmlsSession::update).unwrap();
    let is_for_0 = |(from, frame): &&(usize, Bytes)| {
        let id = b"send group 0";
        *from == 1 && frame[0] == 5 && frame.windows(id.len()).any(|bytes| bytes == id)
    };
    let (_, leaf_update) = world.recorded.iter().rfind(is_for_0).cloned().unwrap();
    world.hand(MALLORY, 0, leaf_update);
    world.pass(Duration::from_secs(2));
    assert!(world.members[0].errors.is_empty());
    assert!(world.act(0, DmlsSession::commit).unwrap());
    assert_eq!(incorporated(&world, 0, 0), [[index(1)]]);
}

// DM-14, DM-19: a small question must not have a huge answer.
#[test]
fn a_resend_is_answered_with_a_bounded_number_of_bytes() {
    let mut world = world();
    world.cut.push((0, MALLORY));
    for _ in 0..40 {
        world.protect(0, &vec![7; 100_000]);
    }
    world.deliver_all();
    world.cut.clear();
    let wanted = crate::wire::ResendFrame { first: 1, end: u64::MAX };
    let wanted = encode_frame_part(&wanted).unwrap();
    let frame = Frame::new(DmlsMessageType::Resend, &wanted).unwrap();
    world.hand(MALLORY, 0, frame.encoded().clone());
    assert_eq!(world.on_link(0, MALLORY), 10);
    // And not before the next one can be needed.
    world.hand(MALLORY, 0, frame.encoded().clone());
    assert_eq!(world.on_link(0, MALLORY), 10);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.data(MALLORY, 0).len(), 40);
}

/// What a member does that breaks the rules.
type Misdeed = fn(&mut World, usize);

fn hand_to_others(world: &mut World, from: usize, frame: &Bytes) {
    for to in (0..world.members.len()).filter(|to| *to != from) {
        world.hand(from, to, frame.clone());
    }
}

fn sends_in_the_groups_of_others(world: &mut World, who: usize) {
    let session = &mut world.members[who].session;
    let header = session.next_header(DmlsMessageType::Message, Vec::new(), Vec::new()).unwrap();
    let others: Vec<u16> = session.roster.others().collect();
    for other in others {
        let session = &mut world.members[who].session;
        let group = session.peers.get_mut(&other).unwrap().group.as_mut().unwrap();
        let message = group.seal(header.clone(), b"I am somebody else").unwrap();
        let frame = Frame::new(DmlsMessageType::Message, &message).unwrap().encoded().clone();
        hand_to_others(world, who, &frame);
        let passed = DmlsSession::forward(MemberIndex(other), &frame).unwrap();
        hand_to_others(world, who, &passed);
    }
}

/// Keys of epochs that were, without the leaf, and of epochs that never were.
fn imports_what_it_may_not(world: &mut World, who: usize) {
    let other = (who + 1) % world.members.len();
    for epoch in [2, 1, 99] {
        let known = world.members[who].session.epochs[&index(other).0].reference(index(other).0);
        let import = EpochRef { epoch, ..known };
        let session = &mut world.members[who].session;
        let frame = session.forge_commit(vec![import], &[], Vec::new()).unwrap();
        hand_to_others(world, who, &frame);
    }
}

fn shows_everyone_another_commit(world: &mut World, who: usize) {
    let twin = world.members[who].session.own.as_ref().unwrap().steal();
    let place = world.members[who].session.outbox.next();
    for to in (0..world.members.len()).filter(|to| *to != who) {
        let session = &mut world.members[who].session;
        session.own = Some(twin.steal());
        session.outbox = Outbox::at(place);
        let frame = session.forge_commit(Vec::new(), &[], Vec::new()).unwrap();
        world.hand(who, to, frame);
        // It says nothing else: a liar that is believed holds healing up, see above.
        world.cut.push((who, to));
    }
}

fn repeats_everything(world: &mut World, who: usize) {
    for (from, frame) in world.recorded.clone() {
        let passed = DmlsSession::forward(index(from), &frame).unwrap();
        for frame in [frame, passed] {
            hand_to_others(world, who, &frame);
        }
    }
}

fn floods(world: &mut World, who: usize) {
    for number in 0..100 {
        let content = vec![0; 50 + number];
        let session = &mut world.members[who].session;
        let frame = session.forge(DmlsMessageType::Message, 1, &content).unwrap();
        hand_to_others(world, who, &frame);
    }
    for member in &world.members {
        let (frames, bytes) = held(&member.session);
        assert!(frames <= 3 * 20 && bytes <= 3 * 100_000, "{frames} frames of {bytes} bytes");
    }
    let mut gigantic = vec![DmlsMessageType::Commit.into(), 0xff, 0xff, 0xff];
    gigantic.resize(1000, 0);
    hand_to_others(world, who, &gigantic.into());
}

// DM-19: whoever it is and whatever it does, the Send Groups of the others go on.
#[test]
fn each_member_in_turn_misbehaves_and_only_its_own_send_group_suffers() {
    // OpenMLS seals nothing in a group in which an own leaf is proposed.
    let misdeeds: [(Misdeed, bool); 5] = [
        (sends_in_the_groups_of_others, false),
        (imports_what_it_may_not, true),
        (shows_everyone_another_commit, true),
        (repeats_everything, true),
        (floods, true),
    ];
    let policy = DmlsPolicy {
        max_waiting_frames: 20,
        max_waiting_bytes: 100_000,
        max_frame_size: 50_000,
        ..DmlsPolicy::manual()
    };
    for who in 0..4 {
        for (number, (misdeed, updates)) in misdeeds.into_iter().enumerate() {
            let mut world = Setup { policy, stores: true, ..Setup::default() }.joined(4);
            for member in 0..4 {
                if updates {
                    world.act(member, DmlsSession::update).unwrap();
                }
                world.protect(member, b"before");
            }
            world.pass(Duration::from_secs(12));
            world.clear();
            misdeed(&mut world, who);
            let others: Vec<_> = (0..4).filter(|other| *other != who).collect();
            for &member in &others {
                world.act(member, DmlsSession::update).unwrap();
            }
            world.pass(Duration::from_secs(12));
            for &member in &others {
                let has_committed = world.act(member, DmlsSession::commit).unwrap();
                assert!(has_committed, "misdeed {number} of {who}, at {member}");
                world.protect(member, b"unharmed");
            }
            world.pass(Duration::from_secs(12));
            world.agree(&others);
            for &at in &others {
                for &from in others.iter().filter(|from| **from != at) {
                    assert_eq!(world.data(at, from), [b"unharmed"]);
                }
                let refused = world.members[at].events.iter().filter_map(|event| match event {
                    DmlsEvent::Refused { member, .. } => Some(*member),
                    _ => None,
                });
                assert!(refused.into_iter().all(|member| member == index(who)));
            }
        }
    }
}
