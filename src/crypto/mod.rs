//! Cryptography: cipher suites, providers, record keys and signature keys.
//!
//! This module is the only one that talks to a cryptographic library. A [`CryptoProvider`] is
//! what OpenMLS computes with ([`OpenMlsCrypto`], [`OpenMlsRand`]) and what the record layer gets
//! its keys from.

mod aead;
#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(feature = "x509")]
mod certificate;
mod checked;
mod kem;
mod library;
mod memory;
mod scheme;
mod signing;
mod small_order;
mod suite;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::{
    OpenMlsProvider,
    crypto::OpenMlsCrypto,
    random::OpenMlsRand,
    types::{
        self, AeadType, Ciphersuite, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
        HpkeKeyPair, KemOutput,
    },
};
use tls_codec::SecretVLBytes;

#[cfg(feature = "aws-lc")]
use self::aws_lc::{AwsLc, HpkePrivateKey};
use self::{checked::Checked, library::OpenMls, memory::Memory};
use crate::error::{CryptoError, Error};

#[cfg(feature = "x509")]
pub(crate) use self::certificate::CERTIFICATE_ALGORITHMS;
#[cfg(feature = "post-quantum")]
pub(crate) use self::signing::MlDsaKey;
pub(crate) use self::{
    aead::AeadKey,
    signing::{Ed25519Key, MlsSigner, P256Key, SignatureKey},
    suite::Aead,
};
pub use library::{CryptoLibrary, RecordAead};
pub use scheme::SignatureScheme;
pub use suite::CipherSuite;

/// The cryptographic library behind a channel: the group's cryptography and the records.
///
/// All providers interoperate; the two ends of a channel need not agree on one. A clone is cheap and
/// shares the state of its original.
///
/// - [`CryptoProvider::aws_lc`]: AWS-LC, through the crate `aws-lc-rs`. The default. It has
///   assembly for the record ciphers and for the curves of x86-64 and aarch64. It builds C code.
/// - [`CryptoProvider::rust_crypto`]: the crates of the RustCrypto project and `ed25519-dalek`.
///   Pure Rust and slower: for targets without a C compiler, and for builds that may not have C
///   in them (feature `aws-lc` off). It does not erase all of an AES-GCM key on drop.
/// - [`CryptoProvider::from_openmls`]: any provider of OpenMLS.
/// - [`CryptoProvider::custom`]: a [`CryptoLibrary`] of your own.
///
/// The first two have every suite of this crate, but for one that RustCrypto lacks
/// (`MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519`), and the same answers to the test vectors of
/// RFC 8032, RFC 6979, RFC 9180 and Wycheproof.
///
/// ```
/// use mls_channel::{Config, CryptoProvider, Identity, PinnedKeys};
/// use openmls_rust_crypto::OpenMlsRustCrypto; // or openmls_libcrux_crypto::Provider, or yours
///
/// # fn main() -> Result<(), mls_channel::Error> {
/// # let server = Identity::generate("server.example")?;
/// let crypto = CryptoProvider::from_openmls("my library", OpenMlsRustCrypto::default());
/// let config = Config::builder()
///     .identity(Identity::generate("client")?)
///     .authentication_service(PinnedKeys::parse(&server.public_line())?)
///     .crypto_provider(crypto)
///     .build()?;
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
///
/// What is done outside of a connection, [`Identity::generate`](crate::Identity::generate),
/// fingerprints and [`EncryptedStore`](crate::EncryptedStore), uses [`CryptoProvider::default`].
///
/// A provider of a configuration keeps no state of a connection. Its OpenMLS traits are implemented for the group
/// layer of this crate; they follow OpenMLS and not this crate's versioning.
#[derive(Clone)]
pub struct CryptoProvider {
    backend: Backend,
    memory: Option<Arc<Memory>>,
    /// Set when the library could not do what no peer can hinder it to do.
    failed: Option<Arc<AtomicBool>>,
}

#[derive(Clone)]
enum Backend {
    #[cfg(feature = "aws-lc")]
    AwsLc(AwsLc),
    RustCrypto(Checked),
    Custom(Checked),
}

impl CryptoProvider {
    /// The provider over AWS-LC.
    ///
    /// AWS-LC gathers entropy when its generator is used first in a process, which was seen to take
    /// up to 37 ms. Make the configuration at start, and the first connection does not wait for it.
    #[cfg(feature = "aws-lc")]
    pub fn aws_lc() -> Self {
        Self { backend: Backend::AwsLc(AwsLc), memory: None, failed: None }
    }

    /// The provider over the RustCrypto crates.
    ///
    /// Its random generator is seeded from the operating system here, once, and shared by all
    /// clones. A process that forks must make a new provider in the child.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness.
    pub fn rust_crypto() -> Self {
        let library = OpenMls { name: "RustCrypto", provider: OpenMlsRustCrypto::default() };
        Self { backend: Backend::RustCrypto(Checked::new(library)), memory: None, failed: None }
    }

    /// A provider over a provider of OpenMLS, for example `openmls_libcrux_crypto::Provider`.
    ///
    /// Its cryptography and its randomness are used, its storage is not. What it has to do is what
    /// a [`CryptoLibrary`] has to.
    pub fn from_openmls<P>(name: &'static str, provider: P) -> Self
    where
        P: OpenMlsProvider + Send + Sync + 'static,
    {
        Self::custom(OpenMls { name, provider })
    }

    /// A provider over a library of your own.
    pub fn custom(library: impl CryptoLibrary + 'static) -> Self {
        Self { backend: Backend::Custom(Checked::new(library)), memory: None, failed: None }
    }

    /// The name of the library: `aws-lc`, `RustCrypto`, or what a custom one calls itself.
    pub fn name(&self) -> &'static str {
        match &self.backend {
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc(_) => "aws-lc",
            Backend::RustCrypto(library) | Backend::Custom(library) => library.name(),
        }
    }

    /// The suites of this crate that the library has, in the order of [`CipherSuite::ALL`].
    pub fn cipher_suites(&self) -> Vec<CipherSuite> {
        let supported = |suite: &CipherSuite| self.supports(suite.mls()).is_ok();
        CipherSuite::ALL.iter().copied().filter(supported).collect()
    }

    /// The same library, with a memory of its own for one group: of the signatures that are made
    /// first, and of the HPKE key that was used last. Whoever replaces that key has to
    /// [`forget`](Self::forget) it.
    pub(crate) fn for_group(&self) -> Self {
        Self { memory: Some(Arc::default()), ..self.watched() }
    }

    /// The same library, watched from now on: see [`blame`](Self::blame). A clone and one
    /// [`for a group`](Self::for_group) are watched along with it.
    pub(crate) fn watched(&self) -> Self {
        Self { failed: Some(self.failed.clone().unwrap_or_default()), ..self.clone() }
    }

    /// The error for something of the peer's that could not be processed: `peer`, unless the
    /// library has failed on the way. OpenMLS does not always tell the one from the other.
    pub(crate) fn blame(&self, peer: impl Into<Error>) -> Error {
        if self.failed.as_ref().is_some_and(|failed| failed.load(Ordering::Relaxed)) {
            CryptoError::Internal("the cryptographic library").into()
        } else {
            peer.into()
        }
    }

    /// Remembers a failure that cannot be the peer's.
    fn watch<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if let (Err(_), Some(failed)) = (&result, &self.failed) {
            failed.store(true, Ordering::Relaxed);
        }
        result
    }

    #[cfg(all(test, feature = "aws-lc"))]
    pub(crate) fn remembers_hpke_key(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.has_hpke_key())
    }

    /// Erases what is remembered.
    pub(crate) fn forget(&self) {
        if let Some(memory) = &self.memory {
            memory.clear();
        }
    }

    /// A record key. `key` must have [`Aead::key_len`] bytes.
    pub(crate) fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<AeadKey, CryptoError> {
        match &self.backend {
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc(_) => AeadKey::aws_lc(aead, key),
            Backend::RustCrypto(_) => AeadKey::rust_crypto(aead, key),
            Backend::Custom(library) => AeadKey::custom(library, aead, key),
        }
    }

    /// The hash of `data` with the suite's hash function.
    pub(crate) fn hash(&self, suite: CipherSuite, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.implementation().hash(suite.hash(), data).map_err(|_| CryptoError::Internal("hash"))
    }

    /// HKDF-Expand-Label (RFC 8446, section 7.1) with the suite's hash; fills `out`.
    ///
    /// `label` is given without the prefix `tls13 `.
    pub(crate) fn expand_label(
        &self,
        suite: CipherSuite,
        secret: &[u8],
        label: &str,
        context: &[u8],
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        const FAILED: CryptoError = CryptoError::Internal("HKDF-Expand-Label");
        let info = hkdf_label(label, context, out.len()).ok_or(FAILED)?;
        let okm = self
            .implementation()
            .hkdf_expand(suite.hash(), secret, &info, out.len())
            .map_err(|_| FAILED)?;
        if okm.as_slice().len() != out.len() {
            return Err(FAILED);
        }
        out.copy_from_slice(okm.as_slice());
        Ok(())
    }

    /// Fills `out` from the library's random generator.
    pub(crate) fn fill_random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        self.watch(match &self.backend {
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc(backend) => backend.fill_random(out),
            Backend::RustCrypto(library) | Backend::Custom(library) => library.fill_random(out),
        })
    }

    /// Takes the cost of the first random bytes now (see [`CryptoProvider::aws_lc`]).
    ///
    /// A generator that fails will fail again where the bytes are needed, and be reported there.
    pub(crate) fn warm_up(&self) {
        let _ = self.fill_random(&mut [0; 1]);
    }

    fn implementation(&self) -> &dyn OpenMlsCrypto {
        match &self.backend {
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc(backend) => backend,
            Backend::RustCrypto(library) | Backend::Custom(library) => library,
        }
    }
}

impl Default for CryptoProvider {
    /// AWS-LC with the feature `aws-lc`, RustCrypto without.
    fn default() -> Self {
        #[cfg(feature = "aws-lc")]
        return Self::aws_lc();
        #[cfg(not(feature = "aws-lc"))]
        return Self::rust_crypto();
    }
}

impl fmt::Debug for CryptoProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CryptoProvider").field(&self.name()).finish()
    }
}

impl OpenMlsRand for CryptoProvider {
    type Error = CryptoError;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], CryptoError> {
        let mut out = [0; N];
        self.fill_random(&mut out)?;
        Ok(out)
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, CryptoError> {
        let mut out = vec![0; len];
        self.fill_random(&mut out)?;
        Ok(out)
    }
}

impl OpenMlsCrypto for CryptoProvider {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), types::CryptoError> {
        self.implementation().supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.implementation().supported_ciphersuites()
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, types::CryptoError> {
        self.watch(self.implementation().hkdf_extract(hash_type, salt, ikm))
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, types::CryptoError> {
        self.watch(self.implementation().hmac(hash_type, key, message))
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, types::CryptoError> {
        let okm = self.implementation().hkdf_expand(hash_type, prk, info, okm_len);
        // A path secret of the peer's may have any length.
        if prk.len() == hash_type.size() { self.watch(okm) } else { okm }
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, types::CryptoError> {
        self.watch(self.implementation().hash(hash_type, data))
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, types::CryptoError> {
        self.watch(self.implementation().aead_encrypt(alg, key, data, nonce, aad))
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, types::CryptoError> {
        self.implementation().aead_decrypt(alg, key, ct_tag, nonce, aad)
    }

    fn signature_key_gen(
        &self,
        alg: types::SignatureScheme,
    ) -> Result<(Vec<u8>, Vec<u8>), types::CryptoError> {
        self.watch(self.implementation().signature_key_gen(alg))
    }

    fn verify_signature(
        &self,
        alg: types::SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), types::CryptoError> {
        if self.memory.as_ref().is_some_and(|memory| memory.has_signed(pk, data, signature)) {
            return Ok(());
        }
        self.implementation().verify_signature(alg, data, pk, signature)
    }

    fn sign(
        &self,
        alg: types::SignatureScheme,
        data: &[u8],
        key: &[u8],
    ) -> Result<Vec<u8>, types::CryptoError> {
        self.watch(self.implementation().sign(alg, data, key))
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, types::CryptoError> {
        self.implementation().hpke_seal(config, pk_r, info, aad, ptxt)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, types::CryptoError> {
        #[cfg(feature = "aws-lc")]
        if let (Backend::AwsLc(backend), Some(memory)) = (&self.backend, &self.memory) {
            return memory.with_hpke_key(
                |key| key.is(&config, sk_r),
                || HpkePrivateKey::parse(&config, sk_r),
                |key| backend.hpke_open_with(&config, key, input, info, aad),
            );
        }
        self.implementation().hpke_open(config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), types::CryptoError> {
        self.implementation().hpke_setup_sender_and_export(
            config,
            pk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, types::CryptoError> {
        self.implementation().hpke_setup_receiver_and_export(
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
    ) -> Result<HpkeKeyPair, types::CryptoError> {
        self.watch(self.implementation().derive_hpke_keypair(config, ikm))
    }
}

/// Whether two secrets are equal, in a time that does not depend on where they differ.
pub(crate) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// The structure HkdfLabel (RFC 8446, section 7.1), or `None` if a part is too long for it.
fn hkdf_label(label: &str, context: &[u8], length: usize) -> Option<Vec<u8>> {
    const PREFIX: &[u8] = b"tls13 ";
    let mut out = Vec::with_capacity(4 + PREFIX.len() + label.len() + context.len());
    out.extend_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    out.push(u8::try_from(PREFIX.len() + label.len()).ok()?);
    out.extend_from_slice(PREFIX);
    out.extend_from_slice(label.as_bytes());
    out.push(u8::try_from(context.len()).ok()?);
    out.extend_from_slice(context);
    Some(out)
}
