//! What comes from others: frames go into the order of their sender, and come out when it is their
//! turn and what they refer to is there (DM-10, DM-13).

use bytes::Bytes;

use super::{
    DmlsEvent, DmlsSession, MemberIndex, message,
    order::{Offer, Source, Waiting},
    peer::Status,
    policy::{MAX_UNACKNOWLEDGED_UPDATES, RESEND_BATCH, RESEND_BYTES},
    psk::{EpochEntry, Epochs, psk_id},
    universe::Roster,
};
use crate::{
    error::{ApiMisuse, CryptoError, Error, PeerMisbehaved},
    group::send::{Psk, StagedSendCommit},
    time::Time,
    wire::{
        Acknowledgement, CommitFrame, DmlsMessageType, EpochRef, Frame, FrameHeader, ResendFrame,
    },
};

/// What became of the frame whose turn it was.
enum Step {
    Done,
    /// It refers to something that is not there yet.
    Wait,
}

impl DmlsSession {
    /// Takes a frame after this party was removed: others may still need some of its own, because
    /// they are about to see commits that refer to them.
    pub(super) fn receive_after_removal(
        &mut self,
        now: Time,
        member: u16,
        frame: Bytes,
    ) -> Result<(), Error> {
        let frame = Frame::parse(frame, self.policy.max_frame_size)?;
        match frame.message_type {
            DmlsMessageType::Resend => self.handle_resend(now, member, &frame),
            _ => Ok(()),
        }
    }

    pub(super) fn receive(&mut self, now: Time, member: u16, frame: Bytes) -> Result<(), Error> {
        let frame = Frame::parse(frame, self.policy.max_frame_size)?;
        let Some(peer) = self.peers.get(&member) else {
            return Err(ApiMisuse::UnknownMember.into());
        };
        if peer.status == Status::Gone {
            return Ok(());
        }
        match frame.message_type {
            DmlsMessageType::LeafUpdate => return self.handle_leaf_update(member, &frame),
            DmlsMessageType::Resend => return self.handle_resend(now, member, &frame),
            DmlsMessageType::ResendOf => return self.handle_resend_of(now, member, &frame),
            DmlsMessageType::Forwarded => {
                let (of, frame) = frame.forwarded()?;
                return self.receive_forwarded(of, frame);
            }
            DmlsMessageType::Universe | DmlsMessageType::KeyPackages => {
                return Err(PeerMisbehaved::UnexpectedMessage(frame.message_type.name()).into());
            }
            DmlsMessageType::Welcome
            | DmlsMessageType::Commit
            | DmlsMessageType::Message
            | DmlsMessageType::BulkMessage
            | DmlsMessageType::Acknowledge => {}
        }
        let message_type = frame.message_type;
        if self.queue(member, frame, Source::Sender)? == Offer::Duplicate {
            self.owe_for_duplicate(now, message_type);
        }
        Ok(())
    }

    /// A frame has come again: its sender does not know that it has arrived, or there is more than one
    /// way. An Acknowledge is not acknowledged either way, or two members with two legs would never stop.
    pub(super) fn owe_for_duplicate(&mut self, now: Time, message_type: DmlsMessageType) {
        if message_type != DmlsMessageType::Acknowledge {
            self.owe_acknowledgement(now, false);
        }
    }

    /// Processes every frame whose turn has come. A frame of one member may be what those of others
    /// wait for.
    pub(super) fn drain(&mut self, now: Time) -> Result<(), Error> {
        let others: Vec<u16> = self.roster.others().collect();
        for peer in self.peers.values_mut() {
            peer.inbound.set_wanted(false);
        }
        loop {
            let mut moved = false;
            for &member in &others {
                while self.removed_by.is_none() && self.step(now, member)? {
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        self.bound_kept();
        for peer in self.peers.values_mut() {
            peer.inbound.look_for_gap(now.monotonic);
        }
        Ok(())
    }

    /// Processes one frame of a member. `false`: none can be now.
    fn step(&mut self, now: Time, member: u16) -> Result<bool, Error> {
        let Some(Waiting { header, frame, source }) =
            self.peers.get(&member).and_then(|peer| peer.inbound.head())
        else {
            return Ok(false);
        };
        let (header, frame, source) = (header.clone(), frame.clone(), *source);
        let result = match frame.message_type {
            DmlsMessageType::Welcome => self.join(member, frame.body()).map(|()| Step::Done),
            DmlsMessageType::Commit => self.handle_commit(now, member, &header, &frame),
            DmlsMessageType::Message | DmlsMessageType::BulkMessage => {
                self.handle_message(member, &header, &frame)
            }
            _ => self.handle_acknowledge(now, member, &frame),
        };
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(false);
        };
        match result {
            Ok(Step::Wait) => Ok(false),
            Ok(Step::Done) => {
                peer.inbound.advance();
                let is_update = frame.message_type == DmlsMessageType::Commit;
                if frame.message_type != DmlsMessageType::Acknowledge {
                    self.owe_acknowledgement(now, is_update);
                }
                Ok(true)
            }
            Err(error @ (Error::Crypto(_) | Error::Store(_))) => Err(error),
            // DM-19: it may be somebody else's.
            Err(error) if source == Source::Forwarder => {
                peer.inbound.drop_head();
                self.events.push_back(DmlsEvent::Discarded { member: MemberIndex(member), error });
                Ok(true)
            }
            // DM-19
            Err(error) => {
                peer.inbound.close(error.clone());
                // The others are told: an update that somebody cannot follow is for nobody.
                self.owe_acknowledgement(now, true);
                self.events.push_back(DmlsEvent::Refused { member: MemberIndex(member), error });
                Ok(false)
            }
        }
    }

    fn handle_message(
        &mut self,
        member: u16,
        header: &FrameHeader,
        frame: &Frame,
    ) -> Result<Step, Error> {
        let peer = self.peers.get_mut(&member).ok_or(PeerMisbehaved::UnknownSendGroup)?;
        let group = peer.group.as_mut().ok_or(PeerMisbehaved::UnexpectedMessage("Message"))?;
        let (crypto, suite) = (&self.config.crypto, group.suite());
        let content = if frame.message_type == DmlsMessageType::BulkMessage {
            let (message, ciphertext) = message::split_bulk(frame.body())?;
            // The message can be opened once: not for another ciphertext that somebody has put there.
            if crypto.hash(suite, ciphertext)? != header.digest.0 {
                return Err(PeerMisbehaved::BadRecordMac.into());
            }
            let key = group.open(message)?.data;
            message::open_bulk(crypto, suite, &key, ciphertext)?
        } else {
            std::mem::take(&mut *group.open(frame.body())?.data)
        };
        let messages = message::decode(&content.into())?;
        if peer.status == Status::Active {
            let from = MemberIndex(member);
            let events = messages.into_iter().map(|data| DmlsEvent::Message { from, data });
            self.events.extend(events);
        }
        Ok(Step::Done)
    }

    fn handle_acknowledge(&mut self, now: Time, member: u16, frame: &Frame) -> Result<Step, Error> {
        let peer = self.peers.get_mut(&member).ok_or(PeerMisbehaved::UnknownSendGroup)?;
        let group = peer.group.as_mut().ok_or(PeerMisbehaved::UnexpectedMessage("Acknowledge"))?;
        let opened = group.open(frame.body())?;
        let acknowledgement = Acknowledgement::decode(&opened.data)?;
        self.acknowledged_by(now, member, &acknowledgement)?;
        Ok(Step::Done)
    }

    fn handle_commit(
        &mut self,
        now: Time,
        member: u16,
        header: &FrameHeader,
        frame: &Frame,
    ) -> Result<Step, Error> {
        const OUT_OF_PLACE: Error =
            Error::PeerMisbehaved(PeerMisbehaved::UnexpectedMessage("Commit"));
        let body = CommitFrame::decode(frame.body())?;
        if header.imports.len() >= self.roster.members.len()
            || body.proposals.len() >= self.roster.members.len()
        {
            return Err(PeerMisbehaved::InvalidHeader("too many imports").into());
        }
        let window = MAX_UNACKNOWLEDGED_UPDATES + self.roster.members.len();
        if self.epochs.get(&member).is_some_and(|epochs| epochs.len() >= window) {
            return Ok(Step::Wait);
        }
        let mut ids = Vec::with_capacity(header.imports.len());
        for import in &header.imports {
            match self.find_import(member, import)? {
                Some(id) => ids.push(id),
                None => {
                    if let Some(peer) = self.peers.get_mut(&import.member) {
                        peer.inbound.set_wanted(true);
                    }
                    return Ok(Step::Wait);
                }
            }
        }
        let mut psks = Vec::with_capacity(ids.len());
        for (import, id) in header.imports.iter().zip(&ids) {
            let entry = self.epochs.get(&import.member).and_then(|e| e.get(import.epoch));
            let entry = entry.ok_or(PeerMisbehaved::InvalidPsk)?;
            psks.push(Psk { id, secret: &entry.psk });
        }
        let peer = self.peers.get_mut(&member).ok_or(OUT_OF_PLACE)?;
        let group = peer.group.as_mut().ok_or(OUT_OF_PLACE)?;
        let proposals: Vec<_> = body.proposals.into_iter().map(|proposal| proposal.0).collect();
        let staged = group.stage(&proposals, &body.commit.0, &body.signature.0, &psks)?;
        drop(psks);
        let removed = self.check_commit(member, &header.imports, &ids, &staged)?;
        self.apply_commit(now, member, &header.imports, &removed, staged)?;
        Ok(Step::Done)
    }

    /// The ID of the key that a commit imports, if the key is there; `None` if it may still come.
    fn find_import(&self, member: u16, import: &EpochRef) -> Result<Option<Vec<u8>>, Error> {
        let invalid = Error::from(PeerMisbehaved::InvalidPsk);
        if import.member == member || import.epoch == 0 {
            return Err(invalid);
        }
        let (Some(known), Some(epochs)) =
            (self.roster.member(import.member), self.epochs.get(&import.member))
        else {
            return Err(invalid);
        };
        match epochs.get(import.epoch) {
            Some(entry) if entry.digest != import.digest => {
                Err(PeerMisbehaved::ConflictingEpoch.into())
            }
            Some(_) => Ok(Some(psk_id(import.epoch, &known.group_id))),
            // Epochs come in order: one that is not there now was never begun by an update, or was
            // acknowledged by this very member.
            None if import.epoch <= epochs.newest() => Err(invalid),
            None if import.member == self.roster.me => Err(invalid),
            None => Ok(None),
        }
    }

    /// Compares a commit with its header and with what it refers to (DM-07). Gives the members that it
    /// removes.
    fn check_commit(
        &self,
        member: u16,
        imports: &[EpochRef],
        ids: &[Vec<u8>],
        staged: &StagedSendCommit,
    ) -> Result<Vec<u16>, Error> {
        if staged.psks != ids {
            return Err(PeerMisbehaved::InvalidHeader("other imports").into());
        }
        let expected = if self.roster.leaf_replacement() { imports.len() } else { 0 };
        if staged.leaves.len() != expected {
            return Err(PeerMisbehaved::InvalidLeaf("not one for each import").into());
        }
        if expected > 0 {
            for import in imports {
                let leaf = staged.leaves.get(&Roster::leaf_in(member, import.member));
                let entry = self.epochs.get(&import.member).and_then(|e| e.get(import.epoch));
                if leaf.is_none() || leaf != entry.map(|entry| &entry.leaf) {
                    return Err(PeerMisbehaved::InvalidLeaf("not that of the epoch").into());
                }
            }
        }
        // Whoever copies this party's key could keep its leaf out of other Send Groups, where keys are
        // unique.
        if let Some(leaf) = &staged.update {
            let mut own = self.epochs.get(&self.roster.me).into_iter().flat_map(Epochs::iter);
            if own.any(|(_, entry)| entry.leaf.encryption_key == leaf.encryption_key) {
                return Err(PeerMisbehaved::InvalidLeaf("the key of somebody else").into());
            }
        }
        let mut removed = Vec::with_capacity(staged.removals.len());
        for leaf in &staged.removals {
            let who = self.roster.member_at(member, *leaf);
            removed.push(who.ok_or(PeerMisbehaved::InvalidCommit)?);
        }
        Ok(removed)
    }

    fn apply_commit(
        &mut self,
        now: Time,
        member: u16,
        imports: &[EpochRef],
        removed: &[u16],
        staged: StagedSendCommit,
    ) -> Result<(), Error> {
        const LOST: Error = Error::Crypto(CryptoError::Internal("a Send Group"));
        let length = self.export_key_length();
        let peer = self.peers.get_mut(&member).ok_or(LOST)?;
        let was_active = peer.is_active();
        self.dirty = true;
        if staged.self_removed {
            // Who was removed before cannot remove.
            if was_active {
                self.note_removal(member, self.roster.me);
            } else {
                peer.group = None;
            }
            return Ok(());
        }
        let update = staged.update.is_some();
        let group = peer.group.as_mut().ok_or(LOST)?;
        group.apply(staged)?;
        let epoch = group.epoch();
        if update {
            let owner = self.roster.member(member).ok_or(LOST)?;
            let entry = EpochEntry::of(group, owner, length)?;
            peer.updated_at = now.monotonic;
            if let Some(epochs) = self.epochs.get_mut(&member) {
                epochs.insert(epoch, entry, now.monotonic);
            }
            self.compare_proposal(member);
        }
        for import in imports {
            self.acknowledged_update(now, member, *import);
        }
        for who in removed {
            self.note_removal(member, *who);
        }
        if was_active {
            self.events.push_back(DmlsEvent::EpochChanged {
                member: MemberIndex(member),
                epoch,
                update,
                incorporated: imports.iter().map(|import| MemberIndex(import.member)).collect(),
            });
        }
        self.propose_leaf_to(member)
    }

    /// Sends frames again (DM-14), not more often than they can be missed.
    fn handle_resend(&mut self, now: Time, member: u16, frame: &Frame) -> Result<(), Error> {
        let wanted = ResendFrame::decode(frame.body())?;
        if wanted.first >= wanted.end {
            return Err(PeerMisbehaved::InvalidHeader("of a Resend").into());
        }
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        let pause = self.policy.resend_after / 2;
        let is_too_soon =
            peer.resent_at.is_some_and(|at| now.monotonic.saturating_duration_since(at) < pause);
        if is_too_soon {
            return Ok(());
        }
        peer.resent_at = Some(now.monotonic);
        for frame in batch(self.outbox.range(wanted.first, wanted.end)) {
            self.send_to(member, frame);
        }
        Ok(())
    }
}

/// As many frames as a Resend gets. One at least, however long.
pub(super) fn batch(frames: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let mut bytes = 0_usize;
    let fits = |frame: &Bytes| {
        let is_first = bytes == 0;
        bytes += frame.len();
        is_first || bytes <= RESEND_BYTES
    };
    frames.take(RESEND_BATCH).take_while(fits).collect()
}
