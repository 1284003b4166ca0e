//! Putting entries in order, and a batch of them on the wire.

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lockstep_benches::past::{Past, SESSION};
use lockstep_inference::Inference;
use lockstep_replication::entry::Record;
use lockstep_replication::message::{Entries, EntriesKind, Message};
use lockstep_replication::order::buffer::OrderedBuffer;
use lockstep_replication::{Config, Index, wire};

/// Half of what the buffer holds at most.
const RECORDS: usize = 10_000;

fn ordered_buffer(criterion: &mut Criterion) {
    let mut records = Past::ordinary(RECORDS).records;
    records.truncate(RECORDS);
    let config = Config::default();
    // Each is taken out as soon as its turn comes.
    let pass = |arriving: Vec<Record>| {
        let mut buffer = OrderedBuffer::new(Index(0));
        for record in arriving {
            buffer.insert(record, &config);
            while buffer.pop().is_some() {}
        }
        assert_eq!(buffer.next(), Index(RECORDS as u64), "not all came through");
        buffer
    };
    let mut group = criterion.benchmark_group("ordered buffer");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("in order", |bencher| {
        bencher.iter_batched(|| records.clone(), pass, BatchSize::LargeInput);
    });
    group.bench_function("reversed", |bencher| {
        bencher.iter_batched(|| records.iter().rev().cloned().collect(), pass, BatchSize::LargeInput);
    });
    group.finish();
}

fn batch(criterion: &mut Criterion) {
    let limit = Config::default().batch_bytes;
    let mut bytes = 0;
    let fits = |record: &Record| {
        bytes += record.bytes.len();
        bytes <= limit
    };
    // Long enough that the limit cuts it.
    let records = Past::ordinary(20_000).records.into_iter().take_while(fits).map(|record| record.bytes).collect();
    let batch = Entries { session: SESSION, first: Index(0), records, kind: EntriesKind::Replay };
    assert!(batch.bytes() > limit / 2 && batch.bytes() <= limit, "{} bytes are no full batch", batch.bytes());

    let mut group = criterion.benchmark_group("batch of 512 KiB");
    group.throughput(Throughput::Bytes(batch.bytes() as u64));
    let message = Message::<Inference>::Entries(batch);
    let sent = wire::encode(&message);
    group.bench_function("encode", |bencher| bencher.iter(|| wire::encode(&message)));
    group.bench_function("decode", |bencher| {
        bencher.iter_with_large_drop(|| wire::decode::<Inference>(&sent).expect("it was just encoded"));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = ordered_buffer, batch
}
criterion_main!(benches);
