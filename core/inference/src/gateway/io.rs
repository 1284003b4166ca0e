//! What a gateway is told and what it asks for: its one entry and one exit.

use std::fmt;

use bytes::Bytes;
use lockstep_replication::io::{NotTaken, Unknown};
use lockstep_replication::{Index, NodeId, Span};

use crate::command::Command;
use crate::id::{InstanceId, ModelId, TaskId};
use crate::refusal::Refusal;
use crate::state::TaskKind;
use crate::transient::{StopReason, Transient, Usage};

/// A client that waits for an answer, as the driver numbers them. No number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What a gateway is told. The state comes with each of them.
#[derive(Clone, PartialEq)]
pub enum GatewayInput {
    /// The time that it asked for has come.
    Wake,
    /// The state is new.
    Changed,
    /// A client asks for something and waits.
    Open {
        /// The client.
        stream: StreamId,
        /// The model that is to answer.
        model: ModelId,
        /// What it is to do.
        kind: TaskKind,
        /// The request as the client wrote it.
        input: Bytes,
        /// The name that the task gets, drawn at random: nobody else ever used it.
        task: TaskId,
    },
    /// What became of the last [`GatewayOutput::Create`] of this stream. Comes once for each, also after the stream ended.
    Submitted {
        /// The client.
        stream: StreamId,
        /// Where it was done (or done before). A refusal because the task is there already may come as it is.
        result: Result<Index, Failure>,
    },
    /// A node sent a signal of one request.
    Transient {
        /// The node, as the transport authenticated it.
        from: NodeId,
        /// The signal.
        transient: Transient,
    },
    /// The client took some of what was delivered.
    Taken {
        /// The client.
        stream: StreamId,
        /// So many parts more.
        chunks: u64,
    },
    /// The client is gone. Nothing is delivered to it any more.
    Closed {
        /// The client.
        stream: StreamId,
    },
}

/// What a gateway asks for, to be done in this order.
#[derive(Clone, PartialEq)]
pub enum GatewayOutput {
    /// Have this decided, and say what became of it by [`GatewayInput::Submitted`].
    ///
    /// It comes again, the same, if nobody could say. Give it the task's id as its command id too: then it is done at most
    /// once, even if the task has ended before it comes a second time.
    Create {
        /// The client.
        stream: StreamId,
        /// The creation of its task.
        command: Command,
    },
    /// Have this decided. No reply is needed: the gateway asks again until the state shows it.
    Submit(Command),
    /// Send this; it may be lost.
    Send {
        /// To this node; it may be this one.
        to: NodeId,
        /// This signal.
        transient: Transient,
    },
    /// Hand this to a client.
    Deliver {
        /// The client.
        stream: StreamId,
        /// What it gets.
        part: StreamPart,
    },
}

/// What a client gets. For each stream that was opened, and not closed before, the last one is `End` or `Failed`, and
/// nothing follows it.
#[derive(Clone, PartialEq)]
pub enum StreamPart {
    /// More of the answer.
    Text(String),
    /// It is complete.
    End {
        /// Why no more comes.
        stop: StopReason,
        /// What it took.
        usage: Usage,
    },
    /// No more of it comes, for this reason.
    Failed(Failure),
}

/// Why an answer did not come, or not whole. Its text is a sentence for the client.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The leader said no; nothing was begun.
    #[error("{0}")]
    Refused(Refusal),
    /// The leader said no for a reason that is not the application's; nothing was begun.
    #[error("the task was not ordered: {0}")]
    NotOrdered(String),
    /// This node takes no commands now; nothing was begun.
    #[error("{0}")]
    NotTaken(NotTaken),
    /// Nobody could say for a long time whether the task was created. If it was, it is called off.
    #[error("{0}; the task is called off if it was")]
    Unknown(Unknown),
    /// This node has too many streams, or keeps too much input for them; nothing was begun.
    #[error("this node has as much under way as it may ({0}): wait until some of it has ended, or ask another node")]
    Full(String),
    /// The request is too large for any node; nothing was begun.
    #[error("the request has {bytes} bytes, the most is {limit}: shorten it, or make its images smaller")]
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The most.
        limit: u64,
    },
    /// The task has left the state and the end of its answer cannot be had: called off, or ended where nobody can be asked.
    #[error("the task is gone before its answer came whole: it was called off, or its end was lost; ask again")]
    TaskGone,
    /// Its instance has left the state.
    #[error("instance {0} was deleted while it worked on the task: ask again")]
    InstanceGone(InstanceId),
    /// A node that worked on it is lost or gone.
    #[error("node {0} was lost while it worked on the task: ask again")]
    NodeGone(NodeId),
    /// The runner or its worker ended the task with this reason.
    #[error("{0}")]
    Runner(String),
    /// The runner says that the request is at fault, with this reason.
    #[error("{0}")]
    Request(String),
    /// A node that began to answer forgot the task, and answers it anew: half of one answer and half of another are none.
    #[error("node {0} lost its work on the task and began it again: ask again")]
    Anew(NodeId),
    /// Parts of the answer were lost, and could not be had again.
    #[error("a part of the answer was lost between node {0} and this one, and could not be had again: ask again")]
    TokensLost(NodeId),
    /// The input did not reach a node.
    #[error("the request could not be handed to node {0}: ask again")]
    InputLost(NodeId),
    /// The client did not take what was delivered.
    #[error("the answer was not read in time: {chunks} parts that take {bytes} bytes wait for their reader")]
    TooSlow {
        /// How many parts wait.
        chunks: u64,
        /// How many bytes they take.
        bytes: u64,
    },
    /// Nothing happened for a long time.
    #[error("nothing was heard of the task for {0}: ask again")]
    TimedOut(Span),
}

// What people ask of models, and what they answer, is nobody's business: `Debug` ends up in logs.

impl fmt::Debug for GatewayInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GatewayInput::Wake => f.write_str("Wake"),
            GatewayInput::Changed => f.write_str("Changed"),
            GatewayInput::Open { stream, model, kind, input, task } => {
                write!(f, "open {stream:?}: {task:?} for {model}, {kind:?}, {} bytes", input.len())
            }
            GatewayInput::Submitted { stream, result } => write!(f, "submitted for {stream:?}: {result:?}"),
            GatewayInput::Transient { from, transient } => write!(f, "{transient:?} from {from:?}"),
            GatewayInput::Taken { stream, chunks } => write!(f, "{stream:?} took {chunks}"),
            GatewayInput::Closed { stream } => write!(f, "{stream:?} closed"),
        }
    }
}

impl fmt::Debug for GatewayOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GatewayOutput::Create { stream, command } => write!(f, "create for {stream:?}: {command:?}"),
            GatewayOutput::Submit(command) => write!(f, "submit {command:?}"),
            GatewayOutput::Send { to, transient } => write!(f, "send {transient:?} to {to:?}"),
            GatewayOutput::Deliver { stream, part } => write!(f, "deliver to {stream:?}: {part:?}"),
        }
    }
}

impl fmt::Debug for StreamPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamPart::Text(text) => write!(f, "{} bytes", text.len()),
            StreamPart::End { stop, usage } => write!(f, "end, {stop:?}, {usage:?}"),
            StreamPart::Failed(failure) => write!(f, "failed: {failure}"),
        }
    }
}
