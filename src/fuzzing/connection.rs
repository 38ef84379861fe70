//! Connections over a link that does what the fuzzer wants.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;

use super::{CLIENT, CLIENT_HELLO, Input, SERVER, SERVER_NAME};
use crate::{
    Config, Connection, Error, Event, ServerName, Time,
    auth::Role,
    wire::{ContentType, HEADER_LEN, MAX_CIPHERTEXT, Record, encode_plaintext},
};

/// Application bytes that one end writes at most.
const MAX_WRITTEN: usize = 1 << 18;

/// A responder before the handshake. The input says how its stream is cut, and what is in it.
pub fn connection_responder(data: &[u8]) {
    let mut input = Input::new(data);
    let size = usize::from(input.byte());
    let (stream, _) = input.message(|| {
        let mut record = BytesMut::new();
        encode_plaintext(ContentType::Handshake, &CLIENT_HELLO, &mut record);
        record.to_vec()
    });
    let now = Time::now();
    let mut whole = End::responder(now);
    whole.receive_all(now, &stream, stream.len());
    // Nobody but the client can confirm the keys.
    assert!(!whole.established);
    if size > 0 {
        let mut cut = End::responder(now);
        cut.receive_all(now, &stream, size);
        // How the bytes arrive decides nothing.
        assert_eq!(cut.error, whole.error);
    }
}

/// An initiator before the handshake; as above.
pub fn connection_initiator(data: &[u8]) {
    let mut input = Input::new(data);
    let size = usize::from(input.byte());
    let now = Time::now();
    let mut initiator = End::initiator(now);
    let mut genuine = Vec::new();
    let (stream, edited) = input.message(|| {
        let mut responder = End::responder(now);
        responder.receive(now, &initiator.out);
        genuine = responder.out.to_vec();
        genuine.clone()
    });
    initiator.receive_all(now, &stream, size);
    if edited && stream.starts_with(&genuine) {
        assert!(initiator.established, "{:?}", initiator.error);
    } else {
        assert!(edited || !initiator.established);
    }
}

/// Two ends that have shaken hands. The input says what the applications do, and what the link.
pub fn connection_established(data: &[u8]) {
    let mut input = Input::new(data);
    let mut link = Link::connected();
    while !input.is_empty() {
        link.step(&mut input);
    }
    link.settle();
}

/// A connection, and what must be true of every one.
pub(super) struct End {
    pub(super) connection: Connection,
    /// Sent, and still on the way.
    pub(super) out: BytesMut,
    input: BytesMut,
    written: Vec<u8>,
    received: Vec<u8>,
    pub(super) established: bool,
    early_data: bool,
    epoch: u64,
    peer_closed: bool,
    error: Option<Error>,
}

impl End {
    pub(super) fn initiator(now: Time) -> Self {
        Self::initiate(CLIENT.clone(), None, now)
    }

    pub(super) fn responder(now: Time) -> Self {
        Self::respond(SERVER.clone(), now)
    }

    pub(super) fn initiate(config: Arc<Config>, early_data: Option<&[u8]>, now: Time) -> Self {
        let mut out = BytesMut::new();
        let name = ServerName::new(SERVER_NAME).expect("a name");
        let connection = match early_data {
            Some(data) => Connection::initiator_with_early_data(config, name, data, now, &mut out),
            None => Connection::initiator(config, name, now, &mut out),
        };
        Self::new(connection.expect("an offer"), out)
    }

    pub(super) fn respond(config: Arc<Config>, now: Time) -> Self {
        Self::new(Connection::responder(config, now), BytesMut::new())
    }

    fn new(connection: Connection, out: BytesMut) -> Self {
        Self {
            connection,
            out,
            input: BytesMut::new(),
            written: Vec::new(),
            received: Vec::new(),
            established: false,
            early_data: false,
            epoch: 1,
            peer_closed: false,
            error: None,
        }
    }

    /// A whole stream, in pieces of `size` bytes, and its end.
    fn receive_all(&mut self, now: Time, stream: &[u8], size: usize) {
        let size = if size == 0 { stream.len() } else { size };
        for piece in stream.chunks(size.max(1)) {
            self.receive(now, piece);
        }
        let result = self.connection.handle_eof();
        self.check(result, 0);
        self.assert_sticky(now);
    }

    pub(super) fn receive(&mut self, now: Time, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            let (arrived, sent) = (self.input.len(), self.out.len());
            let result = self.connection.handle_input(now, &mut self.input, &mut self.out);
            let (taken, made) = (arrived - self.input.len(), self.out.len() - sent);
            // A KeyPackage is answered with a Welcome, an EpochKeyUpdate with another update.
            assert!(made <= 4096 + 32 * taken, "{taken} bytes led to {made}");
            match result {
                Ok(None) => {
                    assert_eq!(self.error, None);
                    return assert!(self.input.len() < HEADER_LEN + MAX_CIPHERTEXT);
                }
                Ok(Some(event)) => self.note(&event),
                Err(error) => {
                    let failed = self.error.is_some();
                    assert!(!matches!(error, Error::ApiMisuse(_)), "{error}");
                    self.check(Err(error), made);
                    if failed {
                        self.input.clear();
                        return;
                    }
                }
            }
        }
    }

    fn note(&mut self, event: &Event) {
        assert_eq!(self.error, None);
        let before = matches!(event, Event::HandshakeComplete | Event::EarlyData(_));
        assert_eq!(before, !self.established);
        match event {
            Event::HandshakeComplete => {
                self.established = true;
                self.epoch = self.connection.statistics().expect("established").epoch;
            }
            Event::EarlyData(data) => {
                assert!(!data.is_empty() && !self.early_data);
                self.early_data = true;
            }
            Event::Data(data) => {
                assert!(!data.is_empty() && !self.peer_closed);
                self.received.extend_from_slice(data);
            }
            Event::EpochChanged { epoch } => {
                assert_eq!(*epoch, self.epoch + 1);
                self.epoch = *epoch;
            }
            // Who is fuzzed asks for no change of its own identity, but the other one may.
            Event::IdentityRotated | Event::RotationRefused => panic!("{event:?}"),
            Event::PeerIdentityChanged(_) | Event::PeerIdentityRefused(_) => {}
            Event::PeerClosed => {
                assert!(!self.peer_closed);
                self.peer_closed = true;
            }
        }
    }

    /// Notes an error. The first one stays, and after it nothing is sent. Misuse changes nothing.
    fn check(&mut self, result: Result<(), Error>, made: usize) {
        match result {
            Ok(()) => assert_eq!(self.error, None),
            Err(Error::ApiMisuse(_)) => assert_eq!((self.error.as_ref(), made), (None, 0)),
            Err(error) => match &self.error {
                Some(first) => assert_eq!((first, made), (&error, 0)),
                None => self.error = Some(error),
            },
        }
    }

    /// Calls the connection as an application does.
    fn call(
        &mut self,
        call: impl FnOnce(&mut Connection, &mut BytesMut) -> Result<(), Error>,
    ) -> bool {
        let sent = self.out.len();
        let result = call(&mut self.connection, &mut self.out);
        let done = result.is_ok();
        self.check(result, self.out.len() - sent);
        done
    }

    pub(super) fn write(&mut self, data: &[u8]) -> bool {
        if self.written.len() + data.len() > MAX_WRITTEN {
            return false;
        }
        let done = self.call(|connection, out| connection.write(data, out));
        if done {
            self.written.extend_from_slice(data);
        }
        done
    }

    pub(super) fn rekey(&mut self) {
        self.call(|connection, out| connection.rekey(out).map(|_| ()));
    }

    pub(super) fn close(&mut self) {
        self.call(|connection, out| connection.close(out));
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.call(|connection, out| connection.handle_timeout(now, out));
    }

    /// A connection that has failed stays so, and says nothing more.
    pub(super) fn assert_sticky(&mut self, now: Time) {
        if self.error.is_none() {
            return;
        }
        self.receive(now, b"more");
        let late = now.after(Duration::from_secs(3600));
        self.handle_timeout(late);
        assert!(!self.write(b"more"));
        self.rekey();
        self.close();
        assert!(self.connection.handle_eof().is_err());
        assert!(self.connection.export_secret("fuzz", &[], 32).is_err());
        assert_eq!(self.connection.poll_timeout(), None);
    }

    fn is_quiet(&self) -> bool {
        self.error.is_none() && self.input.is_empty() && self.out.is_empty()
    }

    fn state(&self) -> (u64, Vec<u8>) {
        let epoch = self.connection.statistics().expect("established").epoch;
        let secret = self.connection.export_secret("fuzz", &[], 32).expect("established");
        (epoch, secret.to_vec())
    }
}

/// Two connections and the bytes between them.
struct Link {
    initiator: End,
    responder: End,
    now: Time,
    /// The link has done more than to delay.
    faulty: bool,
    /// What was delivered last, by each end.
    delivered: [Vec<u8>; 2],
}

impl Link {
    fn connected() -> Self {
        let now = Time::now();
        let mut link = Self {
            initiator: End::initiator(now),
            responder: End::responder(now),
            now,
            faulty: false,
            delivered: [Vec::new(), Vec::new()],
        };
        link.drive();
        assert!(link.initiator.established && link.responder.established);
        link
    }

    fn end(&mut self, role: Role) -> &mut End {
        match role {
            Role::Initiator => &mut self.initiator,
            Role::Responder => &mut self.responder,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        let role = [Role::Initiator, Role::Responder][usize::from(operation & 1)];
        let index = usize::from(operation & 1);
        match (operation >> 1) % 12 {
            0 => {
                let data = vec![operation; input.number() % 4096];
                self.end(role).write(&data);
            }
            1 => self.end(role).rekey(),
            2 => self.end(role).close(),
            3 => {
                self.now = self.now.after(Duration::from_millis(input.number() as u64));
                let now = self.now;
                self.end(role).handle_timeout(now);
            }
            4 | 5 => self.deliver(role, input.number()),
            6 => self.deliver(role, usize::MAX),
            7 => self.drive(),
            // The faults.
            8 => {
                let out = &mut self.end(role).out;
                let mut bytes = out.to_vec();
                input.edit(&mut bytes);
                let changed = bytes != out[..];
                *out = BytesMut::from(&bytes[..]);
                self.faulty |= changed;
            }
            9 => {
                // The first two records change places.
                let out = &mut self.end(role).out;
                if let Ok(Some(first)) = Record::split_from(out) {
                    let second = Record::split_from(out).ok().flatten();
                    let mut bytes = Vec::new();
                    for record in second.iter().chain([&first]) {
                        bytes.extend_from_slice(record.header());
                        bytes.extend_from_slice(record.payload());
                    }
                    bytes.extend_from_slice(out);
                    *out = BytesMut::from(&bytes[..]);
                    self.faulty |= second.is_some();
                }
            }
            10 => {
                // Once more.
                let bytes = std::mem::take(&mut self.delivered[index]);
                self.faulty |= !bytes.is_empty();
                self.inject(role.peer(), &bytes);
            }
            _ => {
                // Back to the sender.
                let bytes = self.delivered[index].clone();
                self.faulty |= !bytes.is_empty();
                self.inject(role, &bytes);
            }
        }
    }

    fn deliver(&mut self, from: Role, length: usize) {
        let out = &mut self.end(from).out;
        let bytes = out.split_to(length.min(out.len()));
        self.inject(from.peer(), &bytes);
        self.delivered[usize::from(from == Role::Responder)] = bytes.to_vec();
    }

    fn inject(&mut self, to: Role, bytes: &[u8]) {
        let now = self.now;
        self.end(to).receive(now, bytes);
    }

    /// Delivers until nothing is on the way.
    fn drive(&mut self) {
        for _ in 0..10_000 {
            if self.initiator.out.is_empty() && self.responder.out.is_empty() {
                return;
            }
            self.deliver(Role::Initiator, usize::MAX);
            self.deliver(Role::Responder, usize::MAX);
        }
        panic!("the two ends never fall silent");
    }

    fn settle(&mut self) {
        self.drive();
        // Whatever was lost shows in the next record, if there is one.
        let probed = self.initiator.write(b"probe") & self.responder.write(b"probe");
        self.drive();
        let (initiator, responder) = (&self.initiator, &self.responder);
        // What arrives is what was sent, as far as it arrives.
        assert!(initiator.written.starts_with(&responder.received));
        assert!(responder.written.starts_with(&initiator.received));
        if !self.faulty {
            assert_eq!((&initiator.error, &responder.error), (&None, &None));
            assert!(initiator.is_quiet() && responder.is_quiet());
        }
        if initiator.is_quiet() && responder.is_quiet() && (probed || !self.faulty) {
            assert_eq!(initiator.written, responder.received);
            assert_eq!(responder.written, initiator.received);
            assert_eq!(initiator.state(), responder.state());
        }
        let now = self.now;
        self.initiator.assert_sticky(now);
        self.responder.assert_sticky(now);
    }
}
