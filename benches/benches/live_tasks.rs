//! What lives in the state must not make work dearer: the same work with 10 and with 10 000 live tasks.

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use lockstep_benches::crowd::{Crowd, task};
use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_inference::placement;
use lockstep_inference::state::{State, TaskOutcome};
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{Config, Replica};

/// Numbers of live tasks.
const CROWDS: [u32; 2] = [10, 10_000];

fn live_tasks(criterion: &mut Criterion) {
    let crowds = CROWDS.map(|tasks| (tasks, Crowd::new(tasks)));
    let mut group = criterion.benchmark_group("live tasks");
    // Side by side, so that whatever else this machine does befalls both alike.
    for (tasks, crowd) in &crowds {
        // Nobody else holds the state, as between two rounds of a node.
        group.bench_function(
            BenchmarkId::new("a task's life: created, begun, finished, decided and applied", tasks),
            |bencher| {
                let mut state = crowd.state().clone();
                let mut n = 1_000_000;
                bencher.iter(|| {
                    n += 1;
                    let life = [
                        crowd.create_task(n),
                        Command::StartTask { task: task(n) },
                        Command::FinishTask { task: task(n), outcome: TaskOutcome::Done { tokens: 9 } },
                    ];
                    for command in life {
                        for event in crowd.decide(&state, command) {
                            crowd.apply(&mut state, &event);
                        }
                    }
                });
            },
        );
    }
    for (tasks, crowd) in &crowds {
        // The worst case: a reader holds all of the state, so that what changes is copied first.
        group.bench_function(BenchmarkId::new("a task is created while the state is held", tasks), |bencher| {
            let create = |mut state: State| {
                for event in crowd.decide(&state, crowd.create_task(1_000_000)) {
                    crowd.apply(&mut state, &event);
                }
                state
            };
            bencher.iter_batched(|| crowd.state().clone(), create, BatchSize::SmallInput);
        });
    }
    for (tasks, crowd) in &crowds {
        group.bench_function(BenchmarkId::new("an instance is placed and deleted", tasks), |bencher| {
            let mut state = crowd.state().clone();
            bencher.iter(|| {
                for command in [crowd.place(7), crowd.delete_placed(7)] {
                    for event in crowd.decide(&state, command) {
                        crowd.apply(&mut state, &event);
                    }
                }
            });
        });
    }
    for (tasks, crowd) in &crowds {
        group.bench_function(BenchmarkId::new("an instance with one task is deleted", tasks), |bencher| {
            let mut state = crowd.state().clone();
            bencher.iter(|| {
                for command in crowd.small_comes_and_goes() {
                    for event in crowd.decide(&state, command) {
                        crowd.apply(&mut state, &event);
                    }
                }
            });
        });
    }
    for (tasks, crowd) in &crowds {
        group.bench_function(BenchmarkId::new("preview", tasks), |bencher| {
            bencher.iter(|| placement::plan(crowd.state(), &crowd.measured, &crowd.model, Some(2)).expect("room"));
        });
    }
    group.finish();
}

fn snapshot(criterion: &mut Criterion) {
    let config = Config::default();
    let crowd = Crowd::new(CROWDS[1]);
    let encode = || Snapshot::encode(&crowd.replica, config.chunk_bytes).expect("a good state");
    let snapshot = encode();
    let decode = || -> Replica<Inference> { snapshot.decode(config.snapshot_raw_bytes).expect("it was just encoded") };
    assert_eq!(decode().state(), crowd.state(), "the state did not survive");
    let mut group = criterion.benchmark_group("snapshot of 10 000 live tasks");
    group.sample_size(20);
    group.bench_function("encode", |bencher| bencher.iter(encode));
    group.bench_function("decode", |bencher| bencher.iter_with_large_drop(decode));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = live_tasks, snapshot
}
criterion_main!(benches);
