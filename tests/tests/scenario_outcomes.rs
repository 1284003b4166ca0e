//! What scenarios come to, as snapshots: the final state exactly, what was counted in bands, so that tuning does not show
//! and a changed protocol does. A few conversations are counted exactly. Review a change with `cargo insta review`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lockstep_sim::inference::{self, Plan};
use lockstep_sim::report::Report;
use lockstep_sim::run::{Options, run};
use lockstep_sim::scenario::Scenario;
use lockstep_sim::trace::Detail;

/// Those whose counters are exact.
const EXACT: &[&str] = &["last-entry-lost", "empty-leader-asked", "equal-clock-candidacies"];

/// Too long for a test: `cargo sim run scenarios` runs them.
const LONG: &[&str] = &["catch-up-1m", "catch-up-100k", "catch-up-100k-by-log", "replay-over-a-slow-link", "idle-hour"];

/// Those counters whose change says that nodes talk, and clients fare, otherwise than before.
const TELLING: &[&str] = &[
    "bytes",
    "campaigns",
    "cut_off",
    "done",
    "done_by_few",
    "entries",
    "failed",
    "given_up",
    "messages",
    "nacks_sent",
    "nodes_lost",
    "refused",
    "replays_started",
    "rewinds",
    "runner_failures",
    "runner_starts",
    "sessions_opened",
    "set_aside",
    "snapshots_installed",
    "streams",
    "unknown",
    "whole",
];

/// Seeds of the family whose spread is kept.
const SEEDS: u64 = 40;

fn files() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let files = std::fs::read_dir(folder).expect("the scenarios").map(|file| file.expect("a file").path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|it| it == "toml")).collect();
    files.sort();
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    files.into_iter().map(|path| (name(&path), path)).filter(|(name, _)| !LONG.contains(&name.as_str())).collect()
}

/// The band that a number lies in: it doubles from one to the next, so that a little more or less seldom shows.
fn band(number: u64) -> String {
    match number {
        0 => "0".to_owned(),
        1..8 => "1 to 7".to_owned(),
        _ => {
            let low = 1_u64 << ((number.ilog2() - 3) / 2 * 2 + 3);
            format!("{low} to {}", low * 4 - 1)
        }
    }
}

fn outcome(name: &str, report: &Report) -> String {
    let mut text = format!("final state: {}\n", report.facts.final_state);
    let counters: BTreeMap<_, _> = report.facts.counters.iter().filter(|(name, _)| TELLING.contains(name)).collect();
    for (counter, number) in counters {
        let number = if EXACT.contains(&name) { number.to_string() } else { band(*number) };
        text += &format!("{counter}: {number}\n");
    }
    text
}

#[test]
fn scenarios_end_as_they_did() {
    for (name, path) in files().into_iter().filter(|(_, path)| !inference::is_inference(path)) {
        let scenario = Scenario::read(&path).expect("a scenario");
        let options = Options { phase_ends: scenario.phase_ends(), ..Options::default() };
        let mut report = run(&scenario.plan(scenario.seed), &options);
        scenario.judge(&mut report);
        assert_eq!(report.failure, None, "{name}");
        insta::assert_snapshot!(name.as_str(), outcome(&name, &report));
    }
}

#[test]
fn inference_scenarios_end_as_they_did() {
    for (name, path) in files().into_iter().filter(|(_, path)| inference::is_inference(path)) {
        let report = inference::run(&Plan::read(&path).expect("a plan"), Detail::Hashed);
        assert_eq!(report.failure, None, "{name}");
        insta::assert_snapshot!(name.as_str(), outcome(&name, &report));
    }
}

#[test]
fn a_family_of_seeds_spreads_as_it_did() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/gossip-at-20-percent-loss.toml");
    let scenario = Scenario::read(&path).expect("a scenario");
    let reports: Vec<Report> = (0..SEEDS).map(|seed| run(&scenario.plan(seed), &Options::default())).collect();
    assert!(reports.iter().all(|report| report.failure.is_none()));
    let spread = |of: &dyn Fn(&Report) -> f64| {
        let mut all: Vec<f64> = reports.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[all.len() * 99 / 100])
    };
    let counted = |report: &Report, name: &str| report.facts.counters.get(name).copied().unwrap_or_default() as f64;
    let an_entry = |name: &'static str| {
        spread(&move |report: &Report| counted(report, name) / counted(report, "entries").max(1.0))
    };
    let converges = spread(&|report| report.facts.agreed_after.as_millis() as f64);
    let text = [
        ("converges, ms", converges),
        ("NACKs an entry", an_entry("nacks_sent")),
        ("bytes an entry", an_entry("bytes")),
    ]
    .map(|(what, (half, most))| format!("{what}: p50 about {}, p99 about {}\n", about(half), about(most)));
    insta::assert_snapshot!("spread", text.concat());
}

/// A number to its nearest power of 1.5: a tolerance of a quarter.
fn about(number: f64) -> String {
    if number <= 0.0 { "0".to_owned() } else { format!("{:.3}", 1.5_f64.powf((number.ln() / 1.5_f64.ln()).round())) }
}

#[test]
fn bands_are_wide_and_hold_what_they_say() {
    assert_eq!([0, 5, 8, 31, 32, 1000].map(band), ["0", "1 to 7", "8 to 31", "8 to 31", "32 to 127", "512 to 2047"]);
}
