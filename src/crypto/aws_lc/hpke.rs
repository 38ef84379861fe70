//! HPKE, base mode (RFC 9180), over the primitives of AWS-LC.
//!
//! With DHKEM(X25519, HKDF-SHA256) and DHKEM(P-256, HKDF-SHA256), the KDFs of SHA-2 and the three
//! AEADs. The names are those of the RFC. The post-quantum KEMs are in `post_quantum`.

use aws_lc_rs::agreement::{self, UnparsedPublicKey, agree};
use openmls_traits::types::{
    AeadType, CryptoError, ExporterSecret, HashType, HpkeAeadType, HpkeCiphertext, HpkeConfig,
    HpkeKdfType, HpkeKemType, HpkeKeyPair, KemOutput,
};
use zeroize::Zeroizing;

#[cfg(feature = "post-quantum")]
use super::post_quantum;
use crate::crypto::constant_time_eq;

/// Nsecret of all KEMs, in bytes.
const SHARED_SECRET_LEN: usize = 32;
/// Nsk of both DHKEMs, in bytes.
const PRIVATE_KEY_LEN: usize = 32;
/// The hash of both DHKEMs, whatever the suite's KDF is.
const KEM_HASH: HashType = HashType::Sha2_256;

pub(super) type SharedSecret = Zeroizing<[u8; SHARED_SECRET_LEN]>;

pub(super) fn seal(
    config: &HpkeConfig,
    pk_r: &[u8],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<HpkeCiphertext, CryptoError> {
    let suite = Suite::new(config)?;
    let (enc, shared_secret) = suite.kem.encap(pk_r)?;
    let keys = suite.key_schedule(&shared_secret, info)?;
    let ciphertext = super::seal(suite.aead, &keys.key, &keys.base_nonce, aad, plaintext)
        .map_err(|_| CryptoError::HpkeEncryptionError)?;
    Ok(HpkeCiphertext { kem_output: enc.into(), ciphertext: ciphertext.into() })
}

pub(super) fn open(
    config: &HpkeConfig,
    input: &HpkeCiphertext,
    sk_r: &[u8],
    info: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    open_with(config, &PrivateKey::parse(config, sk_r)?, input, info, aad)
}

pub(super) fn open_with(
    config: &HpkeConfig,
    sk_r: &PrivateKey,
    input: &HpkeCiphertext,
    info: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let suite = Suite::new(config)?;
    let shared_secret = suite.kem.decap(input.kem_output.as_slice(), sk_r)?;
    let keys = suite.key_schedule(&shared_secret, info)?;
    super::open(suite.aead, &keys.key, &keys.base_nonce, aad, input.ciphertext.as_slice())
        .map_err(|_| CryptoError::HpkeDecryptionError)
}

pub(super) fn export_as_sender(
    config: &HpkeConfig,
    pk_r: &[u8],
    info: &[u8],
    exporter_context: &[u8],
    length: usize,
) -> Result<(KemOutput, ExporterSecret), CryptoError> {
    let suite = Suite::new(config)?;
    let (enc, shared_secret) = suite.kem.encap(pk_r)?;
    Ok((enc, suite.export(&shared_secret, info, exporter_context, length)?))
}

pub(super) fn export_as_receiver(
    config: &HpkeConfig,
    enc: &[u8],
    sk_r: &[u8],
    info: &[u8],
    exporter_context: &[u8],
    length: usize,
) -> Result<ExporterSecret, CryptoError> {
    let suite = Suite::new(config)?;
    let shared_secret = suite.kem.decap(enc, &PrivateKey::parse(config, sk_r)?)?;
    suite.export(&shared_secret, info, exporter_context, length)
}

/// DeriveKeyPair (RFC 9180, section 7.1.3).
pub(super) fn derive_key_pair(config: &HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
    match Kem::new(config.0)? {
        Kem::Dh(kem) => derive_dh_key_pair(kem, ikm),
        #[cfg(feature = "post-quantum")]
        Kem::PostQuantum(kem) => {
            let (seed, public) = kem.derive_key_pair(ikm)?;
            Ok(HpkeKeyPair { private: seed.as_slice().into(), public })
        }
    }
}

fn derive_dh_key_pair(kem: DhKem, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
    let suite_id = kem.suite_id();
    let dkp_prk = labeled_extract(KEM_HASH, &suite_id, b"", b"dkp_prk", ikm)?;
    let mut sk = Zeroizing::new([0; PRIVATE_KEY_LEN]);
    let key = match kem {
        DhKem::X25519 => {
            labeled_expand(KEM_HASH, &suite_id, &dkp_prk, b"sk", b"", &mut *sk)?;
            kem.private_key(&*sk)?
        }
        // Not every 32 bytes are a scalar of the curve: the first candidate that is one.
        DhKem::P256 => {
            let mut counter = 0_u8;
            loop {
                let (label, context) = (b"candidate", [counter]);
                labeled_expand(KEM_HASH, &suite_id, &dkp_prk, label, &context, &mut *sk)?;
                if let Ok(key) = kem.private_key(&*sk) {
                    break key;
                }
                counter = counter.checked_add(1).ok_or(CryptoError::CryptoLibraryError)?;
            }
        }
    };
    Ok(HpkeKeyPair { private: sk.as_slice().into(), public: kem.public_key(&key)? })
}

/// A KEM, a KDF and an AEAD, all supported.
struct Suite {
    kem: Kem,
    kdf: HashType,
    aead: AeadType,
    id: [u8; 10],
}

/// What an HPKE context seals one message with (RFC 9180, section 5.1).
struct Keys {
    key: Zeroizing<Vec<u8>>,
    base_nonce: [u8; 12],
}

/// `secret` and `key_schedule_context` of an HPKE context (RFC 9180, section 5.1).
struct Schedule {
    secret: Zeroizing<Vec<u8>>,
    context: Vec<u8>,
}

/// A private key, parsed.
pub(in crate::crypto) struct PrivateKey {
    kem: Kem,
    bytes: Zeroizing<Vec<u8>>,
    key: ParsedKey,
}

enum ParsedKey {
    Dh {
        key: agreement::PrivateKey,
        public: Vec<u8>,
    },
    #[cfg(feature = "post-quantum")]
    PostQuantum(post_quantum::PrivateKey),
}

impl PrivateKey {
    pub(in crate::crypto) fn parse(config: &HpkeConfig, sk: &[u8]) -> Result<Self, CryptoError> {
        let kem = Kem::new(config.0)?;
        let key = match kem {
            Kem::Dh(kem) => {
                let key = kem.private_key(sk)?;
                let public = kem.public_key(&key)?;
                ParsedKey::Dh { key, public }
            }
            #[cfg(feature = "post-quantum")]
            Kem::PostQuantum(kem) => ParsedKey::PostQuantum(kem.private_key(sk)?),
        };
        Ok(Self { kem, bytes: Zeroizing::new(sk.to_vec()), key })
    }

    /// It is this one.
    pub(in crate::crypto) fn is(&self, config: &HpkeConfig, sk: &[u8]) -> bool {
        Kem::new(config.0) == Ok(self.kem) && constant_time_eq(&self.bytes, sk)
    }
}

impl Suite {
    fn new(HpkeConfig(kem, kdf, aead): &HpkeConfig) -> Result<Self, CryptoError> {
        let mut id = *b"HPKE\0\0\0\0\0\0";
        let kem = Kem::new(*kem)?;
        id[4..6].copy_from_slice(&kem.id().to_be_bytes());
        id[6..8].copy_from_slice(&(*kdf as u16).to_be_bytes());
        id[8..].copy_from_slice(&(*aead as u16).to_be_bytes());
        Ok(Self {
            kem,
            kdf: match kdf {
                HpkeKdfType::HkdfSha256 => HashType::Sha2_256,
                HpkeKdfType::HkdfSha384 => HashType::Sha2_384,
                HpkeKdfType::HkdfSha512 => HashType::Sha2_512,
            },
            aead: match aead {
                HpkeAeadType::AesGcm128 => AeadType::Aes128Gcm,
                HpkeAeadType::AesGcm256 => AeadType::Aes256Gcm,
                HpkeAeadType::ChaCha20Poly1305 => AeadType::ChaCha20Poly1305,
                HpkeAeadType::Export => return Err(CryptoError::UnsupportedAeadAlgorithm),
            },
            id,
        })
    }

    /// The first half of KeySchedule in base mode (RFC 9180, section 5.1): no pre-shared key.
    fn schedule(&self, shared_secret: &SharedSecret, info: &[u8]) -> Result<Schedule, CryptoError> {
        const MODE_BASE: u8 = 0;
        let extract = |salt: &[u8], label: &[u8], ikm: &[u8]| {
            labeled_extract(self.kdf, &self.id, salt, label, ikm)
        };
        let mut context = vec![MODE_BASE];
        context.extend_from_slice(&extract(b"", b"psk_id_hash", b"")?);
        context.extend_from_slice(&extract(b"", b"info_hash", info)?);
        Ok(Schedule { secret: extract(shared_secret.as_slice(), b"secret", b"")?, context })
    }

    /// The second half. The exporter secret is derived where it is needed.
    fn key_schedule(&self, shared_secret: &SharedSecret, info: &[u8]) -> Result<Keys, CryptoError> {
        let Schedule { secret, context } = self.schedule(shared_secret, info)?;
        let mut keys =
            Keys { key: Zeroizing::new(vec![0; self.aead.key_size()]), base_nonce: [0; 12] };
        let expand = |label: &[u8], out: &mut [u8]| {
            labeled_expand(self.kdf, &self.id, &secret, label, &context, out)
        };
        expand(b"key", &mut keys.key)?;
        expand(b"base_nonce", &mut keys.base_nonce)?;
        Ok(keys)
    }

    /// Context.Export (RFC 9180, section 5.3).
    fn export(
        &self,
        shared_secret: &SharedSecret,
        info: &[u8],
        exporter_context: &[u8],
        length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        if length > 255 * self.kdf.size() {
            return Err(CryptoError::ExporterError);
        }
        let Schedule { secret, context } = self.schedule(shared_secret, info)?;
        let expand = |secret: &[u8], label: &[u8], context: &[u8], out: &mut [u8]| {
            labeled_expand(self.kdf, &self.id, secret, label, context, out)
                .map_err(|_| CryptoError::ExporterError)
        };
        let mut exporter_secret = Zeroizing::new(vec![0; self.kdf.size()]);
        expand(&secret, b"exp", &context, &mut exporter_secret)?;
        let mut out = Zeroizing::new(vec![0; length]);
        expand(&exporter_secret, b"sec", exporter_context, &mut out)?;
        Ok(std::mem::take(&mut *out).into())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kem {
    Dh(DhKem),
    #[cfg(feature = "post-quantum")]
    PostQuantum(post_quantum::Kem),
}

/// A DHKEM with HKDF-SHA256 (RFC 9180, section 4.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum DhKem {
    X25519,
    P256,
}

impl Kem {
    fn new(kem: HpkeKemType) -> Result<Self, CryptoError> {
        match kem {
            HpkeKemType::DhKem25519 => Ok(Self::Dh(DhKem::X25519)),
            HpkeKemType::DhKemP256 => Ok(Self::Dh(DhKem::P256)),
            #[cfg(feature = "post-quantum")]
            other => post_quantum::Kem::new(other)
                .map(Self::PostQuantum)
                .ok_or(CryptoError::UnsupportedCiphersuite),
            #[cfg(not(feature = "post-quantum"))]
            _ => Err(CryptoError::UnsupportedCiphersuite),
        }
    }

    fn id(self) -> u16 {
        match self {
            Self::Dh(DhKem::X25519) => 0x0020,
            Self::Dh(DhKem::P256) => 0x0010,
            #[cfg(feature = "post-quantum")]
            Self::PostQuantum(kem) => kem.id(),
        }
    }

    fn encap(self, pk_r: &[u8]) -> Result<(Vec<u8>, SharedSecret), CryptoError> {
        match self {
            Self::Dh(kem) => kem.encap(pk_r),
            #[cfg(feature = "post-quantum")]
            Self::PostQuantum(kem) => kem.encap(pk_r),
        }
    }

    fn decap(self, enc: &[u8], sk_r: &PrivateKey) -> Result<SharedSecret, CryptoError> {
        match (self, &sk_r.key) {
            (Self::Dh(kem), ParsedKey::Dh { key, public }) => kem.decap(enc, key, public),
            #[cfg(feature = "post-quantum")]
            (Self::PostQuantum(kem), ParsedKey::PostQuantum(key)) => kem.decap(enc, key),
            #[cfg(feature = "post-quantum")]
            _ => Err(CryptoError::InvalidLength),
        }
    }
}

impl DhKem {
    fn encap(self, pk_r: &[u8]) -> Result<(Vec<u8>, SharedSecret), CryptoError> {
        self.check_public_key(pk_r)?;
        let ephemeral = agreement::PrivateKey::generate(self.curve())
            .map_err(|_| CryptoError::InsufficientRandomness)?;
        let enc = self.public_key(&ephemeral)?;
        let shared_secret = self.agree(&ephemeral, pk_r, &enc, pk_r)?;
        Ok((enc, shared_secret))
    }

    fn decap(
        self,
        enc: &[u8],
        sk_r: &agreement::PrivateKey,
        pk_r: &[u8],
    ) -> Result<SharedSecret, CryptoError> {
        self.check_public_key(enc)?;
        self.agree(sk_r, enc, enc, pk_r)
    }

    /// ExtractAndExpand of the Diffie-Hellman result.
    //
    // The library fails on an all-zero result of X25519 (X25519() in curve25519.c), which
    // RFC 9180, section 7.1.4 demands, and on a point that is not on P-256. It erases its own
    // copy of the result.
    fn agree(
        self,
        key: &agreement::PrivateKey,
        peer: &[u8],
        enc: &[u8],
        pk_r: &[u8],
    ) -> Result<SharedSecret, CryptoError> {
        let suite_id = self.suite_id();
        let peer = UnparsedPublicKey::new(self.curve(), peer);
        let eae_prk = agree(key, peer, CryptoError::InvalidPublicKey, |dh| {
            labeled_extract(KEM_HASH, &suite_id, b"", b"eae_prk", dh)
        })?;
        let kem_context = [enc, pk_r].concat();
        let mut shared_secret = SharedSecret::default();
        labeled_expand(
            KEM_HASH,
            &suite_id,
            &eae_prk,
            b"shared_secret",
            &kem_context,
            &mut *shared_secret,
        )?;
        Ok(shared_secret)
    }

    fn private_key(self, bytes: &[u8]) -> Result<agreement::PrivateKey, CryptoError> {
        if bytes.len() != PRIVATE_KEY_LEN {
            return Err(CryptoError::InvalidLength);
        }
        agreement::PrivateKey::from_private_key(self.curve(), bytes)
            .map_err(|_| CryptoError::CryptoLibraryError)
    }

    fn public_key(self, key: &agreement::PrivateKey) -> Result<Vec<u8>, CryptoError> {
        let public = key.compute_public_key().map_err(|_| CryptoError::CryptoLibraryError)?;
        Ok(public.as_ref().to_vec())
    }

    /// Only the encodings of RFC 9180, section 7.1.1; the library would take more.
    fn check_public_key(self, bytes: &[u8]) -> Result<(), CryptoError> {
        let valid = match self {
            Self::X25519 => bytes.len() == 32,
            Self::P256 => bytes.len() == 65 && bytes.first() == Some(&4),
        };
        if valid { Ok(()) } else { Err(CryptoError::InvalidPublicKey) }
    }

    fn curve(self) -> &'static agreement::Algorithm {
        match self {
            Self::X25519 => &agreement::X25519,
            Self::P256 => &agreement::ECDH_P256,
        }
    }

    fn suite_id(self) -> [u8; 5] {
        match self {
            Self::X25519 => *b"KEM\x00\x20",
            Self::P256 => *b"KEM\x00\x10",
        }
    }
}

const VERSION: &[u8] = b"HPKE-v1";

/// LabeledExtract (RFC 9180, section 4).
fn labeled_extract(
    hash: HashType,
    suite_id: &[u8],
    salt: &[u8],
    label: &[u8],
    ikm: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    super::hmac_parts(hash, salt, &[VERSION, suite_id, label, ikm]).map(Zeroizing::new)
}

/// LabeledExpand (RFC 9180, section 4).
fn labeled_expand(
    hash: HashType,
    suite_id: &[u8],
    prk: &[u8],
    label: &[u8],
    info: &[u8],
    out: &mut [u8],
) -> Result<(), CryptoError> {
    let length = u16::try_from(out.len()).map_err(|_| CryptoError::HkdfOutputLengthInvalid)?;
    super::expand(hash, prk, &[&length.to_be_bytes(), VERSION, suite_id, label, info], out)
}
