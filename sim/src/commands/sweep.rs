//! `cargo sim sweep`: many seeds of a scenario or of the swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lockstep_replication::chaos::{Mutant, PROBES};
use lockstep_sim::report::Report;
use lockstep_sim::run::Options;
use lockstep_sim::sweep::resume::Done;
use lockstep_sim::sweep::{Failure, Judged, Shard, Swept, junit, seeds, sweep};
use lockstep_sim::trace::Detail;

use super::{Runs, Source, count, planted, thread_time};
use crate::Verdict;

/// Runs many seeds, and says which of them fail, grouped by how.
///
/// A share of the seeds, and each that fails, is run twice and must be the same twice. Before that, a canary with a
/// planted fault must fail.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo sim sweep --swarm --seeds 0..20000
  cargo sim sweep --swarm --seeds 0..1000000 --shard 3/16 --resume done.jsonl --junit sweep.xml
  cargo sim sweep scenarios/leader-crash.toml --seeds 0..100 --json")]
pub(crate) struct Sweep {
    #[command(flatten)]
    source: Source,
    /// The seeds, from A on, B excluded
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Range<u64>,
    /// How many run at the same time [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Run one part of the seeds, for sweeps that several machines share
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    shard: Shard,
    /// Write each seed that ended into this file, and do not run again those that are there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Write JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Plant this fault in all nodes
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// One seed in so many runs twice.
const TWICE_ONE_IN: u64 = 50;

/// The canary must have failed by this seed.
const CANARY_SEEDS: u64 = 50;

impl Sweep {
    pub(crate) fn execute(self) -> anyhow::Result<Verdict> {
        let runs = self.source.open()?;
        let mutant = self.mutant.as_deref().map(planted).transpose()?;
        let options = runs.options(mutant)?;
        let (done, mut all) = match &self.resume {
            None => (None, Vec::new()),
            Some(path) => {
                let (done, before) = Done::open(path).with_context(|| path.display().to_string())?;
                (Some(done), before)
            }
        };
        if mutant.is_none() && !canary() {
            bail!(
                "the canary lives: a fault that was planted is not found in {CANARY_SEEDS} seeds, so no verdict counts"
            );
        }
        let before: BTreeSet<u64> = all.iter().map(|judged| judged.seed).collect();
        let seeds = seeds(self.seeds.clone(), self.shard, &before);
        let jobs = self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let progress = ProgressBar::new(seeds.len() as u64);
        progress.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left {msg}")?);
        let judge = |seed| judge(&runs, &options, seed);
        let tell = |judged: &Judged| {
            if let Some(Failure { check, reason, .. }) = &judged.failure {
                progress.suspend(|| eprintln!("seed {}: {check}: {reason}", judged.seed));
            }
            if let Some(Err(error)) = done.as_ref().map(|done| done.add(judged)) {
                progress.suspend(|| eprintln!("the file of seeds that ended cannot be written: {error}"));
            }
            progress.inc(1);
        };
        all.extend(sweep(&seeds, jobs, &judge, &tell));
        all.sort_by_key(|judged| judged.seed);
        progress.finish_and_clear();
        if let Some(path) = &self.junit {
            let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
            junit::report(runs.name(), &all).serialize(file).with_context(|| path.display().to_string())?;
        }
        let swept = Swept::of(&all, PROBES);
        if self.json {
            say!("{}", serde_json::to_string_pretty(&swept)?);
        } else {
            report(&runs, &swept);
        }
        Ok(if swept.failures.is_empty() { Verdict::Held } else { Verdict::Failed })
    }
}

/// Runs a seed; now and then, and whenever it fails, twice.
fn judge(runs: &Runs, options: &Options, seed: u64) -> Judged {
    let before = thread_time();
    let first = runs.play(seed, options);
    let mut failure = first.failure.as_ref().map(|failure| (failure.check.clone(), failure.reason.clone()));
    let twice = first.failure.is_some() || seed.is_multiple_of(TWICE_ONE_IN);
    if twice
        && let Some(reason) = differs(&first, &runs.play(seed, options), || {
            let told = Options { detail: Detail::All, ..options.clone() };
            (runs.play(seed, &told), runs.play(seed, &told))
        })
    {
        failure = Some(("same_again".to_owned(), reason));
    }
    let at_ms = first.failure.as_ref().map_or(first.lasted, |failure| failure.at).as_millis();
    Judged {
        seed,
        failure: failure.map(|(check, reason)| Failure { check, reason, at_ms }),
        probes: PROBES.iter().zip(first.probes).map(|(name, hits)| ((*name).to_owned(), hits)).collect(),
        events: first.steps,
        cpu_us: (thread_time() - before).as_micros() as u64,
    }
}

/// L1: where two runs of one seed part, if they do.
fn differs(one: &Report, other: &Report, told: impl FnOnce() -> (Report, Report)) -> Option<String> {
    if one.trace_hash == other.trace_hash && one.failure == other.failure {
        return None;
    }
    let checkpoint = one.checkpoints.iter().zip(&other.checkpoints).find(|(one, other)| one != other);
    let about = checkpoint.map_or(one.steps, |(one, _)| one.steps);
    let (one, other) = told();
    let line = one.lines.iter().zip(&other.lines).find(|(one, other)| one != other);
    let line = line.map_or("in no line of their traces".to_owned(), |(one, other)| format!("{one:?} and {other:?}"));
    Some(format!("L1: two runs of one seed differ before step {about}: {line}"))
}

/// Whether a planted fault is found.
fn canary() -> bool {
    let options = Options { mutant: Some(Mutant::DoneBeforeHeld), ..Options::default() };
    (0..CANARY_SEEDS).any(|seed| Runs::Swarm.play(seed, &options).failure.is_some())
}

fn report(runs: &Runs, swept: &Swept) {
    say!(
        "{}: {} of {} seeds held; {} steps in {:.1} s of processor time ({} a second)",
        runs.name(),
        count(swept.held),
        count(swept.seeds),
        count(swept.events),
        swept.cpu_s,
        count((swept.events as f64 / swept.cpu_s.max(1e-9)) as u64),
    );
    let groups: BTreeMap<String, Vec<u64>> = swept.by_signature();
    for (signature, seeds) in &groups {
        say!("\n{} seeds, {} first: {signature}", seeds.len(), seeds[0]);
        let does = if runs.are_inference() { "see it: cargo sim run" } else { "shrink it: cargo sim shrink" };
        say!("  {does} {} --seed {}", source(runs), seeds[0]);
    }
    let never = swept.never_hit();
    if !never.is_empty() && !runs.are_inference() {
        say!("\nprobes that no seed hit: {}", never.join("; "));
    }
}

fn source(runs: &Runs) -> String {
    match runs {
        Runs::Scenario(_, name) | Runs::Inference(_, name) => format!("scenarios/{name}.toml"),
        Runs::Swarm => "--swarm".to_owned(),
        Runs::InferenceSwarm => "--inference".to_owned(),
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let bounds = text.split_once("..").and_then(|(from, until)| Some(from.parse().ok()?..until.parse().ok()?));
    match bounds {
        Some(bounds) if bounds.start < bounds.end => Ok(bounds),
        Some(_) | None => Err(format!("expected A..B with A less than B, such as 0..1000, found {text:?}")),
    }
}
