//! Frames of one member that others pass on.
//!
//! A frame proves by itself who made it, so whoever has it can give it to those whom its sender does not
//! reach any more. What is passed on is not believed before it has verified: it closes nobody's order,
//! and gives way to what comes from its sender.

use bytes::Bytes;

use super::{
    DmlsSession, MemberIndex,
    init::header_of,
    order::{Offer, Source},
    peer::{Peer, Status},
    receive::batch,
};
use crate::{
    error::{ApiMisuse, Error, PeerMisbehaved},
    time::Time,
    wire::{DmlsMessageType, Frame, ResendFrame, ResendOfFrame, encode_frame_part},
};

impl DmlsSession {
    /// A frame that says whose frame another one is: a Forwarded, for
    /// [`handle_frame`](Self::handle_frame) of another member.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidMessage`] if `frame` is too long for any frame.
    pub fn forward(of: MemberIndex, frame: &[u8]) -> Result<Bytes, Error> {
        Ok(Frame::forward(of.0, frame)?.encoded().clone())
    }

    /// Takes a frame of the member `of` that somebody else has passed on: another member, or a relay that
    /// nobody trusts. [`handle_frame`](Self::handle_frame) does the same with the content of a Forwarded.
    ///
    /// # Errors
    ///
    /// What is wrong with the frame, as far as it shows at once. One that turns out not to be genuine
    /// later is dropped, with [`DmlsEvent::Discarded`](super::DmlsEvent::Discarded).
    pub fn handle_forwarded(
        &mut self,
        now: Time,
        of: MemberIndex,
        frame: impl Into<Bytes>,
    ) -> Result<(), Error> {
        if self.dead.is_none() && self.removed_by.is_some() {
            return Ok(());
        }
        self.alive()?;
        let result = self.receive_forwarded(of.0, frame.into()).and_then(|()| self.settle(now));
        self.remember_death(result)
    }

    pub(super) fn receive_forwarded(&mut self, member: u16, frame: Bytes) -> Result<(), Error> {
        if member == self.roster.me {
            return Ok(());
        }
        let frame = Frame::parse(frame, self.policy.max_frame_size)?;
        if !self.peers.contains_key(&member) {
            return Err(ApiMisuse::UnknownMember.into());
        }
        match frame.message_type {
            DmlsMessageType::Welcome
            | DmlsMessageType::Commit
            | DmlsMessageType::Message
            | DmlsMessageType::BulkMessage
            | DmlsMessageType::Acknowledge => {}
            other => return Err(PeerMisbehaved::UnexpectedMessage(other.name()).into()),
        }
        self.queue(member, frame, Source::Forwarder).map(drop)
    }

    /// Puts a frame into the order of the member whose Send Group it belongs to.
    pub(super) fn queue(
        &mut self,
        member: u16,
        frame: Frame,
        source: Source,
    ) -> Result<Offer, Error> {
        let (header, id) = header_of(&frame)?;
        // DM-10, DM-19
        if let Some(id) = id {
            let group_id = self.roster.member(member).map(|known| &known.group_id);
            if group_id != Some(&id) {
                let is_known = self.roster.members.iter().any(|known| known.group_id == id);
                let error = if is_known {
                    PeerMisbehaved::NotTheOwner
                } else {
                    PeerMisbehaved::UnknownSendGroup
                };
                return Err(error.into());
            }
        }
        match self.peers.get_mut(&member) {
            Some(peer) if peer.status != Status::Gone => {
                Ok(peer.inbound.offer(&self.policy, header, frame, source))
            }
            _ => Ok(Offer::Dropped),
        }
    }

    /// Passes frames on (DM-14), not more often than they can be missed.
    pub(super) fn handle_resend_of(
        &mut self,
        now: Time,
        member: u16,
        frame: &Frame,
    ) -> Result<(), Error> {
        let ResendOfFrame { member: of, wanted } = ResendOfFrame::decode(frame.body())?;
        if wanted.first >= wanted.end || self.roster.member(of).is_none() {
            return Err(PeerMisbehaved::InvalidHeader("of a ResendOf").into());
        }
        let Some(asking) = self.peers.get_mut(&member).filter(|_| of != member) else {
            return Ok(());
        };
        let pause = self.policy.resend_after / 2;
        let last = asking.forwarded_at.insert(of, now.monotonic);
        if last.is_some_and(|at| now.monotonic.saturating_duration_since(at) < pause) {
            return Ok(());
        }
        let Some(peer) = self.peers.get(&of) else {
            return Ok(());
        };
        for frame in batch(peer.inbound.kept(wanted.first, wanted.end)) {
            self.send_to(member, Self::forward(MemberIndex(of), &frame)?);
        }
        Ok(())
    }

    /// Asks others for frames of `member` that it does not send itself: those who say that they have
    /// them, or else anybody, one after the other.
    pub(super) fn ask_others(&mut self, member: u16, missing: ResendFrame) -> Result<(), Error> {
        let Some(peer) = self.peers.get(&member) else {
            return Ok(());
        };
        let turn = match peer.inbound.in_vain() {
            Some(turn) => turn,
            None if !peer.is_active() => 0,
            None => return Ok(()),
        };
        let others = || self.peers.iter().filter(|(o, peer)| **o != member && peer.is_active());
        let has = |peer: &Peer| peer.places.get(&member).is_some_and(|next| *next > missing.first);
        let mut holders: Vec<u16> = others().filter(|(_, p)| has(p)).map(|(o, _)| *o).collect();
        if holders.is_empty() {
            holders = others().map(|(other, _)| *other).collect();
        }
        let turn = usize::try_from(turn).unwrap_or_default();
        if let Some(&holder) = holders.get(turn % holders.len().max(1)) {
            let body = encode_frame_part(&ResendOfFrame { member, wanted: missing })?;
            let frame = Frame::new(DmlsMessageType::ResendOf, &body)?;
            self.send_to(holder, frame.encoded().clone());
        }
        Ok(())
    }

    /// Keeps no more frames for others than the policy allows. Who has sent most gives way first, so
    /// that nobody can crowd out the frames of the others.
    pub(super) fn bound_kept(&mut self) {
        // With nobody to pass them on to, none.
        let limit = if self.roster.len() > 2 { self.policy.max_forwarded_bytes } else { 0 };
        let mut total: usize = self.peers.values().map(|peer| peer.inbound.kept_bytes()).sum();
        while total > limit {
            let most = self.peers.values_mut().max_by_key(|peer| peer.inbound.kept_bytes());
            let Some(inbound) = most.map(|peer| &mut peer.inbound) else {
                return;
            };
            total -= inbound.kept_bytes();
            inbound.drop_kept();
            total += inbound.kept_bytes();
        }
    }

    /// Forgets frames of others that all have by now.
    pub(super) fn trim_kept(&mut self) {
        let active = self.peers.values().filter(|peer| peer.is_active());
        let received = active.map(|peer| peer.received).min().unwrap_or(u64::MAX);
        let members: Vec<u16> = self.roster.others().collect();
        for member in members {
            let Some(peer) = self.peers.get_mut(&member) else {
                continue;
            };
            if peer.inbound.kept_bytes() == 0 {
                continue;
            }
            // Own commits refer to it that others have not followed yet.
            if let Some(gone_at) = peer.gone_at {
                if received >= gone_at {
                    peer.inbound.trim_kept(u64::MAX);
                }
                continue;
            }
            let others = self.peers.iter().filter(|(o, peer)| **o != member && peer.is_active());
            let places = others.map(|(_, peer)| peer.places.get(&member).copied().unwrap_or(0));
            let next = places.min().unwrap_or(u64::MAX);
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.inbound.trim_kept(next);
            }
        }
    }

    /// Somebody has gone, and what it has said of the frames of others counts no more.
    pub(super) fn forget_known(&mut self, gone: u16) {
        let places = match self.peers.get_mut(&gone) {
            Some(peer) => std::mem::take(&mut peer.places),
            None => return,
        };
        for member in places.into_keys() {
            let others = self.peers.values().filter(|peer| peer.is_active());
            let known = others.filter_map(|peer| peer.places.get(&member)).max().copied();
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.inbound.forget_known();
                peer.inbound.note_known(known.unwrap_or(0));
            }
        }
    }
}
