//! What happened: its rolling hash where determinism is checked, its last lines where a run failed.

use std::collections::VecDeque;
use std::fmt::Write as _;

use lockstep_replication::message::Message;
use lockstep_replication::{Hash, Input, NodeId, Output, wire};

use super::MILLIS;
use super::kv::Kv;

/// How much of a run is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Nothing.
    Off,
    /// The rolling hash.
    Hashed,
    /// The last so many lines.
    Lines(usize),
}

/// The record of a run.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    detail: Detail,
    hash: Hash,
    lines: VecDeque<String>,
}

/// Where a line is cut off.
const LINE_CHARS: usize = 260;

impl Trace {
    pub(crate) fn new(detail: Detail) -> Trace {
        Trace { detail, hash: Hash::default(), lines: VecDeque::new() }
    }

    pub(crate) fn hash(&self) -> Hash {
        self.hash
    }

    /// The last lines.
    pub(crate) fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect()
    }

    /// Something beside the steps.
    pub(crate) fn note(&mut self, time: u64, what: impl FnOnce() -> String) {
        if let Detail::Lines(_) = self.detail {
            self.line(time, &what());
        }
    }

    /// An input, as text; nothing where nothing is written down.
    pub(crate) fn input(&self, input: &Input<Kv>) -> String {
        match self.detail {
            Detail::Off => String::new(),
            Detail::Hashed | Detail::Lines(_) => format!("{input:?}"),
        }
    }

    /// One step of a node.
    pub(crate) fn step(&mut self, time: u64, node: NodeId, input: &str, outputs: &[Output<Kv>]) {
        match self.detail {
            Detail::Off => {}
            Detail::Hashed => {
                let mut bytes = Vec::from(self.hash.0);
                bytes.extend(time.to_le_bytes());
                bytes.extend(node.0);
                bytes.extend(input.as_bytes());
                for output in outputs {
                    bytes.extend(format!("{output:?}").into_bytes());
                    if let Output::Send { message, .. } | Output::Broadcast(message) = output {
                        bytes.extend(wire::encode(message));
                    }
                }
                self.hash = Hash::of(&bytes);
            }
            Detail::Lines(_) => {
                if outputs.is_empty() && is_routine(input) {
                    return;
                }
                self.line(time, &format!("{node:?} <- {input}"));
                for output in outputs {
                    let routine = matches!(
                        output,
                        Output::Send { message: Message::Beat(_) | Message::Probe { .. } | Message::Echo { .. }, .. }
                            | Output::Broadcast(Message::Beat(_))
                    );
                    if !routine {
                        self.line(time, &format!("            -> {output:?}"));
                    }
                }
            }
        }
    }

    fn line(&mut self, time: u64, what: &str) {
        let Detail::Lines(most) = self.detail else { return };
        let mut line = String::new();
        let micros = time / 1_000 % 1_000;
        let cut: String = what.chars().take(LINE_CHARS).collect();
        writeln!(line, "{:>8}.{micros:03} {cut}", time / MILLIS).expect("strings take what is written to them");
        self.lines.push_back(line);
        if self.lines.len() > most {
            self.lines.pop_front();
        }
    }
}

/// What happens all the time and mostly says nothing.
fn is_routine(input: &str) -> bool {
    ["Beat", "Echo", "Probe"].iter().any(|routine| input.contains(routine)) || input == "Wake"
}
