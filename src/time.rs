//! A reading of both clocks. The machines never read a clock: time is an argument.

use std::time::{Duration, Instant, SystemTime};

/// What two clocks said at one moment: one that never jumps, for intervals, and the calendar, for
/// lifetimes of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Time {
    /// The clock that never goes back.
    pub monotonic: Instant,
    /// The calendar.
    pub calendar: SystemTime,
}

impl Time {
    /// Reads the clocks of the operating system.
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), calendar: SystemTime::now() }
    }

    /// A reading made elsewhere, by a simulated clock for example.
    pub fn at(monotonic: Instant, calendar: SystemTime) -> Self {
        Self { monotonic, calendar }
    }

    /// This moment, and a while later.
    pub fn after(self, duration: Duration) -> Self {
        Self { monotonic: self.monotonic + duration, calendar: self.calendar + duration }
    }
}
