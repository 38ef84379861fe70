//! The rekey exchange: who yields when updates cross, when a party updates by itself, and how many
//! updates a peer may send.
//!
//! ```text
//!                   request, policy
//!        ┌────────┐  ConnectionUpdate ►   ┌──────────────┐
//!        │  idle  ├──────────────────────►│   waiting    │  initiator: ConnectionUpdate ignored
//!        │        │◄──────────────────────┤ for epoch n+1│
//!        └──┬──▲──┘  ◄ EpochKeyUpdate     └──────┬───────┘
//!           │  │     merge, EpochKeyUpdate ►,    │
//!           │  │          switch both            │ responder: ◄ ConnectionUpdate
//!           ▼  │                                 │ drop own, and want it again
//!  ◄ ConnectionUpdate ◄──────────────────────────┘
//!    apply, EpochKeyUpdate ► under n, then send under n+1;
//!    receive under n until ◄ EpochKeyUpdate, then under n+1
//!
//!  waiting, with a new identity in the update: ◄ UpdateRefused
//!    drop own, and want it again without the identity
//! ```

use std::time::Instant;

use super::shared::Counters;
use crate::{
    auth::Role,
    config::{Limits, RekeyPolicy},
    error::{Error, PeerMisbehaved},
};

/// What to do with a ConnectionUpdate (2P-08, 2P-09, 2P-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnUpdate {
    Apply,
    Ignore,
    DropOwnThenApply,
}

/// The table of crossing updates. `role` is the role when the session was first established.
pub(crate) fn on_update(role: Role, waiting: bool) -> OnUpdate {
    match (role, waiting) {
        (_, false) => OnUpdate::Apply,
        (Role::Initiator, true) => OnUpdate::Ignore,
        (Role::Responder, true) => OnUpdate::DropOwnThenApply,
    }
}

/// This party's own updates: wanted, outstanding, done.
pub(crate) struct OwnUpdates {
    policy: RekeyPolicy,
    /// The policy wants an update, or one was dropped that has to be made again.
    wanted: bool,
    /// Callers want this many updates to be started in all.
    requested: u64,
    /// The epoch that an EpochKeyUpdate has to confirm.
    waiting: Option<u64>,
    /// While waiting, the peer's crossing update has come and was ignored.
    ignored: bool,
    started: u64,
    completed: u64,
    /// The interval has passed without data; the next data starts an update.
    overdue: bool,
    last: Instant,
    bytes_at_last: u64,
    records_at_last: u64,
}

impl OwnUpdates {
    pub(crate) fn new(policy: RekeyPolicy, now: Instant) -> Self {
        Self {
            policy,
            wanted: false,
            requested: 0,
            waiting: None,
            ignored: false,
            started: 0,
            completed: 0,
            overdue: false,
            last: now,
            bytes_at_last: 0,
            records_at_last: 0,
        }
    }

    /// Asks for an update that starts from now on; it is done when [`OwnUpdates::completed`]
    /// reaches the returned number. Requests that come before it starts share it.
    pub(crate) fn request(&mut self) -> u64 {
        self.requested = self.started + 1;
        self.requested
    }

    /// Wants an update, which nobody counts.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// An update went out that leads to `epoch`.
    pub(crate) fn start(&mut self, epoch: u64, counters: &Counters) {
        self.bytes_at_last = counters.bytes();
        self.records_at_last = counters.records();
        self.wanted = false;
        self.ignored = false;
        self.waiting = Some(epoch);
        self.started += 1;
    }

    /// The outstanding update lost against the peer's, or was refused. The wish for it stays (2P-10).
    pub(crate) fn restart(&mut self) {
        if self.waiting.take().is_some() {
            self.started -= 1;
            self.wanted = true;
        }
    }

    /// The peer confirmed the outstanding update.
    pub(crate) fn complete(&mut self, now: Instant) {
        self.waiting = None;
        self.completed = self.started;
        self.overdue = false;
        self.last = now;
    }

    /// The peer's update crossed ours and is ignored (2P-09). It can do so once: the peer waits,
    /// too, and may not send another (2P-07).
    pub(crate) fn ignore(&mut self) -> Result<(), Error> {
        if self.ignored {
            return Err(PeerMisbehaved::UnexpectedMessage("ConnectionUpdate").into());
        }
        self.ignored = true;
        Ok(())
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, counters: &Counters) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            if counters.bytes() == self.bytes_at_last {
                self.overdue = true;
            } else {
                self.wanted = true;
            }
        }
    }

    /// Wants an update if the policy says so, `worn` being the key's own opinion.
    pub(crate) fn apply_policy(&mut self, counters: &Counters, worn: bool) {
        let bytes = counters.bytes() - self.bytes_at_last;
        let records = counters.records() - self.records_at_last;
        self.wanted |= self.waiting.is_none()
            && (worn
                || bytes >= self.policy.bytes
                || records >= self.policy.records
                || (self.overdue && bytes > 0));
    }

    /// Whether an update should start now.
    pub(crate) fn is_due(&self) -> bool {
        self.waiting.is_none() && self.is_wanted()
    }

    fn is_wanted(&self) -> bool {
        self.wanted || self.requested > self.started
    }

    /// Tells the receiving side how much it may receive before the policy has to be looked at.
    pub(crate) fn set_attention(&self, counters: &Counters) {
        let (mut bytes, mut records) = (u64::MAX, u64::MAX);
        if self.waiting.is_none() {
            let left = |limit: u64, total: u64, at_last: u64| limit.saturating_sub(total - at_last);
            let left_bytes = match self.overdue {
                true => 1,
                false => left(self.policy.bytes, counters.bytes(), self.bytes_at_last),
            };
            let left_records = left(self.policy.records, counters.records(), self.records_at_last);
            bytes = counters.bytes_received.value().saturating_add(left_bytes);
            records = counters.records_received.value().saturating_add(left_records);
        }
        counters.attention_bytes.set(bytes);
        counters.attention_records.set(records);
    }

    /// The epoch that is waited for.
    pub(crate) fn waiting(&self) -> Option<u64> {
        self.waiting
    }

    /// How many updates the peer has confirmed.
    pub(crate) fn completed(&self) -> u64 {
        self.completed
    }

    /// When to call [`OwnUpdates::handle_timeout`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.policy.interval {
            Some(interval) if !self.overdue && !self.is_wanted() && self.waiting.is_none() => {
                self.last.checked_add(interval)
            }
            _ => None,
        }
    }
}

/// Counts the peer's updates in a row. Application data, or time, makes it start anew (CH-09).
pub(crate) struct UpdateFlood {
    limits: Limits,
    count: u32,
    last: Option<Instant>,
    bytes_at_last: u64,
}

impl UpdateFlood {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, count: 0, last: None, bytes_at_last: 0 }
    }

    /// The peer sent an update.
    pub(crate) fn count(&mut self, now: Instant, counters: &Counters) -> Result<(), Error> {
        let bytes = counters.bytes();
        let soon = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < self.limits.update_interval);
        self.count = if soon && bytes == self.bytes_at_last { self.count + 1 } else { 1 };
        self.last = Some(now);
        self.bytes_at_last = bytes;
        if self.count > self.limits.max_updates_without_data {
            return Err(PeerMisbehaved::TooManyUpdates.into());
        }
        Ok(())
    }
}
