//! What every store has to do.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::*;

fn key(byte: u8) -> SessionKey {
    SessionKey::new([byte; 32])
}

fn blob(store: &dyn SessionStore, key: &SessionKey) -> Option<Vec<u8>> {
    store.load(key).unwrap().map(|stored| stored.blob.to_vec())
}

/// 2P-21
fn conforms(store: &dyn SessionStore) {
    assert_eq!(blob(store, &key(1)), None);
    store.remove(&key(1)).unwrap();

    let first = store.commit(&key(1), None, b"first").unwrap();
    assert_eq!(store.load(&key(1)).unwrap().unwrap().revision, first);
    assert_eq!(store.commit(&key(1), None, b"again"), Err(StoreError::Conflict));
    let second = store.commit(&key(1), Some(first), b"second").unwrap();
    assert_ne!(first, second);
    assert_eq!(store.commit(&key(1), Some(first), b"late"), Err(StoreError::Conflict));
    assert_eq!(blob(store, &key(1)).unwrap(), b"second");

    assert_eq!(store.commit(&key(2), Some(second), b""), Err(StoreError::Missing));
    store.commit(&key(2), None, b"").unwrap();
    assert_eq!(blob(store, &key(2)).unwrap(), b"");

    store.remove(&key(1)).unwrap();
    assert_eq!(blob(store, &key(1)), None);
    assert_eq!(store.commit(&key(1), Some(second), b"risen"), Err(StoreError::Missing));
    let third = store.commit(&key(1), None, b"third").unwrap();
    assert!(third != first && third != second);
    assert_eq!(store.commit(&key(1), Some(second), b"risen"), Err(StoreError::Conflict));

    for byte in 10..60 {
        store.commit(&key(byte), None, &vec![byte; usize::from(byte) * 500]).unwrap();
    }
    for byte in 10..60 {
        assert_eq!(blob(store, &key(byte)).unwrap(), vec![byte; usize::from(byte) * 500]);
    }

    // Of several who have seen the same revision, one wins.
    let mut revision = store.commit(&key(3), None, b"start").unwrap();
    for _ in 0..20 {
        let (winners, barrier) = (AtomicUsize::new(0), Barrier::new(4));
        thread::scope(|scope| {
            for byte in 0..4 {
                let (winners, barrier) = (&winners, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    match store.commit(&key(3), Some(revision), &[byte]) {
                        Ok(_) => {
                            winners.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert_eq!(error, StoreError::Conflict),
                    }
                });
            }
        });
        assert_eq!(winners.into_inner(), 1);
        revision = store.load(&key(3)).unwrap().unwrap().revision;
    }
}

#[test]
fn memory_conforms() {
    conforms(&MemoryStore::default());
    conforms(&Arc::new(MemoryStore::new(100)));
}

#[test]
fn encrypted_conforms() {
    conforms(&EncryptedStore::new(MemoryStore::default(), &[7; 32]));
}

#[test]
fn what_is_encrypted_is_neither_read_nor_moved_nor_changed() {
    let inner = Arc::new(MemoryStore::default());
    let store = EncryptedStore::new(Arc::clone(&inner), &[7; 32]);
    let revision = store.commit(&key(1), None, b"a secret of the session").unwrap();
    let stored = inner.load(&key(1)).unwrap().unwrap().blob;
    assert!(!stored.windows(6).any(|window| window == b"secret"));

    let corrupt = |store: &dyn SessionStore, key: &SessionKey| {
        let error = store.load(key).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    };
    corrupt(&EncryptedStore::new(Arc::clone(&inner), &[8; 32]), &key(1));
    inner.commit(&key(2), None, &stored).unwrap();
    corrupt(&store, &key(2));
    let mut current = revision;
    for length in 0..stored.len() {
        current = inner.commit(&key(1), Some(current), &stored[..length]).unwrap();
        corrupt(&store, &key(1));
    }
    for at in 0..stored.len() {
        let mut changed = stored.to_vec();
        changed[at] ^= 1;
        current = inner.commit(&key(1), Some(current), &changed).unwrap();
        corrupt(&store, &key(1));
    }
    inner.commit(&key(1), Some(current), &stored).unwrap();
    assert_eq!(blob(&store, &key(1)).unwrap(), b"a secret of the session");
    // The same plaintext is never the same ciphertext.
    let again = store.load(&key(1)).unwrap().unwrap().revision;
    store.commit(&key(1), Some(again), b"a secret of the session").unwrap();
    assert_ne!(inner.load(&key(1)).unwrap().unwrap().blob, stored);
}

#[cfg(feature = "redb")]
mod redb {
    use std::fs;

    use super::*;

    #[test]
    fn redb_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        conforms(&RedbStore::open(&path).unwrap());
        // What was there is there again.
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(blob(&store, &key(1)).unwrap(), b"third");
        assert_eq!(store.len().unwrap(), 53);
        conforms(&RedbStore::open_without_sync(folder.path().join("other")).unwrap());
        let encrypted = RedbStore::open_without_sync(folder.path().join("third")).unwrap();
        conforms(&EncryptedStore::new(encrypted, &[9; 32]));
    }

    #[test]
    fn a_file_is_opened_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        let store = RedbStore::open(&path).unwrap();
        let error = RedbStore::open(&path).unwrap_err();
        assert_eq!(error, StoreError::InUse(path.display().to_string()));
        drop(store);
        RedbStore::open(&path).unwrap();
        let error = RedbStore::open(folder.path().join("no/such/folder")).unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)), "{error:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        RedbStore::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    // 2P-21: whatever is in the file, it is an error and no panic.
    #[test]
    fn a_damaged_file_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        let store = RedbStore::open(&path).unwrap();
        for byte in 0..20 {
            store.commit(&key(byte), None, &[byte; 9000]).unwrap();
        }
        drop(store);
        let good = fs::read(&path).unwrap();
        let mut damaged = vec![b"not a database".to_vec(), vec![0x5a; 100_000]];
        damaged
            .extend([1, 9, 64, 319, 4095, 4096, 10_000, 100_000].map(|end| good[..end].to_vec()));
        for at in (0..320).step_by(7).chain((320..good.len()).step_by(good.len() / 40)) {
            let mut changed = good.clone();
            changed[at] ^= 0xff;
            damaged.push(changed);
        }
        let mut refused = 0;
        for content in damaged {
            fs::write(&path, &content).unwrap();
            // It is refused, or the damage is not where it matters, or reading finds it.
            match RedbStore::open(&path) {
                Ok(store) => {
                    for byte in 0..20 {
                        let _ = store.load(&key(byte));
                    }
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 10, "{refused}");
    }
}
