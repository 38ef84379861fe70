//! Ways to begin a connection: the work of both ends in memory.

use mls_channel::{HandshakeKind, MemoryStore};

use super::{manual_configs, micros, timed_repetitions};
use crate::{
    measure::Effort,
    report::{Goal, Report},
    support::{AES, Configs, Pair, Result},
    tls,
};

/// A handshake, and a rekey of one side.
pub(super) fn handshake_and_rekey(effort: Effort, report: &mut Report) -> Result<()> {
    let configs = Configs::new(AES)?;
    let manual = manual_configs()?;
    let tls_configs = tls::Configs::new()?;
    // Of the KeyPackages that are made for a run at most 1024 are kept.
    let repetitions = effort.amount(500);
    let [handshake, ahead, tls, rekey] = effort.alternate([
        &mut || timed_repetitions(repetitions, || Pair::establish(&configs).map(drop)),
        &mut || {
            let made = configs.key_packages();
            configs.make(&made, 2 * repetitions + 1)?;
            let handshake = || Pair::establish_with(&configs, &made).map(drop);
            let cost = timed_repetitions(repetitions, handshake)?;
            if made.is_empty() { Err("too few KeyPackages were made".into()) } else { Ok(cost) }
        },
        &mut || timed_repetitions(repetitions, || tls_configs.handshake().map(drop)),
        &mut || {
            let mut pair = Pair::establish(&manual)?;
            timed_repetitions(repetitions, || pair.rekey())
        },
    ])?;
    let [handshake, ahead, tls, rekey] =
        [handshake, ahead, tls, rekey].map(|it| micros(&it, repetitions));
    report.add("handshake / TLS handshake", "us", handshake, tls, Goal::AtMost(1.6));
    let name = "handshake, KeyPackage made ahead / TLS handshake";
    report.add(name, "us", ahead, tls, Goal::AtMost(1.35));
    report.add("rekey / TLS handshake", "us", rekey, tls, Goal::AtMost(0.9));
    Ok(())
}

/// A handshake with a session of an earlier connection, both ends' sessions in memory. Ours renews
/// the keys of both ends, TLS does so with a Diffie-Hellman exchange.
pub(super) fn resumption(effort: Effort, report: &mut Report) -> Result<()> {
    let full_configs = Configs::new(AES)?;
    let configs = Configs::new(AES)?.with_stores(MemoryStore::default(), MemoryStore::default())?;
    let tls_configs = tls::Configs::resuming()?;
    let resume = || {
        let pair = Pair::establish(&configs)?;
        match pair.initiator.handshake_kind() {
            Some(HandshakeKind::Resumed) => Ok(()),
            _ => Err("the session was not resumed".into()),
        }
    };
    let resume_tls = || match tls_configs.handshake()? {
        rustls::HandshakeKind::Resumed => Ok(()),
        _ => Err("the TLS session was not resumed".into()),
    };
    // The sessions.
    Pair::establish(&configs)?;
    tls_configs.handshake()?;
    let repetitions = effort.amount(1_000);
    let [resumed, tls, full] = effort.alternate([
        &mut || timed_repetitions(repetitions, resume),
        &mut || timed_repetitions(repetitions, resume_tls),
        &mut || timed_repetitions(repetitions, || Pair::establish(&full_configs).map(drop)),
    ])?;
    let [resumed, tls, full] = [resumed, tls, full].map(|it| micros(&it, repetitions));
    report.add("resumption / TLS resumption", "us", resumed, tls, Goal::None);
    report.add("resumption / full handshake", "us", resumed, full, Goal::None);
    Ok(())
}
