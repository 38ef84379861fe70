//! Own commits (DM-04, DM-05, DM-08), and the own leaf in the Send Groups of others (DM-06).

use std::{collections::HashMap, time::Duration};

use super::{
    DmlsEvent, DmlsSession, MemberIndex,
    acknowledge::refused,
    peer::{LeafUpdate, Peer, Proposed, Status},
    policy::{MAX_MESSAGES_OF_EPOCH, OWN_UNACKNOWLEDGED_UPDATES},
    psk::{EpochEntry, Epochs, psk_id},
    universe::Roster,
};
use crate::{
    error::{ApiMisuse, CryptoError, Error, InvalidMessage, PeerMisbehaved},
    group::send::{CommitPlan, ContentType, LeafProposal, LeafSeed, MessageHeader, Psk, SendGroup},
    time::Time,
    wire::{CommitFrame, DmlsMessageType, EpochRef, Frame, LeafHeader, Opaque, encode_frame_part},
};

/// What an own commit is for, besides removals that are due.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) update: bool,
    pub(super) incorporate: bool,
}

impl DmlsSession {
    /// PROTECT incorporates first, by policy (DM-09).
    pub(super) fn commit_before_protecting(&mut self, now: Time) -> Result<(), Error> {
        let policy = self.policy;
        let rested = policy.incorporate_interval != Duration::MAX
            && self.committed_at.max(self.looked_at).is_none_or(|at| {
                now.monotonic.saturating_duration_since(at) >= policy.incorporate_interval
            });
        if rested {
            self.looked_at = Some(now.monotonic);
        }
        let may_update = self.may_update();
        let update = may_update
            && self.messages_since_update >= policy.update_messages.min(MAX_MESSAGES_OF_EPOCH);
        let incorporate = rested
            && (may_update || !self.roster.leaf_replacement())
            && !self.incorporable(now).is_empty();
        if update || incorporate {
            self.commit_own(now, Wanted { update, incorporate: rested })?;
        }
        Ok(())
    }

    /// The others would not follow if this party had many more updates that somebody lacks.
    pub(super) fn may_update(&self) -> bool {
        self.epochs.get(&self.roster.me).is_none_or(|own| own.len() < OWN_UNACKNOWLEDGED_UPDATES)
    }

    /// The removals that are due.
    pub(super) fn commit_removals(&mut self, now: Time) -> Result<(), Error> {
        if self.removals.is_empty() || self.removed_by.is_some() {
            return Ok(());
        }
        self.commit_own(now, Wanted { update: true, incorporate: false }).map(drop)
    }

    /// Updates of others that are new, that all have acknowledged alike or long enough ago, and whose
    /// leaf is at hand.
    pub(super) fn incorporable(&self, now: Time) -> Vec<EpochRef> {
        let Some(own_epoch) = self.own.as_ref().map(SendGroup::epoch) else {
            return Vec::new();
        };
        let candidates = self
            .peers
            .iter()
            .filter(|(member, peer)| peer.is_active() && !self.removals.contains(member))
            .filter(|(_, peer)| peer.inbound.closed().is_none())
            .filter_map(|(&member, peer)| {
                let epochs = self.epochs.get(&member)?;
                let newest = epochs.reference(member);
                let done = self.incorporated.get(&member).copied().unwrap_or(0);
                let has_leaf = !self.roster.leaf_replacement()
                    || peer.proposal.as_ref().is_some_and(|proposed| {
                        proposed.epoch == newest.epoch && proposed.proposal.is_for(own_epoch)
                    });
                (newest.epoch > done && has_leaf && self.is_agreed(newest, now)).then_some(newest)
            })
            .collect();
        self.without_conflicts(candidates)
    }

    /// Leaves out those whose leaf has the key of another one: keys are unique in a group, and one that
    /// copies the key of somebody else must not keep out all the others. Who came first is believed.
    fn without_conflicts(&self, mut candidates: Vec<EpochRef>) -> Vec<EpochRef> {
        let Some(own) = self.own.as_ref().filter(|_| self.roster.leaf_replacement()) else {
            return candidates;
        };
        if candidates.is_empty() {
            return candidates;
        }
        let mut holders: HashMap<Vec<u8>, u32> =
            own.encryption_keys().map(|(leaf, key)| (key, leaf)).collect();
        candidates.sort_by_key(|import| self.epochs.get(&import.member).map(Epochs::newest_at));
        candidates.retain(|import| {
            let proposed = self.peers.get(&import.member).and_then(|peer| peer.proposal.as_ref());
            let Some(Ok(key)) = proposed.map(|proposed| proposed.proposal.leaf.hpke_key()) else {
                return false;
            };
            let leaf = Roster::leaf_in(self.roster.me, import.member);
            *holders.entry(key).or_insert(leaf) == leaf
        });
        candidates
    }

    /// Everyone has the same version of this epoch, as far as can be known.
    fn is_agreed(&self, newest: EpochRef, now: Time) -> bool {
        let Some(epochs) = self.epochs.get(&newest.member) else {
            return false;
        };
        let mut others =
            self.peers.iter().filter(|(m, peer)| **m != newest.member && peer.is_active());
        let seen = |peer: &Peer| peer.seen.get(&newest.member).copied();
        let disagrees = others.clone().any(|(_, peer)| {
            seen(peer).is_some_and(|s| {
                s == refused(s.member) || (s.epoch == newest.epoch && s.digest != newest.digest)
            })
        });
        let waited = now.monotonic.saturating_duration_since(epochs.newest_at());
        !disagrees
            && (waited >= self.policy.acknowledge_wait
                || others.all(|(_, peer)| seen(peer) == Some(newest)))
    }

    /// Commits in the own Send Group. Gives whether there was anything to do.
    pub(super) fn commit_own(&mut self, now: Time, wanted: Wanted) -> Result<bool, Error> {
        let mut imports = if wanted.incorporate { self.incorporable(now) } else { Vec::new() };
        if !wanted.update && imports.is_empty() && self.removals.is_empty() {
            return Ok(false);
        }
        let (body, seed) = match self.build(&imports, wanted.update) {
            // Proposals of others that do not fit together: this party goes on without them.
            Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidLeaf(_))) => {
                for import in imports.drain(..) {
                    if let Some(peer) = self.peers.get_mut(&import.member) {
                        peer.proposal = None;
                    }
                }
                if !wanted.update && self.removals.is_empty() {
                    return Ok(false);
                }
                self.build(&[], wanted.update)?
            }
            result => result?,
        };
        self.send_in_order(now, DmlsMessageType::Commit, &encode_frame_part(&body)?)?;
        self.committed(now, &imports, seed)?;
        Ok(true)
    }

    /// Makes the commit; the group is in its next epoch afterwards. An error of a misbehaving peer
    /// changes nothing.
    fn build(
        &mut self,
        imports: &[EpochRef],
        update: bool,
    ) -> Result<(CommitFrame, Option<LeafSeed>), Error> {
        const LOST: Error = Error::Crypto(CryptoError::Internal("an epoch to incorporate"));
        let mut ids = Vec::with_capacity(imports.len());
        for import in imports {
            let member = self.roster.member(import.member).ok_or(LOST)?;
            ids.push(psk_id(import.epoch, &member.group_id));
        }
        let mut psks = Vec::with_capacity(imports.len());
        let mut leaves: Vec<&LeafProposal> = Vec::new();
        let mut proposals = Vec::new();
        for (import, id) in imports.iter().zip(&ids) {
            let entry = self.epochs.get(&import.member).and_then(|e| e.get(import.epoch));
            psks.push(Psk { id, secret: &entry.ok_or(LOST)?.psk });
            if self.roster.leaf_replacement() {
                let proposed = self.peers.get(&import.member).and_then(|p| p.proposal.as_ref());
                let proposed = proposed.ok_or(LOST)?;
                leaves.push(&proposed.proposal);
                proposals.push(proposed.message.clone());
            }
        }
        let header = self.next_header(DmlsMessageType::Commit, imports.to_vec(), Vec::new())?;
        let me = self.roster.me;
        let removals = self.removals.iter().map(|member| Roster::leaf_in(me, *member)).collect();
        let plan = CommitPlan {
            psks,
            leaves,
            removals,
            update,
            authenticated_data: header,
            #[cfg(test)]
            leaf: None,
        };
        let own = self.own.as_mut().ok_or(ApiMisuse::Closed)?;
        let (commit, seed) = own.commit(plan)?;
        let signature = Opaque(own.sign_commit(&proposals, &commit)?);
        let proposals = proposals.into_iter().map(Opaque).collect();
        Ok((CommitFrame { proposals, commit: Opaque(commit), signature }, seed))
    }

    /// Remembers what the own commit has done.
    pub(super) fn committed(
        &mut self,
        now: Time,
        imports: &[EpochRef],
        seed: Option<LeafSeed>,
    ) -> Result<(), Error> {
        const LOST: Error = Error::Crypto(CryptoError::Internal("the own leaf"));
        let epoch = self.own.as_ref().ok_or(ApiMisuse::Closed)?.epoch();
        let update = seed.is_some();
        self.dirty = true;
        self.must_commit = false;
        self.committed_at = Some(now.monotonic);
        for import in imports {
            self.incorporated.insert(import.member, import.epoch);
        }
        for member in std::mem::take(&mut self.removals) {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.removed_by.insert(self.roster.me);
                self.acknowledgements = true;
            }
        }
        // Proposals were for the epoch that is over.
        for peer in self.peers.values_mut() {
            peer.proposal = None;
        }
        if let Some(seed) = seed {
            let length = self.export_key_length();
            let own = self.own.as_ref().ok_or(ApiMisuse::Closed)?;
            let me = self.roster.member(self.roster.me).ok_or(LOST)?;
            let entry = EpochEntry::of(own, me, length)?;
            if let Some(own) = self.epochs.get_mut(&self.roster.me) {
                own.insert(epoch, entry, now.monotonic);
            }
            self.seed = Some((epoch, seed));
            self.messages_since_update = 0;
            self.updated_at = now.monotonic;
            for member in self.roster.others() {
                self.propose_leaf_to(member)?;
            }
        }
        self.events.push_back(DmlsEvent::EpochChanged {
            member: self.me(),
            epoch,
            update,
            incorporated: imports.iter().map(|import| MemberIndex(import.member)).collect(),
        });
        Ok(())
    }

    /// Sends a member the own newest leaf for its Send Group, if it is not there yet and was not sent
    /// for the group's epoch (DM-06).
    pub(super) fn propose_leaf_to(&mut self, member: u16) -> Result<(), Error> {
        if !self.roster.leaf_replacement() {
            return Ok(());
        }
        let Some((own_epoch, seed)) = &self.seed else {
            return Ok(());
        };
        let own_epoch = *own_epoch;
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        let Some(group) = peer.group.as_mut().filter(|_| peer.status == Status::Active) else {
            return Ok(());
        };
        let entry = self.epochs.get(&self.roster.me).and_then(|own| own.get(own_epoch));
        if entry.map(|entry| &entry.leaf) == group.leaf(group.own_leaf_index())?.as_ref() {
            peer.leaf_update = None;
            return Ok(());
        }
        let group_epoch = group.epoch();
        let is_sent = peer
            .leaf_update
            .as_ref()
            .is_some_and(|sent| (sent.own_epoch, sent.group_epoch) == (own_epoch, group_epoch));
        if is_sent {
            return Ok(());
        }
        let message_type = DmlsMessageType::LeafUpdate;
        let header = LeafHeader { message_type: message_type.into(), epoch: own_epoch };
        let message = group.propose_leaf(seed, encode_frame_part(&header)?)?;
        let frame = Frame::new(message_type, &message)?.encoded().clone();
        peer.leaf_update = Some(LeafUpdate { own_epoch, group_epoch, frame: frame.clone() });
        self.dirty = true;
        self.send_to(member, frame);
        Ok(())
    }

    /// Takes a member's leaf for the own Send Group.
    pub(super) fn handle_leaf_update(&mut self, member: u16, frame: &Frame) -> Result<(), Error> {
        if !self.roster.leaf_replacement() {
            return Err(PeerMisbehaved::UnexpectedMessage("LeafUpdate").into());
        }
        let message = MessageHeader::parse(frame.body())?;
        if message.content_type != ContentType::Proposal {
            return Err(InvalidMessage::UnexpectedWireFormat("proposal").into());
        }
        let own = self.own.as_mut().ok_or(ApiMisuse::Closed)?;
        if message.group_id != own.id() {
            return Err(PeerMisbehaved::UnknownSendGroup.into());
        }
        let header = LeafHeader::decode(message.authenticated_data)?;
        if header.message_type != u8::from(frame.message_type) {
            return Err(PeerMisbehaved::InvalidHeader("another type").into());
        }
        let is_stale = |member: u16| {
            self.peers.get(&member).is_none_or(|peer| {
                !peer.is_active()
                    || peer.proposal.as_ref().is_some_and(|known| known.epoch >= header.epoch)
                    || self.incorporated.get(&member).is_some_and(|done| *done >= header.epoch)
            })
        };
        if message.epoch < own.epoch() || is_stale(member) {
            // Its sender will sign the leaf again when it sees what it has missed.
            return Ok(());
        }
        let proposal = own.receive_proposal(frame.body())?;
        // It can be opened once, so whoever passes it on must not use it up: it counts for whom it is of.
        let member = self
            .roster
            .member_at(self.roster.me, proposal.leaf_index)
            .ok_or(PeerMisbehaved::InvalidLeaf("of nobody"))?;
        if is_stale(member) {
            return Ok(());
        }
        let known = self.epochs.get(&member).and_then(|epochs| epochs.get(header.epoch));
        if known.is_some_and(|entry| entry.leaf != proposal.leaf) {
            return Err(PeerMisbehaved::InvalidLeaf("not that of the epoch").into());
        }
        let message = frame.body().to_vec();
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.proposal = Some(Proposed { epoch: header.epoch, proposal, message });
        }
        Ok(())
    }

    /// A member's update has come: its proposal, if it was faster, must have the same leaf.
    pub(super) fn compare_proposal(&mut self, member: u16) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let epochs = self.epochs.get(&member);
        let fits = peer.proposal.as_ref().is_none_or(|proposed| {
            epochs
                .and_then(|epochs| epochs.get(proposed.epoch))
                .is_none_or(|entry| entry.leaf == proposed.proposal.leaf)
        });
        if !fits {
            peer.proposal = None;
        }
    }

    pub(super) fn export_key_length(&self) -> usize {
        usize::from(self.roster.parameters.export_key_length)
    }
}
