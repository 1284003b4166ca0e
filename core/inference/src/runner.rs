//! What a worker and its runners say to each other: one JSON object a line on the runner's standard streams.

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, ModelId, RunnerId, TaskId};
use crate::state::{ModelCard, TaskKind};
use crate::transient::{StopReason, TraceSpan, Usage};

/// The version of these messages. A runner that speaks another one is refused at its first line.
pub const VERSION: u32 = 1;

/// The longest line, in bytes, in either direction.
pub const LINE_BYTES: usize = 16 << 20;

/// What a runner is told, on its standard input. In JSON: `{"type": "load"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToRunner {
    /// The first line: who it is, and what it is to run.
    Hello {
        /// The version of these messages.
        version: u32,
        /// Its own name.
        runner: RunnerId,
        /// Whose part it is.
        instance: InstanceId,
        /// Which part, from 0. Rank 0 answers.
        rank: u16,
        /// How many parts there are.
        ranks: u16,
        /// The addresses of the nodes of all ranks, in order.
        addresses: Vec<Vec<String>>,
        /// The model.
        model: ModelId,
        /// What it is.
        card: ModelCard,
    },
    /// Find the runners of the other ranks.
    Connect,
    /// Load the layers of this rank.
    Load,
    /// Run a first, empty task.
    WarmUp,
    /// Work on this. All ranks are told.
    Task {
        /// The task.
        task: TaskId,
        /// What it is.
        kind: TaskKind,
        /// The request as its client wrote it, in the form of OpenAI's API.
        input: serde_json::Value,
    },
    /// Stop working on this; nothing more needs to be said of it.
    Cancel {
        /// The task.
        task: TaskId,
    },
    /// Finish what is under way, then end.
    ShutDown,
}

/// What a runner says, on its standard output. In JSON: `{"type": "loading", "percent": 40}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromRunner {
    /// The answer to the first line.
    Hello {
        /// The version of these messages that it speaks.
        version: u32,
        /// On how many tasks it can work at the same time; at least 1.
        #[serde(default = "one")]
        tasks: u32,
    },
    /// It is connected to all ranks.
    Connected,
    /// It loads.
    Loading {
        /// So much of it, 0 to 100.
        percent: u8,
    },
    /// It has loaded.
    Loaded,
    /// It is warm, and takes tasks.
    Ready,
    /// It has a task and begins.
    Started {
        /// The task.
        task: TaskId,
    },
    /// More of a task's answer; rank 0 alone.
    Token {
        /// The task.
        task: TaskId,
        /// The text.
        text: String,
    },
    /// A task ended well.
    Done {
        /// The task.
        task: TaskId,
        /// Why there is no more.
        stop: StopReason,
        /// What it took.
        #[serde(default)]
        usage: Usage,
    },
    /// A task ended with an error; the runner goes on.
    Failed {
        /// The task.
        task: TaskId,
        /// Why, as a sentence.
        reason: String,
        /// Whether the request is at fault: its client is told so, and that it need not try again.
        #[serde(default)]
        request: bool,
    },
    /// What it did for a task, and when.
    Trace {
        /// The task.
        task: TaskId,
        /// The steps, in order.
        spans: Vec<TraceSpan>,
    },
    /// It is at work and has nothing to say. A runner that has something to do and says nothing at all for too long is
    /// ended.
    Alive,
}

fn one() -> u32 {
    1
}
