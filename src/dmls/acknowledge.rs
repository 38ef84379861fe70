//! Who has which update (DM-11), and what can be erased for it.

use super::{
    DmlsEvent, DmlsSession, MemberIndex,
    peer::{Peer, Status},
};
use crate::{
    error::{Error, PeerMisbehaved},
    time::Time,
    wire::{Acknowledgement, DIGEST_LEN, DmlsMessageType, EpochRef, Received, encode_frame_part},
};

impl DmlsSession {
    /// Something has come that its sender wants acknowledged.
    pub(super) fn owe_acknowledgement(&mut self, now: Time, is_update: bool) {
        let delay = if is_update {
            self.policy.acknowledge_updates_after
        } else {
            self.policy.acknowledge_after
        };
        if let Some(at) = now.monotonic.checked_add(delay) {
            self.acknowledge_at = Some(self.acknowledge_at.map_or(at, |planned| planned.min(at)));
        }
    }

    /// Tells everyone what this party has.
    pub(super) fn acknowledge(&mut self, now: Time) -> Result<(), Error> {
        self.acknowledge_at = None;
        let entries = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.group.is_some() || peer.inbound.closed().is_some())
            .filter(|(_, peer)| peer.is_active())
            .filter_map(|(&member, peer)| {
                let newest = match peer.inbound.closed() {
                    Some(_) => refused(member),
                    None => self.epochs.get(&member)?.reference(member),
                };
                Some(Received { newest, next: peer.inbound.next() })
            })
            .collect();
        let data = encode_frame_part(&Acknowledgement { entries })?;
        self.dirty = true;
        self.send_sealed(now, DmlsMessageType::Acknowledge, &data)
    }

    /// Takes what a member says that it has.
    pub(super) fn acknowledged_by(
        &mut self,
        now: Time,
        member: u16,
        acknowledgement: &Acknowledgement,
    ) -> Result<(), Error> {
        if acknowledgement.entries.len() >= self.roster.members.len() {
            return Err(PeerMisbehaved::InvalidHeader("of an Acknowledge").into());
        }
        for Received { newest, next } in &acknowledgement.entries {
            if newest.member == member || self.roster.member(newest.member).is_none() {
                return Err(PeerMisbehaved::InvalidHeader("of an Acknowledge").into());
            }
            if newest.member == self.roster.me {
                let own = self.epochs.get(&newest.member).map_or(0, |own| own.newest());
                let is_refusal = *newest == refused(self.roster.me);
                if *next > self.outbox.next() || (newest.epoch > own && !is_refusal) {
                    return Err(PeerMisbehaved::InvalidHeader("of an Acknowledge").into());
                }
                if let Some(peer) = self.peers.get_mut(&member)
                    && *next > peer.received
                {
                    peer.received = *next;
                    self.acknowledgements = true;
                    peer.made_progress(now.monotonic);
                }
            }
            if newest.member != self.roster.me
                && let Some(peer) = self.peers.get_mut(&member)
            {
                let place = peer.places.entry(newest.member).or_default();
                *place = (*place).max(*next);
                self.acknowledgements = true;
                if let Some(peer) = self.peers.get_mut(&newest.member) {
                    peer.inbound.note_known(*next);
                }
            }
            if newest.epoch > 0 {
                self.acknowledged_update(now, member, *newest);
            }
        }
        Ok(())
    }

    /// A member has an update of another one.
    pub(super) fn acknowledged_update(&mut self, now: Time, member: u16, newest: EpochRef) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        if !peer.acknowledge(newest) {
            return;
        }
        self.acknowledgements = true;
        if newest.member == self.roster.me {
            peer.made_progress(now.monotonic);
        }
        let known = self.epochs.get(&newest.member).and_then(|e| e.get(newest.epoch));
        if newest == refused(newest.member)
            || known.is_some_and(|entry| entry.digest != newest.digest)
        {
            self.events.push_back(DmlsEvent::Disagreement {
                about: MemberIndex(newest.member),
                reporter: MemberIndex(member),
            });
        }
    }

    /// Erases keys of epochs, and frames, that nobody needs any more.
    pub(super) fn erase_acknowledged(&mut self) {
        let peers = || self.peers.iter().filter(|(_, peer)| peer.status != Status::Gone);
        for (&member, epochs) in self.epochs.iter_mut().filter(|(_, epochs)| epochs.len() > 1) {
            let acknowledged = peers()
                .filter(|(other, _)| **other != member)
                .map(|(_, peer)| peer.acknowledged(member))
                .min();
            // With nobody else left, only this party's own use counts.
            epochs.erase_before(acknowledged.unwrap_or(u64::MAX));
        }
        let active = self.peers.values().filter(|peer| peer.is_active());
        if let Some(received) = active.map(|peer| peer.received).min() {
            self.outbox.trim(received);
        }
        self.trim_kept();
    }

    /// Starts and stops the clocks of those who owe an acknowledgement.
    pub(super) fn watch_debts(&mut self, now: Time) {
        let me = self.roster.me;
        let own = self.epochs.get(&me).map_or(0, |own| own.newest());
        let awaited = self.outbox.awaited();
        let first = self.policy.acknowledge_after.saturating_mul(2);
        self.watching = false;
        for peer in self.peers.values_mut() {
            if peer.is_active() && owes(peer, me, own, awaited) {
                self.watching = true;
                peer.owing_since.get_or_insert(now.monotonic);
                if peer.repeat_at.is_none() {
                    peer.plan_repeat(now.monotonic, first);
                }
            } else {
                peer.owing_since = None;
                peer.repeat_at = None;
                peer.repeats = 0;
            }
        }
    }
}

/// What is acknowledged of a member whose frames were refused: it is behind no update any more, and
/// agrees to none.
pub(super) fn refused(member: u16) -> EpochRef {
    EpochRef { member, epoch: u64::MAX, digest: [0; DIGEST_LEN] }
}

/// It has not acknowledged everything.
fn owes(peer: &Peer, me: u16, own: u64, awaited: u64) -> bool {
    peer.received < awaited || peer.acknowledged(me) < own
}
