//! One rekey of one side: both ends' work in memory, and the time it takes over TCP.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mls_channel::{CipherSuite, RekeyPolicy};
use tokio::{io::AsyncReadExt, runtime::Builder};

use support::{AES, Configs, Pair, traffic::tcp_pair};

fn in_memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rekey/memory");
    group.throughput(Throughput::Elements(1));
    for &suite in CipherSuite::ALL {
        let mut pair = Pair::establish(&configs(suite)).expect("a handshake");
        group.bench_function(suite.name(), |bencher| {
            bencher.iter(|| pair.rekey().expect("a rekey"));
        });
    }
    group.finish();
}

fn over_tcp(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut near = runtime.block_on(async {
        let (near, far) = tcp_pair().await.expect("a connection");
        let (near, mut far) = configs(AES).connect(near, far).await.expect("a handshake");
        // The far end has to do nothing but read. It ends with the runtime.
        tokio::spawn(async move { far.read_u8().await });
        near
    });
    let mut group = criterion.benchmark_group("rekey/tcp");
    group.throughput(Throughput::Elements(1));
    group.bench_function(AES.name(), |bencher| {
        bencher.iter_custom(|rekeys| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..rekeys {
                    near.rekey().await.expect("a rekey");
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

fn configs(suite: CipherSuite) -> Configs {
    let manual = RekeyPolicy::manual();
    Configs::with_policies(suite, manual, manual).expect("configurations")
}

criterion_group!(benches, in_memory, over_tcp);
criterion_main!(benches);
