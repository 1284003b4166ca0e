//! The commands, one file each, and what they share.

pub(crate) mod bench;
pub(crate) mod mutants;
pub(crate) mod run;
pub(crate) mod shrink;
pub(crate) mod sweep;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use lockstep_replication::chaos::Mutant;
use lockstep_sim::Plan;
use lockstep_sim::run::Options;
use lockstep_sim::scenario::Scenario;

/// Which runs: those of a scenario, or those that seeds draw.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// A scenario's file
    scenario: Option<PathBuf>,
    /// What the seeds draw: how many nodes, which faults, which limits and timings
    #[arg(long)]
    swarm: bool,
}

/// The runs of a source.
#[derive(Clone, Debug)]
pub(crate) enum Runs {
    Scenario(Box<Scenario>, String),
    Swarm,
}

impl Source {
    pub(crate) fn open(&self) -> anyhow::Result<Runs> {
        let Some(path) = &self.scenario else { return Ok(Runs::Swarm) };
        let name = path.file_stem().context("the scenario's file has no name")?.to_string_lossy().into_owned();
        Ok(Runs::Scenario(Box::new(Scenario::read(path)?), name))
    }
}

impl Runs {
    /// What the source is called.
    pub(crate) fn name(&self) -> &str {
        match self {
            Runs::Scenario(_, name) => name,
            Runs::Swarm => "swarm",
        }
    }

    /// What a seed stands for.
    pub(crate) fn plan(&self, seed: u64) -> Plan {
        match self {
            Runs::Scenario(scenario, _) => scenario.plan(seed),
            Runs::Swarm => Plan::drawn(seed),
        }
    }

    /// What is asked of a run beside its plan.
    pub(crate) fn options(&self, mutant: Option<Mutant>) -> anyhow::Result<Options> {
        let mut options = Options { mutant, ..Options::default() };
        if let Runs::Scenario(scenario, _) = self {
            options.phase_ends = scenario.phase_ends();
            if let Some(name) = &scenario.mutant {
                options.mutant = Some(planted(name)?);
            }
        }
        Ok(options)
    }
}

/// The deliberate breakage of this name.
pub(crate) fn planted(name: &str) -> anyhow::Result<Mutant> {
    Mutant::named(name).with_context(|| format!("there is no mutant {name:?}: `cargo sim mutants --list` names them all"))
}

/// The processor time that this thread took so far.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A number for people: its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join("\u{202f}")
}

/// Bytes for people.
pub(crate) fn bytes(number: u64) -> String {
    match number {
        0..10_000 => format!("{} B", count(number)),
        10_000..10_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        _ => format!("{:.1} MB", number as f64 / 1e6),
    }
}
