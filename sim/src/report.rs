//! What came of a run: the verdict, what was counted, and what scenarios ask about beside the laws.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replication::Span;
use lockstep_replication::chaos::PROBES;
use lockstep_replication::view::{Counters, FinishedCatchUp};

use crate::plan::Sent;
use crate::trace::Checkpoint;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The plan's seed.
    pub seed: u64,
    /// How it failed; none: it held.
    pub failure: Option<Failure>,
    /// The rolling hash over all inputs and outputs.
    pub trace_hash: u64,
    /// The hash on the way.
    pub checkpoints: Vec<Checkpoint>,
    /// How long it was, in the world's time.
    pub lasted: Span,
    /// How many inputs nodes took in.
    pub steps: u64,
    /// What happened.
    pub facts: Facts,
    /// How often each of [`PROBES`] was hit.
    pub probes: [u64; PROBES.len()],
    /// The commands that clients gave to nodes.
    pub commands: BTreeSet<u64>,
    /// The messages that the weather lost.
    pub lost_messages: BTreeSet<Sent>,
    /// The lines that were asked for.
    pub lines: Vec<String>,
}

/// How a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The check that says so.
    pub check: String,
    /// What it says.
    pub reason: String,
    /// When, in the world's time.
    pub at: Span,
    /// What each node says of itself at that time, a line each.
    pub nodes: String,
}

/// What happened in a run, as far as scenarios ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// How long it took all to agree after faults stopped.
    pub agreed_after: Span,
    /// What was counted, by name.
    pub counters: BTreeMap<&'static str, u64>,
    /// Entries that were ordered in each phase.
    pub entries_by_phase: Vec<u64>,
    /// Whom a leader counted as lost, and when.
    pub lost: Vec<(u16, Span)>,
    /// Catch-ups that ended, by node.
    pub caught_up: Vec<(u16, FinishedCatchUp)>,
    /// The state that all agree on in the end, in a line.
    pub final_state: String,
}

/// What the world itself counts.
pub const WORLD_COUNTERS: &[&str] = &[
    "steps",
    "events",
    "entries",
    "messages",
    "bytes",
    "messages_lost",
    "messages_dropped",
    "commands",
    "starts",
    "set_aside",
    "done",
    "done_by_few",
    "refused",
    "not_taken",
    "unknown",
];

/// The names of all counters.
pub fn counter_names() -> Vec<&'static str> {
    let nodes = Counters::default().all().into_iter().map(|(name, _, _)| name);
    WORLD_COUNTERS.iter().copied().chain(nodes).collect()
}

/// Whether there is a counter of this name.
pub fn is_counter(name: &str) -> bool {
    counter_names().contains(&name)
}
