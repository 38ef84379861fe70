//! The MLS cipher suites that a channel can use.

use std::fmt;

use openmls_traits::types::{AeadType, Ciphersuite, HashType, HpkeKemType};

use super::SignatureScheme;

/// An MLS cipher suite (RFC 9420, section 17.1).
///
/// The suite decides everything of a channel: the KEM that heals it, the signature scheme of the
/// identities, and the hash and the AEAD of the records.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(non_camel_case_types)] // the registered names
pub enum CipherSuite {
    /// 0x0001: X25519, AES-128-GCM, SHA-256, Ed25519. The suite every MLS implementation has.
    MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
    /// 0x0002: P-256, AES-128-GCM, SHA-256, ECDSA on P-256. For identities whose keys have to be on
    /// that curve.
    MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
    /// 0x0003: X25519, ChaCha20-Poly1305, SHA-256, Ed25519. For machines without AES hardware.
    MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
    /// 0x004F: ML-KEM-768 with X25519 (X-Wing), AES-128-GCM, SHA-256, Ed25519. The hybrid suite to
    /// prefer: secret as long as one of the two KEMs holds.
    #[cfg(feature = "post-quantum")]
    MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519,
    /// 0x004E: ML-KEM-768 with X25519 (X-Wing), AES-256-GCM, SHA-384, Ed25519.
    #[cfg(feature = "post-quantum")]
    MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
    /// 0x004D: ML-KEM-768 with X25519 (X-Wing), ChaCha20-Poly1305, SHA-256, Ed25519. The RustCrypto
    /// provider does not have it.
    #[cfg(feature = "post-quantum")]
    MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519,
    /// 0xF042: ML-KEM-768 alone, AES-256-GCM, SHA-384, Ed25519.
    #[cfg(feature = "post-quantum")]
    MLS_128_MLKEM768_AES256GCM_SHA384_Ed25519,
    /// 0x0050: ML-KEM-768 alone, AES-256-GCM, SHA-384, ECDSA on P-256.
    #[cfg(feature = "post-quantum")]
    MLS_128_MLKEM768_AES256GCM_SHA384_P256,
    /// 0x0052: ML-KEM-768 with X25519 (X-Wing), ChaCha20-Poly1305, SHA-384, ML-DSA-44.
    #[cfg(feature = "post-quantum")]
    MLS_128_MLKEM768X25519_CHACHA20POLY1305_SHA384_MLDSA44,
    /// 0x0051: ML-KEM-768 alone, AES-256-GCM, SHA-384, ML-DSA-65.
    #[cfg(feature = "post-quantum")]
    MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65,
    /// 0x0907: ML-KEM-1024 alone, AES-256-GCM, SHA-384, ML-DSA-87.
    #[cfg(feature = "post-quantum")]
    MLS_256_MLKEM1024_AES256GCM_SHA384_MLDSA87,
    /// 0x0906: ML-KEM-1024 alone, AES-256-GCM, SHA-512, ML-DSA-87.
    #[cfg(feature = "post-quantum")]
    MLS_256_MLKEM1024_AES256GCM_SHA512_MLDSA87,
}

/// The AEAD of a suite's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aead {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl CipherSuite {
    /// Every suite of this build, in the default order of preference.
    pub const ALL: &'static [Self] = &[
        Self::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
        Self::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
        Self::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
        #[cfg(feature = "post-quantum")]
        Self::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519,
        #[cfg(feature = "post-quantum")]
        Self::MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
        #[cfg(feature = "post-quantum")]
        Self::MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519,
        #[cfg(feature = "post-quantum")]
        Self::MLS_128_MLKEM768_AES256GCM_SHA384_Ed25519,
        #[cfg(feature = "post-quantum")]
        Self::MLS_128_MLKEM768_AES256GCM_SHA384_P256,
        #[cfg(feature = "post-quantum")]
        Self::MLS_128_MLKEM768X25519_CHACHA20POLY1305_SHA384_MLDSA44,
        #[cfg(feature = "post-quantum")]
        Self::MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65,
        #[cfg(feature = "post-quantum")]
        Self::MLS_256_MLKEM1024_AES256GCM_SHA384_MLDSA87,
        #[cfg(feature = "post-quantum")]
        Self::MLS_256_MLKEM1024_AES256GCM_SHA512_MLDSA87,
    ];

    /// The number under which the suite is registered with IANA.
    pub fn id(self) -> u16 {
        self.mls() as u16
    }

    /// The suite registered under `id`, if this build has it.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|suite| suite.id() == id)
    }

    /// The registered name.
    pub fn name(self) -> &'static str {
        self.facts().1
    }

    /// The scheme of the identities that can use the suite.
    pub fn signature_scheme(self) -> SignatureScheme {
        // A test goes through all suites.
        SignatureScheme::from_mls(self.mls().signature_algorithm())
            .unwrap_or(SignatureScheme::ED25519)
    }

    /// The KEM withstands a quantum computer: what is recorded today stays secret. Whether the
    /// signatures do, the [`signature_scheme`](Self::signature_scheme) says.
    pub fn is_post_quantum(self) -> bool {
        !matches!(self.kem(), HpkeKemType::DhKem25519 | HpkeKemType::DhKemP256)
    }

    /// What OpenMLS calls it. All that the suite consists of is known there.
    pub(crate) fn mls(self) -> Ciphersuite {
        self.facts().0
    }

    fn facts(self) -> (Ciphersuite, &'static str) {
        macro_rules! same_names {
            ($($(#[$attribute:meta])* $name:ident)*) => {
                match self {
                    $($(#[$attribute])*
                    Self::$name => (Ciphersuite::$name, stringify!($name)),)*
                }
            };
        }
        same_names! {
            MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519
            MLS_128_DHKEMP256_AES128GCM_SHA256_P256
            MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519
            #[cfg(feature = "post-quantum")]
            MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519
            #[cfg(feature = "post-quantum")]
            MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519
            #[cfg(feature = "post-quantum")]
            MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519
            #[cfg(feature = "post-quantum")]
            MLS_128_MLKEM768_AES256GCM_SHA384_Ed25519
            #[cfg(feature = "post-quantum")]
            MLS_128_MLKEM768_AES256GCM_SHA384_P256
            #[cfg(feature = "post-quantum")]
            MLS_128_MLKEM768X25519_CHACHA20POLY1305_SHA384_MLDSA44
            #[cfg(feature = "post-quantum")]
            MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65
            #[cfg(feature = "post-quantum")]
            MLS_256_MLKEM1024_AES256GCM_SHA384_MLDSA87
            #[cfg(feature = "post-quantum")]
            MLS_256_MLKEM1024_AES256GCM_SHA512_MLDSA87
        }
    }

    pub(crate) fn aead(self) -> Aead {
        match self.mls().aead_algorithm() {
            AeadType::Aes128Gcm => Aead::Aes128Gcm,
            AeadType::Aes256Gcm => Aead::Aes256Gcm,
            AeadType::ChaCha20Poly1305 => Aead::ChaCha20Poly1305,
        }
    }

    pub(crate) fn kem(self) -> HpkeKemType {
        self.mls().hpke_kem_algorithm()
    }

    pub(crate) fn hash(self) -> HashType {
        self.mls().hash_algorithm()
    }

    /// Length in bytes of the suite's hash, of its exported secrets and traffic secrets.
    pub(crate) fn hash_len(self) -> usize {
        self.hash().size()
    }
}

impl fmt::Debug for CipherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for CipherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Aead {
    /// Length of a key in bytes.
    pub(crate) fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// How many records one key may protect.
    ///
    /// For AES-GCM RFC 8446, section 5.5: 2^24.5 records of full size keep the advantage of an
    /// attacker below 2^-57. ChaCha20-Poly1305 is bounded by the sequence number alone.
    pub(crate) fn record_limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 23_726_566,
            Self::ChaCha20Poly1305 => u64::MAX - 1,
        }
    }

    /// What OpenMLS calls it.
    pub(crate) fn mls(self) -> AeadType {
        match self {
            Self::Aes128Gcm => AeadType::Aes128Gcm,
            Self::Aes256Gcm => AeadType::Aes256Gcm,
            Self::ChaCha20Poly1305 => AeadType::ChaCha20Poly1305,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_what_its_name_says() {
        for suite in CipherSuite::ALL {
            assert_eq!(suite.name(), format!("{:?}", suite.mls()));
            assert_eq!(CipherSuite::from_id(suite.id()), Some(*suite));
            assert_eq!(suite.signature_scheme().mls(), suite.mls().signature_algorithm());
            assert_eq!(suite.aead().mls(), suite.mls().aead_algorithm());
            assert_eq!(suite.aead().key_len(), suite.mls().aead_key_length());
            assert_eq!(suite.hash_len(), suite.mls().hash_length());
            let kem = suite.name().contains("MLKEM") || suite.name().contains("XWING");
            assert_eq!(suite.is_post_quantum(), kem);
        }
    }
}
