//! `bench`: how fast the simulator is on the loads whose figures are kept.

use clap::Args;
use lockstep_sim::Plan;
use lockstep_sim::bench::{self, Measured};
use lockstep_sim::run::{Options, run};
use serde::Serialize;

use crate::Verdict;

/// Measure the simulator, with all checks on
#[derive(Args, Clone, Debug)]
pub(crate) struct Bench {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    dense: Rate,
    sparse: Virtual,
    nodes_50: Rate,
    catchup: Cpu,
    catchup_by_log: Cpu,
    peak_rss_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Rate {
    events_per_cpu_s: f64,
}

#[derive(Serialize)]
struct Virtual {
    virtual_per_cpu: f64,
}

#[derive(Serialize)]
struct Cpu {
    cpu_s: f64,
}

/// Seeds of the swarm after which the memory of a seed is known.
const SEEDS: u64 = 20;

impl Bench {
    pub(crate) fn execute(self) -> anyhow::Result<Verdict> {
        let rate = |measured: Measured| Rate { events_per_cpu_s: (measured.steps as f64 / measured.cpu_s).round() };
        // First, since the peak only grows.
        (0..SEEDS).for_each(|seed| drop(run(&Plan::drawn(seed), &Options::default())));
        let peak_rss_bytes = peak_memory();
        let sparse = bench::sparse(10, clock)?;
        let figures = Figures {
            dense: rate(bench::dense(10, clock)?),
            sparse: Virtual { virtual_per_cpu: (sparse.virtual_s / sparse.cpu_s).round() },
            nodes_50: rate(bench::dense(50, clock)?),
            catchup: Cpu { cpu_s: bench::catch_up(true, clock)?.cpu_s },
            catchup_by_log: Cpu { cpu_s: bench::catch_up(false, clock)?.cpu_s },
            peak_rss_bytes,
        };
        if self.json {
            say!("{}", serde_json::to_string_pretty(&figures)?);
            return Ok(Verdict::Held);
        }
        say!("dense, 10 nodes, 64-byte commands   {:>12.0} inputs a CPU-second", figures.dense.events_per_cpu_s);
        say!("dense, 50 nodes                     {:>12.0} inputs a CPU-second", figures.nodes_50.events_per_cpu_s);
        say!("10 idle nodes for an hour           {:>12.0} times as fast as it lasts", figures.sparse.virtual_per_cpu);
        say!("three catch up with 100000 entries  {:>12.3} CPU-seconds by snapshot", figures.catchup.cpu_s);
        say!("                                    {:>12.3} CPU-seconds by log", figures.catchup_by_log.cpu_s);
        if let Some(bytes) = figures.peak_rss_bytes {
            say!("{SEEDS} seeds of the swarm, one by one   {:>12} at most", super::bytes(bytes));
        }
        Ok(Verdict::Held)
    }
}

/// The processor time of this thread, in seconds.
fn clock() -> f64 {
    super::thread_time().as_secs_f64()
}

/// The most memory that this process had so far, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
