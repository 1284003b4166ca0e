//! Whole inference clusters: every check holds in every seeded run, and a seed is the same run each time.
//!
//! `LOCKSTEP_SEEDS=A..B` runs the seeds from A on, B excluded; `LOCKSTEP_TRACE=N` prints the last N lines of one that fails.

use std::path::Path;

use lockstep_sim::inference::{Plan, is_inference, run};
use lockstep_sim::trace::Detail;

/// So many seeds by default.
const SEEDS: u64 = 300;

/// Every so manieth seed runs twice.
const TWICE_EVERY: u64 = 10;

/// Seeds that found something once: a client that got one half of two answers, as a branch of the log lost.
const KEPT: [u64; 1] = [1021];

#[test]
fn every_scenario_of_this_world_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let files = std::fs::read_dir(folder).expect("the scenarios are there").map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| is_inference(path)).collect();
    files.sort();
    assert!(files.len() >= 7, "{files:?}");
    let mut failures = Vec::new();
    for path in files {
        let plan = Plan::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let report = run(&plan, Detail::Hashed);
        println!("{} {:?}", path.display(), report.facts.counters);
        if let Some(failure) = report.failure {
            println!("{} {}: {}\n{}", failure.at, failure.check, failure.reason, failure.nodes);
            failures.push(path);
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn every_check_holds_in_every_seeded_run() {
    let seeds = std::env::var("LOCKSTEP_SEEDS").ok();
    let seeds = seeds.as_deref().unwrap_or("").split_once("..");
    let seeds = seeds.map_or(0..SEEDS, |(from, until)| from.parse().expect("A")..until.parse().expect("B"));
    let lines = std::env::var("LOCKSTEP_TRACE").ok().and_then(|lines| lines.parse().ok());
    let (mut whole, mut failures) = (0, Vec::new());
    for seed in seeds.chain(KEPT) {
        let plan = Plan::drawn(seed);
        let report = run(&plan, Detail::Hashed);
        whole += report.facts.counters.get("whole").copied().unwrap_or_default();
        if seed.is_multiple_of(TWICE_EVERY) {
            assert_eq!(run(&plan, Detail::Hashed), report, "L1: seed {seed}");
        }
        if let Some(failure) = report.failure {
            println!("seed {seed} {} {}: {}\n{}", failure.at, failure.check, failure.reason, failure.nodes);
            failures.push(seed);
            if let Some(lines) = lines {
                let told = run(&plan, Detail::Last(lines));
                println!("{plan:#?}\n{}", told.lines.join("\n"));
            }
        }
    }
    println!("{whole} whole answers");
    assert!(failures.is_empty(), "{failures:?}");
}
