//! The post-quantum KEMs of HPKE (draft-ietf-hpke-pq): ML-KEM (FIPS 203), and ML-KEM with X25519,
//! which is X-Wing (draft-connolly-cfrg-xwing-kem).
//!
//! AWS-LC does everything but to expand a seed, for which its Rust interface has no function: libcrux
//! does that.

use aws_lc_rs::{
    agreement::{self, UnparsedPublicKey, agree},
    digest,
    kem::{self, DecapsulationKey, EncapsulationKey},
};
use libcrux_ml_kem::{mlkem768, mlkem1024};
use libcrux_sha3::shake256_ema as shake256;
use openmls_traits::types::{CryptoError, HpkeKemType};
use zeroize::Zeroizing;

use super::hpke::SharedSecret;
use crate::crypto::kem::KemLengths;

const X25519_LEN: usize = 32;
const LABEL: &[u8] = br"\.//^\";
const FAILED: CryptoError = CryptoError::CryptoLibraryError;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kem {
    MlKem768,
    MlKem1024,
    XWing,
}

/// A private key, expanded.
pub(super) struct PrivateKey {
    ml_kem: DecapsulationKey,
    x25519: Option<X25519>,
}

struct X25519 {
    key: agreement::PrivateKey,
    public: [u8; X25519_LEN],
}

/// What a seed expands to.
struct Expanded {
    private: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

impl Kem {
    pub(super) fn new(kem: HpkeKemType) -> Option<Self> {
        match kem {
            HpkeKemType::MlKem768 => Some(Self::MlKem768),
            HpkeKemType::MlKem1024 => Some(Self::MlKem1024),
            HpkeKemType::XWingKemDraft6 => Some(Self::XWing),
            _ => None,
        }
    }

    /// The number under which HPKE knows the KEM; OpenMLS has another one for X-Wing.
    pub(super) fn id(self) -> u16 {
        match self {
            Self::MlKem768 => 0x0041,
            Self::MlKem1024 => 0x0042,
            Self::XWing => 0x647a,
        }
    }

    fn lengths(self) -> Result<KemLengths, CryptoError> {
        KemLengths::of(match self {
            Self::MlKem768 => HpkeKemType::MlKem768,
            Self::MlKem1024 => HpkeKemType::MlKem1024,
            Self::XWing => HpkeKemType::XWingKemDraft6,
        })
    }

    fn ml_kem(self) -> &'static kem::Algorithm {
        match self {
            Self::MlKem768 | Self::XWing => &kem::ML_KEM_768,
            Self::MlKem1024 => &kem::ML_KEM_1024,
        }
    }

    /// DeriveKeyPair: the private key, which is a seed, and the public key.
    pub(super) fn derive_key_pair(
        self,
        ikm: &[u8],
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CryptoError> {
        let mut seed = Zeroizing::new(vec![0; self.lengths()?.private_key]);
        shake256(&mut seed, ikm);
        let (expanded, x25519) = self.expand(&seed)?;
        let mut public = expanded.public;
        public.extend(x25519.iter().flat_map(|x25519| x25519.public));
        Ok((seed, public))
    }

    pub(super) fn private_key(self, seed: &[u8]) -> Result<PrivateKey, CryptoError> {
        let (expanded, x25519) = self.expand(seed)?;
        let ml_kem = DecapsulationKey::new(self.ml_kem(), &expanded.private).map_err(|_| FAILED)?;
        Ok(PrivateKey { ml_kem, x25519 })
    }

    fn expand(self, seed: &[u8]) -> Result<(Expanded, Option<X25519>), CryptoError> {
        Ok(match self {
            Self::MlKem768 => (expand_ml_kem_768(seed)?, None),
            Self::MlKem1024 => (expand_ml_kem_1024(seed)?, None),
            Self::XWing => {
                if seed.len() != self.lengths()?.private_key {
                    return Err(CryptoError::InvalidLength);
                }
                let mut seeds = Zeroizing::new([0; 64 + X25519_LEN]);
                shake256(&mut *seeds, seed);
                let (ml_kem, x25519) = seeds.split_at(64);
                let key = agreement::PrivateKey::from_private_key(&agreement::X25519, x25519)
                    .map_err(|_| FAILED)?;
                let public = x25519_public(&key)?;
                (expand_ml_kem_768(ml_kem)?, Some(X25519 { key, public }))
            }
        })
    }

    pub(super) fn encap(self, pk_r: &[u8]) -> Result<(Vec<u8>, SharedSecret), CryptoError> {
        if pk_r.len() != self.lengths()?.public_key {
            return Err(CryptoError::InvalidPublicKey);
        }
        let (ml_kem, x25519) = self.split(pk_r, X25519_LEN)?;
        // The library checks the key (FIPS 203, section 7.2).
        let (ct, ss) = EncapsulationKey::new(self.ml_kem(), ml_kem)
            .and_then(|key| key.encapsulate().map_err(|_| aws_lc_rs::error::Unspecified.into()))
            .map_err(|_| CryptoError::InvalidPublicKey)?;
        let mut enc = ct.as_ref().to_vec();
        let Some(pk_x) = x25519 else { return Ok((enc, shared_secret(ss.as_ref())?)) };
        let ephemeral = agreement::PrivateKey::generate(&agreement::X25519)
            .map_err(|_| CryptoError::InsufficientRandomness)?;
        let ct_x = x25519_public(&ephemeral)?;
        let secret = combine(ss.as_ref(), &ephemeral, pk_x, &ct_x, pk_x)?;
        enc.extend_from_slice(&ct_x);
        Ok((enc, secret))
    }

    pub(super) fn decap(self, enc: &[u8], sk_r: &PrivateKey) -> Result<SharedSecret, CryptoError> {
        if enc.len() != self.lengths()?.enc {
            return Err(CryptoError::InvalidPublicKey);
        }
        let (ct, ct_x) = self.split(enc, X25519_LEN)?;
        let ss = sk_r.ml_kem.decapsulate(ct.into()).map_err(|_| FAILED)?;
        match (&sk_r.x25519, ct_x) {
            (Some(own), Some(ct_x)) => combine(ss.as_ref(), &own.key, ct_x, ct_x, &own.public),
            (None, None) => shared_secret(ss.as_ref()),
            _ => Err(FAILED),
        }
    }

    /// The part of ML-KEM and that of X25519, which is at the end.
    fn split(self, bytes: &[u8], last: usize) -> Result<(&[u8], Option<&[u8]>), CryptoError> {
        match self {
            Self::XWing => {
                let middle = bytes.len().checked_sub(last).ok_or(CryptoError::InvalidLength)?;
                let (ml_kem, x25519) = bytes.split_at(middle);
                Ok((ml_kem, Some(x25519)))
            }
            Self::MlKem768 | Self::MlKem1024 => Ok((bytes, None)),
        }
    }
}

/// The combiner of X-Wing.
//
// The library fails on an all-zero result of X25519. Other implementations take one; the secret would
// be that of ML-KEM.
fn combine(
    ss_m: &[u8],
    key: &agreement::PrivateKey,
    peer: &[u8],
    ct_x: &[u8],
    pk_x: &[u8],
) -> Result<SharedSecret, CryptoError> {
    let peer = UnparsedPublicKey::new(&agreement::X25519, peer);
    agree(key, peer, CryptoError::InvalidPublicKey, |ss_x| {
        let input = Zeroizing::new([ss_m, ss_x, ct_x, pk_x, LABEL].concat());
        shared_secret(digest::digest(&digest::SHA3_256, &input).as_ref())
    })
}

fn shared_secret(bytes: &[u8]) -> Result<SharedSecret, CryptoError> {
    bytes.try_into().map(Zeroizing::new).map_err(|_| FAILED)
}

fn x25519_public(key: &agreement::PrivateKey) -> Result<[u8; X25519_LEN], CryptoError> {
    let public = key.compute_public_key().map_err(|_| FAILED)?;
    public.as_ref().try_into().map_err(|_| FAILED)
}

macro_rules! expand_ml_kem {
    ($name:ident, $library:ident) => {
        // The library leaves copies of the private key on the stack.
        fn $name(seed: &[u8]) -> Result<Expanded, CryptoError> {
            let seed = seed.try_into().map_err(|_| CryptoError::InvalidLength)?;
            let pair = $library::generate_key_pair(seed);
            let private = Zeroizing::new(pair.sk().to_vec());
            Ok(Expanded { private, public: pair.pk().to_vec() })
        }
    };
}

expand_ml_kem!(expand_ml_kem_768, mlkem768);
expand_ml_kem!(expand_ml_kem_1024, mlkem1024);
