//! Sessions in a file.

use std::{fmt, fs::OpenOptions, io, ops::Bound, path::Path};

use redb::{
    BackendError, Database, DatabaseError, ReadableDatabase as _, ReadableTable,
    ReadableTableMetadata as _, StorageBackend, TableDefinition, TableError, backends::FileBackend,
};
use zeroize::Zeroizing;

use super::{
    Revision, SessionKey, SessionStore, StoreError, StoredSession, memory::check_revision,
};

/// Of each session, its revision and its state.
const SESSIONS: TableDefinition<'_, &[u8; 32], (u64, &[u8])> = TableDefinition::new("sessions");

/// The version of the tables, and the last revision that was given out.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const VERSION: &str = "version";
const LAST_REVISION: &str = "last revision";

/// Version of the tables.
const TABLES_VERSION: u64 = 1;

/// A session store in one file, which survives crashes: a [redb](https://www.redb.org) database.
///
/// It serves any number of sessions, and all connections of a process: share it with clones of an
/// [`Arc`](std::sync::Arc). Each commit is a transaction that is on the disk when it returns, for
/// which the operating system waits some milliseconds (fsync); the task that drives the connection
/// waits with it.
///
/// A file that is replaced or erased in a database leaves its bytes behind until their place is used
/// again. Where that matters, wrap the store in an [`EncryptedStore`](crate::EncryptedStore). On Unix
/// the file is created for its owner alone.
///
/// Entries are never dropped to make room. Sessions that came to their end are removed when somebody
/// tries to resume them.
pub struct RedbStore {
    database: Database,
}

impl RedbStore {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] when another process, or another `RedbStore` of this one, has it open;
    /// [`StoreError::Corrupt`] when it is no such file, or damaged; [`StoreError::Failed`] when it
    /// cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path.as_ref(), true)
    }

    /// As [`RedbStore::open`], but the disk is not waited for.
    ///
    /// A commit still survives a crash of the process as soon as it returns. A crash of the machine
    /// may lose the last commits, and may damage the file.
    ///
    /// # Errors
    ///
    /// As [`RedbStore::open`].
    pub fn open_without_sync(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path.as_ref(), false)
    }

    fn open_with(path: &Path, sync: bool) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let named = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let file = options.open(path).map_err(|error| StoreError::Failed(named(&error)))?;
        let opened = FileBackend::new(file)
            .and_then(|inner| Database::builder().create_with_backend(Backend { inner, sync }));
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.display().to_string()),
            DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() != io::ErrorKind::InvalidData
                    && error.kind() != io::ErrorKind::UnexpectedEof =>
            {
                StoreError::Failed(named(&error))
            }
            error => StoreError::Corrupt(named(&error)),
        })?;
        let store = Self { database };
        store.check_version()?;
        Ok(store)
    }

    fn check_version(&self) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(failed)?;
        {
            let mut numbers = transaction.open_table(NUMBERS).map_err(wrong_table)?;
            let version = numbers.get(VERSION).map_err(failed)?.map(|version| version.value());
            match version {
                Some(TABLES_VERSION) => return Ok(()),
                Some(other) => {
                    let reason = format!("tables of version {other} instead of {TABLES_VERSION}");
                    return Err(StoreError::Corrupt(reason));
                }
                None => {
                    numbers.insert(VERSION, TABLES_VERSION).map_err(failed)?;
                    transaction.open_table(SESSIONS).map_err(wrong_table)?;
                }
            }
        }
        transaction.commit().map_err(failed)
    }

    /// How many entries there are.
    ///
    /// # Errors
    ///
    /// [`StoreError::Failed`].
    pub fn len(&self) -> Result<u64, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let sessions = transaction.open_table(SESSIONS).map_err(wrong_table)?;
        sessions.len().map_err(failed)
    }

    /// There are none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Failed`].
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.len()? == 0)
    }
}

impl SessionStore for RedbStore {
    fn load(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let sessions = transaction.open_table(SESSIONS).map_err(wrong_table)?;
        let stored = sessions.get(key.as_bytes()).map_err(failed)?;
        Ok(stored.map(|stored| {
            let (revision, blob) = stored.value();
            StoredSession::new(Revision::new(revision), Zeroizing::new(blob.to_vec()))
        }))
    }

    fn commit(
        &self,
        key: &SessionKey,
        expected: Option<Revision>,
        blob: &[u8],
    ) -> Result<Revision, StoreError> {
        // A transaction that is dropped is aborted.
        let transaction = self.database.begin_write().map_err(failed)?;
        let revision = {
            let mut sessions = transaction.open_table(SESSIONS).map_err(wrong_table)?;
            let found = sessions.get(key.as_bytes()).map_err(failed)?;
            check_revision(found.map(|stored| Revision::new(stored.value().0)), expected)?;
            let mut numbers = transaction.open_table(NUMBERS).map_err(wrong_table)?;
            let last = numbers.get(LAST_REVISION).map_err(failed)?.map_or(0, |last| last.value());
            let revision =
                last.checked_add(1).ok_or_else(|| StoreError::Corrupt("revision".into()))?;
            numbers.insert(LAST_REVISION, revision).map_err(failed)?;
            sessions.insert(key.as_bytes(), (revision, blob)).map_err(failed)?;
            Revision::new(revision)
        };
        transaction.commit().map_err(failed)?;
        Ok(revision)
    }

    fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(failed)?;
        transaction
            .open_table(SESSIONS)
            .map_err(wrong_table)?
            .remove(key.as_bytes())
            .map_err(failed)?;
        transaction.commit().map_err(failed)
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").finish_non_exhaustive()
    }
}

fn failed(error: impl fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

fn wrong_table(error: TableError) -> StoreError {
    match error {
        TableError::Storage(error) => failed(error),
        error => StoreError::Corrupt(error.to_string()),
    }
}

/// The file, maybe without waiting for the disk.
#[derive(Debug)]
struct Backend {
    inner: FileBackend,
    sync: bool,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.sync { self.inner.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
