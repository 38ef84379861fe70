//! ECDSA key pairs on the curve P-256.

use std::fmt;

#[cfg(feature = "aws-lc")]
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use p256::{
    SecretKey,
    ecdsa::{DerSignature, SigningKey, signature::Signer as _},
    elliptic_curve::sec1::ToEncodedPoint as _,
};
use zeroize::Zeroizing;

use crate::{
    crypto::{Backend, CryptoProvider, SignatureScheme},
    error::CryptoError,
};

/// How often a scalar is drawn. One in 2^32 draws is none.
const MAX_DRAWS: usize = 8;

/// An ECDSA key pair on P-256 (FIPS 186-5), for SHA-256.
//
// Erasure on drop: SigningKey zeroizes its scalar, and is boxed so that moves leave no copies.
// AWS-LC frees its key with OPENSSL_free, which overwrites what it frees.
pub(crate) struct P256Key {
    signing: Box<SigningKey>,
    public: [u8; 65],
    #[cfg(feature = "aws-lc")]
    aws_lc: EcdsaKeyPair,
}

impl P256Key {
    /// A new key pair from the provider's randomness.
    pub(crate) fn generate(provider: &CryptoProvider) -> Result<Self, CryptoError> {
        let mut scalar = Zeroizing::new([0; 32]);
        for _ in 0..MAX_DRAWS {
            provider.fill_random(&mut *scalar)?;
            // Not every 32 bytes are a scalar of the curve.
            if let Ok(secret) = SecretKey::from_slice(&*scalar) {
                return Self::new(&secret);
            }
        }
        Err(CryptoError::Random)
    }

    pub(crate) fn new(secret: &SecretKey) -> Result<Self, CryptoError> {
        const FAILED: CryptoError = CryptoError::Internal("ECDSA key setup");
        let point = secret.public_key().to_encoded_point(false);
        let public = point.as_bytes().try_into().map_err(|_| FAILED)?;
        Ok(Self {
            signing: Box::new(SigningKey::from(secret)),
            public,
            #[cfg(feature = "aws-lc")]
            aws_lc: EcdsaKeyPair::from_private_key_and_public_key(
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                Zeroizing::new(<[u8; 32]>::from(secret.to_bytes())).as_slice(),
                &public,
            )
            .map_err(|_| FAILED)?,
        })
    }

    /// The scalar.
    pub(crate) fn scalar(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes().into())
    }

    /// The public key as on the wire: the uncompressed point.
    pub(crate) fn public_key(&self) -> &[u8; 65] {
        &self.public
    }

    /// Signs `message` with the provider's library. No two signatures need be the same.
    pub(crate) fn sign(
        &self,
        provider: &CryptoProvider,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        const FAILED: CryptoError = CryptoError::Internal("ECDSA signing");
        match &provider.backend {
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc(_) => {
                let signature = self.aws_lc.sign(&SystemRandom::new(), message);
                signature.map(|signature| signature.as_ref().to_vec()).map_err(|_| FAILED)
            }
            Backend::RustCrypto(_) => {
                let signature: DerSignature = self.signing.try_sign(message).map_err(|_| FAILED)?;
                Ok(signature.as_bytes().to_vec())
            }
            Backend::Custom(library) => library
                .sign_with(SignatureScheme::ECDSA_SECP256R1_SHA256, &*self.scalar(), message)
                .map_err(|_| FAILED),
        }
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use openmls_traits::{crypto::OpenMlsCrypto, types};

    use super::*;
    use crate::crypto::tests::{hex, providers};

    // RFC 6979, appendix A.2.5: with SHA-256, message "sample".
    const SCALAR: &str = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721";
    const PUBLIC: &str = "0460FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6\
                          7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299";
    const SIGNATURE: &str = "3046022100EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA8\
                             4EAF3716022100F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4\
                             AB2F843ACDA8";

    fn key() -> P256Key {
        P256Key::new(&SecretKey::from_slice(&hex(SCALAR)).unwrap()).unwrap()
    }

    #[test]
    fn keys_and_signatures_match_rfc_6979() {
        let key = key();
        assert_eq!(key.public_key().as_slice(), hex(PUBLIC));
        let scheme = types::SignatureScheme::ECDSA_SECP256R1_SHA256;
        for provider in providers() {
            let verify = |message: &[u8], signature: &[u8]| {
                provider.verify_signature(scheme, message, &hex(PUBLIC), signature)
            };
            assert_eq!(verify(b"sample", &hex(SIGNATURE)), Ok(()), "{provider:?}");
            assert!(verify(b"simple", &hex(SIGNATURE)).is_err(), "{provider:?}");
            let signature = key.sign(&provider, b"sample").unwrap();
            assert_eq!(verify(b"sample", &signature), Ok(()), "{provider:?}");
        }
        // Its signatures are those of the RFC.
        let signature = key.sign(&CryptoProvider::rust_crypto(), b"sample").unwrap();
        assert_eq!(signature, hex(SIGNATURE));
    }

    #[test]
    fn a_scalar_restores_its_key() {
        for provider in providers() {
            let key = P256Key::generate(&provider).unwrap();
            let secret = SecretKey::from_slice(&*key.scalar()).unwrap();
            assert_eq!(P256Key::new(&secret).unwrap().public_key(), key.public_key());
        }
    }
}
