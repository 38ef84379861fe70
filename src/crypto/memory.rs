//! What a provider remembers on behalf of one group, so as not to compute it twice.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "aws-lc")]
use super::aws_lc::HpkePrivateKey;

/// Signatures of one KeyPackage: that of its leaf, and its own.
const MAX_SIGNATURES: usize = 2;

/// The memory of a [`CryptoProvider`](super::CryptoProvider) that was made for a group.
#[derive(Default)]
pub(super) struct Memory(Mutex<Contents>);

#[derive(Default)]
struct Contents {
    /// Signatures that this party makes before it is in the group. A Welcome shows the joiner its own
    /// leaf, and OpenMLS verifies it like any other.
    signatures: Vec<Signed>,
    joined: bool,
    /// The HPKE key that opened something last, parsed: parsing is a scalar multiplication.
    #[cfg(feature = "aws-lc")]
    hpke_key: Option<HpkePrivateKey>,
}

struct Signed {
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remember_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) {
        let contents = &mut *self.lock();
        if !contents.joined && contents.signatures.len() < MAX_SIGNATURES {
            contents.signatures.push(Signed {
                key: key.to_vec(),
                message: message.to_vec(),
                signature: signature.to_vec(),
            });
        }
    }

    /// This party has made this very signature of this very message with this key.
    pub(super) fn has_signed(&self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        self.lock().signatures.iter().any(|signed| {
            signed.key == key && signed.message == message && signed.signature == signature
        })
    }

    /// Runs `open` with the parsed key, which is remembered until another one is used.
    #[cfg(feature = "aws-lc")]
    pub(super) fn with_hpke_key<T, E>(
        &self,
        is_wanted: impl Fn(&HpkePrivateKey) -> bool,
        parse: impl FnOnce() -> Result<HpkePrivateKey, E>,
        open: impl FnOnce(&HpkePrivateKey) -> Result<T, E>,
    ) -> Result<T, E> {
        let contents = &mut *self.lock();
        let key = match contents.hpke_key.take().filter(is_wanted) {
            Some(key) => key,
            None => parse()?,
        };
        open(contents.hpke_key.insert(key))
    }

    #[cfg(all(test, feature = "aws-lc"))]
    pub(super) fn has_hpke_key(&self) -> bool {
        self.lock().hpke_key.is_some()
    }

    /// Erases everything. Signatures are not remembered any more.
    pub(super) fn clear(&self) {
        *self.lock() = Contents { joined: true, ..Contents::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_same_signature_is_known() {
        let memory = Memory::default();
        memory.remember_signature(&[1; 32], b"leaf", &[2; 64]);
        assert!(memory.has_signed(&[1; 32], b"leaf", &[2; 64]));
        assert!(!memory.has_signed(&[9; 32], b"leaf", &[2; 64]));
        assert!(!memory.has_signed(&[1; 32], b"leaves", &[2; 64]));
        assert!(!memory.has_signed(&[1; 32], b"leaf", &[9; 64]));
        assert!(!memory.has_signed(&[1; 32], b"leaf", &[2; 63]));
        memory.remember_signature(&[1; 32], b"package", &[3; 64]);
        memory.remember_signature(&[1; 32], b"too many", &[4; 64]);
        assert!(memory.has_signed(&[1; 32], b"package", &[3; 64]));
        assert!(!memory.has_signed(&[1; 32], b"too many", &[4; 64]));
        memory.clear();
        memory.remember_signature(&[1; 32], b"late", &[2; 64]);
        for message in [&b"leaf"[..], b"late"] {
            assert!(!memory.has_signed(&[1; 32], message, &[2; 64]));
        }
    }
}
