//! The receiving direction.

use bytes::BytesMut;

use super::keys::RecordKey;
use crate::{
    error::{Error, InvalidMessage, PeerMisbehaved},
    wire::{ContentType, MAX_PLAINTEXT, Record, RecordHeader, TAG_LEN},
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
        let Record { content_type, header: _, payload: mut content } = record;
        let header = RecordHeader { content_type, length: content.len() };
        let (content_type, length) = self.open_in_place(header, &mut content)?;
        content.truncate(length);
        Ok(Opened { content_type, content })
    }

    /// Opens the TLSCiphertext with this header and payload. Gives the type and the length of the
    /// content, which is at the front of `payload`.
    pub(crate) fn open_in_place(
        &mut self,
        header: RecordHeader,
        payload: &mut [u8],
    ) -> Result<(ContentType, usize), Error> {
        self.check(header.content_type, payload.len())?;
        let key = &mut self.current;
        let length = key
            .aead
            .open_in_place(key.nonce(), &header.encode(), payload)
            .map_err(|_| PeerMisbehaved::BadRecordMac)?;
        key.advance();
        Ok(inner(&payload[..length])?)
    }

    /// As [`ReceivePath::open_in_place`], into `out`, which is a tag shorter than the payload.
    #[cfg(feature = "tokio")]
    pub(crate) fn open_into(
        &mut self,
        header: RecordHeader,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<(ContentType, usize), Error> {
        self.check(header.content_type, payload.len())?;
        let key = &mut self.current;
        key.aead
            .open_into(key.nonce(), &header.encode(), payload, out)
            .map_err(|_| PeerMisbehaved::BadRecordMac)?;
        key.advance();
        Ok(inner(out)?)
    }

    fn check(&self, content_type: ContentType, length: usize) -> Result<(), Error> {
        if content_type != ContentType::ApplicationData {
            return Err(PeerMisbehaved::UnexpectedRecord("unprotected").into());
        }
        if length < 1 + TAG_LEN {
            return Err(InvalidMessage::RecordTooShort.into());
        }
        if self.current.remaining() == 0 {
            return Err(PeerMisbehaved::BadRecordMac.into());
        }
        Ok(())
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

/// The type and the length of what is in a TLSInnerPlaintext.
fn inner(plaintext: &[u8]) -> Result<(ContentType, usize), InvalidMessage> {
    if plaintext.len() > MAX_PLAINTEXT + 1 {
        return Err(InvalidMessage::RecordTooLong(plaintext.len()));
    }
    let last = plaintext.iter().rposition(|&byte| byte != 0);
    let length = last.ok_or(InvalidMessage::MissingContentType)?;
    Ok((ContentType::from_u8(plaintext[length])?, length))
}
