//! Attacks with bytes and records, before keys and under them (CH-10, TL-02, TL-05, TL-07).
//!
//! Each attack asserts the error at the victim and, by [`Pair::assert_failed`], the alert that the
//! other end gets. Here the attacker sits on the wire, or has the keys and uses them wrongly.

use super::{schedules::Rng, *};
use crate::{
    crypto::AeadKey,
    error::{InvalidMessage, PeerMisbehaved},
    wire::{AlertDescription, ContentType, MAX_PLAINTEXT, TwoPartyMessage, encode_plaintext},
};

pub(super) const BOTH: [Role; 2] = [Role::Initiator, Role::Responder];

/// Two ends of which none has received anything; the hello of the initiator is gone.
pub(super) fn before_keys() -> Pair {
    let identities = Identities::new();
    let one = [CipherSuite::ALL[0]];
    let mut pair = Pair::new(
        identities.client().cipher_suites(one),
        identities.server().cipher_suites([CipherSuite::ALL[0]]),
    );
    drop(pair.intercept(Role::Initiator));
    pair
}

/// Puts a message on the wire without protection.
pub(super) fn inject_plain(pair: &mut Pair, victim: Role, message: &TwoPartyMessage) {
    let mut out = BytesMut::new();
    encode_plaintext(ContentType::Handshake, &message.encode().unwrap(), &mut out);
    pair.inject(victim, &out);
}

/// Seals what an honest end would not send now.
pub(super) fn seal(pair: &mut Pair, role: Role, content_type: ContentType, content: &[u8]) {
    let end = pair.end(role);
    let mut out = BytesMut::new();
    end.established().sender.path_mut().seal_control(content_type, content, &mut out).unwrap();
    end.out.unsplit(out);
}

/// Seals a message that an honest end would not send now.
pub(super) fn seal_message(pair: &mut Pair, role: Role, message: &TwoPartyMessage) {
    seal(pair, role, ContentType::Handshake, &message.encode().unwrap());
}

/// The record layer made a second time, to seal any TLSInnerPlaintext (TL-03).
struct Sealer {
    key: AeadKey,
    iv: [u8; 12],
    sequence_number: u64,
}

impl Sealer {
    /// Goes on where `role` stands in the first epoch.
    fn new(pair: &mut Pair, role: Role) -> Self {
        let label = match role {
            Role::Initiator => "MLS-TLS c ap traffic",
            Role::Responder => "MLS-TLS s ap traffic",
        };
        let sender = &mut pair.end(role).established().sender;
        let sequence_number = sender.path_mut().key_mut().sequence_number();
        let group = sender.group();
        let (crypto, suite) = (group.crypto(), group.suite());
        let secret = group.export(label, &[], 32).unwrap();
        let mut key = vec![0; suite.aead().key_len()];
        let mut iv = [0; 12];
        crypto.expand_label(suite, &secret, "key", &[], &mut key).unwrap();
        crypto.expand_label(suite, &secret, "iv", &[], &mut iv).unwrap();
        Self { key: crypto.aead_key(suite.aead(), &key).unwrap(), iv, sequence_number }
    }

    fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inner.len() + 16).unwrap();
        let header = [&[23, 3, 3][..], &length.to_be_bytes()].concat();
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence_number.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence_number += 1;
        let mut sealed = inner.to_vec();
        let tag = self.key.seal_in_place(nonce, &header, &mut sealed).unwrap();
        [&header, &sealed, &tag[..]].concat()
    }
}

fn record(content_type: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    [&[content_type, 3, 3][..], &length.to_be_bytes(), payload].concat()
}

// CH-10, TL-02, TL-05, 2P-05
#[test]
fn garbage_instead_of_a_hello_is_refused_by_its_first_bytes() {
    let tls: Vec<u8> =
        [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 32], &[32], &[0xa5; 32]].concat();
    let long = 64 * 1024 + 1;
    let cases: &[(&str, Vec<u8>, Error)] = &[
        ("HTTP", b"GET / HTTP/1.1\r\n".into(), InvalidMessage::UnknownContentType(b'G').into()),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".into(), InvalidMessage::UnknownContentType(83).into()),
        ("zeros", vec![0; 5], InvalidMessage::UnknownContentType(0).into()),
        ("TLS 1.3", tls, InvalidMessage::RecordVersion(0x0301).into()),
        ("old TLS", vec![22, 3, 0], InvalidMessage::RecordVersion(0x0300).into()),
        ("SSL 2", vec![0x80, 0x2e, 1], InvalidMessage::UnknownContentType(0x80).into()),
        ("CCS", record(20, &[1]), InvalidMessage::UnknownContentType(20).into()),
        ("heartbeat", record(24, &[1, 64, 0]), InvalidMessage::UnknownContentType(24).into()),
        ("data", record(23, b"data"), PeerMisbehaved::UnexpectedRecord("application_data").into()),
        ("no data", record(23, b""), PeerMisbehaved::UnexpectedRecord("application_data").into()),
        ("empty handshake", record(22, b""), InvalidMessage::RecordTooShort.into()),
        ("empty alert", record(21, b""), InvalidMessage::RecordTooShort.into()),
        ("half an alert", record(21, &[2]), InvalidMessage::Malformed("alert").into()),
        ("alert level", record(21, &[3, 40]), InvalidMessage::Malformed("alert").into()),
        ("two alerts", record(21, &[1, 0, 1, 0]), InvalidMessage::TrailingData("alert").into()),
        ("16385", record(22, &[1; 16385]), InvalidMessage::RecordTooLong(16385).into()),
        ("header of 16641", vec![22, 3, 3, 0x41, 1], InvalidMessage::RecordTooLong(16641).into()),
        ("type 0", record(22, &[0]), InvalidMessage::UnknownMessageType(0).into()),
        ("type 8", record(22, &[8, 0, 0, 1, 0]), InvalidMessage::UnknownMessageType(8).into()),
        ("type 255", record(22, &[255]), InvalidMessage::UnknownMessageType(255).into()),
        ("too long", record(22, &[1, 1, 0, 1]), {
            InvalidMessage::MessageTooLong { length: long, limit: long - 1 }.into()
        }),
        ("empty hello", record(22, &[1, 0, 0, 0]), InvalidMessage::Malformed("ClientHello").into()),
        ("empty", record(22, &[2, 0, 0, 0]), InvalidMessage::Malformed("ServerHello").into()),
        ("two", record(22, &[1, 0, 0, 1, 0, 1]), PeerMisbehaved::MisalignedMessage.into()),
        ("epoch", record(22, &[4, 0, 0, 1, 0]), InvalidMessage::Malformed("EpochKeyUpdate").into()),
        ("EpochKeyUpdate", record(22, &[4, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]), {
            PeerMisbehaved::UnexpectedMessage("EpochKeyUpdate").into()
        }),
        ("ConnectionUpdate", record(22, &[3, 0, 0, 1, 0]), {
            PeerMisbehaved::UnexpectedMessage("ConnectionUpdate").into()
        }),
        ("ResumptionRequest", record(22, &[5, 0, 0, 1, 0]), {
            InvalidMessage::Malformed("ResumptionRequest").into()
        }),
        ("ResumptionResponse", record(22, &[6, 0, 0, 1, 0]), {
            PeerMisbehaved::UnexpectedMessage("ResumptionResponse").into()
        }),
    ];
    for victim in BOTH {
        for (name, bytes, error) in cases {
            let mut pair = before_keys();
            pair.inject(victim, bytes);
            assert_eq!(pair.end(victim).error.as_ref(), Some(error), "{victim:?}: {name}");
            pair.assert_failed(victim, error.clone());
        }
    }
}

// 2P-05, CH-10: each end gets what the other should have got.
#[test]
fn a_hello_for_the_other_role_is_refused() {
    let hellos = [
        (Role::Initiator, TwoPartyMessage::ClientHello { key_package: vec![1] }),
        (Role::Responder, TwoPartyMessage::ServerHello { welcome: vec![1] }),
    ];
    for (victim, message) in hellos {
        let mut pair = before_keys();
        inject_plain(&mut pair, victim, &message);
        pair.assert_failed(victim, PeerMisbehaved::UnexpectedMessage(message.name()));
    }
    // A hello of its own, reflected.
    let identities = Identities::new();
    let mut pair = Pair::new(identities.client(), identities.server());
    let hello = pair.intercept(Role::Initiator);
    pair.inject(Role::Initiator, &hello);
    pair.assert_failed(Role::Initiator, PeerMisbehaved::UnexpectedMessage("ClientHello"));
}

// CH-10: whoever is told to stop stops, and says nothing.
#[test]
fn an_alert_instead_of_a_hello_ends_the_handshake() {
    for victim in BOTH {
        for description in [0, 10, 80, 90, 199] {
            let mut pair = before_keys();
            pair.inject(victim, &record(21, &[2, description]));
            let error = Error::AlertReceived(AlertDescription::from(description));
            assert_eq!(pair.end(victim).error, Some(error));
            assert!(pair.end(victim).out.is_empty());
        }
    }
}

// CH-10: random bytes, alone and behind headers that make the parsers look at them.
#[test]
fn random_bytes_never_make_a_connection() {
    let fronts: [&[u8]; 8] = [
        b"",
        &[22],
        &[21, 3, 3, 0, 2],
        &[22, 3, 3, 0, 100],
        &[22, 3, 3, 0, 104, 1, 0, 0, 100],
        &[22, 3, 3, 0, 104, 1, 0, 0, 100, 0, 1, 0, 5, 0, 1, 0, 1],
        &[22, 3, 3, 0, 104, 2, 0, 0, 100, 0, 1, 0, 3],
        &[22, 3, 3, 0, 104, 2, 0, 0, 100, 0, 1, 0, 3, 0, 1],
    ];
    let identities = Identities::new();
    for seed in 0..1000 {
        let mut rng = Rng(seed);
        let mut bytes = fronts[rng.below(fronts.len())].to_vec();
        let length = bytes.len() + rng.below(200);
        bytes.resize_with(length, || u8::try_from(rng.below(256)).unwrap());
        for victim in BOTH {
            let mut pair = Pair::new(identities.client(), identities.server());
            drop(pair.intercept(Role::Initiator));
            pair.inject(victim, &bytes);
            let end = pair.end(victim);
            assert!(end.events.is_empty(), "seed {seed}");
            let waiting = end.error.is_none();
            let error = end.connection.handle_eof().unwrap_err();
            match error {
                Error::Truncated => assert!(waiting),
                Error::InvalidMessage(_)
                | Error::PeerMisbehaved(_)
                | Error::PeerIncompatible(_)
                | Error::AlertReceived(_) => {}
                other => panic!("seed {seed}: {other}"),
            }
        }
    }
}

// CH-04, CH-10
#[test]
fn every_truncation_of_the_handshake_is_a_truncation() {
    let identities = Identities::new();
    let mut pair = Pair::new(identities.client(), identities.server());
    pair.drive();
    let now = pair.now;
    let sent = [pair.initiator.sent, pair.responder.sent];
    let config = |builder: Builder| Arc::new(builder.build().unwrap());
    let (client, server) = (config(identities.client()), config(identities.server()));
    let name = ServerName::new(SERVER_NAME).unwrap();
    for (victim, sent) in [Role::Responder, Role::Initiator].into_iter().zip(sent) {
        // The initiator's hello is followed by the confirmation, which is its last record.
        let whole = sent.len() - if victim == Role::Responder { 22 } else { 0 };
        for cut in 0..whole {
            let mut end = End::new(match victim {
                Role::Responder => Connection::responder(Arc::clone(&server), now),
                Role::Initiator => {
                    let out = &mut BytesMut::new();
                    Connection::initiator(Arc::clone(&client), name.clone(), now, out).unwrap()
                }
            });
            end.input.extend_from_slice(&sent[..cut]);
            end.process(now);
            assert_eq!((end.error, end.out.len()), (None, 0), "{victim:?} {cut}");
            assert_eq!(end.connection.handle_eof(), Err(Error::Truncated));
        }
    }
}

// 2P-03: a KeyPackage can be replayed, and the responder's answer is lost on the replayer.
#[test]
pub(super) fn a_replayed_hello_is_answered_but_never_confirmed() {
    let identities = Identities::new();
    let mut pair = Pair::connect(identities.client(), identities.server());
    pair.write(Role::Initiator, b"buy");
    pair.drive();
    assert_eq!(pair.responder.received, b"buy");
    let server = Arc::new(identities.server().build().unwrap());
    let mut fresh = End::new(Connection::responder(server, pair.now));
    let hello_len =
        5 + usize::from(u16::from_be_bytes([pair.initiator.sent[3], pair.initiator.sent[4]]));
    fresh.input.extend_from_slice(&pair.initiator.sent[..hello_len]);
    fresh.process(pair.now);
    assert_eq!(fresh.error, None);
    assert_eq!(fresh.out[0], 22, "the responder cannot know, and answers");
    fresh.out.clear();
    fresh.input.extend_from_slice(&pair.initiator.sent[hello_len..]);
    fresh.process(pair.now);
    assert_eq!(fresh.error, Some(PeerMisbehaved::BadRecordMac.into()));
    assert_eq!((fresh.events, fresh.received), (vec![], vec![]));
    // The alert is sealed: only who has the keys may learn why.
    assert_eq!(&fresh.out[..5], [23, 3, 3, 0, 19]);
}

/// What must become of a record of which the bit was flipped.
fn flipped(length: usize, bit: usize) -> Error {
    let mask = 1 << (bit % 8);
    let announced = match bit / 8 {
        0 => match 23 ^ mask {
            21 | 22 => return PeerMisbehaved::UnexpectedRecord("unprotected").into(),
            other => return InvalidMessage::UnknownContentType(other).into(),
        },
        1 => return InvalidMessage::RecordVersion(0x0303 ^ u16::from(mask) << 8).into(),
        2 => return InvalidMessage::RecordVersion(0x0303 ^ u16::from(mask)).into(),
        3 => length ^ usize::from(mask) << 8,
        4 => length ^ usize::from(mask),
        _ => return PeerMisbehaved::BadRecordMac.into(),
    };
    match announced {
        16641.. => InvalidMessage::RecordTooLong(announced).into(),
        ..17 => InvalidMessage::RecordTooShort.into(),
        shorter if shorter < length => PeerMisbehaved::BadRecordMac.into(),
        // The rest is awaited, and does not come.
        _ => Error::Truncated,
    }
}

// CH-10, TL-02
#[test]
pub(super) fn no_flipped_bit_of_a_record_goes_unnoticed() {
    for sending in BOTH {
        for bit in 0..(5 + 20 + 17) * 8 {
            let mut pair = Pair::connected();
            pair.write(sending, &[7; 20]);
            let mut bytes = pair.intercept(sending);
            assert_eq!(bytes.len(), 5 + 20 + 17);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let victim = sending.peer();
            pair.inject(victim, &bytes);
            assert!(pair.end(victim).received.is_empty());
            match flipped(20 + 17, bit) {
                Error::Truncated => {
                    let eof = pair.end(victim).connection.handle_eof();
                    assert_eq!(eof, Err(Error::Truncated), "bit {bit}");
                }
                error => {
                    assert_eq!(pair.end(victim).error.as_ref(), Some(&error), "bit {bit}");
                    pair.assert_failed(victim, error);
                }
            }
        }
    }
}

// CH-10: replayed, left out, out of order, sent back.
#[test]
pub(super) fn records_in_another_order_are_refused() {
    for sending in BOTH {
        for order in [&[0, 0][..], &[1], &[1, 0], &[0, 2]] {
            let mut pair = Pair::connected();
            let records = [b"0", b"1", b"2"].map(|data| {
                pair.write(sending, data);
                pair.intercept(sending)
            });
            for &index in order {
                pair.inject(sending.peer(), &records[index]);
            }
            pair.assert_failed(sending.peer(), PeerMisbehaved::BadRecordMac);
        }
        let mut pair = Pair::connected();
        pair.write(sending, b"reflected");
        let bytes = pair.intercept(sending);
        pair.inject(sending.peer(), &bytes);
        pair.inject(sending, &bytes);
        pair.assert_failed(sending, PeerMisbehaved::BadRecordMac);
    }
}

// CH-10, TL-02: a peer with the right keys and the wrong content.
#[test]
pub(super) fn sealed_records_of_wrong_shape_are_refused() {
    let padded = |content: &[u8], zeros: usize| [content, &vec![0; zeros]].concat();
    let cases: &[(&str, Vec<u8>, Error)] = &[
        ("only padding", vec![0; 9], InvalidMessage::MissingContentType.into()),
        ("CCS", vec![1, 20], InvalidMessage::UnknownContentType(20).into()),
        ("type 24", vec![1, 24], InvalidMessage::UnknownContentType(24).into()),
        ("type 255", padded(&[1, 255], 3), InvalidMessage::UnknownContentType(255).into()),
        ("empty handshake", vec![22], InvalidMessage::RecordTooShort.into()),
        ("padded empty handshake", padded(&[22], 9), InvalidMessage::RecordTooShort.into()),
        ("empty alert", vec![21], InvalidMessage::RecordTooShort.into()),
        ("two alerts", vec![1, 0, 1, 0, 21], InvalidMessage::TrailingData("alert").into()),
        ("alert level", vec![9, 0, 21], InvalidMessage::Malformed("alert").into()),
        ("16385 bytes", padded(&[23], 16385), InvalidMessage::RecordTooLong(16386).into()),
        ("16624 bytes", padded(&[1, 23], 16622), InvalidMessage::RecordTooLong(16624).into()),
        ("type 0", vec![0, 0, 0, 1, 0, 22], InvalidMessage::UnknownMessageType(0).into()),
        ("type 8", vec![8, 22], InvalidMessage::UnknownMessageType(8).into()),
        ("long message", vec![3, 1, 0, 1, 22], {
            InvalidMessage::MessageTooLong { length: 65537, limit: 65536 }.into()
        }),
        ("no commit", vec![3, 0, 0, 0, 22], InvalidMessage::Malformed("ConnectionUpdate").into()),
        ("no epoch", vec![4, 0, 0, 0, 22], InvalidMessage::Malformed("EpochKeyUpdate").into()),
        ("short epoch", vec![4, 0, 0, 7, 0, 0, 0, 0, 0, 0, 2, 22], {
            InvalidMessage::Malformed("EpochKeyUpdate").into()
        }),
        ("long epoch", vec![4, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 22], {
            InvalidMessage::TrailingData("EpochKeyUpdate").into()
        }),
    ];
    for role in BOTH {
        for (name, inner, error) in cases {
            let mut pair = Pair::connected();
            let bytes = Sealer::new(&mut pair, role).seal(inner);
            pair.inject(role.peer(), &bytes);
            assert_eq!(pair.end(role.peer()).error.as_ref(), Some(error), "{role:?}: {name}");
            pair.assert_failed(role.peer(), error.clone());
        }
        // A plaintext record, and one that is too short to be sealed.
        for (bytes, error) in [
            (record(22, &[3, 0, 0, 1, 0]), PeerMisbehaved::UnexpectedRecord("unprotected").into()),
            (record(21, &[2, 80]), PeerMisbehaved::UnexpectedRecord("unprotected").into()),
            (record(23, &[0; 16]), Error::from(InvalidMessage::RecordTooShort)),
            (record(23, b""), InvalidMessage::RecordTooShort.into()),
            (vec![23, 3, 3, 0x41, 1], InvalidMessage::RecordTooLong(16641).into()),
        ] {
            for closed in [false, true] {
                let mut pair = Pair::connected();
                if closed {
                    pair.close(role);
                    pair.deliver(role);
                    pair.end(role.peer()).expect(Event::PeerClosed);
                }
                pair.inject(role.peer(), &bytes);
                pair.assert_failed(role.peer(), error.clone());
            }
        }
    }
}

// TL-02: padding is nobody's business, up to the limit.
#[test]
fn padded_records_are_accepted() {
    for role in BOTH {
        let mut pair = Pair::connected();
        let mut sealer = Sealer::new(&mut pair, role);
        let full = vec![8; MAX_PLAINTEXT];
        let inner = [&full[..], &[23]].concat();
        for inner in [
            vec![b'a', 23],
            vec![b'b', 23, 0, 0, 0],
            [&[b'c', 23][..], &[0; MAX_PLAINTEXT - 1]].concat(),
            vec![0, 0, 23, 0],
            inner,
            vec![23, 0, 0],
            vec![1, 0, 21, 0, 0, 0, 0],
        ] {
            let bytes = sealer.seal(&inner);
            pair.inject(role.peer(), &bytes);
        }
        let end = pair.end(role.peer());
        assert_eq!(end.error, None);
        assert_eq!(end.received, [&b"abc\0\0"[..], &full].concat());
        end.expect(Event::PeerClosed);
    }
}

// TL-07: the hello spans two records, and works if the responder allows it to be that long.
#[test]
fn a_hello_larger_than_a_record_works_under_the_cap() {
    let identities = Identities::new();
    let protocols = (0..64_u8).map(|number| vec![number + 1; 255]);
    let client = identities.client().alpn_protocols(protocols);
    let mut pair = Pair::connect(client.clone(), identities.server());
    let second = 5 + MAX_PLAINTEXT;
    assert_eq!(pair.initiator.sent[..5], [22, 3, 3, 0x40, 0]);
    assert_eq!(pair.initiator.sent[second], 22);
    pair.assert_works();

    let limits = Limits::default().with_max_message_size(16 * 1024);
    let mut pair = Pair::new(client, identities.server().limits(limits));
    let hello = pair.intercept(Role::Initiator);
    let length = usize::from(u16::from_be_bytes([hello[7], hello[8]]));
    // The four bytes that announce it are enough: nothing of it has to be kept.
    pair.inject(Role::Responder, &record(22, &hello[5..9]));
    let error = InvalidMessage::MessageTooLong { length, limit: 16 * 1024 };
    pair.assert_failed(Role::Responder, error);
}

// TL-05, TL-07: bit by bit and cut by cut, an EpochKeyUpdate inside of a sealed record.
#[test]
fn an_epoch_key_update_survives_no_change() {
    for role in BOTH {
        let message = TwoPartyMessage::EpochKeyUpdate { epoch: 2 }.encode().unwrap();
        for bit in 0..message.len() * 8 {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut pair = Pair::connected();
            pair.rekey(role);
            drop(pair.intercept(role));
            seal(&mut pair, role.peer(), ContentType::Handshake, &changed);
            pair.deliver(role.peer());
            let end = pair.end(role);
            assert_eq!(end.epoch_or_none(), end.error.is_none().then_some(1), "bit {bit}");
            // A longer message, or another one: the update is not confirmed, and the end is not
            // clean.
            end.connection.handle_eof().unwrap_err();
        }
        for length in 0..message.len() {
            let mut cut = message[..length].to_vec();
            if length >= 4 {
                cut[3] = u8::try_from(length - 4).unwrap();
            }
            let mut pair = Pair::connected();
            pair.rekey(role);
            drop(pair.intercept(role));
            if length > 0 {
                seal(&mut pair, role.peer(), ContentType::Handshake, &cut);
            }
            pair.deliver(role.peer());
            let expected =
                (length >= 4).then(|| InvalidMessage::Malformed("EpochKeyUpdate").into());
            assert_eq!(pair.end(role).error, expected);
        }
    }
}

impl End {
    fn epoch_or_none(&self) -> Option<u64> {
        self.connection.statistics().map(|statistics| statistics.epoch)
    }
}
