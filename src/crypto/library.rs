//! The seam for cryptography of one's own.

use openmls_traits::{
    OpenMlsProvider,
    crypto::OpenMlsCrypto,
    random::OpenMlsRand,
    types::{AeadType, SignatureScheme},
};
use zeroize::Zeroizing;

use crate::error::CryptoError;

/// A cryptographic library that a [`CryptoProvider`](crate::CryptoProvider) can be made of.
///
/// [`CryptoProvider::from_openmls`](crate::CryptoProvider::from_openmls) makes one of anything that
/// OpenMLS can use. Implement the trait to choose how records are sealed, which the traits of
/// OpenMLS do with a copy and two allocations, or to have randomness of your own:
///
/// ```
/// use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
/// use mls_channel::{
///     CryptoProvider,
///     error::CryptoError,
///     provider::{
///         CryptoLibrary, RecordAead,
///         openmls_traits::{crypto::OpenMlsCrypto, random::OpenMlsRand, types::AeadType},
///     },
/// };
/// use openmls_rust_crypto::RustCrypto;
///
/// struct Mixed(RustCrypto);
/// struct Key(ChaCha20Poly1305);
///
/// const FAILED: CryptoError = CryptoError::Internal("ChaCha20-Poly1305");
///
/// impl CryptoLibrary for Mixed {
///     fn name(&self) -> &'static str {
///         "mixed"
///     }
///
///     fn crypto(&self) -> &dyn OpenMlsCrypto {
///         &self.0
///     }
///
///     fn fill_random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
///         let random = self.0.random_vec(out.len()).map_err(|_| CryptoError::Random)?;
///         out.copy_from_slice(&random);
///         Ok(())
///     }
///
///     fn record_aead(
///         &self,
///         algorithm: AeadType,
///         key: &[u8],
///     ) -> Result<Option<Box<dyn RecordAead>>, CryptoError> {
///         if algorithm != AeadType::ChaCha20Poly1305 {
///             return Ok(None);
///         }
///         let key = ChaCha20Poly1305::new_from_slice(key).map_err(|_| FAILED)?;
///         Ok(Some(Box::new(Key(key))))
///     }
/// }
///
/// impl RecordAead for Key {
///     fn seal_in_place(
///         &self,
///         nonce: &[u8; 12],
///         aad: &[u8],
///         data: &mut [u8],
///     ) -> Result<[u8; 16], CryptoError> {
///         let tag = self.0.encrypt_in_place_detached(nonce.into(), aad, data);
///         tag.map(Into::into).map_err(|_| FAILED)
///     }
///
///     fn open_in_place(
///         &self,
///         nonce: &[u8; 12],
///         aad: &[u8],
///         data: &mut [u8],
///         tag: &[u8; 16],
///     ) -> Result<(), CryptoError> {
///         let opened = self.0.decrypt_in_place_detached(nonce.into(), aad, data, tag.into());
///         opened.map_err(|_| FAILED)
///     }
/// }
///
/// let provider = CryptoProvider::custom(Mixed(RustCrypto::default()));
/// assert_eq!(provider.name(), "mixed");
/// ```
///
/// # What a library has to do
///
/// - HPKE (RFC 9180) rejects a Diffie-Hellman result of zero (section 7.1.4), and points that are
///   not on the curve.
/// - Ed25519 (RFC 8032) rejects an S that is not reduced, and checks the equation without the
///   cofactor, as the libraries of this crate do.
/// - It erases keys when they are dropped.
/// - It does not panic.
///
/// The lengths of what goes in and of what comes out are checked around it, and Ed25519 keys and
/// commitments of small order are rejected before it is asked. A failure of the library ends the
/// connection with [`Error::Crypto`](crate::Error::Crypto); only what it cannot open or verify, or
/// seal to a key of the peer's, looks like the peer's fault.
///
/// The methods use types of `openmls_traits`, which is at [`provider`](crate::provider). They
/// follow OpenMLS and not this crate's versioning.
pub trait CryptoLibrary: Send + Sync {
    /// What the library is called, for [`CryptoProvider::name`](crate::CryptoProvider::name).
    fn name(&self) -> &'static str;

    /// The group's cryptography. Its `supports` decides which suites are offered.
    fn crypto(&self) -> &dyn OpenMlsCrypto;

    /// Fills `out` with random bytes, fit for keys.
    ///
    /// # Errors
    ///
    /// [`CryptoError::Random`] if there are none.
    fn fill_random(&self, out: &mut [u8]) -> Result<(), CryptoError>;

    /// The key of one direction's records in one epoch. `key` has the length that `algorithm`
    /// wants.
    ///
    /// Default: `None`, and records are sealed with `aead_encrypt` and opened with `aead_decrypt`
    /// of [`CryptoLibrary::crypto`].
    ///
    /// # Errors
    ///
    /// Whatever the library cannot do. The connection ends.
    fn record_aead(
        &self,
        algorithm: AeadType,
        key: &[u8],
    ) -> Result<Option<Box<dyn RecordAead>>, CryptoError> {
        let _ = (algorithm, key);
        Ok(None)
    }

    /// The Ed25519 signature of `message` by the key of `seed`, the private key of RFC 8032,
    /// section 5.1.5.
    ///
    /// Default: `sign` of [`CryptoLibrary::crypto`], for which the seed is the private key. Signatures
    /// of other schemes are always made with that: the private key is the scalar for ECDSA, and the
    /// seed for ML-DSA.
    ///
    /// # Errors
    ///
    /// Whatever the library cannot do. The connection ends.
    fn sign_ed25519(&self, seed: &[u8; 32], message: &[u8]) -> Result<[u8; 64], CryptoError> {
        const FAILED: CryptoError = CryptoError::Internal("Ed25519 signing");
        let signature =
            self.crypto().sign(SignatureScheme::ED25519, message, seed).map_err(|_| FAILED)?;
        signature.try_into().map_err(|_| FAILED)
    }
}

/// A record key of a [`CryptoLibrary`]: an AEAD with a 12-byte nonce and a 16-byte tag that works
/// in place.
///
/// No nonce comes twice for sealing.
pub trait RecordAead: Send + Sync {
    /// Encrypts `data` in place and gives the tag.
    ///
    /// # Errors
    ///
    /// Whatever the library cannot do. Nothing of `data` is sent then, and the connection ends.
    fn seal_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; 16], CryptoError>;

    /// Decrypts `data` in place.
    ///
    /// # Errors
    ///
    /// If the tag is not that of `data`. Whatever is in `data` then is overwritten, and the
    /// connection ends with [`BadRecordMac`](crate::error::PeerMisbehaved::BadRecordMac).
    fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), CryptoError>;
}

/// A provider of OpenMLS as a library. Its storage is not used.
pub(super) struct OpenMls<P> {
    pub(super) name: &'static str,
    pub(super) provider: P,
}

impl<P: OpenMlsProvider + Send + Sync> CryptoLibrary for OpenMls<P> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn crypto(&self) -> &dyn OpenMlsCrypto {
        self.provider.crypto()
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        let random = self
            .provider
            .rand()
            .random_vec(out.len())
            .map(Zeroizing::new)
            .map_err(|_| CryptoError::Random)?;
        if random.len() != out.len() {
            return Err(CryptoError::Random);
        }
        out.copy_from_slice(&random);
        Ok(())
    }
}
