//! The handshake: both ends' work in memory, and the time it takes over TCP.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mls_channel::CipherSuite;
use tokio::runtime::Builder;

use support::{AES, Configs, Pair, traffic::tcp_pair};

fn in_memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake/memory");
    group.throughput(Throughput::Elements(1));
    for &suite in CipherSuite::ALL {
        let configs = Configs::new(suite).expect("configurations");
        group.bench_function(suite.name(), |bencher| {
            bencher.iter(|| Pair::establish(&configs).expect("a handshake"));
        });
    }
    group.finish();
}

fn over_tcp(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let configs = Configs::new(AES).expect("configurations");
    let mut group = criterion.benchmark_group("handshake/tcp");
    group.throughput(Throughput::Elements(1));
    group.bench_function(AES.name(), |bencher| {
        bencher.to_async(&runtime).iter(async || {
            let (near, far) = tcp_pair().await.expect("a connection");
            configs.connect(near, far).await.expect("a handshake")
        });
    });
    group.finish();
}

criterion_group!(benches, in_memory, over_tcp);
criterion_main!(benches);
