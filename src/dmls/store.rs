//! A session in the store.
//!
//! What is stored explains every byte that has left, with one exception: application messages, their
//! ratchets and places are not written down one by one. A restored session therefore moves on to
//! places that it cannot have used, and commits before it sends, so that no key is used twice.
//! Messages that were sent since the session was last stored, and that somebody has not got, are
//! lost; messages that were received since then are delivered again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    DmlsPolicy, DmlsSession, MemberIndex, Outbox,
    order::Inbound,
    outbox::Sent,
    peer::{LeafUpdate, Peer, Status},
    psk::{EpochEntry, Epochs},
    universe::{Member, Roster},
};
use crate::{
    auth::{self, AuthenticationRequest, PeerIdentity, Purpose, Role},
    config::Config,
    crypto::CipherSuite,
    error::{CryptoError, Error, SessionError, StoreError},
    group::{
        Claim, ClaimedCredential,
        send::{KeyPackages, Leaf, LeafSeed, SendGroup},
    },
    store::{Revision, SessionId, SessionKey, Sessions},
    time::Time,
    wire::{EpochRef, UniverseParameters, encode_frame_part},
};

const MAGIC: &[u8; 4] = b"dmls";
const VERSION: u16 = 2;

/// Where a session is stored, and what was stored there last.
pub(super) struct Stored {
    sessions: Arc<Sessions>,
    key: SessionKey,
    revision: Option<Revision>,
}

type Secret = Zeroizing<Vec<u8>>;
/// Member, epoch, digest.
type Reference = (u16, u64, [u8; 16]);

/// The layout of a blob, behind the magic and the version.
#[derive(Serialize, Deserialize)]
struct Blob {
    parameters: Vec<u8>,
    suites: Vec<u16>,
    members: Vec<MemberBlob>,
    /// Suite and group, unless this party was removed.
    own: Option<(u16, Secret)>,
    seed: Option<(u64, Secret)>,
    key_packages: Option<(Secret, Vec<Vec<u8>>)>,
    next: u64,
    awaited: u64,
    kept: Vec<Sent>,
    peers: Vec<PeerBlob>,
    epochs: Vec<(u16, u64, Vec<EpochBlob>)>,
    incorporated: BTreeMap<u16, u64>,
    removals: BTreeSet<u16>,
    removed_by: Option<u16>,
}

#[derive(Serialize, Deserialize)]
struct MemberBlob {
    name: String,
    /// What all its leaves say.
    credential: ClaimedCredential,
    key: Vec<u8>,
    group_id: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct PeerBlob {
    member: u16,
    status: u8,
    group: Option<(u16, Secret)>,
    next: u64,
    closed: bool,
    seen: Vec<Reference>,
    received: u64,
    /// Own epoch, group epoch, frame.
    leaf_update: Option<(u64, u64, Vec<u8>)>,
    removed_by: BTreeSet<u16>,
}

#[derive(Serialize, Deserialize)]
struct EpochBlob {
    epoch: u64,
    psk: Secret,
    encryption_key: Vec<u8>,
    digest: [u8; 16],
}

impl Stored {
    pub(super) fn new(config: &Config, universe_id: &[u8]) -> Result<Option<Self>, Error> {
        let Some(sessions) = &config.sessions else {
            return Ok(None);
        };
        let id = SessionId::new([&MAGIC[..], universe_id].concat());
        let key = sessions.key(&id)?;
        Ok(Some(Self { sessions: Arc::clone(sessions), key, revision: None }))
    }
}

impl DmlsSession {
    /// Goes on with the session of a universe that was stored under this configuration. It commits
    /// before it sends.
    ///
    /// # Errors
    ///
    /// [`SessionError::Unknown`] if there is none, [`Error::Store`] if it is damaged, and
    /// [`Error::PeerNotTrusted`] if the authentication service does not believe a member any more that
    /// has not been removed.
    pub fn restore(
        config: Arc<Config>,
        policy: DmlsPolicy,
        universe_id: &[u8],
        now: Time,
    ) -> Result<Self, Error> {
        policy.check()?;
        let mut stored = Stored::new(&config, universe_id)?.ok_or(SessionError::Unknown)?;
        let found = stored.sessions.load(&stored.key)?.ok_or(SessionError::Unknown)?;
        stored.revision = Some(found.revision);
        let blob = decode(&found.blob).ok_or_else(corrupt)?;
        let session = Self::from_blob(blob, config, policy, stored, now).ok_or_else(corrupt)?;
        if session.universe_id() != universe_id {
            return Err(corrupt());
        }
        session.revisit(now)?;
        Ok(session)
    }

    /// Erases the session from the store.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub fn forget(mut self) -> Result<(), Error> {
        match self.stored.take() {
            Some(stored) => Ok(stored.sessions.remove(&stored.key)?),
            None => Ok(()),
        }
    }

    /// Asks the authentication service whether the members' credentials are still good.
    fn revisit(&self, now: Time) -> Result<(), Error> {
        for (&member, peer) in &self.peers {
            let Some(known) = self.roster.member(member).filter(|_| peer.is_active()) else {
                continue;
            };
            let identity = &known.identity;
            let request = AuthenticationRequest::new(
                known.claim.presented(),
                Role::Initiator,
                None,
                Purpose::Revisit { current: identity },
                now.calendar,
            );
            auth::validate(&*self.config.authentication_service, &request)?;
        }
        Ok(())
    }

    /// Stores the session. Afterwards, and not before, what depends on it may leave.
    pub(super) fn persist(&mut self) -> Result<(), Error> {
        if self.stored.is_none() {
            return Ok(());
        }
        let blob = encode(&self.to_blob()?)?;
        if let Some(stored) = &mut self.stored {
            match stored.sessions.commit(&stored.key, stored.revision, &blob) {
                Ok(revision) => stored.revision = Some(revision),
                // Another instance of this member goes on.
                Err(StoreError::Conflict) => return Err(SessionError::Superseded.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn to_blob(&self) -> Result<Blob, Error> {
        let key_packages = match &self.key_packages {
            Some(packages) => Some((packages.snapshot()?, packages.messages().to_vec())),
            None => None,
        };
        let mut peers = Vec::with_capacity(self.peers.len());
        for (&member, peer) in &self.peers {
            let group = match &peer.group {
                Some(group) => Some((group.suite().id(), group.snapshot()?)),
                None => None,
            };
            let leaf = peer.leaf_update.as_ref();
            peers.push(PeerBlob {
                member,
                status: peer.status as u8,
                group,
                next: peer.inbound.next(),
                closed: peer.inbound.closed().is_some(),
                seen: peer.seen.values().map(|s| (s.member, s.epoch, s.digest)).collect(),
                received: peer.received,
                leaf_update: leaf.map(|l| (l.own_epoch, l.group_epoch, l.frame.to_vec())),
                removed_by: peer.removed_by.clone(),
            });
        }
        let epochs = self.epochs.iter().map(|(&member, epochs)| {
            let entries = epochs.iter().map(|(epoch, entry)| EpochBlob {
                epoch,
                psk: entry.psk.clone(),
                encryption_key: entry.leaf.encryption_key.clone(),
                digest: entry.digest,
            });
            (member, epochs.newest(), entries.collect())
        });
        let seed = self.seed.as_ref();
        Ok(Blob {
            parameters: encode_frame_part(&self.roster.parameters)?,
            suites: self.roster.suites.iter().map(|suite| suite.id()).collect(),
            members: self
                .roster
                .members
                .iter()
                .map(|member| MemberBlob {
                    name: member.identity.name().to_owned(),
                    credential: member.claim.credential().clone(),
                    key: member.identity.public_key().as_bytes().to_vec(),
                    group_id: member.group_id.clone(),
                })
                .collect(),
            own: match &self.own {
                Some(own) => Some((own.suite().id(), own.snapshot()?)),
                None => None,
            },
            seed: seed.map(|(epoch, s)| (*epoch, Zeroizing::new(s.as_bytes().to_vec()))),
            key_packages,
            next: self.outbox.next(),
            awaited: self.outbox.awaited(),
            kept: self.outbox.kept(),
            peers,
            epochs: epochs.collect(),
            incorporated: self.incorporated.clone(),
            removals: self.removals.clone(),
            removed_by: self.removed_by.map(|by| by.0),
        })
    }

    /// What the store gets.
    #[cfg(test)]
    pub(super) fn to_blob_for_tests(&self) -> Secret {
        encode(&self.to_blob().unwrap()).unwrap()
    }

    /// What a thief of the store and of the signature key has.
    #[cfg(test)]
    pub(super) fn from_stolen(
        blob: &[u8],
        config: Arc<Config>,
        policy: DmlsPolicy,
        now: Time,
    ) -> Self {
        let stored = Stored::new(&config, b"nowhere").unwrap().unwrap();
        Self::from_blob(decode(blob).unwrap(), config, policy, stored, now).unwrap()
    }

    #[cfg(test)]
    pub(super) fn is_blob(blob: &[u8]) -> bool {
        decode(blob).is_some()
    }

    fn from_blob(
        blob: Blob,
        config: Arc<Config>,
        policy: DmlsPolicy,
        stored: Stored,
        now: Time,
    ) -> Option<Self> {
        let (identity, crypto) = (&config.identity, &config.crypto);
        let scheme = identity.public_key().scheme();
        let mut members = Vec::with_capacity(blob.members.len());
        for MemberBlob { name, credential, key, group_id } in blob.members {
            let claim = Claim::restore(credential, key, scheme);
            let key = claim.presented().to_public_key().ok()?;
            let identity = PeerIdentity::new(name, key);
            let identity = identity.with_credential(claim.presented().credential);
            members.push(Member { identity, claim: Arc::new(claim), group_id });
        }
        let parameters = UniverseParameters::decode(&blob.parameters).ok()?;
        let suites = blob.suites.iter().map(|id| CipherSuite::from_id(*id));
        let suites = suites.collect::<Option<Vec<_>>>()?;
        let roster = Roster::new(&config, parameters, suites, members).ok()?;
        let restore = |member: u16, suite: u16, snapshot: &[u8]| {
            let id = &roster.member(member)?.group_id;
            SendGroup::restore(snapshot, id, CipherSuite::from_id(suite)?, identity, crypto)
        };
        let own = match &blob.own {
            Some((suite, snapshot)) => Some(restore(roster.me, *suite, snapshot)?),
            None => None,
        };
        if own.is_none() != blob.removed_by.is_some() {
            return None;
        }
        let mut peers = BTreeMap::new();
        for peer in blob.peers {
            let group = match &peer.group {
                Some((suite, snapshot)) => Some(restore(peer.member, *suite, snapshot)?),
                None => None,
            };
            let mut inbound = Inbound::starting_at(peer.next);
            if peer.closed {
                inbound.close(Error::Session(SessionError::OutOfStep));
            }
            let restored =
                Peer {
                    status: match peer.status {
                        0 => Status::Active,
                        1 => Status::Leaving,
                        2 => Status::Gone,
                        _ => return None,
                    },
                    group,
                    inbound,
                    seen: peer
                        .seen
                        .into_iter()
                        .map(|(m, epoch, digest)| (m, EpochRef { member: m, epoch, digest }))
                        .collect(),
                    received: peer.received,
                    leaf_update: peer.leaf_update.map(|(own_epoch, group_epoch, frame)| {
                        LeafUpdate { own_epoch, group_epoch, frame: frame.into() }
                    }),
                    removed_by: peer.removed_by,
                    ..Peer::new(now.monotonic)
                };
            peers.insert(peer.member, restored);
        }
        if !peers.keys().copied().eq(roster.others()) {
            return None;
        }
        let mut epochs = BTreeMap::new();
        for (member, newest, entries) in blob.epochs {
            // No commit changes a credential.
            let claim = &roster.member(member)?.claim;
            let entries = entries.into_iter().map(|entry| {
                let claim = Arc::clone(claim);
                let leaf = Leaf { encryption_key: entry.encryption_key, claim };
                (entry.epoch, EpochEntry { psk: entry.psk, leaf, digest: entry.digest })
            });
            epochs.insert(member, Epochs::restore(entries.collect(), newest, now.monotonic));
        }
        if !epochs.keys().copied().eq(0..roster.len()) {
            return None;
        }
        let key_packages = match blob.key_packages {
            Some((keys, messages)) => {
                Some(KeyPackages::restore(&keys, messages, identity, crypto)?)
            }
            None => None,
        };
        let mut session = Self {
            policy,
            own,
            outbox: Outbox::restore(blob.next, blob.awaited, blob.kept),
            seed: blob.seed.map(|(epoch, seed)| (epoch, LeafSeed::new(seed))),
            key_packages,
            peers,
            epochs,
            incorporated: blob.incorporated,
            removals: blob.removals,
            messages_since_update: 0,
            looked_at: None,
            watching: false,
            acknowledgements: true,
            updated_at: now.monotonic,
            committed_at: None,
            acknowledge_at: None,
            must_commit: true,
            removed_by: blob.removed_by.map(MemberIndex),
            dead: None,
            stored: Some(stored),
            dirty: false,
            out: VecDeque::new(),
            events: VecDeque::new(),
            config,
            roster,
        };
        // What has come since is asked for, and what was said is said again.
        session.owe_acknowledgement(now, true);
        session.watch_debts(now);
        Some(session)
    }
}

fn encode(blob: &Blob) -> Result<Secret, Error> {
    let failed = |_| Error::Crypto(CryptoError::Internal("encoding the session"));
    // Counted first: a buffer that grows leaves copies of secrets behind.
    let size = postcard::serialize_with_flavor(blob, postcard::ser_flavors::Size::default())
        .map_err(failed)?;
    let mut encoded = Vec::with_capacity(MAGIC.len() + 2 + size);
    encoded.extend_from_slice(MAGIC);
    encoded.extend_from_slice(&VERSION.to_be_bytes());
    postcard::to_extend(blob, encoded).map(Zeroizing::new).map_err(failed)
}

fn decode(encoded: &[u8]) -> Option<Blob> {
    let content = encoded.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_be_bytes())?;
    postcard::from_bytes(content).ok()
}

fn corrupt() -> Error {
    StoreError::Corrupt("a session of Distributed MLS".into()).into()
}
