//! What is known of one other member.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::order::Inbound;
use crate::{
    group::send::{LeafProposal, SendGroup},
    wire::EpochRef,
};

/// Another member.
pub(super) struct Peer {
    pub(super) status: Status,
    /// Its Send Group, once its Welcome has come and until it is gone.
    pub(super) group: Option<SendGroup>,
    pub(super) inbound: Inbound,
    /// The newest update of each member that it has acknowledged (DM-11).
    pub(super) seen: BTreeMap<u16, EpochRef>,
    /// The place of the first own frame that it has not acknowledged.
    pub(super) received: u64,
    /// The place of the first frame of each other member that it has not got, as it says.
    pub(super) places: BTreeMap<u16, u64>,
    /// The leaf that it proposes for the own Send Group.
    pub(super) proposal: Option<Proposed>,
    /// The leaf that was proposed for its Send Group.
    pub(super) leaf_update: Option<LeafUpdate>,
    /// Since when it has been owing an acknowledgement without progress.
    pub(super) owing_since: Option<Instant>,
    pub(super) lagging_told: bool,
    /// When to send something again that it has not acknowledged.
    pub(super) repeat_at: Option<Instant>,
    pub(super) repeats: u32,
    /// When its last Resend was answered, and its last ResendOf about each other member.
    pub(super) resent_at: Option<Instant>,
    pub(super) forwarded_at: BTreeMap<u16, Instant>,
    pub(super) updated_at: Instant,
    /// Who has removed it from its own Send Group (DM-12).
    pub(super) removed_by: BTreeSet<u16>,
    /// Which place the next own frame had when it was gone.
    pub(super) gone_at: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Active,
    /// Somebody has removed it, but others may still refer to its epochs.
    Leaving,
    /// Everybody has removed it.
    Gone,
}

/// A verified proposal of a member for its leaf in the own Send Group.
pub(super) struct Proposed {
    /// The epoch of the member's Send Group that has the leaf.
    pub(super) epoch: u64,
    pub(super) proposal: LeafProposal,
    pub(super) message: Vec<u8>,
}

/// The own LeafUpdate that a member was sent last.
pub(super) struct LeafUpdate {
    /// The own epoch that has the leaf.
    pub(super) own_epoch: u64,
    /// The epoch of the member's Send Group for which it is good.
    pub(super) group_epoch: u64,
    pub(super) frame: Bytes,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            status: Status::Active,
            group: None,
            inbound: Inbound::starting_at(0),
            seen: BTreeMap::new(),
            received: 0,
            places: BTreeMap::new(),
            proposal: None,
            leaf_update: None,
            owing_since: None,
            lagging_told: false,
            repeat_at: None,
            repeats: 0,
            resent_at: None,
            forwarded_at: BTreeMap::new(),
            updated_at: now,
            removed_by: BTreeSet::new(),
            gone_at: None,
        }
    }

    /// It has acknowledged something.
    pub(super) fn made_progress(&mut self, now: Instant) {
        self.owing_since = self.owing_since.map(|_| now);
        self.lagging_told = false;
        self.repeats = 0;
        self.repeat_at = None;
    }

    /// Remembers an acknowledgement of an update. They never go back.
    pub(super) fn acknowledge(&mut self, newest: EpochRef) -> bool {
        let entry = self.seen.entry(newest.member).or_insert(EpochRef { epoch: 0, ..newest });
        let is_newer = newest.epoch > entry.epoch;
        if is_newer {
            *entry = newest;
        }
        is_newer
    }

    pub(super) fn acknowledged(&self, member: u16) -> u64 {
        self.seen.get(&member).map_or(0, |seen| seen.epoch)
    }

    pub(super) fn is_active(&self) -> bool {
        self.status == Status::Active
    }

    /// Plans the next repetition.
    pub(super) fn plan_repeat(&mut self, now: Instant, first: Duration) {
        let factor = 2_u32.saturating_pow(self.repeats).min(super::policy::MAX_BACKOFF);
        self.repeats = self.repeats.saturating_add(1);
        self.repeat_at = now.checked_add(first.saturating_mul(factor));
    }
}
