//! The signals of single requests: never ordered, kept or replayed. Inputs travel here and nowhere else.

use std::fmt;

use bytes::Bytes;
use lockstep_replication::{Hash, Wall};
use serde::{Deserialize, Serialize};

use crate::id::{RunnerId, TaskId};

/// A signal of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transient {
    /// A part of a task's answer: from the worker of its first rank to its gateway.
    Token(TokenChunk),
    /// Parts of an answer did not come: from the gateway to the worker of the first rank, which sends them again.
    TokensMissing {
        /// The task.
        task: TaskId,
        /// The first part that is missing.
        from: u64,
    },
    /// A part of a task's input: from its gateway to the worker of each rank.
    Input(InputChunk),
    /// Parts of an input did not come: from a worker to the gateway, which sends them again.
    InputMissing {
        /// The task.
        task: TaskId,
        /// The parts; none means all of them.
        parts: Vec<u32>,
    },
    /// What a rank did for a task, and when: from its worker to the gateway.
    Trace(Trace),
    /// A runner has a task and its whole input: from its worker to the gateway.
    Acknowledged {
        /// The task.
        task: TaskId,
        /// The runner.
        runner: RunnerId,
    },
}

/// A part of a task's answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenChunk {
    /// The task.
    pub task: TaskId,
    /// Counts from 0 within the attempt, so that a hole is seen.
    pub n: u64,
    /// What the answer goes on with.
    pub part: TokenPart,
    /// Of which answer it is a part.
    pub attempt: Attempt,
}

/// One start of a task at a worker. A task that is begun again, after a restart and a branch of the log that lost, gets
/// another answer: the two must not be mixed. Drawn at random, so that no two are equal, whoever began them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt(pub u64);

/// What an answer goes on with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenPart {
    /// More text.
    Text(String),
    /// Nothing: it is complete.
    End {
        /// Why no more comes.
        stop: StopReason,
        /// What it took.
        usage: Usage,
    },
    /// Nothing: an error ended it, for the reason in this sentence.
    Error(String),
    /// Nothing: the request is at fault, for the reason in this sentence.
    Refused(String),
}

/// Why an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model had no more to say, or said one of the request's stop words.
    Stop,
    /// It reached the most tokens that were asked for, or that the model can hold.
    Length,
}

/// How many tokens a task took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of the input.
    pub prompt_tokens: u64,
    /// Of the answer.
    pub completion_tokens: u64,
}

/// A part of a task's input. Parts are put together under the hash of the whole.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputChunk {
    /// The task.
    pub task: TaskId,
    /// The SHA-256 of the whole input.
    pub input: Hash,
    /// Which part, from 0.
    pub n: u32,
    /// How many parts there are.
    pub of: u32,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What a rank did for a task, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The task.
    pub task: TaskId,
    /// Whose work it was.
    pub runner: RunnerId,
    /// What it did, in order.
    pub spans: Vec<TraceSpan>,
}

/// One step of a rank's work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSpan {
    /// What it was.
    pub name: String,
    /// When it began, by the rank's own wall clock.
    pub began: Wall,
    /// How long it took, in microseconds.
    pub micros: u64,
}

// What people ask of models, and what they answer, is nobody's business: `Debug` ends up in logs, so it shows sizes.

impl fmt::Debug for InputChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "InputChunk({:?}, {:?}, {} of {}, {} bytes)",
            self.task,
            self.input,
            self.n,
            self.of,
            self.bytes.len()
        )
    }
}

impl fmt::Debug for TokenChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenChunk({:?}, {:x}.{}, {:?})", self.task, self.attempt.0, self.n, self.part)
    }
}

impl fmt::Debug for TokenPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenPart::Text(text) => write!(f, "{} bytes", text.len()),
            TokenPart::End { stop, usage } => write!(f, "end, {stop:?}, {usage:?}"),
            TokenPart::Error(reason) => write!(f, "error: {reason}"),
            TokenPart::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_not_shown() {
        let input = InputChunk {
            task: TaskId([0; 16]),
            input: Hash::default(),
            n: 0,
            of: 1,
            bytes: Bytes::from_static(b"secret"),
        };
        let part = TokenPart::Text("secret".into());
        let token = TokenChunk { task: TaskId([0; 16]), n: 3, part, attempt: Attempt(1) };
        for transient in [Transient::Input(input), Transient::Token(token)] {
            let shown = format!("{transient:?}");
            assert!(shown.contains("6 bytes") && !shown.contains("secret") && !shown.contains("115"), "{shown}");
        }
    }

    #[test]
    fn both_forms_read_what_they_write() {
        let trace = Trace {
            task: TaskId([1; 16]),
            runner: RunnerId([2; 16]),
            spans: vec![TraceSpan { name: "prefill".into(), began: Wall(7), micros: 1200 }],
        };
        let transients = [
            Transient::Token(TokenChunk {
                task: TaskId([1; 16]),
                n: 0,
                part: TokenPart::End { stop: StopReason::Stop, usage: Usage::default() },
                attempt: Attempt(u64::MAX),
            }),
            Transient::Input(InputChunk {
                task: TaskId([1; 16]),
                input: Hash([1; 32]),
                n: 0,
                of: 2,
                bytes: Bytes::from_static(&[1, 2]),
            }),
            Transient::TokensMissing { task: TaskId([1; 16]), from: 3 },
            Transient::InputMissing { task: TaskId([1; 16]), parts: vec![1] },
            Transient::Trace(trace),
            Transient::Acknowledged { task: TaskId([1; 16]), runner: RunnerId([2; 16]) },
        ];
        for transient in transients {
            let bytes = postcard::to_stdvec(&transient).unwrap();
            assert_eq!(postcard::from_bytes::<Transient>(&bytes).unwrap(), transient);
            let text = serde_json::to_string(&transient).unwrap();
            assert_eq!(serde_json::from_str::<Transient>(&text).unwrap(), transient);
        }
    }
}
