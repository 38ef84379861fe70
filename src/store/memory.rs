//! Sessions in memory.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use zeroize::Zeroizing;

use super::{Revision, SessionKey, SessionStore, StoreError, StoredSession};

/// Entries unless configured otherwise.
const DEFAULT_CAPACITY: usize = 1024;

/// A session store in memory: for clients that reconnect, and for servers that do not restart.
///
/// It holds a bounded number of entries, and the one that was committed longest ago makes room for a
/// new one. A session takes one entry, and the list of the sessions of a server name takes another
/// one at the client. A session that lost its place cannot be resumed; a connection that uses it goes
/// on. What is replaced or erased is overwritten with zeros.
///
/// Stores are shared by handing out clones of an [`Arc`](std::sync::Arc) of one.
///
/// ```
/// # use std::sync::Arc;
/// # use mls_channel::{Config, Identity, MemoryStore, danger::AcceptAnyone};
/// let config = Config::builder()
///     .identity(Identity::generate("client")?)
///     .authentication_service(AcceptAnyone)
///     .session_store(MemoryStore::default())
///     .build()?;
/// # Ok::<(), mls_channel::Error>(())
/// ```
pub struct MemoryStore {
    capacity: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<SessionKey, (u64, Zeroizing<Vec<u8>>)>,
    /// Revisions are given out in order, so this is the order of commits.
    by_revision: BTreeMap<u64, SessionKey>,
    last_revision: u64,
}

impl MemoryStore {
    /// A store for so many entries; at least 1.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), entries: Mutex::default() }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // No operation can leave the entries half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store for 1024 entries.
impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl SessionStore for MemoryStore {
    fn load(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        let entries = self.lock();
        Ok(entries
            .by_key
            .get(key)
            .map(|(revision, blob)| StoredSession::new(Revision::new(*revision), blob.clone())))
    }

    fn commit(
        &self,
        key: &SessionKey,
        expected: Option<Revision>,
        blob: &[u8],
    ) -> Result<Revision, StoreError> {
        let entries = &mut *self.lock();
        let found = entries.by_key.get(key).map(|(revision, _)| Revision::new(*revision));
        check_revision(found, expected)?;
        entries.remove(key);
        if entries.by_key.len() >= self.capacity
            && let Some((_, oldest)) = entries.by_revision.first_key_value()
        {
            let oldest = *oldest;
            entries.remove(&oldest);
        }
        entries.last_revision += 1;
        let revision = entries.last_revision;
        entries.by_key.insert(*key, (revision, Zeroizing::new(blob.to_vec())));
        entries.by_revision.insert(revision, *key);
        Ok(Revision::new(revision))
    }

    fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.lock().remove(key);
        Ok(())
    }
}

/// The rule of [`SessionStore::commit`].
pub(super) fn check_revision(
    found: Option<Revision>,
    expected: Option<Revision>,
) -> Result<(), StoreError> {
    match (found, expected) {
        (None, Some(_)) => Err(StoreError::Missing),
        (found, expected) if found == expected => Ok(()),
        _ => Err(StoreError::Conflict),
    }
}

impl Entries {
    fn remove(&mut self, key: &SessionKey) {
        if let Some((revision, _)) = self.by_key.remove(key) {
            self.by_revision.remove(&revision);
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("capacity", &self.capacity)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let store = MemoryStore::new(2);
        let [a, b, c] = [1, 2, 3].map(|byte| SessionKey::new([byte; 32]));
        let first = store.commit(&a, None, b"a").unwrap();
        store.commit(&b, None, b"b").unwrap();
        // Committing again makes it young.
        let second = store.commit(&a, Some(first), b"a again").unwrap();
        store.commit(&c, None, b"c").unwrap();
        assert_eq!(store.len(), 2);
        assert!(store.load(&b).unwrap().is_none());
        assert_eq!(*store.load(&a).unwrap().unwrap().blob, b"a again");
        assert_eq!(store.commit(&b, Some(second), b"b"), Err(StoreError::Missing));
        assert!(!format!("{store:?}").contains("again"));
    }
}
