//! The backend over AWS-LC: the primitives that OpenMLS needs. HPKE is in [`hpke`].

mod hpke;
#[cfg(feature = "post-quantum")]
mod post_quantum;

#[cfg(feature = "post-quantum")]
use aws_lc_rs::signature::PqdsaKeyPair;
use aws_lc_rs::{
    aead, agreement, digest,
    encoding::{AsBigEndian, EcPrivateKeyBin},
    rand,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
        HpkeKeyPair, KemOutput, SignatureScheme,
    },
};
use sha2::{Sha256, Sha384, Sha512};
use tls_codec::SecretVLBytes;
use zeroize::Zeroizing;

pub(super) use self::hpke::PrivateKey as HpkePrivateKey;
#[cfg(feature = "post-quantum")]
use super::SignatureScheme as SignatureSchemeOfIdentities;
use super::small_order::is_small_order;
use crate::error::CryptoError as ChannelCryptoError;

/// AWS-LC has no state that a provider would own.
#[derive(Clone, Copy)]
pub(super) struct AwsLc;

impl AwsLc {
    pub(super) fn fill_random(self, out: &mut [u8]) -> Result<(), ChannelCryptoError> {
        rand::fill(out).map_err(|_| ChannelCryptoError::Random)
    }

    /// As `hpke_open`, with a key that was parsed before.
    pub(super) fn hpke_open_with(
        self,
        config: &HpkeConfig,
        sk_r: &HpkePrivateKey,
        input: &HpkeCiphertext,
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        hpke::open_with(config, sk_r, input, info, aad)
    }
}

impl OpenMlsCrypto for AwsLc {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        if self.supported_ciphersuites().contains(&ciphersuite) {
            Ok(())
        } else {
            Err(CryptoError::UnsupportedCiphersuite)
        }
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        vec![
            Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
            Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
            Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
            #[cfg(feature = "post-quantum")]
            Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519,
            #[cfg(feature = "post-quantum")]
            Ciphersuite::MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
            #[cfg(feature = "post-quantum")]
            Ciphersuite::MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519,
            #[cfg(feature = "post-quantum")]
            Ciphersuite::MLS_128_MLKEM768_AES256GCM_SHA384_Ed25519,
            #[cfg(feature = "post-quantum")]
            Ciphersuite::MLS_128_MLKEM768_AES256GCM_SHA384_P256,
            #[cfg(feature = "post-quantum")]
            Ciphersuite::MLS_128_MLKEM768X25519_CHACHA20POLY1305_SHA384_MLDSA44,
            #[cfg(feature = "post-quantum")]
            Ciphersuite::MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65,
            #[cfg(feature = "post-quantum")]
            Ciphersuite::MLS_256_MLKEM1024_AES256GCM_SHA384_MLDSA87,
            #[cfg(feature = "post-quantum")]
            Ciphersuite::MLS_256_MLKEM1024_AES256GCM_SHA512_MLDSA87,
        ]
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        Ok(hmac_parts(hash_type, salt, &[ikm])?.into())
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        Ok(hmac_parts(hash_type, key, &[message])?.into())
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
        let mut okm = Zeroizing::new(vec![0; okm_len]);
        expand(hash_type, prk, &[info], &mut okm)?;
        Ok(std::mem::take(&mut *okm).into())
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let algorithm = match hash_type {
            HashType::Sha2_256 => &digest::SHA256,
            HashType::Sha2_384 => &digest::SHA384,
            HashType::Sha2_512 => &digest::SHA512,
        };
        Ok(digest::digest(algorithm, data).as_ref().to_vec())
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        seal(alg, key, nonce, aad, data)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        open(alg, key, nonce, aad, ct_tag)
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        match alg {
            SignatureScheme::ED25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                rand::fill(&mut *seed).map_err(|_| CryptoError::InsufficientRandomness)?;
                let key = ed25519_key(&*seed)?;
                Ok((seed.to_vec(), key.public_key().as_ref().to_vec()))
            }
            SignatureScheme::ECDSA_SECP256R1_SHA256 => {
                let key = agreement::PrivateKey::generate(&agreement::ECDH_P256)
                    .map_err(|_| CryptoError::InsufficientRandomness)?;
                let scalar: EcPrivateKeyBin<'_> =
                    key.as_be_bytes().map_err(|_| CryptoError::CryptoLibraryError)?;
                let public =
                    key.compute_public_key().map_err(|_| CryptoError::CryptoLibraryError)?;
                Ok((scalar.as_ref().to_vec(), public.as_ref().to_vec()))
            }
            #[cfg(feature = "post-quantum")]
            SignatureScheme::MLDSA44 | SignatureScheme::MLDSA65 | SignatureScheme::MLDSA87 => {
                let mut seed = Zeroizing::new([0; 32]);
                rand::fill(&mut *seed).map_err(|_| CryptoError::InsufficientRandomness)?;
                let key = ml_dsa_key(alg, &*seed)?;
                Ok((seed.to_vec(), key.public_key().as_ref().to_vec()))
            }
            _ => Err(CryptoError::UnsupportedSignatureScheme),
        }
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        // The lengths, because the library would also take an X.509 SubjectPublicKeyInfo and the
        // other encodings of a point.
        let verified = match alg {
            SignatureScheme::ED25519 => {
                let key: &[u8; 32] = pk.try_into().map_err(|_| CryptoError::InvalidPublicKey)?;
                let commitment =
                    signature.first_chunk::<32>().ok_or(CryptoError::InvalidSignature)?;
                if is_small_order(key) || is_small_order(commitment) {
                    return Err(CryptoError::InvalidSignature);
                }
                UnparsedPublicKey::new(&signature::ED25519, key).verify(data, signature)
            }
            SignatureScheme::ECDSA_SECP256R1_SHA256 => {
                if pk.len() != 65 || pk.first() != Some(&4) {
                    return Err(CryptoError::InvalidPublicKey);
                }
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, pk)
                    .verify(data, signature)
            }
            #[cfg(feature = "post-quantum")]
            SignatureScheme::MLDSA44 | SignatureScheme::MLDSA65 | SignatureScheme::MLDSA87 => {
                if !SignatureSchemeOfIdentities::from_mls(alg)
                    .is_some_and(|scheme| scheme.is_public_key(pk))
                {
                    return Err(CryptoError::InvalidPublicKey);
                }
                let algorithm = match alg {
                    SignatureScheme::MLDSA44 => &signature::ML_DSA_44,
                    SignatureScheme::MLDSA65 => &signature::ML_DSA_65,
                    _ => &signature::ML_DSA_87,
                };
                UnparsedPublicKey::new(algorithm, pk).verify(data, signature)
            }
            _ => return Err(CryptoError::UnsupportedSignatureScheme),
        };
        verified.map_err(|_| CryptoError::InvalidSignature)
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        #[cfg(feature = "post-quantum")]
        if matches!(
            alg,
            SignatureScheme::MLDSA44 | SignatureScheme::MLDSA65 | SignatureScheme::MLDSA87
        ) {
            let key = ml_dsa_key(alg, key)?;
            let mut signature = vec![0; key.algorithm().signature_len()];
            key.sign(data, &mut signature).map_err(|_| CryptoError::SigningError)?;
            return Ok(signature);
        }
        let signed = match alg {
            SignatureScheme::ED25519 => ed25519_key(key)?.try_sign(data),
            SignatureScheme::ECDSA_SECP256R1_SHA256 => {
                p256_key(key)?.sign(&rand::SystemRandom::new(), data)
            }
            _ => return Err(CryptoError::UnsupportedSignatureScheme),
        };
        signed.map(|s| s.as_ref().to_vec()).map_err(|_| CryptoError::SigningError)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        hpke::seal(&config, pk_r, info, aad, ptxt)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        hpke::open(&config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        hpke::export_as_sender(&config, pk_r, info, exporter_context, exporter_length)
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
        hpke::export_as_receiver(&config, enc, sk_r, info, exporter_context, exporter_length)
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        hpke::derive_key_pair(&config, ikm)
    }
}

/// HMAC over the concatenation of `parts`. HKDF-Extract is this with the salt as the key.
//
// HMAC and HKDF are those of the RustCrypto project, which erase their state when they are dropped: a
// rekey computes more than a hundred of them, all of them short, and AWS-LC's take half as long again
// for setting up its contexts.
fn hmac_parts(hash: HashType, key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, CryptoError> {
    fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, CryptoError> {
        let mut mac =
            <M as KeyInit>::new_from_slice(key).map_err(|_| CryptoError::InvalidLength)?;
        parts.iter().for_each(|part| mac.update(part));
        Ok(mac.finalize().into_bytes().to_vec())
    }
    match hash {
        HashType::Sha2_256 => mac::<Hmac<Sha256>>(key, parts),
        HashType::Sha2_384 => mac::<Hmac<Sha384>>(key, parts),
        HashType::Sha2_512 => mac::<Hmac<Sha512>>(key, parts),
    }
}

/// HKDF-Expand over the concatenation of `info`; fills `out`.
fn expand(hash: HashType, prk: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
    // At least a hash (RFC 5869, section 2.3).
    const SHORT: CryptoError = CryptoError::InvalidLength;
    match hash {
        HashType::Sha2_256 => {
            Hkdf::<Sha256>::from_prk(prk).map_err(|_| SHORT)?.expand_multi_info(info, out)
        }
        HashType::Sha2_384 => {
            Hkdf::<Sha384>::from_prk(prk).map_err(|_| SHORT)?.expand_multi_info(info, out)
        }
        HashType::Sha2_512 => {
            Hkdf::<Sha512>::from_prk(prk).map_err(|_| SHORT)?.expand_multi_info(info, out)
        }
    }
    .map_err(|_| CryptoError::HkdfOutputLengthInvalid)
}

fn aead_key(alg: AeadType, key: &[u8]) -> Result<aead::LessSafeKey, CryptoError> {
    let algorithm = match alg {
        AeadType::Aes128Gcm => &aead::AES_128_GCM,
        AeadType::Aes256Gcm => &aead::AES_256_GCM,
        AeadType::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    };
    let key = aead::UnboundKey::new(algorithm, key).map_err(|_| CryptoError::InvalidLength)?;
    Ok(aead::LessSafeKey::new(key))
}

fn seal(
    alg: AeadType,
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let key = aead_key(alg, key)?;
    let nonce =
        aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::InvalidLength)?;
    let mut out = Vec::with_capacity(plaintext.len() + alg.tag_size());
    out.extend_from_slice(plaintext);
    key.seal_in_place_append_tag(nonce, aead::Aad::from(aad), &mut out)
        .map_err(|_| CryptoError::CryptoLibraryError)?;
    Ok(out)
}

fn open(
    alg: AeadType,
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let key = aead_key(alg, key)?;
    let nonce =
        aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::InvalidLength)?;
    let (ciphertext, tag) =
        sealed.split_last_chunk::<16>().ok_or(CryptoError::AeadDecryptionError)?;
    let mut out = vec![0; ciphertext.len()];
    key.open_separate_gather(nonce, aead::Aad::from(aad), ciphertext, tag, &mut out)
        .map_err(|_| CryptoError::AeadDecryptionError)?;
    Ok(out)
}

fn ed25519_key(seed: &[u8]) -> Result<Ed25519KeyPair, CryptoError> {
    if seed.len() != 32 {
        return Err(CryptoError::InvalidLength);
    }
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| CryptoError::SigningError)
}

/// An ML-DSA key from its seed.
#[cfg(feature = "post-quantum")]
fn ml_dsa_key(alg: SignatureScheme, seed: &[u8]) -> Result<PqdsaKeyPair, CryptoError> {
    let algorithm = match alg {
        SignatureScheme::MLDSA44 => &signature::ML_DSA_44_SIGNING,
        SignatureScheme::MLDSA65 => &signature::ML_DSA_65_SIGNING,
        SignatureScheme::MLDSA87 => &signature::ML_DSA_87_SIGNING,
        _ => return Err(CryptoError::UnsupportedSignatureScheme),
    };
    if seed.len() != 32 {
        return Err(CryptoError::InvalidLength);
    }
    PqdsaKeyPair::from_seed(algorithm, seed).map_err(|_| CryptoError::SigningError)
}

/// An ECDSA key from its scalar. The library wants the public key beside it.
fn p256_key(scalar: &[u8]) -> Result<EcdsaKeyPair, CryptoError> {
    if scalar.len() != 32 {
        return Err(CryptoError::InvalidLength);
    }
    let public = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, scalar)
        .map_err(|_| CryptoError::SigningError)?
        .compute_public_key()
        .map_err(|_| CryptoError::SigningError)?;
    EcdsaKeyPair::from_private_key_and_public_key(
        &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        scalar,
        public.as_ref(),
    )
    .map_err(|_| CryptoError::SigningError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prk_shorter_than_a_hash_is_an_error() {
        for len in [0, 31] {
            let result = AwsLc.hkdf_expand(HashType::Sha2_256, &vec![1; len], b"info", 32);
            assert_eq!(result.unwrap_err(), CryptoError::InvalidLength, "{len}");
        }
    }

    #[test]
    fn other_encodings_of_a_public_key_are_rejected() {
        let key = ed25519_key(&[1; 32]).unwrap();
        let signature = key.try_sign(b"message").unwrap();
        let verify = |public: &[u8]| {
            AwsLc.verify_signature(SignatureScheme::ED25519, b"message", public, signature.as_ref())
        };
        assert_eq!(verify(key.public_key().as_ref()), Ok(()));
        // The SubjectPublicKeyInfo of RFC 8410, which the library itself would take.
        let mut spki = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
        spki.extend_from_slice(key.public_key().as_ref());
        assert!(
            UnparsedPublicKey::new(&signature::ED25519, &spki)
                .verify(b"message", signature.as_ref())
                .is_ok()
        );
        assert_eq!(verify(&spki), Err(CryptoError::InvalidPublicKey));
    }
}
