//! Two machines in memory, with a simulated clock and a simulated link.

mod attack;
mod attack_commit;
#[cfg(feature = "x509")]
mod attack_credential;
mod attack_group;
mod attack_handshake;
mod attack_hello;
mod attack_resumption;
mod capture;
mod client_hello;
mod close;
mod first_use;
mod handshake;
mod key_log;
mod negotiation;
mod providers;
mod rekey;
mod resumption;
mod rotation;
mod rotation_sessions;
mod schedules;
mod suites;
#[cfg(feature = "x509")]
mod x509;

use std::time::{Duration, Instant, SystemTime};

use super::{session::Session, *};
use crate::{
    CryptoProvider, Identity, Limits, MemoryStore, PinnedKeys, RekeyPolicy, SignatureScheme,
    auth::AuthenticationService, config::ConfigBuilder,
};

pub(super) const SERVER_NAME: &str = "server.example";

pub(super) type Builder = ConfigBuilder<Identity, Arc<dyn AuthenticationService>>;

/// An initiator and a responder, and the bytes between them.
pub(super) struct Pair {
    pub(super) initiator: End,
    pub(super) responder: End,
    pub(super) now: Time,
}

/// One machine with what it has sent, received and told.
pub(super) struct End {
    pub(super) connection: Connection,
    /// Sent, and still on the way to the other end.
    pub(super) out: BytesMut,
    /// Arrived, and not processed yet.
    pub(super) input: BytesMut,
    /// Every byte ever sent.
    pub(super) sent: Vec<u8>,
    pub(super) received: Vec<u8>,
    pub(super) events: Vec<Event>,
    pub(super) error: Option<Error>,
}

/// Who both parties are.
pub(super) struct Identities {
    pub(super) client: Identity,
    pub(super) server: Identity,
}

pub(super) fn start() -> Time {
    Time::at(Instant::now(), SystemTime::now())
}

impl Identities {
    pub(super) fn new() -> Self {
        Self::of(suites::scheme())
    }

    /// With keys of a certain scheme.
    pub(super) fn of(scheme: SignatureScheme) -> Self {
        Self {
            client: Identity::generate_with("client", scheme).unwrap(),
            server: Identity::generate_with(SERVER_NAME, scheme).unwrap(),
        }
    }

    /// The client's configuration; updates are made by hand unless a test says otherwise.
    pub(super) fn client(&self) -> Builder {
        configuration(&self.client, &self.server).crypto_provider(providers::client())
    }

    pub(super) fn server(&self) -> Builder {
        configuration(&self.server, &self.client).crypto_provider(providers::server())
    }
}

fn configuration(own: &Identity, peer: &Identity) -> Builder {
    let builder = Config::builder()
        .identity(own.clone())
        .authentication_service(PinnedKeys::parse(&peer.public_line()).unwrap())
        .rekey_policy(RekeyPolicy::manual());
    match suites::suites() {
        Some(suites) => builder.cipher_suites(suites),
        None => builder,
    }
}

impl Pair {
    /// Before the first byte is delivered.
    pub(super) fn new(client: Builder, server: Builder) -> Self {
        let now = start();
        let mut out = BytesMut::new();
        let name = ServerName::new(SERVER_NAME).unwrap();
        let client = Arc::new(client.build().unwrap());
        let server = Arc::new(server.build().unwrap());
        let initiator = Connection::initiator(client, name, now, &mut out).unwrap();
        let mut initiator = End::new(initiator);
        initiator.out = out;
        Self { initiator, responder: End::new(Connection::responder(server, now)), now }
    }

    /// After the handshake.
    pub(super) fn connected() -> Self {
        let identities = Identities::new();
        Self::connect(identities.client(), identities.server())
    }

    /// After the handshake, and each end's group can be stolen as it is stored.
    pub(super) fn stored() -> Self {
        let identities = Identities::new();
        let [client, server] = [identities.client(), identities.server()]
            .map(|builder| builder.session_store(MemoryStore::default()));
        Self::connect(client, server)
    }

    pub(super) fn connect(client: Builder, server: Builder) -> Self {
        let mut pair = Self::new(client, server);
        pair.drive();
        pair.initiator.expect(Event::HandshakeComplete);
        pair.responder.expect(Event::HandshakeComplete);
        assert_eq!((&pair.initiator.error, &pair.responder.error), (&None, &None));
        pair
    }

    pub(super) fn end(&mut self, role: Role) -> &mut End {
        match role {
            Role::Initiator => &mut self.initiator,
            Role::Responder => &mut self.responder,
        }
    }

    /// Takes what `role` has sent off the wire.
    pub(super) fn intercept(&mut self, role: Role) -> BytesMut {
        let end = self.end(role);
        end.sent.extend_from_slice(&end.out);
        end.out.split()
    }

    /// Gives bytes to `role` and lets it process them.
    pub(super) fn inject(&mut self, role: Role, bytes: &[u8]) {
        let now = self.now;
        let end = self.end(role);
        end.input.extend_from_slice(bytes);
        end.process(now);
    }

    /// Delivers what `from` has sent. True if there was anything.
    pub(super) fn deliver(&mut self, from: Role) -> bool {
        let bytes = self.intercept(from);
        self.inject(from.peer(), &bytes);
        !bytes.is_empty()
    }

    /// Delivers until nothing is on the way.
    pub(super) fn drive(&mut self) {
        for _ in 0..10_000 {
            if !(self.deliver(Role::Initiator) | self.deliver(Role::Responder)) {
                return;
            }
        }
        panic!("the two machines never fall silent");
    }

    /// Lets time pass, and the timers with it.
    pub(super) fn advance(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        for role in [Role::Initiator, Role::Responder] {
            let now = self.now;
            let end = self.end(role);
            if end.connection.poll_timeout().is_some_and(|timeout| timeout <= now.monotonic) {
                let result = end.connection.handle_timeout(now, &mut end.out);
                end.note(result);
            }
        }
    }

    pub(super) fn write(&mut self, role: Role, data: &[u8]) {
        let end = self.end(role);
        end.connection.write(data, &mut end.out).unwrap();
    }

    pub(super) fn rekey(&mut self, role: Role) -> u64 {
        let end = self.end(role);
        end.connection.rekey(&mut end.out).unwrap()
    }

    pub(super) fn close(&mut self, role: Role) {
        let end = self.end(role);
        end.connection.close(&mut end.out).unwrap();
    }

    pub(super) fn epochs(&self) -> (u64, u64) {
        (self.initiator.epoch(), self.responder.epoch())
    }

    /// Data goes both ways, and both ends have the same keys.
    pub(super) fn assert_works(&mut self) {
        for role in [Role::Initiator, Role::Responder] {
            self.write(role, b"still here");
            self.drive();
            let peer = self.end(role.peer());
            assert_eq!(peer.error, None);
            assert!(peer.received.ends_with(b"still here"));
        }
        assert_eq!(self.initiator.epoch(), self.responder.epoch());
        let export = |end: &End| end.connection.export_secret("test", b"", 32).unwrap();
        assert_eq!(export(&self.initiator), export(&self.responder));
    }

    /// The end of `role` failed with `error`, and the other one was told with its alert.
    pub(super) fn assert_failed(&mut self, role: Role, error: impl Into<Error>) {
        let error = error.into();
        self.drive();
        assert_eq!(self.end(role).error.as_ref(), Some(&error));
        if let Some(alert) = error.alert() {
            assert_eq!(self.end(role.peer()).error, Some(Error::AlertReceived(alert)));
        }
    }
}

impl End {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            out: BytesMut::new(),
            input: BytesMut::new(),
            sent: Vec::new(),
            received: Vec::new(),
            events: Vec::new(),
            error: None,
        }
    }

    pub(super) fn process(&mut self, now: Time) {
        loop {
            match self.connection.handle_input(now, &mut self.input, &mut self.out) {
                Ok(None) => return,
                Ok(Some(Event::Data(data))) => self.received.extend_from_slice(&data),
                Ok(Some(event)) => self.events.push(event),
                Err(error) => return self.note(Err(error)),
            }
        }
    }

    fn note(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            // Errors are sticky: the first one is the one.
            assert!(self.error.as_ref().is_none_or(|first| *first == error));
            self.error = Some(error);
        }
    }

    /// The event is among those that came since the last call.
    pub(super) fn expect(&mut self, event: Event) {
        let events = std::mem::take(&mut self.events);
        assert!(events.contains(&event), "{event:?} is not among {events:?}");
    }

    pub(super) fn epoch(&self) -> u64 {
        self.connection.statistics().unwrap().epoch
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.connection.statistics().unwrap()
    }

    pub(super) fn established(&mut self) -> &mut Established {
        match &mut self.connection.state {
            State::Established(traffic) => &mut traffic.established,
            _ => panic!("the connection is not established"),
        }
    }
}
