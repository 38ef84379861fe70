//! Rotations and sessions that are resumed: what is lost, who crashes, and what is replayed (2P-13,
//! 2P-21).

use std::sync::atomic::Ordering::Relaxed;

use super::{
    attack::BOTH,
    resumption::{TestStore, id},
    rotation::{World, assert_is, identity, rotate},
    *,
};
use crate::error::SessionError;

/// Two parties with stores, which a new process may open again.
struct Stored {
    world: World,
    stores: [TestStore; 2],
    /// The configurations of the process that lives now.
    configs: [Arc<Config>; 2],
    now: Time,
}

impl Stored {
    fn new() -> Self {
        let world = World::new();
        let stores = [TestStore::default(), TestStore::default()];
        let configs = [Role::Initiator, Role::Responder]
            .map(|role| Arc::new(Self::configure(&world, &stores, role, |builder| builder)));
        Self { world, stores, configs, now: start() }
    }

    fn configure(
        world: &World,
        stores: &[TestStore; 2],
        role: Role,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Config {
        let store = stores[usize::from(role == Role::Responder)].clone();
        change(world.builder(role).session_store(store)).build().unwrap()
    }

    /// The party of `role` starts again, with another configuration.
    fn restart(&mut self, role: Role, change: impl FnOnce(Builder) -> Builder) {
        let config = Self::configure(&self.world, &self.stores, role, change);
        self.configs[usize::from(role == Role::Responder)] = Arc::new(config);
    }

    fn dial(&self) -> Pair {
        let mut out = BytesMut::new();
        let name = ServerName::new(SERVER_NAME).unwrap();
        let [client, server] = &self.configs;
        let initiator = Connection::initiator(Arc::clone(client), name, self.now, &mut out);
        let mut initiator = End::new(initiator.unwrap());
        initiator.out = out;
        let responder = Connection::responder(Arc::clone(server), self.now);
        Pair { initiator, responder: End::new(responder), now: self.now }
    }

    fn connect(&self) -> (Pair, Option<HandshakeKind>) {
        let mut pair = self.dial();
        pair.drive();
        Self::done(pair)
    }

    /// The server calls back.
    fn call_back(&self, session: &SessionId) -> Pair {
        let [client, server] = &self.configs;
        let mut out = BytesMut::new();
        let initiator = Connection::resume(Arc::clone(server), session, None, self.now, &mut out);
        let mut initiator = End::new(initiator.unwrap());
        initiator.out = out;
        let responder = Connection::responder(Arc::clone(client), self.now);
        Pair { initiator, responder: End::new(responder), now: self.now }
    }

    fn done(pair: Pair) -> (Pair, Option<HandshakeKind>) {
        assert_eq!((&pair.initiator.error, &pair.responder.error), (&None, &None));
        let kind = pair.initiator.connection.handshake_kind();
        assert_eq!(pair.responder.connection.handshake_kind(), kind);
        (pair, kind)
    }
}

const FULL: Option<HandshakeKind> = Some(HandshakeKind::Full);
const RESUMED: Option<HandshakeKind> = Some(HandshakeKind::Resumed);

// 2P-13, 2P-14
#[test]
pub(super) fn a_session_goes_on_under_the_new_identity() {
    for role in BOTH {
        let mut stored = Stored::new();
        let (mut pair, kind) = stored.connect();
        assert_eq!(kind, FULL);
        let old = pair.end(role).connection.identity().unwrap().clone();
        let next = identity("somebody-else");
        rotate(&mut pair, role, &next).unwrap();
        pair.drive();
        drop(pair);

        // In the same process the key is known.
        let (mut pair, kind) = stored.connect();
        assert_eq!(kind, RESUMED);
        assert_is(&mut pair, role, &next);
        pair.assert_works();
        drop(pair);

        // A new process has the new identity, and the old one for its sessions.
        let former = old.clone();
        stored.restart(role, |builder| builder.identity_again(&next).former_identity(former));
        let (mut pair, kind) = stored.connect();
        assert_eq!(kind, RESUMED);
        assert_is(&mut pair, role, &next);
        pair.assert_works();
        drop(pair);

        // Or the other way round.
        stored.restart(role, |builder| builder.former_identity(next.clone()));
        let (mut pair, kind) = stored.connect();
        assert_eq!(kind, RESUMED);
        assert_is(&mut pair, role, &next);
        drop(pair);

        // Without the new key the session is none of this party's.
        stored.restart(role, |builder| builder);
        let (mut pair, kind) = stored.connect();
        assert_eq!(kind, FULL);
        assert_is(&mut pair, role, &old);
        if role == Role::Initiator {
            let error = SessionError::Configuration("its identity");
            assert_eq!(pair.initiator.connection.not_resumed(), Some(&error.into()));
        }
    }
}

/// A builder with another identity.
trait IdentityAgain {
    fn identity_again(self, identity: &Identity) -> Self;
}

impl IdentityAgain for Builder {
    fn identity_again(self, identity: &Identity) -> Self {
        let config = self.build().unwrap();
        Config::builder()
            .identity(identity.clone())
            .authentication_service(Arc::clone(&config.authentication_service))
            .crypto_provider(config.crypto.clone())
            .rekey_policy(RekeyPolicy::manual())
            .session_store(Arc::clone(config.session_store.as_ref().unwrap()))
    }
}

// 2P-13, 2P-21: both crash at any moment of a rotation, accepted or refused, alone or crossed by an
// update. New processes agree on who is who.
#[test]
fn every_crash_in_a_rotation_can_be_resumed_from() {
    let mut seen = [0; 3];
    for role in BOTH {
        for (refusing, crossed, steps) in [false, true].into_iter().flat_map(|refusing| {
            [false, true]
                .into_iter()
                .flat_map(move |crossed| (0..6).map(move |steps| (refusing, crossed, steps)))
        }) {
            let mut stored = Stored::new();
            let (mut pair, _) = stored.connect();
            let old = pair.end(role).connection.identity().unwrap().clone();
            let next = identity("somebody-else");
            stored.world.judge(role.peer()).refusing.store(refusing, Relaxed);
            rotate(&mut pair, role, &next).unwrap();
            if crossed {
                pair.rekey(role.peer());
            }
            for step in 0..steps {
                pair.deliver(if step % 2 == 0 { role } else { role.peer() });
            }
            let decided = pair.end(role).statistics().refused_rotations > 0;
            drop(pair);
            let former = old.clone();
            stored.restart(role, |builder| builder.identity_again(&next).former_identity(former));
            stored.restart(role.peer(), |builder| builder);
            let mut first = stored.dial();
            first.drive();
            // What the one who answers has to say first may be what is refused.
            let failed = first.initiator.error.is_some();
            if failed {
                let error = AuthenticationError::CredentialChangeRefused;
                first.assert_failed(Role::Initiator, error);
                assert!(refusing && role == Role::Responder);
            }
            let (mut pair, kind) = if failed { stored.connect() } else { Stored::done(first) };
            assert!(!failed || kind == FULL);
            pair.assert_works();
            let own = pair.end(role).connection.identity().unwrap().clone();
            assert_is(&mut pair, role, &own);
            match (refusing, kind) {
                // Whatever was lost, it was accepted when it came again, unless it yielded to an update
                // or, as the initial responder's, to a request.
                (false, RESUMED) => {
                    assert!(crossed || role == Role::Responder || own.name() == next.name());
                }
                // The session goes on as it was, if the refusal has arrived or what was refused had
                // yielded to an update.
                (true, RESUMED) => assert_eq!(own.name(), old.name()),
                // Otherwise what is sent again is refused again, and a full handshake follows.
                (true, FULL) => assert!(!decided, "{role:?} {crossed} {steps}"),
                other => panic!("{other:?}"),
            }
            seen[usize::from(refusing) + usize::from(kind == FULL)] += 1;
        }
    }
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
}

// 2P-13, 2P-18: a request that was refused is replayed as the answer to one. The peer itself would have
// yielded, so it has not said that the session is over.
#[test]
fn a_refused_request_that_is_replayed_as_an_answer_ends_no_session() {
    let stored = Stored::new();
    let (mut pair, _) = stored.connect();
    let session = id(&pair);
    stored.world.judge(Role::Initiator).refusing.store(true, Relaxed);
    rotate(&mut pair, Role::Responder, &identity("somebody-else")).unwrap();
    drop(pair);
    let mut lost = stored.call_back(&session);
    let request = lost.intercept(Role::Initiator);
    drop(lost);

    let mut pair = stored.dial();
    drop(pair.intercept(Role::Initiator));
    pair.inject(Role::Initiator, &request);
    let reason = AuthenticationError::CredentialChangeRefused;
    assert_eq!(pair.initiator.error, Some(reason.into()));
    drop(pair);
    let (mut pair, kind) = stored.connect();
    assert_eq!((kind, id(&pair)), (RESUMED, session));
    pair.assert_works();
}

// 2P-13, 2P-21: an identity is refused inside the channel, and who wanted it never hears of that. It has
// to say the same again, which the one who refused cannot even look at again.
#[test]
fn a_lost_refusal_is_nobodys_misbehaviour_and_ends_the_session() {
    for calls_back in [false, true] {
        let stored = Stored::new();
        let (mut pair, _) = stored.connect();
        let session = id(&pair);
        stored.world.judge(Role::Responder).refusing.store(true, Relaxed);
        rotate(&mut pair, Role::Initiator, &identity("somebody-else")).unwrap();
        pair.deliver(Role::Initiator);
        assert_eq!(pair.responder.statistics().refused_peer_rotations, 1);
        drop(pair);
        let out_of_step = Error::from(SessionError::OutOfStep);
        if calls_back {
            let mut pair = stored.call_back(&session);
            pair.assert_failed(Role::Initiator, out_of_step);
            drop(pair);
            // Nothing else would come of another attempt.
            let server = Arc::clone(&stored.configs[1]);
            let again =
                Connection::resume(server, &session, None, stored.now, &mut BytesMut::new());
            assert_eq!(again.err(), Some(SessionError::Unknown.into()));
        } else {
            let (pair, kind) = stored.connect();
            assert_eq!(kind, FULL);
            assert_eq!(pair.responder.connection.not_resumed(), Some(&out_of_step));
        }
        let (mut pair, _) = stored.connect();
        pair.assert_works();
    }
}
