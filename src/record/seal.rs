//! The sending direction.

use super::{Output, keys::RecordKey};
use crate::{
    error::{CryptoError, Error},
    wire::{ContentType, HEADER_LEN, MAX_PLAINTEXT, RecordHeader, TAG_LEN},
};

/// Records kept back for control messages, so that a party whose key is worn out can still
/// answer a rekey and say goodbye.
const CONTROL_RESERVE: u64 = 1024;

/// Seals records under the key of one epoch.
pub(crate) struct SendPath {
    key: RecordKey,
}

impl SendPath {
    pub(crate) fn new(key: RecordKey) -> Self {
        Self { key }
    }

    /// Goes on under the key of the next epoch. The old key is erased.
    pub(crate) fn switch(&mut self, key: RecordKey) {
        self.key = key;
    }

    /// Seals application data, at most `MAX_PLAINTEXT` bytes of it, as one record.
    pub(crate) fn seal_data(&mut self, data: &[u8], out: &mut dyn Output) -> Result<(), Error> {
        if self.key.remaining() <= CONTROL_RESERVE {
            return Err(Error::KeyExhausted);
        }
        self.seal(ContentType::ApplicationData, data, out)
    }

    /// Seals an empty record, which only shows that this party has the key.
    pub(crate) fn seal_empty(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        self.seal(ContentType::ApplicationData, &[], out)
    }

    /// Seals a handshake message or an alert, in as many records as it needs.
    pub(crate) fn seal_control(
        &mut self,
        content_type: ContentType,
        message: &[u8],
        out: &mut dyn Output,
    ) -> Result<(), Error> {
        for fragment in message.chunks(MAX_PLAINTEXT) {
            self.seal(content_type, fragment, out)?;
        }
        Ok(())
    }

    /// Appends one TLSCiphertext (RFC 8446, section 5.2).
    fn seal(
        &mut self,
        content_type: ContentType,
        content: &[u8],
        out: &mut dyn Output,
    ) -> Result<(), Error> {
        debug_assert!(content.len() <= MAX_PLAINTEXT);
        if self.key.remaining() == 0 {
            return Err(Error::KeyExhausted);
        }
        let length = content.len() + 1 + TAG_LEN;
        let header = RecordHeader { content_type: ContentType::ApplicationData, length }.encode();
        let record = out.extend(HEADER_LEN + length);
        let (header_out, sealed) = record.split_at_mut(HEADER_LEN);
        header_out.copy_from_slice(&header);
        let (nonce, content_type) = (self.key.nonce(), content_type.into());
        if self.key.aead.seal_into(nonce, &header, content, content_type, sealed).is_err() {
            // Whoever sends what is in `out` must not send the plaintext.
            record.fill(0);
            out.retract(HEADER_LEN + length);
            return Err(CryptoError::Internal("sealing a record").into());
        }
        self.key.advance();
        Ok(())
    }

    /// Half of what the key may protect is used up: a rekey is due, whatever the policy.
    pub(crate) fn is_worn(&self) -> bool {
        self.key.is_worn()
    }

    #[cfg(test)]
    pub(crate) fn key_mut(&mut self) -> &mut RecordKey {
        &mut self.key
    }
}
