//! The multicast mode over streams: what arrives, whatever the streams do (MC-01 to MC-05).

#![allow(clippy::unwrap_used)]

#[path = "multicast/ending.rs"]
mod ending;
#[path = "multicast/hostile.rs"]
mod hostile;
#[path = "multicast/mesh.rs"]
mod mesh;
#[path = "multicast/recovery.rs"]
mod recovery;
#[path = "multicast/relayed.rs"]
mod relayed;
#[path = "multicast/silence.rs"]
mod silence;
#[path = "multicast/slow.rs"]
mod slow;
#[path = "multicast/world.rs"]
mod world;
