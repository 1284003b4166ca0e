//! The replicated state: plain data behind persistent maps, so that a clone costs nothing. `apply` alone changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use lockstep_replication::{Hash, NodeId, Wall};
use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, ModelId, RunnerId};
use crate::tasks::Tasks;

/// What all nodes agree on. Serialises canonically: equal states give equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The nodes that joined or were announced, and were not evicted.
    pub nodes: OrdMap<NodeId, Arc<Node>>,
    /// Which neighbours each node reaches; no entry for a node that reaches none.
    pub links: OrdMap<NodeId, Arc<BTreeSet<NodeId>>>,
    /// The models that instances can be made of.
    pub cards: OrdMap<ModelId, Arc<ModelCard>>,
    /// The models that are, or should be, loaded somewhere.
    pub instances: OrdMap<InstanceId, Arc<Instance>>,
    /// The runners of all instances.
    pub runners: OrdMap<RunnerId, Arc<Runner>>,
    /// The tasks that have not ended. One that ended leaves, and is counted in its instance.
    pub tasks: Tasks,
}

/// A machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What it, or the operator, said of it last.
    pub info: NodeInfo,
    /// Whether it is there.
    pub status: NodeStatus,
    /// When it came into the state.
    pub joined: Wall,
}

/// What a node says of itself. It changes rarely; what changes all the time is telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeInfo {
    /// For people.
    pub name: String,
    /// Where its runners can be reached by those of other nodes, best first.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// All memory that models could use, in bytes; 0 if it is not known.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// The leader hears it.
    Up,
    /// It fell silent. No new work goes there; what it holds is kept until it is evicted.
    Lost {
        /// When the leader gave it up.
        since: Wall,
    },
    /// The operator described it, and it was never heard. Instances can be made for it to find when it comes.
    Announced,
}

/// What must be known of a model to place it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// For people.
    pub name: String,
    /// The size of its weights, in bytes.
    pub weights_bytes: u64,
    /// How many layers it has: the most ranks that an instance can have.
    pub layers: u32,
    /// The longest context, in tokens.
    pub context_tokens: u32,
    /// Whether an operator added it: each node keeps a copy of a custom card on its disk.
    #[serde(default)]
    pub custom: bool,
    /// Which runner serves it: `echo`, `openai`, or one that the nodes' own configuration names. A card never holds a
    /// command line: clients may add cards.
    #[serde(default = "echo")]
    pub runner: String,
    /// What its runners are told beside: where a server listens, how fast to echo.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

fn echo() -> String {
    "echo".to_owned()
}

/// A model on its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which model.
    pub model: ModelId,
    /// Its parts, in order: they connect, load and warm up in this order.
    pub ranks: Vec<Rank>,
    /// When it was created.
    pub created: Wall,
    /// Its tasks, by what became of them.
    pub tasks: TaskCounts,
}

/// One part of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rank {
    /// The node that holds it.
    pub node: NodeId,
    /// The process that runs it.
    pub runner: RunnerId,
}

/// How many tasks an instance has and had. Kept as they come and go, so that routing looks at no task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// In the state now.
    pub live: u32,
    /// Ended well.
    pub done: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Called off.
    pub cancelled: u64,
}

/// The process that runs one rank of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// Whose part it runs.
    pub instance: InstanceId,
    /// The node that supervises it.
    pub node: NodeId,
    /// How far it is, as that node said last.
    pub status: RunnerStatus,
}

/// The life of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerStatus {
    /// It should be there; no process does anything for it yet.
    Idle,
    /// It looks for the runners of the other ranks.
    Connecting,
    /// All ranks are connected.
    Connected,
    /// It loads its layers.
    Loading {
        /// How much of them, 0 to 100.
        percent: u8,
    },
    /// Its layers are in memory.
    Loaded,
    /// It runs a first, empty task.
    WarmingUp,
    /// It waits for tasks.
    Ready,
    /// It works on a task.
    Running,
    /// It was told to end.
    ShuttingDown,
    /// It ended as told.
    ShutDown,
    /// It ended on its own.
    Failed {
        /// Why, as a sentence.
        reason: String,
    },
}

/// A piece of work that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Who does it.
    pub instance: InstanceId,
    /// What it is.
    pub kind: TaskKind,
    /// What it is about.
    pub input: InputName,
    /// The node whose client waits for the answer, and that has the input; if none, nobody waits.
    pub gateway: Option<NodeId>,
    /// How far it is.
    pub status: TaskStatus,
    /// When it was created.
    pub created: Wall,
}

/// What a task asks of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskKind {
    /// To go on with a conversation.
    Chat {
        /// To stop after so many tokens.
        max_tokens: u32,
    },
    /// To turn text into a vector.
    Embedding,
    /// To draw a picture.
    Image {
        /// In so many steps.
        steps: u32,
    },
}

/// The name of a task's input. The input itself travels beside the log and is never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputName {
    /// Its SHA-256.
    pub hash: Hash,
    /// Its size in bytes.
    pub bytes: u64,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// No runner has begun it.
    Pending,
    /// Its instance works on it.
    Running,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskOutcome {
    /// Well.
    Done {
        /// After so many tokens, or steps of a picture.
        tokens: u64,
    },
    /// With an error.
    Failed {
        /// Why, as a sentence.
        reason: String,
    },
}

impl State {
    /// The available instance of this model with the fewest live tasks, the smallest id among equals. One that still
    /// loads comes after all that are ready: a task would wait there while others could take it.
    ///
    /// It looks at each instance and at no task. An instance is a model in somebody's memory: there are tens of them.
    pub fn least_loaded(&self, model: &ModelId) -> Option<InstanceId> {
        self.instances
            .iter()
            .filter(|(_, instance)| instance.model == *model && self.is_available(instance))
            .min_by_key(|(id, instance)| (!self.is_ready(instance), instance.tasks.live, **id))
            .map(|(id, _)| *id)
    }

    /// Whether new tasks may go to an instance: none of its nodes is lost and none of its runners has failed.
    ///
    /// A failed runner fails its tasks at once, so its instance would look idle and draw all new ones to itself.
    pub fn is_available(&self, instance: &Instance) -> bool {
        instance.ranks.iter().all(|rank| {
            let lost = |node: &Arc<Node>| matches!(node.status, NodeStatus::Lost { .. });
            let failed = |runner: &Arc<Runner>| matches!(runner.status, RunnerStatus::Failed { .. });
            self.nodes.get(&rank.node).is_some_and(|node| !lost(node))
                && self.runners.get(&rank.runner).is_some_and(|runner| !failed(runner))
        })
    }

    /// Whether each of an instance's runners waits for tasks, or works on one.
    pub fn is_ready(&self, instance: &Instance) -> bool {
        instance.ranks.iter().all(|rank| {
            let status = self.runners.get(&rank.runner).map(|runner| &runner.status);
            matches!(status, Some(RunnerStatus::Ready | RunnerStatus::Running))
        })
    }

    /// The instances that have a rank on this node.
    pub fn instances_on(&self, node: NodeId) -> impl Iterator<Item = InstanceId> {
        let has_rank = move |instance: &Instance| instance.ranks.iter().any(|rank| rank.node == node);
        self.instances.iter().filter(move |(_, instance)| has_rank(instance)).map(|(id, _)| *id)
    }
}
