//! The signature schemes of identities.

use std::fmt;

use openmls_traits::types;

/// A signature scheme, as registered for TLS (RFC 8446, section 4.2.3).
///
/// The key of an [`Identity`](crate::Identity) has one, and so has a
/// [`CipherSuite`](crate::CipherSuite): a party can only use the suites of its own scheme.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(non_camel_case_types)] // the registered names
pub enum SignatureScheme {
    /// `ed25519`, 0x0807 (RFC 8032).
    ED25519,
    /// `ecdsa_secp256r1_sha256`, 0x0403: ECDSA on the curve P-256 with SHA-256.
    ECDSA_SECP256R1_SHA256,
    /// `mldsa44`, 0x0904: ML-DSA-44 (FIPS 204).
    #[cfg(feature = "post-quantum")]
    MLDSA44,
    /// `mldsa65`, 0x0905: ML-DSA-65 (FIPS 204).
    #[cfg(feature = "post-quantum")]
    MLDSA65,
    /// `mldsa87`, 0x0906: ML-DSA-87 (FIPS 204).
    #[cfg(feature = "post-quantum")]
    MLDSA87,
}

impl SignatureScheme {
    /// Every scheme of this build.
    pub const ALL: &'static [Self] = &[
        Self::ED25519,
        Self::ECDSA_SECP256R1_SHA256,
        #[cfg(feature = "post-quantum")]
        Self::MLDSA44,
        #[cfg(feature = "post-quantum")]
        Self::MLDSA65,
        #[cfg(feature = "post-quantum")]
        Self::MLDSA87,
    ];

    /// The number under which the scheme is registered with IANA.
    pub fn id(self) -> u16 {
        self.mls() as u16
    }

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ED25519 => "ed25519",
            Self::ECDSA_SECP256R1_SHA256 => "ecdsa_secp256r1_sha256",
            #[cfg(feature = "post-quantum")]
            Self::MLDSA44 => "mldsa44",
            #[cfg(feature = "post-quantum")]
            Self::MLDSA65 => "mldsa65",
            #[cfg(feature = "post-quantum")]
            Self::MLDSA87 => "mldsa87",
        }
    }

    /// The scheme registered under `name`, if this build has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scheme| scheme.name() == name)
    }

    /// Length of a public key in bytes, as it is on the wire.
    pub fn public_key_len(self) -> usize {
        match self {
            Self::ED25519 => 32,
            Self::ECDSA_SECP256R1_SHA256 => 65,
            #[cfg(feature = "post-quantum")]
            Self::MLDSA44 => 1312,
            #[cfg(feature = "post-quantum")]
            Self::MLDSA65 => 1952,
            #[cfg(feature = "post-quantum")]
            Self::MLDSA87 => 2592,
        }
    }

    /// The public key has the form that RFC 9420, section 5.1.1 wants.
    pub(crate) fn is_public_key(self, bytes: &[u8]) -> bool {
        bytes.len() == self.public_key_len()
            && (self != Self::ECDSA_SECP256R1_SHA256 || bytes.first() == Some(&UNCOMPRESSED))
    }

    /// Every signature has this length in bytes; `None`: they differ.
    pub(crate) fn signature_len(self) -> Option<usize> {
        match self {
            Self::ED25519 => Some(64),
            Self::ECDSA_SECP256R1_SHA256 => None,
            #[cfg(feature = "post-quantum")]
            Self::MLDSA44 => Some(2420),
            #[cfg(feature = "post-quantum")]
            Self::MLDSA65 => Some(3309),
            #[cfg(feature = "post-quantum")]
            Self::MLDSA87 => Some(4627),
        }
    }

    /// The scheme, if this build has it.
    pub(crate) fn from_mls(scheme: types::SignatureScheme) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.mls() == scheme)
    }

    /// What OpenMLS calls it.
    pub(crate) fn mls(self) -> types::SignatureScheme {
        match self {
            Self::ED25519 => types::SignatureScheme::ED25519,
            Self::ECDSA_SECP256R1_SHA256 => types::SignatureScheme::ECDSA_SECP256R1_SHA256,
            #[cfg(feature = "post-quantum")]
            Self::MLDSA44 => types::SignatureScheme::MLDSA44,
            #[cfg(feature = "post-quantum")]
            Self::MLDSA65 => types::SignatureScheme::MLDSA65,
            #[cfg(feature = "post-quantum")]
            Self::MLDSA87 => types::SignatureScheme::MLDSA87,
        }
    }
}

/// The first byte of a point with both coordinates (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;

impl fmt::Debug for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_have_the_registered_numbers_and_names() {
        let registered = [
            (0x0807, "ed25519"),
            (0x0403, "ecdsa_secp256r1_sha256"),
            (0x0904, "mldsa44"),
            (0x0905, "mldsa65"),
            (0x0906, "mldsa87"),
        ];
        for (scheme, (id, name)) in SignatureScheme::ALL.iter().zip(registered) {
            assert_eq!((scheme.id(), scheme.name()), (id, name));
            assert_eq!(SignatureScheme::from_name(name), Some(*scheme));
        }
        assert_eq!(SignatureScheme::from_name("ED25519"), None);
    }
}
