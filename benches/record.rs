//! Records without a transport: seal at one end, open at the other.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mls_channel::CipherSuite;

use support::{Configs, Pair};

fn seal_and_open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    for &suite in CipherSuite::ALL {
        let configs = Configs::new(suite).expect("configurations");
        for size in [1024_usize, 16 * 1024] {
            let mut pair = Pair::establish(&configs).expect("a handshake");
            let data = vec![0x5a; size];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(suite.name(), size), |bencher| {
                bencher.iter(|| pair.send(&data).expect("a record"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, seal_and_open);
criterion_main!(benches);
