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
//!
//! Where sessions are stored, a [request to resume](super::resumption) may come first; when it is
//! refused, with an unknown_psk_identity alert, a ClientHello follows on the same stream.

mod resume;

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};

use self::resume::{ExpectEarlyData, ExpectResponse, request_any};
use super::{
    established::{Established, Origin, encode_within, to_usize},
    key_packages::KeyPackages,
    resumption::{Request, Requester, Skip},
    session::{Facts, Session},
    shared::EarlyDataStatus,
};
use crate::{
    auth::{self, Authenticated, AuthenticationRequest, Purpose, Role},
    config::Config,
    crypto::CipherSuite,
    error::{ApiMisuse, ConfigError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved},
    group::{self, Claim, Offer, Retention},
    name::ServerName,
    store::SessionId,
    time::Time,
    wire::{
        Alert, AlertDescription, ContentType, GroupParameters, InitiatorParameters, MAX_EARLY_DATA,
        MessageAssembler, RawMessage, Record, TwoPartyMessage, encode_plaintext,
    },
};

/// Hellos and requests that a responder looks at on one connection: more than there are suites.
pub(super) const MAX_HELLOS: usize = 16;

/// A handshake in progress, in either role.
pub(crate) struct Handshake {
    config: Arc<Config>,
    state: State,
    role: Role,
    assembler: MessageAssembler,
    deadline: Instant,
    /// Early data that was refused and is still to come.
    skip: Skip,
    /// Early data that was taken and that nobody has fetched yet.
    early_data: Option<Bytes>,
}

enum State {
    /// The initiator waits for the ServerHello.
    ExpectServerHello(Box<ExpectServerHello>),
    /// The responder waits for a ClientHello that it can use.
    ExpectClientHello(ExpectClientHello),
    /// This party has answered and waits for the first record under the new keys.
    ExpectConfirmation(Box<Established>),
    /// This party waits for the answer to its request.
    ExpectResponse(Box<ExpectResponse>),
    /// The responder waits for the rest of the early data before it answers the request.
    ExpectEarlyData(Box<ExpectEarlyData>),
    /// Done, or failed.
    Finished,
}

struct ExpectServerHello {
    server_name: ServerName,
    offer: Offer,
    client_hello_hash: Vec<u8>,
    /// Suites to offer if this one is refused, next one first.
    fallbacks: std::vec::IntoIter<CipherSuite>,
    origin: Origin,
    /// The session that the responder refused to resume.
    refused: Option<SessionId>,
}

#[derive(Default)]
struct ExpectClientHello {
    hellos: usize,
    /// Why the last hello could not be used. If no better one comes, this is what went wrong.
    refused: Option<Error>,
    /// Why a request to resume was refused.
    resumption_refused: Option<Error>,
}

/// What input led to.
pub(crate) enum Progress {
    NeedsInput,
    EarlyData(Bytes),
    Established(Box<Established>),
}

impl Handshake {
    /// Starts as the initiator: what goes first is appended to `out`. That is a request to resume
    /// a session with this server if one is stored and not in use, and a ClientHello otherwise.
    pub(crate) fn initiate(
        config: Arc<Config>,
        server_name: ServerName,
        early_data: Option<&[u8]>,
        key_packages: Option<&KeyPackages>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        check_early_data(early_data)?;
        let (requester, not_resumed) = request_any(&config, &server_name, early_data, now, out)?;
        let state = match requester {
            Some(requester) => State::ExpectResponse(Box::new(ExpectResponse::new(
                requester,
                Some(server_name),
                early_data.is_some(),
            ))),
            None => {
                let early_data = early_data.map(|_| EarlyDataStatus::Rejected);
                let origin = Origin::full(not_resumed, early_data);
                ExpectServerHello::first(
                    &config,
                    server_name,
                    origin,
                    None,
                    key_packages,
                    now,
                    out,
                )?
            }
        };
        Ok(Self::new(config, Role::Initiator, state, now))
    }

    /// Starts as the initiator with the request to resume a certain session (2P-14), which this
    /// party may have in either role. There is no other handshake if it is refused.
    pub(crate) fn resume(
        config: Arc<Config>,
        session: &SessionId,
        early_data: Option<&[u8]>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        check_early_data(early_data)?;
        let mut session = Session::load(&config, session, now)?;
        session.lease();
        let early = early_data.unwrap_or_default();
        let requester = Requester::start(&config, session, early, out)?;
        let state = ExpectResponse::new(requester, None, early_data.is_some());
        let state = State::ExpectResponse(Box::new(state));
        Ok(Self::new(config, Role::Initiator, state, now))
    }

    /// Waits for a ClientHello, or a ResumptionRequest, as the responder.
    pub(crate) fn respond(config: Arc<Config>, now: Time) -> Self {
        Self::respond_after(0, config, now)
    }

    /// As the responder that has refused so many requests on this stream already.
    pub(crate) fn respond_after(refused: usize, config: Arc<Config>, now: Time) -> Self {
        let hello = ExpectClientHello { hellos: refused, ..Default::default() };
        Self::new(config, Role::Responder, State::ExpectClientHello(hello), now)
    }

    fn new(config: Arc<Config>, role: Role, state: State, now: Time) -> Self {
        let limits = config.limits;
        Self {
            assembler: MessageAssembler::new(to_usize(limits.max_message_size)),
            // A deadline too far to be expressed is none that anybody will wait for.
            deadline: now.monotonic.checked_add(limits.handshake_timeout).unwrap_or(now.monotonic),
            config,
            role,
            state,
            skip: Skip::default(),
            early_data: None,
        }
    }

    /// Takes records off the front of `input` until there is something to tell.
    pub(crate) fn handle_input(
        &mut self,
        now: Time,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Progress, Error> {
        loop {
            let record = match Record::split_from(input) {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(Progress::NeedsInput),
                Err(error) => return Err(self.fail(error.into(), out)),
            };
            if let Some(established) = self.handle_record(record, now, out)? {
                return Ok(Progress::Established(Box::new(established)));
            }
            if let Some(data) = self.early_data.take() {
                return Ok(Progress::EarlyData(data));
            }
        }
    }

    /// Handles one record. When the handshake is complete, gives the connection.
    ///
    /// On an error the alert is already in `out`, and the handshake is over.
    fn handle_record(
        &mut self,
        record: Record,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Option<Established>, Error> {
        match self.skip.handle_record(&record) {
            Ok(true) => return Ok(None),
            Ok(false) => {}
            Err(error) => return Err(self.fail(error, out)),
        }
        let result = match std::mem::replace(&mut self.state, State::Finished) {
            State::ExpectConfirmation(established) => {
                return established.handle_confirmation(record, out).map(Some);
            }
            State::ExpectEarlyData(state)
                if record.content_type == ContentType::ApplicationData =>
            {
                self.handle_early_data(state, record, now, out).map(|()| None)
            }
            state => self.handle_plaintext(state, &record, now, out),
        };
        result.map_err(|error| self.fail(error, out))
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
            (
                State::ExpectClientHello(state),
                TwoPartyMessage::ResumptionRequest { commit, early_data_length, binder },
            ) => {
                let request = Request::new(commit, early_data_length, binder)?;
                self.handle_request(state, request, None, now, out)?;
                Ok(None)
            }
            (
                State::ExpectResponse(state),
                TwoPartyMessage::ResumptionRequest { commit, early_data_length, binder },
            ) => {
                let request = Request::new(commit, early_data_length, binder)?;
                self.handle_crossing_request(&state, &request, now, out)?;
                Ok(None)
            }
            (State::ExpectResponse(state), TwoPartyMessage::ResumptionResponse { commit }) => {
                state.join(self.role, &self.config, &commit, now, out).map(Some)
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
        match (state, alert.description) {
            _ if !self.assembler.is_empty() => {}
            (State::ExpectServerHello(state), AlertDescription::HandshakeFailure) => {
                return state.offer_next(&self.config, now, out);
            }
            (State::ExpectResponse(state), AlertDescription::UnknownPskIdentity) => {
                return state.offer_full(&self.config, now, out);
            }
            _ => {}
        }
        Err(Error::AlertReceived(alert.description))
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
            State::ExpectConfirmation(mut established) => established.fail(error, out),
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
            State::ExpectEarlyData(state) => state.hello.refused.clone(),
            _ => None,
        }
    }
}

impl ExpectServerHello {
    /// Sends the first ClientHello.
    fn first(
        config: &Config,
        server_name: ServerName,
        origin: Origin,
        refused: Option<SessionId>,
        key_packages: Option<&KeyPackages>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<State, Error> {
        let mut suites = config.cipher_suites.clone().into_iter();
        let suite = suites.next().ok_or(ConfigError::NoCipherSuite)?;
        let made = key_packages.and_then(|made| made.take(&server_name, suite, now));
        let hello = made.map_or_else(|| Hello::new(config, &server_name, suite, now), Ok)?;
        let (offer, client_hello_hash) = hello.send(out);
        Ok(State::ExpectServerHello(Box::new(Self {
            server_name,
            offer,
            client_hello_hash,
            fallbacks: suites,
            origin,
            refused,
        })))
    }

    fn offer_next(
        mut self: Box<Self>,
        config: &Config,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<State, Error> {
        let Some(suite) = self.fallbacks.next() else {
            let offered = config.cipher_suites.clone();
            return Err(PeerIncompatible::NoCipherSuitesInCommon { offered }.into());
        };
        (self.offer, self.client_hello_hash) =
            Hello::new(config, &self.server_name, suite, now)?.send(out);
        Ok(State::ExpectServerHello(self))
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
        let facts = Facts {
            initial_role: Role::Initiator,
            peer: responder.peer().clone(),
            server_name,
            alpn: (!parameters.alpn.is_empty()).then_some(parameters.alpn),
            peer_max_message_size: parameters.max_message_size,
            created: now.calendar,
        };
        let mut session = Session::new(joined.join(&responder)?, facts);
        session.attach(config)?;
        session.persist()?;
        session.remember(self.refused.as_ref())?;
        let mut established = Established::new(config, Role::Initiator, session, self.origin, now)?;
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
        let hello =
            group::Hello::parse(&config.crypto, &config.cipher_suites, key_package, now.calendar);
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
        let identity = config.identity_for(hello.suite());
        let (group, welcome) = hello.answer(
            &initiator,
            &config.crypto,
            identity,
            &parameters,
            retention(config),
            now.calendar,
        )?;
        let answer = TwoPartyMessage::ServerHello { welcome };
        let answer = encode_within(&answer, offered.max_message_size)?;
        let facts = Facts {
            initial_role: Role::Responder,
            peer: initiator.into_peer(),
            server_name,
            alpn: (!parameters.alpn.is_empty()).then_some(parameters.alpn),
            peer_max_message_size: offered.max_message_size,
            created: now.calendar,
        };
        let mut session = Session::new(group, facts);
        // Stored when the initiator has shown that it is there.
        session.attach(config)?;
        let origin = Origin::full(self.resumption_refused, None);
        let established = Established::new(config, Role::Responder, session, origin, now)?;
        encode_plaintext(ContentType::Handshake, &answer, out);
        Ok(State::ExpectConfirmation(Box::new(established)))
    }
}

/// A ClientHello that can be sent.
pub(super) struct Hello {
    offer: Offer,
    message: Vec<u8>,
    /// The group has to name it.
    hash: Vec<u8>,
}

impl Hello {
    pub(super) fn new(
        config: &Config,
        server_name: &ServerName,
        suite: CipherSuite,
        now: Time,
    ) -> Result<Self, Error> {
        let parameters = InitiatorParameters {
            cipher_suites: config.cipher_suites.iter().map(|suite| suite.id()).collect(),
            alpn: config.alpn.clone(),
            server_name: server_name.as_str().as_bytes().to_vec(),
            max_message_size: config.limits.max_message_size,
        };
        let offer = Offer::new(
            &config.crypto,
            suite,
            config.identity_for(suite),
            parameters,
            retention(config),
            now.calendar,
        )?;
        let message = TwoPartyMessage::ClientHello { key_package: offer.message().to_vec() };
        let message = message.encode()?;
        let hash = config.crypto.hash(suite, &message)?;
        Ok(Self { offer, message, hash })
    }

    /// Gives what is needed to understand the answer.
    fn send(self, out: &mut BytesMut) -> (Offer, Vec<u8>) {
        encode_plaintext(ContentType::Handshake, &self.message, out);
        (self.offer, self.hash)
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

/// Only a group that is stored needs all of what OpenMLS writes.
fn retention(config: &Config) -> Retention {
    match config.sessions {
        Some(_) => Retention::Everything,
        None => Retention::Keys,
    }
}

fn check_early_data(early_data: Option<&[u8]>) -> Result<(), Error> {
    let longest = usize::try_from(MAX_EARLY_DATA).unwrap_or(usize::MAX);
    if early_data.is_some_and(|data| data.len() > longest) {
        return Err(ApiMisuse::EarlyDataTooLong.into());
    }
    Ok(())
}

/// The responder's best protocol that the initiator offers; none if either names none.
fn select_alpn(ours: &[Vec<u8>], offered: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
    if ours.is_empty() || offered.is_empty() {
        return Ok(Vec::new());
    }
    let common = ours.iter().find(|protocol| offered.contains(protocol));
    Ok(common.ok_or(PeerIncompatible::Alpn)?.clone())
}
