//! Traffic secrets and the keys made of them (RFC 8446, section 7.3).

use zeroize::Zeroizing;

use crate::{
    crypto::{AeadKey, CipherSuite, CryptoProvider},
    error::CryptoError,
};

/// A traffic secret exported from an epoch of the group (TL-01). Turning it into a key consumes
/// and erases it.
pub(crate) struct TrafficSecret(Zeroizing<Vec<u8>>);

impl TrafficSecret {
    pub(crate) fn new(secret: Zeroizing<Vec<u8>>) -> Self {
        Self(secret)
    }

    /// For a key log.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// The key of one direction in one epoch, with its nonces.
pub(crate) struct RecordKey {
    pub(super) aead: AeadKey,
    iv: Zeroizing<[u8; 12]>,
    sequence_number: u64,
    limit: u64,
}

impl RecordKey {
    /// Derives write key and IV (TL-03). The secret is erased on return (TL-04).
    pub(crate) fn derive(
        crypto: &CryptoProvider,
        suite: CipherSuite,
        secret: TrafficSecret,
    ) -> Result<Self, CryptoError> {
        let aead = suite.aead();
        let mut key = Zeroizing::new([0; 32]);
        let key = &mut key[..aead.key_len()];
        let mut iv = Zeroizing::new([0; 12]);
        crypto.expand_label(suite, &secret.0, "key", &[], key)?;
        crypto.expand_label(suite, &secret.0, "iv", &[], &mut *iv)?;
        Ok(Self {
            aead: crypto.aead_key(aead, key)?,
            iv,
            sequence_number: 0,
            limit: aead.record_limit(),
        })
    }

    /// The nonce of the next record: the IV XOR the sequence number (RFC 8446, section 5.3).
    pub(super) fn nonce(&self) -> [u8; 12] {
        let mut nonce = *self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence_number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// Counts a record that was sealed or opened.
    pub(super) fn advance(&mut self) {
        self.sequence_number += 1;
    }

    /// How many records the key may still protect.
    pub(super) fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.sequence_number)
    }

    /// Half of the records are used up.
    pub(super) fn is_worn(&self) -> bool {
        self.sequence_number >= self.limit / 2
    }
}

#[cfg(test)]
impl RecordKey {
    pub(crate) fn sequence_number(&self) -> u64 {
        self.sequence_number
    }

    pub(crate) fn set_sequence_number(&mut self, number: u64) {
        self.sequence_number = number;
    }

    /// Whether a record was sealed under this key with the current sequence number.
    pub(crate) fn opens(&self, record: &crate::wire::Record) -> bool {
        let mut payload = record.payload().to_vec();
        self.aead.open_in_place(self.nonce(), record.header(), &mut payload).is_ok()
    }
}
