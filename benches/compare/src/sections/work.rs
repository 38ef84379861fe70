//! What a rekey costs beside other ways to compute the same, all in memory and of both ends.

use super::{manual_configs, micros, timed_repetitions};
use crate::{
    measure::Effort,
    mls_rs,
    primitives::Members,
    report::{Goal, Report},
    support::{Pair, Result},
};

/// The goals are for the MLS work, which is what the peers do. The whole rekey of a channel, with its
/// records and messages but without IO, stands beside it.
pub(super) fn rekey_work(effort: Effort, report: &mut Report) -> Result<()> {
    let configs = manual_configs()?;
    let repetitions = effort.amount(1_000);
    let [ours, channel, primitives, mls_rs] = effort.alternate([
        &mut || {
            let mut pair = Pair::establish(&configs)?;
            timed_repetitions(repetitions, || pair.update_groups())
        },
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
    let [ours, channel, primitives, mls_rs] =
        [ours, channel, primitives, mls_rs].map(|samples| micros(&samples, repetitions));
    let mut add = |name, ours, peer, goal| report.add(name, "us", ours, peer, goal);
    add("rekey, MLS work / its primitives", ours, primitives, Goal::AtMost(1.15));
    add("rekey, MLS work / mls-rs with AWS-LC", ours, mls_rs, Goal::AtMost(1.0));
    add("rekey with its records / its primitives", channel, primitives, Goal::None);
    add("rekey with its records / mls-rs with AWS-LC", channel, mls_rs, Goal::None);
    Ok(())
}
