//! The backend over RustCrypto: what `openmls_rust_crypto` has, with its panics closed.

use std::sync::Arc;

use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    random::OpenMlsRand,
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
        HpkeKemType, HpkeKeyPair, KemOutput, SignatureScheme,
    },
};
use tls_codec::SecretVLBytes;
use zeroize::Zeroizing;

use crate::error::CryptoError as ChannelCryptoError;

/// RustCrypto behind a reference count: its generator is seeded once.
#[derive(Clone, Default)]
pub(super) struct RustCryptoBackend(Arc<RustCrypto>);

impl RustCryptoBackend {
    pub(super) fn fill_random(&self, out: &mut [u8]) -> Result<(), ChannelCryptoError> {
        let random = self
            .0
            .random_vec(out.len())
            .map(Zeroizing::new)
            .map_err(|_| ChannelCryptoError::Random)?;
        if random.len() != out.len() {
            return Err(ChannelCryptoError::Random);
        }
        out.copy_from_slice(&random);
        Ok(())
    }
}

impl OpenMlsCrypto for RustCryptoBackend {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        self.0.supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.0.supported_ciphersuites()
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.0.hkdf_extract(hash_type, salt, ikm)
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.0.hmac(hash_type, key, message)
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.0.hkdf_expand(hash_type, prk, info, okm_len)
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.0.hash(hash_type, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_nonce(alg, nonce)?;
        self.0.aead_encrypt(alg, key, data, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_nonce(alg, nonce)?;
        self.0.aead_decrypt(alg, key, ct_tag, nonce, aad)
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        check_scheme(alg)?;
        self.0.signature_key_gen(alg)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        check_scheme(alg)?;
        if alg == SignatureScheme::ECDSA_SECP256R1_SHA256 {
            check_p256_point(pk)?;
        }
        self.0.verify_signature(alg, data, pk, signature)
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        check_scheme(alg)?;
        // The library panics on another length.
        if key.len() != 32 {
            return Err(CryptoError::InvalidLength);
        }
        self.0.sign(alg, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        check_public_key(config.0, pk_r)?;
        self.0.hpke_seal(config, pk_r, info, aad, ptxt)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_public_key(config.0, input.kem_output.as_slice())?;
        self.0.hpke_open(config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        check_public_key(config.0, pk_r)?;
        self.0.hpke_setup_sender_and_export(config, pk_r, info, exporter_context, exporter_length)
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        check_public_key(config.0, enc)?;
        self.0.hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        check_kem(config.0)?;
        self.0.derive_hpke_keypair(config, ikm)
    }
}

/// The library panics on a nonce of another length.
fn check_nonce(alg: AeadType, nonce: &[u8]) -> Result<(), CryptoError> {
    if nonce.len() == alg.nonce_size() { Ok(()) } else { Err(CryptoError::InvalidLength) }
}

/// The schemes of the suites that this backend lists; the library has more.
fn check_scheme(alg: SignatureScheme) -> Result<(), CryptoError> {
    match alg {
        SignatureScheme::ED25519 | SignatureScheme::ECDSA_SECP256R1_SHA256 => Ok(()),
        _ => Err(CryptoError::UnsupportedSignatureScheme),
    }
}

/// The KEMs of the suites that this backend lists; the library has more.
fn check_kem(kem: HpkeKemType) -> Result<(), CryptoError> {
    match kem {
        HpkeKemType::DhKem25519 | HpkeKemType::DhKemP256 => Ok(()),
        _ => Err(CryptoError::UnsupportedCiphersuite),
    }
}

fn check_public_key(kem: HpkeKemType, public_key: &[u8]) -> Result<(), CryptoError> {
    check_kem(kem)?;
    match kem {
        HpkeKemType::DhKemP256 => check_p256_point(public_key),
        _ if public_key.len() == 32 => Ok(()),
        _ => Err(CryptoError::InvalidPublicKey),
    }
}

/// Only the uncompressed form is allowed (RFC 9180, section 7.1.1; RFC 9420, section 5.1.1).
fn check_p256_point(point: &[u8]) -> Result<(), CryptoError> {
    if point.len() == 65 && point.first() == Some(&4) {
        Ok(())
    } else {
        Err(CryptoError::InvalidPublicKey)
    }
}
