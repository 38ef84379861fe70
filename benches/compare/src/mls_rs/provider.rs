//! The cryptography of one suite for mls-rs, over aws-lc-rs.
//!
//! mls-rs has a provider of its own for AWS-LC, mls-rs-crypto-awslc, but each version of it demands
//! one exact version of aws-lc-rs, and never the one that this library builds with. This is the same
//! construction: HPKE from mls-rs-crypto-hpke, one call of AWS-LC for each primitive. That one calls
//! AWS-LC through C, where a key is bytes; here keys that were parsed are remembered, so that none is
//! expanded more often than there.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, PrivateKey, UnparsedPublicKey, X25519},
    digest,
    encoding::{AsBigEndian, Curve25519SeedBin},
    error::{KeyRejected, Unspecified},
    hkdf, hmac, rand,
    signature::{self, Ed25519KeyPair, KeyPair},
};
use mls_rs_core::{
    crypto::{
        CipherSuite, CipherSuiteProvider, CryptoProvider, HpkeCiphertext, HpkePsk, HpkePublicKey,
        HpkeSecretKey, SignaturePublicKey, SignatureSecretKey,
    },
    error::IntoAnyError,
};
use mls_rs_crypto_hpke::{
    context::{ContextR, ContextS},
    dhkem::DhKem,
    hpke::{Hpke, HpkeError},
};
use mls_rs_crypto_traits::{AeadId, AeadType, DhType, KdfId, KdfType, KemId, SamplingMethod};
use zeroize::Zeroizing;

/// MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519.
pub(super) const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

/// Keys of one kind that are remembered.
const REMEMBERED: usize = 8;

#[derive(Clone, Default)]
pub(super) struct AwsLc {
    dh: Dh,
    signers: Keys<Ed25519KeyPair>,
}

#[derive(Clone)]
pub(super) struct Suite {
    hpke: Hpke<DhKem<Dh, Kdf>, Kdf, Aead>,
    signers: Keys<Ed25519KeyPair>,
}

/// X25519.
#[derive(Clone, Default)]
struct Dh(Keys<PrivateKey>);

/// HKDF-SHA256.
#[derive(Clone, Copy)]
pub(super) struct Kdf;

/// AES-128-GCM.
#[derive(Clone, Copy)]
pub(super) struct Aead;

/// The keys used last, by their secret bytes.
struct Keys<K>(Arc<Mutex<VecDeque<Remembered<K>>>>);

type Remembered<K> = (Zeroizing<Vec<u8>>, Arc<K>);

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("AWS-LC failed")]
    Unspecified(#[from] Unspecified),
    #[error("AWS-LC rejects a key")]
    KeyRejected(#[from] KeyRejected),
    #[error(transparent)]
    Hpke(#[from] HpkeError),
}

impl IntoAnyError for Error {}

type Result<T> = std::result::Result<T, Error>;

impl<K> Keys<K> {
    fn get(&self, secret: &[u8], parse: impl FnOnce() -> Result<K>) -> Result<Arc<K>> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = keys.iter().find(|(bytes, _)| bytes.as_slice() == secret) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(parse()?);
        keys.truncate(REMEMBERED - 1);
        keys.push_front((secret.to_vec().into(), Arc::clone(&key)));
        Ok(key)
    }
}

impl<K> Clone for Keys<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Keys<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl CryptoProvider for AwsLc {
    type CipherSuiteProvider = Suite;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        vec![SUITE]
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<Suite> {
        let id = KemId::new(suite).filter(|_| suite == SUITE)?;
        let kem = DhKem::new(self.dh.clone(), Kdf, id as u16, id.n_secret());
        Some(Suite { hpke: Hpke::new(kem, Kdf, Some(Aead)), signers: self.signers.clone() })
    }
}

impl Suite {
    fn signer(&self, secret: &[u8]) -> Result<Arc<Ed25519KeyPair>> {
        self.signers.get(secret, || Ok(Ed25519KeyPair::from_seed_unchecked(secret)?))
    }
}

impl CipherSuiteProvider for Suite {
    type Error = Error;
    type HpkeContextS = ContextS<Kdf, Aead>;
    type HpkeContextR = ContextR<Kdf, Aead>;

    fn cipher_suite(&self) -> CipherSuite {
        SUITE
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>> {
        Ok(digest::digest(&digest::SHA256, data).as_ref().to_vec())
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>> {
        Kdf.extract(key, data)
    }

    fn aead_seal(
        &self,
        key: &[u8],
        data: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>> {
        Aead.seal(key, data, aad, nonce)
    }

    fn aead_open(
        &self,
        key: &[u8],
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        Aead.open(key, ciphertext, aad, nonce).map(Into::into)
    }

    fn aead_key_size(&self) -> usize {
        Aead.key_size()
    }

    fn aead_nonce_size(&self) -> usize {
        Aead.nonce_size()
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        Kdf.extract(salt, ikm).map(Into::into)
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>> {
        Kdf.expand(prk, info, len).map(Into::into)
    }

    fn kdf_extract_size(&self) -> usize {
        Kdf.extract_size()
    }

    fn hpke_seal(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
    ) -> Result<HpkeCiphertext> {
        Ok(self.hpke.seal(remote_key, info, None, aad, pt)?)
    }

    fn hpke_seal_psk(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext> {
        Ok(self.hpke.seal(remote_key, info, Some(psk), aad, pt)?)
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        Ok(self.hpke.open(ciphertext, local_secret, local_public, info, None, aad)?)
    }

    fn hpke_open_psk(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        Ok(self.hpke.open(ciphertext, local_secret, local_public, info, Some(psk), aad)?)
    }

    fn hpke_setup_s(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
    ) -> Result<(Vec<u8>, Self::HpkeContextS)> {
        Ok(self.hpke.setup_sender(remote_key, info, None)?)
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<Self::HpkeContextR> {
        Ok(self.hpke.setup_receiver(kem_output, local_secret, local_public, info, None)?)
    }

    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey)> {
        Ok(self.hpke.derive(ikm)?)
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey)> {
        Ok(self.hpke.generate()?)
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<()> {
        Ok(self.hpke.public_key_validate(key)?)
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<()> {
        Ok(rand::fill(out)?)
    }

    fn signature_key_generate(&self) -> Result<(SignatureSecretKey, SignaturePublicKey)> {
        let mut seed = Zeroizing::new(vec![0; 32]);
        rand::fill(&mut seed)?;
        let public = self.signer(&seed)?.public_key().as_ref().to_vec().into();
        Ok((seed.to_vec().into(), public))
    }

    fn signature_key_derive_public(
        &self,
        secret_key: &SignatureSecretKey,
    ) -> Result<SignaturePublicKey> {
        Ok(self.signer(secret_key)?.public_key().as_ref().to_vec().into())
    }

    fn sign(&self, secret_key: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>> {
        Ok(self.signer(secret_key)?.try_sign(data)?.as_ref().to_vec())
    }

    fn verify(&self, public_key: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Result<()> {
        let key = signature::UnparsedPublicKey::new(&signature::ED25519, public_key.as_ref());
        Ok(key.verify(data, signature)?)
    }
}

impl Dh {
    fn key(&self, secret: &[u8]) -> Result<Arc<PrivateKey>> {
        self.0.get(secret, || Ok(PrivateKey::from_private_key(&X25519, secret)?))
    }
}

impl DhType for Dh {
    type Error = Error;

    fn dh(&self, secret_key: &HpkeSecretKey, public_key: &HpkePublicKey) -> Result<Vec<u8>> {
        let public = UnparsedPublicKey::new(&X25519, public_key.as_ref());
        let key = self.key(secret_key)?;
        agreement::agree(&key, public, Unspecified.into(), |secret| Ok(secret.to_vec()))
    }

    fn generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey)> {
        let key = PrivateKey::generate(&X25519)?;
        let public = key.compute_public_key()?.as_ref().to_vec();
        let secret: Curve25519SeedBin<'_> = key.as_be_bytes()?;
        self.0.get(secret.as_ref(), || Ok(key))?;
        Ok((secret.as_ref().to_vec().into(), public.into()))
    }

    fn to_public(&self, secret_key: &HpkeSecretKey) -> Result<HpkePublicKey> {
        Ok(self.key(secret_key)?.compute_public_key()?.as_ref().to_vec().into())
    }

    fn bitmask_for_rejection_sampling(&self) -> SamplingMethod {
        SamplingMethod::HpkeWithoutBitmask
    }

    fn secret_key_size(&self) -> usize {
        32
    }

    fn public_key_size(&self) -> usize {
        32
    }

    fn public_key_validate(&self, _key: &HpkePublicKey) -> Result<()> {
        // Every string of 32 bytes is one (RFC 7748, section 5).
        Ok(())
    }
}

impl KdfType for Kdf {
    type Error = Error;

    fn kdf_id(&self) -> u16 {
        KdfId::HkdfSha256 as u16
    }

    fn expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Vec<u8>> {
        struct Length(usize);

        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }

        let mut okm = vec![0; len];
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, prk)
            .expand(&[info], Length(len))?
            .fill(&mut okm)?;
        Ok(okm)
    }

    fn extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Vec<u8>> {
        Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), ikm).as_ref().to_vec())
    }

    fn extract_size(&self) -> usize {
        KdfId::HkdfSha256.extract_size()
    }
}

impl AeadType for Aead {
    type Error = Error;

    fn aead_id(&self) -> u16 {
        AeadId::Aes128Gcm as u16
    }

    fn seal(&self, key: &[u8], data: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Vec<u8>> {
        let mut data = data.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        let aad = Aad::from(aad.unwrap_or_default());
        aead_key(key)?.seal_in_place_append_tag(nonce, aad, &mut data)?;
        Ok(data)
    }

    fn open(
        &self,
        key: &[u8],
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>> {
        let mut data = ciphertext.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        let aad = Aad::from(aad.unwrap_or_default());
        let length = aead_key(key)?.open_in_place(nonce, aad, &mut data)?.len();
        data.truncate(length);
        Ok(data)
    }

    fn key_size(&self) -> usize {
        AeadId::Aes128Gcm.key_size()
    }

    fn nonce_size(&self) -> usize {
        AeadId::Aes128Gcm.nonce_size()
    }
}

fn aead_key(key: &[u8]) -> Result<LessSafeKey> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key)?))
}
