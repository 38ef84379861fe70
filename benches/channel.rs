//! A channel over TCP and over a pipe in memory: bulk data, and 64 bytes there and back.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::time::{Duration, Instant};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use mls_channel::MlsStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, duplex},
    runtime::{Builder, Runtime},
};

use support::{
    AES, Configs, Result,
    traffic::{bulk, echo, tcp_pair},
};

/// Application data of one iteration of the bulk benches.
const BULK: usize = 1024 * 1024;
/// What the pipe in memory holds.
const PIPE: usize = 256 * 1024;
const MESSAGE: usize = 64;

fn throughput(criterion: &mut Criterion) {
    let runtime =
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let configs = Configs::new(AES).expect("configurations");
    let mut group = criterion.benchmark_group("channel/throughput");
    group.throughput(Throughput::Bytes(BULK as u64));
    for write_size in [1024, 16 * 1024, 64 * 1024] {
        let (near, far) = runtime.block_on(tcp_pair()).expect("a connection");
        let id = BenchmarkId::new("tcp", write_size);
        bench_bulk(&mut group, id, &runtime, &configs, (near, far), write_size);
        let id = BenchmarkId::new("duplex", write_size);
        bench_bulk(&mut group, id, &runtime, &configs, duplex(PIPE), write_size);
    }
    group.finish();
}

fn round_trip(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let configs = Configs::new(AES).expect("configurations");
    let mut group = criterion.benchmark_group("channel/round-trip");
    group.throughput(Throughput::Elements(1));
    let (near, far) = runtime.block_on(tcp_pair()).expect("a connection");
    bench_echo(&mut group, "tcp", &runtime, &configs, (near, far));
    bench_echo(&mut group, "duplex", &runtime, &configs, duplex(PIPE));
    group.finish();
}

fn bench_bulk<IO>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    runtime: &Runtime,
    configs: &Configs,
    (near, far): (IO, IO),
    write_size: usize,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut ends = Some(runtime.block_on(configs.connect(near, far)).expect("a handshake"));
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|iterations| {
            timed(runtime, &mut ends, async |near, far| {
                let total = BULK * usize::try_from(iterations)?;
                bulk(near, far, write_size, total).await
            })
        });
    });
}

fn bench_echo<IO>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: &str,
    runtime: &Runtime,
    configs: &Configs,
    (near, far): (IO, IO),
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut ends = Some(runtime.block_on(configs.connect(near, far)).expect("a handshake"));
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|rounds| {
            timed(runtime, &mut ends, async |near, far| echo(near, far, MESSAGE, rounds).await)
        });
    });
}

/// Measures `traffic`, which borrows the two ends from `ends` and gives them back.
fn timed<IO>(
    runtime: &Runtime,
    ends: &mut Option<(MlsStream<IO>, MlsStream<IO>)>,
    traffic: impl AsyncFnOnce(MlsStream<IO>, MlsStream<IO>) -> Result<(MlsStream<IO>, MlsStream<IO>)>,
) -> Duration {
    let (near, far) = ends.take().expect("the ends were given back");
    let start = Instant::now();
    *ends = Some(runtime.block_on(traffic(near, far)).expect("traffic"));
    start.elapsed()
}

criterion_group!(benches, throughput, round_trip);
criterion_main!(benches);
