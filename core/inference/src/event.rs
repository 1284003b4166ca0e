//! The durable events: what happened, in the past tense. `apply` says what each does to the state.

use std::collections::BTreeSet;

use lockstep_replication::NodeId;
use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, ModelId, RunnerId, TaskId};
use crate::state::{InputName, ModelCard, NodeInfo, Rank, RunnerStatus, TaskKind, TaskOutcome, TaskStatus};

/// A change of the state. New kinds go to the end: logs hold the number of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A node was heard for the first time, or for the first time since it was evicted.
    NodeJoined {
        /// The node.
        node: NodeId,
    },
    /// A node, or the operator for it, told something new of it. One that is not there yet becomes announced.
    NodeInfoChanged {
        /// The node.
        node: NodeId,
        /// All of its information.
        info: NodeInfo,
    },
    /// A node fell silent: no new work goes there.
    NodeTimedOut {
        /// The node.
        node: NodeId,
    },
    /// A node that fell silent was heard again.
    NodeReturned {
        /// The node.
        node: NodeId,
    },
    /// A node was given up. Its instances were deleted by events before this one.
    NodeEvicted {
        /// The node.
        node: NodeId,
    },
    /// A node reaches other neighbours than before.
    LinksChanged {
        /// The node.
        node: NodeId,
        /// All neighbours that it reaches.
        reaches: BTreeSet<NodeId>,
    },
    /// A model became known.
    CardAdded {
        /// The model.
        model: ModelId,
        /// What it is.
        card: ModelCard,
    },
    /// A model is no longer to be used.
    CardDeleted {
        /// The model.
        model: ModelId,
    },
    /// An instance is to run on these nodes.
    InstanceCreated {
        /// The instance.
        instance: InstanceId,
        /// Its model.
        model: ModelId,
        /// Its parts.
        ranks: Vec<Rank>,
    },
    /// An instance is to end; its runners and live tasks went with it.
    InstanceDeleted {
        /// The instance.
        instance: InstanceId,
    },
    /// A runner went on in its life.
    RunnerStatusChanged {
        /// The runner.
        runner: RunnerId,
        /// How far it is now.
        status: RunnerStatus,
    },
    /// A task was given to an instance.
    TaskCreated {
        /// The task.
        task: TaskId,
        /// The instance that the leader chose.
        instance: InstanceId,
        /// What it is.
        kind: TaskKind,
        /// What it is about.
        input: InputName,
        /// The node whose client waits for the answer.
        gateway: Option<NodeId>,
    },
    /// A task went on.
    TaskStatusChanged {
        /// The task.
        task: TaskId,
        /// How far it is now.
        status: TaskStatus,
    },
    /// A task was called off, and left the state.
    TaskCancelled {
        /// The task.
        task: TaskId,
    },
    /// A task ended, and left the state.
    TaskFinished {
        /// The task.
        task: TaskId,
        /// How it ended.
        outcome: TaskOutcome,
    },
    /// A task was taken out of the state, and counts as nothing.
    TaskDeleted {
        /// The task.
        task: TaskId,
    },
}
