//! Libraries that a user could bring: with records of their own, with few suites, and broken ones.

use std::sync::{Arc, Mutex, MutexGuard};

use aes_gcm::{AeadInPlace, Aes128Gcm, KeyInit};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::types::{ExporterSecret, HpkeKeyPair, KemOutput};
use tls_codec::SecretVLBytes;

use super::*;
use crate::{
    Config, Identity, SignatureScheme as Scheme,
    crypto::{CryptoLibrary, Ed25519Key, RecordAead, aead::OpenFailed, suite::Aead},
    danger::AcceptAnyone,
    error::{ConfigError, CryptoError as ChannelCryptoError, Error},
};

const FAILED: ChannelCryptoError = ChannelCryptoError::Internal("a test");

/// What a broken library does in one of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It reports a failure.
    Failure,
    /// Its result is too short.
    ShortResult,
}

/// The names of the operations that a library was asked for.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<&'static str>>>);

impl Calls {
    pub(crate) fn names(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.0.lock().unwrap()
    }
}

/// RustCrypto, and what a test wants to be different.
pub(crate) struct OwnLibrary {
    honest: RustCrypto,
    suites: Vec<Ciphersuite>,
    fault: Option<(usize, Fault)>,
    calls: Calls,
    /// It has record keys and signatures of its own.
    own: bool,
}

impl OwnLibrary {
    fn new() -> Self {
        let honest = RustCrypto::default();
        let suites = honest.supported_ciphersuites();
        Self { honest, suites, fault: None, calls: Calls::default(), own: false }
    }

    /// A library that breaks down in its call with this number, from 0.
    pub(crate) fn broken(call: usize, fault: Fault) -> (CryptoProvider, Calls) {
        let library = Self { fault: Some((call, fault)), ..Self::new() };
        let calls = library.calls.clone();
        (CryptoProvider::custom(library), calls)
    }

    /// A library with the suites of these numbers.
    fn with_suites(suites: &[u16]) -> CryptoProvider {
        let suites = suites.iter().map(|id| Ciphersuite::try_from(*id).unwrap()).collect();
        CryptoProvider::custom(Self { suites, ..Self::new() })
    }

    fn pass<T: Shorten>(
        &self,
        name: &'static str,
        result: Result<T, CryptoError>,
    ) -> Result<T, CryptoError> {
        let mut calls = self.calls.names();
        let call = calls.len();
        calls.push(name);
        match self.fault {
            Some((broken, Fault::Failure)) if broken == call => {
                Err(CryptoError::CryptoLibraryError)
            }
            Some((broken, Fault::ShortResult)) if broken == call => result.map(Shorten::shorten),
            _ => result,
        }
    }
}

/// A result without its last byte.
trait Shorten {
    fn shorten(self) -> Self;
}

impl Shorten for () {
    fn shorten(self) -> Self {}
}

impl Shorten for Vec<u8> {
    fn shorten(mut self) -> Self {
        self.pop();
        self
    }
}

impl Shorten for SecretVLBytes {
    fn shorten(self) -> Self {
        self.as_slice().to_vec().shorten().into()
    }
}

impl Shorten for ExporterSecret {
    fn shorten(self) -> Self {
        self.to_vec().shorten().into()
    }
}

impl Shorten for HpkeCiphertext {
    fn shorten(self) -> Self {
        Self { ciphertext: self.ciphertext.as_slice().to_vec().shorten().into(), ..self }
    }
}

impl Shorten for HpkeKeyPair {
    fn shorten(self) -> Self {
        Self { private: self.private.to_vec().shorten().into(), ..self }
    }
}

impl<A, B: Shorten> Shorten for (A, B) {
    fn shorten(self) -> Self {
        (self.0, self.1.shorten())
    }
}

impl CryptoLibrary for OwnLibrary {
    fn name(&self) -> &'static str {
        "own"
    }

    fn crypto(&self) -> &dyn OpenMlsCrypto {
        self
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), ChannelCryptoError> {
        let random = self.honest.random_vec(out.len());
        let random = random.map_err(|_| CryptoError::InsufficientRandomness);
        let random = self.pass("random", random);
        let random = random.map_err(|_| ChannelCryptoError::Random)?;
        if random.len() != out.len() {
            return Err(ChannelCryptoError::Random);
        }
        out.copy_from_slice(&random);
        Ok(())
    }

    fn record_aead(
        &self,
        algorithm: AeadType,
        key: &[u8],
    ) -> Result<Option<Box<dyn RecordAead>>, ChannelCryptoError> {
        match (self.own, algorithm) {
            (true, AeadType::Aes128Gcm) => {
                let key = Aes128Gcm::new_from_slice(key).map_err(|_| FAILED)?;
                Ok(Some(Box::new(Careless(key))))
            }
            (true, _) => Err(FAILED),
            (false, _) => Ok(None),
        }
    }

    fn sign_ed25519(
        &self,
        seed: &[u8; 32],
        message: &[u8],
    ) -> Result<[u8; 64], ChannelCryptoError> {
        if self.own {
            return Ok([7; 64]);
        }
        let signature = self.sign(SignatureScheme::ED25519, message, seed).map_err(|_| FAILED)?;
        signature.try_into().map_err(|_| FAILED)
    }
}

/// Refuses to seal nothing, and leaves what it likes when it cannot open.
struct Careless(Aes128Gcm);

impl RecordAead for Careless {
    fn seal_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; 16], ChannelCryptoError> {
        if data.is_empty() {
            return Err(FAILED);
        }
        let tag = self.0.encrypt_in_place_detached(nonce.into(), aad, data);
        tag.map(Into::into).map_err(|_| FAILED)
    }

    fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), ChannelCryptoError> {
        let opened = self.0.decrypt_in_place_detached(nonce.into(), aad, data, tag.into());
        opened.map_err(|_| {
            data.fill(b'p');
            FAILED
        })
    }
}

macro_rules! pass {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $type),*) -> Result<$result, CryptoError> {
            self.pass(stringify!($name), OpenMlsCrypto::$name(&self.honest, $($argument),*))
        })*
    };
}

impl OpenMlsCrypto for OwnLibrary {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        if self.suites.contains(&ciphersuite) {
            Ok(())
        } else {
            Err(CryptoError::UnsupportedCiphersuite)
        }
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.suites.clone()
    }

    pass! {
        hkdf_extract(hash_type: HashType, salt: &[u8], ikm: &[u8]) -> SecretVLBytes;
        hmac(hash_type: HashType, key: &[u8], message: &[u8]) -> SecretVLBytes;
        hkdf_expand(
            hash_type: HashType, prk: &[u8], info: &[u8], okm_len: usize
        ) -> SecretVLBytes;
        hash(hash_type: HashType, data: &[u8]) -> Vec<u8>;
        aead_encrypt(
            alg: AeadType, key: &[u8], data: &[u8], nonce: &[u8], aad: &[u8]
        ) -> Vec<u8>;
        aead_decrypt(
            alg: AeadType, key: &[u8], ct_tag: &[u8], nonce: &[u8], aad: &[u8]
        ) -> Vec<u8>;
        signature_key_gen(alg: SignatureScheme) -> (Vec<u8>, Vec<u8>);
        verify_signature(
            alg: SignatureScheme, data: &[u8], pk: &[u8], signature: &[u8]
        ) -> ();
        sign(alg: SignatureScheme, data: &[u8], key: &[u8]) -> Vec<u8>;
        hpke_seal(
            config: HpkeConfig, pk_r: &[u8], info: &[u8], aad: &[u8], ptxt: &[u8]
        ) -> HpkeCiphertext;
        hpke_open(
            config: HpkeConfig, input: &HpkeCiphertext, sk_r: &[u8], info: &[u8], aad: &[u8]
        ) -> Vec<u8>;
        hpke_setup_sender_and_export(
            config: HpkeConfig, pk_r: &[u8], info: &[u8], exporter_context: &[u8],
            exporter_length: usize
        ) -> (KemOutput, ExporterSecret);
        hpke_setup_receiver_and_export(
            config: HpkeConfig, enc: &[u8], sk_r: &[u8], info: &[u8], exporter_context: &[u8],
            exporter_length: usize
        ) -> ExporterSecret;
        derive_hpke_keypair(config: HpkeConfig, ikm: &[u8]) -> HpkeKeyPair;
    }
}

fn configure(crypto: CryptoProvider, suites: Option<&[CipherSuite]>) -> Result<Config, Error> {
    configure_with(Scheme::ED25519, crypto, suites)
}

fn configure_with(
    scheme: Scheme,
    crypto: CryptoProvider,
    suites: Option<&[CipherSuite]>,
) -> Result<Config, Error> {
    let builder = Config::builder()
        .identity(Identity::generate_with("own", scheme)?)
        .authentication_service(AcceptAnyone)
        .crypto_provider(crypto);
    match suites {
        Some(suites) => builder.cipher_suites(suites).build(),
        None => builder.build(),
    }
}

#[test]
fn suites_that_a_library_lacks_are_not_offered() {
    let [aes, chacha, ..] = CipherSuite::ALL else { panic!("the test needs two suites") };
    let only_chacha = || OwnLibrary::with_suites(&[chacha.id(), 7]);
    assert_eq!(only_chacha().cipher_suites(), [*chacha]);
    assert_eq!(configure(only_chacha(), None).unwrap().cipher_suites(), [*chacha]);
    assert_eq!(configure(only_chacha(), Some(&[*chacha])).unwrap().cipher_suites(), [*chacha]);

    let unsupported = |suite| ConfigError::UnsupportedCipherSuite { provider: "own", suite };
    let error = configure(only_chacha(), Some(&[*chacha, *aes])).unwrap_err();
    assert_eq!(error, unsupported(Some(*aes)).into());
    assert_eq!(
        error.to_string(),
        "configuration: the provider own does not support \
         MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"
    );
    let error = configure(OwnLibrary::with_suites(&[7]), None).unwrap_err();
    assert_eq!(error, unsupported(None).into());
    assert_eq!(error.to_string(), "configuration: the provider own does not support any suite");
    for provider in providers() {
        let mut suites = provider.cipher_suites();
        if provider.name() != "aws-lc" {
            suites.extend(CipherSuite::from_id(RUST_CRYPTO_LACKS));
        }
        assert_eq!(suites.len(), CipherSuite::ALL.len());
        assert!(CipherSuite::ALL.iter().all(|suite| suites.contains(suite)));
        let error = configure(provider, Some(&[])).unwrap_err();
        assert_eq!(error, ConfigError::NoCipherSuite.into());
    }
}

#[test]
fn an_identity_has_the_suites_of_its_scheme() {
    for provider in providers() {
        for &scheme in Scheme::ALL {
            let of_scheme = |suite: &CipherSuite| suite.signature_scheme() == scheme;
            let (own, others): (Vec<_>, Vec<_>) =
                provider.cipher_suites().into_iter().partition(of_scheme);
            assert!(!own.is_empty());
            let config = configure_with(scheme, provider.clone(), None).unwrap();
            assert_eq!(config.cipher_suites(), own);
            for suite in others {
                let suites = Some(&[own[0], suite][..]);
                let error = configure_with(scheme, provider.clone(), suites).unwrap_err();
                assert_eq!(error, ConfigError::SignatureScheme { suite }.into());
            }
        }
    }
    let suite = CipherSuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256;
    let error = configure(CryptoProvider::default(), Some(&[suite])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "configuration: MLS_128_DHKEMP256_AES128GCM_SHA256_P256 needs an identity with a key of \
         ecdsa_secp256r1_sha256"
    );
}

#[test]
fn a_library_can_seal_records_and_sign_by_itself() {
    let provider = CryptoProvider::custom(OwnLibrary { own: true, ..OwnLibrary::new() });
    assert_eq!(format!("{provider:?}"), "CryptoProvider(\"own\")");
    let key = provider.aead_key(Aead::Aes128Gcm, &[1; 16]).unwrap();
    let usual = CryptoProvider::default().aead_key(Aead::Aes128Gcm, &[1; 16]).unwrap();
    let mut record = *b"record";
    let tag = key.seal_in_place([2; 12], b"header", &mut record).unwrap();
    let mut sealed = [&record[..], &tag].concat();
    assert_eq!(usual.open_in_place([2; 12], b"header", &mut sealed.clone()), Ok(6));
    assert_eq!(key.open_in_place([2; 12], b"header", &mut sealed.clone()), Ok(6));
    // What it leaves behind is overwritten.
    assert_eq!(key.open_in_place([2; 12], b"another", &mut sealed), Err(OpenFailed));
    assert_eq!(sealed[..6], [0; 6]);
    assert_eq!(key.seal_in_place([2; 12], b"header", &mut []), Err(FAILED));
    let refused = provider.aead_key(Aead::ChaCha20Poly1305, &[1; 32]).unwrap_err();
    assert_eq!(refused, FAILED);

    let identity = Ed25519Key::from_seed(&[1; 32]).unwrap();
    assert_eq!(identity.sign(&provider, b"message"), Ok([7; 64]));
}

#[test]
fn a_wrong_result_of_any_operation_is_an_error() {
    let config = x25519_aes128;
    let honest = CryptoProvider::rust_crypto();
    let pair = honest.derive_hpke_keypair(config(), &[7; 32]).unwrap();
    let sealed = honest.hpke_seal(config(), &pair.public, b"", b"", b"data").unwrap();
    let aead = AeadType::Aes128Gcm;
    let ciphertext = honest.aead_encrypt(aead, &[1; 16], b"data", &[2; 12], b"").unwrap();
    let hash = HashType::Sha2_256;
    let identity = Ed25519Key::from_seed(&[1; 32]).unwrap();

    for fault in [Fault::Failure, Fault::ShortResult] {
        let broken = || OwnLibrary::broken(0, fault).0;
        assert!(broken().hkdf_extract(hash, b"", b"").is_err(), "{fault:?}");
        assert!(broken().hkdf_expand(hash, &[1; 32], b"", 32).is_err(), "{fault:?}");
        assert!(broken().hmac(hash, b"", b"").is_err(), "{fault:?}");
        assert!(OpenMlsCrypto::hash(&broken(), hash, b"").is_err(), "{fault:?}");
        let encrypted = broken().aead_encrypt(aead, &[1; 16], b"data", &[2; 12], b"");
        assert!(encrypted.is_err(), "{fault:?}");
        let decrypted = broken().aead_decrypt(aead, &[1; 16], &ciphertext, &[2; 12], b"");
        assert!(decrypted.is_err(), "{fault:?}");
        let public = &pair.public;
        assert!(broken().hpke_seal(config(), public, b"", b"", b"data").is_err(), "{fault:?}");
        let opened = broken().hpke_open(config(), &sealed, &pair.private, b"", b"");
        assert!(opened.is_err(), "{fault:?}");
        let sent = broken().hpke_setup_sender_and_export(config(), public, b"", b"", 32);
        assert!(sent.is_err(), "{fault:?}");
        let received =
            broken().hpke_setup_receiver_and_export(config(), public, &pair.private, b"", b"", 32);
        assert!(received.is_err(), "{fault:?}");
        assert!(broken().derive_hpke_keypair(config(), &[7; 32]).is_err(), "{fault:?}");

        let random = broken().random_vec(32);
        assert_eq!(random.unwrap_err(), ChannelCryptoError::Random, "{fault:?}");
        assert_eq!(identity.sign(&broken(), b"message"), Err(FAILED), "{fault:?}");
        assert!(broken().hash(SUITE, b"").is_err(), "{fault:?}");
        let derived = broken().expand_label(SUITE, &[1; 32], "key", b"", &mut [0; 16]);
        assert!(derived.is_err(), "{fault:?}");

        let key = broken().aead_key(Aead::Aes128Gcm, &[1; 16]).unwrap();
        assert!(key.seal_in_place([2; 12], b"", &mut b"data".to_vec()).is_err(), "{fault:?}");
        let key = broken().aead_key(Aead::Aes128Gcm, &[1; 16]).unwrap();
        let mut record = ciphertext.clone();
        assert_eq!(key.open_in_place([2; 12], b"", &mut record), Err(OpenFailed), "{fault:?}");
        assert_eq!(record[..4], [0; 4], "{fault:?}");
    }
}

#[test]
fn the_default_way_to_sign_is_that_of_openmls() {
    let identity = Ed25519Key::from_seed(&[1; 32]).unwrap();
    let custom = CryptoProvider::from_openmls("custom", OpenMlsRustCrypto::default());
    let expected = identity.sign(&CryptoProvider::rust_crypto(), b"message").unwrap();
    assert_eq!(identity.sign(&custom, b"message"), Ok(expected));
}
