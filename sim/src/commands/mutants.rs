//! `mutants`: whether the checks notice each deliberate fault of the core.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lockstep_replication::chaos::Mutant;
use lockstep_sim::mutants::{Caught, Hunted, hunt_all, scenario_for};
use lockstep_sim::scenario::Scenario;

use super::planted;
use crate::Verdict;

/// Plants each deliberate fault of the core, and says which check notices it, and after how many seeds.
///
/// None may live: a fault that nothing notices is a hole in the checks or in what the swarm meets.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo sim mutants
  cargo sim mutants --list
  cargo sim mutants last-entry-lost mark-at-half --seeds 10000")]
pub(crate) struct Mutants {
    /// Only these [default: all]
    names: Vec<String>,
    /// So many seeds of the swarm at most for each
    #[arg(long, value_name = "N", default_value_t = 3000)]
    seeds: u64,
    /// How many run at the same time [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// The folder of the scenarios that some of them need
    #[arg(long, value_name = "FOLDER", default_value = "scenarios")]
    scenarios: PathBuf,
    /// Say which there are, and what each breaks
    #[arg(long)]
    list: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Mutants {
    pub(crate) fn execute(self) -> anyhow::Result<Verdict> {
        let named: Vec<Mutant> = self.names.iter().map(|name| planted(name)).collect::<Result<_, _>>()?;
        let mutants = if named.is_empty() { Mutant::ALL } else { &named };
        if self.list {
            for mutant in mutants {
                println!("{:28} {:4} {}", mutant.name(), mutant.law(), mutant.broken());
            }
            return Ok(Verdict::Held);
        }
        let scenarios = scenarios(&self.scenarios, mutants)?;
        let scenario = |name: &str| scenarios.iter().find(|(other, _)| *other == name).map(|(_, found)| found.clone());
        let jobs = self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let progress = ProgressBar::new(mutants.len() as u64);
        progress.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} faults")?);
        let hunted = hunt_all(mutants, self.seeds, jobs, &scenario, &|hunted| {
            progress.inc(1);
            if !self.json {
                progress.suspend(|| println!("{}", line(hunted)));
            }
        });
        progress.finish_and_clear();
        if self.json {
            println!("{}", serde_json::to_string_pretty(&hunted)?);
        }
        let alive = hunted.iter().filter(|hunted| hunted.caught.is_none()).count();
        if !self.json {
            println!("{} of {} are noticed", hunted.len() - alive, hunted.len());
        }
        Ok(if alive == 0 { Verdict::Held } else { Verdict::Failed })
    }
}

/// The scenarios that these need.
fn scenarios(folder: &Path, mutants: &[Mutant]) -> anyhow::Result<Vec<(&'static str, Scenario)>> {
    let names = mutants.iter().filter_map(|mutant| scenario_for(*mutant));
    let read = |name: &'static str| {
        let path = folder.join(format!("{name}.toml"));
        Ok((name, Scenario::read(&path).with_context(|| path.display().to_string())?))
    };
    names.map(read).collect()
}

fn line(hunted: &Hunted) -> String {
    let Hunted { mutant, law, seeds, caught, broken } = hunted;
    match caught {
        None => format!("{mutant:28} {law:4} LIVES after {seeds} seeds: {broken}"),
        Some(Caught { run, check, reason }) => {
            let short: String = reason.chars().take(100).collect();
            format!("{mutant:28} {law:4} {run:32} {check}: {short}")
        }
    }
}
