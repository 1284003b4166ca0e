//! A gateway's limits and times, each with its reason.

use lockstep_replication::Span;
use serde::{Deserialize, Serialize};

use crate::runner::LINE_BYTES;

/// How patient a gateway is, and how much it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// The most streams. More clients than that wait better elsewhere.
    pub streams: usize,
    /// The largest input, in bytes: it must fit into one line to a runner.
    pub input_bytes: u64,
    /// The most bytes of the inputs of all streams. They are kept until their tasks end.
    pub inputs_bytes: u64,
    /// The size of a part of an input, in bytes: small beside what waits in a lane of the network.
    pub part_bytes: usize,
    /// So many parts are sent to a rank at once...
    pub parts_at_once: usize,
    /// ...and the next ones so much later, so that images do not push tokens aside.
    pub parts_every: Span,
    /// An input is sent again to a rank that did not acknowledge it after so long. Doubles each time.
    pub acknowledge: Span,
    /// So many times. After that a worker that still lacks it asks by itself when the task's turn comes near.
    pub inputs_again: u32,
    /// After an unknown outcome a creation is sent again after so long. Doubles each time.
    pub create_first: Span,
    /// The longest wait before that.
    pub create_longest: Span,
    /// A client is told that nobody knows after so long.
    pub create: Span,
    /// A hole in an answer is asked for after so long, as signals may overtake each other. Doubles each time.
    pub hole: Span,
    /// So many times.
    pub hole_asks: u32,
    /// A stream with a hole ends after so long, though it was asked for less often.
    pub hole_longest: Span,
    /// The rest of an answer whose task is gone is asked for so many times. What was called off has no rest, and its
    /// client should not wait for it.
    pub rest_asks: u32,
    /// A begun task that is quiet for so long is asked for its next part: the last one may be lost. Doubles each time.
    pub quiet: Span,
    /// The longest wait before that.
    pub quiet_longest: Span,
    /// A stream ends when nothing was heard of its task for so long: as long as OpenAI's own clients wait.
    pub patience: Span,
    /// The most parts of one answer that wait for one before them, or for the state to show their task.
    pub ahead: usize,
    /// The most bytes of them.
    pub ahead_bytes: usize,
    /// A client that lets so many bytes wait is too slow: many times the longest answer of a model, so that who reads
    /// slower than a model writes still gets all of it.
    pub untaken_bytes: usize,
    /// A task is called off again after so long, if the state still has it. Doubles each time.
    pub cancel_first: Span,
    /// The longest wait before that.
    pub cancel_longest: Span,
}

impl Default for GatewayConfig {
    fn default() -> GatewayConfig {
        GatewayConfig {
            streams: 4096,
            input_bytes: (LINE_BYTES - (64 << 10)) as u64,
            inputs_bytes: 256 << 20,
            part_bytes: 32 << 10,
            parts_at_once: 32,
            parts_every: Span::millis(10),
            acknowledge: Span::seconds(1),
            inputs_again: 3,
            create_first: Span::millis(250),
            create_longest: Span::seconds(4),
            create: Span::seconds(30),
            hole: Span::millis(50),
            hole_asks: 6,
            hole_longest: Span::seconds(3),
            rest_asks: 3,
            quiet: Span::seconds(2),
            quiet_longest: Span::seconds(30),
            patience: Span::seconds(600),
            ahead: 1024,
            ahead_bytes: 1 << 20,
            untaken_bytes: 4 << 20,
            cancel_first: Span::seconds(2),
            cancel_longest: Span::seconds(30),
        }
    }
}
