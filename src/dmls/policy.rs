//! When to update, to incorporate, to acknowledge and to remove, and what may be kept (DM-16).

use std::time::Duration;

use crate::error::{ConfigError, Error};

/// Updates of one member that are kept because somebody has not acknowledged them. Further commits
/// of that member wait.
pub(super) const MAX_UNACKNOWLEDGED_UPDATES: usize = 64;

/// A member that keeps the rules does not make so many, removals aside.
pub(super) const OWN_UNACKNOWLEDGED_UPDATES: usize = MAX_UNACKNOWLEDGED_UPDATES / 2;

/// Messages after which an owner updates, whatever the policy says: a member that was restored turns
/// the ratchet of an epoch on from its beginning, and not for ever.
pub(super) const MAX_MESSAGES_OF_EPOCH: u32 = 1 << 15;

/// Frames that one Resend gets.
pub(super) const RESEND_BATCH: usize = 64;

/// Bytes of the same, unless one frame has more: asking costs little, so answering must not cost much.
pub(super) const RESEND_BYTES: usize = 1 << 20;

/// Longest wait between two repetitions, as a multiple of the first.
pub(super) const MAX_BACKOFF: u32 = 64;

/// What a member of a universe does by itself (DM-16).
///
/// Each number is a balance, which its description names; [`Default`] suits some hundred members who
/// are online most of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DmlsPolicy {
    /// Own messages between two own updates. Default: 1024, at which the update of a universe of a
    /// hundred members, some milliseconds, costs a few hundredths of what its messages cost. More
    /// than 32768 count as 32768.
    pub update_messages: u32,
    /// Time between two own updates; `None`: never for time alone. Default: ten minutes. Every member
    /// pays for every update, so this is longer than the two minutes of a channel of two. A member
    /// stops updating while another has 32 of its updates to acknowledge, so 32 of these should be
    /// longer than `remove_unacknowledged_after`.
    pub update_interval: Option<Duration>,
    /// Before a message is protected, updates of others are incorporated, but not sooner than this
    /// after the commit before. Default: 1 s, so that a fast sender does not commit for each message.
    pub incorporate_interval: Duration,
    /// How long an update waits to be incorporated until every member has acknowledged the same one.
    /// It keeps a member that shows others different commits from breaking Send Groups that import
    /// them (DM-19), and one that vanishes from leaving commits behind that refer to what others have
    /// not got; after this time healing is worth more. Default: 10 s.
    pub acknowledge_wait: Duration,
    /// How soon updates of others are acknowledged. Default: 1 s, in which several come together.
    pub acknowledge_updates_after: Duration,
    /// How soon other frames are acknowledged. Default: 10 s. An acknowledgement goes to everyone,
    /// and the sender keeps its frames as long.
    pub acknowledge_after: Duration,
    /// How long after a gap was seen the missing frames are asked for. Default: 200 ms, in which
    /// frames arrive that were merely overtaken.
    pub resend_after: Duration,
    /// A member that acknowledges nothing for this long, although there is something, is removed.
    /// Default: one hour. Until then its old keys are kept.
    pub remove_unacknowledged_after: Option<Duration>,
    /// A member that does not update for this long is removed: who has stolen its state reads on.
    /// Default: `None`, because a member that only receives need not update.
    pub remove_without_update_after: Option<Duration>,
    /// Longest frame that is sent and accepted, in bytes; the same for all members. At least 4096 and
    /// 1024 for each member, so that a commit fits that incorporates all of them. Default: 2 MiB.
    pub max_frame_size: usize,
    /// Frames of one member that wait for earlier ones or for those of others. Default: 1024.
    pub max_waiting_frames: usize,
    /// Bytes of the same. Default: 4 MiB.
    pub max_waiting_bytes: usize,
    /// Own frames that are kept for members that have not acknowledged them, in bytes. A member that
    /// needs one that is no longer kept is lost, and will be removed. Default: 16 MiB.
    pub max_kept_bytes: usize,
    /// Frames of all others that are kept for members that have not acknowledged them, in bytes, to be
    /// passed on if their sender cannot send them again. 0: none. Default: 32 MiB.
    pub max_forwarded_bytes: usize,
}

impl DmlsPolicy {
    /// Updates, incorporates and removes only when asked to. Acknowledges and resends all the same.
    pub fn manual() -> Self {
        Self {
            update_messages: u32::MAX,
            update_interval: None,
            incorporate_interval: Duration::MAX,
            remove_unacknowledged_after: None,
            remove_without_update_after: None,
            ..Self::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let out_of_range = |what| Err(ConfigError::OutOfRange(what).into());
        if self.update_messages == 0 {
            return out_of_range("update_messages must be at least 1");
        }
        if self.max_frame_size < 4096 || self.max_frame_size > 0xff_ff00 {
            return out_of_range("max_frame_size must be 4096 bytes to 16 MiB less 256 bytes");
        }
        if self.max_waiting_frames == 0 || self.max_waiting_bytes < self.max_frame_size {
            return out_of_range("at least one frame must be able to wait");
        }
        if self.max_kept_bytes < self.max_frame_size {
            return out_of_range("at least one frame must be kept");
        }
        let zero = [self.acknowledge_after, self.acknowledge_updates_after, self.resend_after]
            .iter()
            .chain(&self.update_interval)
            .chain(&self.remove_unacknowledged_after)
            .chain(&self.remove_without_update_after)
            .any(Duration::is_zero);
        if zero {
            return out_of_range("times must not be zero");
        }
        Ok(())
    }
}

impl Default for DmlsPolicy {
    fn default() -> Self {
        Self {
            update_messages: 1024,
            update_interval: Some(Duration::from_secs(600)),
            incorporate_interval: Duration::from_secs(1),
            acknowledge_wait: Duration::from_secs(10),
            acknowledge_updates_after: Duration::from_secs(1),
            acknowledge_after: Duration::from_secs(10),
            resend_after: Duration::from_millis(200),
            remove_unacknowledged_after: Some(Duration::from_secs(3600)),
            remove_without_update_after: None,
            max_frame_size: 2 << 20,
            max_waiting_frames: 1024,
            max_waiting_bytes: 4 << 20,
            max_kept_bytes: 16 << 20,
            max_forwarded_bytes: 32 << 20,
        }
    }
}
