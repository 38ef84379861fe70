//! What both directions of a connection read: counters, and what the handshake established.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    auth::{PeerIdentity, Role},
    crypto::CipherSuite,
    error::Error,
    name::ServerName,
    store::SessionId,
};

/// Counters of a connection since its handshake (CH-06).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The epoch of the group.
    pub epoch: u64,
    /// Application bytes sent.
    pub bytes_sent: u64,
    /// Application bytes received.
    pub bytes_received: u64,
    /// Records of application data sent.
    pub records_sent: u64,
    /// Records of application data received.
    pub records_received: u64,
    /// Updates of this party that the peer has confirmed.
    pub own_updates: u64,
    /// Updates of the peer that were applied.
    pub peer_updates: u64,
    /// Times that an update of this party and one of the peer crossed.
    pub crossed_updates: u64,
    /// Changes of this party's identity that the peer has accepted (2P-13).
    pub rotations: u64,
    /// Changes of this party's identity that the peer has refused.
    pub refused_rotations: u64,
    /// Changes of the peer's identity that were accepted.
    pub peer_rotations: u64,
    /// Changes of the peer's identity that were refused.
    pub refused_peer_rotations: u64,
}

/// Shared by the two directions. Each counter has one writer; nothing here is locked on the data
/// path.
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    pub(crate) info: Info,
    peer: Mutex<PeerIdentity>,
}

/// Fixed by the handshake.
pub(crate) struct Info {
    pub(crate) role: Role,
    pub(crate) suite: CipherSuite,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) server_name: Option<ServerName>,
    pub(crate) channel_binding: [u8; 32],
    pub(crate) kind: HandshakeKind,
    pub(crate) not_resumed: Option<Error>,
    pub(crate) early_data: Option<EarlyDataStatus>,
    pub(crate) session_id: Option<SessionId>,
}

/// How a connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeKind {
    /// With a new session.
    Full,
    /// With a session of an earlier connection (2P-14). Both ends have renewed their key material.
    Resumed,
}

/// What became of early data that this party gave to the handshake (TL-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EarlyDataStatus {
    /// The peer has it, all of it, once.
    Accepted,
    /// The peer's application has nothing of it: send it again.
    Rejected,
    /// The handshake was not resumed, and nobody authentic has said whether the data was delivered
    /// before. Sending it again may deliver it twice.
    Unknown,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) epoch: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) records_sent: Counter,
    pub(crate) records_received: Counter,
    pub(crate) own_updates: Counter,
    pub(crate) peer_updates: Counter,
    pub(crate) crossed_updates: Counter,
    pub(crate) rotations: Counter,
    pub(crate) refused_rotations: Counter,
    pub(crate) peer_rotations: Counter,
    pub(crate) refused_peer_rotations: Counter,
    /// The receiving side asks the sending side about the rekey policy when it has received this
    /// much.
    pub(crate) attention_bytes: Counter,
    pub(crate) attention_records: Counter,
}

/// A number that one side writes and any side reads.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Shared {
    pub(crate) fn new(info: Info, peer: PeerIdentity, epoch: u64) -> Self {
        let counters = Counters::default();
        counters.epoch.set(epoch);
        counters.attention_bytes.set(u64::MAX);
        counters.attention_records.set(u64::MAX);
        Self { counters, info, peer: Mutex::new(peer) }
    }

    pub(crate) fn set_peer(&self, peer: &PeerIdentity) {
        let mut current = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != *peer {
            current.clone_from(peer);
        }
    }

    pub(crate) fn peer(&self) -> PeerIdentity {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let counters = &self.counters;
        Statistics {
            epoch: counters.epoch.value(),
            bytes_sent: counters.bytes_sent.value(),
            bytes_received: counters.bytes_received.value(),
            records_sent: counters.records_sent.value(),
            records_received: counters.records_received.value(),
            own_updates: counters.own_updates.value(),
            peer_updates: counters.peer_updates.value(),
            crossed_updates: counters.crossed_updates.value(),
            rotations: counters.rotations.value(),
            refused_rotations: counters.refused_rotations.value(),
            peer_rotations: counters.peer_rotations.value(),
            refused_peer_rotations: counters.refused_peer_rotations.value(),
        }
    }
}

impl Counters {
    /// Application bytes in both directions.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_sent.value() + self.bytes_received.value()
    }

    /// Records in both directions.
    pub(crate) fn records(&self) -> u64 {
        self.records_sent.value() + self.records_received.value()
    }
}

impl Counter {
    /// Adds, as the only writer.
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed) + amount, Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
