//! The part of the handshake that resumes sessions.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{
    super::{
        established::{Established, Origin},
        resumption::{Answer, EarlyData, Request, Requester},
        session::Session,
        shared::EarlyDataStatus,
    },
    ExpectClientHello, ExpectServerHello, Handshake, MAX_HELLOS, State,
};
use crate::{
    auth::Role,
    config::Config,
    error::{Error, PeerMisbehaved, SessionError, StoreError},
    name::ServerName,
    time::Time,
    wire::{Alert, AlertDescription, ContentType, Record, encode_plaintext},
};

/// This party waits for the answer to its request.
pub(super) struct ExpectResponse {
    requester: Requester,
    /// For the full handshake if the request is refused. `None`: there will be none.
    server_name: Option<ServerName>,
    /// What became of early data, unless the response says more; `None`: there was none.
    early_data: Option<EarlyDataStatus>,
}

/// The responder waits for the rest of the early data before it answers the request.
pub(super) struct ExpectEarlyData {
    request: Request,
    early_data: EarlyData,
    pub(super) hello: ExpectClientHello,
}

impl Handshake {
    /// A request (2P-14). What cannot be resumed is refused, and a ClientHello may follow.
    pub(super) fn handle_request(
        &mut self,
        mut hello: ExpectClientHello,
        request: Request,
        early_data: Option<Bytes>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        let answer = request.answer(&self.config, early_data.as_ref(), now, out);
        if early_data.is_none() {
            self.skip = request.skip();
        }
        self.state = match answer {
            Ok(Answer::AwaitEarlyData(early_data)) => {
                self.skip = Default::default();
                State::ExpectEarlyData(Box::new(ExpectEarlyData { request, early_data, hello }))
            }
            Ok(Answer::Respond { session, took_early_data, .. }) => {
                if took_early_data {
                    self.early_data = early_data;
                }
                let origin = Origin::resumed(None);
                let established = Established::new(&self.config, self.role, *session, origin, now)?;
                State::ExpectConfirmation(Box::new(established))
            }
            Ok(Answer::OwnRequest(requester)) => {
                State::ExpectResponse(Box::new(ExpectResponse::new(requester, None, false)))
            }
            Err(error) => {
                hello.hellos += 1;
                if hello.hellos == MAX_HELLOS {
                    return Err(error);
                }
                let alert = Alert::new(AlertDescription::UnknownPskIdentity).encode();
                encode_plaintext(ContentType::Alert, &alert, out);
                hello.refused = Some(error.clone());
                hello.resumption_refused = Some(error);
                State::ExpectClientHello(hello)
            }
        };
        Ok(())
    }

    pub(super) fn handle_early_data(
        &mut self,
        mut state: Box<ExpectEarlyData>,
        record: Record,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        match state.early_data.handle_record(record)? {
            Some(data) => {
                let ExpectEarlyData { request, hello, .. } = *state;
                self.handle_request(hello, request, Some(data), now, out)
            }
            None => {
                self.state = State::ExpectEarlyData(state);
                Ok(())
            }
        }
    }

    /// The answer to a request is the peer's own, which stands (2P-18). It is answered with a response
    /// or not at all: requests go back and forth once. It has to be for the session that was asked for:
    /// any other one is with somebody else.
    pub(super) fn handle_crossing_request(
        &mut self,
        state: &ExpectResponse,
        request: &Request,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        const UNEXPECTED: PeerMisbehaved = PeerMisbehaved::UnexpectedMessage("ResumptionRequest");
        let is_answer = self.role == Role::Initiator && !request.has_early_data();
        if !is_answer || request.session()? != *state.requester.id() {
            return Err(UNEXPECTED.into());
        }
        let answer = request.answer(&self.config, None, now, out);
        if let Err(Error::PeerNotTrusted(_) | Error::Session(SessionError::OutOfStep)) = answer {
            request.give_up(&self.config, now)?;
        }
        let Answer::Respond { session, dropped_own, .. } = answer? else {
            return Err(UNEXPECTED.into());
        };
        let early_data = match dropped_own {
            true => state.early_data.map(|_| EarlyDataStatus::Rejected),
            false => state.early_data,
        };
        let origin = Origin::resumed(early_data);
        let established = Established::new(&self.config, self.role, *session, origin, now)?;
        self.state = State::ExpectConfirmation(Box::new(established));
        Ok(())
    }
}

impl ExpectResponse {
    pub(super) fn new(
        requester: Requester,
        server_name: Option<ServerName>,
        early_data: bool,
    ) -> Self {
        let early_data = early_data.then_some(match requester.early_data_sent() {
            true => EarlyDataStatus::Unknown,
            false => EarlyDataStatus::Rejected,
        });
        Self { requester, server_name, early_data }
    }

    /// The peer has answered.
    pub(super) fn join(
        self,
        role: Role,
        config: &Arc<Config>,
        response: &[u8],
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Established, Error> {
        let (session, taken) = self.requester.handle_response(config, response, now)?;
        let early_data = self.early_data.map(|_| match taken {
            true => EarlyDataStatus::Accepted,
            false => EarlyDataStatus::Rejected,
        });
        let origin = Origin::resumed(early_data);
        let mut established = Established::new(config, role, session, origin, now)?;
        established.sender.confirm(out)?;
        Ok(established)
    }

    /// The peer refuses to resume. Anybody could say so: nothing is removed yet, and what became of
    /// early data is not known.
    pub(super) fn offer_full(
        self,
        config: &Config,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<State, Error> {
        let refused = Error::AlertReceived(AlertDescription::UnknownPskIdentity);
        let Some(server_name) = self.server_name else {
            return Err(refused);
        };
        let origin = Origin::full(Some(refused), self.early_data);
        let session = self.requester.id().clone();
        ExpectServerHello::first(config, server_name, origin, Some(session), None, now, out)
    }
}

/// Sends a request for the newest session with a server that is not in use and can be resumed. If
/// there is none, the error says why the last one could not.
pub(super) fn request_any(
    config: &Config,
    server_name: &ServerName,
    early_data: Option<&[u8]>,
    now: Time,
    out: &mut BytesMut,
) -> Result<(Option<Requester>, Option<Error>), Error> {
    let Some(sessions) = &config.sessions else {
        return Ok((None, None));
    };
    let mut not_resumed = None;
    for id in sessions.of_name(server_name)? {
        let requester =
            Session::load(config, &id, now).and_then(|mut session| match session.try_lease() {
                true => {
                    let early_data = early_data.unwrap_or_default();
                    Requester::start(config, session, early_data, out).map(Some)
                }
                false => Ok(None),
            });
        match requester {
            Ok(Some(requester)) => return Ok((Some(requester), None)),
            Ok(None) => {}
            Err(Error::Session(SessionError::Unknown)) => sessions.forget(server_name, &id)?,
            Err(
                error @ (Error::Session(_)
                | Error::PeerNotTrusted(_)
                | Error::Store(StoreError::Corrupt(_))),
            ) => not_resumed = Some(error),
            Err(error) => return Err(error),
        }
    }
    Ok((None, not_resumed))
}
