//! Application data: several messages in one frame, and frames whose signature covers a hash.
//!
//! Ed25519 hashes what it signs twice with SHA-512, and every receiver once more. So the content of a
//! longer frame is encrypted under a key of its own, and the MLS message has that key and the SHA-256 of
//! the ciphertext. The hash has to bind: all members know the key, and an AEAD alone would let any of
//! them put another ciphertext in its place.

use bytes::Bytes;
use tls_codec::{Serialize as _, VLByteSlice};
use zeroize::Zeroizing;

use crate::{
    crypto::{CipherSuite, CryptoProvider},
    error::{Error, InvalidMessage, PeerMisbehaved},
    wire::split_vector,
};

/// Content above this is sent as a BulkMessage. Below, the second encryption costs more than it saves.
pub(super) const BULK_FROM: usize = 4096;

/// Messages in one frame at most. Empty ones cost a byte on the wire and much more in memory.
pub(crate) const MAX_BATCH: usize = 1024;

/// What the length in front of a message takes at most.
pub(crate) const LENGTH_LEN: usize = 4;

/// Each key is used once.
const NONCE: [u8; 12] = [0; 12];

const MALFORMED: InvalidMessage = InvalidMessage::Malformed("messages of a frame");

/// The content of a frame. `spare` bytes can be appended to it without a copy.
pub(super) fn encode(messages: &[&[u8]], spare: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let length: usize = messages.iter().map(|message| LENGTH_LEN + message.len()).sum();
    let mut content = Zeroizing::new(Vec::with_capacity(length + spare));
    for message in messages {
        VLByteSlice(message).tls_serialize(&mut *content).map_err(|_| MALFORMED)?;
    }
    Ok(content)
}

/// The messages in the content of a frame. They share its memory.
pub(super) fn decode(content: &Bytes) -> Result<Vec<Bytes>, Error> {
    let mut messages = Vec::new();
    let mut rest = &content[..];
    while !rest.is_empty() {
        if messages.len() == MAX_BATCH {
            return Err(PeerMisbehaved::InvalidHeader("too many messages in a frame").into());
        }
        let (message, behind) = split_vector(rest).ok_or(MALFORMED)?;
        messages.push(content.slice_ref(message));
        rest = behind;
    }
    if messages.is_empty() {
        return Err(MALFORMED.into());
    }
    Ok(messages)
}

/// Content that was encrypted under a key of its own.
pub(super) struct Bulk {
    pub(super) ciphertext: Vec<u8>,
    /// For the MLS message.
    pub(super) key: Zeroizing<Vec<u8>>,
    /// For the header.
    pub(super) digest: Vec<u8>,
}

impl Bulk {
    /// Encrypts the content of a frame, in place.
    pub(super) fn seal(
        crypto: &CryptoProvider,
        suite: CipherSuite,
        mut content: Zeroizing<Vec<u8>>,
    ) -> Result<Self, Error> {
        let mut key = Zeroizing::new(vec![0; suite.aead().key_len()]);
        crypto.fill_random(&mut key)?;
        let tag = crypto.aead_key(suite.aead(), &key)?.seal_in_place(NONCE, &[], &mut content)?;
        content.extend_from_slice(&tag);
        let digest = crypto.hash(suite, &content)?;
        Ok(Self { ciphertext: std::mem::take(&mut *content), key, digest })
    }
}

/// Decrypts the content of a frame, whose hash has been compared.
pub(super) fn open_bulk(
    crypto: &CryptoProvider,
    suite: CipherSuite,
    key: &[u8],
    ciphertext: &[u8],
) -> Result<Vec<u8>, Error> {
    if key.len() != suite.aead().key_len() {
        return Err(InvalidMessage::Malformed("BulkMessage").into());
    }
    let key = crypto.aead_key(suite.aead(), key)?;
    let mut content = Zeroizing::new(ciphertext.to_vec());
    let length =
        key.open_in_place(NONCE, &[], &mut content).map_err(|_| PeerMisbehaved::BadRecordMac)?;
    content.truncate(length);
    Ok(std::mem::take(&mut *content))
}

/// The ranges of `messages` that go into one frame each, of at most `limit` bytes.
pub(super) fn batches(messages: &[&[u8]], limit: usize) -> Vec<std::ops::Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (place, message) in messages.iter().enumerate() {
        let length = LENGTH_LEN + message.len();
        if place > start && (bytes + length > limit || place - start == MAX_BATCH) {
            batches.push(start..place);
            (start, bytes) = (place, 0);
        }
        bytes += length;
    }
    if start < messages.len() {
        batches.push(start..messages.len());
    }
    batches
}

/// The body of a BulkMessage.
pub(super) fn encode_bulk(message: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
    let mut body = Vec::with_capacity(LENGTH_LEN + message.len() + ciphertext.len());
    VLByteSlice(message).tls_serialize(&mut body).map_err(|_| MALFORMED)?;
    body.extend_from_slice(ciphertext);
    Ok(body)
}

/// The MLS message and the ciphertext in the body of a BulkMessage.
pub(super) fn split_bulk(body: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    split_vector(body).ok_or_else(|| InvalidMessage::Malformed("BulkMessage").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_put_into_a_frame_and_taken_out() {
        let long = vec![1; 70_000];
        let messages: [&[u8]; 4] = [b"a", b"", &long, b"b"];
        let content = Bytes::from(encode(&messages, 0).unwrap().to_vec());
        assert_eq!(decode(&content).unwrap(), messages);
        assert!(decode(&content.slice(..content.len() - 1)).is_err());
        assert!(decode(&Bytes::new()).is_err());
        assert_eq!(decode(&Bytes::from(vec![0; MAX_BATCH])).unwrap().len(), MAX_BATCH);
        assert!(decode(&Bytes::from(vec![0; MAX_BATCH + 1])).is_err());
    }

    #[test]
    fn frames_are_filled_within_the_limits() {
        let messages: Vec<&[u8]> = vec![&[0; 96]; 25];
        assert_eq!(batches(&messages, 1000), [0..10, 10..20, 20..25]);
        assert_eq!(batches(&messages[..2], 10), [0..1, 1..2]);
        assert_eq!(batches(&vec![&[][..]; MAX_BATCH + 1], 1 << 20), [0..MAX_BATCH, 1024..1025]);
        assert_eq!(batches(&[], 1000), []);
    }

    #[test]
    fn content_is_sealed_under_a_key_of_its_own() {
        let crypto = CryptoProvider::default();
        for &suite in &crypto.cipher_suites() {
            let seal = || Bulk::seal(&crypto, suite, Zeroizing::new(vec![7; 5000])).unwrap();
            let bulk = seal();
            let open = |key: &[u8], sealed: &[u8]| open_bulk(&crypto, suite, key, sealed);
            assert_eq!(open(&bulk.key, &bulk.ciphertext).unwrap(), [7; 5000]);
            assert_eq!(bulk.digest, crypto.hash(suite, &bulk.ciphertext).unwrap());
            assert!(open(&bulk.key[1..], &bulk.ciphertext).is_err());
            assert!(
                open(&bulk.key, &bulk.ciphertext[1..]).is_err() && open(&bulk.key, &[]).is_err()
            );
            assert!(seal().key != bulk.key);
        }
    }
}
