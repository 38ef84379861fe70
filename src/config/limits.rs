//! [`Limits`]: what a peer can make this party spend.

use std::time::Duration;

use crate::{
    error::ConfigError,
    wire::{MAX_EARLY_DATA, MIN_MESSAGE_SIZE},
};

/// Bounds on what a peer can make this party spend (CH-09).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Time from the first byte to the confirmed handshake. Default: 10 s.
    pub handshake_timeout: Duration,
    /// Longest message of the two-party profile that is accepted, in bytes. Default: 64 KiB, room
    /// for two post-quantum commits. At least 4096. A ServerHello has the certificates of both parties
    /// in it, and an update those of its sender.
    pub max_message_size: u32,
    /// How many updates the peer may send in a row without application data in either direction,
    /// counting only those that follow the one before sooner than `update_interval`.
    /// Default: 256.
    pub max_updates_without_data: u32,
    /// An update that comes later than this after the one before is never held against the peer.
    /// Default: 1 s.
    pub update_interval: Duration,
    /// How much is read ahead while the application does not read, so that control messages behind it
    /// are seen: application bytes, and what is kept besides for each record. Default: 1 MiB.
    pub read_ahead: usize,
    /// Sealed bytes that may wait for the socket before a write waits. Default: 256 KiB.
    pub write_buffer: usize,
    /// Longest early data that a responder takes with the request for a resumption, in bytes; longer
    /// early data is refused as a whole. At most 1 MiB. Default: 0, all is refused.
    pub max_early_data: u32,
}

impl Limits {
    /// Sets the time for the handshake.
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Sets the longest message, in bytes.
    pub fn with_max_message_size(mut self, bytes: u32) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Sets how many updates may come in a row without data.
    pub fn with_max_updates_without_data(mut self, updates: u32) -> Self {
        self.max_updates_without_data = updates;
        self
    }

    /// Sets the interval after which an update counts as no flood.
    pub fn with_update_interval(mut self, interval: Duration) -> Self {
        self.update_interval = interval;
        self
    }

    /// Sets how many application bytes are read ahead.
    pub fn with_read_ahead(mut self, bytes: usize) -> Self {
        self.read_ahead = bytes;
        self
    }

    /// Sets how many sealed bytes may wait for the socket.
    pub fn with_write_buffer(mut self, bytes: usize) -> Self {
        self.write_buffer = bytes;
        self
    }

    /// Sets how much early data a responder takes, in bytes.
    pub fn with_max_early_data(mut self, bytes: u32) -> Self {
        self.max_early_data = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.handshake_timeout.is_zero() {
            return Err(ConfigError::OutOfRange("the handshake timeout is zero"));
        }
        if self.max_message_size < MIN_MESSAGE_SIZE || self.max_message_size >= 1 << 24 {
            return Err(ConfigError::OutOfRange("max_message_size must be 4096 to 2^24 - 1"));
        }
        if self.write_buffer == 0 {
            return Err(ConfigError::OutOfRange("the write buffer is zero"));
        }
        if self.max_early_data > MAX_EARLY_DATA {
            return Err(ConfigError::OutOfRange("max_early_data must be at most 1 MiB"));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            max_message_size: 64 * 1024,
            max_updates_without_data: 256,
            update_interval: Duration::from_secs(1),
            read_ahead: 1024 * 1024,
            write_buffer: 256 * 1024,
            max_early_data: 0,
        }
    }
}
