//! The receiving direction.

use bytes::{Buf, BytesMut};

use super::keys::RecordKey;
use crate::{
    error::{Error, InvalidMessage, PeerMisbehaved},
    wire::{ContentType, MAX_PLAINTEXT, Record, TAG_LEN},
};

/// Opens records under the key of one epoch, or for a while of two.
///
/// TLS records carry no epoch. A party that has answered a ConnectionUpdate holds the keys of both
/// epochs until the first record of the new one opens; then the old key is erased.
pub(crate) struct ReceivePath {
    current: RecordKey,
    next: Option<RecordKey>,
}

/// What was in a record.
pub(crate) struct Opened {
    pub(crate) content_type: ContentType,
    pub(crate) content: BytesMut,
    /// The record was the first of the next epoch.
    pub(crate) switched: bool,
}

impl ReceivePath {
    pub(crate) fn new(key: RecordKey) -> Self {
        Self { current: key, next: None }
    }

    /// Expects the next epoch: its first record ends the current one.
    pub(crate) fn expect(&mut self, key: RecordKey) {
        self.next = Some(key);
    }

    /// Goes on under the next epoch at once. The old key is erased.
    pub(crate) fn switch(&mut self, key: RecordKey) {
        self.current = key;
        self.next = None;
    }

    /// Opens a TLSCiphertext in place (RFC 8446, section 5.2).
    pub(crate) fn open(&mut self, record: Record) -> Result<Opened, Error> {
        if record.content_type != ContentType::ApplicationData {
            return Err(PeerMisbehaved::UnexpectedRecord("unprotected").into());
        }
        if record.payload.len() < 1 + TAG_LEN {
            return Err(InvalidMessage::RecordTooShort.into());
        }
        let (mut content, switched) = self.decrypt(record)?;
        let Some(last) = content.iter().rposition(|&byte| byte != 0) else {
            return Err(InvalidMessage::MissingContentType.into());
        };
        let content_type = ContentType::from_u8(content[last])?;
        content.truncate(last);
        Ok(Opened { content_type, content, switched })
    }

    fn decrypt(&mut self, record: Record) -> Result<(BytesMut, bool), Error> {
        let Record { header, mut payload, .. } = record;
        // A failed open spoils the bytes, so the first of two attempts is made on a copy.
        let spare = self.next.as_ref().map(|_| BytesMut::from(&payload[..]));
        let (length, switched) = match try_open(&mut self.current, &header, &mut payload) {
            Some(length) => (length, false),
            None => {
                let (Some(mut next), Some(spare)) = (self.next.take(), spare) else {
                    return Err(PeerMisbehaved::BadRecordMac.into());
                };
                payload = spare;
                let length = try_open(&mut next, &header, &mut payload)
                    .ok_or(PeerMisbehaved::BadRecordMac)?;
                self.current = next;
                (length, true)
            }
        };
        if length > MAX_PLAINTEXT + 1 {
            return Err(InvalidMessage::RecordTooLong(length).into());
        }
        payload.truncate(length);
        Ok((payload, switched))
    }

    /// Both keys are held: the peer's switch is awaited.
    pub(crate) fn expects_switch(&self) -> bool {
        self.next.is_some()
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> (&RecordKey, Option<&RecordKey>) {
        (&self.current, self.next.as_ref())
    }

    #[cfg(test)]
    pub(crate) fn current_mut(&mut self) -> &mut RecordKey {
        &mut self.current
    }
}

fn try_open(key: &mut RecordKey, header: &[u8], payload: &mut BytesMut) -> Option<usize> {
    if key.remaining() == 0 {
        return None;
    }
    let length = key.aead.open_in_place(key.nonce(), header, &mut payload[..]).ok()?;
    key.advance();
    Some(length)
}

impl Opened {
    /// The whole content of an alert or a handshake fragment, copied out.
    pub(crate) fn is_empty(&self) -> bool {
        !self.content.has_remaining()
    }
}
