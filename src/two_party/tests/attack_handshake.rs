//! Attacks on the bytes of the handshake: changed on the way, or cut (2P-02, 2P-03, 2P-05, CH-10).
//!
//! No flipped bit is ignored. Of the lengths in the headers, a larger one makes the victim wait for
//! what does not come, so that it ends in a timeout or with [`Error::Truncated`].

use super::{attack::inject_plain, schedules::Rng, *};
use crate::{
    error::{InvalidMessage, PeerIncompatible, PeerMisbehaved},
    wire::TwoPartyMessage,
};

/// Before the MLSMessage: the headers of record and envelope.
pub(super) const HEADERS: usize = 5 + 4;

pub(super) fn fresh(identities: &Identities) -> Pair {
    Pair::new(identities.client().cipher_suites([CipherSuite::ALL[0]]), identities.server())
}

/// A bit of the headers was flipped: the error. `None` if it shows later, or if more is awaited.
fn flipped_header(bytes: &[u8], bit: usize) -> Option<Error> {
    let mask = 1_u8 << (bit % 8);
    let flipped = bytes[bit / 8] ^ mask;
    let record_length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
    Some(match bit / 8 {
        0 if flipped == 23 => PeerMisbehaved::UnexpectedRecord("application_data").into(),
        0 => InvalidMessage::UnknownContentType(flipped).into(),
        1 => InvalidMessage::RecordVersion(0x0303 ^ u16::from(mask) << 8).into(),
        2 => InvalidMessage::RecordVersion(0x0303 ^ u16::from(mask)).into(),
        3 | 4 => {
            let mask = if bit / 8 == 3 { usize::from(mask) << 8 } else { usize::from(mask) };
            match record_length ^ mask {
                long @ 16641.. => InvalidMessage::RecordTooLong(long).into(),
                _ => return None,
            }
        }
        5 => match flipped {
            1..=6 => return None,
            other => InvalidMessage::UnknownMessageType(other).into(),
        },
        6 => {
            let length = record_length - 4 + (usize::from(mask) << 16);
            InvalidMessage::MessageTooLong { length, limit: 65536 }.into()
        }
        _ => return None,
    })
}

// 2P-02, CH-10: no bit of a ClientHello can be changed so that the responder answers it.
#[test]
fn no_flipped_bit_of_a_client_hello_is_answered() {
    let identities = Identities::new();
    let mut pair = fresh(&identities);
    let hello = pair.intercept(Role::Initiator);
    for bit in 0..hello.len() * 8 {
        let mut bytes = hello.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let server = Arc::new(identities.server().build().unwrap());
        let mut responder = End::new(Connection::responder(server, pair.now));
        responder.input.extend_from_slice(&bytes);
        responder.process(pair.now);
        assert_ne!(responder.out.first(), Some(&22), "bit {bit} went unnoticed");
        let error = responder.connection.handle_eof().unwrap_err();
        if let Some(error) = &responder.error
            && let Some(alert) = error.alert()
        {
            assert_eq!(responder.out[..], [21, 3, 3, 0, 2, 2, alert.into()], "bit {bit}");
        }
        match bit / 8 {
            ..HEADERS => match flipped_header(&hello, bit) {
                Some(expected) => assert_eq!(error, expected, "bit {bit}"),
                None => assert!(
                    matches!(
                        error,
                        Error::Truncated
                            | Error::InvalidMessage(_)
                            | Error::PeerMisbehaved(
                                PeerMisbehaved::UnexpectedMessage(_)
                                    | PeerMisbehaved::MisalignedMessage
                                    | PeerMisbehaved::EarlyData(_)
                            )
                    ),
                    "bit {bit}: {error}"
                ),
            },
            at @ 15..17 => {
                let id = u16::from_be_bytes([bytes[15], bytes[16]]);
                let expected = match id {
                    // The other suite: then the signature is wrong.
                    3 => PeerMisbehaved::InvalidKeyPackage.into(),
                    id => Error::from(PeerIncompatible::CipherSuite(id)),
                };
                assert_eq!(error, expected, "bit {bit} in byte {at}");
            }
            _ => assert!(
                matches!(
                    error,
                    Error::InvalidMessage(
                        InvalidMessage::Malformed("KeyPackage")
                            | InvalidMessage::UnexpectedWireFormat("KeyPackage")
                    ) | Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyPackage)
                ),
                "bit {bit}: {error}"
            ),
        }
    }
}

// 2P-05, CH-10: no bit of a ServerHello can be changed so that the initiator joins. Of the
// encrypted GroupInfo, which makes up the end, one bit in three is tried, as a seed says.
#[test]
fn no_flipped_bit_of_a_server_hello_is_accepted() {
    /// The suite, and the group secrets that are encrypted to the KeyPackage.
    const SECRETS: usize = 200;

    let identities = Identities::new();
    let mut rng = Rng(3);
    let mut bit = 0;
    loop {
        let mut pair = fresh(&identities);
        pair.deliver(Role::Initiator);
        let hello = pair.intercept(Role::Responder);
        if bit >= hello.len() * 8 {
            break;
        }
        let mut bytes = hello.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        pair.inject(Role::Initiator, &bytes);
        assert!(pair.initiator.events.is_empty(), "bit {bit} went unnoticed");
        if pair.initiator.error.is_some() {
            pair.deliver(Role::Initiator);
        }
        let alert = pair.initiator.error.as_ref().and_then(Error::alert);
        assert_eq!(pair.responder.error, alert.map(Error::AlertReceived), "bit {bit}");
        let error = pair.initiator.connection.handle_eof().unwrap_err();
        match bit / 8 {
            ..HEADERS => match flipped_header(&hello, bit) {
                Some(expected) => assert_eq!(error, expected, "bit {bit}"),
                None => assert!(
                    matches!(
                        error,
                        Error::Truncated
                            | Error::InvalidMessage(_)
                            | Error::PeerMisbehaved(
                                PeerMisbehaved::UnexpectedMessage(_)
                                    | PeerMisbehaved::MisalignedMessage
                            )
                    ),
                    "bit {bit}: {error}"
                ),
            },
            _ => assert!(
                matches!(
                    error,
                    Error::InvalidMessage(
                        InvalidMessage::Malformed("Welcome")
                            | InvalidMessage::UnexpectedWireFormat("Welcome")
                    ) | Error::PeerMisbehaved(
                        PeerMisbehaved::InvalidWelcome
                            | PeerMisbehaved::UnexpectedGroup("another cipher suite")
                    )
                ),
                "bit {bit}: {error}"
            ),
        }
        bit += if bit < (HEADERS + SECRETS) * 8 { 1 } else { 1 + rng.below(5) };
    }
}

// 2P-03: the confirmation, too.
#[test]
fn no_flipped_bit_of_the_confirmation_confirms() {
    let identities = Identities::new();
    for bit in 0..(5 + 1 + 16) * 8 {
        let mut pair = fresh(&identities);
        pair.deliver(Role::Initiator);
        pair.deliver(Role::Responder);
        let mut bytes = pair.intercept(Role::Initiator);
        assert_eq!(bytes.len(), 5 + 1 + 16);
        bytes[bit / 8] ^= 1 << (bit % 8);
        pair.inject(Role::Responder, &bytes);
        assert!(pair.responder.events.is_empty(), "bit {bit} went unnoticed");
        if pair.responder.error.is_some() {
            let error = pair.responder.error.clone().unwrap();
            if error.alert().is_some() {
                pair.assert_failed(Role::Responder, error);
            }
        }
        pair.responder.connection.handle_eof().unwrap_err();
    }
}

// CH-10: an alert that is none, in the place of the confirmation. The error has an alert, and the
// initiator must get it.
#[test]
fn a_malformed_alert_instead_of_the_confirmation_is_answered() {
    let identities = Identities::new();
    for (bytes, error) in [
        (&[21, 3, 3, 0, 1, 2][..], Error::from(InvalidMessage::Malformed("alert"))),
        (&[21, 3, 3, 0, 3, 2, 40, 0], InvalidMessage::TrailingData("alert").into()),
        (&[21, 3, 3, 0, 0], InvalidMessage::RecordTooShort.into()),
    ] {
        let mut pair = fresh(&identities);
        pair.deliver(Role::Initiator);
        pair.deliver(Role::Responder);
        drop(pair.intercept(Role::Initiator));
        pair.inject(Role::Responder, bytes);
        pair.assert_failed(Role::Responder, error);
    }
}

// CH-10: a message that ends early, correctly framed.
#[test]
fn every_truncation_of_a_hello_is_refused() {
    let identities = Identities::new();
    let mut pair = fresh(&identities);
    let client_hello = pair.intercept(Role::Initiator);
    pair.inject(Role::Responder, &client_hello);
    let server_hello = pair.intercept(Role::Responder);
    for length in 1..client_hello.len() - HEADERS {
        let mut pair = fresh(&identities);
        drop(pair.intercept(Role::Initiator));
        let key_package = client_hello[HEADERS..][..length].to_vec();
        inject_plain(&mut pair, Role::Responder, &TwoPartyMessage::ClientHello { key_package });
        pair.assert_failed(Role::Responder, InvalidMessage::Malformed("KeyPackage"));
    }
    for length in 1..server_hello.len() - HEADERS {
        let mut pair = fresh(&identities);
        drop(pair.intercept(Role::Initiator));
        let welcome = server_hello[HEADERS..][..length].to_vec();
        inject_plain(&mut pair, Role::Initiator, &TwoPartyMessage::ServerHello { welcome });
        pair.assert_failed(Role::Initiator, InvalidMessage::Malformed("Welcome"));
    }
    // And one that ends late.
    for victim in [Role::Responder, Role::Initiator] {
        let mut pair = fresh(&identities);
        drop(pair.intercept(Role::Initiator));
        let (message, name) = match victim {
            Role::Responder => {
                let key_package = [&client_hello[HEADERS..], &[0]].concat();
                (TwoPartyMessage::ClientHello { key_package }, "KeyPackage")
            }
            Role::Initiator => {
                let welcome = [&server_hello[HEADERS..], &[0]].concat();
                (TwoPartyMessage::ServerHello { welcome }, "Welcome")
            }
        };
        inject_plain(&mut pair, victim, &message);
        pair.assert_failed(victim, InvalidMessage::Malformed(name));
    }
}
