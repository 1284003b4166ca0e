//! A node with an empty disk catches up with a leader, by snapshot and by the whole log, in memory: what it costs the
//! processor, from the connection until the joiner has applied all that the leader had then.

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lockstep_benches::pair::{Pair, Way};
use lockstep_benches::past::Past;

fn catch_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("catch_up");
    group.sample_size(10);
    for entries in [10_000, 100_000] {
        let past = Past::ordinary(entries);
        group.throughput(Throughput::Elements(entries as u64));
        for (name, way) in [("snapshot", Way::Snapshot), ("log", Way::Log)] {
            let ready = Pair::new(&past, way);
            let mut once = ready.clone();
            once.catch_up();
            assert_eq!(once.snapshots_installed(), u64::from(way == Way::Snapshot), "it came another way");
            let [leader, joiner] = once.digests();
            assert_eq!(leader, joiner, "the states differ");
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                let caught_up = |mut pair: Pair| {
                    pair.catch_up();
                    pair
                };
                bencher.iter_batched(|| ready.clone(), caught_up, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1));
    targets = catch_up
}
criterion_main!(benches);
