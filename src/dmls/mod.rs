//! Distributed MLS: a group of members that send to each other without agreeing on one state.
//!
//! Each member owns a Send Group, an MLS group in which it alone commits and sends, and is a member
//! of all the others. [`DmlsSession`] is the machine of one member: no socket, no task, no clock.
//!
//! ```text
//!                  protect, update, commit, remove        poll_event
//!                             │                              ▲
//!        ┌────────────────────▼──────────────────────────────┴───────────┐
//!        │ own Send Group ── outbox        epochs (PSKs, leaves) of all   │
//!        │ Send Group of B ◄─ order of B ◄┐                               │
//!        │ Send Group of C ◄─ order of C ◄┤                               │
//!        └────────────────────┬───────────┴───────────────────────────────┘
//!                             ▼           ▲
//!                        poll_frame   handle_frame(from B, C, ...)
//! ```
//!
//! The draft's operations: INIT is [`DmlsSession::create`] on every member (the application defines
//! the universe) or [`DmlsSession::invite`] on one and [`DmlsInvitation`] on the others (it is
//! declared over the wire); UPDATE is [`DmlsSession::update`], COMMIT [`DmlsSession::commit`],
//! PROTECT [`DmlsSession::protect`], and UNPROTECT happens in [`DmlsSession::handle_frame`].

mod acknowledge;
mod commit;
mod event;
mod forward;
mod init;
#[cfg(any(fuzzing, test))]
mod insider;
mod message;
mod order;
mod outbox;
mod peer;
#[cfg(feature = "tokio")]
mod places;
mod policy;
mod psk;
mod receive;
mod removal;
mod store;
#[cfg(test)]
mod tests;
mod timeout;
mod universe;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

pub use self::{
    event::DmlsEvent,
    init::DmlsInvitation,
    policy::DmlsPolicy,
    universe::{DmlsKeyPackages, DmlsMember, DmlsUniverse, MemberIndex},
};
use self::{
    message::Bulk, outbox::Outbox, peer::Peer, psk::Epochs, store::Stored, universe::Roster,
};
#[cfg(feature = "tokio")]
pub(crate) use self::{
    message::{LENGTH_LEN, MAX_BATCH},
    places::{owner_of_key_packages, place_of},
};
use crate::{
    auth::PeerIdentity,
    config::Config,
    crypto::CipherSuite,
    error::{ApiMisuse, Error},
    group::send::{KeyPackages, LeafSeed, SendGroup},
    time::Time,
    wire::{DmlsMessageType, EpochRef, Frame, FrameHeader, Opaque, TAG_LEN, encode_frame_part},
};

/// To whom a frame is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // a frame goes to one member or to all
pub enum Destination {
    /// All other members.
    All,
    /// One member.
    One(MemberIndex),
}

/// One member's side of a universe of Distributed MLS, without IO and without a clock.
///
/// - Input: [`handle_frame`](Self::handle_frame), and [`handle_timeout`](Self::handle_timeout) when
///   [`poll_timeout`](Self::poll_timeout) says.
/// - Calls of the application: [`protect`](Self::protect), [`update`](Self::update),
///   [`commit`](Self::commit), [`remove`](Self::remove).
/// - Output: after any of these, [`poll_frame`](Self::poll_frame) until it gives nothing, then
///   [`poll_event`](Self::poll_event) likewise.
///
/// Frames of one sender should arrive in order; where they do not, or where some are lost, they wait
/// and are asked for. A session with a store ([`Config`]'s) is stored in `poll_frame`, before
/// anything leaves that depends on it.
///
/// After [`DmlsEvent::RemovedSelf`] the session has no keys any more. Keep handing it frames for a while:
/// others may ask for frames that they have missed.
///
/// An error of [`handle_frame`](Self::handle_frame) is about that frame, and the session goes on. An
/// [`Error::Crypto`] or [`Error::Store`] is the end of the session; every later call gives it again.
pub struct DmlsSession {
    config: Arc<Config>,
    policy: DmlsPolicy,
    roster: Roster,
    /// Until this party is removed.
    own: Option<SendGroup>,
    outbox: Outbox,
    /// The material of the own leaf, and the own epoch that has it.
    seed: Option<(u64, LeafSeed)>,
    /// Until every Welcome has come.
    key_packages: Option<KeyPackages>,
    peers: BTreeMap<u16, Peer>,
    /// The remembered epochs of every member, this one included.
    epochs: BTreeMap<u16, Epochs>,
    /// The newest update of each member that the own commits have incorporated.
    incorporated: BTreeMap<u16, u64>,
    /// Members to remove from the own Send Group.
    removals: BTreeSet<u16>,
    messages_since_update: u32,
    /// When PROTECT last looked for updates to incorporate.
    looked_at: Option<Instant>,
    /// Somebody owes an acknowledgement, and a timer runs.
    watching: bool,
    /// Something was acknowledged, or somebody has gone, since keys were last erased.
    acknowledgements: bool,
    updated_at: Instant,
    committed_at: Option<Instant>,
    /// When to acknowledge what has come.
    acknowledge_at: Option<Instant>,
    /// The session was restored, and has to commit before it sends.
    must_commit: bool,
    removed_by: Option<MemberIndex>,
    dead: Option<Error>,
    stored: Option<Stored>,
    dirty: bool,
    out: VecDeque<(Destination, Bytes)>,
    events: VecDeque<DmlsEvent>,
}

impl DmlsSession {
    /// Takes a frame that the member `from` has sent, in its envelope.
    ///
    /// Who sent it is for the transport to know. A frame that does not belong to `from` is refused. A
    /// transport that lets somebody else speak for `from` can end the processing of that member's frames,
    /// as if it had broken the rules, and do nothing worse. Where it cannot know, behind a relay for
    /// example, use [`handle_forwarded`](Self::handle_forwarded) for all frames but LeafUpdate, Resend and
    /// ResendOf.
    ///
    /// # Errors
    ///
    /// What is wrong with the frame, with the name of the rule that it breaks. If it is a commit or
    /// a message that should have been next in its Send Group, [`DmlsEvent::Refused`] says so instead,
    /// because it may have waited.
    pub fn handle_frame(
        &mut self,
        now: Time,
        from: MemberIndex,
        frame: impl Into<Bytes>,
    ) -> Result<(), Error> {
        if self.dead.is_none() && self.removed_by.is_some() {
            return self.receive_after_removal(now, from.0, frame.into());
        }
        self.alive()?;
        let result = self.receive(now, from.0, frame.into()).and_then(|()| self.settle(now));
        self.remember_death(result)
    }

    /// Protects application data (DM-09), incorporating updates of others and updating first if the
    /// policy says so. It waits for nobody.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::Closed`] if this party was removed, [`ApiMisuse::MessageTooLong`] if the data does
    /// not fit into a frame.
    pub fn protect(&mut self, now: Time, data: &[u8]) -> Result<(), Error> {
        self.protect_all(now, &[data])
    }

    /// Protects several messages, as [`DmlsSession::protect`] does one after the other, with one
    /// signature for as many as fit into a frame. The receivers get them one by one.
    ///
    /// A signature, and its verification at each receiver, cost more than anything else about a short
    /// message: who has several to send should not send them alone.
    ///
    /// # Errors
    ///
    /// As [`DmlsSession::protect`]. If a message is too long, none is sent.
    pub fn protect_all(&mut self, now: Time, messages: &[&[u8]]) -> Result<(), Error> {
        self.alive()?;
        let limit = self.max_content();
        if messages.iter().any(|message| message.len() > limit) {
            return Err(ApiMisuse::MessageTooLong.into());
        }
        let result = message::batches(messages, limit).into_iter().try_for_each(|batch| {
            let batch = messages.get(batch).unwrap_or_default();
            self.commit_before_protecting(now)?;
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            self.messages_since_update = self.messages_since_update.saturating_add(count);
            self.send_messages(now, batch)
        });
        self.remember_death(result)
    }

    /// Renews this party's keys (DM-04), in a commit that incorporates nothing.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::Closed`] if this party was removed, [`ApiMisuse::TooManyUpdates`] while the others
    /// have many updates to acknowledge.
    pub fn update(&mut self, now: Time) -> Result<(), Error> {
        self.alive()?;
        if !self.may_update() {
            return Err(ApiMisuse::TooManyUpdates.into());
        }
        let result = self.commit_own(now, commit::Wanted { update: true, incorporate: false });
        self.remember_death(result.map(drop))
    }

    /// Incorporates the updates of others (DM-05) that can be by now. Gives whether there were any.
    ///
    /// With leaf replacement the commit renews this party's keys as well.
    ///
    /// # Errors
    ///
    /// As [`DmlsSession::update`].
    pub fn commit(&mut self, now: Time) -> Result<bool, Error> {
        self.alive()?;
        if self.roster.leaf_replacement() && !self.may_update() {
            return Err(ApiMisuse::TooManyUpdates.into());
        }
        let result = self.commit_own(now, commit::Wanted { update: false, incorporate: true });
        self.remember_death(result)
    }

    /// Incorporates the updates of others and renews this party's keys, in one commit (DM-08).
    ///
    /// # Errors
    ///
    /// As [`DmlsSession::update`].
    pub fn update_and_commit(&mut self, now: Time) -> Result<(), Error> {
        self.alive()?;
        if !self.may_update() {
            return Err(ApiMisuse::TooManyUpdates.into());
        }
        let result = self.commit_own(now, commit::Wanted { update: true, incorporate: true });
        self.remember_death(result.map(drop))
    }

    /// Removes a member (DM-12). The others do the same when they see it. It cannot come back.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::UnknownMember`] if it is no other member, or was removed before.
    pub fn remove(&mut self, now: Time, member: MemberIndex) -> Result<(), Error> {
        self.alive()?;
        if !self.peers.get(&member.0).is_some_and(Peer::is_active) {
            return Err(ApiMisuse::UnknownMember.into());
        }
        self.note_removal(self.roster.me, member.0);
        let result = self.settle(now);
        self.remember_death(result)
    }

    /// Does what is due at `now`.
    ///
    /// # Errors
    ///
    /// As [`DmlsSession::update`].
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), Error> {
        self.alive()?;
        let result = self.on_timeout(now).and_then(|()| self.settle(now));
        self.remember_death(result)
    }

    /// The next frame to deliver, in its envelope. Stores the session first if that is needed.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]. Then nothing leaves.
    pub fn poll_frame(&mut self) -> Result<Option<(Destination, Bytes)>, Error> {
        if let Some(error) = &self.dead {
            return Err(error.clone());
        }
        // Keys that are not needed any more have to go from the store, too.
        if self.dirty && (!self.out.is_empty() || self.removed_by.is_some()) {
            let result = self.persist();
            self.remember_death(result)?;
            self.dirty = false;
        }
        Ok(self.out.pop_front())
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<DmlsEvent> {
        self.events.pop_front()
    }

    /// When [`DmlsSession::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (&self.dead, self.removed_by) {
            (None, None) => self.next_timeout(),
            _ => None,
        }
    }

    /// This party's place in the universe.
    pub fn me(&self) -> MemberIndex {
        MemberIndex(self.roster.me)
    }

    /// The ID of the universe.
    pub fn universe_id(&self) -> &[u8] {
        &self.roster.parameters.universe_id
    }

    /// The members that have not been removed, this party included.
    pub fn members(&self) -> impl Iterator<Item = (MemberIndex, &PeerIdentity)> {
        (0..)
            .zip(&self.roster.members)
            .filter(|(index, _)| self.peers.get(index).is_none_or(Peer::is_active))
            .map(|(index, member)| (MemberIndex(index), &member.identity))
    }

    /// The epoch in which a member's Send Group is here, if this party has joined it.
    pub fn epoch(&self, member: MemberIndex) -> Option<u64> {
        self.group_of(member.0).map(SendGroup::epoch)
    }

    /// The cipher suite of a member's Send Group.
    pub fn cipher_suite(&self, member: MemberIndex) -> Option<CipherSuite> {
        self.group_of(member.0).map(SendGroup::suite)
    }

    /// The newest own update that a member is known to have (DM-11), as an epoch of the own Send
    /// Group. 0: none.
    pub fn acknowledged(&self, member: MemberIndex) -> u64 {
        self.peers.get(&member.0).map_or(0, |peer| peer.acknowledged(self.roster.me))
    }

    /// Bytes of messages, with their lengths, that fit into a frame.
    pub(crate) fn max_content(&self) -> usize {
        // Header, signature, tags and lengths take less.
        self.policy.max_frame_size - 1024
    }

    fn group_of(&self, member: u16) -> Option<&SendGroup> {
        if member == self.roster.me {
            return self.own.as_ref();
        }
        self.peers.get(&member)?.group.as_ref()
    }

    fn alive(&self) -> Result<(), Error> {
        match (&self.dead, self.removed_by) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(_)) => Err(ApiMisuse::Closed.into()),
            (None, None) => Ok(()),
        }
    }

    /// An operation that failed half way has left groups that nobody can go on with.
    fn remember_death<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ (Error::Crypto(_) | Error::Store(_) | Error::Session(_))) = &result {
            self.dead = Some(error.clone());
            self.out.clear();
        }
        result
    }

    /// Does what events have made necessary.
    fn settle(&mut self, now: Time) -> Result<(), Error> {
        self.drain(now)?;
        self.commit_removals(now)?;
        if std::mem::take(&mut self.acknowledgements) {
            self.forget_gone();
            self.erase_acknowledged();
        }
        self.watch_debts(now);
        Ok(())
    }

    /// Seals application data as one frame.
    fn send_messages(&mut self, now: Time, messages: &[&[u8]]) -> Result<(), Error> {
        let content = message::encode(messages, TAG_LEN)?;
        if content.len() <= message::BULK_FROM {
            return self.send_sealed(now, DmlsMessageType::Message, &content);
        }
        self.commit_if_restored(now)?;
        let suite = self.own.as_ref().ok_or(ApiMisuse::Closed)?.suite();
        let Bulk { ciphertext, key, digest } = Bulk::seal(&self.config.crypto, suite, content)?;
        let sealed = self.seal(DmlsMessageType::BulkMessage, &key, digest)?;
        let body = message::encode_bulk(&sealed, &ciphertext)?;
        self.send_in_order(now, DmlsMessageType::BulkMessage, &body)
    }

    /// Seals data as a frame with a place in the order, for everyone.
    fn send_sealed(
        &mut self,
        now: Time,
        message_type: DmlsMessageType,
        data: &[u8],
    ) -> Result<(), Error> {
        self.commit_if_restored(now)?;
        let message = self.seal(message_type, data, Vec::new())?;
        self.send_in_order(now, message_type, &message)
    }

    fn commit_if_restored(&mut self, now: Time) -> Result<(), Error> {
        if self.must_commit {
            self.commit_own(now, commit::Wanted { update: true, incorporate: false })?;
        }
        Ok(())
    }

    /// Seals data as an MLSMessage. `digest`: the hash of what goes beside it into the frame.
    fn seal(
        &mut self,
        message_type: DmlsMessageType,
        data: &[u8],
        digest: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let header = self.next_header(message_type, Vec::new(), digest)?;
        self.own.as_mut().ok_or(ApiMisuse::Closed)?.seal(header, data)
    }

    /// The header of the next frame that has a place in the order.
    fn next_header(
        &self,
        message_type: DmlsMessageType,
        imports: Vec<EpochRef>,
        digest: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let (sequence, resumed_from) = self.outbox.place();
        let header = FrameHeader {
            message_type: message_type.into(),
            sequence,
            resumed_from,
            imports,
            digest: Opaque(digest),
        };
        Ok(encode_frame_part(&header)?)
    }

    fn send_in_order(
        &mut self,
        now: Time,
        message_type: DmlsMessageType,
        body: &[u8],
    ) -> Result<(), Error> {
        let frame = Frame::new(message_type, body)?;
        let is_awaited = message_type != DmlsMessageType::Acknowledge;
        self.outbox.push(frame.encoded(), is_awaited, self.policy.max_kept_bytes);
        self.out.push_back((Destination::All, frame.encoded().clone()));
        if is_awaited && !self.watching {
            self.watch_debts(now);
        }
        Ok(())
    }

    fn send_to(&mut self, member: u16, frame: Bytes) {
        self.out.push_back((Destination::One(MemberIndex(member)), frame));
    }
}

impl fmt::Debug for DmlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmlsSession")
            .field("me", &self.me())
            .field("members", &self.members().count())
            .field("epoch", &self.epoch(self.me()))
            .finish_non_exhaustive()
    }
}
