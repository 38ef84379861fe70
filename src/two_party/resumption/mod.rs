//! Resumption: a session goes on over another connection, and heals while doing so (2P-14).
//!
//! ```text
//! either party                                the other one
//!     store the commit                            │
//!     ResumptionRequest (commit)    ───────►  look at the table, apply it, make a commit, store both
//!     early data, maybe             ═══════►  deliver it, if the table applied the commit
//!     merge, apply, store           ◄───────  ResumptionResponse (commit)
//!     established; first record     ═══════►  merge, store; established
//! ```
//!
//! Whoever was waiting for an answer when the last connection broke sends the same commit again. All
//! that is decided comes from the store: a session is loaded, changed on a copy, and committed
//! against the revision that was loaded, so that an error leaves no trace and several connections
//! cannot disagree.

#[cfg(test)]
mod model;
mod table;

use bytes::{Bytes, BytesMut};

pub(crate) use self::table::{Incoming, View};
use self::table::{OnRequest, answers, on_request};
use super::session::{Applied, Session};
use crate::{
    config::Config,
    crypto::constant_time_eq,
    error::{CryptoError, Error, InvalidMessage, PeerMisbehaved, SessionError},
    group::CommitHeader,
    record::{ReceivePath, RecordKey, SendPath, TrafficSecret},
    store::{Lease, SessionId},
    time::Time,
    wire::{
        BINDER_LEN, ContentType, ENVELOPE_LEN, MAX_EARLY_DATA, MAX_PLAINTEXT, Record, TAG_LEN,
        TwoPartyMessage, encode_plaintext,
    },
};

/// The exporter label of the binder: only who has made the commit, or has applied it, can derive it.
const BINDER_LABEL: &str = "MLS-TLS resumption binder";

/// The exporter label of early data. It has one of its own because a party may have used the label
/// of its role in that epoch on an earlier connection.
const EARLY_LABEL: &str = "MLS-TLS e ap traffic";

/// What the secret of early data is called in a key log, before its epoch.
const EARLY_LOG_LABEL: &str = "MLS_TLS_EARLY_TRAFFIC_SECRET_";

/// How often an operation is tried again because another connection changed the session meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// A party that has sent a ResumptionRequest.
pub(super) struct Requester {
    id: SessionId,
    commit: Vec<u8>,
    early_data_sent: bool,
    lease: Option<Lease>,
}

/// A ResumptionRequest that has arrived.
pub(super) struct Request {
    commit: Vec<u8>,
    early_data_length: u32,
    binder: [u8; BINDER_LEN],
}

/// What becomes of a request.
pub(super) enum Answer {
    /// All of its early data is needed first.
    AwaitEarlyData(EarlyData),
    /// The response is sent. The session goes on when a record under the pending epoch has opened.
    Respond {
        session: Box<Session>,
        took_early_data: bool,
        /// The peer had not applied the commit in the outbox, which is gone now.
        dropped_own: bool,
    },
    /// Our own request stands, and is sent.
    OwnRequest(Requester),
}

/// Early data on its way.
pub(super) struct EarlyData {
    path: ReceivePath,
    missing: usize,
    data: BytesMut,
}

/// Early data that nobody will read. It is still on the stream.
#[derive(Default)]
pub(super) struct Skip(usize);

impl Requester {
    /// Sends a request, with early data if the commit is made for it now: a commit that was sent
    /// before may have had other data with it, under the same key.
    pub(super) fn start(
        config: &Config,
        mut session: Session,
        early_data: &[u8],
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        let fresh = session.outbox().is_none();
        if fresh {
            session.start_update(&[], None)?;
        }
        // Stored even if the commit was there: connections that still use the session are given up.
        session.set_requested();
        session.persist()?;
        Self::send(config, session, if fresh { early_data } else { &[] }, out)
    }

    /// Sends the request that another one crossed.
    fn insist(config: &Config, mut session: Session, out: &mut BytesMut) -> Result<Self, Error> {
        if !session.is_requested() {
            session.set_requested();
            session.persist()?;
        }
        Self::send(config, session, &[], out)
    }

    fn send(
        config: &Config,
        session: Session,
        early_data: &[u8],
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        let commit = match session.outbox() {
            // Removed just now: what cannot be stored cannot be resumed.
            Some(commit) if session.is_stored() => commit.to_vec(),
            _ => return Err(SessionError::Unknown.into()),
        };
        let early_data_length = u32::try_from(early_data.len())
            .ok()
            .filter(|length| *length <= MAX_EARLY_DATA)
            .ok_or(crate::error::ApiMisuse::EarlyDataTooLong)?;
        let context = binder_context(&commit, early_data_length);
        let mut binder = [0; BINDER_LEN];
        binder.copy_from_slice(&session.group.export_pending(
            BINDER_LABEL,
            &context,
            BINDER_LEN,
        )?);
        let request = TwoPartyMessage::ResumptionRequest {
            commit: commit.clone(),
            early_data_length,
            binder,
        };
        send_message(&session, &request, out)?;
        if !early_data.is_empty() {
            let length = session.group.suite().hash_len();
            let secret = session.group.export_pending(EARLY_LABEL, &[], length)?;
            if let (Some(log), Some(epoch)) = (&config.key_log, session.group.pending_epoch()) {
                let label = format!("{EARLY_LOG_LABEL}{epoch}");
                log.log(&label, &session.group.client_hello_hash()?, &secret);
            }
            let secret = TrafficSecret::new(secret);
            let key = RecordKey::derive(session.group.crypto(), session.group.suite(), secret)?;
            let mut path = SendPath::new(key);
            for chunk in early_data.chunks(MAX_PLAINTEXT) {
                path.seal_data(chunk, out)?;
            }
        }
        Ok(Self {
            id: session.id(),
            commit,
            early_data_sent: !early_data.is_empty(),
            lease: session.lease,
        })
    }

    /// Takes the response (2P-16). The session is stored when this returns; with it comes whether
    /// early data was taken.
    pub(super) fn handle_response(
        self,
        config: &Config,
        response: &[u8],
        now: Time,
    ) -> Result<(Session, bool), Error> {
        let header = CommitHeader::parse(response)?;
        for _ in 0..MAX_ATTEMPTS {
            let mut session = Session::load(config, &self.id, now)?;
            // Another connection may have been answered first.
            if session.outbox() != Some(&*self.commit) {
                return Err(SessionError::Superseded.into());
            }
            let incoming = session.incoming(&header, response)?;
            if header.group_id != self.id.as_bytes() || !answers(session.view(), incoming) {
                return Err(PeerMisbehaved::CommitForWrongEpoch.into());
            }
            session.merge_update()?;
            if let Applied::Refused(reason) = session.try_update(response, config, now)? {
                // The peer will say nothing else, and it is authentic: this session is over.
                session.remove()?;
                return Err(reason.into());
            }
            match session.persist() {
                Ok(()) => {
                    session.lease = self.lease;
                    let taken = self.early_data_sent && header.authenticated_data == [1];
                    return Ok((session, taken));
                }
                Err(Error::Session(SessionError::Superseded)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(SessionError::Superseded.into())
    }

    pub(super) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(super) fn early_data_sent(&self) -> bool {
        self.early_data_sent
    }
}

impl Request {
    pub(super) fn new(
        commit: Vec<u8>,
        early_data_length: u32,
        binder: [u8; BINDER_LEN],
    ) -> Result<Self, Error> {
        if early_data_length > MAX_EARLY_DATA {
            return Err(PeerMisbehaved::EarlyData("longer than 1 MiB").into());
        }
        Ok(Self { commit, early_data_length, binder })
    }

    /// Answers the request by the table (2P-17). `early_data` is what
    /// [`Answer::AwaitEarlyData`] asked for; whether it is taken comes with the answer. On an error
    /// nothing has changed and nothing was sent: the request is to be refused.
    pub(super) fn answer(
        &self,
        config: &Config,
        early_data: Option<&Bytes>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Answer, Error> {
        for _ in 0..MAX_ATTEMPTS {
            match self.try_answer(config, early_data, now, out) {
                // Another connection has changed the session since it was loaded.
                Err(Error::Session(SessionError::Superseded)) => {}
                result => return result,
            }
        }
        Err(SessionError::Superseded.into())
    }

    fn try_answer(
        &self,
        config: &Config,
        early_data: Option<&Bytes>,
        now: Time,
        out: &mut BytesMut,
    ) -> Result<Answer, Error> {
        let (mut session, row) = self.evaluate(config, now)?;
        let taken = match row {
            OnRequest::KeepOwn => {
                let own = Session::load(config, &session.id(), now)?;
                return Ok(Answer::OwnRequest(Requester::insist(config, own, out)?));
            }
            OnRequest::Repeat => false,
            _ if early_data.is_some() => true,
            _ if (1..=config.limits.max_early_data).contains(&self.early_data_length) => {
                let early_data = EarlyData::expect(config, &session, self.early_data_length)?;
                return Ok(Answer::AwaitEarlyData(early_data));
            }
            _ => false,
        };
        if session.outbox().is_none() {
            session.start_update(&[u8::from(taken)], None)?;
            session.persist()?;
        }
        let commit = match session.outbox() {
            Some(commit) if session.is_stored() => commit.to_vec(),
            _ => return Err(SessionError::Unknown.into()),
        };
        send_message(&session, &TwoPartyMessage::ResumptionResponse { commit }, out)?;
        session.lease();
        Ok(Answer::Respond {
            session: Box::new(session),
            took_early_data: taken,
            dropped_own: row == OnRequest::DropOwnThenApply,
        })
    }

    /// The session that it is for.
    pub(super) fn session(&self) -> Result<SessionId, Error> {
        Ok(SessionId::new(CommitHeader::parse(&self.commit)?.group_id))
    }

    /// The request came as the answer to one, and cannot be applied (2P-13). If the peer had to say just
    /// this, it will not say anything else about this session: it is over. What stands against a request of
    /// ours that does not yield is a replay, which ends nothing.
    pub(super) fn give_up(&self, config: &Config, now: Time) -> Result<(), Error> {
        let header = CommitHeader::parse(&self.commit)?;
        match self.look_up(&header, config, now) {
            Ok((
                mut session,
                OnRequest::Apply | OnRequest::DropOwnThenApply | OnRequest::MergeOwnThenApply,
            )) => session.remove(),
            // One that could not be loaded has been removed, or cannot be.
            Ok((_, OnRequest::KeepOwn | OnRequest::Repeat | OnRequest::Refuse)) | Err(_) => Ok(()),
        }
    }

    /// Loads the session, and says what the table says.
    fn look_up(
        &self,
        header: &CommitHeader,
        config: &Config,
        now: Time,
    ) -> Result<(Session, OnRequest), Error> {
        let session = Session::load(config, &SessionId::new(header.group_id.clone()), now)?;
        let row = on_request(session.view(), session.incoming(header, &self.commit)?);
        Ok((session, row))
    }

    /// Loads the session and does to the copy what the table says, up to the answer.
    fn evaluate(&self, config: &Config, now: Time) -> Result<(Session, OnRequest), Error> {
        let header = CommitHeader::parse(&self.commit)?;
        let (mut session, row) = self.look_up(&header, config, now)?;
        match row {
            OnRequest::Refuse => return Err(SessionError::OutOfStep.into()),
            OnRequest::Apply => session.apply_update(&self.commit, config, now)?,
            OnRequest::DropOwnThenApply => {
                session.drop_update()?;
                session.apply_update(&self.commit, config, now)?;
            }
            // Of the own request that is kept this copy knows nothing any more: it is only here to
            // find out whether the peer's is genuine.
            OnRequest::KeepOwn if header.epoch == session.group.epoch() => {
                session.drop_update()?;
                session.apply_update(&self.commit, config, now)?;
            }
            OnRequest::KeepOwn => {}
            OnRequest::MergeOwnThenApply => {
                session.merge_update()?;
                session.apply_update(&self.commit, config, now)?;
            }
            OnRequest::Repeat => {}
        }
        let context = binder_context(&self.commit, self.early_data_length);
        let binder = session.group.export(BINDER_LABEL, &context, BINDER_LEN)?;
        if !constant_time_eq(&binder, &self.binder) {
            return Err(SessionError::InvalidBinder.into());
        }
        Ok((session, row))
    }

    pub(super) fn has_early_data(&self) -> bool {
        self.early_data_length != 0
    }

    /// What has to be skipped if the early data is not taken.
    pub(super) fn skip(&self) -> Skip {
        Skip(usize::try_from(self.early_data_length).unwrap_or(usize::MAX))
    }
}

impl EarlyData {
    fn expect(config: &Config, session: &Session, length: u32) -> Result<Self, Error> {
        let group = &session.group;
        let secret = group.export(EARLY_LABEL, &[], group.suite().hash_len())?;
        if let Some(log) = &config.key_log {
            let label = format!("{EARLY_LOG_LABEL}{}", group.epoch());
            log.log(&label, &group.client_hello_hash()?, &secret);
        }
        let key = RecordKey::derive(group.crypto(), group.suite(), TrafficSecret::new(secret))?;
        let missing = usize::try_from(length).map_err(|_| CryptoError::Internal("early data"))?;
        Ok(Self { path: ReceivePath::new(key), missing, data: BytesMut::new() })
    }

    /// Takes a record; gives the data when all of it is there.
    pub(super) fn handle_record(&mut self, record: Record) -> Result<Option<Bytes>, Error> {
        let opened = self.path.open(record)?;
        if opened.content_type != ContentType::ApplicationData {
            return Err(PeerMisbehaved::UnexpectedRecord("other than application data").into());
        }
        let length = opened.content.len();
        if length == 0 || length > self.missing {
            return Err(PeerMisbehaved::EarlyData("not as long as announced").into());
        }
        self.missing -= length;
        self.data.extend_from_slice(&opened.content);
        Ok((self.missing == 0).then(|| self.data.split().freeze()))
    }
}

impl Skip {
    /// Takes a record if it can only be early data. The records of early data have no padding, so
    /// their lengths tell how much is left.
    pub(super) fn handle_record(&mut self, record: &Record) -> Result<bool, Error> {
        if self.0 == 0 || record.content_type != ContentType::ApplicationData {
            return Ok(false);
        }
        let length = record.payload.len().saturating_sub(1 + TAG_LEN);
        if length == 0 {
            return Err(InvalidMessage::RecordTooShort.into());
        }
        self.0 = self
            .0
            .checked_sub(length)
            .ok_or(PeerMisbehaved::EarlyData("not as long as announced"))?;
        Ok(true)
    }
}

/// What the binder covers: the commit and how much early data follows.
fn binder_context(commit: &[u8], early_data_length: u32) -> Vec<u8> {
    [commit, &early_data_length.to_be_bytes()].concat()
}

fn send_message(
    session: &Session,
    message: &TwoPartyMessage,
    out: &mut BytesMut,
) -> Result<(), Error> {
    const TOO_LONG: CryptoError =
        CryptoError::Unsupported("updates as small as the peer wants them");
    let encoded = message.encode().map_err(|_| TOO_LONG)?;
    let limit = usize::try_from(session.facts.peer_max_message_size).unwrap_or(usize::MAX);
    if encoded.len() > limit.saturating_add(ENVELOPE_LEN) {
        return Err(TOO_LONG.into());
    }
    encode_plaintext(ContentType::Handshake, &encoded, out);
    Ok(())
}
