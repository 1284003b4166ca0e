//! What happened: a rolling hash over all inputs and outputs, with checkpoints, and lines of text where they are wanted.

use std::collections::VecDeque;
use std::fmt::Write as _;

use serde::Serialize;

use crate::plan::MILLIS;

/// How much of a run is written down beside its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    #[default]
    Hashed,
    /// The last so many lines.
    Last(usize),
    /// One line an event.
    All,
}

/// The record of a run.
#[derive(Clone, Debug)]
pub struct Trace {
    detail: Detail,
    hash: Mixer,
    steps: u64,
    checkpoints: Vec<Checkpoint>,
    lines: VecDeque<String>,
}

/// The hash after so many steps: two runs that differ are bisected by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// How many steps were made.
    pub steps: u64,
    /// The world's time then, in nanoseconds.
    pub time: u64,
    /// The rolling hash.
    pub hash: u64,
}

/// A fast rolling hash. It tells runs apart; it keeps no secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixer(u64);

/// Steps from one checkpoint to the next.
const CHECKPOINT_EVERY: u64 = 1024;

/// Where a line is cut off.
const LINE_CHARS: usize = 400;

impl Default for Mixer {
    fn default() -> Self {
        Mixer(0x9e37_79b9_7f4a_7c15)
    }
}

impl Mixer {
    /// Takes a number in.
    #[inline]
    pub fn number(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db;
        self.0 = ((product as u64) ^ (product >> 64) as u64).wrapping_add(self.0.rotate_left(23));
    }

    /// Takes bytes in, and how many they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.number(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.number(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.0
    }
}

impl Trace {
    /// Nothing happened yet.
    pub fn new(detail: Detail) -> Trace {
        Trace { detail, hash: Mixer::default(), steps: 0, checkpoints: Vec::new(), lines: VecDeque::new() }
    }

    /// The rolling hash.
    pub fn hash(&self) -> u64 {
        self.hash.hash()
    }

    /// How many steps were made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The hash on the way here.
    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
    }

    /// The lines that were kept.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Whether lines are wanted at all.
    pub fn is_told(&self) -> bool {
        self.detail != Detail::Hashed
    }

    /// A machine makes a step: when, which, and the hash of its input.
    pub(crate) fn step(&mut self, time: u64, machine: u16, input: u64) {
        self.steps += 1;
        self.hash.number(time ^ u64::from(machine) << 48);
        self.hash.number(input);
        if self.steps.is_multiple_of(CHECKPOINT_EVERY) {
            self.checkpoints.push(Checkpoint { steps: self.steps, time, hash: self.hash() });
        }
    }

    /// What it puts out.
    pub(crate) fn output(&mut self, kind: u64, what: u64) {
        self.hash.number(kind << 56 ^ what);
    }

    /// A line, made only where lines are wanted.
    pub(crate) fn line(&mut self, time: u64, what: impl FnOnce() -> String) {
        let most = match self.detail {
            Detail::Hashed => return,
            Detail::Last(most) => most,
            Detail::All => usize::MAX,
        };
        let mut line = String::new();
        let cut: String = what().chars().take(LINE_CHARS).collect();
        let written = write!(line, "{:>8}.{:03} {cut}", time / MILLIS, time / 1_000 % 1_000);
        debug_assert!(written.is_ok(), "strings take what is written to them");
        self.lines.push_back(line);
        if self.lines.len() > most {
            self.lines.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_pinned() {
        let mut mixer = Mixer::default();
        mixer.bytes(b"lockstep");
        mixer.bytes(b"");
        mixer.number(7);
        assert_eq!(mixer.hash(), 0xd1b8_da6e_89e8_6e3b, "what trace hashes are compared by has changed");
    }

    #[test]
    fn other_bytes_hash_otherwise() {
        let hash = |bytes: &[u8]| {
            let mut mixer = Mixer::default();
            mixer.bytes(bytes);
            mixer.hash()
        };
        let forms: &[&[u8]] = &[b"", b"\0", b"\0\0", b"a", b"a\0", b"abcdefgh", b"abcdefgh\0", b"abcdefghi"];
        let hashes: std::collections::BTreeSet<u64> = forms.iter().map(|bytes| hash(bytes)).collect();
        assert_eq!(hashes.len(), forms.len());
    }
}
