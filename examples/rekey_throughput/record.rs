//! What was measured. Its memory does not grow with the run; the rows of the CSV go to their file.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::{CreationError, Histogram};

use crate::connection::Side;

/// Times are told apart up to this, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// A run is divided into intervals of a tenth of a second, or into this many longer ones.
const MAX_INTERVALS: u32 = 50;

/// One rekey, as the end saw it that asked for it.
pub(crate) struct Rekey {
    /// The number of the connection.
    pub(crate) connection: usize,
    pub(crate) side: Side,
    pub(crate) completed: Instant,
    pub(crate) time: Duration,
    /// `None` without data.
    pub(crate) stall: Option<Duration>,
    /// It crossed an update of the other side.
    pub(crate) crossed: bool,
}

/// All rekeys of a run.
#[derive(Clone)]
pub(crate) struct Record {
    /// Time per rekey, in nanoseconds.
    pub(crate) times: Histogram<u64>,
    /// Stall of a rekey, in nanoseconds.
    pub(crate) stalls: Histogram<u64>,
    pub(crate) interval: Duration,
    /// How many rekeys were completed in each interval of the run.
    pub(crate) intervals: Vec<u64>,
}

/// Takes the rekeys of all connections.
pub(crate) struct Recorder {
    start: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    record: Record,
    csv: Option<BufWriter<File>>,
}

impl Recorder {
    /// For a run of `duration` from `start` on. Every rekey becomes a row of `csv`.
    pub(crate) fn new(
        start: Instant,
        duration: Duration,
        csv: Option<File>,
    ) -> Result<Self, CreationError> {
        let intervals = u32::try_from(duration.as_millis() / 100).unwrap_or(u32::MAX);
        let intervals = intervals.clamp(1, MAX_INTERVALS);
        let record = Record {
            times: Histogram::new_with_max(LONGEST, 3)?,
            stalls: Histogram::new_with_max(LONGEST, 3)?,
            interval: duration / intervals,
            intervals: vec![0; intervals as usize],
        };
        let csv = csv.map(BufWriter::new);
        Ok(Self { start, inner: Mutex::new(Inner { record, csv }) })
    }

    /// Writes the first row of the CSV.
    pub(crate) fn write_header(&self) -> io::Result<()> {
        match &mut self.lock().csv {
            Some(csv) => writeln!(csv, "completed_s,connection,asked_by,time_us,stall_us,crossed"),
            None => Ok(()),
        }
    }

    pub(crate) fn record(&self, rekey: &Rekey) -> io::Result<()> {
        let Rekey { connection, side, completed, time, stall, crossed } = rekey;
        let completed = completed.saturating_duration_since(self.start);
        let Inner { record, csv } = &mut *self.lock();
        record.times.saturating_record(nanoseconds(*time));
        if let Some(stall) = stall {
            record.stalls.saturating_record(nanoseconds(*stall));
        }
        let index = completed.as_nanos() / record.interval.as_nanos().max(1);
        // Those that were completed after the end count, but belong to no interval.
        if let Some(count) =
            usize::try_from(index).ok().and_then(|index| record.intervals.get_mut(index))
        {
            *count += 1;
        }
        let Some(csv) = csv else { return Ok(()) };
        let stall = stall.map(|stall| format!("{:.1}", microseconds(nanoseconds(stall))));
        writeln!(
            csv,
            "{:.6},{connection},{},{:.1},{},{}",
            completed.as_secs_f64(),
            side.name(),
            microseconds(nanoseconds(*time)),
            stall.unwrap_or_default(),
            u8::from(*crossed),
        )
    }

    /// Writes what is left of the CSV, and gives the record.
    pub(crate) fn finish(&self) -> io::Result<Record> {
        let Inner { record, csv } = &mut *self.lock();
        if let Some(csv) = csv {
            csv.flush()?;
        }
        Ok(record.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Rekeys per second in each interval, with the middle of the interval in seconds.
    pub(crate) fn rates(&self) -> impl Iterator<Item = (f64, f64)> {
        let interval = self.interval.as_secs_f64();
        let rate = move |(number, count): (usize, &u64)| {
            ((number as f64 + 0.5) * interval, *count as f64 / interval)
        };
        self.intervals.iter().enumerate().map(rate)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds in microseconds.
pub(crate) fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}
