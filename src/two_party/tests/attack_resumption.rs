//! Attacks on resumption: by somebody on the wire, by the store, by a thief.

use super::{
    resumption::{
        FULL, RESUMED, TestStore, World, complete, first_body, id, kinds, request_commit,
    },
    *,
};
use crate::{
    danger::AcceptAnyone,
    error::{PeerMisbehaved, SessionError, StoreError},
    wire::{ContentType, Record, RecordHeader},
};

// 2P-21: a response, captured on the wire, is no request, although it holds a commit.
#[test]
pub(super) fn a_response_cannot_be_presented_as_a_request() {
    let world = World::new();
    drop(world.connect());
    let mut pair = world.dial();
    pair.deliver(Role::Initiator);
    let response = pair.intercept(Role::Responder);
    pair.inject(Role::Initiator, &response);
    complete(&mut pair);
    let before = (world.client_store.image(), world.server_store.image());
    let commit = Record::split_from(&mut BytesMut::from(&response[..])).unwrap().unwrap();
    let message = crate::wire::TwoPartyMessage::ResumptionRequest {
        commit: commit.payload[4..].to_vec(),
        early_data_length: 0,
        binder: [0; 32],
    };
    let mut request = BytesMut::new();
    crate::wire::encode_plaintext(ContentType::Handshake, &message.encode().unwrap(), &mut request);
    for victim in [&world.client, &world.server] {
        let mut stranger = world.stranger(victim);
        stranger.input.extend_from_slice(&request);
        stranger.process(world.now);
        assert_eq!(&stranger.out[..], [21, 3, 3, 0, 2, 2, 115], "unknown_psk_identity");
    }
    assert!(before == (world.client_store.image(), world.server_store.image()));
    pair.assert_works();
    pair.rekey(Role::Initiator);
    pair.rekey(Role::Responder);
    pair.drive();
    pair.assert_works();
}

// CH-10: a request with any bit changed is refused, and changes nothing.
#[test]
fn no_flipped_bit_of_a_request_is_answered() {
    let world = World::new();
    drop(world.connect());
    let mut pair = world.dial_with(Some(b"data"));
    let flight = pair.intercept(Role::Initiator);
    let before = world.server_store.image();
    let length = RecordHeader::decode(flight[..5].try_into().unwrap()).unwrap().length;
    for bit in 40..(5 + length) * 8 {
        let mut changed = flight.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let mut stranger = world.stranger(&world.server);
        stranger.input.extend_from_slice(&changed);
        stranger.process(world.now);
        assert_eq!(stranger.connection.handshake_kind(), None);
        assert_eq!(stranger.events, [], "bit {bit}");
        let answer = Record::split_from(&mut stranger.out.clone()).unwrap();
        assert!(answer.is_none_or(|record| record.content_type == ContentType::Alert), "bit {bit}");
        assert!(world.server_store.image() == before, "bit {bit}");
    }
    // The genuine one still does.
    pair.inject(Role::Responder, &flight);
    complete(&mut pair);
    assert_eq!(kinds(&pair), RESUMED);
}

// 2P-21: an old request, replayed at any later time, does no harm to a session that is live.
#[test]
fn a_replayed_request_does_not_hurt_a_live_session() {
    let world = World::new();
    drop(world.connect());
    let mut requests = Vec::new();
    for _ in 0..3 {
        let mut pair = world.dial();
        let request = pair.intercept(Role::Initiator);
        pair.inject(Role::Responder, &request);
        requests.push(request);
        complete(&mut pair);
        for round in 0..3 {
            let before = (world.client_store.image(), world.server_store.image());
            for request in &requests {
                for victim in [&world.client, &world.server] {
                    let mut stranger = world.stranger(victim);
                    stranger.input.extend_from_slice(request);
                    stranger.process(world.now);
                }
            }
            assert!(before == (world.client_store.image(), world.server_store.image()));
            pair.rekey(if round % 2 == 0 { Role::Initiator } else { Role::Responder });
            pair.drive();
            pair.assert_works();
        }
    }
}

// 2P-14, 2P-18: somebody whom this party knows, and who sits on the way to somebody else, answers the
// request with one for its own session. The application would talk to the wrong peer.
#[test]
fn a_request_for_another_session_is_no_answer() {
    let other_name = ServerName::new("other.example").unwrap();
    let other = Identity::generate_with(other_name.as_str(), suites::scheme()).unwrap();
    let mut world = World::new();
    let pins = [&world.identities.server, &other].map(Identity::public_line).join("\n");
    let builder = Config::builder()
        .identity(world.identities.client.clone())
        .crypto_provider(world.client.crypto.clone())
        .rekey_policy(RekeyPolicy::manual())
        .authentication_service(PinnedKeys::parse(&pins).unwrap())
        .session_store(world.client_store.clone());
    world.client = Arc::new(builder.build().unwrap());
    let other = configuration(&other, &world.identities.client)
        .crypto_provider(world.server.crypto.clone())
        .session_store(TestStore::default());
    let other = Arc::new(other.build().unwrap());
    let dial_other = || {
        let (client, mut out) = (Arc::clone(&world.client), BytesMut::new());
        let name = other_name.clone();
        let initiator = Connection::initiator(client, name, world.now, &mut out).unwrap();
        world.pair(initiator, out, &other)
    };
    drop(world.connect());
    let mut with_other = dial_other();
    complete(&mut with_other);
    let session = id(&with_other);
    drop(with_other);

    // The client asks the other one to resume, which applies that, keeps the answer to itself, and
    // makes a request of it.
    let mut lost = dial_other();
    let request = lost.intercept(Role::Initiator);
    lost.inject(Role::Responder, &request);
    drop(lost);
    let mut out = BytesMut::new();
    drop(Connection::resume(Arc::clone(&other), &session, None, world.now, &mut out).unwrap());
    let mut evil = world.stranger(&other);
    evil.input.extend_from_slice(&request);
    evil.process(world.now);

    let mut pair = world.dial();
    drop(pair.intercept(Role::Initiator));
    let requested = world.client_store.image();
    let mut pair = Pair { responder: evil, ..pair };
    pair.drive();
    // Neither with the other one nor with anybody.
    assert_eq!(pair.initiator.connection.peer(), None);
    let error = PeerMisbehaved::UnexpectedMessage("ResumptionRequest");
    pair.assert_failed(Role::Initiator, error);
    assert_eq!(kinds(&pair), [None, None]);
    assert!(requested == world.client_store.image(), "neither session has changed");
    drop(pair);
    assert_eq!(kinds(&world.connect()), RESUMED);
}

// CH-08: what a lax configuration has accepted, a strict one does not resume.
#[test]
fn a_strict_configuration_does_not_resume_what_a_lax_one_accepted() {
    let world = World::new();
    let lax = |own: &Identity, store: &TestStore| {
        let builder = Config::builder().identity(own.clone()).authentication_service(AcceptAnyone);
        Arc::new(builder.session_store(store.clone()).build().unwrap())
    };
    let lax_world = World {
        client: lax(&world.identities.client, &world.client_store),
        server: lax(&world.identities.server, &world.server_store),
        client_store: world.client_store.clone(),
        server_store: world.server_store.clone(),
        identities: Identities::new(),
        now: world.now,
    };
    let session = id(&lax_world.connect());
    assert_eq!(kinds(&lax_world.connect()), RESUMED);
    assert_eq!(kinds(&world.connect()), FULL);
    let error = Connection::resume(
        Arc::clone(&world.server),
        &session,
        None,
        world.now,
        &mut BytesMut::new(),
    );
    assert_eq!(error.unwrap_err(), SessionError::Unknown.into());
    // A client that is still lax asks a server that is strict now.
    let mixed = World { server: Arc::clone(&world.server), ..lax_world };
    assert_eq!(kinds(&mixed.connect()), FULL);
}

// 2P-21: whatever is in the store, it gives an error and no panic, and a full handshake.
#[test]
fn a_damaged_session_is_reported() {
    let world = World::new();
    drop(world.connect());
    let image = world.client_store.image();
    let key = *image.1.iter().max_by_key(|(_, (_, blob))| blob.len()).unwrap().0;
    let blob = image.1[&key].1.clone();
    let mut damaged: Vec<Vec<u8>> =
        (0..blob.len()).step_by(97).map(|end| blob[..end].to_vec()).collect();
    for at in (0..blob.len()).step_by(61).chain([4, 5, blob.len() - 1]) {
        let mut changed = blob.clone();
        changed[at] ^= 0x11;
        damaged.push(changed);
    }
    for blob in damaged {
        let mut broken = image.clone();
        broken.1.get_mut(&key).unwrap().1 = blob;
        world.client_store.set_back(broken);
        let pair = world.connect();
        assert_eq!(kinds(&pair), FULL);
        let error = pair.initiator.connection.not_resumed();
        assert!(matches!(error, Some(Error::Store(StoreError::Corrupt(_)))), "{error:?}");
    }
    let mut newer = image;
    newer.1.get_mut(&key).unwrap().1[5] = 2;
    world.client_store.set_back(newer);
    let error = world.connect().initiator.connection.not_resumed().unwrap().to_string();
    assert_eq!(error, "the session store: corrupt: a session: version 2 is not 1");
}

// 2P-21: a checksum finds damage, not malice; what passes it still gives no panic.
#[test]
fn a_forged_session_does_not_panic() {
    let world = World::new();
    let mut pair = world.connect();
    pair.rekey(Role::Initiator);
    let session = id(&pair);
    drop(pair);
    let image = world.client_store.image();
    let key = *image.1.iter().max_by_key(|(_, (_, blob))| blob.len()).unwrap().0;
    let blob = image.1[&key].1.clone();
    let crypto = world.client.crypto.clone();
    let suite = CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
    let mut refused = 0;
    for at in (6..blob.len() - 32).step_by(3) {
        let mut content = blob[..blob.len() - 32].to_vec();
        content[at] ^= 1 << (at % 8);
        let checksum = crypto.hash(suite, &content).unwrap();
        let mut forged = image.clone();
        forged.1.get_mut(&key).unwrap().1 = [content, checksum].concat();
        world.client_store.set_back(forged);
        let mut out = BytesMut::new();
        let client = Arc::clone(&world.client);
        match Connection::resume(client, &session, None, world.now, &mut out) {
            Ok(initiator) => world.pair(initiator, out, &world.server).drive(),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
}

// 2P-19, 2P-21: the state before a resumption does not open what is said after it.
#[test]
pub(super) fn a_resumption_heals() {
    let world = World::new();
    drop(world.connect());
    let stolen = (world.client_store.image(), world.server_store.image());
    let mut pair = world.dial();
    let mut wire = pair.intercept(Role::Initiator);
    pair.inject(Role::Responder, &wire.clone());
    let response = pair.intercept(Role::Responder);
    pair.inject(Role::Initiator, &response);
    wire.extend_from_slice(&response);
    complete(&mut pair);
    // The thief has both ends' state of before, and all messages.
    let thief = World {
        identities: Identities::new(),
        client: Arc::clone(&world.client),
        server: Arc::clone(&world.server),
        client_store: world.client_store.clone(),
        server_store: world.server_store.clone(),
        now: world.now,
    };
    let now = (world.client_store.image(), world.server_store.image());
    thief.client_store.set_back(stolen.0);
    thief.server_store.set_back(stolen.1);
    let session = id(&pair);
    for (config, commit) in
        [(&thief.server, request_commit(&wire)), (&thief.client, request_commit(&wire))]
    {
        let mut stolen = Session::load(config, &session, world.now).unwrap();
        let applied = stolen.apply_update(&commit, config, world.now);
        // The peer's state leads one epoch further, where its own new key would be needed.
        assert_eq!(applied.is_ok(), stolen.facts.initial_role == Role::Responder);
        let answer = first_body(&response);
        assert!(stolen.apply_update(&answer, config, world.now).is_err());
    }
    world.client_store.set_back(now.0);
    world.server_store.set_back(now.1);
    pair.assert_works();
}
