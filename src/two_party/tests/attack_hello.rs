//! Attacks with the KeyPackage of a ClientHello, by a malicious initiator (2P-02, 2P-03, TL-06).

use super::{
    attack::{before_keys, inject_plain},
    attack_handshake::HEADERS,
    *,
};
use crate::{
    auth::AuthenticationError,
    error::{InvalidMessage, PeerIncompatible, PeerMisbehaved},
    group::tests::{ForgedHello, key_package_message},
    wire::{InitiatorParameters, TwoPartyMessage},
};

fn parameters() -> InitiatorParameters {
    InitiatorParameters {
        cipher_suites: vec![1],
        alpn: vec![],
        server_name: SERVER_NAME.into(),
        max_message_size: 65536,
    }
}

// 2P-02, 2P-05
#[test]
fn a_hello_with_the_others_content_is_refused() {
    let identities = Identities::new();
    let welcome = [&[0, 1, 0, 3][..], &[0; 40]].concat();
    let mut pair = before_keys();
    let message = TwoPartyMessage::ClientHello { key_package: welcome };
    inject_plain(&mut pair, Role::Responder, &message);
    pair.assert_failed(Role::Responder, InvalidMessage::UnexpectedWireFormat("KeyPackage"));

    let mut pair = before_keys();
    let message = TwoPartyMessage::ServerHello { welcome: key_package_message(&identities.server) };
    inject_plain(&mut pair, Role::Initiator, &message);
    pair.assert_failed(Role::Initiator, InvalidMessage::UnexpectedWireFormat("Welcome"));
}

/// Gives the responder a forged hello that `change` has changed.
fn forge(crypto: CryptoProvider, change: impl FnOnce(&mut ForgedHello, &Identities)) -> Pair {
    let identities = Identities::new();
    let mut pair = Pair::new(
        identities.client().cipher_suites([CipherSuite::ALL[0]]),
        identities.server().crypto_provider(crypto),
    );
    drop(pair.intercept(Role::Initiator));
    let parameters = parameters().encode().unwrap();
    let mut forged = ForgedHello::new(&identities.client, parameters, pair.now.calendar);
    change(&mut forged, &identities);
    let message = TwoPartyMessage::ClientHello { key_package: forged.encode() };
    inject_plain(&mut pair, Role::Responder, &message);
    pair
}

// The control for the tests below: a forged hello in which nothing is wrong is answered.
#[test]
fn a_forged_hello_without_a_fault_is_answered() {
    let mut pair = forge(CryptoProvider::default(), |_, _| {});
    assert_eq!(pair.responder.error, None);
    assert_eq!(pair.intercept(Role::Responder)[0], 22);
    // One with an extension that nobody knows as well, across two records (TL-07).
    let mut pair = forge(CryptoProvider::default(), |hello, _| {
        hello.extensions.push(0xF0FF);
        hello.leaf_extensions.push((0xF0FF, vec![7; 20_000]));
    });
    assert_eq!(pair.responder.error, None);
    assert_eq!(pair.intercept(Role::Responder)[0], 22);
}

type Change = Box<dyn Fn(&mut ForgedHello, &Identities)>;

fn change(change: impl Fn(&mut ForgedHello) + 'static) -> Change {
    Box::new(move |hello, _| change(hello))
}

fn with_parameters(encoded: Vec<u8>) -> Change {
    change(move |hello| hello.leaf_extensions[0].1 = encoded.clone())
}

// 2P-02, 2P-03, TL-06
#[test]
fn a_bad_key_package_is_refused_with_its_reason() {
    const DAY: u64 = 24 * 3600;
    let encoded = parameters().encode().unwrap();
    let name = |name: &str| InitiatorParameters { server_name: name.into(), ..parameters() };
    let other_suite = InitiatorParameters { cipher_suites: vec![3, 0x7777], ..parameters() };
    let better_suite = InitiatorParameters { cipher_suites: vec![3, 1], ..parameters() };
    let malformed = InvalidMessage::Malformed("initiator's transport parameters");
    let cases: Vec<(&str, Change, Error)> = vec![
        (
            "expired",
            change(|h| (h.not_before, h.not_after) = (h.not_before - DAY / 2, h.not_before)),
            PeerMisbehaved::InvalidLifetime.into(),
        ),
        (
            "not yet valid",
            change(|h| (h.not_before, h.not_after) = (h.not_after, h.not_after + 9)),
            PeerMisbehaved::InvalidLifetime.into(),
        ),
        (
            "too long",
            change(|h| h.not_after = h.not_before + DAY + 1),
            PeerMisbehaved::InvalidLifetime.into(),
        ),
        (
            "forever",
            change(|h| (h.not_before, h.not_after) = (0, u64::MAX)),
            PeerMisbehaved::InvalidLifetime.into(),
        ),
        (
            "backwards",
            change(|h| std::mem::swap(&mut h.not_before, &mut h.not_after)),
            PeerMisbehaved::InvalidLifetime.into(),
        ),
        (
            "another signer",
            Box::new(|h, _| h.signing = Identity::generate("m").unwrap()),
            PeerMisbehaved::InvalidKeyPackage.into(),
        ),
        (
            "one key twice",
            change(|h| h.encryption_key = h.init_key.clone()),
            PeerMisbehaved::InvalidKeyPackage.into(),
        ),
        ("leaf of an Update", change(|h| h.source = 2), PeerMisbehaved::InvalidKeyPackage.into()),
        (
            "short signature key",
            change(|h| h.signature_key.truncate(31)),
            PeerMisbehaved::InvalidKeyPackage.into(),
        ),
        (
            "no signature key",
            change(|h| h.signature_key.clear()),
            PeerMisbehaved::InvalidKeyPackage.into(),
        ),
        (
            "no key of the curve",
            change(|h| h.signature_key = vec![0xff; 32]),
            PeerMisbehaved::InvalidKeyPackage.into(),
        ),
        (
            "certificates for a service that pins",
            change(|h| {
                (h.credential_type, h.name, h.credentials) = (2, vec![1, 7], vec![1, 2]);
            }),
            AuthenticationError::UnsupportedCredential("X.509").into(),
        ),
        (
            "X.509",
            change(|h| (h.credential_type, h.name, h.credentials) = (2, vec![], vec![1, 2])),
            AuthenticationError::MalformedCredential.into(),
        ),
        (
            "unknown",
            Box::new(|h, _| {
                h.signing = Identity::generate("client").unwrap();
                h.signature_key = h.signing.public_key().as_bytes().to_vec();
            }),
            AuthenticationError::UnknownKey.into(),
        ),
        (
            "no parameters",
            change(|h| h.leaf_extensions.clear()),
            PeerMisbehaved::MissingTransportParameters("leaf node").into(),
        ),
        (
            "other extension",
            change(|h| h.leaf_extensions[0].0 = 0xF0A2),
            PeerMisbehaved::MissingTransportParameters("leaf node").into(),
        ),
        (
            "parameters twice",
            change(|h| h.leaf_extensions.push(h.leaf_extensions[0].clone())),
            InvalidMessage::Malformed("KeyPackage").into(),
        ),
        (
            "version 2",
            with_parameters([&[0, 2], &encoded[2..]].concat()),
            PeerIncompatible::Version(2).into(),
        ),
        ("version 0", with_parameters(vec![0, 0]), PeerIncompatible::Version(0).into()),
        ("empty parameters", with_parameters(vec![]), malformed.into()),
        (
            "cut parameters",
            with_parameters(encoded[..encoded.len() - 1].to_vec()),
            malformed.into(),
        ),
        (
            "long parameters",
            with_parameters([&encoded[..], &[0]].concat()),
            InvalidMessage::TrailingData("initiator's transport parameters").into(),
        ),
        (
            "huge parameters",
            with_parameters([&encoded[..], &[0; 20_000]].concat()),
            malformed.into(),
        ),
        (
            "other suite listed",
            with_parameters(other_suite.encode().unwrap()),
            PeerMisbehaved::Downgrade.into(),
        ),
        (
            "better suite listed",
            with_parameters(better_suite.encode().unwrap()),
            PeerMisbehaved::Downgrade.into(),
        ),
        (
            "server name",
            with_parameters(name("two words").encode().unwrap()),
            InvalidMessage::Malformed("server name").into(),
        ),
        (
            "no basic credential",
            change(|h| h.credentials = vec![2]),
            PeerIncompatible::Capabilities("basic credentials").into(),
        ),
        (
            "no suite",
            change(|h| h.suites = vec![2, 3]),
            PeerIncompatible::Capabilities("the offered cipher suite").into(),
        ),
        (
            "no marker",
            change(|h| h.extensions.clear()),
            PeerIncompatible::Capabilities("what the group requires").into(),
        ),
        (
            "own key",
            Box::new(|h, i| {
                h.signing = i.server.clone();
                h.signature_key = h.signing.public_key().as_bytes().to_vec();
            }),
            AuthenticationError::UnknownKey.into(),
        ),
    ];
    for (name, change, error) in cases {
        let mut pair = forge(CryptoProvider::default(), change);
        assert_eq!(pair.responder.error, Some(error.clone()), "{name}");
        pair.assert_failed(Role::Responder, error);
    }
    let unlisted = InitiatorParameters { cipher_suites: vec![0x7777], ..parameters() };
    let mut pair = forge(CryptoProvider::default(), with_parameters(unlisted.encode().unwrap()));
    let reason = "transport parameters: the offered suite is not listed";
    pair.assert_failed(Role::Responder, InvalidMessage::Malformed(reason));
}

// 2P-02: a suite that is not known, or not allowed, is answered with an alert; a better hello may
// follow, and if none does, that was the reason.
#[test]
fn a_foreign_suite_is_refused_and_named() {
    let identities = Identities::new();
    for (id, allowed) in [(0x7777_u16, &CipherSuite::ALL[..2]), (3, &CipherSuite::ALL[..1])] {
        let mut pair = Pair::new(
            identities.client().cipher_suites([CipherSuite::ALL[0]]),
            identities.server().cipher_suites(allowed),
        );
        let mut hello = pair.intercept(Role::Initiator);
        hello[HEADERS + 6..][..2].copy_from_slice(&id.to_be_bytes());
        pair.inject(Role::Responder, &hello);
        pair.drive();
        let offered = vec![CipherSuite::ALL[0]];
        let none = PeerIncompatible::NoCipherSuitesInCommon { offered };
        assert_eq!(pair.initiator.error, Some(none.into()));
        let error = Err(PeerIncompatible::CipherSuite(id).into());
        assert_eq!(pair.responder.connection.handle_eof(), error);
    }
    // Sixteen in all.
    let mut pair = before_keys();
    for attempt in 1..=16 {
        let key_package = vec![0, 1, 0, 5, 0, 1, 0x77, 0x77, attempt];
        inject_plain(&mut pair, Role::Responder, &TwoPartyMessage::ClientHello { key_package });
        assert_eq!(pair.responder.error.is_some(), attempt == 16, "hello {attempt}");
    }
    assert_eq!(pair.responder.error, Some(PeerIncompatible::CipherSuite(0x7777).into()));
    assert_eq!(&pair.responder.out[..], [21, 3, 3, 0, 2, 2, 40].repeat(16));
}

// CH-10: HPKE keys with which no secret can be agreed on.
#[test]
pub(super) fn a_bad_hpke_key_is_refused() {
    for crypto in [CryptoProvider::default(), CryptoProvider::rust_crypto()] {
        for key in [vec![], vec![9; 31], vec![9; 33], vec![0; 32], vec![9; 16_000]] {
            let mut pair = forge(crypto.clone(), |hello, _| hello.init_key = key.clone());
            let length = key.len();
            let error = pair.responder.error.clone();
            assert!(error.is_some(), "{crypto:?}: init_key of {length} bytes");
            assert!(
                !matches!(error, Some(Error::Crypto(_))),
                "{crypto:?}: init_key of {length} bytes: {error:?}"
            );
            pair.assert_failed(Role::Responder, error.unwrap());
        }
    }
}
