//! The commands, one file each, and what they share.

/// A line on standard output, as by `println!`; it is lost where nobody reads any more, and the verdict stays what it is.
macro_rules! say {
    ($($word:tt)*) => {
        $crate::commands::say(format_args!($($word)*))
    };
}

pub(crate) mod bench;
pub(crate) mod mutants;
pub(crate) mod run;
pub(crate) mod shrink;
pub(crate) mod sweep;

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use lockstep_replication::chaos::Mutant;
use lockstep_sim::report::Report;
use lockstep_sim::run::{Options, run};
use lockstep_sim::scenario::Scenario;
use lockstep_sim::{Plan, inference};

fn say(line: fmt::Arguments<'_>) {
    if let Err(error) = writeln!(io::stdout(), "{line}")
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("error: standard output cannot be written: {error}");
        std::process::exit(2);
    }
}

/// Which runs: those of a scenario, or those that seeds draw.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// A scenario's file
    scenario: Option<PathBuf>,
    /// What the seeds draw: how many nodes, which faults, which limits and timings
    #[arg(long)]
    swarm: bool,
    /// The same for whole inference clusters: workers, gateways, runners and clients too
    #[arg(long)]
    inference: bool,
}

/// The runs of a source.
#[derive(Clone, Debug)]
pub(crate) enum Runs {
    Scenario(Box<Scenario>, String),
    Swarm,
    /// A scenario of the world of inference clusters.
    Inference(Box<inference::Plan>, String),
    InferenceSwarm,
}

impl Source {
    pub(crate) fn open(&self) -> anyhow::Result<Runs> {
        match &self.scenario {
            Some(path) => Runs::open(path),
            None if self.inference => Ok(Runs::InferenceSwarm),
            None => Ok(Runs::Swarm),
        }
    }
}

impl Runs {
    /// The runs of a scenario's file, whichever world plays it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Runs> {
        let name = path.file_stem().context("the scenario's file has no name")?.to_string_lossy().into_owned();
        if inference::is_inference(path) {
            return Ok(Runs::Inference(Box::new(inference::Plan::read(path)?), name));
        }
        Ok(Runs::Scenario(Box::new(Scenario::read(path)?), name))
    }

    /// What the source is called.
    pub(crate) fn name(&self) -> &str {
        match self {
            Runs::Scenario(_, name) | Runs::Inference(_, name) => name,
            Runs::Swarm => "swarm",
            Runs::InferenceSwarm => "inference",
        }
    }

    /// Whether they are of the world of inference clusters.
    pub(crate) fn are_inference(&self) -> bool {
        matches!(self, Runs::Inference(..) | Runs::InferenceSwarm)
    }

    /// The seed that the source itself names.
    pub(crate) fn seed(&self) -> u64 {
        match self {
            Runs::Scenario(scenario, _) => scenario.seed,
            Runs::Inference(plan, _) => plan.seed,
            Runs::Swarm | Runs::InferenceSwarm => 0,
        }
    }

    /// Plays a seed, and holds what happened against what is expected.
    pub(crate) fn play(&self, seed: u64, options: &Options) -> Report {
        match self {
            Runs::Scenario(scenario, _) => {
                let mut report = run(&scenario.plan(seed), options);
                scenario.judge(&mut report);
                report
            }
            Runs::Swarm => run(&Plan::drawn(seed), options),
            Runs::Inference(plan, _) => inference::run(&inference::Plan { seed, ..(**plan).clone() }, options.detail),
            Runs::InferenceSwarm => inference::run(&inference::Plan::drawn(seed), options.detail),
        }
    }

    /// What a seed stands for, as a scenario's file.
    pub(crate) fn text(&self, seed: u64) -> anyhow::Result<String> {
        let title = format!("Seed {seed} of the {}", self.name());
        Ok(match self {
            Runs::Scenario(scenario, _) => Scenario::of(&scenario.plan(seed), &title, "Drawn.").to_toml(),
            Runs::Swarm => Scenario::of(&Plan::drawn(seed), &title, "Drawn.").to_toml(),
            Runs::Inference(plan, _) => toml::to_string(&inference::Plan { seed, ..(**plan).clone() })?,
            Runs::InferenceSwarm => toml::to_string(&inference::Plan::drawn(seed))?,
        })
    }

    /// What is asked of a run beside its plan.
    pub(crate) fn options(&self, mutant: Option<Mutant>) -> anyhow::Result<Options> {
        let mut options = Options { mutant, ..Options::default() };
        if let Runs::Scenario(scenario, _) = self {
            options.phase_ends = scenario.phase_ends();
            if let (None, Some(name)) = (mutant, &scenario.mutant) {
                options.mutant = Some(planted(name)?);
            }
        }
        Ok(options)
    }
}

/// The deliberate breakage of this name.
pub(crate) fn planted(name: &str) -> anyhow::Result<Mutant> {
    Mutant::named(name)
        .with_context(|| format!("there is no mutant {name:?}: `cargo sim mutants --list` names them all"))
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
