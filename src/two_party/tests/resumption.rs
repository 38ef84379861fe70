//! Sessions that go on over another connection: what is lost, who crosses whom, and who may.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use zeroize::Zeroizing;

use super::*;
use crate::{
    danger::AcceptAnyone,
    error::{SessionError, StoreError},
    store::{Revision, SessionKey, SessionStore, StoredSession},
    wire::{AlertDescription, ContentType, Record, RecordHeader},
};

/// A store that can be set back, and can fail.
#[derive(Clone, Default)]
pub(super) struct TestStore(Arc<TestStoreInner>);

#[derive(Default)]
struct TestStoreInner {
    blobs: Mutex<Blobs>,
    failing: AtomicBool,
}

type Blobs = (u64, HashMap<SessionKey, (u64, Vec<u8>)>);

impl TestStore {
    pub(super) fn image(&self) -> Blobs {
        self.blobs().clone()
    }

    pub(super) fn set_back(&self, image: Blobs) {
        *self.blobs() = image;
    }

    fn blobs(&self) -> MutexGuard<'_, Blobs> {
        self.0.blobs.lock().unwrap()
    }

    fn fail(&self, failing: bool) {
        self.0.failing.store(failing, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.0.failing.load(Ordering::Relaxed) {
            true => Err(StoreError::Failed("out of order".into())),
            false => Ok(()),
        }
    }
}

impl SessionStore for TestStore {
    fn load(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        self.check()?;
        let stored = self.blobs().1.get(key).cloned();
        Ok(stored.map(|(revision, blob)| {
            StoredSession::new(Revision::new(revision), Zeroizing::new(blob))
        }))
    }

    fn commit(
        &self,
        key: &SessionKey,
        expected: Option<Revision>,
        blob: &[u8],
    ) -> Result<Revision, StoreError> {
        self.check()?;
        let (counter, blobs) = &mut *self.blobs();
        match (blobs.get(key), expected) {
            (None, Some(_)) => return Err(StoreError::Missing),
            (Some((found, _)), Some(expected)) if *found == expected.value() => {}
            (None, None) => {}
            _ => return Err(StoreError::Conflict),
        }
        *counter += 1;
        blobs.insert(*key, (*counter, blob.to_vec()));
        Ok(Revision::new(*counter))
    }

    fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.check()?;
        self.blobs().1.remove(key);
        Ok(())
    }
}

/// Two parties that store their sessions.
pub(super) struct World {
    pub(super) identities: Identities,
    pub(super) client_store: TestStore,
    pub(super) server_store: TestStore,
    pub(super) client: Arc<Config>,
    pub(super) server: Arc<Config>,
    pub(super) now: Time,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|client| client, |server| server)
    }

    fn with(
        client: impl FnOnce(Builder) -> Builder,
        server: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let identities = Identities::new();
        let (client_store, server_store) = (TestStore::default(), TestStore::default());
        let server_builder = identities
            .server()
            .session_store(server_store.clone())
            .limits(Limits::default().with_max_early_data(1 << 20));
        let client_builder = identities
            .client()
            .session_store(client_store.clone())
            .limits(Limits::default().with_max_early_data(1 << 20));
        Self {
            client: Arc::new(client(client_builder).build().unwrap()),
            server: Arc::new(server(server_builder).build().unwrap()),
            client_store,
            server_store,
            identities,
            now: start(),
        }
    }

    /// The client connects; nothing is delivered yet.
    pub(super) fn dial(&self) -> Pair {
        self.dial_with(None)
    }

    fn dial_with(&self, early_data: Option<&[u8]>) -> Pair {
        let mut out = BytesMut::new();
        let name = ServerName::new(SERVER_NAME).unwrap();
        let client = Arc::clone(&self.client);
        let initiator = match early_data {
            Some(data) => {
                Connection::initiator_with_early_data(client, name, data, self.now, &mut out)
            }
            None => Connection::initiator(client, name, self.now, &mut out),
        };
        self.pair(initiator.unwrap(), out, &self.server)
    }

    /// The server calls back.
    pub(super) fn call_back(&self, session: &SessionId) -> Pair {
        let mut out = BytesMut::new();
        let server = Arc::clone(&self.server);
        let initiator = Connection::resume(server, session, None, self.now, &mut out).unwrap();
        self.pair(initiator, out, &self.client)
    }

    /// Somebody else connects.
    fn stranger(&self, to: &Arc<Config>) -> End {
        End::new(Connection::responder(Arc::clone(to), self.now))
    }

    fn pair(&self, initiator: Connection, out: BytesMut, responder: &Arc<Config>) -> Pair {
        let mut initiator = End::new(initiator);
        initiator.out = out;
        let responder = End::new(Connection::responder(Arc::clone(responder), self.now));
        Pair { initiator, responder, now: self.now }
    }

    pub(super) fn connect(&self) -> Pair {
        let mut pair = self.dial();
        complete(&mut pair);
        pair
    }
}

pub(super) fn complete(pair: &mut Pair) {
    pair.drive();
    assert_eq!((&pair.initiator.error, &pair.responder.error), (&None, &None));
    pair.initiator.expect(Event::HandshakeComplete);
    pair.responder.expect(Event::HandshakeComplete);
    pair.assert_works();
}

fn kinds(pair: &Pair) -> [Option<HandshakeKind>; 2] {
    [pair.initiator.connection.handshake_kind(), pair.responder.connection.handshake_kind()]
}

const FULL: [Option<HandshakeKind>; 2] = [Some(HandshakeKind::Full); 2];
const RESUMED: [Option<HandshakeKind>; 2] = [Some(HandshakeKind::Resumed); 2];

fn id(pair: &Pair) -> SessionId {
    pair.initiator.connection.session_id().unwrap().clone()
}

// 2P-14, 2P-15, 2P-17: one round trip, and both have healed.
#[test]
pub(super) fn a_session_goes_on_over_another_connection() {
    let world = World::new();
    let pair = world.connect();
    assert_eq!(kinds(&pair), FULL);
    let (session, binding) = (id(&pair), pair.initiator.connection.channel_binding());
    drop(pair);

    let pair = world.connect();
    assert_eq!(kinds(&pair), RESUMED);
    assert_eq!(id(&pair), session);
    assert_eq!(pair.responder.connection.session_id(), Some(&session));
    assert_eq!(pair.epochs(), (3, 3));
    let bindings =
        (pair.initiator.connection.channel_binding(), pair.responder.connection.channel_binding());
    assert_eq!(bindings.0, bindings.1);
    assert_ne!(bindings.0, binding);
    assert_eq!(pair.initiator.connection.peer().unwrap().name(), SERVER_NAME);
    assert_eq!(pair.responder.connection.server_name().unwrap().as_str(), SERVER_NAME);
}

// 2P-14
#[test]
pub(super) fn the_server_of_the_old_connection_can_resume_too() {
    let world = World::new();
    let session = id(&world.connect());
    let mut pair = world.call_back(&session);
    complete(&mut pair);
    assert_eq!(kinds(&pair), RESUMED);
    assert_eq!(pair.initiator.connection.peer().unwrap().name(), "client");
    // And the client again after that, with rekeys from both sides in between.
    pair.rekey(Role::Initiator);
    pair.rekey(Role::Responder);
    pair.drive();
    pair.assert_works();
    drop(pair);
    let pair = world.connect();
    assert_eq!((kinds(&pair), id(&pair)), (RESUMED, session));
}

// 2P-21: whatever prefix of what both ends sent arrived, in the handshake, in a rekey of either or
// both, and in a resumption by either: the next connection resumes, or a full handshake takes place
// where no session existed yet at both ends.
#[test]
fn every_cut_can_be_resumed_from() {
    /// Delivers so many of the flights and no more.
    fn deliver(pair: &mut Pair, flights: usize) -> bool {
        for flight in 0..flights {
            let from = if flight % 2 == 0 { Role::Initiator } else { Role::Responder };
            if !pair.deliver(from) && !pair.deliver(from.peer()) {
                return false;
            }
        }
        true
    }

    for cut in 0.. {
        let mut more = false;
        for updates in [
            vec![],
            vec![Role::Initiator],
            vec![Role::Responder],
            vec![Role::Initiator, Role::Responder],
        ] {
            for (callback, again) in [(false, false), (false, true), (true, false), (true, true)] {
                let world = World::new();
                let mut pair = world.connect();
                let session = id(&pair);
                for &role in &updates {
                    pair.rekey(role);
                }
                more |= deliver(&mut pair, cut);
                drop(pair);
                let dial = |callback: bool| match callback {
                    true => world.call_back(&session),
                    false => world.dial(),
                };
                // A first attempt is cut, too; the second one has to do.
                let mut pair = dial(again);
                more |= deliver(&mut pair, cut);
                drop(pair);
                let mut pair = dial(callback);
                complete(&mut pair);
                assert_eq!(kinds(&pair), RESUMED, "{cut} {updates:?} {callback} {again}");
                assert_eq!(id(&pair), session);
            }
        }
        if !more {
            assert!(cut > 3);
            break;
        }
    }
}

// 2P-21: crashes at any moment of a rekey and a resumption: each end goes back to what it stored.
#[test]
fn every_crash_can_be_resumed_from() {
    for steps in 0..6 {
        for (updates, callback) in [
            (vec![Role::Initiator], false),
            (vec![Role::Responder], true),
            (vec![Role::Responder, Role::Initiator], false),
            (vec![Role::Initiator, Role::Responder], true),
        ] {
            let world = World::new();
            let mut pair = world.connect();
            let session = id(&pair);
            for &role in &updates {
                pair.rekey(role);
            }
            for step in 0..steps {
                pair.deliver(if step % 2 == 0 { Role::Initiator } else { Role::Responder });
            }
            // Both machines are gone; new processes find the stores.
            drop(pair);
            let mut pair = if callback { world.call_back(&session) } else { world.dial() };
            complete(&mut pair);
            assert_eq!(kinds(&pair), RESUMED);
        }
    }
}

// 2P-18: both resume at once. The client is the initial initiator: its request stands.
#[test]
fn crossing_requests_end_on_one_session() {
    for first in [Role::Initiator, Role::Responder] {
        let world = World::new();
        let session = id(&world.connect());
        let mut by_client = world.dial();
        let mut by_server = world.call_back(&session);
        // Each request is made before the other one arrives.
        match first {
            Role::Initiator => {
                by_client.deliver(Role::Initiator);
                by_server.deliver(Role::Initiator);
            }
            Role::Responder => {
                by_server.deliver(Role::Initiator);
                by_client.deliver(Role::Initiator);
            }
        }
        by_server.drive();
        by_client.drive();
        let done: Vec<&Pair> = [&by_client, &by_server]
            .into_iter()
            .filter(|pair| kinds(pair) == RESUMED && pair.initiator.error.is_none())
            .collect();
        assert_eq!(done.len(), 1, "one of the two connections lives");
        let (mut alive, dead) = match kinds(&by_client) == RESUMED {
            true => (by_client, by_server),
            false => (by_server, by_client),
        };
        assert!(dead.initiator.error.is_some() || dead.responder.error.is_some());
        alive.assert_works();
        alive.rekey(Role::Initiator);
        alive.drive();
        alive.assert_works();
    }
}

// 2P-18: the connection of the initial responder does if it is the only one that gets through.
#[test]
fn the_initial_initiator_answers_a_crossing_request_with_its_own() {
    let world = World::new();
    let session = id(&world.connect());
    let lost = world.dial();
    let mut pair = world.call_back(&session);
    complete(&mut pair);
    assert_eq!(kinds(&pair), RESUMED);
    assert_eq!(pair.epochs(), (3, 3));
    drop(lost);
}

// 2P-16: the commit of the update that was not answered is in the request.
#[test]
pub(super) fn an_unanswered_update_is_sent_again_as_the_request() {
    let world = World::new();
    let mut pair = world.connect();
    pair.rekey(Role::Initiator);
    // The server has applied it; its answer is lost.
    pair.deliver(Role::Initiator);
    assert_eq!(pair.responder.epoch(), 2);
    drop(pair);
    let mut pair = world.dial();
    let sent = pair.intercept(Role::Initiator);
    // The request builds on epoch 1, where the update did.
    let header = crate::group::CommitHeader::parse(&request_commit(&sent)).unwrap();
    assert_eq!(header.epoch, 1);
    pair.inject(Role::Responder, &sent);
    complete(&mut pair);
    assert_eq!(kinds(&pair), RESUMED);
    assert_eq!(pair.epochs(), (3, 3));
}

/// The commit in the request at the front of `sent`.
fn request_commit(sent: &[u8]) -> Vec<u8> {
    let record = Record::split_from(&mut BytesMut::from(sent)).unwrap().unwrap();
    let body = &record.payload[4..];
    body[..body.len() - 36].to_vec()
}

// TL-08
#[test]
pub(super) fn early_data_comes_with_the_request_and_once() {
    let world = World::new();
    drop(world.connect());
    for length in [1, 16384, 16385, 1 << 20] {
        let data = vec![7; length];
        let mut pair = world.dial_with(Some(&data));
        let flight = pair.intercept(Role::Initiator);
        pair.inject(Role::Responder, &flight);
        // It is there before the confirmation is.
        assert_eq!(pair.responder.events, [Event::EarlyData(data.into())]);
        assert_eq!(pair.responder.connection.handshake_kind(), None);
        complete(&mut pair);
        assert_eq!(pair.initiator.connection.early_data(), Some(EarlyDataStatus::Accepted));
        assert_eq!(kinds(&pair), RESUMED);
        // The same bytes again, to a server that is live, and later to one that is not.
        let mut replay = world.stranger(&world.server);
        replay.input.extend_from_slice(&flight);
        replay.process(world.now);
        assert_eq!((replay.events.len(), &replay.error), (0, &None));
        pair.assert_works();
    }
}

// TL-08: the response is lost, and the request is sent again: the data is not delivered again, and
// its sender learns that it was.
#[test]
fn a_repeated_request_does_not_deliver_early_data_again() {
    let world = World::new();
    drop(world.connect());
    let mut lost = world.dial_with(Some(b"once"));
    let flight = lost.intercept(Role::Initiator);
    lost.inject(Role::Responder, &flight);
    assert_eq!(lost.responder.events, [Event::EarlyData(b"once"[..].into())]);
    drop(lost);
    for _ in 0..3 {
        let mut replay = world.stranger(&world.server);
        replay.input.extend_from_slice(&flight);
        replay.process(world.now);
        assert_eq!(replay.events, []);
        assert!(!replay.out.is_empty(), "it is answered with the same response");
    }
    // New data cannot go with the old commit.
    let mut pair = world.dial_with(Some(b"more"));
    complete(&mut pair);
    assert_eq!(pair.initiator.connection.early_data(), Some(EarlyDataStatus::Rejected));
    assert_eq!(pair.responder.events, []);
}

// TL-08: refused by configuration; what was sent is skipped.
#[test]
fn early_data_that_is_not_wanted_is_refused() {
    let limits = |bytes| Limits::default().with_max_early_data(bytes);
    for allowed in [0, 99] {
        let world = World::with(|client| client, |server| server.limits(limits(allowed)));
        // Nothing to resume: it is not sent at all.
        let mut pair = world.dial_with(Some(&[1; 100]));
        complete(&mut pair);
        assert_eq!(pair.initiator.connection.early_data(), Some(EarlyDataStatus::Rejected));
        drop(pair);
        let mut pair = world.dial_with(Some(&[1; 100]));
        complete(&mut pair);
        assert_eq!(kinds(&pair), RESUMED);
        assert_eq!(pair.initiator.connection.early_data(), Some(EarlyDataStatus::Rejected));
        assert_eq!(pair.responder.events, []);
        assert_eq!(pair.responder.received, b"still here");
    }
}

// TL-08: the server has lost the session: a full handshake follows behind the early data, and
// nobody authentic has said what became of it.
#[test]
fn early_data_before_a_full_handshake_is_skipped() {
    let world = World::new();
    drop(world.connect());
    world.server_store.set_back(Default::default());
    let mut pair = world.dial_with(Some(&[1; 40_000]));
    complete(&mut pair);
    assert_eq!(kinds(&pair), FULL);
    assert_eq!(pair.initiator.connection.early_data(), Some(EarlyDataStatus::Unknown));
    assert_eq!(pair.responder.connection.not_resumed(), Some(&SessionError::Unknown.into()));
    // The session that the server does not know is gone; the new one is resumed.
    drop(pair);
    let pair = world.connect();
    assert_eq!(kinds(&pair), RESUMED);
}

// 2P-21: an old state put back at one end is noticed, whichever end it is.
#[test]
fn ends_that_are_out_of_step_start_anew() {
    for old in [Role::Initiator, Role::Responder] {
        let world = World::new();
        drop(world.connect());
        let images = (world.client_store.image(), world.server_store.image());
        for _ in 0..2 {
            assert_eq!(kinds(&world.connect()), RESUMED);
        }
        match old {
            Role::Initiator => world.client_store.set_back(images.0),
            Role::Responder => world.server_store.set_back(images.1),
        }
        let pair = world.connect();
        assert_eq!(kinds(&pair), FULL);
        let refused = Error::AlertReceived(AlertDescription::UnknownPskIdentity);
        assert_eq!(pair.initiator.connection.not_resumed(), Some(&refused));
        assert_eq!(
            pair.responder.connection.not_resumed(),
            Some(&SessionError::OutOfStep.into()),
            "{old:?}"
        );
    }
}

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

// 2P-14: at most one connection of a session is live, and it is the newer one.
#[test]
fn a_connection_that_was_given_up_ends() {
    let world = World::new();
    let mut old = world.connect();
    let session = id(&old);
    // The client finds the session in use and makes another one.
    assert_eq!(kinds(&world.connect()), FULL);
    // The server, asked for this very one, resumes it.
    let mut new = world.call_back(&session);
    complete(&mut new);
    for role in [Role::Initiator, Role::Responder] {
        let end = old.end(role);
        let error = end.connection.rekey(&mut end.out).unwrap_err();
        assert_eq!(error, SessionError::Superseded.into());
    }
    new.rekey(Role::Initiator);
    new.drive();
    new.assert_works();
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

// 2P-21: trust that was withdrawn ends a session, at either end.
#[test]
fn a_session_ends_when_its_peer_is_not_trusted_any_more() {
    for judge in [Role::Initiator, Role::Responder] {
        let identities = Identities::new();
        let pinned = |identity: &Identity| {
            Arc::new(std::sync::RwLock::new(PinnedKeys::parse(&identity.public_line()).unwrap()))
        };
        let (of_client, of_server) = (pinned(&identities.server), pinned(&identities.client));
        let stores = (TestStore::default(), TestStore::default());
        let config =
            |own: &Identity, trust: &Arc<std::sync::RwLock<PinnedKeys>>, store: &TestStore| {
                let builder = Config::builder()
                    .identity(own.clone())
                    .authentication_service(Arc::clone(trust))
                    .session_store(store.clone());
                Arc::new(builder.build().unwrap())
            };
        let world = World {
            client: config(&identities.client, &of_client, &stores.0),
            server: config(&identities.server, &of_server, &stores.1),
            client_store: stores.0,
            server_store: stores.1,
            identities,
            now: start(),
        };
        drop(world.connect());
        let list = if judge == Role::Initiator { &of_client } else { &of_server };
        *list.write().unwrap() = PinnedKeys::new();
        let mut pair = world.dial();
        pair.drive();
        assert_eq!(kinds(&pair), [None, None]);
        assert!(matches!(pair.end(judge).error, Some(Error::PeerNotTrusted(_))), "{judge:?}");
        let store = match judge {
            Role::Initiator => &world.client_store,
            Role::Responder => &world.server_store,
        };
        // What is left is the list of the server's name, which is empty.
        let left = store.image().1;
        assert!(left.values().all(|(_, blob)| blob.len() < 10), "the session was removed");
    }
}

// 2P-21
#[test]
fn a_session_has_an_end() {
    let lifetime = Duration::from_secs(100);
    for judge in [Role::Initiator, Role::Responder] {
        let mut world = match judge {
            Role::Initiator => World::with(|client| client.session_lifetime(lifetime), |s| s),
            Role::Responder => World::with(|c| c, |server| server.session_lifetime(lifetime)),
        };
        drop(world.connect());
        world.now = world.now.after(Duration::from_secs(99));
        assert_eq!(kinds(&world.connect()), RESUMED, "resuming does not make it younger");
        world.now = world.now.after(Duration::from_secs(1));
        let pair = world.connect();
        assert_eq!(kinds(&pair), FULL);
        let expired = Some(Error::from(SessionError::Expired));
        let end = if judge == Role::Initiator { &pair.initiator } else { &pair.responder };
        assert_eq!(end.connection.not_resumed(), expired.as_ref());
    }
}

// 2P-21
#[test]
fn a_removed_session_is_not_resumed() {
    let world = World::new();
    let mut pair = world.connect();
    let session = id(&pair);
    world.client.remove_session(&session).unwrap();
    // The connection goes on, and does not bring it back.
    pair.rekey(Role::Initiator);
    pair.drive();
    pair.assert_works();
    drop(pair);
    let pair = world.connect();
    assert_eq!(kinds(&pair), FULL);
    assert_ne!(id(&pair), session);
}

// 2P-21: nothing leaves that the store does not have.
#[test]
pub(super) fn nothing_is_sent_that_could_not_be_stored() {
    let failed = Error::from(StoreError::Failed("out of order".into()));
    // An update.
    let world = World::new();
    let mut pair = world.connect();
    world.client_store.fail(true);
    let end = &mut pair.initiator;
    let sent = end.sent.len();
    assert_eq!(end.connection.rekey(&mut end.out), Err(failed.clone()));
    // What it sends is an alert and no commit.
    assert!(end.out.len() < 40 && end.sent.len() == sent);
    // The answer to one.
    let world = World::new();
    let mut pair = world.connect();
    pair.rekey(Role::Initiator);
    world.server_store.fail(true);
    pair.deliver(Role::Initiator);
    assert_eq!(pair.responder.error, Some(failed.clone()));
    world.server_store.fail(false);
    drop(pair);
    assert_eq!(kinds(&world.connect()), RESUMED);
    // A response.
    let mut pair = world.dial();
    world.server_store.fail(true);
    pair.deliver(Role::Initiator);
    assert_eq!(&pair.responder.out[..], [21, 3, 3, 0, 2, 2, 115]);
    world.server_store.fail(false);
    drop(pair);
    assert_eq!(kinds(&world.connect()), RESUMED);
    // A request: connecting fails, and says why.
    world.client_store.fail(true);
    let name = ServerName::new(SERVER_NAME).unwrap();
    let client = Arc::clone(&world.client);
    let mut out = BytesMut::new();
    assert_eq!(Connection::initiator(client, name, world.now, &mut out).unwrap_err(), failed);
    assert!(out.is_empty());
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
        let header = &response[5 + 4..];
        assert!(stolen.apply_update(header, config, world.now).is_err());
    }
    world.client_store.set_back(now.0);
    world.server_store.set_back(now.1);
    pair.assert_works();
}
