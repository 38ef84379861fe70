//! Sessions that are encrypted before they are stored.

use std::fmt;

use chacha20poly1305::{
    Key, KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use openmls_traits::random::OpenMlsRand as _;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{Revision, SessionKey, SessionStore, StoreError, StoredSession};
use crate::crypto::CryptoProvider;

/// Layout of an encrypted blob.
const VERSION: u8 = 1;

const NONCE_LEN: usize = 24;

/// Encrypts what another store holds, under a key of the user's.
///
/// XChaCha20-Poly1305, a fresh random nonce for each commit, and the session's key as additional
/// data: a blob that was changed, or put in the place of another one, is found out. An old blob of the
/// same session that somebody puts back is not; then the peer finds out, and a full handshake takes
/// place. Keep the key where the store is not. Erasing the key erases all sessions, whatever copies of
/// the store exist.
///
/// ```
/// # use mls_channel::{Config, EncryptedStore, Identity, MemoryStore, danger::AcceptAnyone};
/// # let key = [7; 32];
/// let store = EncryptedStore::new(MemoryStore::default(), &key);
/// # let _ = store;
/// ```
pub struct EncryptedStore<S> {
    inner: S,
    cipher: Cipher,
    random: CryptoProvider,
}

/// The crate's cipher wipes its key when it is dropped.
struct Cipher(XChaCha20Poly1305);

const _: () = {
    const fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<XChaCha20Poly1305>();
};

impl<S: SessionStore> EncryptedStore<S> {
    /// Encrypts what `inner` stores. The key has to be random.
    pub fn new(inner: S, key: &[u8; 32]) -> Self {
        let cipher = Cipher(XChaCha20Poly1305::new(Key::from_slice(key)));
        Self { inner, cipher, random: CryptoProvider::default() }
    }

    /// The store underneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: SessionStore> SessionStore for EncryptedStore<S> {
    fn load(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        let Some(stored) = self.inner.load(key)? else {
            return Ok(None);
        };
        let corrupt = |reason: &str| StoreError::Corrupt(format!("encrypted session: {reason}"));
        let (nonce, ciphertext) = match stored.blob.split_first() {
            Some((&VERSION, rest)) => rest.split_first_chunk::<NONCE_LEN>(),
            Some((version, _)) => {
                return Err(corrupt(&format!("version {version} is not {VERSION}")));
            }
            None => None,
        }
        .ok_or_else(|| corrupt("truncated"))?;
        let payload = Payload { msg: ciphertext, aad: key.as_bytes() };
        let blob = self
            .cipher
            .0
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| corrupt("changed, or encrypted under another key"))?;
        Ok(Some(StoredSession::new(stored.revision, Zeroizing::new(blob))))
    }

    fn commit(
        &self,
        key: &SessionKey,
        expected: Option<Revision>,
        blob: &[u8],
    ) -> Result<Revision, StoreError> {
        let failed = |what: &str| StoreError::Failed(what.into());
        let nonce: [u8; NONCE_LEN] =
            self.random.random_array().map_err(|_| failed("no randomness"))?;
        let payload = Payload { msg: blob, aad: key.as_bytes() };
        let ciphertext = self
            .cipher
            .0
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| failed("encryption"))?;
        self.inner.commit(key, expected, &[&[VERSION][..], &nonce, &ciphertext].concat())
    }

    fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.inner.remove(key)
    }
}

impl<S: fmt::Debug> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}
