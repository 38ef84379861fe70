//! Identities that change inside a channel, and peers that are asked about again (2P-13).

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{attack::BOTH, schedules::Rng, *};
use crate::{
    SignatureScheme,
    auth::{AuthenticationRequest, Purpose},
    error::PeerMisbehaved,
    wire::{ContentType, TwoPartyMessage},
};

/// Believes everybody in a handshake; later it does as the test says.
#[derive(Default)]
pub(super) struct Judge {
    pub(super) refusing: AtomicBool,
    revoked: AtomicBool,
    /// Decides by chance instead.
    chance: Mutex<Option<Rng>>,
    asked: Mutex<Vec<&'static str>>,
}

impl AuthenticationService for Judge {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        let (purpose, error) = match request.purpose {
            Purpose::Handshake => ("handshake", None),
            Purpose::Update { .. } => {
                let refusing = match &mut *lock(&self.chance) {
                    Some(rng) => rng.below(2) == 0,
                    None => self.refusing.load(Relaxed),
                };
                ("update", refusing.then_some(AuthenticationError::CredentialChangeRefused))
            }
            Purpose::Revisit { .. } => {
                ("revisit", self.revoked.load(Relaxed).then_some(AuthenticationError::Revoked))
            }
        };
        lock(&self.asked).push(purpose);
        match error {
            Some(error) => Err(error),
            None => Ok(PeerIdentity::new(
                request.presented.to_name()?,
                request.presented.to_public_key()?,
            )),
        }
    }

    fn trust_digest(&self) -> Option<[u8; 32]> {
        Some([7; 32])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two parties, and what each of them thinks of the other.
pub(super) struct World {
    identities: Identities,
    judges: [Arc<Judge>; 2],
}

impl World {
    pub(super) fn new() -> Self {
        Self { identities: Identities::new(), judges: Default::default() }
    }

    pub(super) fn builder(&self, role: Role) -> Builder {
        let builder = match role {
            Role::Initiator => self.identities.client(),
            Role::Responder => self.identities.server(),
        };
        with_service(&builder, Arc::clone(self.judge(role)))
    }

    /// The service that `role` asks.
    pub(super) fn judge(&self, role: Role) -> &Arc<Judge> {
        match role {
            Role::Initiator => &self.judges[0],
            Role::Responder => &self.judges[1],
        }
    }

    fn connect(&self) -> Pair {
        Pair::connect(self.builder(Role::Initiator), self.builder(Role::Responder))
    }
}

fn with_service(builder: &Builder, judge: Arc<Judge>) -> Builder {
    let config = builder.clone().build().unwrap();
    Config::builder()
        .identity(config.identity().clone())
        .authentication_service(judge)
        .crypto_provider(config.crypto.clone())
        .rekey_policy(RekeyPolicy::manual())
}

pub(super) fn identity(name: &str) -> Identity {
    Identity::generate(name).unwrap()
}

pub(super) fn rotate(pair: &mut Pair, role: Role, next: &Identity) -> Result<(), Error> {
    let end = pair.end(role);
    end.connection.rotate_identity(next.clone(), &mut end.out)
}

/// `role` is `expected`, and both ends know.
pub(super) fn assert_is(pair: &mut Pair, role: Role, expected: &Identity) {
    let own = pair.end(role).connection.identity().unwrap();
    assert_eq!((own.name(), own.public_key()), (expected.name(), expected.public_key()));
    let peer = pair.end(role.peer()).connection.peer().unwrap();
    assert_eq!((peer.name(), peer.public_key()), (expected.name(), expected.public_key()));
}

// 2P-13
#[test]
pub(super) fn an_identity_changes_inside_a_channel() {
    for role in BOTH {
        let world = World::new();
        let mut pair = world.connect();
        let before = pair.end(role).connection.identity().unwrap().clone();
        let next = identity("somebody-else");
        rotate(&mut pair, role, &next).unwrap();
        assert_is(&mut pair, role, &before);
        pair.drive();
        assert_is(&mut pair, role, &next);
        pair.end(role).expect(Event::IdentityRotated);
        let peer = pair.end(role.peer());
        peer.expect(Event::PeerIdentityChanged(peer.connection.peer().unwrap()));
        assert_eq!(pair.epochs(), (2, 2));
        assert_eq!(pair.end(role).statistics().rotations, 1);
        assert_eq!(pair.end(role.peer()).statistics().peer_rotations, 1);
        // The new key signs from now on, and nobody is asked about it again.
        for role in BOTH {
            pair.rekey(role);
            pair.drive();
        }
        assert_eq!(pair.epochs(), (4, 4));
        pair.assert_works();
        assert_eq!(*world.judge(role.peer()).asked.lock().unwrap(), ["handshake", "update"]);

        // The same name with another key, and the same key with another name.
        let key = identity(next.name());
        let name = Identity::from_pkcs8_pem("renamed", &key.to_pkcs8_pem().unwrap()).unwrap();
        for next in [&key, &name, &before] {
            rotate(&mut pair, role, next).unwrap();
            pair.drive();
            assert_is(&mut pair, role, next);
            pair.assert_works();
        }
    }
}

// 2P-13: refusal leaves the channel on the old identity, and both ends in step.
#[test]
pub(super) fn a_refused_identity_changes_nothing() {
    for role in BOTH {
        let world = World::new();
        let mut pair = world.connect();
        let before = pair.end(role).connection.identity().unwrap().clone();
        let next = identity("somebody-else");
        world.judge(role.peer()).refusing.store(true, Relaxed);
        rotate(&mut pair, role, &next).unwrap();
        pair.deliver(role);
        let reason = AuthenticationError::CredentialChangeRefused;
        pair.end(role.peer()).expect(Event::PeerIdentityRefused(reason));
        assert_eq!(pair.epochs(), (1, 1));
        pair.deliver(role.peer());
        pair.end(role).expect(Event::RotationRefused);
        assert_is(&mut pair, role, &before);
        pair.assert_works();
        // The keys are renewed all the same.
        assert_eq!(pair.epochs(), (2, 2));
        assert_is(&mut pair, role, &before);
        assert_eq!(pair.end(role).statistics().refused_rotations, 1);
        assert_eq!(pair.end(role.peer()).statistics().refused_peer_rotations, 1);

        // It may be tried again.
        world.judge(role.peer()).refusing.store(false, Relaxed);
        rotate(&mut pair, role, &next).unwrap();
        pair.drive();
        assert_is(&mut pair, role, &next);
        pair.assert_works();
    }
}

#[test]
fn what_cannot_become_of_a_party_is_misuse() {
    for role in BOTH {
        let world = World::new();
        let mut pair = world.connect();
        let peers = pair.end(role.peer()).connection.identity().unwrap().clone();
        assert_eq!(rotate(&mut pair, role, &peers), Err(ApiMisuse::PeersKey.into()));
        let schemes = SignatureScheme::ALL;
        let other = schemes.iter().find(|scheme| **scheme != peers.public_key().scheme()).unwrap();
        let other = Identity::generate_with("other", *other).unwrap();
        assert_eq!(rotate(&mut pair, role, &other), Err(ApiMisuse::SignatureScheme.into()));
        let next = identity("a");
        rotate(&mut pair, role, &next).unwrap();
        let again = rotate(&mut pair, role, &identity("b"));
        assert_eq!(again, Err(ApiMisuse::RotationOutstanding.into()));
        pair.drive();
        assert_is(&mut pair, role, &next);
        pair.assert_works();
        pair.close(Role::Initiator);
        pair.drive();
        pair.close(Role::Responder);
        pair.drive();
        assert_eq!(rotate(&mut pair, role, &identity("c")), Err(ApiMisuse::Closed.into()));
    }
    let mut pair = Pair::new(World::new().builder(Role::Initiator), Identities::new().server());
    let early = rotate(&mut pair, Role::Initiator, &identity("a"));
    assert_eq!(early, Err(ApiMisuse::HandshakeNotComplete.into()));
}

// 2P-09, 2P-10, 2P-13: every combination of who rotates, who only updates, and who is believed.
#[test]
fn rotations_cross_updates_and_each_other() {
    for case in 0..32 {
        let bit = |number: usize| case >> number & 1 == 1;
        let (rotates, refused) = ([bit(0), bit(1)], [bit(2), bit(3)]);
        let first = if bit(4) { Role::Initiator } else { Role::Responder };
        let world = World::new();
        let mut pair = world.connect();
        let next = [identity("next-client"), identity("next-server")];
        for (index, role) in BOTH.into_iter().enumerate() {
            world.judge(role.peer()).refusing.store(refused[index], Relaxed);
            match rotates[index] {
                true => rotate(&mut pair, role, &next[index]).unwrap(),
                false => drop(pair.rekey(role)),
            }
            pair.write(role, b"x");
        }
        let flights = [first, first.peer()].map(|role| (role, pair.intercept(role)));
        for (role, flight) in flights {
            pair.inject(role.peer(), &flight);
        }
        pair.drive();
        for (index, role) in BOTH.into_iter().enumerate() {
            let own = [&world.identities.client, &world.identities.server][index];
            let became = rotates[index] && !refused[index];
            assert_is(&mut pair, role, if became { &next[index] } else { own });
            let statistics = pair.end(role).statistics();
            assert_eq!(statistics.rotations, u64::from(became), "case {case}");
            assert_eq!(statistics.refused_rotations, u64::from(rotates[index] && refused[index]));
            // Each has healed, whatever the other one thinks of its name.
            assert_eq!(statistics.own_updates, 1, "case {case}");
        }
        assert_eq!(pair.epochs(), (3, 3));
        pair.assert_works();
    }
}

// 2P-13: under load, at random moments, believed at random.
#[test]
fn random_schedules_with_rotations_keep_the_ends_in_step() {
    let mut total = [0; 3];
    for seed in 0..20 {
        let world = World::new();
        for (judge, seed) in world.judges.iter().zip([seed, seed + 1000]) {
            *judge.chance.lock().unwrap() = Some(Rng(seed));
        }
        let mut pair = world.connect();
        let mut rng = Rng(seed + 77);
        let mut written = [Vec::new(), Vec::new()];
        let mut current = [&world.identities.client, &world.identities.server].map(Identity::clone);
        let mut asked: [Option<Identity>; 2] = [None, None];
        for step in 0..200 {
            let index = rng.below(2);
            let role = BOTH[index];
            match rng.below(8) {
                0 | 1 => {
                    let data = vec![u8::try_from(step).unwrap(); rng.below(3000)];
                    pair.write(role, &data);
                    written[index].extend_from_slice(&data);
                }
                2 => drop(pair.rekey(role)),
                3 if asked[index].is_none() => {
                    let next = identity(&format!("{step}"));
                    rotate(&mut pair, role, &next).unwrap();
                    asked[index] = Some(next);
                }
                _ => {
                    let end = pair.end(role);
                    if !end.out.is_empty() {
                        let length = 1 + rng.below(end.out.len());
                        let bytes = end.out.split_to(length);
                        pair.inject(role.peer(), &bytes);
                    }
                }
            }
            assert_eq!((&pair.initiator.error, &pair.responder.error), (&None, &None), "{seed}");
            settle(&mut pair, &mut current, &mut asked);
        }
        pair.drive();
        settle(&mut pair, &mut current, &mut asked);
        assert!(asked.iter().all(Option::is_none), "seed {seed}: everything is decided");
        for (role, identity) in BOTH.into_iter().zip(&current) {
            assert_is(&mut pair, role, identity);
        }
        assert_eq!(pair.responder.received, written[0], "seed {seed}");
        assert_eq!(pair.initiator.received, written[1], "seed {seed}");
        let [a, b] = [&pair.initiator, &pair.responder].map(End::statistics);
        assert_eq!((a.rotations, b.rotations), (b.peer_rotations, a.peer_rotations));
        assert_eq!(a.refused_rotations, b.refused_peer_rotations);
        assert_eq!(b.refused_rotations, a.refused_peer_rotations);
        let sums = [
            a.rotations + b.rotations,
            a.refused_rotations + b.refused_rotations,
            a.crossed_updates,
        ];
        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        pair.assert_works();
    }
    assert!(total.iter().all(|total| *total > 20), "{total:?}");
}

/// Notes what was decided since the last call.
fn settle(pair: &mut Pair, current: &mut [Identity; 2], asked: &mut [Option<Identity>; 2]) {
    for (index, role) in BOTH.into_iter().enumerate() {
        for event in std::mem::take(&mut pair.end(role).events) {
            match event {
                Event::IdentityRotated => current[index] = asked[index].take().unwrap(),
                Event::RotationRefused => drop(asked[index].take().unwrap()),
                _ => {}
            }
        }
    }
}

/// Sends a message that an honest party would not send now.
fn send(pair: &mut Pair, role: Role, message: &TwoPartyMessage) {
    let end = pair.end(role);
    let mut out = BytesMut::new();
    let encoded = message.encode().unwrap();
    let path = end.established().sender.path_mut();
    path.seal_control(ContentType::Handshake, &encoded, &mut out).unwrap();
    end.out.unsplit(out);
}

// 2P-13, CH-10: only a new identity can be refused, so nobody can keep a party from healing.
#[test]
fn a_refusal_that_answers_no_rotation_is_refused() {
    let unexpected = PeerMisbehaved::UnexpectedMessage("UpdateRefused");
    for role in BOTH {
        // Nothing is outstanding.
        let mut pair = World::new().connect();
        send(&mut pair, role, &TwoPartyMessage::UpdateRefused { epoch: 2 });
        pair.assert_failed(role.peer(), unexpected);

        // A plain update is.
        let mut pair = World::new().connect();
        pair.rekey(role);
        drop(pair.intercept(role));
        send(&mut pair, role.peer(), &TwoPartyMessage::UpdateRefused { epoch: 2 });
        pair.deliver(role.peer());
        assert_eq!(pair.end(role).error, Some(unexpected.into()));

        // A rotation is, to another epoch.
        let mut pair = World::new().connect();
        rotate(&mut pair, role, &identity("next")).unwrap();
        drop(pair.intercept(role));
        send(&mut pair, role.peer(), &TwoPartyMessage::UpdateRefused { epoch: 3 });
        pair.deliver(role.peer());
        let error = PeerMisbehaved::WrongEpoch { expected: 2, got: 3 };
        assert_eq!(pair.end(role).error, Some(error.into()));

        // It was answered already.
        let mut pair = World::new().connect();
        rotate(&mut pair, role, &identity("next")).unwrap();
        pair.deliver(role);
        send(&mut pair, role.peer(), &TwoPartyMessage::UpdateRefused { epoch: 2 });
        pair.assert_failed(role, unexpected);
    }
}

// CH-09: rotations that are refused count as updates.
#[test]
fn refused_rotations_are_a_flood() {
    let world = World::new();
    world.judge(Role::Responder).refusing.store(true, Relaxed);
    let limits = Limits::default().with_max_updates_without_data(10);
    let mut pair = Pair::connect(
        world.builder(Role::Initiator),
        world.builder(Role::Responder).limits(limits),
    );
    for _ in 0..6 {
        if pair.responder.error.is_none() {
            rotate(&mut pair, Role::Initiator, &identity("next")).unwrap();
            pair.drive();
        }
    }
    pair.assert_failed(Role::Responder, PeerMisbehaved::TooManyUpdates);
}

// 2P-13
#[test]
fn a_peer_that_is_revoked_is_found_out_when_it_is_revisited() {
    const INTERVAL: Duration = Duration::from_secs(60);
    for role in BOTH {
        let world = World::new();
        let builders = BOTH.map(|end| match end == role {
            true => world.builder(end).revisit_interval(INTERVAL),
            false => world.builder(end),
        });
        let [client, server] = builders;
        let mut pair = Pair::connect(client, server);
        let timeout = |pair: &mut Pair| pair.end(role).connection.poll_timeout();
        let first = timeout(&mut pair).unwrap();
        assert_eq!(first, pair.now.monotonic + INTERVAL);
        assert_eq!(pair.end(role.peer()).connection.poll_timeout(), None);
        pair.advance(INTERVAL - Duration::from_millis(1));
        assert_eq!(*world.judge(role).asked.lock().unwrap(), ["handshake"]);
        pair.advance(Duration::from_millis(1));
        assert_eq!(*world.judge(role).asked.lock().unwrap(), ["handshake", "revisit"]);
        assert_eq!(timeout(&mut pair), Some(first + INTERVAL));
        pair.assert_works();

        // About who the peer is now.
        rotate(&mut pair, role.peer(), &identity("somebody-else")).unwrap();
        pair.drive();
        pair.advance(INTERVAL);
        pair.assert_works();
        assert_eq!(
            *world.judge(role).asked.lock().unwrap(),
            ["handshake", "revisit", "update", "revisit"]
        );

        // After a close in one direction, too.
        pair.close(role);
        pair.drive();
        world.judge(role).revoked.store(true, Relaxed);
        pair.advance(INTERVAL);
        pair.assert_failed(role, AuthenticationError::Revoked);
        assert_eq!(timeout(&mut pair), None);
    }
}

// CH-06: the policy of a party that has closed starts nothing, whatever else its timer is for.
#[test]
fn revisiting_starts_no_update_of_a_party_that_has_closed() {
    const INTERVAL: Duration = Duration::from_secs(60);
    for role in BOTH {
        let world = World::new();
        let policy = RekeyPolicy::manual().with_interval(INTERVAL);
        let [client, server] = BOTH.map(|end| match end == role {
            true => world.builder(end).rekey_policy(policy).revisit_interval(2 * INTERVAL),
            false => world.builder(end),
        });
        let mut pair = Pair::connect(client, server);
        pair.close(role);
        pair.write(role.peer(), b"data");
        pair.drive();
        for _ in 0..4 {
            pair.advance(INTERVAL);
            pair.drive();
        }
        assert_eq!(*world.judge(role).asked.lock().unwrap(), ["handshake", "revisit", "revisit"]);
        assert_eq!(pair.epochs(), (1, 1));
    }
}
