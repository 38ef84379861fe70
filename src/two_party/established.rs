//! An established connection, and the last step to it: the first record under its keys.

use std::sync::Arc;

use bytes::BytesMut;

use super::{
    receiver::{Incoming, Receiver},
    sender::{Sender, record_keys},
    session::Session,
    shared::{EarlyDataStatus, HandshakeKind, Info, Shared},
};
use crate::{
    auth::Role,
    config::Config,
    error::{CryptoError, Error, InvalidMessage, PeerIncompatible},
    record::{ReceivePath, SendPath},
    time::Time,
    wire::{Alert, ContentType, ENVELOPE_LEN, Record, TwoPartyMessage, encode_plaintext},
};

/// Length of the channel binding in bytes.
const CHANNEL_BINDING_LEN: usize = 32;

/// Both directions of an established connection, and what came with the confirmation.
pub(crate) struct Established {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) shared: Arc<Shared>,
    pub(crate) early: Option<Incoming>,
    /// This party's answer to a request may have to be sent again on another connection: until it is
    /// confirmed, its keys must not be used.
    unconfirmed: bool,
}

/// How a connection began.
pub(crate) struct Origin {
    kind: HandshakeKind,
    not_resumed: Option<Error>,
    early_data: Option<EarlyDataStatus>,
}

impl Origin {
    pub(super) fn full(not_resumed: Option<Error>, early_data: Option<EarlyDataStatus>) -> Self {
        Self { kind: HandshakeKind::Full, not_resumed, early_data }
    }

    pub(super) fn resumed(early_data: Option<EarlyDataStatus>) -> Self {
        Self { kind: HandshakeKind::Resumed, not_resumed: None, early_data }
    }
}

impl Established {
    /// The two directions under the keys of the session's epoch; with a commit in its outbox, those
    /// of the epoch to which it leads.
    pub(super) fn new(
        config: &Arc<Config>,
        role: Role,
        session: Session,
        origin: Origin,
        now: Time,
    ) -> Result<Self, Error> {
        let group = &session.group;
        let unconfirmed = session.outbox().is_some();
        let label = "MLS-TLS channel binding";
        let (secrets, binding) = match unconfirmed {
            true => (
                group.pending_traffic_secrets()?,
                group.export_pending(label, &[], CHANNEL_BINDING_LEN)?,
            ),
            false => (group.traffic_secrets()?, group.export(label, &[], CHANNEL_BINDING_LEN)?),
        };
        let mut channel_binding = [0; CHANNEL_BINDING_LEN];
        channel_binding.copy_from_slice(&binding);
        let facts = &session.facts;
        let info = Info {
            role,
            suite: group.suite(),
            alpn: facts.alpn.clone(),
            server_name: facts.server_name.clone(),
            channel_binding,
            kind: origin.kind,
            not_resumed: origin.not_resumed,
            early_data: origin.early_data,
            session_id: session.is_stored().then(|| session.id()),
        };
        let shared = Arc::new(Shared::new(info, facts.peer.clone(), secrets.epoch));
        if let Some(log) = &config.key_log {
            log.log("MLS_TLS_GROUP_ID", &group.client_hello_hash()?, group.id());
        }
        let (send, receive) = record_keys(config.key_log.as_deref(), group, role, secrets)?;
        let receiver = Receiver::new(
            ReceivePath::new(receive),
            to_usize(config.limits.max_message_size),
            Arc::clone(&shared),
        );
        let sender = Sender::new(
            SendPath::new(send),
            session,
            Arc::clone(config),
            Arc::clone(&shared),
            now.monotonic,
        );
        Ok(Self { sender, receiver, shared, early: None, unconfirmed })
    }

    /// Takes the first record of the peer. The session is stored when this returns.
    pub(super) fn handle_confirmation(
        mut self: Box<Self>,
        record: Record,
        out: &mut BytesMut,
    ) -> Result<Self, Error> {
        let opened = match record.content_type {
            // The peer may have refused the last message, and then it has no keys to say so.
            ContentType::Alert => Err(record
                .check_plaintext()
                .and_then(|()| Alert::decode(&record.payload))
                .map_or_else(Error::from, |alert| Error::AlertReceived(alert.description))),
            _ => self.receiver.handle_record(record),
        };
        match opened.and_then(|early| self.sender.confirmed().map(|()| early)) {
            Ok(early) => {
                self.early = early;
                self.unconfirmed = false;
                Ok(*self)
            }
            Err(error) => Err(self.fail(error, out)),
        }
    }

    /// Ends the connection before it has begun.
    pub(super) fn fail(&mut self, error: Error, out: &mut BytesMut) -> Error {
        if !self.unconfirmed {
            return self.sender.fail(error, out);
        }
        if let Some(description) = error.alert() {
            encode_plaintext(ContentType::Alert, &Alert::new(description).encode(), out);
        }
        error
    }
}

/// Encodes a message for a peer that accepts a body of `limit` bytes.
pub(super) fn encode_within(message: &TwoPartyMessage, limit: u32) -> Result<Vec<u8>, Error> {
    let limit = to_usize(limit);
    let too_long = |length| PeerIncompatible::MessageTooLong { length, limit };
    let encoded = message.encode().map_err(|error| match error {
        InvalidMessage::MessageTooLong { length, .. } => Error::from(too_long(length)),
        _ => CryptoError::Internal("encoding a message").into(),
    })?;
    match encoded.len().saturating_sub(ENVELOPE_LEN) {
        length if length > limit => Err(too_long(length).into()),
        _ => Ok(encoded),
    }
}

/// Saturates where `usize` is small.
pub(super) fn to_usize(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // TL-07: the limit counts the body, not its header.
    #[test]
    fn a_message_may_be_as_long_as_the_peer_says() {
        let message = TwoPartyMessage::EpochKeyUpdate { epoch: 1 };
        assert_eq!(encode_within(&message, 8), Ok(message.encode().unwrap()));
        let error = PeerIncompatible::MessageTooLong { length: 8, limit: 7 };
        assert_eq!(encode_within(&message, 7), Err(error.into()));
    }
}
