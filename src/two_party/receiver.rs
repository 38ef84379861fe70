//! The receiving direction of an established connection.

use std::{sync::Arc, time::Instant};

use bytes::{Buf as _, BytesMut};

use super::shared::Shared;
use crate::{
    error::{Error, InvalidMessage, PeerMisbehaved},
    record::{Opened, ReceivePath, RecordKey},
    wire::{
        Alert, AlertDescription, ContentType, HEADER_LEN, MessageAssembler, Record, RecordHeader,
        TwoPartyMessage,
    },
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

/// What the record at the front of the input was.
pub(crate) enum Front {
    /// So many bytes of application data, never none.
    Data(usize),
    Control(Control),
    /// Nothing that anybody has to deal with.
    Nothing,
    /// It has not arrived as a whole.
    Incomplete,
}

/// What the sending side has to deal with.
pub(crate) enum Control {
    /// A ConnectionUpdate's MLSMessage.
    Update(Vec<u8>),
    /// An EpochKeyUpdate's epoch.
    EpochKeyUpdate(u64),
    /// An UpdateRefused's epoch.
    UpdateRefused(u64),
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
            match self.open_front(input)? {
                Front::Data(length) => {
                    let record =
                        Record::split_from(input)?.ok_or(InvalidMessage::RecordTooShort)?;
                    let mut content = record.into_payload();
                    content.truncate(length);
                    return Ok(Some(Incoming::Data(content)));
                }
                Front::Control(control) => return Ok(Some(Incoming::Control(control))),
                Front::Nothing => {}
                Front::Incomplete => return Ok(None),
            }
        }
    }

    /// Opens the record at the front of `input` in place.
    pub(crate) fn open_front(&mut self, input: &mut BytesMut) -> Result<Front, Error> {
        let header = match RecordHeader::at_front(input)? {
            Some(header) if input.len() >= HEADER_LEN + header.length => header,
            _ => return Ok(Front::Incomplete),
        };
        let payload = &mut input[HEADER_LEN..HEADER_LEN + header.length];
        let (content_type, length) = self.path.open_in_place(header, payload)?;
        let front = self.handle_content(content_type, &payload[..length])?;
        if !matches!(front, Front::Data(_)) {
            input.advance(HEADER_LEN + header.length);
        }
        Ok(front)
    }

    /// How much room [`Receiver::next_into`] needs for the record at the front of `input`. `None`: it is
    /// not whole, or [`Receiver::next`] has to look at it.
    #[cfg(feature = "tokio")]
    pub(crate) fn next_len(&self, input: &[u8]) -> Option<usize> {
        let header = RecordHeader::at_front(input).ok()??;
        let whole = input.len() >= HEADER_LEN + header.length;
        header.length.checked_sub(crate::wire::TAG_LEN).filter(|length| whole && *length > 0)
    }

    /// Opens the record at the front of `input` into `out`, of [`Receiver::next_len`] bytes.
    /// Application data is at the front of `out` then; whatever else was in there is erased. The record
    /// is taken off `input`.
    #[cfg(feature = "tokio")]
    pub(crate) fn next_into(
        &mut self,
        input: &mut BytesMut,
        out: &mut [u8],
    ) -> Result<Front, Error> {
        let Some(header) = RecordHeader::at_front(input)? else {
            return Ok(Front::Incomplete);
        };
        let payload = &input[HEADER_LEN..HEADER_LEN + header.length];
        let opened = self.path.open_into(header, payload, out);
        input.advance(HEADER_LEN + header.length);
        let front = opened
            .and_then(|(content_type, length)| self.handle_content(content_type, &out[..length]));
        if !matches!(front, Ok(Front::Data(_))) {
            out.fill(0);
        }
        front
    }

    /// Opens one record.
    pub(crate) fn handle_record(&mut self, record: Record) -> Result<Option<Incoming>, Error> {
        let Opened { content_type, mut content } = self.path.open(record)?;
        Ok(match self.handle_content(content_type, &content)? {
            Front::Data(length) => {
                content.truncate(length);
                Some(Incoming::Data(content))
            }
            Front::Control(control) => Some(Incoming::Control(control)),
            Front::Nothing | Front::Incomplete => None,
        })
    }

    fn handle_content(
        &mut self,
        content_type: ContentType,
        content: &[u8],
    ) -> Result<Front, Error> {
        let control = match content_type {
            ContentType::ApplicationData if self.count_data(content.len())? => {
                return Ok(Front::Data(content.len()));
            }
            ContentType::ApplicationData => None,
            ContentType::Handshake => self.handle_handshake(content)?,
            ContentType::Alert => Some(self.handle_alert(content)?),
        };
        Ok(control.map_or(Front::Nothing, Front::Control))
    }

    /// Application data has arrived, in its place. False if there was none in its record.
    fn count_data(&mut self, length: usize) -> Result<bool, Error> {
        if !self.assembler.is_empty() {
            return Err(PeerMisbehaved::MisalignedMessage.into());
        }
        if length == 0 {
            self.count_empty()?;
            return Ok(false);
        }
        if self.closed {
            return Err(PeerMisbehaved::DataAfterClose.into());
        }
        self.empty_records = 0;
        let counters = &self.shared.counters;
        counters.bytes_received.add(length as u64);
        counters.records_received.add(1);
        Ok(true)
    }

    fn handle_handshake(&mut self, content: &[u8]) -> Result<Option<Control>, Error> {
        if content.is_empty() {
            return Err(InvalidMessage::RecordTooShort.into());
        }
        self.assembler.push(content)?;
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
        Ok(Some(match message {
            TwoPartyMessage::ConnectionUpdate { commit } => Control::Update(commit),
            TwoPartyMessage::EpochKeyUpdate { epoch } => Control::EpochKeyUpdate(epoch),
            TwoPartyMessage::UpdateRefused { epoch } => Control::UpdateRefused(epoch),
            other => return Err(PeerMisbehaved::UnexpectedMessage(other.name()).into()),
        }))
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

    fn handle_alert(&mut self, content: &[u8]) -> Result<Control, Error> {
        let alert = Alert::decode(content)?;
        match alert.description {
            AlertDescription::CloseNotify if self.closed => {
                Err(PeerMisbehaved::DataAfterClose.into())
            }
            AlertDescription::CloseNotify if !self.assembler.is_empty() => {
                Err(PeerMisbehaved::MisalignedMessage.into())
            }
            AlertDescription::CloseNotify => {
                self.closed = true;
                Ok(Control::PeerClosed)
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
    pub(crate) fn attention(&mut self) -> Option<Control> {
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
