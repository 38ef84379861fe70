//! A peer that has the keys and keeps no rules.

use std::time::Duration;

use bytes::BytesMut;

use super::{Input, answer, connection::End, join, offer};
use crate::{
    Time,
    auth::Role,
    crypto::AeadKey,
    group::{Group, StagedUpdate},
    record::{ReceivePath, RecordKey},
    wire::{
        ContentType, ENVELOPE_LEN, HEADER_LEN, MAX_CIPHERTEXT, MAX_PLAINTEXT, MessageAssembler,
        Record, RecordHeader, TAG_LEN, TwoPartyMessage, encode_plaintext,
    },
};

const CONTENT_TYPES: [ContentType; 3] =
    [ContentType::ApplicationData, ContentType::Handshake, ContentType::Alert];

/// A connection in either role, whose peer seals what the input says with the genuine keys.
pub fn connection_insider(data: &[u8]) {
    let mut input = Input::new(data);
    let role = if input.flag() { Role::Initiator } else { Role::Responder };
    let mut now = Time::now();
    let (mut insider, mut victim) = Insider::connect(role, now);
    while !input.is_empty() {
        match input.byte() % 16 {
            0 => {
                let data = vec![1; input.number() % 4096];
                victim.write(&data);
            }
            1 => victim.rekey(),
            2 => victim.close(),
            3 => {
                now = now.after(Duration::from_millis(input.number() as u64));
                victim.handle_timeout(now);
            }
            operation => {
                let mut stream = std::mem::take(&mut insider.owed);
                stream.extend(insider.act(operation, &mut input));
                victim.receive(now, &stream);
            }
        }
        insider.read(&mut victim.out);
    }
    victim.assert_sticky(now);
}

/// The peer: a genuine group, and keys of its own making.
struct Insider {
    group: Group,
    role: Role,
    seal: SealKey,
    open: ReceivePath,
    assembler: MessageAssembler,
    /// The victim's update, not answered yet.
    update: Option<Vec<u8>>,
    /// The epoch to which the victim has still to switch.
    expected: Option<u64>,
    /// It has sent an EpochKeyUpdate that may not be true.
    lied: bool,
    /// Sealed, to be sent before anything else: the switch to the epoch of an update of its own.
    owed: Vec<u8>,
    /// The last update of its own, to be repeated.
    sent: Vec<u8>,
}

impl Insider {
    fn connect(role: Role, now: Time) -> (Self, End) {
        let mut stream = BytesMut::new();
        let (group, mut victim) = match role {
            Role::Initiator => {
                let mut victim = End::responder(now);
                let (offer, hello) = offer();
                encode_plaintext(ContentType::Handshake, &hello, &mut stream);
                victim.receive(now, &stream);
                let welcome = plaintext(&mut victim.out);
                (join(offer, &hello, &welcome[ENVELOPE_LEN..]), victim)
            }
            Role::Responder => {
                let mut victim = End::initiator(now);
                let (group, welcome) = answer(&plaintext(&mut victim.out));
                let hello = TwoPartyMessage::ServerHello { welcome };
                let hello = hello.encode().expect("a short message");
                encode_plaintext(ContentType::Handshake, &hello, &mut stream);
                victim.receive(now, &stream);
                (group, victim)
            }
        };
        let mut insider = Self {
            seal: SealKey::new(&group, role),
            open: ReceivePath::new(receive_key(&group, role)),
            group,
            role,
            assembler: MessageAssembler::new(1 << 16),
            update: None,
            expected: None,
            lied: false,
            owed: Vec::new(),
            sent: Vec::new(),
        };
        let confirmation = insider.seal.record(&[ContentType::ApplicationData.into()]);
        victim.receive(now, &confirmation);
        assert!(victim.established);
        insider.read(&mut victim.out);
        (insider, victim)
    }

    /// What the insider sends next.
    fn act(&mut self, operation: u8, input: &mut Input<'_>) -> Vec<u8> {
        let length = usize::from(input.byte());
        match operation {
            // A plaintext with whatever type and padding the input gives it.
            4 | 5 => self.seal.record(input.bytes(length)),
            6 | 7 => {
                let mut inner = input.bytes(length).to_vec();
                inner.push(CONTENT_TYPES[inner.len() % 3].into());
                inner.resize(inner.len() + usize::from(input.byte()), 0);
                self.seal.record(&inner)
            }
            // A record as long as any, or longer.
            8 => {
                let length = input.number() % (MAX_CIPHERTEXT - TAG_LEN);
                let mut inner = vec![1; length];
                inner.push(CONTENT_TYPES[length % 3].into());
                self.seal.record(&inner)
            }
            9 => {
                let body = input.bytes(length);
                let announced = u16::from(input.byte()) + u16::try_from(body.len()).unwrap_or(0);
                let [high, low] = announced.to_be_bytes();
                let message = [&[input.byte() % 8, 0, high, low], body].concat();
                self.seal.message(&message, usize::from(input.byte()))
            }
            // An update, edited or not.
            10 | 11 => {
                let _ = self.group.drop_update();
                let Ok(mut commit) = self.group.start_update() else { return Vec::new() };
                for _ in 0..length % 4 {
                    input.edit(&mut commit);
                }
                self.sent = encode(&TwoPartyMessage::ConnectionUpdate { commit });
                self.seal.message(&self.sent, usize::from(input.byte()) * 16)
            }
            12 => self.seal.message(&self.sent, 0),
            13 => {
                self.lied = true;
                let epoch = self.group.epoch().wrapping_add(length as u64);
                self.seal.message(&encode(&TwoPartyMessage::EpochKeyUpdate { epoch }), 0)
            }
            14 => self.answer_update(),
            _ => input.bytes(length).to_vec(),
        }
    }

    /// Answers the victim's update as one should.
    fn answer_update(&mut self) -> Vec<u8> {
        let _ = self.group.drop_update();
        let Some(commit) = self.update.take() else { return Vec::new() };
        let Ok(StagedUpdate::SameCredential(update)) = self.group.receive_update(&commit) else {
            return Vec::new();
        };
        self.group.apply(update).expect("a verified update applies");
        let answer = TwoPartyMessage::EpochKeyUpdate { epoch: self.group.epoch() };
        let sealed = self.seal.message(&encode(&answer), 0);
        self.seal = SealKey::new(&self.group, self.role);
        self.open.expect(receive_key(&self.group, self.role));
        self.expected = Some(self.group.epoch());
        sealed
    }

    /// Reads what the victim sent, and follows it as far as it goes.
    fn read(&mut self, out: &mut BytesMut) {
        while let Ok(Some(record)) = Record::split_from(out) {
            let Ok(opened) = self.open.open(record) else { return out.clear() };
            if opened.content_type != ContentType::Handshake {
                continue;
            }
            self.assembler.push(&opened.content).expect("the victim keeps the rules");
            let Some(message) = self.assembler.next().expect("the victim keeps the rules") else {
                continue;
            };
            match message.decode().expect("the victim keeps the rules") {
                TwoPartyMessage::ConnectionUpdate { commit } => self.update = Some(commit),
                TwoPartyMessage::EpochKeyUpdate { epoch } if self.expected == Some(epoch) => {
                    self.expected = None;
                    self.open.switch_to_expected();
                }
                TwoPartyMessage::EpochKeyUpdate { epoch }
                    if self.group.pending_epoch() != Some(epoch) =>
                {
                    // The victim has believed that its update was applied, and is lost to both.
                    assert!(self.lied, "an answer to nothing");
                    return out.clear();
                }
                TwoPartyMessage::EpochKeyUpdate { epoch } => {
                    self.group.merge_update().expect("a pending update merges");
                    self.update = None;
                    let switch = encode(&TwoPartyMessage::EpochKeyUpdate { epoch });
                    self.owed = self.seal.message(&switch, 0);
                    self.seal = SealKey::new(&self.group, self.role);
                    self.open.switch(receive_key(&self.group, self.role));
                }
                other => panic!("the victim sent {other:?}"),
            }
        }
    }
}

/// A key that seals anything at all.
struct SealKey {
    aead: AeadKey,
    iv: [u8; 12],
    sequence_number: u64,
}

impl SealKey {
    /// Derived here once more, and not by the code under test.
    fn new(group: &Group, role: Role) -> Self {
        let (crypto, suite) = (group.crypto(), group.suite());
        let label = match role {
            Role::Initiator => "MLS-TLS c ap traffic",
            Role::Responder => "MLS-TLS s ap traffic",
        };
        let secret = group.export(label, &[], suite.hash_len()).expect("the exporter");
        let mut key = vec![0; suite.aead().key_len()];
        let mut iv = [0; 12];
        crypto.expand_label(suite, &secret, "key", &[], &mut key).expect("a key");
        crypto.expand_label(suite, &secret, "iv", &[], &mut iv).expect("an IV");
        let aead = crypto.aead_key(suite.aead(), &key).expect("a key");
        Self { aead, iv, sequence_number: 0 }
    }

    fn record(&mut self, inner: &[u8]) -> Vec<u8> {
        let length = inner.len() + TAG_LEN;
        let header = RecordHeader { content_type: ContentType::ApplicationData, length }.encode();
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence_number.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence_number += 1;
        let mut record = [&header[..], inner].concat();
        let tag = self.aead.seal_in_place(nonce, &header, &mut record[HEADER_LEN..]);
        record.extend_from_slice(&tag.expect("sealing"));
        record
    }

    /// A message in fragments of `size` bytes; 0: of full size.
    fn message(&mut self, message: &[u8], size: usize) -> Vec<u8> {
        let size = if size == 0 { MAX_PLAINTEXT } else { size };
        let mut records = Vec::new();
        for fragment in message.chunks(size) {
            let inner = [fragment, &[ContentType::Handshake.into()]].concat();
            records.extend_from_slice(&self.record(&inner));
        }
        records
    }
}

fn receive_key(group: &Group, role: Role) -> RecordKey {
    let secrets = group.traffic_secrets().expect("the exporter");
    let secret = match role {
        Role::Initiator => secrets.server,
        Role::Responder => secrets.client,
    };
    RecordKey::derive(group.crypto(), group.suite(), secret).expect("a key")
}

/// The content of the one record in the clear that is there.
fn plaintext(out: &mut BytesMut) -> Vec<u8> {
    let record = Record::split_from(out).expect("a record").expect("a whole record");
    record.into_payload().to_vec()
}

fn encode(message: &TwoPartyMessage) -> Vec<u8> {
    // An edit can leave nothing of a commit.
    message.encode().unwrap_or_default()
}
