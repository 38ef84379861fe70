//! ML-DSA key pairs.

use std::fmt;

#[cfg(feature = "aws-lc")]
use aws_lc_rs::signature::{self as lc, PqdsaKeyPair};
use ml_dsa::{Keypair as _, MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Seed, SigningKey};
use zeroize::Zeroizing;

use crate::{
    crypto::{Backend, CryptoProvider, SignatureScheme},
    error::CryptoError,
};

const SETUP: CryptoError = CryptoError::Internal("ML-DSA key setup");

/// An ML-DSA key pair (FIPS 204) of any of the three parameter sets, with an empty context.
//
// Erasure on drop: AWS-LC frees its key with OPENSSL_free, which overwrites what it frees. RustCrypto
// expands the seed for every signature and erases the result.
pub(crate) struct MlDsaKey {
    scheme: SignatureScheme,
    seed: Box<Zeroizing<[u8; 32]>>,
    public: Box<[u8]>,
    #[cfg(feature = "aws-lc")]
    aws_lc: PqdsaKeyPair,
}

impl MlDsaKey {
    /// A new key pair from the provider's randomness.
    pub(crate) fn generate(
        provider: &CryptoProvider,
        scheme: SignatureScheme,
    ) -> Result<Self, CryptoError> {
        let mut seed = Zeroizing::new([0; 32]);
        provider.fill_random(&mut *seed)?;
        Self::from_seed(scheme, &seed)
    }

    /// The key pair of a seed, `xi` of FIPS 204, section 6.1.
    pub(crate) fn from_seed(scheme: SignatureScheme, seed: &[u8; 32]) -> Result<Self, CryptoError> {
        Ok(Self {
            scheme,
            seed: Box::new(Zeroizing::new(*seed)),
            public: with_parameters(scheme, seed, Expand::PublicKey)?.to_vec().into(),
            #[cfg(feature = "aws-lc")]
            aws_lc: PqdsaKeyPair::from_seed(
                match scheme {
                    SignatureScheme::MLDSA44 => &lc::ML_DSA_44_SIGNING,
                    SignatureScheme::MLDSA65 => &lc::ML_DSA_65_SIGNING,
                    SignatureScheme::MLDSA87 => &lc::ML_DSA_87_SIGNING,
                    _ => return Err(SETUP),
                },
                seed,
            )
            .map_err(|_| SETUP)?,
        })
    }

    /// The expanded private key (FIPS 204, algorithm 24), which a file may have beside the seed.
    pub(crate) fn expanded(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        with_parameters(self.scheme, &self.seed, Expand::PrivateKey)
    }

    pub(crate) fn scheme(&self) -> SignatureScheme {
        self.scheme
    }

    /// The seed. Secret: whoever copies it must erase the copy.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public key as on the wire.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// Signs `message` with the provider's library. No two signatures need be the same.
    pub(crate) fn sign(
        &self,
        provider: &CryptoProvider,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        const FAILED: CryptoError = CryptoError::Internal("ML-DSA signing");
        match &provider.backend {
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc(_) => {
                let mut signature = vec![0; self.aws_lc.algorithm().signature_len()];
                self.aws_lc.sign(message, &mut signature).map_err(|_| FAILED)?;
                Ok(signature)
            }
            Backend::RustCrypto(library) | Backend::Custom(library) => {
                library.sign_with(self.scheme, self.seed.as_slice(), message).map_err(|_| FAILED)
            }
        }
    }
}

impl fmt::Debug for MlDsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MlDsaKey(..)")
    }
}

/// Which key is wanted.
#[derive(Clone, Copy)]
enum Expand {
    PublicKey,
    PrivateKey,
}

fn with_parameters(
    scheme: SignatureScheme,
    seed: &[u8; 32],
    wanted: Expand,
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    match scheme {
        SignatureScheme::MLDSA44 => Ok(expand::<MlDsa44>(seed, wanted)),
        SignatureScheme::MLDSA65 => Ok(expand::<MlDsa65>(seed, wanted)),
        SignatureScheme::MLDSA87 => Ok(expand::<MlDsa87>(seed, wanted)),
        _ => Err(SETUP),
    }
}

fn expand<P: MlDsaParams>(seed: &[u8; 32], wanted: Expand) -> Zeroizing<Vec<u8>> {
    let key = SigningKey::<P>::from_seed(&Zeroizing::new(Seed::from(*seed)));
    Zeroizing::new(match wanted {
        Expand::PublicKey => key.verifying_key().encode().to_vec(),
        // Deprecated in favour of the seed, which is not what is asked for.
        #[allow(deprecated)]
        Expand::PrivateKey => key.expanded_key().to_expanded().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_key_in_every_library() {
        for scheme in [SignatureScheme::MLDSA44, SignatureScheme::MLDSA65, SignatureScheme::MLDSA87]
        {
            let key = MlDsaKey::generate(&CryptoProvider::default(), scheme).unwrap();
            #[cfg(feature = "aws-lc")]
            {
                use aws_lc_rs::{encoding::AsRawBytes as _, signature::KeyPair as _};
                assert_eq!(key.aws_lc.public_key().as_ref(), key.public_key());
                let expanded = key.aws_lc.private_key().as_raw_bytes().unwrap();
                assert_eq!(expanded.as_ref(), key.expanded().unwrap().as_slice());
            }
            let again = MlDsaKey::from_seed(scheme, key.seed()).unwrap();
            assert_eq!(again.public_key(), key.public_key());
        }
        let scheme = SignatureScheme::ED25519;
        assert_eq!(MlDsaKey::from_seed(scheme, &[0; 32]).unwrap_err(), SETUP);
    }
}
