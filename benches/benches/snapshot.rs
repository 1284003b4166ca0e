//! Snapshots of the state after 100 000 commands: captured, encoded, decoded, and a chunk checked as it comes.

use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lockstep_benches::past::{LEADER, Past};
use lockstep_inference::Inference;
use lockstep_replication::snapshot::fetch::{Fetch, Took};
use lockstep_replication::snapshot::{Manifest, Snapshot};
use lockstep_replication::{Config, Hash, Moment, Replica, Seed};

const COMMANDS: usize = 100_000;

fn states(criterion: &mut Criterion) {
    let config = Config::default();
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10);
    // The workload's own state, of some hundred tasks, and one in which tens of thousands of tasks piled up.
    for (name, past) in [("ordinary", Past::ordinary(COMMANDS)), ("piled up", Past::piled_up(COMMANDS))] {
        let replica = past.replica;
        let encode =
            |replica: &Replica<Inference>| Snapshot::encode(replica, config.chunk_bytes).expect("a good state");
        let snapshot = encode(&replica);
        let decode = |snapshot: &Snapshot| -> Replica<Inference> {
            snapshot.decode(config.snapshot_raw_bytes).expect("it was just encoded")
        };
        assert_eq!(decode(&snapshot).digest(), replica.digest(), "the state did not survive");
        let Manifest { raw_bytes, bytes, .. } = snapshot.manifest;
        let tasks = replica.state().tasks.len();
        println!("snapshot/{name}: {tasks} tasks, {raw_bytes} bytes raw, {bytes} compressed");

        group.throughput(Throughput::Bytes(raw_bytes));
        group.bench_function(BenchmarkId::new("capture", name), |bencher| bencher.iter(|| replica.clone()));
        group.bench_function(BenchmarkId::new("encode", name), |bencher| bencher.iter(|| encode(&replica)));
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter_with_large_drop(|| decode(&snapshot));
        });
    }
    group.finish();
}

/// A full chunk, from its arrival until it is kept. Its bytes are random, as those of compressed data look.
fn chunk(criterion: &mut Criterion) {
    let config = Config::default();
    let mut rng = Seed::from_number(1).rng();
    let bytes: Bytes = (0..2 * config.chunk_bytes / 8).flat_map(|_| rng.number().to_le_bytes()).collect();
    let chunks: Vec<Bytes> =
        (0..2).map(|n| bytes.slice(n * config.chunk_bytes..(n + 1) * config.chunk_bytes)).collect();
    let manifest = Manifest {
        lineage: Past::ordinary(1).replica.lineage().clone(),
        log_hash: Hash::default(),
        schema: 1,
        raw_bytes: bytes.len() as u64,
        bytes: bytes.len() as u64,
        hash: Hash::of(&bytes),
        chunk_bytes: config.chunk_bytes as u32,
        chunks: chunks.iter().map(|chunk| Hash::of(chunk)).collect(),
    };
    let asked = || {
        let mut fetch = Fetch::new(Moment(0), manifest.clone(), LEADER, &config).expect("the manifest is possible");
        assert_eq!(fetch.ask(Moment(1), &[LEADER], &config), [(LEADER, 0), (LEADER, 1)]);
        fetch
    };
    let mut group = criterion.benchmark_group("chunk of 512 KiB");
    group.throughput(Throughput::Bytes(config.chunk_bytes as u64));
    group.bench_function("verify", |bencher| {
        let take = |mut fetch: Fetch| {
            let took = fetch.take(Moment(2), LEADER, manifest.hash, 0, Some(chunks[0].clone()));
            assert_eq!(took, Took::Kept);
            fetch
        };
        bencher.iter_batched(asked, take, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = states, chunk
}
criterion_main!(benches);
