//! What the targets in `fuzz/` run on the bytes of the fuzzer. Compiled with `--cfg fuzzing`, and for tests.
//!
//! Every function panics if something that must always hold does not. Keys are fresh in each run
//! of the process, so bytes of the fuzzer alone would hardly ever pass a signature or an AEAD.
//! Where that matters, the input says how a genuine message is to be edited: see [`Input`].

mod connection;
mod dmls;
mod insider;
#[cfg(feature = "tokio")]
mod legs;
mod resumption;
mod seeds;

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use bytes::BytesMut;

#[cfg(feature = "tokio")]
pub use self::legs::legs;
pub use self::{
    connection::{connection_established, connection_initiator, connection_responder},
    dmls::dmls,
    insider::connection_insider,
    resumption::resumption,
    seeds::seeds,
};
use crate::{
    CipherSuite, Config, Identity, Limits, PinnedKeys, PublicKey, RekeyPolicy, ServerName,
    auth::{self, Authenticated, AuthenticationRequest, Purpose, Role},
    error::InvalidMessage,
    group::{Claim, Group, Hello, Offer, Retention, StagedUpdate},
    wire::{
        Alert, ENVELOPE_LEN, GroupParameters, HEADER_LEN, InitiatorParameters, MAX_PLAINTEXT,
        MessageAssembler, RawMessage, Record, RecordHeader, TwoPartyMessage, TwoPartyMessageType,
    },
};

const SERVER_NAME: &str = "server.example";
const CLIENT_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIGNjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj\n\
    -----END PRIVATE KEY-----\n";
const SERVER_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIHNzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nz\n\
    -----END PRIVATE KEY-----\n";

/// No edit makes a message longer than this.
const MAX_EDITED: usize = 1 << 16;

static CLIENT: LazyLock<Arc<Config>> = LazyLock::new(|| config("client", CLIENT_PEM, SERVER_PEM));
static SERVER: LazyLock<Arc<Config>> =
    LazyLock::new(|| config(SERVER_NAME, SERVER_PEM, CLIENT_PEM));

/// Valid for an hour: a process that fuzzes for longer sees it refused.
static CLIENT_HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| offer().1);

/// Splitting of a stream into records.
pub fn record(data: &[u8]) {
    let mut input = BytesMut::from(data);
    let mut rest = data;
    loop {
        let needed = Record::needed(&input);
        match Record::split_from(&mut input) {
            Ok(Some(record)) => {
                assert_eq!(needed, 0);
                let (taken, left) = rest.split_at(HEADER_LEN + record.payload().len());
                assert_eq!([&record.header()[..], record.payload()].concat(), taken);
                assert_eq!(input, left);
                let _ = record.check_plaintext();
                let again = Record::new(record.content_type(), record.payload().into());
                assert_eq!(again, Ok(record));
                rest = left;
            }
            Ok(None) => return assert!(needed > 0),
            Err(_) => {
                assert_eq!((needed, &input[..]), (0, rest));
                if let Some(header) = rest.first_chunk() {
                    assert!(RecordHeader::decode(header).is_err());
                }
                return;
            }
        }
    }
}

/// Decoding of an alert.
pub fn alert(data: &[u8]) {
    if let Ok(alert) = Alert::decode(data) {
        assert_eq!(alert.encode(), data);
        assert!(!alert.description.to_string().is_empty());
    }
}

/// Assembly of messages. The input is a list of fragments, each behind its length.
pub fn envelope(data: &[u8]) {
    let mut input = Input::new(data);
    let mut fragments = Vec::new();
    while !input.is_empty() {
        let length = input.number();
        fragments.push(input.bytes(length));
    }
    let result = assemble(fragments.iter().copied());
    if fragments.iter().all(|fragment| (1..=MAX_PLAINTEXT).contains(&fragment.len())) {
        // How the bytes are cut into records decides nothing.
        assert_eq!(assemble(fragments.concat().chunks(MAX_PLAINTEXT)), result);
        assert_eq!(assemble(fragments.concat().chunks(1)), result);
    }
}

fn assemble<'a>(
    fragments: impl Iterator<Item = &'a [u8]>,
) -> (Vec<RawMessage>, Result<(), InvalidMessage>) {
    const LIMIT: usize = 1024;
    let mut assembler = MessageAssembler::new(LIMIT);
    let mut messages = Vec::new();
    let mut held = 0;
    let mut push = |fragment: &[u8]| {
        assembler.push(fragment)?;
        held += fragment.len();
        while let Some(message) = assembler.next()? {
            held -= message.encoded().len();
            messages.push(message);
        }
        assert!(held <= LIMIT + ENVELOPE_LEN);
        assert_eq!(held == 0, assembler.is_empty());
        Ok(())
    };
    let mut result = Ok(());
    for fragment in fragments {
        result = result.and_then(|()| push(fragment));
    }
    (messages, result)
}

/// Decoding of a message. The input is a type and a body.
pub fn message(data: &[u8]) {
    let Some((&number, body)) = data.split_first() else { return };
    let Ok(message_type) = TwoPartyMessageType::try_from(number) else { return };
    if let Ok(message) = TwoPartyMessage::decode(message_type, body) {
        assert_eq!(message.message_type(), message_type);
        let encoded = message.encode().expect("what was decoded encodes");
        assert_eq!((encoded[0], &encoded[ENVELOPE_LEN..]), (number, body));
        assert!(!format!("{message:?}").is_empty());
    }
}

/// Decoding of the transport parameters of both kinds.
pub fn parameters(data: &[u8]) {
    if let Ok(parameters) = InitiatorParameters::decode(data) {
        assert_eq!(parameters.encode().as_deref(), Ok(data));
        assert_eq!(parameters.server_name().is_none(), parameters.server_name.is_empty());
    }
    if let Ok(parameters) = GroupParameters::decode(data) {
        assert_eq!(parameters.encode().as_deref(), Ok(data));
    }
}

/// Everything that is read from text: pinned keys, keys, names, PEM.
pub fn text(data: &[u8]) {
    if let Ok(key) = PublicKey::from_bytes(data) {
        assert_eq!(PublicKey::from_base64(&key.to_base64()), Ok(key));
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(keys) = PinnedKeys::parse(text) {
        assert_eq!(PinnedKeys::parse(&keys.to_string()), Ok(keys));
    }
    if let Ok(key) = PublicKey::from_base64(text) {
        assert_eq!(PublicKey::from_base64(&key.to_base64()), Ok(key));
    }
    if let Ok(name) = ServerName::new(text) {
        assert_eq!(ServerName::new(name.as_str()), Ok(name));
    }
    if let Ok(identity) = Identity::from_pkcs8_pem("a", text) {
        let pem = identity.to_pkcs8_pem().expect("a key that was read can be written");
        let again = Identity::from_pkcs8_pem("a", &pem).expect("a key that was written reads");
        assert_eq!(again.public_key(), identity.public_key());
    }
    if let Ok(identity) = Identity::from_pkcs8_pem(text, CLIENT_PEM) {
        let keys = PinnedKeys::parse(&identity.public_line()).expect("a line of its own parses");
        assert!(keys.contains(text, identity.public_key()));
    }
}

/// Parsing and verification of a KeyPackage.
pub fn key_package(data: &[u8]) {
    let genuine = &CLIENT_HELLO[ENVELOPE_LEN..];
    let mut input = Input::new(data);
    let (message, edited) = input.message(|| genuine.to_vec());
    let result = Hello::parse(&SERVER.crypto, CipherSuite::ALL, &message, SystemTime::now());
    if edited && message != genuine {
        assert!(result.is_err(), "a changed KeyPackage verified");
    }
}

/// Opening of a Welcome.
pub fn welcome(data: &[u8]) {
    let (offer, hello) = offer();
    let mut genuine = Vec::new();
    let mut input = Input::new(data);
    let (message, edited) = input.message(|| {
        genuine = answer(&hello).1;
        genuine.clone()
    });
    match offer.open_welcome(&message, &hash(&hello)) {
        // The list of recipients is not authenticated, so another Welcome may open, too.
        Ok(joined) => {
            assert_eq!(joined.claim().presented().to_name(), Ok(SERVER_NAME));
            assert!(joined.join(&authenticated_server()).is_ok());
        }
        Err(error) => assert!(!edited || message != genuine, "{error}"),
    }
}

/// Verification and application of an update.
pub fn update(data: &[u8]) {
    let mut input = Input::new(data);
    let (initiator, responder) = groups();
    let (mut sender, mut receiver) =
        if input.flag() { (initiator, responder) } else { (responder, initiator) };
    let genuine = sender.start_update().expect("an update");
    let (message, _) = input.message(|| genuine.clone());
    let epoch = receiver.epoch();
    match receiver.receive_update(&message) {
        Ok(StagedUpdate::SameCredential(update)) => {
            assert_eq!(message, genuine, "a changed update verified");
            receiver.apply(update).expect("a verified update applies");
            sender.merge_update().expect("a pending update merges");
            assert_eq!((sender.epoch(), receiver.epoch()), (epoch + 1, epoch + 1));
            let export = |group: &Group| group.export("fuzz", &[], 32);
            assert_eq!(export(&sender), export(&receiver));
        }
        Ok(StagedUpdate::NewCredential(_)) => panic!("a changed update verified"),
        Err(error) => {
            assert_ne!(message, genuine, "{error}");
            assert_eq!(receiver.epoch(), epoch);
        }
    }
}

/// Reads the bytes of the fuzzer from front to back. What is not there reads as zero.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below 2^16.
    fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// At most `length` bytes.
    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A message, to the end of the input: either the bytes that are there, or the genuine
    /// message with edits, and then `true`.
    fn message(&mut self, genuine: impl FnOnce() -> Vec<u8>) -> (Vec<u8>, bool) {
        let edited = self.flag();
        if !edited {
            return (self.bytes(usize::MAX).to_vec(), false);
        }
        let mut message = genuine();
        while !self.is_empty() {
            self.edit(&mut message);
        }
        (message, true)
    }

    /// As [`Input::message`], but only a part of the input: its length is a byte in front.
    fn part(&mut self, genuine: impl FnOnce() -> Vec<u8>) -> (Vec<u8>, bool) {
        let length = usize::from(self.byte());
        Input(self.bytes(length)).message(genuine)
    }

    /// Makes one edit.
    fn edit(&mut self, message: &mut Vec<u8>) {
        let operation = self.byte() % 5;
        let start = self.number() % (message.len() + 1);
        let end = |length: usize| (start + length).min(message.len());
        match operation {
            0 => {
                let change = self.byte();
                if let Some(byte) = message.get_mut(start) {
                    *byte ^= change;
                }
            }
            1 => {
                let length = usize::from(self.byte());
                message.splice(start..start, self.bytes(length).iter().copied());
            }
            2 => drop(message.drain(start..end(self.number()))),
            3 => message.extend_from_within(start..end(self.number())),
            _ => message.truncate(start),
        }
        message.truncate(MAX_EDITED);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn config(name: &str, own: &str, peer: &str) -> Arc<Config> {
    let identity = |name, pem| Identity::from_pkcs8_pem(name, pem).expect("the keys are fixed");
    let peer_name = if name == SERVER_NAME { "client" } else { SERVER_NAME };
    let pinned = PinnedKeys::parse(&identity(peer_name, peer).public_line()).expect("one line");
    let policy = RekeyPolicy::manual()
        .with_bytes(10_000)
        .with_records(50)
        .with_interval(Duration::from_secs(5));
    let config = Config::builder()
        .identity(identity(name, own))
        .authentication_service(pinned)
        .rekey_policy(policy)
        .limits(Limits::default().with_max_updates_without_data(1000))
        .build();
    Arc::new(config.expect("the values are in range"))
}

fn authenticate(config: &Config, claim: &Claim, role: Role) -> Authenticated {
    let request = AuthenticationRequest::new(
        claim.presented(),
        role,
        None,
        Purpose::Handshake,
        SystemTime::now(),
    );
    auth::validate(&*config.authentication_service, &request).expect("the key is pinned")
}

fn authenticated_server() -> Authenticated {
    let (offer, hello) = offer();
    let (_, welcome) = answer(&hello);
    let joined = offer.open_welcome(&welcome, &hash(&hello)).expect("a genuine Welcome");
    authenticate(&CLIENT, joined.claim(), Role::Responder)
}

fn hash(hello: &[u8]) -> Vec<u8> {
    CLIENT.crypto.hash(CipherSuite::ALL[0], hello).expect("a hash")
}

/// The client's offer, and its ClientHello in the envelope.
fn offer() -> (Offer, Vec<u8>) {
    let parameters = InitiatorParameters {
        cipher_suites: CipherSuite::ALL.iter().map(|suite| suite.id()).collect(),
        alpn: vec![b"h2".to_vec()],
        server_name: SERVER_NAME.into(),
        max_message_size: CLIENT.limits.max_message_size,
    };
    let suite = CipherSuite::ALL[0];
    let offer = Offer::new(
        &CLIENT.crypto,
        suite,
        &CLIENT.identity,
        parameters,
        Retention::Keys,
        SystemTime::now(),
    )
    .expect("an offer");
    let hello = TwoPartyMessage::ClientHello { key_package: offer.message().to_vec() };
    (offer, hello.encode().expect("a short message"))
}

/// The server's group, and its Welcome.
fn answer(hello: &[u8]) -> (Group, Vec<u8>) {
    let now = SystemTime::now();
    let parameters = GroupParameters {
        client_hello_hash: hash(hello),
        alpn: Vec::new(),
        max_message_size: SERVER.limits.max_message_size,
    };
    let hello = Hello::parse(&SERVER.crypto, CipherSuite::ALL, &hello[ENVELOPE_LEN..], now)
        .expect("a genuine hello");
    let initiator = authenticate(&SERVER, hello.claim(), Role::Initiator);
    hello
        .answer(&initiator, &SERVER.crypto, &SERVER.identity, &parameters, Retention::Keys, now)
        .expect("a genuine hello can be answered")
}

/// The client's group.
fn join(offer: Offer, hello: &[u8], welcome: &[u8]) -> Group {
    let joined = offer.open_welcome(welcome, &hash(hello)).expect("a genuine Welcome");
    let responder = authenticate(&CLIENT, joined.claim(), Role::Responder);
    joined.join(&responder).expect("a genuine group")
}

/// The groups of an initiator and a responder.
fn groups() -> (Group, Group) {
    let (offer, hello) = offer();
    let (responder, welcome) = answer(&hello);
    (join(offer, &hello, &welcome), responder)
}
