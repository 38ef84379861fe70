//! What other cipher suites cost.

use mls_channel::{CipherSuite, CryptoProvider, RekeyPolicy, Time};

use super::{micros, timed_repetitions};
use crate::{
    measure::Effort,
    report::{Goal, Report},
    support::{AES, Configs, Pair, Result},
    tls,
};

const HYBRID: CipherSuite = CipherSuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;

/// A handshake with ML-KEM and X25519 together, ours and that of TLS.
pub(super) fn hybrid_handshake(effort: Effort, report: &mut Report) -> Result<()> {
    let configs = Configs::new(HYBRID)?;
    let manual = manual(HYBRID)?;
    let tls_configs = tls::Configs::hybrid()?;
    let classical_tls = tls::Configs::new()?;
    let repetitions = effort.amount(500);
    let [handshake, rekey, tls, classical] = effort.alternate([
        &mut || timed_repetitions(repetitions, || Pair::establish(&configs).map(drop)),
        &mut || {
            let mut pair = Pair::establish(&manual)?;
            timed_repetitions(repetitions, || pair.rekey())
        },
        &mut || timed_repetitions(repetitions, || tls_configs.handshake().map(drop)),
        &mut || timed_repetitions(repetitions, || classical_tls.handshake().map(drop)),
    ])?;
    let [handshake, rekey, tls, classical] =
        [handshake, rekey, tls, classical].map(|it| micros(&it, repetitions));
    let name = "hybrid post-quantum handshake / TLS with X25519MLKEM768";
    report.add(name, "us", handshake, tls, Goal::AtMost(2.2));
    report.add("hybrid post-quantum rekey / the same TLS", "us", rekey, tls, Goal::None);
    report.add("TLS with X25519MLKEM768 / with X25519", "us", tls, classical, Goal::None);
    Ok(())
}

/// A handshake and a rekey with every suite, beside those of the suite 0x0001: time of the processor
/// of both ends, and bytes in both directions.
pub(super) fn every_suite(effort: Effort, report: &mut Report) -> Result<()> {
    let repetitions = effort.amount(50);
    let (first, first_manual) = (Configs::new(AES)?, manual(AES)?);
    let [first_handshake_bytes, first_rekey_bytes] = bytes(&first, &first_manual)?;
    for suite in CryptoProvider::default().cipher_suites() {
        let (configs, manual) = (Configs::new(suite)?, manual(suite)?);
        let [handshake, first_handshake, rekey, first_rekey] = effort.alternate([
            &mut || timed_repetitions(repetitions, || Pair::establish(&configs).map(drop)),
            &mut || timed_repetitions(repetitions, || Pair::establish(&first).map(drop)),
            &mut || {
                let mut pair = Pair::establish(&manual)?;
                timed_repetitions(repetitions, || pair.rekey())
            },
            &mut || {
                let mut pair = Pair::establish(&first_manual)?;
                timed_repetitions(repetitions, || pair.rekey())
            },
        ])?;
        let [handshake, first_handshake, rekey, first_rekey] =
            [handshake, first_handshake, rekey, first_rekey].map(|it| micros(&it, repetitions));
        let [handshake_bytes, rekey_bytes] = bytes(&configs, &manual)?;
        let number = format!("{:#06x}", suite.id());
        let mut row = |what: &str, unit, ours, peer| {
            report.add(format!("{number} {what} / 0x0001"), unit, ours, peer, Goal::None);
        };
        row("handshake", "us", handshake, first_handshake);
        row("rekey", "us", rekey, first_rekey);
        row("handshake", "B", handshake_bytes, first_handshake_bytes);
        row("rekey", "B", rekey_bytes, first_rekey_bytes);
    }
    Ok(())
}

fn manual(suite: CipherSuite) -> Result<Configs> {
    Configs::with_policies(suite, RekeyPolicy::manual(), RekeyPolicy::manual())
}

/// Bytes of a handshake and of a rekey, both directions together.
fn bytes(configs: &Configs, manual: &Configs) -> Result<[f64; 2]> {
    let mut pair = Pair::begin(configs, &configs.key_packages())?;
    let handshake = carried(&mut pair)?;
    let mut pair = Pair::establish(manual)?;
    pair.initiator.rekey(&mut pair.to_responder)?;
    Ok([handshake as f64, carried(&mut pair)? as f64])
}

/// Carries bytes to and fro until both ends are silent, and counts them.
fn carried(pair: &mut Pair) -> Result<usize> {
    let now = Time::now();
    let mut carried = 0;
    while !pair.to_responder.is_empty() || !pair.to_initiator.is_empty() {
        let Pair { initiator, responder, to_responder, to_initiator } = pair;
        carried += to_responder.len();
        while responder.handle_input(now, to_responder, to_initiator)?.is_some() {}
        carried += to_initiator.len();
        while initiator.handle_input(now, to_initiator, to_responder)?.is_some() {}
    }
    Ok(carried)
}
