//! `cargo sim run`: one scenario, one seed.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use lockstep_sim::report::{Failure, Report};
use lockstep_sim::run::run;
use lockstep_sim::scenario::{EXPECT, Scenario};
use lockstep_sim::trace::Detail;
use serde_json::json;

use super::{Runs, Source, bytes, count, thread_time};
use crate::Verdict;

/// Runs a scenario, or one seed of the swarm, and says whether all laws and expectations held.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo sim run scenarios/catch-up-100k.toml
  cargo sim run scenarios/leader-crash.toml --seed 7 --trace leader-crash.txt
  cargo sim run --swarm --seed 1234 --print-scenario")]
pub(crate) struct Run {
    #[command(flatten)]
    source: Source,
    /// From which all draws come; a scenario names its own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write one line an event to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Print what is run as a scenario's file, and do not run it
    #[arg(long, conflicts_with_all = ["json", "trace"])]
    print_scenario: bool,
}

impl Run {
    pub(crate) fn execute(self) -> anyhow::Result<Verdict> {
        let runs = self.source.open()?;
        let named = match &runs {
            Runs::Scenario(scenario, _) => scenario.seed,
            Runs::Swarm => 0,
        };
        let seed = self.seed.unwrap_or(named);
        let plan = runs.plan(seed);
        if self.print_scenario {
            let title = format!("Seed {seed} of the {}", runs.name());
            print!("{}", Scenario::of(&plan, &title, "Drawn.").to_toml());
            return Ok(Verdict::Held);
        }
        let mut options = runs.options(None)?;
        options.detail = if self.trace.is_some() { Detail::All } else { Detail::Last(LINES) };
        let before = thread_time();
        let mut report = run(&plan, &options);
        let cpu_ms = (thread_time() - before).as_secs_f64() * 1e3;
        if let Runs::Scenario(scenario, _) = &runs
            && report.failure.is_none()
        {
            report.failure = scenario.holds(&report.facts).err().map(|broken| Failure {
                check: broken.check.to_owned(),
                reason: broken.reason,
                at: report.lasted,
                nodes: String::new(),
            });
        }
        if let Some(path) = &self.trace {
            let mut file = std::fs::File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
            for line in &report.lines {
                writeln!(file, "{line}").with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
        if self.json {
            println!("{:#}", document(runs.name(), &report, cpu_ms));
        } else {
            tell(&runs, &report, cpu_ms, self.trace.is_some());
        }
        Ok(if report.failure.is_none() { Verdict::Held } else { Verdict::Failed })
    }
}

/// So many lines of the trace are shown of a run that fails.
const LINES: usize = 30;

fn document(name: &str, report: &Report, cpu_ms: f64) -> serde_json::Value {
    let failure = report.failure.as_ref().map(
        |Failure { check, reason, at, .. }| json!({ "check": check, "reason": reason, "at_ms": at.as_millis() }),
    );
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
    println!("{}, seed {}: {verdict}", runs.name(), report.seed);
    if let Runs::Scenario(scenario, _) = runs {
        println!("  {}", scenario.title);
    }
    println!(
        "  {:.1} s of virtual time in {:.3} s of processor time, {} steps, trace hash {:016x}",
        report.lasted.0 as f64 / 1e9,
        cpu_ms / 1e3,
        count(report.steps),
        report.trace_hash,
    );
    println!(
        "  {} entries, {} sessions opened, {} snapshots installed, {} replays, {} NACKs, {} messages, {}",
        count(counted("entries")),
        count(counted("sessions_opened")),
        count(counted("snapshots_installed")),
        count(counted("replays_started")),
        count(counted("nacks_sent")),
        count(counted("messages")),
        bytes(counted("bytes")),
    );
    println!(
        "  commands: {} done, {} done by few, {} refused, {} not taken, {} unknown",
        count(counted("done")),
        count(counted("done_by_few")),
        count(counted("refused")),
        count(counted("not_taken")),
        count(counted("unknown")),
    );
    match &report.failure {
        None => println!("  all agreed {} after faults stopped", report.facts.agreed_after),
        Some(Failure { check, reason, at, nodes }) => {
            println!("\n{check}, at {} ms: {reason}\n{nodes}", at.as_millis());
            // What was expected beside the laws is not to be found in the last few events.
            if !traced && check != EXPECT {
                println!("the last {} events:", report.lines.len());
                report.lines.iter().for_each(|line| println!("{line}"));
            }
        }
    }
}
