//! What this machine is and how busy it is, told to the node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_inference::observation::Observation;
use lockstep_inference::state::NodeInfo;
use lockstep_inference::telemetry::Telemetry;
use lockstep_replication::Input;
use tokio_util::sync::CancellationToken;

use crate::handle::NodeHandle;

/// As often as the node beats: each beat carries it.
const EVERY: Duration = Duration::from_secs(1);

/// Observes this machine once, then tells its load until the node leaves. `data` is where the node keeps its files.
/// `runners` are those that it has programs for.
pub(super) async fn report(
    node: NodeHandle,
    name: String,
    data: PathBuf,
    runners: BTreeSet<String>,
    shutdown: CancellationToken,
) {
    let memory = Memory::read();
    let info = NodeInfo { name, memory_bytes: memory.total, ..NodeInfo::default() };
    let _ = node.input(Input::Observe(Observation::Info(info))).await;
    let mut processor = Processor::read();
    while !shutdown.is_cancelled() {
        let (memory, now) = (Memory::read(), Processor::read());
        let telemetry = Telemetry {
            memory_total_bytes: memory.total,
            memory_free_bytes: memory.available,
            cpu_percent: now.busy_since(processor),
            disk_free_bytes: disk_free(&data),
            runners: runners.clone(),
        };
        processor = now;
        if node.input(Input::Telemetry(telemetry)).await.is_err() {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Bytes of memory, from the kernel; zeros where it does not say.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    total: u64,
    available: u64,
}

impl Memory {
    fn read() -> Memory {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
        };
        let bytes = |name| kilobytes(name).unwrap_or_default() * 1024;
        Memory { total: bytes("MemTotal"), available: bytes("MemAvailable") }
    }
}

/// Bytes that are free to this process on the disk of a folder; 0 where the system does not say.
fn disk_free(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Ticks that the processors worked and were there, since the machine started.
#[derive(Clone, Copy, Debug, Default)]
struct Processor {
    busy: u64,
    all: u64,
}

impl Processor {
    fn read() -> Processor {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // The fourth and fifth are idle and waiting for the disk.
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        let all: u64 = ticks.iter().take(8).sum();
        Processor { busy: all.saturating_sub(idle), all }
    }

    fn busy_since(self, earlier: Processor) -> u8 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        (self.busy.saturating_sub(earlier.busy) * 100 / all).min(100) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_measured() {
        let memory = Memory::read();
        assert!(memory.total > 0 && (1..=memory.total).contains(&memory.available), "{memory:?}");
        assert!(disk_free(Path::new(".")) > 0);
        assert_eq!(disk_free(Path::new("no such folder")), 0);
        let busy = |busy, all| Processor { busy, all };
        assert_eq!(busy(175, 400).busy_since(busy(100, 300)), 75);
        assert_eq!(busy(100, 300).busy_since(busy(100, 300)), 0);
    }
}
