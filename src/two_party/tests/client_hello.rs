//! Responders that look at the first message before they choose a configuration.

use super::{
    resumption::{FULL, RESUMED, World, complete, id, kinds},
    *,
};
use crate::{
    error::{InvalidMessage, PeerMisbehaved, SessionError},
    wire::{AlertDescription, TwoPartyMessage},
};

fn dial(config: Builder, name: &str, now: Time) -> End {
    let mut out = BytesMut::new();
    let name = ServerName::new(name).unwrap();
    let config = Arc::new(config.build().unwrap());
    let mut end = End::new(Connection::initiator(config, name, now, &mut out).unwrap());
    end.out = out;
    end
}

/// Reads the first message of the initiator.
fn accept(acceptor: &mut Acceptor, initiator: &mut End, now: Time) -> Accepted {
    let mut out = BytesMut::new();
    let accepted = acceptor.handle_input(now, &mut initiator.out, &mut out).unwrap();
    assert!(out.is_empty(), "nothing is answered yet");
    accepted.unwrap()
}

/// Goes on with the configuration.
/// The suites of an identity with a key of Ed25519.
const ED25519_SUITES: [CipherSuite; 2] = [
    CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
    CipherSuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
];

fn go_on(accepted: Accepted, config: Arc<Config>, initiator: End, now: Time) -> Pair {
    let mut out = BytesMut::new();
    let connection = accepted.into_connection(config, now, &mut out).unwrap();
    let mut responder = End::new(connection);
    responder.out = out;
    Pair { initiator, responder, now }
}

#[test]
fn the_configuration_is_chosen_by_name() {
    let identities = Identities::new();
    let hosts = ["a.example", "b.example"].map(|name| Identity::generate(name).unwrap());
    let now = start();
    for host in &hosts {
        let client = configuration(&identities.client, host)
            .alpn_protocols(["h2", "h1"])
            .cipher_suites(ED25519_SUITES);
        let mut initiator = dial(client, host.name(), now);
        let accepted = accept(&mut Acceptor::new(Limits::default(), now), &mut initiator, now);
        let hello = accepted.client_hello();
        assert_eq!(hello.server_name().unwrap().as_str(), host.name());
        assert_eq!(hello.alpn().collect::<Vec<_>>(), [b"h2", b"h1"]);
        assert_eq!(hello.cipher_suites().collect::<Vec<_>>(), ED25519_SUITES);
        let presented = hello.presented_identity().unwrap();
        assert_eq!(presented.to_name(), Ok("client"));
        assert_eq!(presented.signature_key, identities.client.public_key().as_bytes());
        assert_eq!(hello.session_id(), None);
        let own = hosts.iter().find(|own| own.name() == hello.server_name().unwrap().as_str());
        let config = configuration(own.unwrap(), &identities.client).alpn_protocols(["h1"]);
        let config = Arc::new(config.build().unwrap());
        let mut pair = go_on(accepted, config, initiator, now);
        complete(&mut pair);
        assert_eq!(pair.initiator.connection.alpn_protocol(), Some(&b"h1"[..]));
    }
}

#[test]
fn a_first_message_may_come_byte_by_byte_and_another_suite_after_it() {
    let identities = Identities::new();
    let now = start();
    let client = identities.client().cipher_suites(ED25519_SUITES);
    let mut initiator = dial(client, SERVER_NAME, now);
    let mut acceptor = Acceptor::new(Limits::default(), now);
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    let mut accepted = None;
    for byte in initiator.out.split() {
        assert!(accepted.is_none());
        input.extend_from_slice(&[byte]);
        accepted = acceptor.handle_input(now, &mut input, &mut out).unwrap();
    }
    // The configuration does not have the first suite: the handshake goes on as ever.
    let config = identities.server().cipher_suites([ED25519_SUITES[1]]).build().unwrap();
    let mut pair = go_on(accepted.unwrap(), Arc::new(config), initiator, now);
    complete(&mut pair);
    assert_eq!(pair.initiator.connection.cipher_suite(), Some(ED25519_SUITES[1]));
}

// 2P-14: of a request the session is seen, and the configuration has to have it.
#[test]
fn a_request_to_resume_names_its_session() {
    let world = World::new();
    let session = id(&world.connect());
    let mut pair = world.dial();
    let now = pair.now;
    let mut acceptor = Acceptor::new(Limits::default(), now);
    let accepted = accept(&mut acceptor, &mut pair.initiator, now);
    let hello = accepted.client_hello();
    assert_eq!(hello.session_id(), Some(&session));
    assert!(hello.server_name().is_none() && hello.presented_identity().is_none());
    assert_eq!(hello.alpn().count() + hello.cipher_suites().count(), 0);
    let stranger = world.identities.server().build().unwrap();
    assert_eq!(stranger.has_session(&session), Ok(false));
    assert_eq!(world.server.has_session(&session), Ok(true));
    let mut pair = go_on(accepted, Arc::clone(&world.server), pair.initiator, now);
    complete(&mut pair);
    assert_eq!(kinds(&pair), RESUMED);
}

// 2P-14, TL-08: early data of a request that is declined is skipped, and a full handshake follows.
#[test]
fn a_session_that_nobody_has_is_declined() {
    let world = World::new();
    drop(world.connect());
    let mut pair = world.dial_with(Some(b"early data"));
    let now = pair.now;
    let mut acceptor = Acceptor::new(Limits::default(), now);
    let accepted = accept(&mut acceptor, &mut pair.initiator, now);
    let mut out = BytesMut::new();
    let mut acceptor = accepted.decline_session(&mut out).unwrap();
    let early = pair.initiator.out.split();
    assert!(!early.is_empty());
    pair.inject(Role::Initiator, &out);
    let mut input = early;
    input.unsplit(pair.initiator.out.split());
    let accepted = acceptor.handle_input(now, &mut input, &mut BytesMut::new()).unwrap().unwrap();
    assert_eq!(accepted.client_hello().server_name().unwrap().as_str(), SERVER_NAME);
    let mut pair = go_on(accepted, Arc::clone(&world.server), pair.initiator, now);
    complete(&mut pair);
    assert_eq!(kinds(&pair), FULL);
}

// CH-09
#[test]
fn requests_cannot_be_declined_for_ever() {
    let world = World::new();
    drop(world.connect());
    let mut pair = world.dial();
    let request = pair.intercept(Role::Initiator);
    let (now, mut out) = (pair.now, BytesMut::new());
    let mut acceptor = Acceptor::new(Limits::default(), now);
    let mut declined = 0;
    loop {
        let accepted = acceptor.handle_input(now, &mut request.clone(), &mut out).unwrap();
        declined += 1;
        match accepted.unwrap().decline_session(&mut out) {
            Ok(next) => acceptor = next,
            Err(error) => break assert_eq!(error, SessionError::Unknown.into()),
        }
    }
    assert_eq!(declined, crate::two_party::handshake::MAX_HELLOS);
    // A ClientHello is no request to resume.
    let mut initiator = dial(world.identities.client(), SERVER_NAME, now);
    let accepted = accept(&mut Acceptor::new(Limits::default(), now), &mut initiator, now);
    assert!(accepted.decline_session(&mut out).is_err());
}

// CH-09, CH-10
#[test]
fn whatever_else_comes_first_is_refused_and_so_is_waiting() {
    let now = start();
    let limits = Limits::default().with_max_message_size(5000);
    let hello = |message: &[u8]| {
        let message = TwoPartyMessage::ClientHello { key_package: message.to_vec() };
        record(&message.encode().unwrap())
    };
    let record_of = |message: TwoPartyMessage| record(&message.encode().unwrap());
    let malformed = || InvalidMessage::Malformed("KeyPackage").into();
    let cases: Vec<(Vec<u8>, Error)> = vec![
        (hello(&[0, 1, 0, 5]), malformed()),
        (hello(&[0, 1, 0, 5, 0, 1, 0, 1, 0xff]), malformed()),
        (
            record_of(TwoPartyMessage::EpochKeyUpdate { epoch: 1 }),
            PeerMisbehaved::UnexpectedMessage("EpochKeyUpdate").into(),
        ),
        (vec![23, 3, 3, 0, 1, 0], PeerMisbehaved::UnexpectedRecord("application_data").into()),
        (vec![21, 3, 3, 0, 2, 2, 90], Error::AlertReceived(AlertDescription::UserCanceled)),
        (
            record(&[1, 0, 0x20, 0]),
            InvalidMessage::MessageTooLong { length: 0x2000, limit: 5000 }.into(),
        ),
    ];
    for (bytes, error) in cases {
        let mut acceptor = Acceptor::new(limits, now);
        let mut out = BytesMut::new();
        let result = acceptor.handle_input(now, &mut BytesMut::from(&bytes[..]), &mut out);
        assert_eq!(result.unwrap_err(), error);
        assert_eq!(out.is_empty(), error.alert().is_none());
        let again = acceptor.handle_input(now, &mut BytesMut::new(), &mut out);
        assert_eq!(again.unwrap_err(), error, "errors are sticky");
        assert_eq!(acceptor.poll_timeout(), None);
    }
    let mut acceptor = Acceptor::new(limits, now);
    let mut out = BytesMut::new();
    assert_eq!(acceptor.handle_eof(), Error::Truncated);
    let timeout = limits.handshake_timeout;
    assert_eq!(acceptor.poll_timeout(), Some(now.monotonic + timeout));
    assert_eq!(acceptor.handle_timeout(now, &mut out), Ok(()));
    let result = acceptor.handle_timeout(now.after(timeout), &mut out);
    assert_eq!(result, Err(Error::HandshakeTimeout(timeout)));
    assert!(!out.is_empty());
}

// CH-10: no change of a hello makes the parser panic.
#[test]
fn every_changed_hello_is_read_or_refused() {
    let now = start();
    let mut initiator = dial(Identities::new().client(), SERVER_NAME, now);
    let hello = initiator.out.split();
    for index in 5..hello.len() {
        for change in [1, 0x40, 0x80, 0xff] {
            let mut changed = hello.clone();
            changed[index] ^= change;
            let mut acceptor = Acceptor::new(Limits::default(), now);
            if let Ok(Some(accepted)) =
                acceptor.handle_input(now, &mut changed, &mut BytesMut::new())
            {
                let hello = accepted.client_hello();
                let _ = (hello.server_name(), hello.presented_identity().map(|p| p.to_name()));
            }
        }
    }
}

// The time counts from the beginning, by the configuration's own limit.
#[test]
fn the_time_for_the_handshake_counts_from_the_first_byte() {
    let identities = Identities::new();
    let now = start();
    let mut initiator = dial(identities.client(), SERVER_NAME, now);
    let accepted = accept(&mut Acceptor::new(Limits::default(), now), &mut initiator, now);
    let limits = Limits::default().with_handshake_timeout(Duration::from_secs(3));
    let config = Arc::new(identities.server().limits(limits).build().unwrap());
    let later = now.after(Duration::from_secs(2));
    let pair = go_on(accepted, config, initiator, later);
    let deadline = now.monotonic + Duration::from_secs(3);
    assert_eq!(pair.responder.connection.poll_timeout(), Some(deadline));
}

/// A plaintext handshake record.
fn record(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[22, 3, 3], &length[..], content].concat()
}
