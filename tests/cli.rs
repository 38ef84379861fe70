//! The program `mls-channel` as its users run it: every kind of trust, every refusal with its message
//! and its exit code.

#![allow(clippy::unwrap_used)]

#[path = "cli/channel.rs"]
mod channel;
#[path = "cli/first_use.rs"]
mod first_use;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/setup.rs"]
mod setup;
#[path = "cli/x509.rs"]
mod x509;
