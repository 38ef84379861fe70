//! Ed25519 key pairs.

use std::fmt;

#[cfg(feature = "aws-lc")]
use aws_lc_rs::signature::Ed25519KeyPair;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::{
    crypto::{Backend, CryptoProvider},
    error::CryptoError,
};

/// An Ed25519 key pair (RFC 8032), expanded once for every library of the build.
//
// Erasure on drop: SigningKey zeroizes its seed, and is boxed so that moves leave no copies.
// AWS-LC frees its key with OPENSSL_free, which overwrites what it frees.
pub(crate) struct Ed25519Key {
    dalek: Box<SigningKey>,
    #[cfg(feature = "aws-lc")]
    aws_lc: Ed25519KeyPair,
}

impl Ed25519Key {
    /// A new key pair from the provider's randomness.
    pub(crate) fn generate(provider: &CryptoProvider) -> Result<Self, CryptoError> {
        let mut seed = Zeroizing::new([0; 32]);
        provider.fill_random(&mut *seed)?;
        Self::from_seed(&seed)
    }

    /// The key pair of a 32-byte seed, the private key of RFC 8032, section 5.1.5.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Result<Self, CryptoError> {
        Ok(Self {
            dalek: Box::new(SigningKey::from_bytes(seed)),
            #[cfg(feature = "aws-lc")]
            aws_lc: Ed25519KeyPair::from_seed_unchecked(seed)
                .map_err(|_| CryptoError::Internal("Ed25519 key setup"))?,
        })
    }

    /// The seed. Secret: whoever copies it must erase the copy.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        self.dalek.as_bytes()
    }

    /// The public key as on the wire.
    pub(crate) fn public_key(&self) -> &[u8; 32] {
        let public: &VerifyingKey = self.dalek.as_ref().as_ref();
        public.as_bytes()
    }

    /// Signs `message` with the provider's library. All give the same signature.
    pub(crate) fn sign(
        &self,
        provider: &CryptoProvider,
        message: &[u8],
    ) -> Result<[u8; 64], CryptoError> {
        const FAILED: CryptoError = CryptoError::Internal("Ed25519 signing");
        match &provider.backend {
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc(_) => {
                let signature = self.aws_lc.try_sign(message).map_err(|_| FAILED)?;
                signature.as_ref().try_into().map_err(|_| FAILED)
            }
            Backend::RustCrypto(_) => {
                self.dalek.try_sign(message).map(|s| s.to_bytes()).map_err(|_| FAILED)
            }
            Backend::Custom(library) => library.sign_ed25519(self.seed(), message),
        }
    }
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ed25519Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use openmls_traits::{crypto::OpenMlsCrypto, types::SignatureScheme};

    use super::*;
    use crate::crypto::tests::{hex, providers};

    // RFC 8032, section 7.1: seed, public key, message, signature.
    const RFC_8032: [[&str; 4]; 4] = [
        [
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ],
        [
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ],
        [
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ],
        [
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589\
             09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ],
    ];

    #[test]
    fn signatures_match_rfc_8032() {
        for [seed, public, message, signature] in RFC_8032.map(|vector| vector.map(hex)) {
            let key = Ed25519Key::from_seed(&seed.try_into().unwrap()).unwrap();
            assert_eq!(key.public_key().as_slice(), public);
            for provider in providers() {
                assert_eq!(key.sign(&provider, &message).unwrap().as_slice(), signature);
                provider
                    .verify_signature(SignatureScheme::ED25519, &message, &public, &signature)
                    .unwrap();
            }
        }
    }

    #[test]
    fn a_seed_restores_its_key() {
        for provider in providers() {
            let key = Ed25519Key::generate(&provider).unwrap();
            let restored = Ed25519Key::from_seed(key.seed()).unwrap();
            assert_eq!(restored.public_key(), key.public_key());
        }
    }
}
