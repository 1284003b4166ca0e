//! The commands: what clients ask for, in the imperative. `decide` grants or refuses them.

use lockstep_replication::NodeId;
use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, ModelId, TaskId};
use crate::state::{InputName, ModelCard, NodeInfo, TaskKind, TaskOutcome};

/// What a client asks for. In JSON: `{"cancel_task": {"task": "…"}}`.
///
/// New kinds go to the end, and fields too: nodes send commands to each other in a form that knows no names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Describe a node. One that is not there yet becomes announced.
    SetNodeInfo {
        /// The node.
        node: NodeId,
        /// All of its information.
        info: NodeInfo,
    },
    /// Give up a node that is not up, with all that it holds.
    EvictNode {
        /// The node.
        node: NodeId,
    },
    /// Make a model known.
    AddCard {
        /// The model.
        model: ModelId,
        /// What it is.
        card: ModelCard,
    },
    /// Forget a model that no instance is made of.
    DeleteCard {
        /// The model.
        model: ModelId,
    },
    /// Run a model on these nodes, one rank each, in this order.
    CreateInstance {
        /// Its id; [`Command::fill_ids`] draws one if the client gives none.
        #[serde(default)]
        instance: Option<InstanceId>,
        /// The model.
        model: ModelId,
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// End an instance, its runners and its tasks.
    DeleteInstance {
        /// The instance.
        instance: InstanceId,
    },
    /// Give a task to the least-loaded instance of a model.
    CreateTask {
        /// Its id; [`Command::fill_ids`] draws one if the client gives none.
        #[serde(default)]
        task: Option<TaskId>,
        /// The model.
        model: ModelId,
        /// What it is.
        kind: TaskKind,
        /// What it is about; the input itself travels beside the log.
        input: InputName,
        /// The node whose client waits for the answer, and that has the input.
        #[serde(default)]
        gateway: Option<NodeId>,
    },
    /// A runner began a task.
    StartTask {
        /// The task.
        task: TaskId,
    },
    /// A task ended. It leaves the state and is counted in its instance.
    FinishTask {
        /// The task.
        task: TaskId,
        /// How it ended.
        outcome: TaskOutcome,
    },
    /// Call a task off. It leaves the state; whoever works on it finds it gone and stops.
    CancelTask {
        /// The task.
        task: TaskId,
    },
    /// Take a task out of the state whose client and runner are both gone. It counts as nothing.
    DeleteTask {
        /// The task.
        task: TaskId,
    },
    /// Run a model where there is room for it; the leader chooses the nodes.
    PlaceInstance {
        /// Its id; [`Command::fill_ids`] draws one if the client gives none.
        #[serde(default)]
        instance: Option<InstanceId>,
        /// The model.
        model: ModelId,
        /// On how many nodes, one rank each; if none is said, on as few as have room.
        #[serde(default)]
        ranks: Option<u32>,
    },
}

impl Command {
    /// Puts fresh ids where the client gave none. `decide` draws nothing: it must come out the same each time.
    pub fn fill_ids(&mut self, fresh: impl FnOnce() -> [u8; 16]) {
        match self {
            Command::CreateInstance { instance: id @ None, .. }
            | Command::PlaceInstance { instance: id @ None, .. } => {
                *id = Some(InstanceId(fresh()));
            }
            Command::CreateTask { task: id @ None, .. } => *id = Some(TaskId(fresh())),
            Command::CreateInstance { instance: Some(_), .. }
            | Command::PlaceInstance { instance: Some(_), .. }
            | Command::CreateTask { task: Some(_), .. }
            | Command::SetNodeInfo { .. }
            | Command::EvictNode { .. }
            | Command::AddCard { .. }
            | Command::DeleteCard { .. }
            | Command::DeleteInstance { .. }
            | Command::StartTask { .. }
            | Command::FinishTask { .. }
            | Command::CancelTask { .. }
            | Command::DeleteTask { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_id_is_drawn_and_a_given_one_is_kept() {
        let mut command: Command = serde_json::from_str(
            r#"{"create_instance": {"model": "m", "nodes": []}}"#, // as a client writes it
        )
        .unwrap();
        command.fill_ids(|| [1; 16]);
        command.fill_ids(|| [2; 16]);
        let Command::CreateInstance { instance, .. } = command else { panic!("another command") };
        assert_eq!(instance, Some(InstanceId([1; 16])));
    }

    #[test]
    fn a_mistyped_field_is_an_error_and_not_a_default() {
        let text = r#"{"create_instance": {"instanec": "00", "model": "m", "nodes": []}}"#;
        let error = serde_json::from_str::<Command>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `instanec`"), "{error}");
    }
}
