//! Who the two parties are may change while the channel lasts: this party's change of identity, the
//! peer's, and whether the peer is still to be believed (2P-13).
//!
//! ```text
//!   rotating party                              peer
//!     ConnectionUpdate (new leaf)   ═══════►    asks its authentication service
//!     merge, EpochKeyUpdate         ◄═══════    accepted: EpochKeyUpdate
//!     drop; a plain update follows  ◄═══════    refused: UpdateRefused, still in the old epoch
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use super::Sender;
use crate::{
    auth::AuthenticationError,
    error::{ApiMisuse, CryptoError, Error, PeerMisbehaved},
    identity::Identity,
    record::Output,
    time::Time,
    wire::{TwoPartyMessage, TwoPartyMessageType},
};

/// A change of this party's identity that the peer has not decided yet.
pub(super) struct Rotation {
    pub(super) identity: Identity,
    outcome: Outcome,
}

/// What becomes of a change of identity, for whoever asked for it.
#[derive(Clone, Default)]
pub(crate) struct Outcome(Arc<AtomicU8>);

const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;

impl Outcome {
    /// `None`: the peer has not decided yet.
    #[cfg(feature = "tokio")]
    pub(crate) fn get(&self) -> Option<Result<(), Error>> {
        match self.0.load(Ordering::Acquire) {
            ACCEPTED => Some(Ok(())),
            REFUSED => Some(Err(Error::RotationRefused)),
            _ => None,
        }
    }
}

impl Sender {
    /// Asks for a change of this party's identity, which the next update carries. One at a time.
    pub(crate) fn request_rotation(&mut self, next: Identity) -> Result<Outcome, Error> {
        self.check_failed()?;
        if self.closed && self.peer_closed {
            return Err(ApiMisuse::Closed.into());
        }
        if self.rotation.is_some() {
            return Err(ApiMisuse::RotationOutstanding.into());
        }
        self.session.group.check_identity(&next)?;
        let outcome = Outcome::default();
        self.rotation = Some(Rotation { identity: next, outcome: outcome.clone() });
        self.updates.want();
        Ok(outcome)
    }

    /// The peer has decided.
    pub(super) fn finish_rotation(&mut self, accepted: bool) {
        let counters = &self.shared.counters;
        let (counter, outcome) = match accepted {
            true => (&counters.rotations, ACCEPTED),
            false => (&counters.refused_rotations, REFUSED),
        };
        counter.add(1);
        if let Some(rotation) = self.rotation.take() {
            rotation.outcome.0.store(outcome, Ordering::Release);
        }
    }

    /// The peer does not accept the identity in the outstanding update. The wish to update stays, and
    /// goes out without it.
    pub(super) fn handle_update_refused(&mut self, epoch: u64) -> Result<(), Error> {
        let expected = match self.updates.waiting() {
            Some(expected) if self.session.group.is_rotating() => expected,
            // Nobody can keep this party from renewing its keys.
            _ => {
                let name = TwoPartyMessageType::UpdateRefused.name();
                return Err(PeerMisbehaved::UnexpectedMessage(name).into());
            }
        };
        if epoch != expected {
            return Err(PeerMisbehaved::WrongEpoch { expected, got: epoch }.into());
        }
        self.session.drop_update()?;
        // From here on it must not be sent as a request.
        self.session.persist()?;
        self.updates.restart();
        self.finish_rotation(false);
        Ok(())
    }

    /// Tells the peer that it stays who it was. An own update that crossed is dropped already.
    pub(super) fn refuse_update(
        &mut self,
        reason: AuthenticationError,
        out: &mut dyn Output,
    ) -> Result<(), Error> {
        // A connection that was superseded decides nothing any more.
        self.session.persist()?;
        let epoch = self.session.group.epoch().checked_add(1);
        let epoch = epoch.ok_or(CryptoError::Internal("the epoch"))?;
        self.send_message(&TwoPartyMessage::UpdateRefused { epoch }, out)?;
        self.shared.counters.refused_peer_rotations.add(1);
        self.refused = Some(reason);
        Ok(())
    }

    /// Asks the authentication service about the peer again when it is time to.
    pub(super) fn handle_revisit(&mut self, passed: Instant, now: Time) -> Result<(), Error> {
        let Some(interval) = self.config.revisit_interval else {
            return Ok(());
        };
        if self.revisit.is_some_and(|deadline| deadline <= passed) {
            self.session.revisit(&self.config, now)?;
            self.revisit = passed.max(now.monotonic).checked_add(interval);
        }
        Ok(())
    }

    /// Why the peer was last refused a change of its identity; given once.
    pub(crate) fn take_refusal(&mut self) -> Option<AuthenticationError> {
        self.refused.take()
    }

    /// Who this party is.
    pub(crate) fn identity(&self) -> &Identity {
        self.session.group.identity()
    }
}
