//! Renewing keys.

use std::path::PathBuf;

use mls_channel::{MemoryStore, RedbStore, error::StoreError};
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use super::{manual_configs, one_thread, timed_repetitions, warm_up};
use crate::{
    measure::{Cost, Effort, Samples, Stopwatch},
    report::{Goal, Report},
    stock::{self, RatchetTree},
    support::{Configs, Pair, Result, traffic::tcp_pair},
};

/// Bytes on the wire of a commit, and of the two short messages that follow it.
const COMMIT: usize = 543;
const EPOCH_KEY_UPDATE: usize = 34;

/// Rekeys of one side, one after the other, with both ends on one thread.
pub(super) fn rekeys_over_tcp(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = one_thread()?;
    let configs = manual_configs()?;
    let rekeys = effort.amount(1_000);
    let stock_run = |tree| {
        runtime.block_on(async {
            let pair = stock::Pair::connect(tree).await?.rekey(warm_up(rekeys)).await?;
            let stopwatch = Stopwatch::start();
            let _pair = pair.rekey(rekeys).await?;
            Ok(stopwatch.stop())
        })
    };
    let [ours, stock, lean, work, messages] = effort.alternate([
        &mut || runtime.block_on(timed_rekeys(&configs, rekeys)),
        &mut || stock_run(RatchetTree::InWelcome),
        &mut || stock_run(RatchetTree::Apart),
        &mut || {
            let mut pair = Pair::establish(&configs)?;
            timed_repetitions(rekeys, || pair.update_groups())
        },
        &mut || runtime.block_on(timed_messages(rekeys)),
    ])?;
    let rate = |seconds: f64| rekeys as f64 / seconds;
    let floor = rate(work.wall() + messages.wall());
    let [ours, stock, lean] = [ours, stock, lean].map(|samples: Samples| rate(samples.wall()));
    report.add("rekeys over TCP / stock OpenMLS", "1/s", ours, stock, Goal::AtLeast(2.2));
    let mut add = |name, ours, peer| report.add(name, "1/s", ours, peer, Goal::None);
    add("rekeys over TCP / the same without GroupInfo", ours, lean);
    add("rekeys over TCP: MLS work and bare messages / stock OpenMLS", floor, stock);
    Ok(())
}

/// The same with a session store at each end, which is asked to keep each state before the other end
/// may depend on it.
pub(super) fn stores(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = one_thread()?;
    let configs = manual_configs()?;
    let rekeys = effort.amount(1_000);
    // The disk is waited for four times in each.
    let synced_rekeys = effort.amount(50);
    let redb_run = |open: fn(PathBuf) -> std::result::Result<RedbStore, StoreError>, rekeys| {
        let folder = tempdir()?;
        let store = |name: &str| open(folder.path().join(name));
        let configs = configs.with_stores(store("initiator")?, store("responder")?)?;
        runtime.block_on(timed_rekeys(&configs, rekeys))
    };
    let [none, memory, unsynced, synced] = effort.alternate([
        &mut || runtime.block_on(timed_rekeys(&configs, rekeys)),
        &mut || {
            let configs = configs.with_stores(MemoryStore::default(), MemoryStore::default())?;
            runtime.block_on(timed_rekeys(&configs, rekeys))
        },
        &mut || redb_run(RedbStore::open_without_sync, rekeys),
        &mut || redb_run(RedbStore::open, synced_rekeys),
    ])?;
    let none = rekeys as f64 / none.wall();
    for (name, samples, rekeys) in [
        ("MemoryStore", memory, rekeys),
        ("RedbStore without sync", unsynced, rekeys),
        ("RedbStore", synced, synced_rekeys),
    ] {
        let rate = rekeys as f64 / samples.wall();
        report.add(format!("rekeys over TCP, {name} / no store"), "1/s", rate, none, Goal::None);
    }
    Ok(())
}

/// The messages of rekeys, of the right sizes and with nothing in them.
async fn timed_messages(rekeys: usize) -> Result<Cost> {
    let (near, far) = tcp_pair().await?;
    let (mut near, mut far) = (BufReader::new(near), BufReader::new(far));
    let answering = tokio::spawn(async move {
        let (mut commit, mut update) = ([0; COMMIT], [0; EPOCH_KEY_UPDATE]);
        for _ in 0..rekeys {
            far.read_exact(&mut commit).await?;
            far.write_all(&update).await?;
            far.read_exact(&mut update).await?;
        }
        Result::Ok(())
    });
    let (commit, mut update) = ([0; COMMIT], [0; EPOCH_KEY_UPDATE]);
    let stopwatch = Stopwatch::start();
    for _ in 0..rekeys {
        near.write_all(&commit).await?;
        near.read_exact(&mut update).await?;
        near.write_all(&update).await?;
    }
    let cost = stopwatch.stop();
    answering.await??;
    Ok(cost)
}

async fn timed_rekeys(configs: &Configs, rekeys: usize) -> Result<Cost> {
    let (near, far) = tcp_pair().await?;
    let (mut near, mut far) = configs.connect(near, far).await?;
    // The far end has to do nothing but read.
    let reading = tokio::spawn(async move { far.read_u8().await });
    for _ in 0..warm_up(rekeys) {
        near.rekey().await?;
    }
    let stopwatch = Stopwatch::start();
    for _ in 0..rekeys {
        near.rekey().await?;
    }
    let cost = stopwatch.stop();
    reading.abort();
    Ok(cost)
}
