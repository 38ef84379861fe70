//! What is done when time has passed (DM-12, DM-14, DM-16).

use std::time::{Duration, Instant};

use super::{
    DmlsEvent, DmlsSession, MemberIndex,
    commit::Wanted,
    peer::{Peer, Status},
};
use crate::{
    error::Error,
    time::Time,
    wire::{DmlsMessageType, Frame, encode_frame_part},
};

impl DmlsSession {
    pub(super) fn on_timeout(&mut self, now: Time) -> Result<(), Error> {
        if self.acknowledge_at.is_some_and(|at| at <= now.monotonic) {
            self.acknowledge(now)?;
        }
        self.ask_for_gaps(now)?;
        self.repeat(now);
        self.judge(now);
        if self.update_at().is_some_and(|at| at <= now.monotonic) && self.may_update() {
            self.commit_own(now, Wanted { update: true, incorporate: true })?;
        }
        Ok(())
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let policy = &self.policy;
        let update = self.update_at().filter(|_| self.may_update());
        self.peers
            .values()
            .filter(|peer| peer.status != Status::Gone)
            .flat_map(|peer| {
                let active = peer.is_active();
                [
                    peer.inbound.gap_due(policy),
                    peer.repeat_at.filter(|_| active),
                    self.lagging_at(peer).filter(|_| active && !peer.lagging_told),
                    self.removal_at(peer).filter(|_| active),
                ]
            })
            .chain([self.acknowledge_at, update])
            .flatten()
            .min()
    }

    fn update_at(&self) -> Option<Instant> {
        self.updated_at.checked_add(self.policy.update_interval?)
    }

    /// DM-14
    fn ask_for_gaps(&mut self, now: Time) -> Result<(), Error> {
        let mut asks = Vec::new();
        for (&member, peer) in &mut self.peers {
            if let Some(missing) = peer.inbound.ask(&self.policy, now.monotonic) {
                asks.push((member, missing));
            }
        }
        for (member, missing) in asks {
            let frame = Frame::new(DmlsMessageType::Resend, &encode_frame_part(&missing)?)?;
            self.send_to(member, frame.encoded().clone());
            self.ask_others(member, missing)?;
        }
        Ok(())
    }

    /// Sends those who owe an acknowledgement the last frame again: if it has arrived, they say so,
    /// and if earlier ones have not, they ask for them.
    fn repeat(&mut self, now: Time) {
        let first = self.policy.acknowledge_after.saturating_mul(2);
        let last = self.outbox.awaited();
        let frame = self.outbox.range(last.saturating_sub(1), last).next();
        let mut frames = Vec::new();
        for (&member, peer) in &mut self.peers {
            if !peer.is_active() || peer.repeat_at.is_none_or(|at| at > now.monotonic) {
                continue;
            }
            peer.plan_repeat(now.monotonic, first);
            frames.extend(frame.clone().map(|frame| (member, frame)));
            // It may have been lost, and is good as long as the group is in its epoch.
            let leaf = peer.leaf_update.as_ref().map(|leaf| leaf.frame.clone());
            frames.extend(leaf.map(|frame| (member, frame)));
        }
        for (member, frame) in frames {
            self.send_to(member, frame);
        }
    }

    /// Tells of those who lag, and removes them in the end (DM-12).
    fn judge(&mut self, now: Time) {
        let mut late = Vec::new();
        let mut lagging = Vec::new();
        for (&member, peer) in &self.peers {
            if !peer.is_active() {
                continue;
            }
            if self.removal_at(peer).is_some_and(|at| at <= now.monotonic) {
                late.push(member);
            } else if !peer.lagging_told
                && self.lagging_at(peer).is_some_and(|at| at <= now.monotonic)
            {
                lagging.push(member);
            }
        }
        for member in lagging {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.lagging_told = true;
            }
            self.events.push_back(DmlsEvent::Lagging { member: MemberIndex(member) });
        }
        for member in late {
            self.note_removal(self.roster.me, member);
        }
    }

    fn removal_at(&self, peer: &Peer) -> Option<Instant> {
        let after = |since: Option<Instant>, limit: Option<Duration>| since?.checked_add(limit?);
        let policy = &self.policy;
        [
            after(peer.owing_since, policy.remove_unacknowledged_after),
            after(Some(peer.updated_at), policy.remove_without_update_after),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn lagging_at(&self, peer: &Peer) -> Option<Instant> {
        peer.owing_since?.checked_add(self.policy.remove_unacknowledged_after? / 2)
    }
}
