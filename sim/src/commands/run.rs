//! `cargo sim run`: one scenario, one seed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lockstep_replication::chaos::Mutant;
use lockstep_sim::report::{Failure, Report};
use lockstep_sim::scenario::EXPECT;
use lockstep_sim::sweep::side_by_side;
use lockstep_sim::trace::Detail;
use serde_json::json;

use super::{Runs, bytes, count, planted, thread_time};
use crate::Verdict;

/// Runs scenarios, or one seed of the swarm, and says whether all laws and expectations held.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo sim run scenarios/catch-up-100k.toml
  cargo sim run scenarios/leader-crash.toml --seed 7 --trace leader-crash.txt
  cargo sim run scenarios
  cargo sim run --swarm --seed 1234 --print-scenario")]
pub(crate) struct Run {
    /// Files of scenarios, or folders of them; in a folder, those in its `regressions` come first
    #[arg(required_unless_present_any = ["swarm", "inference"], conflicts_with_all = ["swarm", "inference"])]
    scenarios: Vec<PathBuf>,
    /// What the seed draws: how many nodes, which faults, which limits and timings
    #[arg(long)]
    swarm: bool,
    /// The same for whole inference clusters: workers, gateways, runners and clients too
    #[arg(long, conflicts_with = "swarm")]
    inference: bool,
    /// From which all draws come; a scenario names its own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Plant this fault in all nodes
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Write one line an event to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print one JSON document: of several scenarios, a list
    #[arg(long)]
    json: bool,
    /// Print what is run as a scenario's file, and do not run it
    #[arg(long, conflicts_with_all = ["json", "trace"])]
    print_scenario: bool,
}

/// One run that was played.
struct Played {
    runs: Runs,
    report: Report,
    cpu_ms: f64,
}

impl Run {
    pub(crate) fn execute(self) -> anyhow::Result<Verdict> {
        let mutant = self.mutant.as_deref().map(planted).transpose()?;
        let all = self.open()?;
        let [one] = &all[..] else {
            if self.trace.is_some() || self.print_scenario {
                bail!("`--trace` and `--print-scenario` are for one run, and these are {}", all.len());
            }
            return self.run_all(all, mutant);
        };
        let seed = self.seed.unwrap_or_else(|| one.seed());
        if self.print_scenario {
            say!("{}", one.text(seed)?.trim_end());
            return Ok(Verdict::Held);
        }
        let detail = if self.trace.is_some() { Detail::All } else { Detail::Last(LINES) };
        let Played { runs, report, cpu_ms } = play(one.clone(), seed, mutant, detail)?;
        if let Some(path) = &self.trace {
            let lines: String = report.lines.iter().flat_map(|line| [line, "\n"]).collect();
            std::fs::write(path, lines).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        if self.json {
            say!("{:#}", document(runs.name(), &report, cpu_ms));
        } else {
            tell(&runs, &report, cpu_ms, self.trace.is_some());
        }
        Ok(verdict(&report))
    }

    fn open(&self) -> anyhow::Result<Vec<Runs>> {
        if self.swarm || self.inference {
            return Ok(vec![if self.inference { Runs::InferenceSwarm } else { Runs::Swarm }]);
        }
        let mut paths = Vec::new();
        for path in &self.scenarios {
            if !path.is_dir() {
                paths.push(path.clone());
                continue;
            }
            let before = paths.len();
            paths.extend(scenarios_in(&path.join("regressions"))?);
            paths.extend(scenarios_in(path)?);
            if paths.len() == before {
                bail!("{} has no scenario in it: expected files that end in .toml", path.display());
            }
        }
        paths.iter().map(|path| Runs::open(path)).collect()
    }

    /// Side by side; told in their order, those that failed in full.
    fn run_all(&self, all: Vec<Runs>, mutant: Option<Mutant>) -> anyhow::Result<Verdict> {
        let progress = ProgressBar::new(all.len() as u64);
        progress.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} scenarios")?);
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let played = side_by_side(&all, jobs, &|runs: &Runs| {
            let seed = self.seed.unwrap_or_else(|| runs.seed());
            let played = play(runs.clone(), seed, mutant, Detail::Last(LINES));
            progress.inc(1);
            played
        });
        progress.finish_and_clear();
        let played: Vec<Played> = played.into_iter().collect::<anyhow::Result<_>>()?;
        let failed = played.iter().filter(|played| played.report.failure.is_some()).count();
        if self.json {
            let documents = played.iter().map(|it| document(it.runs.name(), &it.report, it.cpu_ms));
            say!("{:#}", serde_json::Value::Array(documents.collect()));
        } else {
            for Played { runs, report, cpu_ms } in &played {
                let (lasted, cpu) = (report.lasted.0 as f64 / 1e9, cpu_ms / 1e3);
                match &report.failure {
                    None => say!("held    {:46} {lasted:7.1} s in {cpu:7.3} s", runs.name()),
                    Some(_) => tell(runs, report, *cpu_ms, false),
                }
            }
            say!("{} of {} scenarios held", played.len() - failed, played.len());
        }
        Ok(if failed == 0 { Verdict::Held } else { Verdict::Failed })
    }
}

/// So many lines of the trace are shown of a run that fails.
const LINES: usize = 30;

fn play(runs: Runs, seed: u64, mutant: Option<Mutant>, detail: Detail) -> anyhow::Result<Played> {
    let mut options = runs.options(mutant)?;
    options.detail = detail;
    let before = thread_time();
    let mut report = runs.play(seed, &options);
    let cpu_ms = (thread_time() - before).as_secs_f64() * 1e3;
    if let Runs::Scenario(scenario, _) = &runs {
        scenario.judge(&mut report);
    }
    Ok(Played { runs, report, cpu_ms })
}

/// The scenarios of a folder, by name; none if there is no such folder.
fn scenarios_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let files = std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut paths: Vec<PathBuf> = files.map(|file| Ok(file?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

fn verdict(report: &Report) -> Verdict {
    if report.failure.is_none() { Verdict::Held } else { Verdict::Failed }
}

fn document(name: &str, report: &Report, cpu_ms: f64) -> serde_json::Value {
    let failure = report
        .failure
        .as_ref()
        .map(|Failure { check, reason, at, .. }| json!({ "check": check, "reason": reason, "at_ms": at.as_millis() }));
    json!({
        "scenario": name,
        "seed": report.seed,
        "verdict": if report.failure.is_none() { "held" } else { "failed" },
        "failure": failure,
        "trace_hash": format!("{:016x}", report.trace_hash),
        "virtual_ms": report.lasted.as_millis(),
        "cpu_ms": (cpu_ms * 1e3).round() / 1e3,
        "counters": report.facts.counters,
    })
}

fn tell(runs: &Runs, report: &Report, cpu_ms: f64, traced: bool) {
    let counted = |name: &str| report.facts.counters.get(name).copied().unwrap_or_default();
    let verdict = if report.failure.is_none() { "held" } else { "FAILED" };
    say!("{}, seed {}: {verdict}", runs.name(), report.seed);
    match runs {
        Runs::Scenario(scenario, _) => say!("  {}", scenario.title),
        Runs::Inference(plan, _) => say!("  {}", plan.title),
        Runs::Swarm | Runs::InferenceSwarm => {}
    }
    say!(
        "  {:.1} s of virtual time in {:.3} s of processor time, {} steps, trace hash {:016x}",
        report.lasted.0 as f64 / 1e9,
        cpu_ms / 1e3,
        count(report.steps),
        report.trace_hash,
    );
    say!(
        "  {} entries, {} sessions opened, {} snapshots installed, {} replays, {} NACKs, {} messages, {}",
        count(counted("entries")),
        count(counted("sessions_opened")),
        count(counted("snapshots_installed")),
        count(counted("replays_started")),
        count(counted("nacks_sent")),
        count(counted("messages")),
        bytes(counted("bytes")),
    );
    if runs.are_inference() {
        say!(
            "  answers: {} asked for, {} whole, {} failed, {} left by their clients, {} cut off with their node",
            count(counted("streams")),
            count(counted("whole")),
            count(counted("failed")),
            count(counted("hung_up")),
            count(counted("cut_off")),
        );
        say!(
            "  runners: {} started, {} failed, {} instances given up; the slowest error came after {} ms",
            count(counted("runner_starts")),
            count(counted("runner_failures")),
            count(counted("given_up")),
            count(counted("slowest_error_ms")),
        );
    } else {
        say!(
            "  commands: {} done, {} done by few, {} refused, {} not taken, {} unknown",
            count(counted("done")),
            count(counted("done_by_few")),
            count(counted("refused")),
            count(counted("not_taken")),
            count(counted("unknown")),
        );
    }
    match &report.failure {
        None => say!("  all agreed {} after faults stopped", report.facts.agreed_after),
        Some(Failure { check, reason, at, nodes }) => {
            say!("\n{check}, at {} ms: {reason}\n{nodes}", at.as_millis());
            // What was expected beside the laws is not to be found in the last few events.
            if !traced && check != EXPECT {
                say!("the last {} events:", report.lines.len());
                report.lines.iter().for_each(|line| say!("{line}"));
            }
        }
    }
}
