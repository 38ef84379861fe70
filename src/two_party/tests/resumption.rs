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
    error::{SessionError, StoreError},
    store::{Revision, SessionKey, SessionStore, StoredSession},
    wire::{AlertDescription, MessageAssembler, Record},
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

    pub(super) fn dial_with(&self, early_data: Option<&[u8]>) -> Pair {
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
    pub(super) fn stranger(&self, to: &Arc<Config>) -> End {
        End::new(Connection::responder(Arc::clone(to), self.now))
    }

    pub(super) fn pair(
        &self,
        initiator: Connection,
        out: BytesMut,
        responder: &Arc<Config>,
    ) -> Pair {
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

pub(super) fn kinds(pair: &Pair) -> [Option<HandshakeKind>; 2] {
    [pair.initiator.connection.handshake_kind(), pair.responder.connection.handshake_kind()]
}

pub(super) const FULL: [Option<HandshakeKind>; 2] = [Some(HandshakeKind::Full); 2];
pub(super) const RESUMED: [Option<HandshakeKind>; 2] = [Some(HandshakeKind::Resumed); 2];

pub(super) fn id(pair: &Pair) -> SessionId {
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
pub(super) fn request_commit(sent: &[u8]) -> Vec<u8> {
    let body = first_body(sent);
    body[..body.len() - 36].to_vec()
}

/// The body of the message at the front of `sent`, in as many records as it takes.
pub(super) fn first_body(sent: &[u8]) -> Vec<u8> {
    let mut sent = BytesMut::from(sent);
    let mut assembler: MessageAssembler = MessageAssembler::new(1 << 16);
    loop {
        let record = Record::split_from(&mut sent).unwrap().unwrap();
        assembler.push(&record.payload).unwrap();
        if let Some(message) = assembler.next().unwrap() {
            return message.encoded()[4..].to_vec();
        }
    }
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
