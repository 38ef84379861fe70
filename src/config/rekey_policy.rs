//! [`RekeyPolicy`]: when a party updates by itself.

use std::time::Duration;

use crate::error::ConfigError;

/// When a party renews its key material by itself (CH-06).
///
/// Whatever comes first starts an update: bytes or records in both directions together since this
/// party's own last update, or time in which application data moved. Each party heals only through
/// an update of its own, so both have a policy. Far above any of it lies the limit of the AEAD
/// (RFC 8446, section 5.5), at which the connection fails rather than go on. A party that has closed
/// its own direction updates only when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RekeyPolicy {
    /// Application bytes between two own updates. Default: 1 GiB, at which updates cost less than
    /// a thousandth of what encryption costs.
    pub bytes: u64,
    /// Records between two own updates. Default: 2^20, a twentieth of what AES-GCM allows.
    pub records: u64,
    /// Time between two own updates while application data moves; `None`: never for time alone.
    /// Default: two minutes, as WireGuard has it.
    pub interval: Option<Duration>,
}

impl RekeyPolicy {
    /// Updates only when asked, and when the limit of the AEAD comes near.
    pub fn manual() -> Self {
        Self { bytes: u64::MAX, records: u64::MAX, interval: None }
    }

    /// Sets the bytes between two own updates. At least 1.
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets the records between two own updates. At least 1.
    pub fn with_records(mut self, records: u64) -> Self {
        self.records = records;
        self
    }

    /// Sets the time between two own updates.
    pub fn with_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.interval = interval.into();
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.bytes == 0 || self.records == 0 || self.interval.is_some_and(|i| i.is_zero()) {
            return Err(ConfigError::OutOfRange("a rekey policy of zero would never send data"));
        }
        Ok(())
    }
}

impl Default for RekeyPolicy {
    fn default() -> Self {
        Self { bytes: 1 << 30, records: 1 << 20, interval: Some(Duration::from_secs(120)) }
    }
}
