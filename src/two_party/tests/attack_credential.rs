//! Attacks with an X.509 credential, by a malicious initiator (2P-02, 2P-03).

use super::{
    attack::inject_plain,
    x509::{Certified, believer},
    *,
};
use crate::{
    auth::AuthenticationError as Refused,
    certificate::tests::{Authority, der, named},
    error::PeerIncompatible,
    group::tests::{ForgedHello, vector},
    wire::{AlertDescription, InitiatorParameters, TwoPartyMessage, decode_certificates},
};

/// Gives a responder that believes the root the client's hello, as `change` has changed it.
fn hello(certified: &Certified, change: impl FnOnce(&mut ForgedHello)) -> Pair {
    let one = [CipherSuite::ALL[0]];
    hello_to(certified, certified.server().cipher_suites(one), change)
}

fn hello_to(certified: &Certified, server: Builder, change: impl FnOnce(&mut ForgedHello)) -> Pair {
    let mut pair = Pair::new(certified.client(), server);
    drop(pair.intercept(Role::Initiator));
    let parameters = InitiatorParameters {
        cipher_suites: vec![1],
        alpn: vec![],
        server_name: SERVER_NAME.into(),
        max_message_size: 1 << 16,
    };
    let parameters = parameters.encode().unwrap();
    let mut forged = ForgedHello::new(&certified.client, parameters, pair.now.calendar);
    forged.credential_type = 2;
    forged.credentials = vec![1, 2];
    forged.name = certified.client.certificates().unwrap().to_vec();
    change(&mut forged);
    let message = TwoPartyMessage::ClientHello { key_package: forged.encode() };
    inject_plain(&mut pair, Role::Responder, &message);
    pair
}

// CH-10
#[test]
fn what_is_no_chain_of_certificates_is_refused() {
    let certified = Certified::new();
    // The control: nothing is wrong.
    let mut pair = hello(&certified, |_| ());
    assert_eq!(pair.responder.error, None);
    assert_eq!(pair.intercept(Role::Responder)[0], 22);

    let own = certified.client.certificates().unwrap().to_vec();
    let certificate = &decode_certificates(&own).unwrap()[0];
    let other = Identity::generate("other").unwrap();
    let for_other_key = certified.root.certify(&named(&["client.example"]), &other);
    let bad = AlertDescription::BadCertificate;
    let mut damaged = certificate.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let issuer = Authority::root("root");
    for (content, error) in [
        (vec![], Refused::MalformedCredential),
        (vec![0], Refused::MalformedCredential),
        (vector(b"garbage"), Refused::MalformedCredential),
        (vector(&[0x30, 0x82, 0xff, 0xff]), Refused::MalformedCredential),
        (vector(&[0x30; 30_000]), Refused::MalformedCredential),
        (certificate.clone(), Refused::MalformedCredential),
        (own[..own.len() - 1].to_vec(), Refused::MalformedCredential),
        (vector(&certificate[..certificate.len() - 1]), Refused::MalformedCredential),
        (vector(&[&certificate[..], &[0]].concat()), Refused::MalformedCredential),
        (own.repeat(17), Refused::ChainTooLong),
        ([1, 7].repeat(1000), Refused::ChainTooLong),
        (for_other_key.certificates().unwrap().to_vec(), Refused::KeyMismatch),
        (vector(&damaged), Refused::InvalidCertificate("InvalidSignatureForPublicKey".into())),
    ] {
        let length = content.len();
        let mut pair = hello(&certified, |hello| hello.name = content);
        assert_eq!(pair.responder.error, Some(error.clone().into()), "{length} bytes");
        let alert = pair.intercept(Role::Responder);
        assert_eq!(alert[..], [21, 3, 3, 0, 2, 2, bad.into()], "{error}");
    }
    // Whatever else is in the chain, the path is there.
    let others = [&own[..], &vector(b"garbage"), &vector(&der(issuer.pem())[0]), &own].concat();
    let pair = hello(&certified, |hello| hello.name = others);
    assert_eq!(pair.responder.error, None);
}

// CH-10
#[test]
fn every_cut_of_a_certificate_is_refused() {
    let certified = Certified::new();
    let own = certified.client.certificates().unwrap().to_vec();
    let certificate = &decode_certificates(&own).unwrap()[0];
    for end in (1..certificate.len()).step_by(7) {
        let pair = hello(&certified, |hello| hello.name = vector(&certificate[..end]));
        assert_eq!(pair.responder.error, Some(Refused::MalformedCredential.into()), "{end}");
    }
}

// CH-10, TL-07
#[test]
fn a_gigantic_credential_is_refused() {
    let certified = Certified::new();
    let limits = Limits::default().with_max_message_size(1 << 20);
    let server = || certified.server().limits(limits).cipher_suites([CipherSuite::ALL[0]]);
    let chain = vector(&[0x30; 20_000]);
    for (content, error) in [
        (chain.repeat(3), Refused::MalformedCredential),
        (chain.repeat(4), Refused::ChainTooLong),
        (vec![0xff; 1_000_000], Refused::ChainTooLong),
    ] {
        let pair = hello_to(&certified, server(), |hello| hello.name = content);
        assert_eq!(pair.responder.error, Some(error.into()));
    }
}

// 2P-02
#[test]
fn capabilities_without_the_credentials_in_use_are_refused() {
    let certified = Certified::new();
    let client = Identity::from_pkcs8_pem("client", &certified.client.to_pkcs8_pem().unwrap());
    let pins = PinnedKeys::parse(&client.unwrap().public_line()).unwrap();
    let basic = |listed: Vec<u16>| {
        let server = believer(&certified.server, pins.clone());
        hello_to(&certified, server.cipher_suites([CipherSuite::ALL[0]]), |hello| {
            hello.credential_type = 1;
            hello.name = b"client".to_vec();
            hello.credentials = listed;
        })
    };
    assert_eq!(basic(vec![1, 2]).responder.error, None);
    let missing = |what| Some(Error::from(PeerIncompatible::Capabilities(what)));
    // The responder's own credential is X.509.
    assert_eq!(basic(vec![1]).responder.error, missing("X.509 credentials"));
    assert_eq!(basic(vec![2]).responder.error, missing("basic credentials"));
    let x509 = hello(&certified, |hello| hello.credentials = vec![1]);
    assert_eq!(x509.responder.error, missing("X.509 credentials"));

    let unknown = hello(&certified, |hello| {
        hello.credential_type = 0xF000;
        hello.credentials = vec![1, 2, 0xF000];
    });
    let error = Refused::UnsupportedCredential("unknown");
    assert_eq!(unknown.responder.error, Some(error.into()));
}
