//! Clocks, medians and alternating runs.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::support::Result;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Runs of each candidate that count.
    runs: usize,
    /// By what amounts of work are divided.
    divisor: usize,
}

/// A measurement that has begun.
pub(crate) struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// Time of the processor of all threads of this process, user and system.
    pub(crate) cpu: Duration,
}

/// What the runs of one candidate took.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Cost>);

/// One run of a candidate. It prepares and warms up what it needs, and measures the rest.
pub(crate) type Run<'a> = &'a mut dyn FnMut() -> Result<Cost>;

impl Effort {
    pub(crate) const FULL: Self = Self { runs: 9, divisor: 1 };
    pub(crate) const SMOKE: Self = Self { runs: 1, divisor: 1000 };

    /// An amount of work.
    pub(crate) fn amount(self, full: usize) -> usize {
        (full / self.divisor).max(1)
    }

    /// Runs all candidates in turn, first once without counting, and gives what each took.
    pub(crate) fn alternate<const N: usize>(
        self,
        mut candidates: [Run<'_>; N],
    ) -> Result<[Samples; N]> {
        let mut samples = std::array::from_fn(|_| Samples::default());
        for run in 0..=self.runs {
            for (candidate, samples) in candidates.iter_mut().zip(&mut samples) {
                let cost = candidate()?;
                if run > 0 {
                    samples.0.push(cost);
                }
            }
        }
        Ok(samples)
    }
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    pub(crate) fn stop(self) -> Cost {
        Cost { wall: self.wall.elapsed(), cpu: cpu_time().saturating_sub(self.cpu) }
    }
}

impl Samples {
    /// Median time by the clock on the wall, in seconds.
    pub(crate) fn wall(&self) -> f64 {
        median(self.0.iter().map(|cost| cost.wall.as_secs_f64()).collect())
    }

    /// Median time of the processor, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        median(self.0.iter().map(|cost| cost.cpu.as_secs_f64()).collect())
    }
}

fn cpu_time() -> Duration {
    // The time of a process is never negative.
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

/// The value in the middle, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(value), _) => (values[middle - 1] + value) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_in_the_middle() {
        assert!(median(Vec::new()).is_nan());
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 4.0]), 4.0);
        assert_eq!(median(vec![8.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn candidates_alternate_and_the_first_run_of_each_does_not_count() {
        let order = std::cell::RefCell::new(Vec::new());
        let cost = |seconds| Cost { wall: Duration::from_secs(seconds), cpu: Duration::ZERO };
        let run = |name, seconds| {
            order.borrow_mut().push(name);
            Ok(cost(if order.borrow().len() <= 2 { 100 } else { seconds }))
        };
        let effort = Effort { runs: 2, divisor: 1 };
        let [a, b] = effort.alternate([&mut || run("a", 1), &mut || run("b", 2)]).unwrap();
        assert_eq!(*order.borrow(), ["a", "b", "a", "b", "a", "b"]);
        assert_eq!((a.wall(), b.wall()), (1.0, 2.0));
    }

    #[test]
    fn work_shows_as_time_of_the_processor() {
        let stopwatch = Stopwatch::start();
        let mut value = 1_u64;
        // However fast the machine, this ends when the clock of the process has moved.
        while cpu_time() <= stopwatch.cpu {
            value = std::hint::black_box(value).wrapping_mul(3);
        }
        assert!(stopwatch.stop().cpu > Duration::ZERO);
    }
}
