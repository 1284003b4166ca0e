//! Why a command is not granted: sentences for its client that say what was wrong and what to do.

use lockstep_replication::NodeId;
use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, ModelId, RunnerId, TaskId};

macro_rules! refusals {
    ($($(#[$attribute:meta])+ $name:ident { $($(#[$doc:meta])+ $field:ident: $type:ty,)+ } = $code:literal,)+) => {
        /// A command was not granted. It changed nothing.
        ///
        /// New kinds go to the end: nodes send refusals to each other in a form that knows no names.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
        #[serde(rename_all = "snake_case")]
        pub enum Refusal {
            $($(#[$attribute])+ $name { $($(#[$doc])+ $field: $type,)+ },)+
        }

        impl Refusal {
            /// The kind of refusal, for programs. Stays the same when the sentence is put better.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Refusal::$name { .. } => $code,)+
                }
            }
        }
    };
}

refusals! {
    /// Text that must not be empty is.
    #[error("{what} is empty: give it at least one character")]
    Empty {
        /// Which text.
        what: String,
    } = "empty",
    /// Text is too long.
    #[error("{what} has {found} characters: shorten it to at most {limit}")]
    TooLong {
        /// Which text.
        what: String,
        /// Its length in characters.
        found: u64,
        /// The longest it may be.
        limit: u64,
    } = "too_long",
    /// Text would command a terminal.
    #[error("{what} holds a control character: leave line breaks and escapes out")]
    ControlCharacter {
        /// Which text.
        what: String,
    } = "control_character",
    /// A number must not be zero.
    #[error("{what} is 0: it must be at least 1")]
    Zero {
        /// Which number.
        what: String,
    } = "zero",
    /// A list is too long.
    #[error("there are {found} {what} in this command: give at most {limit}")]
    TooMany {
        /// What is listed.
        what: String,
        /// How many there are.
        found: u64,
        /// How many there may be.
        limit: u64,
    } = "too_many",
    /// The state holds as many as it may.
    #[error("the cluster holds {limit} {what}, which is the most it can: remove some, or wait until some are gone")]
    Full {
        /// Of what.
        what: String,
        /// How many.
        limit: u64,
    } = "full",
    /// No id was given or drawn.
    #[error("the command names no id for the {what}: give 32 hexadecimal digits, best drawn at random")]
    NoId {
        /// For what.
        what: String,
    } = "no_id",

    /// There is no such node.
    #[error("node {node} is not in the cluster: see the state's nodes for those that are")]
    UnknownNode {
        /// The node.
        node: NodeId,
    } = "unknown_node",
    /// The node is there.
    #[error("node {node} is up: stop it first, then evict it")]
    NodeUp {
        /// The node.
        node: NodeId,
    } = "node_up",
    /// The node is not there.
    #[error("node {node} is lost: wait until it is back, or choose another one")]
    NodeLost {
        /// The node.
        node: NodeId,
    } = "node_lost",

    /// There is no such model.
    #[error("model {model} has no card: add one first")]
    UnknownModel {
        /// The model.
        model: ModelId,
    } = "unknown_model",
    /// The model has another card.
    #[error("model {model} has another card already: delete that one first, or choose another id")]
    CardExists {
        /// The model.
        model: ModelId,
    } = "card_exists",
    /// Instances are made of the model.
    #[error("model {model} has instances, {instance} for one: delete them before its card")]
    ModelInUse {
        /// The model.
        model: ModelId,
        /// One of them.
        instance: InstanceId,
    } = "model_in_use",

    /// There is no such instance.
    #[error("there is no instance {instance}: it is gone, or never was")]
    UnknownInstance {
        /// The instance.
        instance: InstanceId,
    } = "unknown_instance",
    /// The id is taken.
    #[error("there is an instance {instance} already: choose another id")]
    InstanceExists {
        /// The instance.
        instance: InstanceId,
    } = "instance_exists",
    /// An id so close to another that their runners would have the same names.
    #[error("runner {runner} would belong to two instances: choose an instance id that differs in more than its end")]
    RunnerExists {
        /// The runner.
        runner: RunnerId,
    } = "runner_exists",
    /// No nodes were given.
    #[error("an instance of {model} needs at least one node: name the nodes to place it on")]
    NoNodes {
        /// The model.
        model: ModelId,
    } = "no_nodes",
    /// A node was given twice.
    #[error("node {node} is named twice: an instance has one rank on a node")]
    NodeTwice {
        /// The node.
        node: NodeId,
    } = "node_twice",
    /// More ranks than layers.
    #[error("model {model} has {layers} layers, too few for {ranks} ranks: name at most {layers} nodes")]
    TooFewLayers {
        /// The model.
        model: ModelId,
        /// How many layers it has.
        layers: u32,
        /// How many nodes were named.
        ranks: u64,
    } = "too_few_layers",

    /// The model runs nowhere.
    #[error("model {model} has no instance: create one first")]
    NoInstance {
        /// The model.
        model: ModelId,
    } = "no_instance",
    /// No instance of the model takes tasks now.
    #[error("no instance of {model} takes tasks now, each has a lost node or a failed runner: try again, or create another")]
    NoneAvailable {
        /// The model.
        model: ModelId,
    } = "none_available",
    /// There is no such task.
    #[error("there is no task {task}: it has ended, or never was")]
    UnknownTask {
        /// The task.
        task: TaskId,
    } = "unknown_task",
    /// The id is taken.
    #[error("there is a task {task} already: choose another id")]
    TaskExists {
        /// The task.
        task: TaskId,
    } = "task_exists",

    /// No node can be placed on.
    #[error("model {model} cannot be placed: none of the {nodes} nodes that are up has told yet how much memory it has; try again in some seconds")]
    NoneMeasured {
        /// The model.
        model: ModelId,
        /// How many nodes are up.
        nodes: u64,
    } = "none_measured",
    /// More ranks than nodes.
    #[error("model {model} as {ranks} ranks needs a node for each: {nodes} can be placed on{}; ask for fewer ranks, or add nodes", besides(*.unmeasured))]
    TooFewNodes {
        /// The model.
        model: ModelId,
        /// How many ranks were asked for.
        ranks: u32,
        /// How many nodes are up and told how much memory they have.
        nodes: u64,
        /// How many more are up.
        unmeasured: u64,
    } = "too_few_nodes",
    /// Not enough memory is free.
    #[error("model {model} needs {needs}; the most free is {free}{}: delete instances, add a node, or choose a smaller model", besides(*.unmeasured))]
    NoRoom {
        /// The model.
        model: ModelId,
        /// How much, on how many nodes.
        needs: String,
        /// How much is free, on which nodes, most first.
        free: String,
        /// How many nodes are up that did not tell yet how much memory they have.
        unmeasured: u64,
    } = "no_room",
    /// Too few nodes have the model's runner.
    #[error("model {model} needs {needed} nodes with the runner `{runner}`: {nodes} have it, {without} others have not; name its program in the configuration of more nodes")]
    NoRunner {
        /// The model.
        model: ModelId,
        /// Its runner.
        runner: String,
        /// How many nodes it needs at least.
        needed: u64,
        /// How many of those that can be placed on have the runner.
        nodes: u64,
        /// How many have not.
        without: u64,
    } = "no_runner",
    /// A node that was named lacks the model's runner.
    #[error("node {node} has no runner `{runner}`, only {has}: name its program in the node's configuration, or choose another node")]
    NodeLacksRunner {
        /// The node.
        node: NodeId,
        /// The model's runner.
        runner: String,
        /// Those that it has.
        has: String,
    } = "node_lacks_runner",
}

/// A size in memory, as people say it.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(unit) = (1..=units.len()).rev().find(|unit| bytes >> (10 * unit) > 0) else {
        return format!("{bytes} bytes");
    };
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, units[unit - 1])
}

fn besides(unmeasured: u64) -> String {
    match unmeasured {
        0 => String::new(),
        1 => " (1 more has not told yet how much memory it has)".to_owned(),
        _ => format!(" ({unmeasured} more have not told yet how much memory they have)"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_read_well() {
        let said: Vec<String> = [0, 1023, 1024, 1536 << 10, 34 << 30, u64::MAX].map(size).into();
        assert_eq!(said, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 MiB", "34.0 GiB", "15.9 EiB"]);
    }
}
