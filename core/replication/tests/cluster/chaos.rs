//! Short seeded runs: the seed draws the cluster, its faults and its clients, and every law is checked at every step.
//!
//! `LOCKSTEP_SEEDS=A..B` runs the seeds from A on, B excluded; `LOCKSTEP_TRACE=N` prints the last N lines of one that
//! fails.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::plan::Plan;
use crate::harness::run::run;
use crate::harness::trace::Detail;

/// So many seeds by default: about half a minute.
const SEEDS: u64 = 600;

/// Every so manieth seed runs twice, and must hash to the same.
const TWICE_EVERY: u64 = 20;

/// After so many failures the rest is not run.
const FAILURES_AT_MOST: usize = 5;

#[test]
fn every_law_holds_in_every_seeded_run() {
    let seeds = seeds();
    let (next, totals) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::new()));
    let failures: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().expect("no thread panics").len() >= FAILURES_AT_MOST {
                        return;
                    }
                    match judge(seed) {
                        Ok(counts) => add(&mut totals.lock().expect("no thread panics"), counts),
                        Err(why) => {
                            failures.lock().expect("no thread panics").insert(seed, why);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panics");
    println!("{:?}", totals.into_inner().expect("no thread panics"));
    let text: String = failures.iter().map(|(seed, why)| format!("\n=== seed {seed} ===\n{why}")).collect();
    assert!(failures.is_empty(), "{} seeds fail (run one with LOCKSTEP_SEEDS=N..M): {text}", failures.len());
}

/// Runs a seed, twice now and then, and again with a trace if it fails.
fn judge(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
    let plan = Plan::drawn(seed);
    let twice = seed.is_multiple_of(TWICE_EVERY);
    let detail = if twice { Detail::Hashed } else { Detail::Off };
    let explain = || {
        let again = run(&plan, Detail::Lines(trace_lines()));
        let why = again.err().unwrap_or_else(|| "it fails once and not twice: L1 does not hold".to_owned());
        format!("{plan:#?}\n{why}")
    };
    let report = run(&plan, detail).map_err(|_| explain())?;
    if twice && run(&plan, detail).map_err(|_| explain())? != report {
        return Err(format!("L1: two runs of one seed differ\n{plan:#?}"));
    }
    let mut counts = report.outcomes;
    counts.insert("runs", 1);
    counts.insert("events", report.events);
    counts.insert("entries", report.entries);
    counts.insert("ms to agree", report.agreed_after / crate::harness::MILLIS);
    Ok(counts)
}

fn add(totals: &mut BTreeMap<&'static str, u64>, counts: BTreeMap<&'static str, u64>) {
    for (name, count) in counts {
        *totals.entry(name).or_default() += count;
    }
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("LOCKSTEP_SEEDS") else { return 0..SEEDS };
    let range = text.split_once("..").and_then(|(from, until)| Some(from.parse().ok()?..until.parse().ok()?));
    range.expect("LOCKSTEP_SEEDS is A..B, two numbers")
}

fn trace_lines() -> usize {
    std::env::var("LOCKSTEP_TRACE").ok().and_then(|lines| lines.parse().ok()).unwrap_or(40)
}
