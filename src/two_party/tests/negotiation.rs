//! Which suite two parties agree on, and as whom (2P-02).

use super::*;
use crate::error::PeerIncompatible;

const AES: CipherSuite = CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const P256: CipherSuite = CipherSuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256;

/// Parties with a key of each of the two classical schemes.
struct Both {
    ed25519: Identities,
    p256: Identities,
}

impl Both {
    fn new() -> Self {
        Self {
            ed25519: Identities::of(SignatureScheme::ED25519),
            p256: Identities::of(SignatureScheme::ECDSA_SECP256R1_SHA256),
        }
    }

    fn pins(&self, identity: fn(&Identities) -> &Identity) -> PinnedKeys {
        let lines = [&self.ed25519, &self.p256].map(|pair| identity(pair).public_line());
        PinnedKeys::parse(&lines.join("\n")).unwrap()
    }

    /// A server that is known by both keys, and knows both keys of the client.
    fn server(&self) -> Builder {
        Config::builder()
            .identity(self.ed25519.server.clone())
            .additional_identity(self.p256.server.clone())
            .authentication_service(self.pins(|pair| &pair.client))
            .session_store(MemoryStore::default())
    }

    fn client(&self, identity: &Identity) -> Builder {
        Config::builder()
            .identity(identity.clone())
            .authentication_service(self.pins(|pair| &pair.server))
            .session_store(MemoryStore::default())
    }
}

fn suite(pair: &Pair) -> Option<CipherSuite> {
    assert_eq!(pair.initiator.connection.cipher_suite(), pair.responder.connection.cipher_suite());
    pair.initiator.connection.cipher_suite()
}

#[test]
fn a_server_with_two_identities_serves_both_kinds_of_clients() {
    let both = Both::new();
    for (identities, expected) in [(&both.ed25519, AES), (&both.p256, P256)] {
        let server = Arc::new(both.server().build().unwrap());
        let client = Arc::new(both.client(&identities.client).build().unwrap());
        assert_eq!(client.identity_for(expected).public_key(), identities.client.public_key());
        // A full handshake, and then a resumption of its session.
        for _ in 0..2 {
            let (now, mut out) = (start(), BytesMut::new());
            let name = ServerName::new(SERVER_NAME).unwrap();
            let initiator = Connection::initiator(Arc::clone(&client), name, now, &mut out);
            let mut initiator = End::new(initiator.unwrap());
            initiator.out = out;
            let responder = End::new(Connection::responder(Arc::clone(&server), now));
            let mut pair = Pair { initiator, responder, now };
            pair.drive();
            assert_eq!((&pair.initiator.error, &pair.responder.error), (&None, &None));
            assert_eq!(suite(&pair), Some(expected));
            let [server_seen, client_seen] = [&pair.initiator, &pair.responder]
                .map(|end| end.connection.peer().unwrap().public_key().clone());
            assert_eq!(server_seen, *identities.server.public_key());
            assert_eq!(client_seen, *identities.client.public_key());
            for role in [Role::Initiator, Role::Responder] {
                pair.rekey(role);
                pair.assert_works();
            }
        }
    }
}

#[test]
fn a_client_with_two_identities_tries_one_after_the_other() {
    let both = Both::new();
    let client = || both.client(&both.ed25519.client).additional_identity(both.p256.client.clone());
    let config = client().build().unwrap();
    assert_eq!(config.cipher_suites().first(), Some(&AES));
    assert!(config.cipher_suites().contains(&P256));
    // The suites of the first identity come first, whichever it is.
    let config =
        both.client(&both.p256.client).additional_identity(both.ed25519.client.clone()).build();
    assert_eq!(config.unwrap().cipher_suites().first(), Some(&P256));

    let mut pair = Pair::connect(client(), both.p256.server());
    assert_eq!(suite(&pair), Some(P256));
    let client_seen = pair.responder.connection.peer().unwrap();
    assert_eq!(client_seen.public_key(), both.p256.client.public_key());
    pair.assert_works();
    let mut pair = Pair::connect(client(), both.ed25519.server());
    assert_eq!(suite(&pair), Some(AES));
    pair.assert_works();
}

#[test]
fn keys_of_different_schemes_have_no_common_suite() {
    let both = Both::new();
    let mut pair = Pair::new(both.client(&both.p256.client), both.ed25519.server());
    pair.drive();
    let offered = both.client(&both.p256.client).build().unwrap().cipher_suites().to_vec();
    let error = PeerIncompatible::NoCipherSuitesInCommon { offered };
    assert_eq!(pair.initiator.error, Some(error.into()));
    let refused = pair.responder.connection.handle_eof();
    assert!(matches!(refused, Err(Error::PeerIncompatible(PeerIncompatible::CipherSuite(_)))));
}

#[test]
fn an_identity_of_each_scheme_is_enough() {
    let both = Both::new();
    let again = Identity::generate("another").unwrap();
    let error = both.client(&both.ed25519.client).additional_identity(again).build().unwrap_err();
    let reason = "two identities have keys of one signature scheme";
    assert_eq!(error, crate::error::ConfigError::OutOfRange(reason).into());
    // A suite is named that no identity can use.
    let error = both.client(&both.ed25519.client).cipher_suites([AES, P256]).build().unwrap_err();
    assert_eq!(error, crate::error::ConfigError::SignatureScheme { suite: P256 }.into());
    let both_suites = both
        .client(&both.ed25519.client)
        .additional_identity(both.p256.client.clone())
        .cipher_suites([P256, AES])
        .build();
    assert_eq!(both_suites.unwrap().cipher_suites(), [P256, AES]);
}

// TL-07: the limit counts the body of a message, not its envelope.
#[test]
fn a_server_hello_may_be_as_long_as_the_limit() {
    let identities = Identities::new();
    // They come back in the initiator's leaf.
    let long = (0..20).map(|number| vec![number; 255]);
    let client = |limit: usize| {
        let limits = Limits::default().with_max_message_size(limit.try_into().unwrap());
        identities.client().cipher_suites([AES]).alpn_protocols(long.clone()).limits(limits)
    };
    let pair = Pair::connect(client(1 << 16), identities.server());
    let length = resumption::first_body(&pair.responder.sent).len();
    assert!(length > 4096);
    Pair::connect(client(length), identities.server()).assert_works();
    let mut pair = Pair::new(client(length - 1), identities.server());
    let reason = PeerIncompatible::MessageTooLong { length, limit: length - 1 };
    pair.assert_failed(Role::Responder, reason);
}

#[cfg(feature = "post-quantum")]
mod post_quantum {
    use super::*;
    use crate::error::PeerMisbehaved;

    const HYBRID: CipherSuite = CipherSuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;

    #[test]
    fn who_prefers_post_quantum_says_so_in_one_call() {
        let identities = Identities::new();
        let config = identities.client().prefer_post_quantum().build().unwrap();
        assert_eq!(config.cipher_suites().first(), Some(&HYBRID));
        let classical = config.cipher_suites().iter().position(|suite| !suite.is_post_quantum());
        assert!(config.cipher_suites()[classical.unwrap()..].starts_with(&[AES]));
        let config = identities.client().build().unwrap();
        assert_eq!(config.cipher_suites().first(), Some(&AES));
        // Own suites keep their order, too.
        let config = identities.client().cipher_suites([AES, HYBRID]).prefer_post_quantum().build();
        assert_eq!(config.unwrap().cipher_suites(), [HYBRID, AES]);
    }

    #[test]
    fn the_initiators_preference_decides_between_classical_and_post_quantum() {
        let identities = Identities::new();
        for (client, expected) in
            [(identities.client(), AES), (identities.client().prefer_post_quantum(), HYBRID)]
        {
            for server in [identities.server(), identities.server().prefer_post_quantum()] {
                let mut pair = Pair::connect(client.clone(), server);
                assert_eq!(suite(&pair), Some(expected));
                pair.assert_works();
            }
        }
    }

    #[test]
    fn a_peer_without_post_quantum_suites_is_reached_with_a_classical_one() {
        let identities = Identities::new();
        let mut pair = Pair::connect(
            identities.client().prefer_post_quantum(),
            identities.server().cipher_suites([AES]),
        );
        assert_eq!(suite(&pair), Some(AES));
        pair.assert_works();
    }

    // Whoever forges the refusal of each post-quantum suite does not get a classical one.
    #[test]
    fn a_forged_refusal_cannot_take_post_quantum_away() {
        let identities = Identities::new();
        let config = identities.client().prefer_post_quantum().build().unwrap();
        let better = config.cipher_suites().iter().filter(|suite| suite.is_post_quantum()).count();
        let mut pair = Pair::new(identities.client().prefer_post_quantum(), identities.server());
        for _ in 0..better {
            drop(pair.intercept(Role::Initiator));
            pair.inject(Role::Initiator, &[21, 3, 3, 0, 2, 2, 40]);
        }
        pair.assert_failed(Role::Responder, PeerMisbehaved::Downgrade);
    }

    /// An initiator with every suite of the build reaches a responder that has the last one only.
    #[test]
    fn every_suite_can_be_tried_on_one_stream() {
        let identities: Vec<_> =
            SignatureScheme::ALL.iter().map(|scheme| Identities::of(*scheme)).collect();
        let lines: Vec<_> = identities.iter().map(|pair| pair.server.public_line()).collect();
        let mut client = Config::builder()
            .identity(identities[0].client.clone())
            .authentication_service(PinnedKeys::parse(&lines.join("\n")).unwrap());
        for pair in &identities[1..] {
            client = client.additional_identity(pair.client.clone());
        }
        let offered = client.clone().build().unwrap();
        let last = *offered.cipher_suites().last().unwrap();
        assert!(offered.cipher_suites().len() >= 11);
        let pair = identities
            .iter()
            .find(|pair| pair.server.public_key().scheme() == last.signature_scheme());
        let mut pair = Pair::connect(client, pair.unwrap().server().cipher_suites([last]));
        assert_eq!(suite(&pair), Some(last));
        pair.assert_works();
    }

    // TL-07: with post-quantum signatures, each message is longer than a record; the cap holds.
    #[test]
    fn messages_of_post_quantum_suites_span_records_under_the_cap() {
        let suite = CipherSuite::MLS_256_MLKEM1024_AES256GCM_SHA384_MLDSA87;
        let identities = Identities::of(suite.signature_scheme());
        let mut pair = Pair::connect(identities.client(), identities.server());
        assert_eq!(super::suite(&pair).unwrap().signature_scheme(), suite.signature_scheme());
        let hello = resumption::first_body(&pair.initiator.sent).len();
        let welcome = resumption::first_body(&pair.responder.sent).len();
        assert!(hello > 1 << 13 && welcome > 1 << 14, "{hello} {welcome}");
        let before = pair.initiator.sent.len();
        pair.rekey(Role::Initiator);
        pair.drive();
        let update = pair.initiator.sent.len() - before;
        assert!(update > 1 << 13, "{update}");
        // Both fit twice into what is allowed unless configured otherwise.
        let limit = usize::try_from(Limits::default().max_message_size).unwrap();
        assert!(2 * hello.max(welcome).max(update) < limit, "{hello} {welcome} {update}");
        pair.assert_works();

        let short = Limits::default().with_max_message_size(4096);
        let mut pair = Pair::new(identities.client(), identities.server().limits(short));
        pair.drive();
        assert!(pair.responder.error.is_some() && pair.initiator.error.is_some());
        let short = Limits::default().with_max_message_size(16_384);
        let mut pair = Pair::new(identities.client().limits(short), identities.server());
        assert!(identities.client().build().unwrap().cipher_suites().len() > 1);
        pair.drive();
        let error = pair.responder.error.clone().unwrap();
        let too_long = matches!(
            error,
            Error::PeerIncompatible(PeerIncompatible::MessageTooLong { limit: 16_384, .. })
        );
        assert!(too_long, "{error}");
        pair.assert_failed(Role::Responder, error);
    }
}
