//! Attacks with updates, by the peer itself or by somebody who has its traffic keys (2P-06, 2P-13,
//! TL-06, CH-10).

use std::sync::{Mutex, PoisonError};

use super::{
    attack::{BOTH, seal_message},
    schedules::Rng,
    *,
};
use crate::{
    auth::{AuthenticationError, AuthenticationRequest, PeerIdentity, Purpose},
    error::{InvalidMessage, PeerMisbehaved},
    group::tests::{Forgery, resign_commit},
    wire::TwoPartyMessage,
};

/// Has `attacker` send a message in a ConnectionUpdate that its own machine knows nothing of.
fn update(pair: &mut Pair, attacker: Role, commit: Vec<u8>) {
    seal_message(pair, attacker, &TwoPartyMessage::ConnectionUpdate { commit });
}

fn forge(pair: &mut Pair, attacker: Role, forgery: Forgery<'_>) {
    let commit = pair.end(attacker).established().sender.group_mut().forge(forgery);
    update(pair, attacker, commit);
}

// 2P-06, TL-06
#[test]
pub(super) fn what_is_no_bare_self_update_is_refused() {
    let stranger = Identity::generate("stranger").unwrap();
    let not = |reason| Error::from(PeerMisbehaved::NotASelfUpdate(reason));
    let cases = |attacker: Role| {
        vec![
            (Forgery::Add, not("it carries proposals")),
            (Forgery::AddWithPath, not("it carries proposals")),
            (Forgery::Remove, not("it carries proposals")),
            (Forgery::GroupContextExtensions, not("it carries proposals")),
            (Forgery::SignedBy(&stranger), PeerMisbehaved::InvalidCommit.into()),
            (Forgery::Leaf(Some(b"others")), not("it changes transport parameters")),
            (Forgery::PublicMessage, {
                InvalidMessage::UnexpectedWireFormat("PrivateMessage").into()
            }),
            (Forgery::Application, not("not a commit")),
            (Forgery::Proposal, not("not a commit")),
        ]
        .into_iter()
        // The responder's leaf has no parameters that it could drop.
        .chain(
            (attacker == Role::Initiator)
                .then(|| (Forgery::Leaf(None), not("it changes transport parameters"))),
        )
    };
    for attacker in BOTH {
        for (forgery, error) in cases(attacker) {
            let mut pair = Pair::connected();
            forge(&mut pair, attacker, forgery);
            pair.deliver(attacker);
            let victim = attacker.peer();
            assert_eq!(pair.end(victim).error, Some(error.clone()), "{attacker:?}: {forgery:?}");
            pair.assert_failed(victim, error);
        }
    }
}

// 2P-06: a commit for the epoch before, twice; for the next one; of another group; one's own.
#[test]
pub(super) fn a_commit_that_does_not_belong_here_is_refused() {
    for attacker in BOTH {
        let victim = attacker.peer();
        // Applied, and sent again.
        let mut pair = Pair::connected();
        pair.rekey(attacker);
        drop(pair.intercept(attacker));
        let sender = &mut pair.end(attacker).established().sender;
        sender.path_mut().key_mut().set_sequence_number(sequence_number(attacker));
        sender.group_mut().drop_update().unwrap();
        let commit = sender.group_mut().start_update().unwrap();
        update(&mut pair, attacker, commit.clone());
        pair.drive();
        assert_eq!(pair.epochs(), (2, 2));
        update(&mut pair, attacker, commit);
        pair.assert_failed(victim, PeerMisbehaved::CommitForWrongEpoch);

        // For the epoch after an update that was never sent.
        let mut pair = Pair::connected();
        let group = pair.end(attacker).established().sender.group_mut();
        group.start_update().unwrap();
        group.merge_update().unwrap();
        let commit = group.start_update().unwrap();
        update(&mut pair, attacker, commit);
        pair.assert_failed(victim, PeerMisbehaved::CommitForWrongEpoch);

        // Of another group.
        let mut other = Pair::connected();
        let commit = other.end(attacker).established().sender.group_mut().start_update().unwrap();
        let mut pair = Pair::connected();
        update(&mut pair, attacker, commit);
        pair.assert_failed(victim, PeerMisbehaved::InvalidCommit);

        // The victim's own, which it has not sent. OpenMLS says of such a message only that it is
        // one's own.
        let mut pair = Pair::connected();
        let group = pair.end(victim).established().sender.group_mut();
        let commit = group.start_update().unwrap();
        group.drop_update().unwrap();
        update(&mut pair, attacker, commit);
        pair.assert_failed(victim, PeerMisbehaved::NotASelfUpdate("not a commit"));
    }
    // One that the victim has sent, and waits for. An initiator ignores it (2P-09).
    let mut pair = Pair::stored();
    let group = pair.responder.established().sender.group();
    let commit = {
        let mut stolen = group.steal();
        stolen.start_update().unwrap()
    };
    pair.rekey(Role::Responder);
    drop(pair.intercept(Role::Responder));
    update(&mut pair, Role::Initiator, commit);
    pair.deliver(Role::Initiator);
    let error = PeerMisbehaved::NotASelfUpdate("not a commit");
    assert_eq!(pair.responder.error, Some(error.into()));
}

/// How many records `role` has sent in the first epoch: the initiator has confirmed.
fn sequence_number(role: Role) -> u64 {
    u64::from(role == Role::Initiator)
}

/// Whether this is how a changed commit is refused.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidMessage(
            InvalidMessage::Malformed("commit")
                | InvalidMessage::UnexpectedWireFormat("PrivateMessage")
        ) | Error::PeerMisbehaved(
            PeerMisbehaved::InvalidCommit | PeerMisbehaved::CommitForWrongEpoch
        )
    )
}

// 2P-06, CH-10: every bit and every end of a commit, and some of them inside of a sealed record.
#[test]
fn no_changed_commit_is_applied() {
    for attacker in BOTH {
        let mut pair = Pair::stored();
        let commit = pair.end(attacker).established().sender.group_mut().start_update().unwrap();
        let snapshot = pair.end(attacker.peer()).established().sender.group().steal();
        for bit in 0..commit.len() * 8 {
            let mut changed = commit.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = snapshot.steal().receive_update(&changed).err();
            assert!(error.as_ref().is_some_and(is_refusal), "{attacker:?} {bit}: {error:?}");
        }
        for end in 1..commit.len() {
            let error = snapshot.steal().receive_update(&commit[..end]).err();
            assert_eq!(error, Some(InvalidMessage::Malformed("commit").into()));
        }
        assert!(snapshot.steal().receive_update(&commit).is_ok());

        for bit in (0..commit.len() * 8).step_by(31) {
            let mut pair = Pair::connected();
            let group = pair.end(attacker).established().sender.group_mut();
            let mut commit = group.start_update().unwrap();
            commit[bit / 8] ^= 1 << (bit % 8);
            update(&mut pair, attacker, commit);
            pair.deliver(attacker);
            let error = pair.end(attacker.peer()).error.clone().unwrap();
            assert!(is_refusal(&error), "{attacker:?} {bit}: {error:?}");
            pair.assert_failed(attacker.peer(), error);
        }
        for end in (1..commit.len()).step_by(7) {
            let mut pair = Pair::connected();
            update(&mut pair, attacker, commit[..end].to_vec());
            pair.assert_failed(attacker.peer(), InvalidMessage::Malformed("commit"));
        }
    }
}

/// Sends a self-update of which `tamper` has changed what the PrivateMessage encrypts. Returns
/// what the victim makes of it.
fn tampered(
    attacker: Role,
    tamper: impl Fn(&Identity, &[u8], &[u8]) -> Vec<u8> + Send + Sync,
) -> Option<Error> {
    let identities = Identities::new();
    let mut pair = Pair::connect(identities.client(), identities.server());
    let own = match attacker {
        Role::Initiator => &identities.client,
        Role::Responder => &identities.server,
    };
    let group = pair.end(attacker).established().sender.group_mut();
    let forgery = Forgery::SignedBy(own);
    let commit = group.forge_with(forgery, |content, signed| tamper(own, content, signed));
    update(&mut pair, attacker, commit);
    pair.deliver(attacker);
    let error = pair.end(attacker.peer()).error.clone();
    if let Some(error) = &error {
        pair.assert_failed(attacker.peer(), error.clone());
    }
    error
}

/// The sender data of a PrivateMessage: leaf, generation, reuse guard.
const SENDER_DATA_LEN: usize = 12;

// 2P-06, CH-10: the peer itself changes its commit, and signs and encrypts the result.
#[test]
fn no_changed_and_signed_commit_is_applied() {
    let invalid = Some(PeerMisbehaved::InvalidCommit.into());
    let length = Mutex::new(0);
    let applied = tampered(Role::Initiator, |own, content, signed| {
        if content.len() <= SENDER_DATA_LEN {
            return content.to_vec();
        }
        *length.lock().unwrap() = content.len() - 66 - 33;
        resign_commit(own, content, signed, |_| {})
    });
    assert_eq!(applied, None, "the control: signed again without a change");
    let length = length.into_inner().unwrap();
    for attacker in BOTH {
        let refused = |name: String, change: &(dyn Fn(&mut Vec<u8>) + Send + Sync)| {
            let error = tampered(attacker, |own, content, signed| match content.len() {
                ..=SENDER_DATA_LEN => content.to_vec(),
                _ => resign_commit(own, content, signed, change),
            });
            assert_eq!(error, invalid, "{attacker:?}: {name}");
        };
        let mut rng = Rng(11);
        // The responder's commit is shorter: its leaf has no parameters.
        let length = if attacker == Role::Responder { 150 } else { length };
        for bit in (0..length * 8).filter(|_| rng.below(6) == 0) {
            refused(format!("bit {bit}"), &move |commit| commit[bit / 8] ^= 1 << (bit % 8));
        }
        for end in (0..length).step_by(3) {
            refused(format!("end {end}"), &move |commit| commit.truncate(end));
        }
        // No proposals, no path (RFC 9420, section 12.4).
        refused("no path".into(), &|commit| *commit = vec![0, 0]);
    }
}

// CH-10: leaf, generation and reuse guard of the sender, bit by bit.
#[test]
fn no_changed_sender_data_is_accepted() {
    for attacker in BOTH {
        for bit in 0..SENDER_DATA_LEN * 8 {
            let error = tampered(attacker, |_, content, _| {
                let mut content = content.to_vec();
                if content.len() == SENDER_DATA_LEN {
                    content[bit / 8] ^= 1 << (bit % 8);
                }
                content
            });
            let expected = match bit {
                // The lowest bit of the leaf makes it the victim's own.
                24 => PeerMisbehaved::NotASelfUpdate("not a commit"),
                // No such leaf, or a generation from 1024 on.
                0..48 | 50..56 => PeerMisbehaved::NoKeyForCommit,
                _ => PeerMisbehaved::InvalidCommit,
            };
            assert_eq!(error, Some(expected.into()), "{attacker:?} {bit}");
        }
        for length in 0..SENDER_DATA_LEN {
            let error = tampered(attacker, |_, content, _| match content.len() {
                SENDER_DATA_LEN => content[..length].to_vec(),
                _ => content.to_vec(),
            });
            assert_eq!(error, Some(PeerMisbehaved::InvalidCommit.into()), "{attacker:?} {length}");
        }
    }
}

/// Accepts who comes first, and changes as it is told.
struct Changes {
    allowed: bool,
    asked: Mutex<Vec<String>>,
}

impl AuthenticationService for Changes {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        let name = request.presented.to_name()?;
        if let Purpose::Update { previous } = request.purpose {
            let asked = format!("{:?} {} becomes {name}", request.role, previous.name());
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
            if !self.allowed {
                return Err(AuthenticationError::CredentialChangeRefused);
            }
        }
        Ok(PeerIdentity::new(name, request.presented.to_public_key()?))
    }
}

/// Has `attacker` install `next` with an update that its own machine takes for one of its own.
fn take_over(pair: &mut Pair, attacker: Role, next: &Identity) {
    let sent = {
        let path = pair.end(attacker).established().sender.path_mut();
        path.key_mut().sequence_number()
    };
    pair.rekey(attacker);
    drop(pair.intercept(attacker));
    let sender = &mut pair.end(attacker).established().sender;
    sender.path_mut().key_mut().set_sequence_number(sent);
    sender.group_mut().drop_update().unwrap();
    forge(pair, attacker, Forgery::Become(next));
}

// 2P-13
#[test]
fn a_new_credential_is_asked_about_before_it_is_applied() {
    for attacker in BOTH {
        for allowed in [true, false] {
            let identities = Identities::new();
            let services = [(); 2].map(|()| Arc::new(Changes { allowed, asked: Mutex::default() }));
            let config = |own: &Identity, service: &Arc<Changes>| {
                Config::builder()
                    .identity(own.clone())
                    .authentication_service(Arc::clone(service))
                    .rekey_policy(RekeyPolicy::manual())
            };
            let mut pair = Pair::connect(
                config(&identities.client, &services[0]),
                config(&identities.server, &services[1]),
            );
            let victim = attacker.peer();
            let asked = match victim {
                Role::Initiator => &services[0].asked,
                Role::Responder => &services[1].asked,
            };
            let before = pair.end(victim).connection.peer().unwrap();
            let next = Identity::generate("somebody-else").unwrap();
            take_over(&mut pair, attacker, &next);
            let question = format!("{attacker:?} {} becomes somebody-else", before.name());
            if !allowed {
                pair.deliver(attacker);
                assert_eq!(*asked.lock().unwrap(), [question]);
                let end = pair.end(victim);
                let reason = AuthenticationError::CredentialChangeRefused;
                end.expect(Event::PeerIdentityRefused(reason));
                assert_eq!((end.epoch(), end.connection.peer()), (1, Some(before)));
                // The attacker's machine knows of no change that could be refused.
                let error = PeerMisbehaved::UnexpectedMessage("UpdateRefused");
                pair.assert_failed(attacker, error);
                continue;
            }
            pair.drive();
            assert_eq!(*asked.lock().unwrap(), [question]);
            let peer = pair.end(victim).connection.peer().unwrap();
            assert_eq!((peer.name(), peer.public_key()), ("somebody-else", next.public_key()));
            assert_eq!(pair.epochs(), (2, 2));
            pair.assert_works();
            // Both go on: the new key signs, and nobody is asked about it again.
            for role in BOTH {
                pair.rekey(role);
                pair.assert_works();
            }
            assert_eq!(pair.epochs(), (4, 4));
            assert_eq!(asked.lock().unwrap().len(), 1);
        }
    }
}

// 2P-13: the same name with another key is a new credential, and so is the same key with another
// name. Pinned keys know neither.
#[test]
fn a_credential_that_is_not_pinned_is_refused() {
    for attacker in BOTH {
        let mut pair = Pair::connected();
        let name = match attacker {
            Role::Initiator => "client",
            Role::Responder => SERVER_NAME,
        };
        let next = Identity::generate(name).unwrap();
        take_over(&mut pair, attacker, &next);
        pair.deliver(attacker);
        let victim = pair.end(attacker.peer());
        assert_eq!(victim.epoch(), 1);
        assert_ne!(victim.connection.peer().unwrap().public_key(), next.public_key());
        victim.expect(Event::PeerIdentityRefused(AuthenticationError::UnknownKey));
    }
}
