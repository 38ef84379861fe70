//! Cryptography that lies: it encrypts something else than it is given.

use std::sync::{Mutex, PoisonError};

use openmls_traits::{
    OpenMlsProvider,
    crypto::OpenMlsCrypto,
    signatures::{Signer, SignerError},
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
        HpkeKeyPair, KemOutput, SignatureScheme,
    },
};
use tls_codec::SecretVLBytes;

use super::{Provider, Storage};
use crate::crypto::{CryptoProvider, MlsSigner};

type Tamper<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync + 'a>;

/// Encrypts with the AEAD what `tamper` makes of the plaintext. Everything else is honest.
pub(super) struct Liar<'a> {
    honest: &'a CryptoProvider,
    tamper: Tamper<'a>,
}

/// A [`Liar`] with the storage of a group.
pub(super) struct LyingProvider<'a> {
    pub(super) liar: Liar<'a>,
    pub(super) honest: &'a Provider,
}

/// Signs, and remembers what.
pub(super) struct Witness<'a> {
    pub(super) signer: MlsSigner<'a>,
    pub(super) signed: &'a Mutex<Vec<u8>>,
}

impl<'a> Liar<'a> {
    pub(super) fn new(
        honest: &'a CryptoProvider,
        tamper: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'a,
    ) -> Self {
        Self { honest, tamper: Box::new(tamper) }
    }
}

/// What the liar leaves to the honest provider.
macro_rules! honest {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $type),*) -> $result {
            OpenMlsCrypto::$name(self.honest, $($argument),*)
        })*
    };
}

impl OpenMlsCrypto for Liar<'_> {
    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.honest.aead_encrypt(alg, key, &(self.tamper)(data), nonce, aad)
    }

    honest! {
        supports(ciphersuite: Ciphersuite) -> Result<(), CryptoError>;
        supported_ciphersuites() -> Vec<Ciphersuite>;
        hkdf_extract(
            hash_type: HashType, salt: &[u8], ikm: &[u8]
        ) -> Result<SecretVLBytes, CryptoError>;
        hmac(hash_type: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError>;
        hkdf_expand(
            hash_type: HashType, prk: &[u8], info: &[u8], okm_len: usize
        ) -> Result<SecretVLBytes, CryptoError>;
        hash(hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError>;
        aead_decrypt(
            alg: AeadType, key: &[u8], ct_tag: &[u8], nonce: &[u8], aad: &[u8]
        ) -> Result<Vec<u8>, CryptoError>;
        signature_key_gen(alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError>;
        verify_signature(
            alg: SignatureScheme, data: &[u8], pk: &[u8], signature: &[u8]
        ) -> Result<(), CryptoError>;
        sign(alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError>;
        hpke_seal(
            config: HpkeConfig, pk_r: &[u8], info: &[u8], aad: &[u8], ptxt: &[u8]
        ) -> Result<HpkeCiphertext, CryptoError>;
        hpke_open(
            config: HpkeConfig, input: &HpkeCiphertext, sk_r: &[u8], info: &[u8], aad: &[u8]
        ) -> Result<Vec<u8>, CryptoError>;
        hpke_setup_sender_and_export(
            config: HpkeConfig, pk_r: &[u8], info: &[u8], exporter_context: &[u8],
            exporter_length: usize
        ) -> Result<(KemOutput, ExporterSecret), CryptoError>;
        hpke_setup_receiver_and_export(
            config: HpkeConfig, enc: &[u8], sk_r: &[u8], info: &[u8], exporter_context: &[u8],
            exporter_length: usize
        ) -> Result<ExporterSecret, CryptoError>;
        derive_hpke_keypair(config: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError>;
    }
}

impl<'a> OpenMlsProvider for LyingProvider<'a> {
    type CryptoProvider = Liar<'a>;
    type RandProvider = CryptoProvider;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        &self.honest.storage
    }

    fn crypto(&self) -> &Liar<'a> {
        &self.liar
    }

    fn rand(&self) -> &CryptoProvider {
        &self.honest.crypto
    }
}

impl Signer for Witness<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        *self.signed.lock().unwrap_or_else(PoisonError::into_inner) = payload.to_vec();
        self.signer.sign(payload)
    }

    fn signature_scheme(&self) -> SignatureScheme {
        self.signer.signature_scheme()
    }
}
