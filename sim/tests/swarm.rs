//! The swarm: every law holds in every seeded run, and a seed is the same run each time.
//!
//! `LOCKSTEP_SEEDS=A..B` runs the seeds from A on, B excluded; `LOCKSTEP_TRACE=N` prints the last N lines of one that fails.

use lockstep_sim::Plan;
use lockstep_sim::run::{Options, run};
use lockstep_sim::trace::Detail;

/// So many seeds by default.
const SEEDS: u64 = 800;

/// Every so manieth seed runs twice.
const TWICE_EVERY: u64 = 10;

#[test]
fn every_law_holds_in_every_seeded_run() {
    let seeds = std::env::var("LOCKSTEP_SEEDS").ok();
    let seeds = seeds.as_deref().unwrap_or("").split_once("..");
    let seeds = seeds.map_or(0..SEEDS, |(from, until)| from.parse().expect("A")..until.parse().expect("B"));
    let lines = std::env::var("LOCKSTEP_TRACE").ok().and_then(|lines| lines.parse().ok());
    let (mut steps, mut failures) = (0, Vec::new());
    for seed in seeds {
        let plan = Plan::drawn(seed);
        let report = run(&plan, &Options::default());
        steps += report.steps;
        if seed.is_multiple_of(TWICE_EVERY) {
            assert_eq!(run(&plan, &Options::default()), report, "L1: seed {seed}");
        }
        if let Some(failure) = report.failure {
            println!("seed {seed} {} {}: {}\n{}", failure.at, failure.check, failure.reason, failure.nodes);
            failures.push(seed);
            if let Some(lines) = lines {
                let told = run(&plan, &Options { detail: Detail::Last(lines), ..Options::default() });
                println!("{plan:#?}\n{}", told.lines.join("\n"));
            }
        }
    }
    println!("{steps} steps");
    assert!(failures.is_empty(), "{failures:?}");
}
