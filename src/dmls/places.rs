//! The places of frames in the order of their senders, for transports that come and go (MC-03).

use bytes::Bytes;

use super::{
    DmlsPolicy, DmlsSession, MemberIndex,
    init::header_of,
    universe::{Candidate, parse_key_packages},
};
use crate::{
    Config, Error, PublicKey,
    auth::PeerIdentity,
    time::Time,
    wire::{DmlsMessageType, Frame},
};

impl DmlsSession {
    /// The place of the first frame of a member that has not been processed here.
    pub(crate) fn next_of(&self, member: MemberIndex) -> u64 {
        self.peers.get(&member.0).map_or(0, |peer| peer.inbound.next())
    }

    /// The own frames from this place on that somebody has not acknowledged, with their places. Only
    /// when [`DmlsSession::poll_frame`] has nothing more: what is here is stored then.
    pub(crate) fn frames_from(&self, place: u64) -> impl Iterator<Item = (u64, Bytes)> {
        self.outbox
            .range(place, u64::MAX)
            .filter_map(|frame| place_of(&frame).map(|place| (place, frame)))
    }

    /// The LeafUpdate that a member was sent last, if its Send Group does not have the leaf.
    pub(crate) fn leaf_update_for(&self, member: MemberIndex) -> Option<Bytes> {
        let peer = self.peers.get(&member.0)?;
        peer.leaf_update.as_ref().map(|sent| sent.frame.clone())
    }

    /// Takes a frame of the member `of`, as far as the transport knows, which is not sure.
    pub(crate) fn handle_unproven(
        &mut self,
        now: Time,
        of: MemberIndex,
        frame: Bytes,
    ) -> Result<(), Error> {
        match place_of(&frame) {
            Some(place) => {
                let message_type = frame.first().and_then(|&first| first.try_into().ok());
                if let Some(message_type) = message_type
                    && place < self.next_of(of)
                    && self.removed_by.is_none()
                {
                    self.owe_for_duplicate(now, message_type);
                }
                self.handle_forwarded(now, of, frame)
            }
            None => self.handle_frame(now, of, frame),
        }
    }

    /// The longest body of a frame in bytes.
    pub(crate) fn max_frame_size(&self) -> usize {
        self.policy.max_frame_size
    }

    /// Why nothing more can come of this session.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.dead.as_ref()
    }

    /// Who has this key, if it belongs to the universe.
    pub(crate) fn member_with(&self, key: &PublicKey) -> Option<MemberIndex> {
        (0..)
            .zip(&self.roster.members)
            .find(|(_, member)| member.identity.public_key() == key)
            .map(|(index, _)| MemberIndex(index))
    }

    /// How many members the universe began with.
    pub(crate) fn size(&self) -> u16 {
        self.roster.len()
    }
}

/// What a frame says of its place, if frames of its type have one. It is not authenticated here.
pub(crate) fn place_of(frame: &Bytes) -> Option<u64> {
    let frame = Frame::parse(frame.clone(), usize::MAX).ok()?;
    match frame.message_type {
        DmlsMessageType::Welcome
        | DmlsMessageType::Universe
        | DmlsMessageType::Commit
        | DmlsMessageType::Message
        | DmlsMessageType::BulkMessage
        | DmlsMessageType::Acknowledge => header_of(&frame).ok().map(|(header, _)| header.sequence),
        DmlsMessageType::KeyPackages
        | DmlsMessageType::LeafUpdate
        | DmlsMessageType::Resend
        | DmlsMessageType::ResendOf
        | DmlsMessageType::Forwarded => None,
    }
}

/// Whose KeyPackages a frame holds, as the authentication service says.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn owner_of_key_packages(
    config: &Config,
    policy: &DmlsPolicy,
    frame: &Bytes,
    now: Time,
) -> Result<PeerIdentity, Error> {
    let key_packages = parse_key_packages(frame, policy.max_frame_size)?;
    let candidate = Candidate::parse(config, config.cipher_suites(), &key_packages, now)?;
    Ok(candidate.identity)
}
