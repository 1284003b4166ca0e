//! A run as data: machines, models and how their runners behave, what operators and clients ask for, what goes wrong.
//!
//! A scenario's file is such a plan, with `world = "inference"`. Times count from the beginning of the run.

use std::collections::BTreeMap;

use lockstep_inference::gateway::GatewayConfig;
use lockstep_inference::worker::WorkerConfig;
use lockstep_replication::{Config, Span};
use serde::{Deserialize, Serialize};

pub use crate::faults::Who;
pub use crate::plan::Weather;
pub use crate::scenario::Band;

/// Which world plays a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorldName {
    /// This one.
    #[default]
    Inference,
}

/// Everything that a run is made of. The same plan gives the same run, event by event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Says which world plays it.
    #[serde(default)]
    pub world: WorldName,
    /// What happens, in a line.
    pub title: String,
    /// Why it exists: what broke once, or must never break.
    pub why: String,
    /// Whose report it replays, if one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// Where all draws come from, if the command line names no other.
    #[serde(default)]
    pub seed: u64,
    /// Machines 1 to this one start at once, and found the cluster.
    pub nodes: u16,
    /// When faults, operators and clients stop.
    pub quiet_from: Span,
    /// Machines that start later: their numbers go on from `nodes`.
    #[serde(default, rename = "joiner", skip_serializing_if = "Vec::is_empty")]
    pub joiners: Vec<Joiner>,
    /// What differs from a node's defaults.
    #[serde(default)]
    pub config: Config,
    /// What differs from a worker's defaults.
    #[serde(default)]
    pub worker: WorkerConfig,
    /// What differs from a gateway's defaults.
    #[serde(default)]
    pub gateway: GatewayConfig,
    /// What the network is like, until faults stop.
    #[serde(default)]
    pub weather: Weather,
    /// The models.
    #[serde(rename = "model")]
    pub models: Vec<Model>,
    /// The instances that operators create.
    #[serde(rename = "instance")]
    pub instances: Vec<Instance>,
    /// What clients do.
    #[serde(default, rename = "load", skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<Load>,
    /// What goes wrong, and what operators do.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Timed>,
    /// How far the run's counters go, beside what the checks demand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect: BTreeMap<String, Band>,
}

/// A machine that starts later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joiner {
    /// When.
    pub starts: Span,
}

/// A model, and how its runners behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Whether an operator added it.
    #[serde(default)]
    pub custom: bool,
    /// How long its runners load.
    #[serde(default = "loads")]
    pub loads: Span,
    /// How long they take for a token.
    #[serde(default = "token_every")]
    pub token_every: Span,
    /// On how many tasks they work at the same time.
    #[serde(default = "at_once")]
    pub at_once: u32,
    /// Each runner dies so long after it was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dies_after: Option<Span>,
    /// Each runner dies while it loads.
    #[serde(default)]
    pub dies_loading: bool,
}

/// An instance, named by its place in the list, from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// When it is created.
    pub at: Span,
    /// Its model.
    pub model: String,
    /// The machines of its ranks; none: the leader places one rank.
    #[serde(default)]
    pub nodes: Vec<u16>,
}

/// What clients do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// When the first asks.
    pub from: Span,
    /// When no more ask.
    pub until: Span,
    /// How long from one to the next, about.
    pub every: Span,
    /// Whom they ask; anybody if empty.
    #[serde(default)]
    pub nodes: Vec<u16>,
    /// For which model.
    pub model: String,
    /// The most tokens that an answer has.
    #[serde(default = "tokens")]
    pub tokens: u64,
    /// The most bytes that a request has.
    #[serde(default = "request_bytes")]
    pub request_bytes: u64,
    /// How many in a thousand read too slowly.
    #[serde(default)]
    pub slow: u64,
    /// How many in a thousand hang up in the middle.
    #[serde(default)]
    pub hang_up: u64,
}

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// When.
    pub at: Span,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What goes wrong, and what operators do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// A node is killed with all that it started, and starts again.
    Crash {
        /// Which.
        node: Who,
        /// After so long.
        down: Span,
    },
    /// These machines and the others do not reach each other.
    Partition {
        /// One side.
        nodes: Vec<u16>,
        /// How long.
        lasts: Span,
    },
    /// The next write to a disk fails: its node ends, and starts again.
    DiskFails {
        /// Of this machine.
        node: u16,
    },
    /// Writes to a disk take a hundred times as long.
    DiskSlow {
        /// Of this machine.
        node: u16,
        /// How long.
        lasts: Span,
    },
    /// Runners are killed.
    KillRunners {
        /// On this machine.
        node: u16,
    },
    /// Runners do and say nothing any more.
    HangRunners {
        /// On this machine.
        node: u16,
    },
    /// Runners print something that is not of the protocol.
    GarbageOfRunners {
        /// On this machine.
        node: u16,
    },
    /// An operator deletes an instance.
    DeleteInstance {
        /// Its place in the list of instances.
        instance: u16,
    },
    /// An operator adds a custom card of a model that nothing uses.
    AddCard {
        /// Its name.
        model: String,
    },
    /// An operator deletes it.
    DeleteCard {
        /// Its name.
        model: String,
    },
}

impl Plan {
    /// How many machines there ever are.
    pub fn machines(&self) -> usize {
        usize::from(self.nodes) + self.joiners.len()
    }

    /// A model's behaviour.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }
}

fn loads() -> Span {
    Span::seconds(2)
}

fn token_every() -> Span {
    Span::millis(20)
}

fn at_once() -> u32 {
    4
}

fn tokens() -> u64 {
    100
}

fn request_bytes() -> u64 {
    2_000
}
