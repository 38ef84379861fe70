//! Known peers in handshakes and resumptions.

use std::path::Path;

use super::{
    resumption::{FULL, RESUMED, World, complete, kinds},
    *,
};
use crate::{
    auth::{AuthenticationError, FirstUse, KnownPeers},
    error::ChangedKey,
    wire::AlertDescription,
};

fn knowing(own: &Identity, path: &Path, answer: FirstUse) -> Builder {
    Config::builder()
        .identity(own.clone())
        .authentication_service(KnownPeers::open(path, move |_| answer).unwrap())
        .rekey_policy(RekeyPolicy::manual())
}

/// A pair before the handshake in which the end of `role` has a file of known peers.
fn pair(identities: &Identities, role: Role, path: &Path, answer: FirstUse) -> Pair {
    match role {
        Role::Initiator => {
            Pair::new(knowing(&identities.client, path, answer), identities.server())
        }
        Role::Responder => {
            Pair::new(identities.client(), knowing(&identities.server, path, answer))
        }
    }
}

const ROLES: [Role; 2] = [Role::Initiator, Role::Responder];

// CH-08
#[test]
fn first_use_accepts_or_refuses_in_both_roles() {
    for role in ROLES {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known");
        let identities = Identities::new();

        let mut refused = pair(&identities, role, &path, FirstUse::Refuse);
        refused.assert_failed(role, AuthenticationError::UnknownKey);
        assert!(!path.exists());

        let mut once = pair(&identities, role, &path, FirstUse::Once);
        once.drive();
        once.assert_works();
        assert!(!path.exists());

        let mut remembered = pair(&identities, role, &path, FirstUse::Remember);
        remembered.drive();
        remembered.assert_works();
        let mut known = pair(&identities, role, &path, FirstUse::Refuse);
        known.drive();
        known.assert_works();
    }
}

// CH-08, CH-10
#[test]
fn a_changed_key_ends_the_handshake_in_both_roles() {
    for role in ROLES {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known");
        let identities = Identities::new();
        pair(&identities, role, &path, FirstUse::Remember).drive();

        let (name, before) = match role {
            Role::Initiator => (SERVER_NAME, identities.server.public_key()),
            Role::Responder => ("client", identities.client.public_key()),
        };
        // The same names, the own key of the end that knows, and the peer's is another.
        let mut others = Identities::new();
        match role {
            Role::Initiator => others.client = identities.client.clone(),
            Role::Responder => others.server = identities.server.clone(),
        }
        let after = match role {
            Role::Initiator => others.server.public_key(),
            Role::Responder => others.client.public_key(),
        };
        let error: AuthenticationError =
            ChangedKey::new(name, before, after).in_file(&path, 1).into();
        assert_eq!(Error::from(error.clone()).alert(), Some(AlertDescription::CertificateUnknown));
        let mut changed = pair(&others, role, &path, FirstUse::Remember);
        changed.assert_failed(role, error.clone());
        let said = changed.end(role).error.clone().unwrap().to_string();
        assert!(said.contains(&error.to_string()), "{said}");

        // The line is removed, as the error says.
        std::fs::write(&path, "").unwrap();
        let mut again = pair(&others, role, &path, FirstUse::Remember);
        again.drive();
        again.assert_works();
    }
}

// 2P-21: a session is resumed for as long as the key is known, and under this kind of trust only.
#[test]
fn a_session_is_resumed_while_its_peer_is_known() {
    for role in ROLES {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known");
        let mut world = World::new();
        let (own, store) = match role {
            Role::Initiator => (world.identities.client.clone(), world.client_store.clone()),
            Role::Responder => (world.identities.server.clone(), world.server_store.clone()),
        };
        let mut restart = |answer| {
            let builder = knowing(&own, &path, answer).session_store(store.clone());
            let config = Arc::new(builder.build().unwrap());
            match role {
                Role::Initiator => world.client = config,
                Role::Responder => world.server = config,
            }
            world.dial()
        };
        let mut first = restart(FirstUse::Remember);
        complete(&mut first);
        assert_eq!(kinds(&first), FULL);
        drop(first);
        let mut second = restart(FirstUse::Refuse);
        complete(&mut second);
        assert_eq!(kinds(&second), RESUMED);
        drop(second);

        // The session ends with the line, and the peer is unknown again.
        std::fs::write(&path, "").unwrap();
        let mut third = restart(FirstUse::Remember);
        complete(&mut third);
        assert_eq!(kinds(&third), FULL);
        let unknown = Error::from(AuthenticationError::UnknownKey);
        assert_eq!(third.end(role).connection.not_resumed(), Some(&unknown));
        assert!(std::fs::read_to_string(&path).unwrap().contains(' '));
    }
}
