//! What a node says of itself with each beat: kept by every node in memory, never in the log.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The load of a machine, and what it can run. All zeros and nothing until the node measured it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Memory that models could use, in bytes.
    pub memory_total_bytes: u64,
    /// How much of it is free.
    pub memory_free_bytes: u64,
    /// Free space where model weights are kept, in bytes.
    pub disk_free_bytes: u64,
    /// How busy its processors are, 0 to 100.
    pub cpu_percent: u8,
    /// The runners that it has a program for: at most [`limits::RUNNERS`](crate::limits::RUNNERS).
    pub runners: BTreeSet<String>,
}
