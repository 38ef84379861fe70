//! What an application is told.

use bytes::Bytes;

use super::universe::MemberIndex;
use crate::error::Error;

/// What has happened in a universe.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DmlsEvent {
    /// Application data.
    Message {
        /// Who sent it.
        from: MemberIndex,
        /// The data.
        data: Bytes,
    },
    /// This party has joined a member's Send Group, and receives from it.
    Joined {
        /// Whose.
        member: MemberIndex,
    },
    /// A Send Group is in a new epoch.
    EpochChanged {
        /// Whose: the one who committed, who may be this party.
        member: MemberIndex,
        /// The epoch.
        epoch: u64,
        /// The member has renewed its own keys (a DMLS Update).
        update: bool,
        /// The members whose updates it has incorporated (a DMLS Commit).
        incorporated: Vec<MemberIndex>,
    },
    /// A member has acknowledged nothing for half of the time after which it is removed.
    Lagging {
        /// Who.
        member: MemberIndex,
    },
    /// A member was removed from the universe (DM-12). Nothing it sends is delivered any more.
    Removed {
        /// Who.
        member: MemberIndex,
        /// Who removed it first, as far as this party has seen.
        by: MemberIndex,
    },
    /// This party was removed. The session is over.
    RemovedSelf {
        /// Who did it.
        by: MemberIndex,
    },
    /// A member breaks the rules. Nothing of its Send Group is processed any more (DM-19); the
    /// application may remove it.
    Refused {
        /// Who.
        member: MemberIndex,
        /// How.
        error: Error,
    },
    /// A frame that somebody has passed on as a member's is not good, and was dropped. If the member did
    /// make it, nothing that follows can be processed; otherwise the genuine one still comes.
    Discarded {
        /// Whose frame it was said to be.
        member: MemberIndex,
        /// What is wrong with it.
        error: Error,
    },
    /// Two members know different versions of one epoch of a third, or one of them has refused a frame
    /// of it: either that one shows different frames to different members, or the reporter lies. The
    /// epoch is not incorporated.
    Disagreement {
        /// Whose Send Group it is about.
        about: MemberIndex,
        /// Who knows another version than this party.
        reporter: MemberIndex,
    },
}

// The data is the application's secret.
impl std::fmt::Debug for DmlsEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message { from, data } => f
                .debug_struct("Message")
                .field("from", from)
                .field("len", &data.len())
                .finish_non_exhaustive(),
            Self::Joined { member } => f.debug_struct("Joined").field("member", member).finish(),
            Self::EpochChanged { member, epoch, update, incorporated } => f
                .debug_struct("EpochChanged")
                .field("member", member)
                .field("epoch", epoch)
                .field("update", update)
                .field("incorporated", incorporated)
                .finish(),
            Self::Lagging { member } => f.debug_struct("Lagging").field("member", member).finish(),
            Self::Removed { member, by } => {
                f.debug_struct("Removed").field("member", member).field("by", by).finish()
            }
            Self::RemovedSelf { by } => f.debug_struct("RemovedSelf").field("by", by).finish(),
            Self::Refused { member, error } => {
                f.debug_struct("Refused").field("member", member).field("error", error).finish()
            }
            Self::Discarded { member, error } => {
                f.debug_struct("Discarded").field("member", member).field("error", error).finish()
            }
            Self::Disagreement { about, reporter } => f
                .debug_struct("Disagreement")
                .field("about", about)
                .field("reporter", reporter)
                .finish(),
        }
    }
}
