//! The KEMs of HPKE: which there are, and how long their keys are.

use openmls_traits::types::{CryptoError, HpkeKemType};

/// Lengths in bytes (RFC 9180, section 7.1; draft-ietf-hpke-pq).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KemLengths {
    /// `Nsk`. Of the post-quantum KEMs the private key is a seed.
    pub(super) private_key: usize,
    /// `Npk`.
    pub(super) public_key: usize,
    /// `Nenc`.
    pub(super) enc: usize,
}

impl KemLengths {
    /// The KEMs of the suites that this crate may use; a library may have more.
    pub(super) fn of(kem: HpkeKemType) -> Result<Self, CryptoError> {
        let (private_key, public_key, enc) = match kem {
            HpkeKemType::DhKem25519 => (32, 32, 32),
            HpkeKemType::DhKemP256 => (32, 65, 65),
            #[cfg(feature = "post-quantum")]
            HpkeKemType::MlKem768 => (64, 1184, 1088),
            #[cfg(feature = "post-quantum")]
            HpkeKemType::MlKem1024 => (64, 1568, 1568),
            #[cfg(feature = "post-quantum")]
            HpkeKemType::XWingKemDraft6 => (32, 1216, 1120),
            _ => return Err(CryptoError::UnsupportedCiphersuite),
        };
        Ok(Self { private_key, public_key, enc })
    }
}
