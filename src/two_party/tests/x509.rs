//! Handshakes with X.509 credentials, and what is wrong with them.

use super::*;
use crate::{
    SignatureScheme, WebPkiVerifier,
    auth::{AuthenticationError as Refused, danger::AcceptAnyone},
    certificate::tests::{
        Authority, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
        date_time_ymd, named, serial,
    },
    error::PeerIncompatible,
    wire::{AlertDescription, decode_certificates},
};

/// A root with a client and a server.
pub(super) struct Certified {
    pub(super) root: Authority,
    pub(super) client: Identity,
    pub(super) server: Identity,
}

impl Certified {
    pub(super) fn new() -> Self {
        let root = Authority::root("root");
        let client = root.identify(&named(&["client.example"]));
        let server = root.identify(&named(&[SERVER_NAME]));
        Self { root, client, server }
    }

    /// The client's configuration.
    pub(super) fn client(&self) -> Builder {
        self.believer(&self.client)
    }

    pub(super) fn server(&self) -> Builder {
        self.believer(&self.server)
    }

    /// Somebody who believes the root.
    fn believer(&self, identity: &Identity) -> Builder {
        believer(identity, self.root.verifier().build().unwrap())
    }
}

pub(super) fn believer(
    identity: &Identity,
    service: impl AuthenticationService + 'static,
) -> Builder {
    Config::builder()
        .identity(identity.clone())
        .authentication_service(service)
        .rekey_policy(RekeyPolicy::manual())
}

/// The end of `role` fails with this, and the other one is told so.
fn assert_refused(mut pair: Pair, role: Role, error: &Refused, alert: AlertDescription) {
    pair.assert_failed(role, error.clone());
    assert_eq!(pair.end(role.peer()).error, Some(Error::AlertReceived(alert)), "{error}");
}

// 2P-03, 2P-05, CH-07
#[test]
fn certified_parties_know_each_others_names() {
    let certified = Certified::new();
    let mut pair = Pair::connect(certified.client(), certified.server());
    let (a, b) = (&pair.initiator.connection, &pair.responder.connection);
    assert_eq!(a.peer().unwrap().name(), SERVER_NAME);
    assert_eq!(a.peer().unwrap().public_key(), certified.server.public_key());
    assert_eq!(b.peer().unwrap().name(), "client.example");
    let certificates =
        |identity: &Identity| decode_certificates(identity.certificates().unwrap()).unwrap();
    assert_eq!(a.peer().unwrap().certificates(), certificates(&certified.server));
    assert_eq!(b.peer().unwrap().certificates(), certificates(&certified.client));
    assert_eq!(b.peer().unwrap().public_key(), certified.client.public_key());
    for role in [Role::Initiator, Role::Responder] {
        pair.rekey(role);
        pair.assert_works();
    }
    assert_eq!(pair.epochs(), (3, 3));
}

#[test]
fn certificates_for_keys_on_p256_lead_to_a_channel() {
    let scheme = SignatureScheme::ECDSA_SECP256R1_SHA256;
    for scheme_of_root in &SignatureScheme::ALL[..2] {
        let root = Authority::root_with("root", *scheme_of_root);
        let identify = |name: &str| {
            let key = Identity::generate_with("key", scheme).unwrap();
            root.intermediate("middle").certify(&named(&[name]), &key)
        };
        let certified =
            Certified { client: identify("client.example"), server: identify(SERVER_NAME), root };
        assert_eq!(certified.server.public_key().scheme(), scheme);
        let mut pair = Pair::connect(certified.client(), certified.server());
        let suite = pair.initiator.connection.cipher_suite().unwrap();
        assert_eq!(suite.signature_scheme(), scheme);
        assert_eq!(pair.responder.connection.peer().unwrap().name(), "client.example");
        for role in [Role::Initiator, Role::Responder] {
            pair.rekey(role);
            pair.assert_works();
        }
        // With the key of another certificate.
        let other = Identity::generate_with("key", scheme).unwrap();
        let stolen = certified.client.clone().with_key_of(&other);
        let pair = Pair::new(certified.believer(&stolen), certified.server());
        let alert = AlertDescription::BadCertificate;
        assert_refused(pair, Role::Responder, &Refused::KeyMismatch, alert);
    }
}

#[test]
fn an_address_is_a_server_name() {
    let certified = Certified::new();
    for name in ["192.0.2.7", "2001:db8::7"] {
        let server = certified.root.identify(&named(&[name]));
        let mut pair = named_pair(name, certified.client(), certified.believer(&server));
        pair.drive();
        assert_eq!(pair.initiator.connection.peer().unwrap().name(), name);
        pair.assert_works();
    }
}

/// A pair whose initiator asks for `name`.
fn named_pair(name: &str, client: Builder, server: Builder) -> Pair {
    let mut pair = Pair::new(client.clone(), server);
    let config = Arc::new(client.build().unwrap());
    let mut out = BytesMut::new();
    let name = ServerName::new(name).unwrap();
    let initiator = Connection::initiator(config, name, pair.now, &mut out).unwrap();
    pair.initiator = End::new(initiator);
    pair.initiator.out = out;
    pair
}

#[test]
fn intermediate_certificates_lead_to_the_root() {
    let certified = Certified::new();
    for count in [1, 3, 6] {
        let middle = certified.root.intermediates(count);
        let client = middle.identify(&named(&["client.example"]));
        let server = middle.identify(&named(&[SERVER_NAME]));
        let mut pair = Pair::connect(certified.believer(&client), certified.believer(&server));
        pair.assert_works();
    }
}

// TL-07
#[test]
fn certificates_longer_than_a_record_are_carried() {
    let certified = Certified::new();
    let large = |name: &str| {
        let mut params = named(&[name]);
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![7; 25_000])];
        certified.root.identify(&params)
    };
    let (client, server) = (large("client.example"), large(SERVER_NAME));
    let mut pair = Pair::connect(certified.believer(&client), certified.believer(&server));
    for role in [Role::Initiator, Role::Responder] {
        pair.rekey(role);
        pair.assert_works();
    }
    assert_eq!(pair.epochs(), (3, 3));
    // Three records for the ClientHello alone.
    assert!(pair.initiator.sent.len() > 3 * 16_384);
    // Who takes only small messages does not take them.
    let limits = Limits::default().with_max_message_size(20_000);
    let mut pair = Pair::new(certified.believer(&client), certified.server().limits(limits));
    pair.drive();
    let alert = Error::AlertReceived(AlertDescription::DecodeError);
    assert_eq!(pair.initiator.error, Some(alert));
    // No other suite makes it shorter, and none is tried.
    let mut pair = Pair::new(certified.client().limits(limits), certified.believer(&server));
    pair.drive();
    let error = pair.responder.error.clone().unwrap();
    let Error::PeerIncompatible(PeerIncompatible::MessageTooLong { length, limit }) = error else {
        panic!("{error}");
    };
    assert_eq!((length > limit, limit), (true, 20_000));
    pair.assert_failed(Role::Responder, error);
}

/// An identity for the party in `role` with one fault, the service that finds it, and what is said.
struct Fault {
    identity: Identity,
    service: WebPkiVerifier,
    error: Refused,
    text: &'static str,
    alert: AlertDescription,
}

fn faults(certified: &Certified, role: Role) -> Vec<Fault> {
    use AlertDescription as A;
    let root = &certified.root;
    let name = if role == Role::Initiator { "client.example" } else { SERVER_NAME };
    let identify = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = named(&[name]);
        change(&mut params);
        (root.identify(&params), serial(&params))
    };
    let with = |change: &dyn Fn(&mut CertificateParams)| identify(change).0;
    let fault = |identity, error, text, alert| {
        let service = root.verifier().build().unwrap();
        Fault { identity, service, error, text, alert }
    };
    let listed = |mut fault: Fault, list: String| {
        let verifier = root.verifier().revocation_lists_pem(&list).unwrap();
        fault.service = verifier.build().unwrap();
        fault
    };
    let purpose = match role {
        Role::Initiator => ExtendedKeyUsagePurpose::ServerAuth,
        Role::Responder => ExtendedKeyUsagePurpose::ClientAuth,
    };
    let (revoked, number) = identify(&|_| ());
    vec![
        fault(
            with(&|params| params.not_after = date_time_ymd(2021, 1, 1)),
            Refused::Expired,
            "the credential has expired",
            A::CertificateExpired,
        ),
        fault(
            with(&|params| params.not_before = date_time_ymd(2089, 1, 1)),
            Refused::NotValidYet,
            "the credential is not valid yet",
            A::CertificateExpired,
        ),
        fault(
            Authority::root("root").identify(&named(&[name])),
            Refused::InvalidCertificate("InvalidSignatureForPublicKey".into()),
            "a certificate is invalid: InvalidSignatureForPublicKey",
            A::BadCertificate,
        ),
        fault(
            Authority::root("other").identify(&named(&[name])),
            Refused::UnknownIssuer,
            "the issuer of the certificate is not known",
            A::UnknownCa,
        ),
        fault(
            with(&|params| params.extended_key_usages = vec![purpose.clone()]),
            Refused::WrongPurpose,
            "the certificate is for another purpose",
            A::UnsupportedCertificate,
        ),
        fault(
            root.intermediates(7).identify(&named(&[name])),
            Refused::ChainTooLong,
            "the chain of certificates is too long",
            A::BadCertificate,
        ),
        listed(
            fault(revoked, Refused::Revoked, "the credential was revoked", A::CertificateRevoked),
            root.revoke(&[number]),
        ),
        listed(
            fault(
                root.intermediate("middle").identify(&named(&[name])),
                Refused::UnknownRevocationStatus,
                "whether the certificate was revoked is not known",
                A::UnknownCa,
            ),
            root.revoke(&[]),
        ),
    ]
}

// 2P-03, 2P-05
#[test]
fn a_faulty_certificate_is_refused_and_its_holder_told() {
    let certified = Certified::new();
    for role in [Role::Initiator, Role::Responder] {
        for Fault { identity, service, error, text, alert } in faults(&certified, role) {
            assert_eq!(error.to_string(), text);
            let faulty = certified.believer(&identity);
            let pair = match role {
                Role::Initiator => Pair::new(faulty, believer(&certified.server, service)),
                Role::Responder => Pair::new(believer(&certified.client, service), faulty),
            };
            // What the responder is told comes before it believes the client.
            assert_refused(pair, role.peer(), &error, alert);
        }
    }
}

// 2P-05
#[test]
fn a_server_with_another_name_is_refused() {
    let certified = Certified::new();
    let mut params = named(&["other.example", "192.0.2.7"]);
    params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
    let server = certified.root.identify(&params);
    let pair = Pair::new(certified.client(), certified.believer(&server));
    let error = Refused::NameMismatch {
        expected: SERVER_NAME.into(),
        presented: "other.example, 192.0.2.7".into(),
    };
    assert_refused(pair, Role::Initiator, &error, AlertDescription::UnrecognizedName);
}

// CH-08: a service believes one type of credential, and never takes one for the other.
#[test]
fn another_type_of_credential_is_refused() {
    let certified = Certified::new();
    let alert = AlertDescription::UnsupportedCertificate;
    // The same key, without the certificates.
    let pem = certified.client.to_pkcs8_pem().unwrap();
    let basic = Identity::from_pkcs8_pem("client.example", &pem).unwrap();
    assert_eq!(basic.public_line(), certified.client.public_line());
    let pair = Pair::new(certified.believer(&basic), certified.server());
    assert_refused(pair, Role::Responder, &Refused::UnsupportedCredential("basic"), alert);

    // The key is pinned, and under this name.
    let pins = PinnedKeys::parse(&certified.client.public_line()).unwrap();
    let error = Refused::UnsupportedCredential("X.509");
    assert_eq!(error.to_string(), "X.509 credentials are not supported");
    let pair = Pair::new(certified.client(), believer(&certified.server, pins));
    assert_refused(pair, Role::Responder, &error, alert);
    let pair = Pair::new(certified.client(), believer(&certified.server, AcceptAnyone));
    assert_refused(pair, Role::Responder, &error, alert);

    // The responder has certificates, and the initiator pins.
    let pins = PinnedKeys::parse(&certified.server.public_line()).unwrap();
    let pair = Pair::new(believer(&certified.client, pins), certified.server());
    assert_refused(pair, Role::Initiator, &error, alert);
}

#[test]
fn parties_may_have_different_types_of_credential() {
    let certified = Certified::new();
    let client = Identity::generate("client").unwrap();
    let pins = PinnedKeys::parse(&client.public_line()).unwrap();
    let mut pair = Pair::connect(certified.believer(&client), believer(&certified.server, pins));
    for role in [Role::Initiator, Role::Responder] {
        pair.rekey(role);
        pair.assert_works();
    }
    assert_eq!(pair.initiator.connection.peer().unwrap().name(), SERVER_NAME);
    assert_eq!(pair.responder.connection.peer().unwrap().name(), "client");
    assert!(pair.responder.connection.peer().unwrap().certificates().is_empty());
}

// 2P-13
#[test]
fn a_certificate_is_renewed_inside_a_channel() {
    for role in [Role::Initiator, Role::Responder] {
        let certified = Certified::new();
        let (name, own) = match role {
            Role::Initiator => ("client.example", &certified.client),
            Role::Responder => (SERVER_NAME, &certified.server),
        };
        let root = &certified.root;
        let change_refused = match role {
            Role::Initiator => Refused::CredentialChangeRefused,
            Role::Responder => Refused::NameMismatch {
                expected: SERVER_NAME.into(),
                presented: "other.example".into(),
            },
        };
        for (next, refused) in [
            (root.identify(&named(&[name])), None),
            (root.certify(&named(&[name]), own), None),
            (root.identify(&named(&["other.example"])), Some(change_refused)),
            (Authority::root("other").identify(&named(&[name])), Some(Refused::UnknownIssuer)),
            (Identity::generate(name).unwrap(), Some(Refused::UnsupportedCredential("basic"))),
        ] {
            let mut pair = Pair::connect(certified.client(), certified.server());
            let before = pair.end(role.peer()).connection.peer().unwrap();
            let end = pair.end(role);
            end.connection.rotate_identity(next.clone(), &mut end.out).unwrap();
            pair.drive();
            if let Some(error) = refused {
                pair.end(role.peer()).expect(Event::PeerIdentityRefused(error));
                assert_eq!(pair.end(role.peer()).connection.peer(), Some(before));
                pair.assert_works();
                continue;
            }
            let peer = pair.end(role.peer()).connection.peer().unwrap();
            assert_eq!((peer.name(), peer.public_key()), (name, next.public_key()));
            assert_ne!(peer.certificates(), before.certificates());
            for role in [Role::Initiator, Role::Responder] {
                pair.rekey(role);
                pair.assert_works();
            }
            assert_eq!(pair.epochs(), (4, 4));
        }
    }
}

// 2P-14, 2P-21
#[test]
fn a_session_ends_when_the_certificate_is_revoked() {
    let certified = Certified::new();
    let params = named(&["client.example"]);
    let client = certified.root.identify(&params);
    let service = |serials: &[u64]| {
        let list = certified.root.revoke(serials);
        certified.root.verifier().revocation_lists_pem(&list).unwrap().build().unwrap()
    };
    let service_of_server = Arc::new(std::sync::RwLock::new(service(&[])));
    let client = certified.believer(&client).session_store(MemoryStore::default());
    let server = believer(&certified.server, Arc::clone(&service_of_server))
        .session_store(MemoryStore::default());
    let first = Pair::connect(client.clone(), server.clone());
    let kind = |pair: &Pair| pair.responder.connection.handshake_kind();
    assert_eq!(kind(&first), Some(HandshakeKind::Full));
    let known = first.responder.connection.peer();
    drop(first);
    // A new list alone ends nothing.
    *service_of_server.write().unwrap() = service(&[serial(&params) + 1]);
    let mut second = Pair::connect(client.clone(), server.clone());
    assert_eq!(kind(&second), Some(HandshakeKind::Resumed));
    assert_eq!(second.responder.connection.peer(), known);
    assert_eq!(known.unwrap().certificates().len(), 1);
    second.assert_works();
    drop(second);
    *service_of_server.write().unwrap() = service(&[serial(&params)]);
    let pair = Pair::new(client, server);
    assert_refused(pair, Role::Responder, &Refused::Revoked, AlertDescription::CertificateRevoked);
}
