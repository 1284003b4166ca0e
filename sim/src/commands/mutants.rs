//! `mutants`: whether the checks notice each deliberate fault of the core.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lockstep_replication::chaos::Mutant;
use lockstep_sim::mutants::{Caught, Hunted, Patience, Smaller, hunt_all, scenario_for};
use lockstep_sim::scenario::Scenario;
use lockstep_sim::shrink::Size;

use super::planted;
use crate::Verdict;

/// Plants each deliberate fault of the core, and says which check notices it, and after how many seeds.
///
/// None may live: a fault that nothing notices is a hole in the checks or in what the swarm meets.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo sim mutants
  cargo sim mutants --list
  cargo sim mutants last-entry-lost mark-at-half --seeds 10000
  cargo sim mutants --shrink --json")]
pub(crate) struct Mutants {
    /// Only these [default: all]
    names: Vec<String>,
    /// So many seeds of the swarm at most for each
    #[arg(long, value_name = "N", default_value_t = 3000)]
    seeds: u64,
    /// Make each run that fails small, and see that its file fails by the same check and holds without the fault
    #[arg(long)]
    shrink: bool,
    /// Write the shrunk scenarios into this folder
    #[arg(long, value_name = "FOLDER", requires = "shrink")]
    out: Option<PathBuf>,
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

/// So many runs at most to make one run small.
const SHRINK_RUNS: u64 = 1500;

impl Mutants {
    pub(crate) fn execute(self) -> anyhow::Result<Verdict> {
        let named: Vec<Mutant> = self.names.iter().map(|name| planted(name)).collect::<Result<_, _>>()?;
        let mutants = if named.is_empty() { Mutant::ALL } else { &named };
        if self.list {
            for mutant in mutants {
                say!("{:28} {:4} {}", mutant.name(), mutant.law(), mutant.broken());
            }
            return Ok(Verdict::Held);
        }
        let scenarios = scenarios(&self.scenarios, mutants)?;
        let scenario = |name: &str| scenarios.iter().find(|(other, _)| *other == name).map(|(_, found)| found.clone());
        let jobs = self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let progress = ProgressBar::new(mutants.len() as u64);
        progress.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} faults")?);
        let patience = Patience { seeds: self.seeds, runs: if self.shrink { SHRINK_RUNS } else { 0 } };
        let hunted = hunt_all(mutants, patience, jobs, &scenario, &|hunted| {
            progress.inc(1);
            if !self.json {
                progress.suspend(|| say!("{}", line(hunted)));
            }
        });
        progress.finish_and_clear();
        if self.json {
            say!("{}", serde_json::to_string_pretty(&hunted)?);
        }
        if let Some(folder) = &self.out {
            write(folder, &hunted)?;
        }
        let caught = hunted.iter().filter_map(|hunted| hunted.caught.as_ref());
        let noticed = caught.clone().count();
        let small = caught.filter(|caught| caught.small.as_ref().is_some_and(Smaller::is_fine)).count();
        if !self.json {
            say!("{noticed} of {} are noticed", hunted.len());
            if self.shrink {
                say!("{small} of {} were made small", hunted.len());
            }
        }
        let is_done = noticed == hunted.len() && (!self.shrink || small == hunted.len());
        Ok(if is_done { Verdict::Held } else { Verdict::Failed })
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

fn write(folder: &Path, hunted: &[Hunted]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for Hunted { mutant, caught, .. } in hunted {
        if let Some(small) = caught.as_ref().and_then(|caught| caught.small.as_ref()) {
            let path = folder.join(format!("{mutant}.toml"));
            std::fs::write(&path, &small.file).with_context(|| format!("{} cannot be written", path.display()))?;
        }
    }
    Ok(())
}

fn line(hunted: &Hunted) -> String {
    let Hunted { mutant, law, seeds, caught, broken } = hunted;
    match caught {
        None => format!("{mutant:28} {law:4} LIVES after {seeds} seeds: {broken}"),
        Some(Caught { run, check, reason, small }) => {
            let short: String = reason.chars().take(100).collect();
            let small = small.as_ref().map_or(String::new(), |small| shrunk(run, small));
            format!("{mutant:28} {law:4} {run:32} {check}: {short}{small}")
        }
    }
}

/// What a run was made to, on a line of its own.
fn shrunk(first: &str, small: &Smaller) -> String {
    let Smaller { run, before, after, left, bound, is_kept, runs, .. } = small;
    let Size { faults, commands, machines, lost } = left;
    let of = if run == first { String::new() } else { format!("{run}, ") };
    let too_large = if after <= bound { "" } else { ", WHICH IS MUCH" };
    let not_kept = if *is_kept { "" } else { ", AND ITS FILE DOES NOT FAIL SO" };
    format!(
        "\n{:33} {of}{before} made {after}, at most {bound}: {faults} faults, {commands} commands, {machines} machines, \
         {lost} lost messages, in {runs} runs{too_large}{not_kept}",
        ""
    )
}
