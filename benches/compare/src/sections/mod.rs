//! What is measured.

mod dmls;
mod handshake;
mod memory;
mod multicast;
mod pause;
mod post_quantum;
mod rekey;
mod traffic;
mod work;

use mls_channel::RekeyPolicy;
use tokio::runtime::{Builder, Runtime};

use crate::{
    measure::{Cost, Effort, Samples, Stopwatch},
    report::Report,
    support::{AES, Configs, Result},
};

type Section = fn(Effort, &mut Report) -> Result<()>;

/// The sections by name, in the order in which they are measured.
pub(crate) const SECTIONS: &[(&str, Section)] = &[
    ("bulk", traffic::bulk_over_tcp),
    ("bulk-on-many", traffic::bulk_on_many),
    ("round-trip", traffic::round_trips),
    ("handshake", handshake::handshake_and_rekey),
    ("post-quantum", post_quantum::hybrid_handshake),
    ("suites", post_quantum::every_suite),
    ("resumption", handshake::resumption),
    ("work", work::rekey_work),
    ("rekeys", rekey::rekeys_over_tcp),
    ("stores", rekey::stores),
    ("bulk-while-rekeying", traffic::bulk_while_rekeying),
    ("pause", pause::pause_of_a_stream),
    ("dmls", dmls::dmls),
    ("multicast", multicast::multicast),
    ("memory", memory::idle_connections),
];

fn timed_repetitions(repetitions: usize, mut work: impl FnMut() -> Result<()>) -> Result<Cost> {
    for _ in 0..warm_up(repetitions) {
        work()?;
    }
    let stopwatch = Stopwatch::start();
    for _ in 0..repetitions {
        work()?;
    }
    Ok(stopwatch.stop())
}

/// Time of the processor of one repetition, in microseconds.
fn micros(samples: &Samples, repetitions: usize) -> f64 {
    samples.cpu() / repetitions as f64 * 1e6
}

/// How much of an amount of work comes before the measurement, on the same connection.
fn warm_up(amount: usize) -> usize {
    (amount / 8).max(1)
}

/// Ends that update when they are told to.
fn manual_configs() -> Result<Configs> {
    let manual = RekeyPolicy::manual();
    Configs::with_policies(AES, manual, manual)
}

fn one_thread() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn two_threads() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
