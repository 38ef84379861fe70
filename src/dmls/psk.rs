//! The epochs of a Send Group that others may refer to: their pre-shared keys and leaves (DM-05).
//!
//! An epoch that an update has begun is remembered at once, because the exporter of MLS knows only
//! the current one, and erased when every member has acknowledged a later one (DM-11).

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use zeroize::Zeroizing;

use super::universe::Member;
use crate::{
    error::{CryptoError, Error},
    group::send::{Leaf, OWNER_LEAF, SendGroup},
    wire::{DIGEST_LEN, EpochRef},
};

const LABEL: &str = "exporter-psk";
const CONTEXT: &[u8] = b"psk_id";

/// The remembered epochs of one member's Send Group.
pub(super) struct Epochs {
    entries: BTreeMap<u64, EpochEntry>,
    /// The newest update, and when it was seen. 0: none yet.
    newest: u64,
    newest_at: Instant,
}

pub(super) struct EpochEntry {
    pub(super) psk: Zeroizing<Vec<u8>>,
    /// The owner's leaf in this epoch.
    pub(super) leaf: Leaf,
    pub(super) digest: [u8; DIGEST_LEN],
}

impl EpochEntry {
    /// The epoch in which the group of `owner` is. No commit changes what its leaf claims.
    pub(super) fn of(group: &SendGroup, owner: &Member, length: usize) -> Result<Self, Error> {
        const NO_LEAF: Error = Error::Crypto(CryptoError::Internal("the owner's leaf"));
        let transcript = group.transcript().first_chunk();
        let leaf = group.leaf(OWNER_LEAF)?.ok_or(NO_LEAF)?;
        Ok(Self {
            psk: group.export(LABEL, CONTEXT, length)?,
            leaf: Leaf { claim: Arc::clone(&owner.claim), ..leaf },
            digest: *transcript.ok_or(CryptoError::Internal("the transcript hash"))?,
        })
    }
}

impl Epochs {
    pub(super) fn new(now: Instant) -> Self {
        Self { entries: BTreeMap::new(), newest: 0, newest_at: now }
    }

    pub(super) fn restore(entries: BTreeMap<u64, EpochEntry>, newest: u64, now: Instant) -> Self {
        Self { entries, newest, newest_at: now }
    }

    pub(super) fn insert(&mut self, epoch: u64, entry: EpochEntry, now: Instant) {
        self.entries.insert(epoch, entry);
        self.newest = epoch;
        self.newest_at = now;
    }

    /// Erases all before `epoch`. The newest one stays.
    pub(super) fn erase_before(&mut self, epoch: u64) {
        self.entries = self.entries.split_off(&epoch.min(self.newest));
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn get(&self, epoch: u64) -> Option<&EpochEntry> {
        self.entries.get(&epoch)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &EpochEntry)> {
        self.entries.iter().map(|(epoch, entry)| (*epoch, entry))
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn newest_at(&self) -> Instant {
        self.newest_at
    }

    /// The newest update as others may name it; epoch 0 if there is none.
    pub(super) fn reference(&self, member: u16) -> EpochRef {
        let digest = self.get(self.newest).map_or([0; DIGEST_LEN], |entry| entry.digest);
        EpochRef { member, epoch: self.newest, digest }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The ID of the pre-shared key of an epoch.
pub(super) fn psk_id(epoch: u64, group_id: &[u8]) -> Vec<u8> {
    [&epoch.to_be_bytes()[..], group_id].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    // DM-05
    #[test]
    fn the_id_of_a_key_is_the_epoch_and_the_group() {
        assert_eq!(psk_id(0x0102, b"group"), b"\0\0\0\0\0\0\x01\x02group");
    }
}
