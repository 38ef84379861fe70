//! How a multicast behaves, and what it tells.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;

use super::io::{KeepAlive, Patience};
use crate::{
    dmls::{DmlsEvent, MemberIndex},
    error::Error,
};

/// What is done when a leg does not take its frames as fast as they come (MC-02).
///
/// A frame that finds the leg's queue full stays with the session, which keeps it until everybody
/// has acknowledged it, up to [`DmlsPolicy::max_kept_bytes`](crate::DmlsPolicy::max_kept_bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowLeg {
    /// The leg catches up when it has room, from what the session keeps. It delays nobody. The
    /// default: most legs that are slow are so for a while. Who needs a frame that is no longer kept
    /// is lost, and removed in the end.
    #[default]
    CatchUp,
    /// Messages of the application wait until every leg has room: the slowest sets the pace. On raw legs
    /// that may be a stranger's.
    Wait,
    /// The leg is given up. The member may come back on another one.
    Drop,
    /// Messages of the application are refused with
    /// [`ApiMisuse::SlowLeg`](crate::error::ApiMisuse::SlowLeg) as long as a leg has no room or is
    /// catching up, after it has come back for example; nobody gets them.
    Error,
}

/// How a [`Multicast`](super::Multicast) behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MulticastOptions {
    /// What is done with a slow leg.
    pub slow_leg: SlowLeg,
    /// Bytes that wait for one leg, and 128 for each frame; one frame more may. Default: 1 MiB.
    pub leg_queue: usize,
    /// Bytes that came over all legs together, and 128 for each frame, that were not processed. When there are more, legs take
    /// turns, each of which holds one frame more. Default: 1 MiB.
    pub leg_input: usize,
    /// Bytes of messages that the application sends and that were not protected yet. Default: 1 MiB.
    pub send_queue: usize,
    /// Bytes of messages and events that the application has not taken. When there are more, nothing
    /// is received, acknowledgements included. Default: 4 MiB.
    pub event_queue: usize,
    /// How long the other end of a leg may take to say who it is. Default: 10 s.
    pub hello_timeout: Duration,
    /// How long leaving may take, for what is still to be written and for the others' goodbyes.
    /// Default: 5 s.
    pub goodbye_timeout: Duration,
    /// A leg over which nothing has come for so long is asked whether its other end is there: a transport
    /// can die without saying so. `None`: it is not. Default: `None`.
    pub keep_alive_interval: Option<Duration>,
    /// How long the answer may take, before the leg is [`LegEnd::Broken`], with
    /// [`TimedOut`](io::ErrorKind::TimedOut). An end that has no time to process what comes says every 10 s
    /// that it is there, so this should be longer. Default: 20 s.
    pub keep_alive_timeout: Duration,
}

/// The pauses between attempts to bring a leg back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The first pause. Default: 100 ms.
    pub first: Duration,
    /// Pauses double up to this one. Default: 30 s.
    pub longest: Duration,
}

/// Who is at the other end of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // there is nobody else
pub enum LegPeer {
    /// It has not said who it is.
    Unknown,
    /// A member. On a raw leg this is what it says; on an [`MlsStream`](crate::MlsStream) it is true.
    Member(MemberIndex),
    /// A relay.
    Relay,
}

/// How a leg has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LegEnd {
    /// The other end has left, with a goodbye. What was on its way to it was written, as far as
    /// [`MulticastOptions::goodbye_timeout`] allows. It does not come back by itself.
    Goodbye,
    /// This party has left.
    Left,
    /// The transport has failed or ended, or what came over it was no leg. An [`Error`] of this crate
    /// may be inside, see [`Error::from_io`].
    Broken(Arc<io::Error>),
    /// What came over it was well-formed, and forbidden.
    Refused(Error),
    /// It was too slow, and [`SlowLeg::Drop`] was asked for.
    Slow,
    /// There are newer legs with the same member.
    Replaced,
}

/// What a [`Multicast`](super::Multicast) tells.
#[derive(Clone)]
#[non_exhaustive]
pub enum MulticastEvent {
    /// Application data.
    Message {
        /// The member who has protected it; MLS proves that.
        from: MemberIndex,
        /// The data.
        data: Bytes,
    },
    /// Something else has happened in the universe.
    Universe(DmlsEvent),
    /// A leg is there: both ends have said what they want, and are sent it.
    LegUp {
        /// With whom.
        peer: LegPeer,
    },
    /// A leg has ended.
    LegDown {
        /// With whom.
        peer: LegPeer,
        /// How.
        end: LegEnd,
    },
}

impl Default for MulticastOptions {
    fn default() -> Self {
        Self {
            slow_leg: SlowLeg::default(),
            leg_queue: 1 << 20,
            leg_input: 1 << 20,
            send_queue: 1 << 20,
            event_queue: 4 << 20,
            hello_timeout: Duration::from_secs(10),
            goodbye_timeout: Duration::from_secs(5),
            keep_alive_interval: None,
            keep_alive_timeout: Duration::from_secs(20),
        }
    }
}

impl MulticastOptions {
    pub(super) fn patience(&self) -> Patience {
        let timeout = self.keep_alive_timeout;
        Patience {
            hello: self.hello_timeout,
            goodbye: self.goodbye_timeout,
            keep_alive: self.keep_alive_interval.map(|interval| KeepAlive { interval, timeout }),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The pause after so many attempts in vain.
    pub(super) fn pause(&self, attempts: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(attempts)).min(self.longest)
    }
}

impl fmt::Display for LegEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goodbye => f.write_str("the other end has left"),
            Self::Left => f.write_str("this party has left"),
            Self::Broken(error) => write!(f, "broken: {error}"),
            Self::Refused(error) => write!(f, "refused: {error}"),
            Self::Slow => f.write_str("too slow"),
            Self::Replaced => f.write_str("replaced by newer legs"),
        }
    }
}

// The data is the application's secret.
impl fmt::Debug for MulticastEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { from, data } => f
                .debug_struct("Message")
                .field("from", from)
                .field("len", &data.len())
                .finish_non_exhaustive(),
            Self::Universe(event) => f.debug_tuple("Universe").field(event).finish(),
            Self::LegUp { peer } => f.debug_struct("LegUp").field("peer", peer).finish(),
            Self::LegDown { peer, end } => {
                f.debug_struct("LegDown").field("peer", peer).field("end", end).finish()
            }
        }
    }
}
