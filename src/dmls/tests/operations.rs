//! The operations of the draft, one by one.

use super::*;

fn changes(world: &World, at: usize) -> Vec<(usize, u64, bool, Vec<usize>)> {
    let event = |event: &DmlsEvent| match event {
        DmlsEvent::EpochChanged { member, epoch, update, incorporated } => Some((
            usize::from(member.0),
            *epoch,
            *update,
            incorporated.iter().map(|member| usize::from(member.0)).collect(),
        )),
        _ => None,
    };
    world.members[at].events.iter().filter_map(event).collect()
}

// DM-01, DM-02, DM-09, DM-10
#[test]
fn everyone_sends_to_everyone_in_a_universe_that_the_application_defines() {
    let mut world = Setup::default().joined(4);
    for member in 0..4 {
        world.protect(member, format!("from {member}").as_bytes());
    }
    world.deliver_all();
    for at in 0..4 {
        for from in (0..4).filter(|from| *from != at) {
            assert_eq!(world.data(at, from), [format!("from {from}").as_bytes()]);
        }
        assert!(world.members[at].errors.is_empty());
        assert_eq!(world.members[at].session.members().count(), 4);
    }
}

// DM-03
#[test]
fn a_universe_is_declared_over_the_wire() {
    declare_over_the_wire(Setup::default().configs(3));
}

pub(super) fn declare_over_the_wire(configs: Vec<Arc<Config>>) {
    let now = start();
    let setup = Setup::default();
    let mut packages: Vec<_> =
        configs.iter().map(|config| DmlsKeyPackages::new(config, now).unwrap()).collect();
    let others: Vec<_> = packages[1..].iter().map(|p| p.frame().clone()).collect();
    let inviting = packages.remove(0);
    let config = Arc::clone(&configs[0]);
    let mut first =
        DmlsSession::invite(config, setup.policy, &others, inviting, true, now).unwrap();
    assert_eq!(first.universe_id(), first.own.as_ref().unwrap().id());
    let welcome = first.poll_frame().unwrap().unwrap().1;
    let universe = first.poll_frame().unwrap().unwrap().1;
    let mut sessions = vec![first];
    for (config, packages) in configs[1..].iter().zip(packages) {
        let config = Arc::clone(config);
        let mut invitation = DmlsInvitation::new(config, setup.policy, packages).unwrap();
        invitation.handle_welcome(welcome.clone()).unwrap();
        sessions.push(invitation.handle_universe(universe.clone(), now).unwrap());
    }
    let mut world = World::new(sessions, configs, setup.policy, now);
    world.deliver_all();
    for member in 0..3 {
        assert_eq!(world.epochs(member), [Some(1); 3]);
        let session = &world.members[member].session;
        for of in 1..3 {
            let known = &session.roster.members[of];
            let key = known.identity.public_key().as_bytes();
            // Every member derives it from the first Send Group, in its first epoch.
            let first = session.group_of(0).unwrap();
            assert_eq!(known.group_id, *first.export("derivedGroupId", key, 32).unwrap());
        }
        world.protect(member, b"hello");
    }
    world.deliver_all();
    assert!((1..3).all(|from| world.data(0, from) == [b"hello"]));
    assert!(world.data(2, 0) == [b"hello"] && world.data(1, 2) == [b"hello"]);
}

// DM-04, DM-08
#[test]
fn an_update_is_a_commit_in_the_own_send_group() {
    let mut world = Setup::default().joined(3);
    world.act(1, DmlsSession::update).unwrap();
    world.deliver_all();
    for at in 0..3 {
        assert_eq!(world.epochs(at), [Some(1), Some(2), Some(1)]);
        assert_eq!(changes(&world, at), [(1, 2, true, vec![])]);
    }
    world.agree(&[0, 1, 2]);
}

// DM-05, DM-06, DM-07, DM-08, DM-11
#[test]
fn a_commit_incorporates_updates_with_their_leaves() {
    let mut world = Setup::default().joined(4);
    world.act(1, DmlsSession::update).unwrap();
    world.act(2, DmlsSession::update).unwrap();
    world.deliver_all();
    // Nobody has said that it has them.
    assert!(!world.act(0, DmlsSession::commit).unwrap());
    world.pass(Duration::from_secs(2));
    assert!(world.act(0, DmlsSession::commit).unwrap());
    world.deliver_all();
    world.agree(&[0, 1, 2, 3]);
    assert_eq!(changes(&world, 3).last().unwrap(), &(0, 2, true, vec![1, 2]));
    for at in 0..4 {
        let session = &world.members[at].session;
        for of in [1, 2] {
            let own = session.group_of(of).unwrap().leaf(0).unwrap();
            let leaf = Roster::leaf_in(0, of);
            assert!(session.group_of(0).unwrap().leaf(leaf).unwrap() == own);
        }
    }
    assert_eq!(world.members[1].session.acknowledged(index(0)), 2);
    // The same updates are not incorporated twice.
    assert!(!world.act(0, DmlsSession::commit).unwrap());
}

// DM-08
#[test]
fn keys_alone_are_imported_without_an_own_update() {
    let setup = Setup { leaf_replacement: false, ..Setup::default() };
    let mut world = setup.joined(3);
    world.act(2, DmlsSession::update).unwrap();
    world.pass(Duration::from_secs(2));
    let leaf = world.members[0].session.own.as_ref().unwrap().leaf(0).unwrap();
    assert!(world.act(0, DmlsSession::commit).unwrap());
    world.deliver_all();
    assert_eq!(changes(&world, 1).last().unwrap(), &(0, 2, false, vec![2]));
    assert!(world.members[1].session.group_of(0).unwrap().leaf(0).unwrap() == leaf);
    world.act(1, DmlsSession::update_and_commit).unwrap();
    world.deliver_all();
    assert_eq!(changes(&world, 0).last().unwrap(), &(1, 2, true, vec![2]));
    world.agree(&[0, 1, 2]);
}

// DM-06: the owner has committed before the proposal came.
#[test]
fn a_leaf_is_signed_again_when_the_owner_has_moved_on() {
    let mut world = Setup::default().joined(3);
    world.act(1, DmlsSession::update).unwrap();
    world.act(0, DmlsSession::update).unwrap();
    world.pass(Duration::from_secs(2));
    world.act(0, DmlsSession::commit).unwrap();
    world.deliver_all();
    assert_eq!(changes(&world, 2).last().unwrap(), &(0, 3, true, vec![1]));
    world.agree(&[0, 1, 2]);
}

// DM-11
#[test]
fn keys_of_acknowledged_epochs_are_erased() {
    let mut world = Setup::default().joined(3);
    for _ in 0..5 {
        world.act(1, DmlsSession::update).unwrap();
        world.deliver_all();
    }
    for at in 0..3 {
        assert_eq!(world.members[at].session.epochs[&1].len(), 5);
    }
    world.pass(Duration::from_secs(12));
    for at in 0..3 {
        assert_eq!(world.members[at].session.epochs[&1].len(), 1, "at {at}");
        // An acknowledgement that nobody needs to acknowledge.
        assert!(world.members[at].session.outbox.len() <= 1);
    }
}

// DM-13: the commit of one waits for that of another to which it refers.
#[test]
fn a_commit_waits_for_the_one_that_it_depends_on() {
    let policy = DmlsPolicy { acknowledge_wait: Duration::ZERO, ..DmlsPolicy::manual() };
    let mut world = Setup { policy, ..Setup::default() }.joined(3);
    world.act(1, DmlsSession::update).unwrap();
    while world.on_link(1, 0) > 0 {
        world.deliver(1, 0);
    }
    assert!(world.act(0, DmlsSession::commit).unwrap());
    world.protect(0, b"after the commit");
    while world.on_link(0, 2) > 0 {
        world.deliver(0, 2);
    }
    assert_eq!(world.epochs(2), [Some(1), Some(1), Some(1)]);
    assert!(world.data(2, 0).is_empty());
    world.deliver_all();
    assert_eq!(world.epochs(2), [Some(2), Some(2), Some(1)]);
    assert_eq!(world.data(2, 0), [b"after the commit"]);
    world.agree(&[0, 1, 2]);
}

// DM-14
#[test]
fn lost_frames_are_noticed_asked_for_and_sent_again() {
    let mut world = Setup::default().joined(3);
    for byte in 0..10_u8 {
        world.protect(0, &[byte]);
        if byte == 4 {
            world.act(0, DmlsSession::update).unwrap();
        }
        if byte < 7 {
            world.lose(0, 1);
        }
    }
    world.deliver_all();
    assert!(world.data(1, 0).is_empty());
    world.pass(Duration::from_secs(1));
    let expected: Vec<_> = (0..10).map(|byte| vec![byte]).collect();
    assert_eq!(world.data(1, 0), expected);
    assert_eq!(world.data(2, 0), expected);
    world.agree(&[0, 1, 2]);
    // The last ones are lost, so that no gap shows.
    world.protect(0, b"last");
    world.lose(0, 2);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.data(2, 0).last().unwrap(), b"last");
    assert_eq!(world.data(1, 0).len(), 11);
}

// DM-15
#[test]
fn send_groups_have_different_suites() {
    let all = CipherSuite::ALL[..2].to_vec();
    let reversed: Vec<_> = all.iter().rev().copied().collect();
    let suites = vec![all.clone(), reversed, all];
    let mut world = Setup { suites, ..Setup::default() }.joined(3);
    let suite = |of| world.members[2].session.cipher_suite(index(of)).unwrap();
    assert_eq!(suite(0), SUITE);
    assert_ne!(suite(1), SUITE);
    world.act(0, DmlsSession::update).unwrap();
    world.act(1, DmlsSession::update).unwrap();
    world.pass(Duration::from_secs(2));
    for member in 0..3 {
        assert!(world.act(member, DmlsSession::commit).unwrap());
        world.protect(member, b"across suites");
    }
    world.deliver_all();
    world.agree(&[0, 1, 2]);
    assert_eq!(world.data(2, 1), [b"across suites"]);
}

#[test]
fn members_can_have_keys_on_p256() {
    live_with(CipherSuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256);
}

// 2P-20
#[cfg(feature = "post-quantum")]
#[test]
fn members_can_have_post_quantum_suites() {
    live_with(CipherSuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519);
    live_with(CipherSuite::MLS_128_MLKEM768X25519_CHACHA20POLY1305_SHA384_MLDSA44);
    live_with(CipherSuite::MLS_256_MLKEM1024_AES256GCM_SHA512_MLDSA87);
}

/// Goes through a universe that the application defines, and begins one over the wire.
fn live_with(suite: CipherSuite) {
    for leaf_replacement in [true, false] {
        let setup =
            Setup { suite: Some(suite), leaf_replacement, stores: true, ..Setup::default() };
        let mut world = setup.joined(3);
        assert_eq!(world.members[0].session.cipher_suite(index(1)), Some(suite));
        world.act(0, DmlsSession::update).unwrap();
        world.act(1, DmlsSession::update).unwrap();
        world.pass(Duration::from_secs(2));
        for member in 0..3 {
            assert!(world.act(member, DmlsSession::commit).unwrap());
            world.protect(member, b"on another curve");
        }
        world.pass(Duration::from_secs(25));
        world.agree(&[0, 1, 2]);
        assert_eq!(world.data(2, 1), [b"on another curve"]);
        for member in 0..3 {
            world.restore(member);
            world.act(member, DmlsSession::update_and_commit).unwrap();
        }
        world.pass(Duration::from_secs(25));
        world.agree(&[0, 1, 2]);

        let now = start();
        let configs = setup.configs(2);
        let packages = configs.iter().map(|config| DmlsKeyPackages::new(config, now).unwrap());
        let packages: Vec<_> = packages.collect();
        let others = [packages[1].frame().clone()];
        let own = packages.into_iter().next().unwrap();
        let config = Arc::clone(&configs[0]);
        let policy = setup.policy;
        let invited =
            DmlsSession::invite(config, policy, &others, own, leaf_replacement, now).unwrap();
        assert_eq!(invited.cipher_suite(index(0)), Some(suite));
    }
}

// DM-15
#[test]
fn a_universe_has_one_signature_scheme() {
    let now = start();
    let configs = Setup::default().configs(2);
    let packages = configs.iter().map(|config| DmlsKeyPackages::new(config, now).unwrap());
    let packages: Vec<_> = packages.collect();
    let members = packages
        .iter()
        .zip(["a", "b"])
        .map(|(packages, id)| DmlsMember {
            key_packages: packages.frame().clone(),
            send_group_id: id.into(),
        })
        .collect();
    let mut universe = DmlsUniverse::new("universe", members);
    universe.cipher_suites = CipherSuite::ALL[..3].to_vec();
    let own = packages.into_iter().next().unwrap();
    let config = Arc::clone(&configs[0]);
    let error = DmlsSession::create(config, DmlsPolicy::manual(), &universe, own, now).unwrap_err();
    let reason = "the suites of a universe have one signature scheme";
    assert_eq!(error, crate::error::ConfigError::OutOfRange(reason).into());
}

// DM-15
#[test]
fn another_export_key_length_is_refused() {
    let now = start();
    let configs = Setup::default().configs(2);
    let packages = configs.iter().map(|config| DmlsKeyPackages::new(config, now).unwrap());
    let packages: Vec<_> = packages.collect();
    let members = packages
        .iter()
        .zip(["a", "b"])
        .map(|(packages, id)| DmlsMember {
            key_packages: packages.frame().clone(),
            send_group_id: id.into(),
        })
        .collect();
    let mut universe = DmlsUniverse::new("universe", members);
    universe.export_key_length = 48;
    let packages = packages.into_iter().next().unwrap();
    let policy = DmlsPolicy::default();
    let error = DmlsSession::create(configs[0].clone(), policy, &universe, packages, now);
    assert!(matches!(error.unwrap_err(), Error::Config(_)));
}

// DM-09, DM-16
#[test]
fn the_policy_updates_and_incorporates_by_itself() {
    let policy = DmlsPolicy {
        update_messages: 3,
        update_interval: Some(Duration::from_secs(100)),
        ..DmlsPolicy::default()
    };
    let mut world = Setup { policy, ..Setup::default() }.joined(3);
    for _ in 0..4 {
        world.protect(0, b"message");
    }
    world.deliver_all();
    assert_eq!(changes(&world, 1), [(0, 2, true, vec![])]);
    // Seen, acknowledged, and incorporated before the next message.
    world.pass(Duration::from_secs(2));
    world.protect(1, b"message");
    world.deliver_all();
    assert_eq!(changes(&world, 2).last().unwrap(), &(1, 2, true, vec![0]));
    world.protect(1, b"at once");
    assert_eq!(world.members[1].session.epoch(index(1)), Some(2));
    world.pass(Duration::from_secs(101));
    assert!((0..3).all(|of| world.members[0].session.epoch(index(of)).unwrap() >= 2));
    world.agree(&[0, 1, 2]);
}

#[test]
fn a_policy_that_cannot_be_is_refused() {
    assert!(DmlsPolicy::default().check().is_ok() && DmlsPolicy::manual().check().is_ok());
    for policy in [
        DmlsPolicy { update_messages: 0, ..DmlsPolicy::default() },
        DmlsPolicy { max_frame_size: 1, ..DmlsPolicy::default() },
        DmlsPolicy { max_waiting_bytes: 1, ..DmlsPolicy::default() },
        DmlsPolicy { max_kept_bytes: 1, ..DmlsPolicy::default() },
        DmlsPolicy { update_interval: Some(Duration::ZERO), ..DmlsPolicy::default() },
    ] {
        assert!(matches!(policy.check(), Err(Error::Config(_))), "{policy:?}");
    }
}

// DM-18
#[test]
fn a_member_that_only_receives_holds_nobody_up() {
    let mut world = Setup::default().joined(3);
    for round in 0..100_u8 {
        world.act(0, DmlsSession::update_and_commit).unwrap();
        world.protect(1, &[round]);
        world.pass(Duration::from_secs(11));
    }
    assert_eq!(world.data(2, 1).len(), 100);
    assert_eq!(world.members[2].session.epoch(index(2)), Some(1), "it has not committed");
    assert!(world.members[0].session.epochs[&0].len() <= 2);
    assert!(world.members[1].session.outbox.len() <= 2);
}

// CH-07
#[test]
fn nothing_secret_is_printed() {
    let mut world = Setup::default().joined(2);
    world.protect(0, b"hunter2");
    world.deliver_all();
    let shown = format!("{:?} {:?}", world.members[1].session, world.members[1].events);
    assert!(shown.contains("len: 7") && !shown.contains("hunter2") && !shown.contains("104, 117"));
}

// DM-09: several messages under one signature, and long ones under a hash.
#[test]
fn messages_of_all_lengths_and_several_at_once_arrive_one_by_one() {
    let mut world = Setup { stores: true, ..Setup::default() }.joined(3);
    let lengths = [0, 1, 63, 64, 4090, 4096, 5000, 70_000, 1 << 20];
    let messages: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
    for message in &messages {
        world.protect(0, message);
    }
    let frames = world.on_link(0, 1);
    let borrowed: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    world.act(0, |session, now| session.protect_all(now, &borrowed)).unwrap();
    assert_eq!(world.on_link(0, 1), frames + 1);
    world.deliver_all();
    let twice: Vec<_> = messages.iter().chain(&messages).cloned().collect();
    assert!((1..3).all(|at| world.data(at, 0) == twice));
    // As many frames as are needed.
    world.clear();
    let many = vec![&[7; 100_000][..]; 50];
    world.act(0, |session, now| session.protect_all(now, &many)).unwrap();
    assert_eq!(world.on_link(0, 1), 3);
    world.act(0, |session, now| session.protect_all(now, &[])).unwrap();
    assert_eq!(world.on_link(0, 1), 3);
    world.restore(0);
    world.protect(0, &[8; 5000]);
    world.deliver_all();
    assert_eq!(world.data(1, 0).len(), 51);
    let long = vec![0; 2 << 20];
    let refused = world.act(0, |session, now| session.protect_all(now, &[b"short", &long]));
    assert_eq!(refused, Err(ApiMisuse::MessageTooLong.into()));
    assert_eq!(world.on_link(0, 1), 0);
}
