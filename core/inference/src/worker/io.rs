//! What a worker is told and what it asks for: its one entry and one exit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lockstep_replication::{NodeId, Span};

use crate::command::Command;
use crate::id::{ModelId, RunnerId};
use crate::observation::Observation;
use crate::runner::{FromRunner, ToRunner};
use crate::state::ModelCard;
use crate::transient::Transient;

/// What a worker is told. The state comes with each of them.
#[derive(Clone, PartialEq)]
pub enum WorkerInput {
    /// The time that it asked for has come.
    Wake,
    /// The state is new.
    Changed,
    /// A node sent a signal of one request.
    Transient {
        /// The node, as the transport authenticated it.
        from: NodeId,
        /// The signal.
        transient: Transient,
    },
    /// A runner that was started.
    Runner {
        /// The runner.
        runner: RunnerId,
        /// Under which start: what an earlier process said, or how it ended, is of no interest any more.
        life: u64,
        /// What it said or did.
        said: RunnerSaid,
    },
    /// The node stops: all runners are to end.
    Stop,
}

/// What became of a process. After each [`WorkerOutput::Start`] exactly one `Ended` comes, after everything else, also
/// when it could not even start; only then is nothing left of it.
#[derive(Clone, PartialEq)]
pub enum RunnerSaid {
    /// A line that is one of the protocol's.
    Message(FromRunner),
    /// What it printed is not of the protocol: how so, as a sentence. Comes once; nothing is read after it.
    Garbage(String),
    /// The process is gone, with all that it started.
    Ended {
        /// How: its exit, then the last lines that it wrote to its standard error.
        reason: String,
    },
}

/// What a worker asks for, to be done in this order.
#[derive(Clone, PartialEq)]
pub enum WorkerOutput {
    /// Have this ordered. A newer one of the same key replaces it.
    Observe(Observation),
    /// Have this decided. No reply is needed: the worker asks again until the state shows it.
    Submit(Command),
    /// Send this; it may be lost.
    Send {
        /// To this node; it may be this one.
        to: NodeId,
        /// This signal.
        transient: Transient,
    },
    /// Start a process.
    Start {
        /// For this runner.
        runner: RunnerId,
        /// Which start of it this is. They grow, and no two are equal while this node runs.
        life: u64,
        /// Which program to start, and what it is told beside.
        card: Arc<ModelCard>,
    },
    /// Write a line to its standard input.
    Tell {
        /// The runner.
        runner: RunnerId,
        /// The start of it that is meant.
        life: u64,
        /// The line.
        message: ToRunner,
    },
    /// End it: close its standard input, and kill its process group after the grace.
    End {
        /// The runner.
        runner: RunnerId,
        /// The start of it that is meant.
        life: u64,
        /// How long it may take.
        grace: Span,
    },
    /// Keep copies of custom cards on this node's disk.
    Mirror {
        /// The cards that are new or changed; none: remove it.
        cards: BTreeMap<ModelId, Option<Arc<ModelCard>>>,
        /// Whether these are all: then any other copy on disk is to be removed. The first one is whole.
        whole: bool,
    },
    /// For so long this node may stall, because a model is loaded.
    Busy(Span),
}

// What people ask of models, and what they answer, is nobody's business: `Debug` ends up in logs.

impl fmt::Debug for WorkerInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerInput::Wake => f.write_str("Wake"),
            WorkerInput::Changed => f.write_str("Changed"),
            WorkerInput::Transient { from, transient } => write!(f, "{transient:?} from {from:?}"),
            WorkerInput::Runner { runner, life, said } => write!(f, "{runner:?} in life {life}: {said:?}"),
            WorkerInput::Stop => f.write_str("Stop"),
        }
    }
}

impl fmt::Debug for RunnerSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunnerSaid::Message(FromRunner::Token { task, text }) => {
                write!(f, "token of {task:?}, {} bytes", text.len())
            }
            RunnerSaid::Message(message) => write!(f, "{message:?}"),
            RunnerSaid::Garbage(reason) => write!(f, "garbage, {} bytes", reason.len()),
            RunnerSaid::Ended { reason } => write!(f, "ended: {reason}"),
        }
    }
}

impl fmt::Debug for WorkerOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerOutput::Observe(observation) => write!(f, "observe {observation:?}"),
            WorkerOutput::Submit(command) => write!(f, "submit {command:?}"),
            WorkerOutput::Send { to, transient } => write!(f, "send {transient:?} to {to:?}"),
            WorkerOutput::Start { runner, life, card } => write!(f, "start {runner:?} as life {life}: {}", card.runner),
            WorkerOutput::Tell { runner, life, message: ToRunner::Task { task, kind, .. } } => {
                write!(f, "tell {runner:?} in life {life}: {task:?}, {kind:?}")
            }
            WorkerOutput::Tell { runner, life, message } => write!(f, "tell {runner:?} in life {life}: {message:?}"),
            WorkerOutput::End { runner, life, grace } => write!(f, "end {runner:?} in life {life} within {grace}"),
            WorkerOutput::Mirror { cards, whole } => write!(f, "mirror {cards:?}, whole: {whole}"),
            WorkerOutput::Busy(span) => write!(f, "busy for {span}"),
        }
    }
}
