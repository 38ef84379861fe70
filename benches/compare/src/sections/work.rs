//! What a rekey costs beside other ways to compute the same, all in memory and of both ends.

use super::{manual_configs, micros, timed_repetitions};
use crate::{
    measure::Effort,
    mls_rs,
    primitives::Members,
    report::{Goal, Report},
    support::{Pair, Result},
};

/// The group of a channel is not public. So ours is the whole rekey of a channel without IO, with its
/// records and the check of the peer, and the peers are spared these.
pub(super) fn rekey_work(effort: Effort, report: &mut Report) -> Result<()> {
    let configs = manual_configs()?;
    let repetitions = effort.amount(1_000);
    let [ours, primitives, mls_rs] = effort.alternate([
        &mut || {
            let mut pair = Pair::establish(&configs)?;
            timed_repetitions(repetitions, || pair.rekey())
        },
        &mut || {
            let members = Members::new()?;
            timed_repetitions(repetitions, || members.rekey())
        },
        &mut || {
            let mut pair = mls_rs::pair()?;
            timed_repetitions(repetitions, || pair.rekey())
        },
    ])?;
    let [ours, primitives, mls_rs] =
        [ours, primitives, mls_rs].map(|samples| micros(&samples, repetitions));
    let name = "rekey with its records";
    report.add(format!("{name} / its primitives"), "us", ours, primitives, Goal::AtMost(1.15));
    report.add(format!("{name} / mls-rs with AWS-LC"), "us", ours, mls_rs, Goal::AtMost(1.0));
    Ok(())
}
