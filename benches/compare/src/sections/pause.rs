//! How long a stream stands still for a rekey.

use std::time::{Duration, Instant};

use mls_channel::{MlsStream, RekeyPolicy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{self, yield_now},
};

use super::{manual_configs, micros, timed_repetitions, two_threads};
use crate::{
    measure::{Cost, Effort, median},
    report::{Goal, Report},
    support::{AES, Configs, Pair, Result, traffic::tcp_pair},
};

/// Bytes of a write.
const CHUNK: usize = 256;
/// From the beginning of a write to that of the next.
const PACE: Duration = Duration::from_micros(20);
/// Writes between two updates.
const CHUNKS_PER_UPDATE: usize = 256;
/// How many gaps are near a rekey: those for which the writer makes its commit, the one in which the
/// reader applies it and changes its epoch, and those for which the writer applies it as well.
const NEAR: usize = 28;
/// How many of these come before the reader changes its epoch.
const BEFORE: usize = 4;

/// A writer sends small chunks at a steady pace and updates now and then; the pause of a rekey is the
/// longest time near it in which nothing arrives. The pause of as many chunks without a rekey says how
/// much of it the machine makes.
pub(super) fn pause_of_a_stream(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = two_threads()?;
    let manual = RekeyPolicy::manual();
    let every = (CHUNKS_PER_UPDATE * CHUNK) as u64;
    let often = Configs::with_policies(AES, manual.with_bytes(every), manual)?;
    let never = manual_configs()?;
    let rekeys = effort.amount(100);
    let repetitions = effort.amount(500);
    // One more, because the last update may come after the last chunk.
    let chunks = (rekeys + 1) * CHUNKS_PER_UPDATE;
    let run = |configs: &Configs| runtime.block_on(Arrivals::of_stream(configs, chunks));
    let [in_rekeys, without, rekey] = effort.alternate([
        &mut || {
            let Arrivals { gaps, rekeys: seen } = run(&often)?;
            if seen.len() * 10 < rekeys * 9 {
                return Err(format!("only {} of {rekeys} rekeys", seen.len()).into());
            }
            Ok(median_pause(&gaps, seen.into_iter()))
        },
        &mut || {
            let Arrivals { gaps, rekeys: seen } = run(&never)?;
            if !seen.is_empty() {
                return Err("a rekey that nobody asked for".into());
            }
            Ok(median_pause(&gaps, (CHUNKS_PER_UPDATE..gaps.len()).step_by(CHUNKS_PER_UPDATE)))
        },
        &mut || {
            let mut pair = Pair::establish(&never)?;
            timed_repetitions(repetitions, || pair.rekey())
        },
    ])?;
    let rekey = micros(&rekey, repetitions);
    let [in_rekeys, without] = [in_rekeys, without].map(|samples| samples.wall() * 1e6);
    let name = "longest pause of a stream in a rekey";
    report.add(format!("{name} / one rekey"), "us", in_rekeys, rekey, Goal::AtMost(3.0));
    report.add(format!("{name} / without one"), "us", in_rekeys, without, Goal::None);
    Ok(())
}

async fn write_steadily(
    mut writer: MlsStream<TcpStream>,
    chunks: usize,
) -> Result<MlsStream<TcpStream>> {
    let mut due = Instant::now();
    for _ in 0..chunks {
        // Timers are too coarse for this.
        while Instant::now() < due {
            yield_now().await;
        }
        // After a pause it goes on at the pace: what was missed is not made up for.
        due = Instant::now() + PACE;
        writer.write_all(&[0x5a; CHUNK]).await?;
        writer.flush().await?;
    }
    Ok(writer)
}

struct Arrivals {
    /// Before each chunk but the first.
    gaps: Vec<Duration>,
    /// In which of the gaps the reader changed its epoch.
    rekeys: Vec<usize>,
}

impl Arrivals {
    async fn of_stream(configs: &Configs, chunks: usize) -> Result<Self> {
        let (near, far) = tcp_pair().await?;
        let (near, far) = configs.connect(near, far).await?;
        let writing = task::spawn(write_steadily(near, chunks));
        let arrivals = task::spawn(Self::read(far, chunks)).await??;
        writing.await??;
        Ok(arrivals)
    }

    async fn read(mut reader: MlsStream<TcpStream>, chunks: usize) -> Result<Self> {
        let mut buffer = [0; CHUNK];
        let mut arrivals = Self { gaps: Vec::with_capacity(chunks), rekeys: Vec::new() };
        reader.read_exact(&mut buffer).await?;
        let (mut last, mut epoch) = (Instant::now(), reader.statistics().epoch);
        for gap in 0..chunks - 1 {
            reader.read_exact(&mut buffer).await?;
            let now = Instant::now();
            arrivals.gaps.push(now - last);
            let epoch_now = reader.statistics().epoch;
            if epoch_now != epoch {
                arrivals.rekeys.push(gap);
            }
            (last, epoch) = (now, epoch_now);
        }
        Ok(arrivals)
    }
}

/// The median of the longest gaps near each of `places`.
fn median_pause(gaps: &[Duration], places: impl Iterator<Item = usize>) -> Cost {
    let longest = places.map(|place| {
        let near = gaps.iter().skip(place.saturating_sub(BEFORE)).take(NEAR);
        near.max().map_or(0.0, Duration::as_secs_f64)
    });
    Cost { wall: Duration::from_secs_f64(median(longest.collect())), cpu: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_the_longest_gaps_near_a_rekey() {
        let mut gaps = vec![Duration::from_millis(1); 300];
        gaps[10] = Duration::from_millis(70);
        gaps[98] = Duration::from_millis(3);
        gaps[120] = Duration::from_millis(4);
        gaps[200] = Duration::from_millis(5);
        let pause = median_pause(&gaps, [100, 200, 298].into_iter());
        assert_eq!(pause.wall, Duration::from_millis(4));
    }
}
