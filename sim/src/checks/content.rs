//! What an entry holds, as one number: equal entries have equal numbers, others different ones but for one pair in 2^64.
//!
//! Read off the entry itself, field by field, and not off its bytes: a node that applies something else than it stores is
//! seen too, and it costs some tens of nanoseconds.

use lockstep_replication::NodeId;
use lockstep_replication::entry::{Body, Decided, Entry, Founding, KnownChange, Opened};

use crate::kv::{Event, Kv};

/// The number of an entry.
pub(crate) fn of(entry: &Entry<Kv>) -> u64 {
    let mut sum = Sum(0x9e37_79b9_7f4a_7c15);
    sum.word(entry.index.0);
    sum.word(entry.stamp.0);
    match &entry.body {
        Body::Opened(opened) => sum.opened(opened),
        Body::Backed => sum.word(2),
        Body::Generation { node, generation } => {
            sum.word(3);
            sum.node(*node);
            sum.word(*generation);
        }
        Body::Known(KnownChange::Joined { node, disk }) => {
            sum.word(4);
            sum.node(*node);
            sum.option(*disk);
        }
        Body::Known(KnownChange::Forgotten(node)) => {
            sum.word(5);
            sum.node(*node);
        }
        Body::Decided(decided) => sum.decided(decided),
    }
    sum.0
}

/// A running sum of words: each is folded in by a wide multiplication.
struct Sum(u64);

impl Sum {
    fn word(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db;
        self.0 = ((wide >> 64) as u64 ^ wide as u64).rotate_left(17).wrapping_add(word);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
    }

    fn node(&mut self, node: NodeId) {
        let (words, _) = node.0.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
    }

    fn option(&mut self, number: Option<u64>) {
        self.word(u64::from(number.is_some()));
        self.word(number.unwrap_or_default());
    }

    fn opened(&mut self, opened: &Opened) {
        self.word(1);
        self.word(opened.session.clock);
        self.node(opened.session.leader);
        self.word(opened.session.boot.starts);
        self.word(opened.session.boot.nonce);
        if let Some(Founding { id, widest, known }) = &opened.founding {
            self.word(*id);
            self.word(u64::from(*widest));
            self.word(known.len() as u64);
            for (node, disk) in known {
                self.node(*node);
                self.option(*disk);
            }
        }
    }

    fn decided(&mut self, decided: &Decided<Kv>) {
        self.word(6);
        match decided.proposal {
            Some(id) => {
                self.node(id.node);
                self.word(id.generation);
                self.word(id.n);
            }
            None => self.word(0),
        }
        match decided.command {
            Some(id) => self.bytes(&id.0),
            None => self.word(0),
        }
        self.word(decided.events.len() as u64);
        decided.events.iter().for_each(|event| self.event(event));
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Asked(by) => {
                self.word(1 | u64::from(by.node) << 8);
                self.word(by.uid);
                self.word(by.turn);
            }
            Event::Set { key, value } => {
                self.word(2 | u64::from(*key) << 8);
                self.bytes(value);
            }
            Event::Deleted { key } => self.word(3 | u64::from(*key) << 8),
            Event::Added { amount, heard } => {
                self.word(4);
                self.word(*amount);
                self.word(*heard);
            }
            Event::Saw { node, seen } => {
                self.word(5);
                self.node(*node);
                self.word(seen.key);
                self.word(seen.value);
            }
            Event::Lived { node, alive } => {
                self.word(6 | (*alive as u64) << 8);
                self.node(*node);
            }
            Event::SetAndCounted { key, value } => {
                self.word(7 | u64::from(*key) << 8);
                self.bytes(value);
            }
        }
    }
}
