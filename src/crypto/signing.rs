//! Signature keys, and the signer that OpenMLS uses them through.

mod ed25519;
#[cfg(feature = "post-quantum")]
mod ml_dsa;
mod p256;

use openmls_traits::{
    signatures::{Signer, SignerError},
    types,
};

#[cfg(feature = "post-quantum")]
pub(crate) use self::ml_dsa::MlDsaKey;
pub(crate) use self::{ed25519::Ed25519Key, p256::P256Key};
use super::{CryptoProvider, SignatureScheme};
use crate::error::CryptoError;

/// A key pair of an identity, expanded once for every library of the build.
#[derive(Debug)]
pub(crate) enum SignatureKey {
    Ed25519(Ed25519Key),
    P256(P256Key),
    #[cfg(feature = "post-quantum")]
    MlDsa(MlDsaKey),
}

impl SignatureKey {
    /// A new key pair from the provider's randomness.
    pub(crate) fn generate(
        provider: &CryptoProvider,
        scheme: SignatureScheme,
    ) -> Result<Self, CryptoError> {
        match scheme {
            SignatureScheme::ED25519 => Ed25519Key::generate(provider).map(Self::Ed25519),
            SignatureScheme::ECDSA_SECP256R1_SHA256 => P256Key::generate(provider).map(Self::P256),
            #[cfg(feature = "post-quantum")]
            _ => MlDsaKey::generate(provider, scheme).map(Self::MlDsa),
        }
    }

    pub(crate) fn scheme(&self) -> SignatureScheme {
        match self {
            Self::Ed25519(_) => SignatureScheme::ED25519,
            Self::P256(_) => SignatureScheme::ECDSA_SECP256R1_SHA256,
            #[cfg(feature = "post-quantum")]
            Self::MlDsa(key) => key.scheme(),
        }
    }

    /// The public key as on the wire.
    pub(crate) fn public_key(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key.public_key(),
            Self::P256(key) => key.public_key(),
            #[cfg(feature = "post-quantum")]
            Self::MlDsa(key) => key.public_key(),
        }
    }

    /// Signs `message` with the provider's library.
    pub(crate) fn sign(
        &self,
        provider: &CryptoProvider,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::Ed25519(key) => key.sign(provider, message).map(|signature| signature.to_vec()),
            Self::P256(key) => key.sign(provider, message),
            #[cfg(feature = "post-quantum")]
            Self::MlDsa(key) => key.sign(provider, message),
        }
    }

    /// The private key: a seed or a scalar. Secret: whoever copies it must erase the copy.
    #[cfg(test)]
    pub(crate) fn secret(&self) -> zeroize::Zeroizing<Vec<u8>> {
        zeroize::Zeroizing::new(match self {
            Self::Ed25519(key) => key.seed().to_vec(),
            Self::P256(key) => key.scalar().to_vec(),
            #[cfg(feature = "post-quantum")]
            Self::MlDsa(key) => key.seed().to_vec(),
        })
    }
}

/// A key pair and the library to sign with: what OpenMLS calls a signer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MlsSigner<'a> {
    pub(crate) key: &'a SignatureKey,
    pub(crate) provider: &'a CryptoProvider,
}

impl Signer for MlsSigner<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        match self.provider.watch(self.key.sign(self.provider, payload)) {
            Ok(signature) => {
                if let Some(memory) = &self.provider.memory {
                    memory.remember_signature(self.key.public_key(), payload, &signature);
                }
                Ok(signature)
            }
            Err(_) => Err(SignerError::SigningError),
        }
    }

    fn signature_scheme(&self) -> types::SignatureScheme {
        self.key.scheme().mls()
    }
}

#[cfg(test)]
mod tests {
    use openmls_traits::crypto::OpenMlsCrypto;

    use super::*;
    use crate::crypto::tests::providers;

    #[test]
    fn a_generated_key_signs_for_mls() {
        for provider in providers() {
            for &scheme in SignatureScheme::ALL {
                let key = SignatureKey::generate(&provider, scheme).unwrap();
                assert_eq!(key.scheme(), scheme);
                assert!(scheme.is_public_key(key.public_key()));
                let signer = MlsSigner { key: &key, provider: &provider };
                let signature = signer.sign(b"message").unwrap();
                for verifier in providers() {
                    let verify = |message: &[u8]| {
                        let scheme = signer.signature_scheme();
                        verifier.verify_signature(scheme, message, key.public_key(), &signature)
                    };
                    assert!(verify(b"message").is_ok(), "{provider:?} {verifier:?} {scheme}");
                    assert!(verify(b"massage").is_err(), "{provider:?} {verifier:?} {scheme}");
                }
            }
        }
    }

    #[test]
    fn two_generated_keys_differ() {
        for provider in providers() {
            for &scheme in SignatureScheme::ALL {
                let first = SignatureKey::generate(&provider, scheme).unwrap();
                let second = SignatureKey::generate(&provider, scheme).unwrap();
                assert_ne!(first.secret(), second.secret());
                assert_ne!(first.public_key(), second.public_key());
            }
        }
    }

    // CH-07
    #[test]
    fn a_key_is_shareable_and_prints_nothing() {
        fn shareable<T: Send + Sync>(_: &T) {}
        let provider = CryptoProvider::rust_crypto();
        for &scheme in SignatureScheme::ALL {
            let key = SignatureKey::generate(&provider, scheme).unwrap();
            shareable(&key);
            let secret = format!("{:?}", *key.secret());
            let hex: String = key.secret().iter().map(|byte| format!("{byte:02x}")).collect();
            let signer = format!("{:?}", MlsSigner { key: &key, provider: &provider });
            assert!(signer.contains("Key(..)"), "{signer}");
            for secret in [&secret[1..40], &hex[..16]] {
                assert!(!signer.to_lowercase().contains(secret), "{signer}");
            }
        }
    }
}
