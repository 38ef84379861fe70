//! The receiving direction of an established connection.

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;

use super::shared::Shared;
use crate::{
    error::{Error, InvalidMessage, PeerMisbehaved},
    record::{Opened, ReceivePath, RecordKey},
    wire::{Alert, AlertDescription, ContentType, MessageAssembler, Record, TwoPartyMessage},
};

/// Empty records in a row that are put up with.
const MAX_EMPTY_RECORDS: u32 = 32;

/// Opens records and sorts what is in them. What concerns the group is for the
/// [`Sender`](super::sender::Sender), which has it: a [`Control`] must be handed over, and the key
/// change that comes back be applied, before the next record is opened.
pub(crate) struct Receiver {
    path: ReceivePath,
    assembler: MessageAssembler,
    /// The epoch to which the peer has still to switch.
    expected: Option<u64>,
    closed: bool,
    empty_records: u32,
    /// How much was received when the sending side was last asked about its rekey policy.
    attended: (u64, u64),
    shared: Arc<Shared>,
}

/// What a record brought.
pub(crate) enum Incoming {
    /// Application data, never empty.
    Data(BytesMut),
    Control(Control),
}

/// What the sending side has to deal with.
pub(crate) enum Control {
    /// A ConnectionUpdate's MLSMessage.
    Update(Vec<u8>),
    /// An EpochKeyUpdate's epoch.
    EpochKeyUpdate(u64),
    /// The peer's close_notify.
    PeerClosed,
    /// The rekey policy may want an update.
    Attention,
    /// This moment has passed.
    Timeout(Instant),
    /// This direction failed: the peer is to be told.
    Failure(Error),
}

/// How the receiving direction goes on.
pub(crate) enum KeyChange {
    /// The peer goes on under the current key, until it says that it switches to this one, of this
    /// epoch.
    Expect(RecordKey, u64),
    /// The peer has switched.
    Switch(RecordKey),
}

impl Receiver {
    pub(crate) fn new(path: ReceivePath, max_message_size: usize, shared: Arc<Shared>) -> Self {
        Self {
            path,
            assembler: MessageAssembler::new(max_message_size),
            expected: None,
            closed: false,
            empty_records: 0,
            attended: (0, 0),
            shared,
        }
    }

    /// Takes records off the front of `input` until one of them means something. `None`: more
    /// input is needed.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, Error> {
        loop {
            if let Some(attention) = self.attention() {
                return Ok(Some(Incoming::Control(attention)));
            }
            let Some(record) = Record::split_from(input)? else {
                return Ok(None);
            };
            if let Some(incoming) = self.handle_record(record)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// Opens one record.
    pub(crate) fn handle_record(&mut self, record: Record) -> Result<Option<Incoming>, Error> {
        let opened = self.path.open(record)?;
        match opened.content_type {
            ContentType::ApplicationData => self.handle_data(opened),
            ContentType::Handshake => self.handle_handshake(&opened),
            ContentType::Alert => self.handle_alert(&opened),
        }
    }

    fn handle_data(&mut self, opened: Opened) -> Result<Option<Incoming>, Error> {
        if !self.assembler.is_empty() {
            return Err(PeerMisbehaved::MisalignedMessage.into());
        }
        if opened.is_empty() {
            self.count_empty()?;
            return Ok(None);
        }
        if self.closed {
            return Err(PeerMisbehaved::DataAfterClose.into());
        }
        self.empty_records = 0;
        let counters = &self.shared.counters;
        counters.bytes_received.add(opened.content.len() as u64);
        counters.records_received.add(1);
        Ok(Some(Incoming::Data(opened.content)))
    }

    fn handle_handshake(&mut self, opened: &Opened) -> Result<Option<Incoming>, Error> {
        if opened.is_empty() {
            return Err(InvalidMessage::RecordTooShort.into());
        }
        self.assembler.push(&opened.content)?;
        let Some(message) = self.assembler.next()? else {
            return Ok(None);
        };
        // Either message may change the keys, so nothing may follow in the same record.
        if !self.assembler.is_empty() {
            return Err(PeerMisbehaved::MisalignedMessage.into());
        }
        let message = message.decode()?;
        if let Some(expected) = self.expected {
            return self.handle_switch(expected, &message).map(|()| None);
        }
        Ok(Some(Incoming::Control(match message {
            TwoPartyMessage::ConnectionUpdate { commit } => Control::Update(commit),
            TwoPartyMessage::EpochKeyUpdate { epoch } => Control::EpochKeyUpdate(epoch),
            other => return Err(PeerMisbehaved::UnexpectedMessage(other.name()).into()),
        })))
    }

    /// The peer has seen the answer to its update and goes on under the new epoch. It has nothing
    /// else to say under the old one.
    fn handle_switch(&mut self, expected: u64, message: &TwoPartyMessage) -> Result<(), Error> {
        match *message {
            TwoPartyMessage::EpochKeyUpdate { epoch } if epoch == expected => {
                self.path.switch_to_expected();
                self.expected = None;
                self.empty_records = 0;
                Ok(())
            }
            TwoPartyMessage::EpochKeyUpdate { epoch } => {
                Err(PeerMisbehaved::WrongEpoch { expected, got: epoch }.into())
            }
            _ => Err(PeerMisbehaved::UnexpectedMessage(message.name()).into()),
        }
    }

    fn handle_alert(&mut self, opened: &Opened) -> Result<Option<Incoming>, Error> {
        let alert = Alert::decode(&opened.content)?;
        match alert.description {
            AlertDescription::CloseNotify if self.closed => {
                Err(PeerMisbehaved::DataAfterClose.into())
            }
            AlertDescription::CloseNotify => {
                self.closed = true;
                Ok(Some(Incoming::Control(Control::PeerClosed)))
            }
            description => Err(Error::AlertReceived(description)),
        }
    }

    fn count_empty(&mut self) -> Result<(), Error> {
        self.empty_records += 1;
        if self.empty_records > MAX_EMPTY_RECORDS {
            return Err(PeerMisbehaved::TooManyEmptyRecords.into());
        }
        Ok(())
    }

    /// Whether the sending side should look at its rekey policy; asked once for each threshold.
    fn attention(&mut self) -> Option<Control> {
        let counters = &self.shared.counters;
        let thresholds = (counters.attention_bytes.value(), counters.attention_records.value());
        let reached = counters.bytes_received.value() >= thresholds.0
            || counters.records_received.value() >= thresholds.1;
        if !reached || self.attended == thresholds {
            return None;
        }
        self.attended = thresholds;
        Some(Control::Attention)
    }

    /// Applies what the sending side made of a [`Control`].
    pub(crate) fn apply(&mut self, change: KeyChange) {
        self.empty_records = 0;
        match change {
            KeyChange::Expect(key, epoch) => {
                self.path.expect(key);
                self.expected = Some(epoch);
            }
            KeyChange::Switch(key) => self.path.switch(key),
        }
    }

    /// The stream ended. Without a close_notify that is an attack, or the peer vanished (CH-04).
    pub(crate) fn handle_eof(&self) -> Result<(), Error> {
        if self.closed { Ok(()) } else { Err(Error::Truncated) }
    }

    /// The peer has still to switch to the current epoch.
    pub(crate) fn expects_switch(&self) -> bool {
        self.expected.is_some()
    }

    /// The peer has closed its direction.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    #[cfg(test)]
    pub(crate) fn path(&self) -> &ReceivePath {
        &self.path
    }

    #[cfg(test)]
    pub(crate) fn path_mut(&mut self) -> &mut ReceivePath {
        &mut self.path
    }
}
