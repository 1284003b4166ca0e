//! `cargo sim shrink`: the smallest schedule that still fails, kept as a scenario.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::ProgressBar;
use lockstep_sim::shrink::{Failing, Size, Small};
use lockstep_sim::trace::Mixer;

use super::{Runs, Source, planted};
use crate::Verdict;

/// Makes a failing run small, and writes what is left as a scenario.
///
/// Faults, machines, commands, lost messages and odd settings are taken away for as long as the same check fails.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo sim shrink --swarm --seed 1234
  cargo sim shrink scenarios/leader-crash.toml --seed 7 --out small.toml")]
pub(crate) struct Shrink {
    #[command(flatten)]
    source: Source,
    /// The seed that fails
    #[arg(long, value_name = "N")]
    seed: u64,
    /// Plant this fault in all nodes
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// At most so many runs
    #[arg(long, value_name = "N", default_value_t = 2000)]
    runs: u64,
    /// Where the scenario goes [default: scenarios/regressions/CHECK-HASH.toml]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Shrink {
    pub(crate) fn execute(self) -> anyhow::Result<Verdict> {
        let mutant = self.mutant.as_deref().map(planted).transpose()?;
        let failing = match self.source.open()? {
            Runs::Inference(..) | Runs::InferenceSwarm => bail!("runs of inference clusters cannot be made small"),
            Runs::Swarm => Failing::of_seed(self.seed, mutant)?,
            Runs::Scenario(scenario, name) => {
                let its_own = scenario.mutant.as_deref().map(planted).transpose()?;
                Failing::of_scenario(&scenario, &name, self.seed, mutant.or(its_own))?
            }
        };
        let progress = ProgressBar::new(self.runs);
        let small = failing.shrink(self.runs, &|| progress.inc(1));
        progress.finish_and_clear();
        let Small { scenario, shrunk } = small.context("it does not fail twice: its runs differ")?;
        let text = scenario.to_toml();
        let mut mixer = Mixer::default();
        mixer.bytes(text.as_bytes());
        let default = format!("scenarios/regressions/{}-{:08x}.toml", shrunk.outcome.check, mixer.hash() as u32);
        let path = self.out.unwrap_or_else(|| default.into());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        if self.json {
            let size = |size: Size| {
                serde_json::json!({ "faults": size.faults, "commands": size.commands, "machines": size.machines,
                    "lost_messages": size.lost, "total": size.total() })
            };
            let document = serde_json::json!({
                "check": shrunk.outcome.check, "reason": scenario.title, "runs": shrunk.runs,
                "before": size(shrunk.before), "after": size(shrunk.after), "file": path,
            });
            say!("{document:#}");
        } else {
            say!("{}", scenario.title);
            say!("  before: {}", told(shrunk.before));
            say!("  after:  {}, in {} runs", told(shrunk.after), shrunk.runs);
            say!("  written to {}", path.display());
        }
        Ok(Verdict::Held)
    }
}

fn told(size: Size) -> String {
    let Size { faults, commands, machines, lost } = size;
    format!("{faults} faults, {commands} commands, {machines} machines, {lost} lost messages")
}
