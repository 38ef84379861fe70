//! The receiving direction.

use bytes::{Buf, BytesMut};

use super::keys::RecordKey;
use crate::{
    error::{Error, InvalidMessage, PeerMisbehaved},
    wire::{ContentType, MAX_PLAINTEXT, Record, TAG_LEN},
};

/// Opens records under the key of one epoch, and keeps the next one at hand when it is known.
///
/// TLS records carry no epoch. The peer says with a message, the last one under the old key, that
/// it goes on under the next: were the first record that opens under the next key the sign, somebody
/// could take away the last ones under the old key, and nobody would notice.
pub(crate) struct ReceivePath {
    current: RecordKey,
    next: Option<RecordKey>,
}

/// What was in a record.
pub(crate) struct Opened {
    pub(crate) content_type: ContentType,
    pub(crate) content: BytesMut,
}

impl ReceivePath {
    pub(crate) fn new(key: RecordKey) -> Self {
        Self { current: key, next: None }
    }

    /// Keeps the key of the next epoch until the peer goes on under it.
    pub(crate) fn expect(&mut self, key: RecordKey) {
        self.next = Some(key);
    }

    /// Goes on under the expected key. The old key is erased.
    pub(crate) fn switch_to_expected(&mut self) {
        if let Some(key) = self.next.take() {
            self.current = key;
        }
    }

    /// Goes on under another key. The old key is erased.
    pub(crate) fn switch(&mut self, key: RecordKey) {
        self.current = key;
        self.next = None;
    }

    /// Opens a TLSCiphertext in place (RFC 8446, section 5.2).
    pub(crate) fn open(&mut self, record: Record) -> Result<Opened, Error> {
        let Record { content_type, header, payload: mut content } = record;
        if content_type != ContentType::ApplicationData {
            return Err(PeerMisbehaved::UnexpectedRecord("unprotected").into());
        }
        if content.len() < 1 + TAG_LEN {
            return Err(InvalidMessage::RecordTooShort.into());
        }
        let key = &mut self.current;
        if key.remaining() == 0 {
            return Err(PeerMisbehaved::BadRecordMac.into());
        }
        let length = key
            .aead
            .open_in_place(key.nonce(), &header, &mut content)
            .map_err(|_| PeerMisbehaved::BadRecordMac)?;
        key.advance();
        if length > MAX_PLAINTEXT + 1 {
            return Err(InvalidMessage::RecordTooLong(length).into());
        }
        content.truncate(length);
        let Some(last) = content.iter().rposition(|&byte| byte != 0) else {
            return Err(InvalidMessage::MissingContentType.into());
        };
        let content_type = ContentType::from_u8(content[last])?;
        content.truncate(last);
        Ok(Opened { content_type, content })
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

impl Opened {
    /// The whole content of an alert or a handshake fragment, copied out.
    pub(crate) fn is_empty(&self) -> bool {
        !self.content.has_remaining()
    }
}
