//! The handshake: ClientHello, ServerHello, and a first record that confirms the keys.
//!
//! ```text
//! initiator                                   responder
//!     ClientHello (KeyPackage)      ───────►  verify, ask the AS, create the group
//!     verify, ask the AS, join      ◄───────  ServerHello (Welcome)
//!     established; first record     ═══════►  established
//! ```
//!
//! `───` is TLSPlaintext, `═══` TLSCiphertext. A KeyPackage can be replayed, so the responder knows
//! who is there only when the first record has opened. When the responder cannot use the offered
//! suite it says so with a handshake_failure alert, and the initiator offers its next one.

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;

use super::{
    receiver::{Incoming, Receiver},
    sender::{Sender, record_keys},
    shared::{Info, Shared},
};
use crate::{
    auth::{self, Authenticated, AuthenticationRequest, PeerIdentity, Purpose, Role},
    config::Config,
    crypto::CipherSuite,
    error::{Error, InvalidMessage, PeerIncompatible, PeerMisbehaved},
    group::{Claim, Group, Hello, Offer},
    name::ServerName,
    record::{ReceivePath, SendPath},
    time::Time,
    wire::{
        Alert, AlertDescription, ContentType, GroupParameters, InitiatorParameters,
        MessageAssembler, RawMessage, Record, TwoPartyMessage, encode_plaintext,
    },
};

/// Length of the channel binding in bytes.
const CHANNEL_BINDING_LEN: usize = 32;

/// Hellos that a responder looks at on one connection.
const MAX_HELLOS: usize = 8;

/// A handshake in progress, in either role.
pub(crate) struct Handshake {
    config: Arc<Config>,
    state: State,
    assembler: MessageAssembler,
    deadline: Instant,
}

enum State {
    /// The initiator waits for the ServerHello.
    ExpectServerHello(Box<ExpectServerHello>),
    /// The responder waits for a ClientHello that it can use.
    ExpectClientHello(ExpectClientHello),
    /// The responder has answered and waits for the first record under the new keys.
    ExpectConfirmation(Box<Established>),
    /// Done, or failed.
    Finished,
}

struct ExpectServerHello {
    server_name: ServerName,
    offer: Offer,
    client_hello_hash: Vec<u8>,
    /// Suites to offer if this one is refused, next one first.
    fallbacks: std::vec::IntoIter<CipherSuite>,
}

#[derive(Default)]
struct ExpectClientHello {
    hellos: usize,
    /// Why the last hello could not be used. If no better one comes, this is what went wrong.
    refused: Option<Error>,
}

/// Both directions of an established connection, and what came with the confirmation.
pub(crate) struct Established {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) shared: Arc<Shared>,
    pub(crate) early: Option<Incoming>,
}

impl Handshake {
    /// Starts as the initiator: the ClientHello is appended to `out`.
    pub(crate) fn initiate(
        config: Arc<Config>,
        server_name: ServerName,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        let mut suites = config.cipher_suites.clone().into_iter();
        let suite = suites.next().ok_or(crate::error::ConfigError::NoCipherSuite)?;
        let state = ExpectServerHello::offer(&config, server_name, suite, suites, now, out)?;
        Ok(Self::new(config, State::ExpectServerHello(Box::new(state)), now))
    }

    /// Waits for a ClientHello as the responder.
    pub(crate) fn respond(config: Arc<Config>, now: Time) -> Self {
        Self::new(config, State::ExpectClientHello(ExpectClientHello::default()), now)
    }

    fn new(config: Arc<Config>, state: State, now: Time) -> Self {
        let limits = config.limits;
        Self {
            assembler: MessageAssembler::new(max_message_size(limits.max_message_size)),
            // A deadline too far to be expressed is none that anybody will wait for.
            deadline: now.monotonic.checked_add(limits.handshake_timeout).unwrap_or(now.monotonic),
            config,
            state,
        }
    }

    /// Handles one record. When the handshake is complete, gives the connection.
    ///
    /// On an error the alert is already in `out`, and the handshake is over.
    pub(crate) fn handle_record(
        &mut self,
        record: Record,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Option<Established>, Error> {
        let state = std::mem::replace(&mut self.state, State::Finished);
        if let State::ExpectConfirmation(established) = state {
            return Self::handle_confirmation(established, record, out);
        }
        self.handle_plaintext(state, &record, now, out).map_err(|error| self.fail(error, out))
    }

    fn handle_plaintext(
        &mut self,
        state: State,
        record: &Record,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Option<Established>, Error> {
        record.check_plaintext()?;
        match record.content_type {
            ContentType::Handshake => {}
            ContentType::Alert => {
                self.state = self.handle_alert(state, &record.payload, now, out)?;
                return Ok(None);
            }
            ContentType::ApplicationData => {
                return Err(PeerMisbehaved::UnexpectedRecord("application_data").into());
            }
        }
        self.assembler.push(&record.payload)?;
        let Some(message) = self.assembler.next()? else {
            self.state = state;
            return Ok(None);
        };
        if !self.assembler.is_empty() {
            return Err(PeerMisbehaved::MisalignedMessage.into());
        }
        match (state, message.decode()?) {
            (State::ExpectServerHello(state), TwoPartyMessage::ServerHello { welcome }) => {
                state.join(&self.config, &welcome, now, out).map(Some)
            }
            (State::ExpectClientHello(state), TwoPartyMessage::ClientHello { key_package }) => {
                self.state = state.answer(&self.config, &message, &key_package, now, out)?;
                Ok(None)
            }
            (_, message) => Err(PeerMisbehaved::UnexpectedMessage(message.name()).into()),
        }
    }

    /// A plaintext alert. It is not authenticated: whoever forges one can end the handshake, as
    /// whoever cuts the wire can, and nothing more; see [`PeerMisbehaved::Downgrade`].
    fn handle_alert(
        &self,
        state: State,
        payload: &[u8],
        now: Time,
        out: &mut BytesMut,
    ) -> Result<State, Error> {
        let alert = Alert::decode(payload)?;
        if let State::ExpectServerHello(state) = state
            && alert.description == AlertDescription::HandshakeFailure
            && self.assembler.is_empty()
        {
            return state.offer_next(&self.config, now, out);
        }
        Err(Error::AlertReceived(alert.description))
    }

    fn handle_confirmation(
        mut established: Box<Established>,
        record: Record,
        out: &mut BytesMut,
    ) -> Result<Option<Established>, Error> {
        let opened = match record.content_type {
            // The initiator may have refused the Welcome, and then it has no keys to say so.
            ContentType::Alert => Err(record
                .check_plaintext()
                .and_then(|()| Alert::decode(&record.payload))
                .map_or_else(Error::from, |alert| Error::AlertReceived(alert.description))),
            _ => established.receiver.handle_record(record),
        };
        match opened {
            Ok(early) => {
                established.early = early;
                Ok(Some(*established))
            }
            Err(error) => Err(established.sender.fail(error, out)),
        }
    }

    /// The stream ended before the handshake did.
    pub(crate) fn handle_eof(&self) -> Error {
        self.refusal().unwrap_or(Error::Truncated)
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut BytesMut) -> Result<(), Error> {
        if now.monotonic < self.deadline {
            return Ok(());
        }
        let error =
            self.refusal().unwrap_or(Error::HandshakeTimeout(self.config.limits.handshake_timeout));
        Err(self.fail(error, out))
    }

    /// Ends the handshake and tells the peer, under the keys if there are any.
    pub(crate) fn fail(&mut self, error: Error, out: &mut BytesMut) -> Error {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::ExpectConfirmation(mut established) => established.sender.fail(error, out),
            _ => {
                if let Some(description) = error.alert() {
                    encode_plaintext(ContentType::Alert, &Alert::new(description).encode(), out);
                }
                error
            }
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    fn refusal(&self) -> Option<Error> {
        match &self.state {
            State::ExpectClientHello(state) => state.refused.clone(),
            _ => None,
        }
    }
}

impl ExpectServerHello {
    fn offer(
        config: &Config,
        server_name: ServerName,
        suite: CipherSuite,
        fallbacks: std::vec::IntoIter<CipherSuite>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        let parameters = InitiatorParameters {
            cipher_suites: config.cipher_suites.iter().map(|suite| suite.id()).collect(),
            alpn: config.alpn.clone(),
            server_name: server_name.as_str().as_bytes().to_vec(),
            max_message_size: config.limits.max_message_size,
        };
        let offer = Offer::new(&config.crypto, suite, &config.identity, parameters, now.calendar)?;
        let hello = TwoPartyMessage::ClientHello { key_package: offer.message().to_vec() };
        let hello = hello.encode()?;
        encode_plaintext(ContentType::Handshake, &hello, out);
        let client_hello_hash = config.crypto.hash(suite, &hello)?;
        Ok(Self { server_name, offer, client_hello_hash, fallbacks })
    }

    fn offer_next(
        mut self: Box<Self>,
        config: &Config,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<State, Error> {
        let Some(suite) = self.fallbacks.next() else {
            return Err(Error::AlertReceived(AlertDescription::HandshakeFailure));
        };
        let state = Self::offer(config, self.server_name, suite, self.fallbacks, now, out)?;
        Ok(State::ExpectServerHello(Box::new(state)))
    }

    fn join(
        self: Box<Self>,
        config: &Arc<Config>,
        welcome: &[u8],
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Established, Error> {
        let joined = self.offer.open_welcome(welcome, &self.client_hello_hash)?;
        let server_name = Some(self.server_name);
        let responder =
            authenticate(config, joined.claim(), Role::Responder, server_name.as_ref(), now)?;
        let parameters = joined.parameters().clone();
        let group = joined.join(&responder)?;
        let mut established = establish(
            config,
            Role::Initiator,
            group,
            &parameters,
            parameters.max_message_size,
            server_name,
            responder.into_peer(),
            now,
        )?;
        established.sender.confirm(out)?;
        Ok(established)
    }
}

impl ExpectClientHello {
    fn answer(
        mut self,
        config: &Arc<Config>,
        message: &RawMessage,
        key_package: &[u8],
        now: Time,
        out: &mut BytesMut,
    ) -> Result<State, Error> {
        self.hellos += 1;
        let hello = Hello::parse(&config.crypto, &config.cipher_suites, key_package, now.calendar);
        let hello = match hello {
            // The initiator may have another suite to offer.
            Err(error @ Error::PeerIncompatible(PeerIncompatible::CipherSuite(_)))
                if self.hellos < MAX_HELLOS =>
            {
                let alert = Alert::new(AlertDescription::HandshakeFailure).encode();
                encode_plaintext(ContentType::Alert, &alert, out);
                self.refused = Some(error);
                return Ok(State::ExpectClientHello(self));
            }
            hello => hello?,
        };
        let offered = hello.parameters().clone();
        let server_name = offered
            .server_name()
            .map(ServerName::new)
            .transpose()
            .map_err(|_| InvalidMessage::Malformed("server name"))?;
        let alpn = select_alpn(&config.alpn, &offered.alpn)?;
        let initiator =
            authenticate(config, hello.claim(), Role::Initiator, server_name.as_ref(), now)?;
        let parameters = GroupParameters {
            client_hello_hash: config.crypto.hash(hello.suite(), message.encoded())?,
            alpn,
            max_message_size: config.limits.max_message_size,
        };
        let (group, welcome) = hello.answer(
            &initiator,
            &config.crypto,
            &config.identity,
            &parameters,
            now.calendar,
        )?;
        let answer = TwoPartyMessage::ServerHello { welcome }.encode()?;
        if answer.len() > max_message_size(offered.max_message_size) {
            return Err(PeerIncompatible::Capabilities("room for the ServerHello").into());
        }
        let established = establish(
            config,
            Role::Responder,
            group,
            &parameters,
            offered.max_message_size,
            server_name,
            initiator.into_peer(),
            now,
        )?;
        encode_plaintext(ContentType::Handshake, &answer, out);
        Ok(State::ExpectConfirmation(Box::new(established)))
    }
}

fn authenticate(
    config: &Config,
    claim: &Claim,
    role: Role,
    server_name: Option<&ServerName>,
    now: Time,
) -> Result<Authenticated, Error> {
    let request = AuthenticationRequest::new(
        claim.presented(),
        role,
        server_name,
        Purpose::Handshake,
        now.calendar,
    );
    Ok(auth::validate(&*config.authentication_service, &request)?)
}

#[allow(clippy::too_many_arguments)] // one call for each role, and a struct would only repeat it
fn establish(
    config: &Arc<Config>,
    role: Role,
    group: Group,
    parameters: &GroupParameters,
    peer_max_message_size: u32,
    server_name: Option<ServerName>,
    peer: PeerIdentity,
    now: Time,
) -> Result<Established, Error> {
    let mut channel_binding = [0; CHANNEL_BINDING_LEN];
    channel_binding.copy_from_slice(&group.export(
        "MLS-TLS channel binding",
        &[],
        CHANNEL_BINDING_LEN,
    )?);
    let info = Info {
        role,
        suite: group.suite(),
        alpn: (!parameters.alpn.is_empty()).then(|| parameters.alpn.clone()),
        server_name,
        channel_binding,
    };
    let shared = Arc::new(Shared::new(info, peer, group.epoch()));
    let (send, receive) = record_keys(&group, role, group.traffic_secrets()?)?;
    let receiver = Receiver::new(
        ReceivePath::new(receive),
        max_message_size(config.limits.max_message_size),
        Arc::clone(&shared),
    );
    let sender = Sender::new(
        SendPath::new(send),
        group,
        Arc::clone(config),
        max_message_size(peer_max_message_size),
        Arc::clone(&shared),
        now.monotonic,
    );
    Ok(Established { sender, receiver, shared, early: None })
}

/// The responder's best protocol that the initiator offers; none if either names none.
fn select_alpn(ours: &[Vec<u8>], offered: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
    if ours.is_empty() || offered.is_empty() {
        return Ok(Vec::new());
    }
    let common = ours.iter().find(|protocol| offered.contains(protocol));
    Ok(common.ok_or(PeerIncompatible::Alpn)?.clone())
}

/// Saturates where `usize` is small.
fn max_message_size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
