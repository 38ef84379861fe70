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
    /// The scopes of what is stored: that of the configuration's identity, then those of former ones.
    scopes: Vec<[u8; 32]>,
    /// Everybody whom this party can sign for. Stored sessions have no signature keys.
    identities: Mutex<Vec<Identity>>,
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
    /// The sessions that began under `identity` or one of the `others`, with the trust
    /// configuration that has this digest.
    pub(crate) fn new(
        store: Arc<dyn SessionStore>,
        crypto: CryptoProvider,
        identity: &Identity,
        others: &[Identity],
        trust_digest: &[u8; 32],
    ) -> Result<Self, Error> {
        let identities: Vec<_> = std::iter::once(identity).chain(others).cloned().collect();
        let scope = |identity: &Identity| {
            let own = [identity.public_key().as_bytes(), identity.name().as_bytes()].concat();
            hash(&crypto, Domain::Trust, trust_digest, &own)
        };
        let scopes = identities.iter().map(scope).collect::<Result<_, _>>()?;
        Ok(Self {
            store,
            crypto,
            scopes,
            identities: Mutex::new(identities),
            leases: Mutex::default(),
        })
    }

    /// This party can sign for `identity` as well, as long as the process lives.
    pub(crate) fn add_identity(&self, identity: &Identity) {
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = identities.iter().any(|known| {
            known.name() == identity.name()
                && known.public_key() == identity.public_key()
                && known.certificates() == identity.certificates()
        });
        if !is_known {
            identities.push(identity.clone());
        }
    }

    pub(crate) fn identities(&self) -> Vec<Identity> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key of a session that begins now. Under another trust configuration the session has another
    /// one, so that a strict configuration never meets what a lax one accepted. It keeps its key when
    /// this party's identity changes.
    pub(crate) fn key(&self, id: &SessionId) -> Result<SessionKey, Error> {
        self.key_in(self.own_scope(), id)
    }

    fn key_in(&self, scope: &[u8; 32], id: &SessionId) -> Result<SessionKey, Error> {
        Ok(SessionKey::new(hash(&self.crypto, Domain::Session, scope, id.as_bytes())?))
    }

    fn own_scope(&self) -> &[u8; 32] {
        self.scopes.first().unwrap_or(&[0; 32])
    }

    pub(crate) fn load(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        self.store.load(key)
    }

    /// The session, whichever of the identities it began under.
    pub(crate) fn find(
        &self,
        id: &SessionId,
    ) -> Result<Option<(SessionKey, StoredSession)>, Error> {
        for scope in &self.scopes {
            let key = self.key_in(scope, id)?;
            if let Some(stored) = self.load(&key)? {
                return Ok(Some((key, stored)));
            }
        }
        Ok(None)
    }

    /// Removes a session, whichever of the identities it began under.
    pub(crate) fn remove_id(&self, id: &SessionId) -> Result<(), Error> {
        for scope in &self.scopes {
            self.remove(&self.key_in(scope, id)?)?;
        }
        Ok(())
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

    /// The sessions with a server, newest first; those of former identities come last.
    pub(crate) fn of_name(&self, name: &ServerName) -> Result<Vec<SessionId>, Error> {
        let mut ids = Vec::new();
        for scope in &self.scopes {
            ids.extend(self.load_names(&self.name_key(scope, name)?)?.1);
        }
        Ok(ids)
    }

    /// Adds a session to those of a server.
    pub(crate) fn remember(&self, name: &ServerName, id: &SessionId) -> Result<(), Error> {
        self.change_names(self.own_scope(), name, |ids| {
            ids.retain(|other| other != id);
            ids.insert(0, id.clone());
            ids.truncate(MAX_SESSIONS_OF_NAME);
        })
    }

    /// Takes a session from those of a server.
    pub(crate) fn forget(&self, name: &ServerName, id: &SessionId) -> Result<(), Error> {
        for scope in &self.scopes {
            self.change_names(scope, name, |ids| ids.retain(|other| other != id))?;
        }
        Ok(())
    }

    fn change_names(
        &self,
        scope: &[u8; 32],
        name: &ServerName,
        change: impl Fn(&mut Vec<SessionId>),
    ) -> Result<(), Error> {
        let key = self.name_key(scope, name)?;
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

    fn name_key(&self, scope: &[u8; 32], name: &ServerName) -> Result<SessionKey, Error> {
        let name = name.as_str().as_bytes();
        Ok(SessionKey::new(hash(&self.crypto, Domain::Name, scope, name)?))
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
