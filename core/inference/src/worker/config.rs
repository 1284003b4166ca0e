//! A worker's limits and times, each with its reason.

use lockstep_replication::Span;
use serde::{Deserialize, Serialize};

use crate::runner::LINE_BYTES;

/// How patient a worker is, and how much it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// The wait before a runner that failed is started again. Doubles with each failure.
    pub first_wait: Span,
    /// The longest such wait.
    pub longest_wait: Span,
    /// After so many failed starts an instance is given up: a crash loop must not write to the log for ever.
    pub starts: u32,
    /// A runner that was ready for so long has not failed to start: its failures before that count no more.
    pub steady: Span,
    /// How long a process may take to answer the first line. Interpreters with large libraries need half a minute.
    pub hello: Span,
    /// How long the ranks may take to find each other, once all of them look.
    pub connect: Span,
    /// How long it may take to load a model at all, though it goes on.
    pub load: Span,
    /// How long the first, empty task may take.
    pub warm_up: Span,
    /// How long a runner that has something to do may say nothing at all before it counts as hung.
    pub silence: Span,
    /// A runner that still answers a task so long after that was called off counts as hung.
    pub cancelled: Span,
    /// How long a runner has to end by itself.
    pub grace: Span,
    /// How long a runner without tasks still shows as running, so that short tasks do not fill the log with its status.
    pub rest: Span,
    /// The least progress of loading that is worth an entry in the log, in percent.
    pub percent_step: u8,
    /// Less progress than that is told so often.
    pub percent_every: Span,
    /// For how long the node may stall while it loads. Said again while it does.
    pub busy: Span,
    /// What the state does not show after so long is asked for, or told, again. Doubles each time.
    pub repeat_first: Span,
    /// The longest wait before that.
    pub repeat_longest: Span,
    /// The most tasks that may wait for one runner. The state holds at most 50 000.
    pub waiting: usize,
    /// The most tasks that one runner may have at the same time, whatever it says.
    pub at_once: u32,
    /// The largest input, in bytes: it must fit into one line to the runner.
    pub input_bytes: u64,
    /// The most bytes of inputs that wait for their turn. At the limit the inputs of the last tasks give way, and are
    /// asked for again when their turn comes near.
    pub inputs_bytes: usize,
    /// The most bytes of inputs whose tasks the state does not show yet.
    pub early_bytes: usize,
    /// For how long such inputs are kept.
    pub early_for: Span,
    /// So many tasks at the front of a queue ask for what their inputs lack.
    pub asking: usize,
    /// After so long without a new part of its input a task asks for the rest. Doubles each time.
    pub ask_first: Span,
    /// The longest wait before that.
    pub ask_longest: Span,
    /// A task whose gateway did not answer so many times fails.
    pub asks: u32,
    /// A longer piece of an answer is sent as several, of at most so many bytes.
    pub piece_bytes: usize,
    /// So many pieces of an answer go out as the runner says them.
    pub pieces_alone: u64,
    /// After those, text that follows so close upon other text waits to be sent with what comes next: nobody reads faster,
    /// and a runner may write much faster.
    pub piece_every: Span,
    /// The most bytes of one answer that are kept to be sent again, or until the state shows its task as begun.
    pub answer_bytes: usize,
    /// The most bytes of all answers that are kept to be sent again.
    pub answers_bytes: usize,
    /// For how long an answer is kept after its end.
    pub answers_for: Span,
    /// The most pieces that are sent again at one request.
    pub pieces_again: usize,
}

impl Default for WorkerConfig {
    fn default() -> WorkerConfig {
        WorkerConfig {
            first_wait: Span::seconds(1),
            longest_wait: Span::seconds(120),
            starts: 5,
            steady: Span::seconds(600),
            hello: Span::seconds(60),
            connect: Span::seconds(60),
            load: Span::seconds(3600),
            warm_up: Span::seconds(600),
            silence: Span::seconds(300),
            cancelled: Span::seconds(10),
            grace: Span::seconds(10),
            rest: Span::seconds(1),
            percent_step: 5,
            percent_every: Span::seconds(1),
            busy: Span::seconds(60),
            repeat_first: Span::seconds(2),
            repeat_longest: Span::seconds(30),
            waiting: 10_000,
            at_once: 1024,
            input_bytes: (LINE_BYTES - (64 << 10)) as u64,
            inputs_bytes: 256 << 20,
            early_bytes: 64 << 20,
            early_for: Span::seconds(10),
            asking: 16,
            ask_first: Span::millis(500),
            ask_longest: Span::seconds(4),
            asks: 10,
            piece_bytes: 16 << 10,
            pieces_alone: 512,
            piece_every: Span::millis(5),
            answer_bytes: 1 << 20,
            answers_bytes: 64 << 20,
            answers_for: Span::seconds(15),
            pieces_again: 128,
        }
    }
}
