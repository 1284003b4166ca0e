//! What can be seen of a gateway.

use lockstep_replication::Index;
use serde::Serialize;

/// Facts of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayView {
    /// One past the last entry of the state that it saw last.
    pub next: Index,
    /// Clients that wait for answers.
    pub streams: usize,
    /// Bytes of inputs that are kept for them.
    pub input_bytes: u64,
    /// Tasks that are called off, and that the state still has.
    pub calling_off: usize,
    /// What happened so far.
    pub counts: Counts,
}

/// What a gateway did, dropped or refused since its node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Streams that were opened, those refused for want of room included.
    pub opened: u64,
    /// Answers that came whole.
    pub ended: u64,
    /// Streams that ended with an error.
    pub failed: u64,
    /// Clients that left before the end.
    pub closed: u64,
    /// Streams that were refused for want of room.
    pub full: u64,
    /// Clients that were too slow.
    pub too_slow: u64,
    /// Creations that were sent again.
    pub created_again: u64,
    /// Inputs that were sent again, to one rank each, unasked.
    pub inputs_again: u64,
    /// Requests for parts of inputs that were answered.
    pub inputs_asked: u64,
    /// Times that a missing part of an answer was asked for.
    pub holes_asked: u64,
    /// Times that the next part of an answer was asked for because nothing came.
    pub quiet_asked: u64,
    /// Parts of answers that were there already.
    pub tokens_doubled: u64,
    /// Parts of answers that were dropped at a limit.
    pub tokens_dropped: u64,
    /// Parts of answers from a node that does not answer that task.
    pub tokens_refused: u64,
    /// Signals of tasks without a stream: of clients that left, or late.
    pub signals_late: u64,
    /// Other signals from the wrong node, or that no gateway takes, and traces that are of no use.
    pub signals_refused: u64,
    /// Tasks of this gateway that no client waits for, found in the state.
    pub orphans: u64,
}
