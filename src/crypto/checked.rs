//! A library behind the traits of OpenMLS, with the lengths checked around it.

use std::sync::Arc;

use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
        HpkeKdfType, HpkeKemType, HpkeKeyPair, KemOutput, SignatureScheme,
    },
};
use tls_codec::SecretVLBytes;
use zeroize::Zeroizing;

use super::{
    Aead, CipherSuite, CryptoLibrary, RecordAead, kem::KemLengths, small_order::is_small_order,
};
use crate::error::CryptoError as ChannelCryptoError;

/// Length of a tag in bytes, of every AEAD here.
const TAG_LEN: usize = 16;

/// A library that is never asked for what could make it panic, and whose results have the length
/// that they must have.
//
// RustCrypto panics on a nonce or a signature key of another length.
#[derive(Clone)]
pub(super) struct Checked(Arc<dyn CryptoLibrary>);

/// A record key made of a library that has none of its own.
struct Copying {
    library: Checked,
    algorithm: AeadType,
    key: Zeroizing<Vec<u8>>,
}

impl Checked {
    pub(super) fn new(library: impl CryptoLibrary + 'static) -> Self {
        Self(Arc::new(library))
    }

    pub(super) fn name(&self) -> &'static str {
        self.0.name()
    }

    pub(super) fn fill_random(&self, out: &mut [u8]) -> Result<(), ChannelCryptoError> {
        self.0.fill_random(out)
    }

    pub(super) fn sign_ed25519(
        &self,
        seed: &[u8; 32],
        message: &[u8],
    ) -> Result<[u8; 64], ChannelCryptoError> {
        self.0.sign_ed25519(seed, message)
    }

    /// The signature of `message` by a private key of `scheme`.
    pub(super) fn sign_with(
        &self,
        scheme: super::SignatureScheme,
        private_key: &[u8],
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.sign(scheme.mls(), message, private_key)
    }

    pub(super) fn record_aead(
        &self,
        aead: Aead,
        key: &[u8],
    ) -> Result<Box<dyn RecordAead>, ChannelCryptoError> {
        let algorithm = aead.mls();
        Ok(match self.0.record_aead(algorithm, key)? {
            Some(key) => key,
            None => {
                let key = Zeroizing::new(key.to_vec());
                Box::new(Copying { library: self.clone(), algorithm, key })
            }
        })
    }
}

impl RecordAead for Copying {
    fn seal_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LEN], ChannelCryptoError> {
        const FAILED: ChannelCryptoError = ChannelCryptoError::Internal("AEAD encryption");
        let sealed = self
            .library
            .aead_encrypt(self.algorithm, &self.key, data, nonce, aad)
            .map_err(|_| FAILED)?;
        let (ciphertext, tag) = sealed.split_last_chunk().ok_or(FAILED)?;
        data.copy_from_slice(ciphertext);
        Ok(*tag)
    }

    fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), ChannelCryptoError> {
        let sealed = [&*data, tag].concat();
        let plaintext = self
            .library
            .aead_decrypt(self.algorithm, &self.key, &sealed, nonce, aad)
            .map(Zeroizing::new)
            .map_err(|_| ChannelCryptoError::Internal("AEAD decryption"))?;
        data.copy_from_slice(&plaintext);
        Ok(())
    }
}

impl OpenMlsCrypto for Checked {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        if CipherSuite::from_id(ciphersuite.into()).is_none() {
            return Err(CryptoError::UnsupportedCiphersuite);
        }
        self.0.crypto().supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        let known = |suite: &Ciphersuite| CipherSuite::from_id(suite.into()).is_some();
        self.0.crypto().supported_ciphersuites().into_iter().filter(known).collect()
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        let prk = self.0.crypto().hkdf_extract(hash_type, salt, ikm)?;
        check_result(prk.as_slice(), hash_type.size())?;
        Ok(prk)
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        let mac = self.0.crypto().hmac(hash_type, key, message)?;
        check_result(mac.as_slice(), hash_type.size())?;
        Ok(mac)
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        // The length first, so that an absurd one allocates nothing.
        if okm_len > 255 * hash_type.size() {
            return Err(CryptoError::HkdfOutputLengthInvalid);
        }
        // RFC 5869, section 2.3
        if prk.len() < hash_type.size() {
            return Err(CryptoError::InvalidLength);
        }
        let okm = self.0.crypto().hkdf_expand(hash_type, prk, info, okm_len)?;
        check_result(okm.as_slice(), okm_len)?;
        Ok(okm)
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let hash = self.0.crypto().hash(hash_type, data)?;
        check_result(&hash, hash_type.size())?;
        Ok(hash)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_key_and_nonce(alg, key, nonce)?;
        let sealed = self.0.crypto().aead_encrypt(alg, key, data, nonce, aad)?;
        check_result(&sealed, data.len() + TAG_LEN)?;
        Ok(sealed)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_key_and_nonce(alg, key, nonce)?;
        let length = ct_tag.len().checked_sub(TAG_LEN).ok_or(CryptoError::AeadDecryptionError)?;
        let opened = self.0.crypto().aead_decrypt(alg, key, ct_tag, nonce, aad)?;
        check_result(&opened, length)?;
        Ok(opened)
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        known_scheme(alg)?;
        self.0.crypto().signature_key_gen(alg)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let scheme = known_scheme(alg)?;
        if !scheme.is_public_key(pk) {
            return Err(CryptoError::InvalidPublicKey);
        }
        if scheme.signature_len().is_some_and(|length| length != signature.len()) {
            return Err(CryptoError::InvalidSignature);
        }
        if scheme == super::SignatureScheme::ED25519
            && [pk, signature].iter().any(|bytes| bytes.first_chunk().is_none_or(is_small_order))
        {
            return Err(CryptoError::InvalidSignature);
        }
        self.0.crypto().verify_signature(alg, data, pk, signature)
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        known_scheme(alg)?;
        // A seed or a scalar.
        if key.len() != 32 {
            return Err(CryptoError::InvalidLength);
        }
        self.0.crypto().sign(alg, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        let kem = config.0;
        check_public_key(kem, pk_r)?;
        let sealed = self.0.crypto().hpke_seal(config, pk_r, info, aad, ptxt)?;
        check_result(sealed.ciphertext.as_slice(), ptxt.len() + TAG_LEN)?;
        check_enc(kem, sealed.kem_output.as_slice())
            .map_err(|_| CryptoError::CryptoLibraryError)?;
        Ok(sealed)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_enc(config.0, input.kem_output.as_slice())?;
        check_private_key(config.0, sk_r)?;
        let length = input.ciphertext.as_slice().len().checked_sub(TAG_LEN);
        let length = length.ok_or(CryptoError::HpkeDecryptionError)?;
        let opened = self.0.crypto().hpke_open(config, input, sk_r, info, aad)?;
        check_result(&opened, length)?;
        Ok(opened)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        let kem = config.0;
        check_public_key(kem, pk_r)?;
        check_export(config.1, exporter_length)?;
        let (enc, secret) = self.0.crypto().hpke_setup_sender_and_export(
            config,
            pk_r,
            info,
            exporter_context,
            exporter_length,
        )?;
        check_enc(kem, &enc).map_err(|_| CryptoError::CryptoLibraryError)?;
        check_result(&secret, exporter_length)?;
        Ok((enc, secret))
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
        check_enc(config.0, enc)?;
        check_private_key(config.0, sk_r)?;
        check_export(config.1, exporter_length)?;
        let secret = self.0.crypto().hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )?;
        check_result(&secret, exporter_length)?;
        Ok(secret)
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        let kem = config.0;
        let lengths = KemLengths::of(kem)?;
        let pair = self.0.crypto().derive_hpke_keypair(config, ikm)?;
        check_result(&pair.private, lengths.private_key)?;
        check_public_key(kem, &pair.public).map_err(|_| CryptoError::CryptoLibraryError)?;
        Ok(pair)
    }
}

/// What the library has computed must have this length.
fn check_result(result: &[u8], length: usize) -> Result<(), CryptoError> {
    if result.len() == length { Ok(()) } else { Err(CryptoError::CryptoLibraryError) }
}

fn check_key_and_nonce(alg: AeadType, key: &[u8], nonce: &[u8]) -> Result<(), CryptoError> {
    if key.len() == alg.key_size() && nonce.len() == alg.nonce_size() {
        Ok(())
    } else {
        Err(CryptoError::InvalidLength)
    }
}

/// The scheme, if a suite that this crate may use has it; a library may have more.
fn known_scheme(alg: SignatureScheme) -> Result<super::SignatureScheme, CryptoError> {
    super::SignatureScheme::from_mls(alg).ok_or(CryptoError::UnsupportedSignatureScheme)
}

fn check_public_key(kem: HpkeKemType, public_key: &[u8]) -> Result<(), CryptoError> {
    check_point(kem, public_key, KemLengths::of(kem)?.public_key)
}

/// What an encapsulation gives.
fn check_enc(kem: HpkeKemType, enc: &[u8]) -> Result<(), CryptoError> {
    check_point(kem, enc, KemLengths::of(kem)?.enc)
}

/// Of a point on P-256 only the uncompressed form is allowed (RFC 9180, section 7.1.1).
fn check_point(kem: HpkeKemType, bytes: &[u8], length: usize) -> Result<(), CryptoError> {
    if bytes.len() == length && (kem != HpkeKemType::DhKemP256 || bytes.first() == Some(&4)) {
        Ok(())
    } else {
        Err(CryptoError::InvalidPublicKey)
    }
}

fn check_private_key(kem: HpkeKemType, private_key: &[u8]) -> Result<(), CryptoError> {
    if private_key.len() == KemLengths::of(kem)?.private_key {
        Ok(())
    } else {
        Err(CryptoError::InvalidLength)
    }
}

/// RFC 9180, section 5.3
fn check_export(kdf: HpkeKdfType, length: usize) -> Result<(), CryptoError> {
    let hash_len = match kdf {
        HpkeKdfType::HkdfSha256 => 32,
        HpkeKdfType::HkdfSha384 => 48,
        HpkeKdfType::HkdfSha512 => 64,
    };
    if length <= 255 * hash_len { Ok(()) } else { Err(CryptoError::InvalidLength) }
}
