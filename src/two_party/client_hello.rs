//! A responder that looks at the first message before it decides how to answer.

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;

use super::{
    Connection,
    established::to_usize,
    handshake::{Handshake, MAX_HELLOS, Progress},
    resumption::{Request, Skip},
};
use crate::{
    auth::PresentedIdentity,
    config::{Config, Limits},
    crypto::CipherSuite,
    error::{CryptoError, Error, InvalidMessage, PeerMisbehaved, SessionError},
    group::CommitHeader,
    name::ServerName,
    store::SessionId,
    time::Time,
    wire::{
        Alert, AlertDescription, ContentType, MessageAssembler, PresentedKeyPackage, RawMessage,
        Record, TwoPartyMessage, encode_plaintext,
    },
};

/// Waits for the first message of an initiator, without a configuration.
///
/// It is to [`Connection::responder`] what `rustls::server::Acceptor` is to a server's connection: it
/// reads one message, and the caller chooses the configuration by what is in it.
///
/// ```
/// # use std::sync::Arc;
/// # use bytes::BytesMut;
/// # use mls_channel::{Acceptor, Config, Connection, Error, Event, Identity, Limits, PinnedKeys, ServerName, Time};
/// # fn main() -> Result<(), mls_channel::Error> {
/// # let client = Identity::generate("client")?;
/// # let server = Identity::generate("b.example")?;
/// # let config = |own: &Identity, other: &Identity| -> Result<_, mls_channel::Error> {
/// #     let pinned = PinnedKeys::parse(&other.public_line())?;
/// #     Ok(Arc::new(Config::builder().identity(own.clone()).authentication_service(pinned).build()?))
/// # };
/// # let (now, mut wire, mut answer) = (Time::now(), BytesMut::new(), BytesMut::new());
/// # let name = ServerName::new("b.example")?;
/// # let mut a = Connection::initiator(config(&client, &server)?, name, now, &mut wire)?;
/// let mut acceptor = Acceptor::new(Limits::default(), now);
/// let accepted = acceptor.handle_input(now, &mut wire, &mut answer)?.expect("all of it is here");
/// let name = accepted.client_hello().server_name().map(|name| name.as_str());
/// let config = match name {
///     Some("b.example") => config(&server, &client)?,
///     _ => return Err(Error::Truncated), // hang up
/// };
/// let mut b = accepted.into_connection(config, now, &mut answer)?;
/// # assert_eq!(a.handle_input(now, &mut answer, &mut wire)?, Some(Event::HandshakeComplete));
/// # assert_eq!(b.handle_input(now, &mut wire, &mut answer)?, Some(Event::HandshakeComplete));
/// # Ok(())
/// # }
/// ```
pub struct Acceptor {
    limits: Limits,
    started: Time,
    assembler: MessageAssembler,
    /// Early data of a request that was declined.
    skip: Skip,
    declined: usize,
    failed: Option<Error>,
}

/// The first message is here, and nothing is answered yet.
pub struct Accepted {
    limits: Limits,
    started: Time,
    message: RawMessage,
    hello: ClientHello,
    skip: Skip,
    declined: usize,
}

/// What an initiator says of itself in its first message. Nobody has verified any of it, and anybody
/// on the way may have made it up: it is good for choosing a configuration, and for nothing else.
#[derive(Clone, Debug)]
pub struct ClientHello {
    presented: Option<PresentedKeyPackage>,
    server_name: Option<ServerName>,
    session: Option<SessionId>,
}

impl ClientHello {
    fn of(message: &RawMessage) -> Result<(Self, Skip), Error> {
        match message.decode()? {
            TwoPartyMessage::ClientHello { key_package } => {
                let presented = PresentedKeyPackage::parse(&key_package)?;
                let server_name = presented
                    .parameters
                    .server_name()
                    .map(ServerName::new)
                    .transpose()
                    .map_err(|_| InvalidMessage::Malformed("server name"))?;
                let hello = Self { presented: Some(presented), server_name, session: None };
                Ok((hello, Skip::default()))
            }
            TwoPartyMessage::ResumptionRequest { commit, early_data_length, binder } => {
                let id = SessionId::new(CommitHeader::parse(&commit)?.group_id);
                let skip = Request::new(commit, early_data_length, binder)?.skip();
                Ok((Self { presented: None, server_name: None, session: Some(id) }, skip))
            }
            other => Err(PeerMisbehaved::UnexpectedMessage(other.name()).into()),
        }
    }

    /// The name of the server that the initiator wants. `None` if it names none, or resumes.
    pub fn server_name(&self) -> Option<&ServerName> {
        self.server_name.as_ref()
    }

    /// The application protocols that it offers, best first. None if it resumes.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> {
        self.presented.iter().flat_map(|hello| hello.parameters.alpn.iter().map(Vec::as_slice))
    }

    /// The cipher suites that it would use and that this build knows, best first. None if it resumes.
    pub fn cipher_suites(&self) -> impl Iterator<Item = CipherSuite> {
        let ids = self.presented.iter().flat_map(|hello| hello.parameters.cipher_suites.iter());
        ids.filter_map(|id| CipherSuite::from_id(*id))
    }

    /// Who it says it is. `None` if it resumes, or if the credential or the suite is none that this
    /// build knows.
    pub fn presented_identity(&self) -> Option<PresentedIdentity<'_>> {
        let hello = self.presented.as_ref()?;
        let scheme = CipherSuite::from_id(hello.cipher_suite)?.signature_scheme();
        let presented = match (&hello.basic_identity, &hello.certificates) {
            (Some(name), _) => PresentedIdentity::new(name, &hello.signature_key),
            (None, Some(chain)) => PresentedIdentity::x509(chain, &hello.signature_key),
            (None, None) => return None,
        };
        Some(presented.with_signature_scheme(scheme))
    }

    /// The session that it wants to resume (2P-14). Then this is all that can be seen: choose the
    /// configuration that [has the session](Config::has_session), and if there is none,
    /// [decline](Accepted::decline_session).
    pub fn session_id(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }
}

impl Acceptor {
    /// Waits for a first message. Of the limits, those for the handshake's time and a message's size
    /// matter; the configuration's own take their place when it is chosen.
    pub fn new(limits: Limits, now: Time) -> Self {
        Self {
            limits,
            started: now,
            assembler: MessageAssembler::new(to_usize(limits.max_message_size)),
            skip: Skip::default(),
            declined: 0,
            failed: None,
        }
    }

    /// Takes records off the front of `input` until the first message is complete; it gives it once.
    /// `None`: more input is needed. What is appended to `out` must be sent, also after an error.
    ///
    /// # Errors
    ///
    /// What the peer did wrong, [`Error::HandshakeTimeout`] when the time is over. Both are sticky.
    pub fn handle_input(
        &mut self,
        now: Time,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Accepted>, Error> {
        self.handle_timeout(now, out)?;
        let result = self.next(input);
        result.map_err(|error| self.fail(error, out))
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Accepted>, Error> {
        while let Some(record) = Record::split_from(input)? {
            if self.skip.handle_record(&record)? {
                continue;
            }
            record.check_plaintext()?;
            match record.content_type {
                ContentType::Handshake => self.assembler.push(&record.payload)?,
                ContentType::Alert => {
                    let alert = Alert::decode(&record.payload)?;
                    return Err(Error::AlertReceived(alert.description));
                }
                ContentType::ApplicationData => {
                    return Err(PeerMisbehaved::UnexpectedRecord("application_data").into());
                }
            }
            let Some(message) = self.assembler.next()? else {
                continue;
            };
            if !self.assembler.is_empty() {
                return Err(PeerMisbehaved::MisalignedMessage.into());
            }
            let (hello, skip) = ClientHello::of(&message)?;
            let Self { limits, started, declined, .. } = *self;
            return Ok(Some(Accepted { limits, started, message, hello, skip, declined }));
        }
        Ok(None)
    }

    /// Time has passed. Early calls do nothing.
    ///
    /// # Errors
    ///
    /// [`Error::HandshakeTimeout`].
    pub fn handle_timeout(&mut self, now: Time, out: &mut BytesMut) -> Result<(), Error> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.poll_timeout().is_some_and(|deadline| deadline <= now.monotonic) => {
                Err(self.fail(Error::HandshakeTimeout(self.limits.handshake_timeout), out))
            }
            None => Ok(()),
        }
    }

    /// The stream ended.
    pub fn handle_eof(&self) -> Error {
        self.failed.clone().unwrap_or(Error::Truncated)
    }

    /// When to call [`Acceptor::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.failed {
            Some(_) => None,
            None => self.started.monotonic.checked_add(self.limits.handshake_timeout),
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn started(&self) -> Instant {
        self.started.monotonic
    }

    fn fail(&mut self, error: Error, out: &mut BytesMut) -> Error {
        send_alert(&error, out);
        self.failed = Some(error.clone());
        error
    }
}

impl Accepted {
    /// What the initiator says.
    pub fn client_hello(&self) -> &ClientHello {
        &self.hello
    }

    /// Goes on with this configuration, as the responder. The answer is appended to `out`. The time for
    /// the handshake, by the configuration's own limit, counts from when the acceptor was made.
    ///
    /// # Errors
    ///
    /// As [`Connection::handle_input`], with the alert in `out`.
    pub fn into_connection(
        self,
        config: Arc<Config>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Connection, Error> {
        Ok(Connection::handshaking(self.into_handshake(config, now, out)?))
    }

    pub(crate) fn into_handshake(
        self,
        config: Arc<Config>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Handshake, Error> {
        let mut handshake = Handshake::respond_after(self.declined, config, self.started);
        let mut records = BytesMut::new();
        encode_plaintext(ContentType::Handshake, self.message.encoded(), &mut records);
        match handshake.handle_input(now, &mut records, out)? {
            Progress::NeedsInput => Ok(handshake),
            // Both take a record of the initiator's that has not been read.
            Progress::EarlyData(_) | Progress::Established(_) => {
                Err(CryptoError::Internal("the first message").into())
            }
        }
    }

    /// Refuses to resume, and waits for a ClientHello on the same stream, which an initiator sends then
    /// unless it insists on that session. Up to sixteen messages are looked at in all.
    ///
    /// # Errors
    ///
    /// [`SessionError::Unknown`] when it was one too many, or nobody wants to resume. The alert is in
    /// `out`.
    pub fn decline_session(self, out: &mut BytesMut) -> Result<Acceptor, Error> {
        let error = SessionError::Unknown.into();
        send_alert(&error, out);
        let mut acceptor = Acceptor::new(self.limits, self.started);
        acceptor.declined = self.declined + 1;
        acceptor.skip = self.skip;
        match self.hello.session {
            Some(_) if acceptor.declined < MAX_HELLOS => Ok(acceptor),
            _ => Err(error),
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Refuses the connection with an alert, appended to `out`.
    pub fn refuse(self, alert: AlertDescription, out: &mut BytesMut) {
        encode_plaintext(ContentType::Alert, &Alert::new(alert).encode(), out);
    }
}

fn send_alert(error: &Error, out: &mut BytesMut) {
    if let Some(description) = error.alert() {
        encode_plaintext(ContentType::Alert, &Alert::new(description).encode(), out);
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepted").field("client_hello", &self.hello).finish_non_exhaustive()
    }
}
