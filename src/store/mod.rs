//! Where the state of sessions outlives connections and processes.

mod encrypted;
mod id;
mod memory;
#[cfg(feature = "redb")]
mod redb;
mod sessions;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

#[cfg(feature = "redb")]
pub use self::redb::RedbStore;
pub(crate) use self::sessions::{Lease, Sessions};
pub use self::{encrypted::EncryptedStore, id::SessionId, memory::MemoryStore};

/// Where the state of sessions outlives connections and processes (2P-14, 2P-21).
///
/// A channel stores its session before it sends anything that depends on it, so an implementation
/// must promise three things: a commit happens whole or not at all; it happens only if nobody else
/// has committed since; and when it has returned, it stays. If the last is not so, say after a crash
/// that loses what was committed last, the peer notices and asks for a full handshake. Nothing worse
/// happens, as long as the store does not mix up two states.
///
/// The calls block, and are made on the task that drives the connection: once for each own update
/// and its completion, once for each update of the peer, twice for a handshake.
///
/// The blobs hold the secrets of the sessions. Who reads one can read what its session protects
/// until both parties have updated, but cannot sign for either: signature keys are not in it.
pub trait SessionStore: Send + Sync {
    /// What is stored under the key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] and [`StoreError::Failed`].
    fn load(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError>;

    /// Replaces what is stored under the key, if its revision is still `expected` (`None`: if nothing
    /// is stored), and gives the new revision.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] if another revision is stored, or any where none was expected;
    /// [`StoreError::Missing`] if none is stored where one was expected; [`StoreError::Failed`].
    fn commit(
        &self,
        key: &SessionKey,
        expected: Option<Revision>,
        blob: &[u8],
    ) -> Result<Revision, StoreError>;

    /// Erases what is stored under the key. It is no error if nothing is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Failed`].
    fn remove(&self, key: &SessionKey) -> Result<(), StoreError>;
}

/// Under what a session is stored: a digest of its name, the own identity and the trust
/// configuration. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey([u8; 32]);

/// Which state of a session is stored. A revision never comes again under the same key, also not
/// after the session was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision(u64);

/// What a store holds under a key.
#[derive(Clone)]
#[non_exhaustive]
pub struct StoredSession {
    /// Which state this is.
    pub revision: Revision,
    /// The state. It holds secrets.
    pub blob: Zeroizing<Vec<u8>>,
}

/// Why a store did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another revision is stored than expected.
    #[error("another connection has changed the session")]
    Conflict,
    /// A revision was expected, and nothing is stored: the session was removed, or crowded out of a
    /// bounded store.
    #[error("the session is not stored any more")]
    Missing,
    /// Another process has opened the store; the text names it.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// What is stored does not decode or decrypt.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The medium failed, in its own words.
    #[error("{0}")]
    Failed(String),
}

impl<T: SessionStore + ?Sized> SessionStore for Arc<T> {
    fn load(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        (**self).load(key)
    }

    fn commit(
        &self,
        key: &SessionKey,
        expected: Option<Revision>,
        blob: &[u8],
    ) -> Result<Revision, StoreError> {
        (**self).commit(key, expected, blob)
    }

    fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        (**self).remove(key)
    }
}

impl SessionKey {
    /// The key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

impl Revision {
    /// The revision of this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl StoredSession {
    /// What was found under a key.
    pub fn new(revision: Revision, blob: Zeroizing<Vec<u8>>) -> Self {
        Self { revision, blob }
    }
}

impl fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSession")
            .field("revision", &self.revision)
            .field("len", &self.blob.len())
            .finish_non_exhaustive()
    }
}
