//! What one command costs: decided on the leader, sealed, opened, hashed into the log and applied.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lockstep_benches::past::{Past, SEED, decide};
use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_inference::workload::Workload;
use lockstep_replication::entry::{Entry, Record};
use lockstep_replication::{App, Hash, Index, Place, Replica, Wall};

/// What comes before, so that the state has its usual size.
const BEFORE: usize = 5_000;

/// How many commands are measured at a time.
const COMMANDS: usize = 10_000;

fn apply(criterion: &mut Criterion) {
    let past = Past::ordinary(BEFORE + COMMANDS);
    let (begin, end) = (past.records.len() - COMMANDS, past.records.len());
    let before = past.replica_before(Index(begin as u64));
    let records = &past.records[begin..end];
    let commands: Vec<Command> = Workload::new(SEED).skip(BEFORE).take(COMMANDS).collect();
    let entries: Vec<Entry<Inference>> = records.iter().map(|record| record.open().expect("just sealed")).collect();

    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    group.bench_function("decide and apply a command", |bencher| {
        let run = |(mut state, commands): (<Inference as App>::State, Vec<Command>)| {
            for (index, command) in (begin as u64..).zip(commands) {
                let place = Place { index: Index(index), stamp: Wall(index) };
                let events = decide(&state, command).expect("the workload wishes for nothing that is refused");
                events.iter().for_each(|event| Inference::apply(&mut state, event, place));
            }
            state
        };
        bencher.iter_batched(|| (before.state().clone(), commands.clone()), run, BatchSize::LargeInput);
    });
    group.bench_function("take a record: open, hash, apply", |bencher| {
        let run = |mut replica: Replica<Inference>| {
            for record in records {
                replica.take(record).expect("it is the next one");
            }
            replica
        };
        bencher.iter_batched(|| before.clone(), run, BatchSize::LargeInput);
    });
    group.finish();

    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    group.bench_function("seal", |bencher| {
        bencher.iter(|| entries.iter().for_each(|entry| drop(black_box(entry.seal(Inference::SCHEMA)))));
    });
    group.bench_function("open", |bencher| {
        let open = |record: &Record| record.open::<Inference>().expect("just sealed");
        bencher.iter(|| records.iter().for_each(|record| drop(black_box(open(record)))));
    });
    group.bench_function("running hash", |bencher| {
        bencher.iter(|| records.iter().fold(Hash::default(), |hash, record| record.chain(hash)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = apply
}
criterion_main!(benches);
