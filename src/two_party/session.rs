//! A session: the group, what resumption has to know besides, and the place where both are stored.
//!
//! What a session says to the peer must be explained by what is stored: after a change, and before
//! anything that comes of it leaves, [`Session::persist`] has to succeed (2P-21). One session is one
//! blob, written atomically. A connection that finds another revision than its own in the store has
//! been superseded, and ends.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::resumption::{Incoming, View};
use crate::{
    auth::{self, AuthenticationError, AuthenticationRequest, PeerIdentity, Purpose, Role},
    config::Config,
    crypto::{CipherSuite, CryptoProvider},
    error::{Error, PeerMisbehaved, SessionError},
    group::{CommitHeader, Group, StagedUpdate},
    identity::{Identity, PublicKey},
    name::ServerName,
    store::{Lease, Revision, SessionId, SessionKey, Sessions, StoreError},
    time::Time,
};

/// Layout of a stored session.
const BLOB_VERSION: u16 = 1;

/// What a stored session begins with.
const BLOB_MAGIC: &[u8; 4] = b"mlsc";

/// Length of the checksum at the end of a blob. It finds damage, not malice.
const CHECKSUM_LEN: usize = 32;

/// A session, of one connection.
pub(crate) struct Session {
    pub(crate) group: Group,
    pub(crate) facts: Facts,
    /// Own commit on the current epoch that the peer is not known to have applied.
    outbox: Option<Outbox>,
    /// Hash of the peer's commit that led to the current epoch.
    last_applied: Option<Vec<u8>>,
    stored: Option<Stored>,
    pub(crate) lease: Option<Lease>,
}

/// What the handshake agreed on, for as long as the session lasts.
#[derive(Clone)]
pub(crate) struct Facts {
    /// This party's role in the handshake that made the session.
    pub(crate) initial_role: Role,
    pub(crate) peer: PeerIdentity,
    pub(crate) server_name: Option<ServerName>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) peer_max_message_size: u32,
    pub(crate) created: SystemTime,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Outbox {
    commit: Vec<u8>,
    /// It was sent as a request: every older connection has been given up.
    requested: bool,
}

/// What became of a commit of the peer.
pub(crate) enum Applied {
    /// The peer has new key material.
    Update,
    /// The peer is somebody else now (2P-13).
    Rotation,
    /// The authentication service does not accept who the peer wants to be. Nothing has changed.
    Refused(AuthenticationError),
}

/// Where a session is stored, and what this connection has last stored there.
struct Stored {
    sessions: Arc<Sessions>,
    key: SessionKey,
    revision: Option<Revision>,
}

/// The layout of a blob, between the version and the checksum.
#[derive(Serialize, Deserialize)]
struct Blob {
    initial_role_is_initiator: bool,
    suite: u16,
    peer_name: String,
    peer_key: Vec<u8>,
    server_name: Option<String>,
    alpn: Option<Vec<u8>>,
    peer_max_message_size: u32,
    created: u64,
    outbox: Option<Outbox>,
    last_applied: Option<Vec<u8>>,
    group: Zeroizing<Vec<u8>>,
}

impl Session {
    /// A session that a handshake made, not stored yet.
    pub(crate) fn new(group: Group, facts: Facts) -> Self {
        Self { group, facts, outbox: None, last_applied: None, stored: None, lease: None }
    }

    /// Says where the session will be stored, if the configuration stores any.
    pub(crate) fn attach(&mut self, config: &Config) -> Result<(), Error> {
        if let Some(sessions) = &config.sessions {
            let key = sessions.key(&self.id())?;
            self.stored = Some(Stored { sessions: Arc::clone(sessions), key, revision: None });
            self.lease();
        }
        Ok(())
    }

    /// Loads a session, if it is stored and may still be resumed under this configuration. One that
    /// has come to its end is removed.
    pub(crate) fn load(config: &Config, id: &SessionId, now: Time) -> Result<Self, Error> {
        let sessions = config.sessions.as_ref().ok_or(SessionError::Unknown)?;
        let (key, stored) = sessions.find(id)?.ok_or(SessionError::Unknown)?;
        let mut session = Self::decode(&stored.blob, id, config, &sessions.identities())?;
        session.stored =
            Some(Stored { sessions: Arc::clone(sessions), key, revision: Some(stored.revision) });
        if let Err(error) = session.check(config, now) {
            if matches!(error, Error::Session(SessionError::Expired) | Error::PeerNotTrusted(_)) {
                session.remove()?;
            }
            return Err(error);
        }
        Ok(session)
    }

    /// Marks the session as in use by this connection. `false`: another connection uses it.
    pub(crate) fn try_lease(&mut self) -> bool {
        self.lease = self.stored.as_ref().and_then(|stored| stored.sessions.try_lease(stored.key));
        self.lease.is_some()
    }

    /// Marks the session as in use, whoever else may use it.
    pub(crate) fn lease(&mut self) {
        self.lease = self.stored.as_ref().map(|stored| stored.sessions.lease(stored.key));
    }

    /// Ends with the session's age, with a change of this configuration, and when the authentication
    /// service does not vouch for the peer any more.
    fn check(&self, config: &Config, now: Time) -> Result<(), Error> {
        let Facts { created, alpn, .. } = &self.facts;
        let age = now.calendar.duration_since(*created).unwrap_or(Duration::ZERO);
        if age >= config.session_lifetime {
            return Err(SessionError::Expired.into());
        }
        if !config.cipher_suites.contains(&self.group.suite()) {
            return Err(SessionError::Configuration("its cipher suite").into());
        }
        if let Some(alpn) = alpn
            && !config.alpn.contains(alpn)
        {
            return Err(SessionError::Configuration("its application protocol").into());
        }
        self.revisit(config, now)
    }

    /// Asks the authentication service whether the peer's credential is still good.
    pub(crate) fn revisit(&self, config: &Config, now: Time) -> Result<(), Error> {
        let claim = self.group.peer_claim()?;
        let request = AuthenticationRequest::new(
            claim.presented(),
            self.facts.initial_role.peer(),
            self.facts.server_name.as_ref(),
            Purpose::Revisit { current: &self.facts.peer },
            now.calendar,
        );
        auth::validate(&*config.authentication_service, &request)?;
        Ok(())
    }

    pub(crate) fn id(&self) -> SessionId {
        SessionId::new(self.group.id())
    }

    /// The session is stored, so that it can be resumed.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// What the table of resumption sees.
    pub(crate) fn view(&self) -> View {
        View {
            initial_role: self.facts.initial_role,
            epoch: self.group.epoch(),
            outbox: self.outbox.is_some(),
            requested: self.is_requested(),
        }
    }

    /// What the table of resumption sees of a commit of the peer.
    pub(crate) fn incoming(&self, header: &CommitHeader, commit: &[u8]) -> Result<Incoming, Error> {
        let is_last_applied = match &self.last_applied {
            Some(hash) => *hash == self.hash(commit)?,
            None => false,
        };
        Ok(Incoming { epoch: header.epoch, is_last_applied })
    }

    /// The own commit that the peer is not known to have applied.
    pub(crate) fn outbox(&self) -> Option<&[u8]> {
        self.outbox.as_ref().map(|outbox| &*outbox.commit)
    }

    /// The commit in the outbox was sent as a request before.
    pub(crate) fn is_requested(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.requested)
    }

    /// The commit in the outbox is about to be sent as a request.
    pub(crate) fn set_requested(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            outbox.requested = true;
        }
    }

    /// Puts a commit into the outbox that renews this party's key material, and makes it `next` if so
    /// wanted (2P-13).
    pub(crate) fn start_update(
        &mut self,
        authenticated_data: &[u8],
        next: Option<&Identity>,
    ) -> Result<&[u8], Error> {
        if let (Some(stored), Some(next)) = (&self.stored, next) {
            stored.sessions.add_identity(next);
        }
        let commit = self.group.start_update_saying(authenticated_data, next)?;
        Ok(&self.outbox.insert(Outbox { commit, requested: false }).commit)
    }

    /// Drops the commit in the outbox (2P-10, 2P-18).
    pub(crate) fn drop_update(&mut self) -> Result<(), Error> {
        self.outbox = None;
        self.group.drop_update()
    }

    /// Applies the commit in the outbox: the peer has.
    pub(crate) fn merge_update(&mut self) -> Result<(), Error> {
        self.outbox = None;
        self.last_applied = None;
        self.group.merge_update()
    }

    /// As [`Session::try_update`] for the commit of a request, where a refusal is an error.
    pub(crate) fn apply_update(
        &mut self,
        commit: &[u8],
        config: &Config,
        now: Time,
    ) -> Result<(), Error> {
        match self.try_update(commit, config, now) {
            Ok(Applied::Update | Applied::Rotation) => Ok(()),
            Ok(Applied::Refused(reason)) => Err(reason.into()),
            // It was refused inside of the channel, and the peer, which has not heard of that, has to
            // say it again (2P-16). Its key is gone.
            Err(Error::PeerMisbehaved(PeerMisbehaved::NoKeyForCommit)) => {
                Err(SessionError::OutOfStep.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Verifies a commit of the peer, asks the authentication service if it changes the peer's
    /// credential (2P-13), and applies it unless the service refuses.
    pub(crate) fn try_update(
        &mut self,
        commit: &[u8],
        config: &Config,
        now: Time,
    ) -> Result<Applied, Error> {
        let (update, applied) = match self.group.receive_update(commit)? {
            StagedUpdate::SameCredential(update) => (update, Applied::Update),
            StagedUpdate::NewCredential(update) => {
                let request = AuthenticationRequest::new(
                    update.claim().presented(),
                    self.facts.initial_role.peer(),
                    self.facts.server_name.as_ref(),
                    Purpose::Update { previous: &self.facts.peer },
                    now.calendar,
                );
                let peer = match auth::validate(&*config.authentication_service, &request) {
                    Ok(peer) => peer,
                    Err(reason) => return Ok(Applied::Refused(reason)),
                };
                let update = update.authenticated(&peer);
                self.facts.peer = peer.into_peer();
                (update, Applied::Rotation)
            }
        };
        self.group.apply(update)?;
        self.outbox = None;
        self.last_applied = match self.stored {
            Some(_) => Some(self.hash(commit)?),
            None => None,
        };
        Ok(applied)
    }

    /// Stores the session. Afterwards, and not before, what explains itself by it may leave.
    ///
    /// A session that was removed from the store, or crowded out of it, stays so, and lives on until
    /// its connection ends.
    pub(crate) fn persist(&mut self) -> Result<(), Error> {
        if self.stored.is_none() {
            return Ok(());
        }
        let blob = self.encode()?;
        if let Some(stored) = &mut self.stored {
            match stored.sessions.commit(&stored.key, stored.revision, &blob) {
                Ok(revision) => stored.revision = Some(revision),
                Err(StoreError::Missing) => self.stored = None,
                Err(StoreError::Conflict) => return Err(SessionError::Superseded.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes the session the one to be resumed with its server, in the place of one that the server
    /// has refused.
    pub(crate) fn remember(&self, refused: Option<&SessionId>) -> Result<(), Error> {
        if let (Some(stored), Some(name)) = (&self.stored, &self.facts.server_name) {
            if let Some(refused) = refused {
                stored.sessions.remove_id(refused)?;
                stored.sessions.forget(name, refused)?;
            }
            stored.sessions.remember(name, &self.id())?;
        }
        Ok(())
    }

    /// Erases the session from the store. Its connection, if there is one, goes on.
    pub(crate) fn remove(&mut self) -> Result<(), Error> {
        if let Some(stored) = self.stored.take() {
            stored.sessions.remove(&stored.key)?;
            if let (Role::Initiator, Some(name)) =
                (self.facts.initial_role, &self.facts.server_name)
            {
                stored.sessions.forget(name, &self.id())?;
            }
        }
        Ok(())
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.group.crypto().hash(self.group.suite(), data)?)
    }

    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let facts = &self.facts;
        let blob = Blob {
            initial_role_is_initiator: facts.initial_role == Role::Initiator,
            suite: self.group.suite().id(),
            peer_name: facts.peer.name().to_owned(),
            peer_key: facts.peer.public_key().as_bytes().to_vec(),
            server_name: facts.server_name.as_ref().map(|name| name.as_str().to_owned()),
            alpn: facts.alpn.clone(),
            peer_max_message_size: facts.peer_max_message_size,
            created: seconds(facts.created),
            outbox: self.outbox.clone(),
            last_applied: self.last_applied.clone(),
            group: self.group.snapshot()?,
        };
        // Room for all of it, so that no copy is left behind by growing.
        let capacity = blob.group.len() + 4096 + self.outbox().map_or(0, <[u8]>::len);
        let mut encoded = Vec::with_capacity(capacity);
        encoded.extend_from_slice(BLOB_MAGIC);
        encoded.extend_from_slice(&BLOB_VERSION.to_be_bytes());
        let mut encoded = postcard::to_extend(&blob, encoded)
            .map(Zeroizing::new)
            .map_err(|_| crate::error::CryptoError::Internal("encoding the session"))?;
        let checksum = checksum(self.group.crypto(), &encoded)?;
        encoded.extend_from_slice(&checksum);
        Ok(encoded)
    }

    fn decode(
        encoded: &[u8],
        id: &SessionId,
        config: &Config,
        identities: &[Identity],
    ) -> Result<Self, Error> {
        let corrupt = |what: &str| Error::from(StoreError::Corrupt(format!("a session: {what}")));
        let Some((magic, rest)) = encoded.split_first_chunk::<4>() else {
            return Err(corrupt("truncated"));
        };
        if magic != BLOB_MAGIC {
            return Err(corrupt("not a session"));
        }
        let Some((version, rest)) = rest.split_first_chunk::<2>() else {
            return Err(corrupt("truncated"));
        };
        let version = u16::from_be_bytes(*version);
        if version != BLOB_VERSION {
            return Err(corrupt(&format!("version {version} is not {BLOB_VERSION}")));
        }
        let Some((content, found)) = rest.split_last_chunk::<CHECKSUM_LEN>() else {
            return Err(corrupt("truncated"));
        };
        let covered = encoded.get(..encoded.len() - CHECKSUM_LEN).unwrap_or_default();
        if *found != *checksum(&config.crypto, covered)? {
            return Err(corrupt("truncated or damaged"));
        }
        let blob: Blob = postcard::from_bytes(content).map_err(|_| corrupt("damaged"))?;
        let initial_role =
            if blob.initial_role_is_initiator { Role::Initiator } else { Role::Responder };
        let suite = CipherSuite::from_id(blob.suite).ok_or_else(|| corrupt("unknown suite"))?;
        let peer_key = PublicKey::new(suite.signature_scheme(), &blob.peer_key)
            .map_err(|_| corrupt("the peer's key"))?;
        let server_name = blob
            .server_name
            .map(|name| ServerName::new(&name))
            .transpose()
            .map_err(|_| corrupt("the server name"))?;
        let created = UNIX_EPOCH
            .checked_add(Duration::from_secs(blob.created))
            .ok_or_else(|| corrupt("the time of its handshake"))?;
        let group = Group::restore(
            &blob.group,
            id.as_bytes(),
            initial_role,
            suite,
            identities,
            &config.crypto,
        )
        .ok_or_else(|| corrupt("the group"))??;
        if blob.outbox.is_some() != group.pending_epoch().is_some() {
            return Err(corrupt("the pending commit"));
        }
        let claim = group.peer_claim()?;
        let peer = PeerIdentity::new(blob.peer_name, peer_key);
        Ok(Self {
            group,
            facts: Facts {
                initial_role,
                peer: peer.with_credential(claim.presented().credential),
                server_name,
                alpn: blob.alpn,
                peer_max_message_size: blob.peer_max_message_size,
                created,
            },
            outbox: blob.outbox,
            last_applied: blob.last_applied,
            stored: None,
            lease: None,
        })
    }
}

fn checksum(crypto: &CryptoProvider, data: &[u8]) -> Result<Vec<u8>, Error> {
    Ok(crypto.hash(CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519, data)?)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
