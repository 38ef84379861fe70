//! Removal, and its cascade (DM-12).
//!
//! Who sees that one member has removed another one removes it too. The removed member's frames are
//! still processed until everyone has done so, because those who have not seen it yet may refer to
//! them; its data is not delivered any more.

use super::{
    DmlsEvent, DmlsSession, MemberIndex,
    peer::{Peer, Status},
    psk::Epochs,
};
use crate::error::ApiMisuse;

impl DmlsSession {
    /// The member `by` has removed `member`.
    pub(super) fn note_removal(&mut self, by: u16, member: u16) {
        if member == self.roster.me {
            self.removed_by = Some(MemberIndex(by));
            self.events.push_back(DmlsEvent::RemovedSelf { by: MemberIndex(by) });
            self.forget_everything();
            return;
        }
        // Who was removed before cannot remove. If somebody who stays saw it the other way round, that
        // one's commit will say so.
        let is_removed = self.peers.get(&by).is_some_and(|peer| !peer.is_active());
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        self.acknowledgements = true;
        // The own commit is yet to be made.
        if by != self.roster.me {
            peer.removed_by.insert(by);
        }
        if is_removed {
            return;
        }
        if peer.status == Status::Active {
            peer.status = Status::Leaving;
            peer.proposal = None;
            peer.leaf_update = None;
            self.removals.insert(member);
            self.events
                .push_back(DmlsEvent::Removed { member: MemberIndex(member), by: MemberIndex(by) });
            self.forget_known(member);
            if self.peers.values().all(|peer| peer.group.is_some() || !peer.is_active()) {
                self.key_packages = None;
            }
        }
    }

    /// Forgets the groups of members that everyone has removed.
    ///
    /// A member that is leaving may have referred to another one before it saw that one leave, so of
    /// several the first waits until nobody can refer to the second any more.
    pub(super) fn forget_gone(&mut self) {
        let mut remaining: Vec<u16> = self.roster.others().collect();
        remaining.retain(|member| self.peers.get(member).is_some_and(Peer::is_active));
        remaining.push(self.roster.me);
        let leaving: Vec<u16> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.status == Status::Leaving)
            .map(|(member, _)| *member)
            .collect();
        let removed_by = |member: &u16, by: &u16| {
            self.peers.get(member).is_some_and(|peer| peer.removed_by.contains(by))
        };
        let (done, pending): (Vec<u16>, Vec<u16>) =
            leaving.iter().partition(|member| remaining.iter().all(|by| removed_by(member, by)));
        let gone: Vec<u16> = done
            .into_iter()
            .filter(|member| pending.iter().all(|other| removed_by(member, other)))
            .collect();
        for member in gone {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.status = Status::Gone;
                peer.group = None;
                peer.inbound.close(ApiMisuse::UnknownMember.into());
                peer.gone_at = Some(self.outbox.next());
            }
            if let Some(epochs) = self.epochs.get_mut(&member) {
                epochs.clear();
            }
            self.dirty = true;
        }
    }

    /// This party was removed: it needs no keys any more.
    fn forget_everything(&mut self) {
        self.own = None;
        self.seed = None;
        self.key_packages = None;
        self.removals.clear();
        for peer in self.peers.values_mut() {
            peer.group = None;
            peer.proposal = None;
            peer.leaf_update = None;
            peer.inbound.trim_kept(u64::MAX);
        }
        self.epochs.values_mut().for_each(Epochs::clear);
        self.dirty = true;
    }
}
