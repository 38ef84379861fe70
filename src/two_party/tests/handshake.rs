//! The handshake between honest parties, and between honest parties that do not fit.

use super::*;
use crate::{
    auth::{AuthenticationError, AuthenticationRequest, PeerIdentity, Purpose},
    error::{PeerIncompatible, PeerMisbehaved},
    wire::Record,
};

// 2P-01, 2P-04, 2P-05, CH-07
#[test]
pub(super) fn both_ends_agree_on_everything() {
    let identities = Identities::new();
    let mut pair = Pair::connect(
        identities.client().alpn_protocols(["h3", "h2"]),
        identities.server().alpn_protocols(["h1", "h2", "h3"]),
    );
    let (a, b) = (&pair.initiator.connection, &pair.responder.connection);
    assert_eq!(a.role(), Some(Role::Initiator));
    assert_eq!(b.role(), Some(Role::Responder));
    assert_eq!(a.peer().unwrap().name(), SERVER_NAME);
    assert_eq!(a.peer().unwrap().public_key(), identities.server.public_key());
    assert_eq!(b.peer().unwrap().name(), "client");
    assert_eq!(b.peer().unwrap().public_key(), identities.client.public_key());
    assert_eq!(a.cipher_suite(), Some(CipherSuite::ALL[0]));
    assert_eq!(a.cipher_suite(), b.cipher_suite());
    // The responder's order decides.
    assert_eq!(a.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(a.alpn_protocol(), b.alpn_protocol());
    assert_eq!(a.server_name(), b.server_name());
    assert_eq!(b.server_name().unwrap().as_str(), SERVER_NAME);
    assert_eq!(a.channel_binding(), b.channel_binding());
    assert_eq!(pair.epochs(), (1, 1));
    pair.assert_works();
}

#[test]
fn channel_bindings_differ_between_connections_and_stay_for_one() {
    let identities = Identities::new();
    let mut first = Pair::connect(identities.client(), identities.server());
    let second = Pair::connect(identities.client(), identities.server());
    let binding = first.initiator.connection.channel_binding();
    assert_ne!(binding, second.initiator.connection.channel_binding());
    first.rekey(Role::Initiator);
    first.drive();
    assert_eq!(first.epochs(), (2, 2));
    assert_eq!(first.initiator.connection.channel_binding(), binding);
    assert_eq!(first.responder.connection.channel_binding(), binding);
}

// CH-07: somebody in the middle of two channels has two bindings and two exporters.
#[test]
fn a_man_in_the_middle_cannot_make_two_channels_look_like_one() {
    let identities = Identities::new();
    let middle = Identity::generate(SERVER_NAME).unwrap();
    let outer = Pair::connect(
        configuration(&identities.client, &middle),
        configuration(&middle, &identities.client),
    );
    let inner = Pair::connect(
        configuration(&middle, &identities.server),
        configuration(&identities.server, &middle),
    );
    let (client, server) = (&outer.initiator.connection, &inner.responder.connection);
    assert_ne!(client.channel_binding(), server.channel_binding());
    let export = |connection: &Connection| connection.export_secret("token", b"", 32).unwrap();
    assert_ne!(export(client), export(server));
}

// CH-07, 2P-14: a resumed connection has a binding of its own.
#[test]
fn a_resumed_connection_is_another_one() {
    let world = resumption::World::new();
    let binding = |pair: &Pair| {
        let binding = pair.initiator.connection.channel_binding();
        assert_eq!(pair.responder.connection.channel_binding(), binding);
        binding.unwrap()
    };
    let first = binding(&world.connect());
    let mut pair = world.connect();
    assert_eq!(pair.initiator.connection.handshake_kind(), Some(HandshakeKind::Resumed));
    let second = binding(&pair);
    assert_ne!(first, second);
    pair.rekey(Role::Initiator);
    pair.drive();
    assert_eq!(binding(&pair), second);
}

// CH-07
#[test]
pub(super) fn the_exporter_depends_on_label_context_and_epoch() {
    let mut pair = Pair::connected();
    let export = |pair: &Pair, label, context, length| {
        let secret = pair.initiator.connection.export_secret(label, context, length).unwrap();
        assert_eq!(
            secret,
            pair.responder.connection.export_secret(label, context, length).unwrap()
        );
        assert_eq!(secret.len(), length);
        secret
    };
    let secret = export(&pair, "label", b"context", 32);
    assert_ne!(secret, export(&pair, "other", b"context", 32));
    assert_ne!(secret, export(&pair, "label", b"", 32));
    let longest = 255 * pair.initiator.connection.cipher_suite().unwrap().hash_len();
    assert_eq!(export(&pair, "label", b"context", longest).len(), longest);
    pair.rekey(Role::Responder);
    pair.drive();
    assert_ne!(secret, export(&pair, "label", b"context", 32));
    let refused = |label, length| pair.initiator.connection.export_secret(label, b"", length);
    for (label, length) in [("MLS-TLS c ap traffic", 32), ("label", 0), ("label", longest + 1)] {
        assert_eq!(refused(label, length), Err(ApiMisuse::Exporter.into()));
    }
}

// CH-07: nothing secret is printable.
#[test]
fn nothing_secret_is_printed() {
    let identities = Identities::new();
    let pair = Pair::connect(identities.client(), identities.server());
    let pem = identities.client.to_pkcs8_pem().unwrap();
    let seed = identities.client.key().secret();
    let exported = pair.initiator.connection.export_secret("MLS", b"", 32).unwrap();
    let config = identities.client().build().unwrap();
    let printed = format!(
        "{:?} {:?} {:?} {config:?} {:?} {:?}",
        pair.initiator.connection,
        pair.responder.connection,
        identities.client,
        pair.initiator.connection.peer(),
        CryptoProvider::default(),
    );
    assert!(printed.contains("epoch"));
    for secret in [&seed[..], &exported[..]] {
        assert!(!printed.contains(&format!("{secret:?}")));
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!printed.to_lowercase().contains(&hex));
    }
    assert!(!printed.contains(pem.lines().nth(1).unwrap()));
}

#[test]
fn the_two_providers_talk_to_each_other() {
    for suite in suites::of_every_provider() {
        let identities = Identities::of(suite.signature_scheme());
        for (client, server) in [
            (CryptoProvider::default(), CryptoProvider::rust_crypto()),
            (CryptoProvider::rust_crypto(), CryptoProvider::default()),
        ] {
            let mut pair = Pair::connect(
                identities.client().crypto_provider(client).cipher_suites([suite]),
                identities.server().crypto_provider(server),
            );
            assert_eq!(pair.initiator.connection.cipher_suite(), Some(suite));
            for role in [Role::Initiator, Role::Responder] {
                pair.rekey(role);
                pair.assert_works();
            }
            assert_eq!(pair.epochs(), (3, 3));
        }
    }
}

// TL-02: before the keys, records are handshake or alert; afterwards they all look the same.
#[test]
pub(super) fn records_on_the_wire_have_the_form_of_tls() {
    let mut pair = Pair::connected();
    pair.write(Role::Initiator, &[7; 20_000]);
    pair.rekey(Role::Initiator);
    pair.drive();
    pair.close(Role::Responder);
    pair.drive();
    let types = |sent: &[u8]| {
        let mut input = BytesMut::from(sent);
        let mut types = Vec::new();
        while let Some(record) = Record::split_from(&mut input).unwrap() {
            types.push(u8::from(record.content_type()));
        }
        assert!(input.is_empty());
        types
    };
    assert_eq!(types(&pair.initiator.sent), [22, 23, 23, 23, 23, 23]);
    assert_eq!(types(&pair.responder.sent), [22, 23, 23]);
}

#[test]
pub(super) fn the_handshake_works_byte_by_byte() {
    let identities = Identities::new();
    let mut pair = Pair::new(identities.client(), identities.server());
    for role in [Role::Initiator, Role::Responder, Role::Initiator] {
        for byte in pair.intercept(role) {
            pair.inject(role.peer(), &[byte]);
        }
    }
    pair.initiator.expect(Event::HandshakeComplete);
    pair.responder.expect(Event::HandshakeComplete);
    pair.assert_works();
}

#[test]
fn data_that_comes_with_the_confirmation_is_not_lost() {
    let identities = Identities::new();
    let mut pair = Pair::new(identities.client(), identities.server());
    pair.deliver(Role::Initiator);
    pair.deliver(Role::Responder);
    // The confirmation is lost from the buffer, the data confirms in its stead.
    pair.write(Role::Initiator, b"first");
    pair.rekey(Role::Initiator);
    pair.close(Role::Initiator);
    pair.drive();
    assert_eq!(pair.responder.received, b"first");
    assert_eq!(pair.epochs(), (2, 2));
    pair.responder.expect(Event::PeerClosed);
}

#[test]
fn nothing_can_be_sent_before_the_handshake_is_complete() {
    let identities = Identities::new();
    let mut pair = Pair::new(identities.client(), identities.server());
    let early = Err(Error::from(ApiMisuse::HandshakeNotComplete));
    let out = &mut BytesMut::new();
    assert_eq!(pair.initiator.connection.write(b"early", out), early);
    pair.deliver(Role::Initiator);
    // The responder has keys now, but nobody has shown yet that it is there.
    assert_eq!(pair.responder.connection.write(b"early", out), early);
    assert_eq!(pair.responder.connection.rekey(out).map(|_| ()), early);
    assert_eq!(pair.responder.connection.peer(), None);
    assert!(out.is_empty());
    pair.drive();
    pair.assert_works();
}

// 2P-02: the initiator offers its next suite when the first is refused.
#[test]
pub(super) fn the_initiator_falls_back_to_a_suite_that_both_have() {
    let identities = Identities::new();
    let mut pair = Pair::connect(
        identities.client(),
        identities.server().cipher_suites([CipherSuite::ALL[1]]),
    );
    assert_eq!(pair.initiator.connection.cipher_suite(), Some(CipherSuite::ALL[1]));
    pair.assert_works();
}

// 2P-02
#[test]
pub(super) fn without_a_common_suite_both_sides_say_so() {
    let identities = Identities::new();
    let mut pair = Pair::new(
        identities.client().cipher_suites([CipherSuite::ALL[0]]),
        identities.server().cipher_suites([CipherSuite::ALL[1]]),
    );
    pair.drive();
    let error = pair.initiator.error.clone().unwrap();
    let offered = vec![CipherSuite::ALL[0]];
    assert_eq!(error, PeerIncompatible::NoCipherSuitesInCommon { offered }.into());
    let text = "the peer is incompatible: it refused every cipher suite that was offered \
        (MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519)";
    assert_eq!(error.to_string(), text);
    assert!(pair.initiator.out.is_empty(), "there is nothing to say to a peer that has said no");
    assert_eq!(
        pair.responder.connection.handle_eof(),
        Err(PeerIncompatible::CipherSuite(0x0001).into())
    );
}

// 2P-02: refusals are not authenticated. Whoever forges them ends the handshake with this error, as
// with any other alert, and no suite is left out of it.
#[test]
fn every_suite_has_been_offered_before_the_initiator_gives_up() {
    let identities = Identities::new();
    let mut pair = Pair::new(identities.client(), identities.server());
    let offered = identities.client().build().unwrap().cipher_suites().to_vec();
    for suite in &offered {
        assert_eq!(pair.initiator.error, None);
        let hello = pair.intercept(Role::Initiator);
        assert_eq!(resumption::first_body(&hello)[6..8], suite.id().to_be_bytes());
        pair.inject(Role::Initiator, &[21, 3, 3, 0, 2, 2, 40]);
    }
    let error = PeerIncompatible::NoCipherSuitesInCommon { offered };
    assert_eq!(pair.initiator.error, Some(error.into()));
}

// A forged alert makes the initiator try a lesser suite; the responder notices.
#[test]
fn a_forged_refusal_cannot_downgrade_the_suite() {
    let identities = Identities::new();
    let mut pair = Pair::new(identities.client(), identities.server());
    drop(pair.intercept(Role::Initiator));
    pair.inject(Role::Initiator, &[21, 3, 3, 0, 2, 2, 40]);
    pair.assert_failed(Role::Responder, PeerMisbehaved::Downgrade);
}

#[test]
fn without_a_common_application_protocol_there_is_no_connection() {
    let identities = Identities::new();
    let mut pair = Pair::new(
        identities.client().alpn_protocols(["h2"]),
        identities.server().alpn_protocols(["h3"]),
    );
    pair.assert_failed(Role::Responder, PeerIncompatible::Alpn);
    for (client, server) in [(vec!["h2"], vec![]), (vec![], vec!["h3"])] {
        let pair = Pair::connect(
            identities.client().alpn_protocols(client),
            identities.server().alpn_protocols(server),
        );
        assert_eq!(pair.initiator.connection.alpn_protocol(), None);
    }
}

// 2P-03
#[test]
pub(super) fn an_unknown_initiator_is_refused() {
    let identities = Identities::new();
    let stranger = Identities::new();
    let mut pair =
        Pair::new(configuration(&stranger.client, &identities.server), identities.server());
    pair.assert_failed(Role::Responder, AuthenticationError::UnknownKey);
}

// 2P-05
#[test]
fn an_unknown_responder_is_refused() {
    let identities = Identities::new();
    let stranger = Identities::new();
    let mut pair =
        Pair::new(identities.client(), configuration(&stranger.server, &identities.client));
    pair.assert_failed(Role::Initiator, AuthenticationError::UnknownKey);
}

#[test]
fn a_responder_with_another_name_is_refused() {
    let mut identities = Identities::new();
    identities.server = Identity::generate("other.example").unwrap();
    let mut pair = Pair::new(identities.client(), identities.server());
    let error = AuthenticationError::NameMismatch {
        expected: SERVER_NAME.into(),
        presented: "other.example".into(),
    };
    pair.assert_failed(Role::Initiator, error);
}

#[test]
fn one_key_at_both_ends_is_refused() {
    let identities = Identities::new();
    let own = &identities.server;
    let mut pair = Pair::new(configuration(own, own), configuration(own, own));
    pair.assert_failed(Role::Responder, PeerMisbehaved::OwnKey);
}

/// Remembers what it is asked.
struct Recorder(std::sync::Mutex<Vec<String>>);

impl AuthenticationService for Recorder {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        let purpose = match request.purpose {
            Purpose::Handshake => "handshake",
            _ => "other",
        };
        let name = request.presented.to_name()?;
        let asked = format!("{purpose} {name} {:?} {:?}", request.role, request.server_name);
        self.0
            .lock()
            .map(|mut list| list.push(asked))
            .map_err(|_| AuthenticationError::WrongRole)?;
        Ok(PeerIdentity::new("as the service says", request.presented.to_public_key()?))
    }
}

// 2P-03, 2P-05
#[test]
fn the_service_is_asked_who_this_is_for_which_name_in_which_role() {
    let identities = Identities::new();
    let services = [(); 2].map(|()| Arc::new(Recorder(Default::default())));
    let config = |own: &Identity, service: &Arc<Recorder>| {
        Config::builder().identity(own.clone()).authentication_service(Arc::clone(service))
    };
    let mut pair = Pair::connect(
        config(&identities.client, &services[0]),
        config(&identities.server, &services[1]),
    );
    assert_eq!(pair.initiator.connection.peer().unwrap().name(), "as the service says");
    // An update that changes no credential asks nobody.
    pair.rekey(Role::Initiator);
    pair.drive();
    let asked = services.map(|service| service.0.lock().unwrap().join("; "));
    let name = format!("{:?}", Some(ServerName::new(SERVER_NAME).unwrap()));
    assert_eq!(asked[0], format!("handshake {SERVER_NAME} Responder {name}"));
    assert_eq!(asked[1], format!("handshake client Initiator {name}"));
}

// CH-09
#[test]
fn a_silent_peer_runs_into_the_timeout() {
    let identities = Identities::new();
    let timeout = Duration::from_secs(3);
    let limits = Limits::default().with_handshake_timeout(timeout);
    let mut pair =
        Pair::new(identities.client().limits(limits), identities.server().limits(limits));
    drop(pair.intercept(Role::Initiator));
    pair.advance(timeout - Duration::from_nanos(1));
    assert_eq!((&pair.initiator.error, &pair.responder.error), (&None, &None));
    pair.advance(Duration::from_nanos(1));
    let expired = Some(Error::HandshakeTimeout(timeout));
    assert_eq!(pair.initiator.error, expired);
    assert_eq!(pair.responder.error, expired);
    assert_eq!(&pair.responder.out[..], [21, 3, 3, 0, 2, 1, 90]);
}

// CH-09
#[test]
fn a_slow_peer_runs_into_the_timeout() {
    let identities = Identities::new();
    let mut pair = Pair::new(identities.client(), identities.server());
    let hello = pair.intercept(Role::Initiator);
    for byte in hello {
        pair.advance(Duration::from_secs(1));
        pair.inject(Role::Responder, &[byte]);
    }
    let timeout = Limits::default().handshake_timeout;
    assert_eq!(pair.responder.error, Some(Error::HandshakeTimeout(timeout)));
}

#[test]
fn a_responder_whose_answer_is_not_confirmed_runs_into_the_timeout() {
    let mut pair = {
        let identities = Identities::new();
        Pair::new(identities.client(), identities.server())
    };
    pair.deliver(Role::Initiator);
    drop(pair.intercept(Role::Responder));
    pair.advance(Limits::default().handshake_timeout);
    let error = Error::HandshakeTimeout(Limits::default().handshake_timeout);
    assert_eq!(pair.responder.error, Some(error));
}

// CH-04
#[test]
fn a_stream_that_ends_in_the_handshake_is_truncated() {
    let identities = Identities::new();
    for messages in 0..2 {
        let mut pair = Pair::new(identities.client(), identities.server());
        if messages > 0 {
            pair.deliver(Role::Initiator);
        }
        assert_eq!(pair.responder.connection.handle_eof(), Err(Error::Truncated));
        assert_eq!(pair.initiator.connection.handle_eof(), Err(Error::Truncated));
    }
}

// TL-01, TL-03: the keys on the wire, derived from the group by nothing but the text of the drafts.
#[test]
pub(super) fn the_keys_on_the_wire_are_those_of_the_drafts() {
    for suite in suites::of_every_provider() {
        let identities = Identities::of(suite.signature_scheme());
        let mut pair =
            Pair::connect(identities.client().cipher_suites([suite]), identities.server());
        pair.rekey(Role::Responder);
        pair.drive();
        for (role, label) in
            [(Role::Initiator, "MLS-TLS c ap traffic"), (Role::Responder, "MLS-TLS s ap traffic")]
        {
            pair.write(role, b"one");
            drop(pair.intercept(role));
            pair.write(role, b"two");
            let sealed = pair.intercept(role);
            let group = pair.end(role).established().sender.group();
            let crypto = group.crypto().clone();
            let secret = group.export(label, b"", suite.hash_len()).unwrap();
            let mut key = vec![0; suite.aead().key_len()];
            let mut nonce = [0; 12];
            crypto.expand_label(suite, &secret, "key", b"", &mut key).unwrap();
            crypto.expand_label(suite, &secret, "iv", b"", &mut nonce).unwrap();
            nonce[11] ^= 1;
            let (header, payload) = sealed.split_at(5);
            assert_eq!(header, [23, 3, 3, 0, 3 + 1 + 16]);
            let mut payload = payload.to_vec();
            let key = crypto.aead_key(suite.aead(), &key).unwrap();
            let length = key.open_in_place(nonce, header, &mut payload).unwrap();
            assert_eq!(&payload[..length], b"two\x17");
        }
    }
}

// 2P-01: KeyPackages that were made ahead are used once, for their server, and not for long.
#[test]
fn key_packages_can_be_made_ahead() {
    let identities = Identities::new();
    let client = Arc::new(identities.client().build().unwrap());
    let server = Arc::new(identities.server().build().unwrap());
    let made = KeyPackages::new(client);
    let mut now = start();
    let name = ServerName::new(SERVER_NAME).unwrap();
    made.make(&name, 2, now).unwrap();
    made.make(&ServerName::new("other.example").unwrap(), 1, now).unwrap();
    let mut hellos = Vec::new();
    for left in [2, 1, 1] {
        let mut out = BytesMut::new();
        let initiator =
            Connection::initiator_with_key_packages(&made, name.clone(), now, &mut out).unwrap();
        assert_eq!(made.len(), left);
        hellos.push(out.clone());
        let mut initiator = End::new(initiator);
        initiator.out = out;
        let responder = End::new(Connection::responder(Arc::clone(&server), now));
        let mut pair = Pair { initiator, responder, now };
        pair.drive();
        pair.initiator.expect(Event::HandshakeComplete);
        pair.assert_works();
    }
    assert!(hellos[0] != hellos[1] && hellos[1] != hellos[2]);
    now = now.after(Duration::from_secs(1800));
    Connection::initiator_with_key_packages(&made, name.clone(), now, &mut BytesMut::new())
        .unwrap();
    assert!(made.is_empty(), "the one for the other server is too old");
    made.make(&name, 3, now).unwrap();
    now = now.after(Duration::from_secs(1799));
    made.purge(now);
    assert_eq!(made.len(), 3);
    now = now.after(Duration::from_secs(1));
    made.make(&name, 1, now).unwrap();
    assert_eq!(made.len(), 1, "the old ones are gone");
    made.make(&name, 5000, now).unwrap();
    made.make(&name, 1, now).unwrap();
    assert_eq!(made.len(), 1024);
    assert_eq!(format!("{made:?}"), "KeyPackages { len: 1024, .. }");
}
