//! Application data: throughput and round trips.

use futures::future::try_join_all;
use mls_channel::{MlsStream, RekeyPolicy};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{one_thread, timed_repetitions, two_threads, warm_up};
use crate::{
    measure::{Cost, Effort, Samples, Stopwatch},
    primitives::RecordKey,
    report::{Goal, Report},
    support::{
        AES, Configs, Result,
        traffic::{bulk, echo, tcp_pair},
    },
    tls,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a record holds (RFC 8446, section 5.1).
const RECORD: usize = 16 * KIB;
/// The type of the content and the tag.
const OVERHEAD: usize = 17;
/// Bytes of a message of the round trips.
const MESSAGE: usize = 64;
/// Connections of `bulk_on_many`: enough to keep both processors busy.
const CONNECTIONS: usize = 8;
/// Application data between two updates in `bulk_while_rekeying`.
const REKEY_EVERY: usize = 64 * MIB;

/// Throughput in one direction, with a task for each end on two threads.
pub(super) fn bulk_over_tcp(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = two_threads()?;
    let configs = Configs::new(AES)?;
    let tls_configs = tls::Configs::new()?;
    for (write_size, total, goal) in
        [(64 * KIB, 1024 * MIB, 1.25), (16 * KIB, 1024 * MIB, 1.10), (KIB, 256 * MIB, 1.0)]
    {
        let total = effort.amount(total);
        let [ours, tls, plain, aead] = effort.alternate([
            &mut || {
                runtime.block_on(async {
                    let (near, far) = tcp_pair().await?;
                    let (near, far) = configs.connect(near, far).await?;
                    timed_bulk(near, far, write_size, total).await
                })
            },
            &mut || {
                runtime.block_on(async {
                    let (near, far) = tcp_pair().await?;
                    let (near, far) = tls_configs.connect(near, far).await?;
                    timed_bulk(near, far, write_size, total).await
                })
            },
            &mut || {
                runtime.block_on(async {
                    let (near, far) = tcp_pair().await?;
                    timed_bulk(near, far, write_size, total).await
                })
            },
            &mut || timed_records(write_size.min(RECORD), total),
        ])?;
        let gigabytes = total as f64 / 1e9;
        let rate = |samples: &Samples| gigabytes / samples.wall();
        let cost = |samples: &Samples| samples.cpu() / gigabytes;
        let name = format!("bulk, writes of {} KiB", write_size / KIB);
        let goal = Goal::AtLeast(goal);
        report.add(format!("{name} / tokio-rustls"), "GB/s", rate(&ours), rate(&tls), goal);
        report.add(format!("{name} / plain TCP"), "GB/s", rate(&ours), rate(&plain), Goal::None);
        // Each end seals or opens on its own processor, and the kernel's work is with the sender.
        let floor = gigabytes / (plain.wall() + aead.wall() / 2.0);
        let floor_name = "plain TCP and its AEAD / tokio-rustls";
        report.add(format!("{name}: {floor_name}"), "GB/s", floor, rate(&tls), Goal::None);
        if write_size == 64 * KIB {
            let name = format!("{name}, processor");
            let goal = Goal::AtMost(0.75);
            report.add(format!("{name} / tokio-rustls"), "s/GB", cost(&ours), cost(&tls), goal);
            report.add(
                format!("{name} / plain TCP"),
                "s/GB",
                cost(&ours),
                cost(&plain),
                Goal::None,
            );
            let floor = cost(&plain) + cost(&aead);
            report.add(format!("{name}: {floor_name}"), "s/GB", floor, cost(&tls), Goal::None);
        }
    }
    Ok(())
}

/// Throughput of several connections together. One alone leaves the processors idle while its ends wake
/// each other; these do not, so that what a byte costs decides.
pub(super) fn bulk_on_many(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = two_threads()?;
    let configs = Configs::new(AES)?;
    let tls_configs = tls::Configs::new()?;
    let (write_size, total) = (64 * KIB, effort.amount(1024 * MIB));
    let [ours, tls, plain] = effort.alternate([
        &mut || {
            runtime.block_on(async {
                let mut pairs = Vec::new();
                for _ in 0..CONNECTIONS {
                    let (near, far) = tcp_pair().await?;
                    pairs.push(configs.connect(near, far).await?);
                }
                Ok(timed_bulk_on_all(pairs, write_size, total).await?.0)
            })
        },
        &mut || {
            runtime.block_on(async {
                let mut pairs = Vec::new();
                for _ in 0..CONNECTIONS {
                    let (near, far) = tcp_pair().await?;
                    pairs.push(tls_configs.connect(near, far).await?);
                }
                Ok(timed_bulk_on_all(pairs, write_size, total).await?.0)
            })
        },
        &mut || {
            runtime.block_on(async {
                let mut pairs = Vec::new();
                for _ in 0..CONNECTIONS {
                    pairs.push(tcp_pair().await?);
                }
                Ok(timed_bulk_on_all(pairs, write_size, total).await?.0)
            })
        },
    ])?;
    let gigabytes = total as f64 / 1e9;
    let rate = |samples: &Samples| gigabytes / samples.wall();
    let cost = |samples: &Samples| samples.cpu() / gigabytes;
    let name = format!("bulk on {CONNECTIONS} connections, writes of 64 KiB");
    let processor = format!("{name}, processor / tokio-rustls");
    let [faster, cheaper] = [Goal::AtLeast(1.25), Goal::AtMost(0.75)];
    report.add(format!("{name} / tokio-rustls"), "GB/s", rate(&ours), rate(&tls), faster);
    report.add(format!("{name} / plain TCP"), "GB/s", rate(&ours), rate(&plain), Goal::None);
    report.add(processor, "s/GB", cost(&ours), cost(&tls), cheaper);
    Ok(())
}

/// 64 bytes there and back, with both ends on one thread.
pub(super) fn round_trips(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = one_thread()?;
    let configs = Configs::new(AES)?;
    let tls_configs = tls::Configs::new()?;
    let manual = RekeyPolicy::manual();
    let untimed = Configs::with_policies(AES, manual, manual)?;
    let rounds = effort.amount(30_000);
    let [ours, untimed, tls, plain, aead] = effort.alternate([
        &mut || {
            runtime.block_on(async {
                let (near, far) = tcp_pair().await?;
                let (near, far) = configs.connect(near, far).await?;
                timed_echo(near, far, rounds).await
            })
        },
        &mut || {
            runtime.block_on(async {
                let (near, far) = tcp_pair().await?;
                let (near, far) = untimed.connect(near, far).await?;
                timed_echo(near, far, rounds).await
            })
        },
        &mut || {
            runtime.block_on(async {
                let (near, far) = tcp_pair().await?;
                let (near, far) = tls_configs.connect(near, far).await?;
                timed_echo(near, far, rounds).await
            })
        },
        &mut || {
            runtime.block_on(async {
                let (near, far) = tcp_pair().await?;
                timed_echo(near, far, rounds).await
            })
        },
        &mut || timed_records(MESSAGE, 2 * rounds * MESSAGE),
    ])?;
    let [ours, untimed, tls, plain, aead] = [ours, untimed, tls, plain, aead]
        .map(|samples: Samples| samples.wall() / rounds as f64 * 1e6);
    report.add("round trip of 64 B / tokio-rustls", "us", ours, tls, Goal::AtMost(0.92));
    report.add("round trip of 64 B / plain TCP", "us", ours, plain, Goal::AtMost(1.08));
    let mut add = |name, ours, peer| report.add(name, "us", ours, peer, Goal::None);
    add("round trip of 64 B, rekeys not by time / tokio-rustls", untimed, tls);
    add("round trip of 64 B, rekeys not by time / plain TCP", untimed, plain);
    add("round trip of 64 B: plain TCP and its AEAD / tokio-rustls", plain + aead, tls);
    Ok(())
}

/// Throughput while the sender updates every 64 MiB, against throughput without.
pub(super) fn bulk_while_rekeying(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = two_threads()?;
    let interval = effort.amount(REKEY_EVERY);
    let manual = RekeyPolicy::manual();
    let often = Configs::with_policies(AES, manual.with_bytes(interval as u64), manual)?;
    let never = Configs::with_policies(AES, manual, manual)?;
    for (connections, name) in [
        (1, "bulk with a rekey every 64 MiB / without"),
        (CONNECTIONS, "bulk on 8 connections with a rekey every 64 MiB / without"),
    ] {
        let total = effort.amount(1024 * MIB).max(connections * interval);
        let run = |configs: &Configs, rekeys| {
            runtime.block_on(async {
                let mut pairs = Vec::new();
                for _ in 0..connections {
                    let (near, far) = tcp_pair().await?;
                    pairs.push(configs.connect(near, far).await?);
                }
                let (cost, pairs) = timed_bulk_on_all(pairs, 64 * KIB, total).await?;
                // The sender's own count lags behind: in a short run the answers come after the data.
                let followed =
                    |(_, far): &(_, MlsStream<_>)| rekeys == (far.statistics().peer_updates > 0);
                if !pairs.iter().all(followed) {
                    return Err("the policy was not followed".into());
                }
                Ok(cost)
            })
        };
        let [often, never] =
            effort.alternate([&mut || run(&often, true), &mut || run(&never, false)])?;
        let rate = |samples: &Samples| total as f64 / 1e9 / samples.wall();
        report.add(name, "GB/s", rate(&often), rate(&never), Goal::AtLeast(0.97));
    }
    Ok(())
}

/// Seals and opens as many records as `total` bytes need.
fn timed_records(length: usize, total: usize) -> Result<Cost> {
    let key = RecordKey::new()?;
    let mut record = vec![0; length + OVERHEAD];
    let records = total.div_ceil(length);
    timed_repetitions(records, || key.seal_and_open(&mut record))
}

async fn timed_bulk<W, R>(writer: W, reader: R, write_size: usize, total: usize) -> Result<Cost>
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    Ok(timed_bulk_on_all(vec![(writer, reader)], write_size, total).await?.0)
}

/// All pairs at once, of which each carries its part of `total`.
async fn timed_bulk_on_all<W, R>(
    pairs: Vec<(W, R)>,
    write_size: usize,
    total: usize,
) -> Result<(Cost, Vec<(W, R)>)>
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    let part = (total / pairs.len()).max(1);
    let on_all = |pairs: Vec<(W, R)>, total| {
        try_join_all(pairs.into_iter().map(move |(near, far)| bulk(near, far, write_size, total)))
    };
    let pairs = on_all(pairs, warm_up(part)).await?;
    let stopwatch = Stopwatch::start();
    let pairs = on_all(pairs, part).await?;
    Ok((stopwatch.stop(), pairs))
}

async fn timed_echo<A, B>(near: A, far: B, rounds: usize) -> Result<Cost>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (near, far) = echo(near, far, MESSAGE, warm_up(rounds) as u64).await?;
    let stopwatch = Stopwatch::start();
    let _ends = echo(near, far, MESSAGE, rounds as u64).await?;
    Ok(stopwatch.stop())
}
