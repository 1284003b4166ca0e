//! What `bench catchup` found: one JSON document, or a table with medians.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::super::output;

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How many commands were put in: an entry each.
    pub entries: u64,
    /// How joiners were to catch up.
    pub mode: Mode,
    /// The node that was there before.
    pub leader: Leader,
    /// Those that joined one after another, each with an empty disk.
    pub joiners: Vec<Joiner>,
    /// Those that joined at the same moment, each with an empty disk.
    pub together: Vec<Joiner>,
    /// The hash of the state on the leader at the end.
    pub state_hash: String,
    /// Whether every node had the leader's state hash at the leader's index, each time that all had joined.
    pub equal: bool,
}

/// How joiners are to catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By the newest snapshot and the log after it.
    Snapshot,
    /// By the whole log.
    Log,
}

/// The node that was there before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leader {
    /// Commands acknowledged a second, each synced, from the first one sent to the last answer.
    pub acked_per_s: u64,
    /// What its log and snapshots take on the disk, in bytes.
    pub log_bytes: u64,
    /// The most memory it held; none where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
}

/// A node that joined.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Joiner {
    /// How it caught up, as it says; none if it found nothing to catch up with.
    pub path: Option<String>,
    /// From the start of its process until `/readyz` said 200.
    pub start_to_ready_ms: f64,
    /// From its request until the last entry of the head at that time was applied, as it measured.
    pub request_to_applied_ms: Option<f64>,
    /// The snapshot's size as it was sent.
    pub snapshot_bytes: u64,
    /// Entries applied from the log, one by one.
    pub tail_entries: u64,
    /// The most memory it held; none where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
}

impl Joiner {
    /// Out of its own cluster document.
    pub fn new(cluster: &Value, ready: Duration, peak_rss_bytes: Option<u64>) -> Joiner {
        // The last one: what came before it did not bring the node to the head.
        let catch_up = cluster["catch_ups"].as_array().and_then(|all| all.last()).unwrap_or(&Value::Null);
        Joiner {
            path: catch_up["path"].as_str().map(ToOwned::to_owned),
            start_to_ready_ms: millis(ready.as_micros() as u64),
            request_to_applied_ms: catch_up["requested_to_applied_us"].as_u64().map(millis),
            snapshot_bytes: catch_up["snapshot_bytes"].as_u64().unwrap_or_default(),
            tail_entries: catch_up["tail_entries"].as_u64().unwrap_or_default(),
            peak_rss_bytes,
        }
    }
}

impl Report {
    /// Prints it for people.
    pub fn tell(&self) -> std::io::Result<()> {
        let way = match self.mode {
            Mode::Snapshot => "snapshot and log",
            Mode::Log => "log alone",
        };
        output::line(&format!(
            "{} entries, put in at {}/s; {} on the leader's disk; catching up by {way}.\n",
            output::count(self.entries),
            output::count(self.leader.acked_per_s),
            output::bytes(self.leader.log_bytes),
        ))?;
        let mut table = output::table([
            "joiner",
            "path",
            "start to ready",
            "request to applied",
            "snapshot",
            "log entries",
            "peak memory",
        ]);
        for (group, joiners) in [("alone", &self.joiners), ("together", &self.together)] {
            for (n, joiner) in joiners.iter().enumerate() {
                table.add_row(joiner.row(&format!("{group} {}", n + 1)));
            }
            let ready = median(joiners.iter().map(|joiner| joiner.start_to_ready_ms));
            let applied = median(joiners.iter().filter_map(|joiner| joiner.request_to_applied_ms));
            table.add_row([&format!("{group}, median"), "", &shown_millis(ready), &shown_millis(applied), "", "", ""]);
        }
        output::print_table(&table)?;
        output::line(&match self.equal {
            true => format!("\nAll nodes have the same state, {}.", output::short(&self.state_hash)),
            false => "\nThe states DIFFER.".to_owned(),
        })
    }
}

impl Joiner {
    fn row(&self, name: &str) -> [String; 7] {
        [
            name.to_owned(),
            self.path.clone().unwrap_or_else(|| "-".into()),
            shown_millis(Some(self.start_to_ready_ms)),
            shown_millis(self.request_to_applied_ms),
            output::bytes(self.snapshot_bytes),
            output::count(self.tail_entries),
            self.peak_rss_bytes.map_or_else(|| "-".into(), output::bytes),
        ]
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn shown_millis(millis: Option<f64>) -> String {
    millis.map_or_else(|| "-".into(), |millis| format!("{millis:.1} ms"))
}

/// The one in the middle, or halfway between the two there.
fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        even if even.is_multiple_of(2) => Some((figures[middle - 1] + figures[middle]) / 2.0),
        _ => Some(figures[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn a_joiner_is_read_from_its_own_document() {
        let cluster = serde_json::json!({"catch_ups": [
            {"path": "log", "requested_to_applied_us": 1, "snapshot_bytes": 0, "tail_entries": 3},
            {"path": "snapshot", "requested_to_applied_us": 21_500, "snapshot_bytes": 7, "tail_entries": 40},
        ]});
        let joiner = Joiner::new(&cluster, Duration::from_micros(81_250), Some(5));
        assert_eq!(
            serde_json::to_value(joiner).unwrap(),
            serde_json::json!({
                "path": "snapshot", "start_to_ready_ms": 81.25, "request_to_applied_ms": 21.5, "snapshot_bytes": 7,
                "tail_entries": 40, "peak_rss_bytes": 5,
            })
        );
        assert_eq!(Joiner::new(&Value::Null, Duration::ZERO, None).path, None);
    }
}
