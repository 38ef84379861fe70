//! A session store as one configuration sees it: whose keys name whose sessions, which session
//! belongs to which server, and which are in use.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Revision, SessionId, SessionKey, SessionStore, StoreError, StoredSession};
use crate::{
    crypto::{CipherSuite, CryptoProvider},
    error::Error,
    identity::Identity,
    name::ServerName,
};

/// Sessions that are remembered for one server name. With more of them, the oldest can no longer be
/// found by name.
const MAX_SESSIONS_OF_NAME: usize = 32;

/// Layout of the list of a server name.
const NAMES_VERSION: u8 = 1;

/// How often a list is written again when somebody else has written it meanwhile.
const MAX_ATTEMPTS: usize = 16;

/// The sessions that one configuration may resume.
pub(crate) struct Sessions {
    store: Arc<dyn SessionStore>,
    crypto: CryptoProvider,
    trust: [u8; 32],
    leases: Mutex<HashMap<SessionKey, usize>>,
}

/// What a key is made of. The numbers are part of what is hashed.
#[derive(Clone, Copy)]
enum Domain {
    Trust = 1,
    Session = 2,
    Name = 3,
}

/// A connection uses the session: `connect` looks for another one meanwhile.
pub(crate) struct Lease {
    sessions: Arc<Sessions>,
    key: SessionKey,
}

impl Sessions {
    /// The sessions of `identity` under the trust configuration with this digest.
    pub(crate) fn new(
        store: Arc<dyn SessionStore>,
        crypto: CryptoProvider,
        identity: &Identity,
        trust_digest: &[u8; 32],
    ) -> Result<Self, Error> {
        let own = [identity.public_key().as_bytes(), identity.name().as_bytes()].concat();
        let trust = hash(&crypto, Domain::Trust, trust_digest, &own)?;
        Ok(Self { store, crypto, trust, leases: Mutex::default() })
    }

    /// The key of a session. Under another trust configuration the session has another one, so that
    /// a strict configuration never meets what a lax one accepted.
    pub(crate) fn key(&self, id: &SessionId) -> Result<SessionKey, Error> {
        Ok(SessionKey::new(hash(&self.crypto, Domain::Session, &self.trust, id.as_bytes())?))
    }

    pub(crate) fn load(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        self.store.load(key)
    }

    pub(crate) fn commit(
        &self,
        key: &SessionKey,
        expected: Option<Revision>,
        blob: &[u8],
    ) -> Result<Revision, StoreError> {
        self.store.commit(key, expected, blob)
    }

    pub(crate) fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.store.remove(key)
    }

    /// The sessions with a server, newest first.
    pub(crate) fn of_name(&self, name: &ServerName) -> Result<Vec<SessionId>, Error> {
        Ok(self.load_names(&self.name_key(name)?)?.1)
    }

    /// Adds a session to those of a server.
    pub(crate) fn remember(&self, name: &ServerName, id: &SessionId) -> Result<(), Error> {
        self.change_names(name, |ids| {
            ids.retain(|other| other != id);
            ids.insert(0, id.clone());
            ids.truncate(MAX_SESSIONS_OF_NAME);
        })
    }

    /// Takes a session from those of a server.
    pub(crate) fn forget(&self, name: &ServerName, id: &SessionId) -> Result<(), Error> {
        self.change_names(name, |ids| ids.retain(|other| other != id))
    }

    fn change_names(
        &self,
        name: &ServerName,
        change: impl Fn(&mut Vec<SessionId>),
    ) -> Result<(), Error> {
        let key = self.name_key(name)?;
        for _ in 0..MAX_ATTEMPTS {
            let (revision, before) = self.load_names(&key)?;
            let mut ids = before.clone();
            change(&mut ids);
            if ids == before {
                return Ok(());
            }
            let ids: Vec<&[u8]> = ids.iter().map(SessionId::as_bytes).collect();
            let blob = postcard::to_allocvec(&(NAMES_VERSION, ids))
                .map_err(|error| StoreError::Corrupt(error.to_string()))?;
            match self.store.commit(&key, revision, &blob) {
                Err(StoreError::Conflict | StoreError::Missing) => {}
                result => return Ok(result.map(drop)?),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// A list that cannot be read names nothing, and is written anew.
    fn load_names(&self, key: &SessionKey) -> Result<(Option<Revision>, Vec<SessionId>), Error> {
        let Some(stored) = self.store.load(key)? else {
            return Ok((None, Vec::new()));
        };
        let ids = match postcard::from_bytes::<(u8, Vec<Vec<u8>>)>(&stored.blob) {
            Ok((NAMES_VERSION, ids)) => ids.into_iter().map(SessionId::new).collect(),
            _ => Vec::new(),
        };
        Ok((Some(stored.revision), ids))
    }

    fn name_key(&self, name: &ServerName) -> Result<SessionKey, Error> {
        let name = name.as_str().as_bytes();
        Ok(SessionKey::new(hash(&self.crypto, Domain::Name, &self.trust, name)?))
    }

    /// Marks a session as in use, if it is not.
    pub(crate) fn try_lease(self: &Arc<Self>, key: SessionKey) -> Option<Lease> {
        let mut leases = self.leases();
        if leases.contains_key(&key) {
            return None;
        }
        leases.insert(key, 1);
        Some(Lease { sessions: Arc::clone(self), key })
    }

    /// Marks a session as in use, maybe besides another connection that is about to end.
    pub(crate) fn lease(self: &Arc<Self>, key: SessionKey) -> Lease {
        *self.leases().entry(key).or_default() += 1;
        Lease { sessions: Arc::clone(self), key }
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<SessionKey, usize>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.sessions.leases();
        if let Some(count) = leases.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                leases.remove(&self.key);
            }
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

fn hash(
    crypto: &CryptoProvider,
    domain: Domain,
    scope: &[u8; 32],
    name: &[u8],
) -> Result<[u8; 32], Error> {
    let mut input = vec![domain as u8];
    input.extend_from_slice(scope);
    input.extend_from_slice(name);
    let suite = CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
    let mut key = [0; 32];
    key.copy_from_slice(&crypto.hash(suite, &input)?);
    Ok(key)
}
