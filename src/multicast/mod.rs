//! The multicast mode: a member of a universe over many streams (MC-01 to MC-05).
//!
//! [`Multicast`] is the machine of `dmls` with streams: `driver` is the task that owns the session,
//! `legs` what it knows of its legs, `task` and `io` a leg's own task, `leg` the protocol of a leg
//! without IO. `bootstrap` brings a universe together over legs. [`Relay`] is no member: it copies
//! what it cannot read.

mod bootstrap;
mod driver;
mod handle;
mod io;
mod leg;
mod legs;
mod options;
mod queue;
mod relay;
mod ring;
mod sends;
mod sink;
mod task;

pub use bootstrap::MulticastConfig;
pub use handle::{Multicast, MulticastReceiver, MulticastSender};
pub use options::{Backoff, LegEnd, LegPeer, MulticastEvent, MulticastOptions, SlowLeg};
pub use relay::{Relay, RelayOptions};
