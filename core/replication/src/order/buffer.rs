//! The ordered buffer: keeps records that came before their turn, and releases them in the order of the log.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use bytes::Bytes;

use crate::config::Config;
use crate::entry::Record;
use crate::id::Index;

/// Records at or beyond the next index, until their turn comes.
///
/// Bounded by [`Config::buffer_entries`] and [`Config::buffer_bytes`]. When it is full the highest records go, since
/// they would be released last and can be asked for again. The next record alone is always kept, however long: without
/// it nothing behind it could ever leave.
#[derive(Clone, Debug)]
pub struct OrderedBuffer {
    next: Index,
    waiting: BTreeMap<Index, Bytes>,
    bytes: usize,
}

/// What became of a record that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It waits for its turn.
    Kept {
        /// How many higher records had to go to make room.
        dropped: u64,
    },
    /// It was released before, or waits already with the same bytes.
    Duplicate,
    /// Another content waits for the same index; the first is kept.
    Conflict,
    /// There is no room for it below the records that wait.
    Dropped,
}

impl OrderedBuffer {
    /// An empty buffer that will release `next` first.
    pub fn new(next: Index) -> Self {
        OrderedBuffer { next, waiting: BTreeMap::new(), bytes: 0 }
    }

    /// Puts a record in. Take out what is next with [`OrderedBuffer::pop`].
    pub fn insert(&mut self, record: Record, config: &Config) -> Inserted {
        if record.index < self.next {
            return Inserted::Duplicate;
        }
        if let Some(first) = self.waiting.get(&record.index) {
            if mutant!(LastContentWins) {
                self.bytes = self.bytes - first.len() + record.bytes.len();
                self.waiting.insert(record.index, record.bytes);
                return Inserted::Kept { dropped: 0 };
            }
            return if *first == record.bytes { Inserted::Duplicate } else { Inserted::Conflict };
        }
        let Some(dropped) = self.in_the_way_of(&record, config) else {
            probe!("an entry finds no room in the ordered buffer");
            return Inserted::Dropped;
        };
        if dropped > 0 {
            probe!("higher entries make room in the ordered buffer");
        }
        for _ in 0..dropped {
            if let Some((_, highest)) = self.waiting.pop_last() {
                self.bytes -= highest.len();
            }
        }
        self.bytes += record.bytes.len();
        self.waiting.insert(record.index, record.bytes);
        Inserted::Kept { dropped }
    }

    /// How many of the highest records must go for this one; none if even all above it would not do.
    fn in_the_way_of(&self, record: &Record, config: &Config) -> Option<u64> {
        let (mut entries, mut bytes, mut dropped) = (self.waiting.len() + 1, self.bytes + record.bytes.len(), 0);
        let mut above = self.waiting.range((Excluded(record.index), Unbounded)).rev();
        while (entries > config.buffer_entries || bytes > config.buffer_bytes) && !mutant!(UnboundedBuffer) {
            match above.next() {
                Some((_, highest)) => {
                    entries -= 1;
                    bytes -= highest.len();
                    dropped += 1;
                }
                None if record.index == self.next => break,
                None => return None,
            }
        }
        Some(dropped)
    }

    /// Takes out the next record if it is here.
    pub fn pop(&mut self) -> Option<Record> {
        let bytes = self.waiting.remove(&self.next)?;
        self.bytes -= bytes.len();
        let index = self.next;
        // Saturates: an absurd index from outside must not make a node panic.
        self.next = index.plus(1);
        Some(Record { index, bytes })
    }

    /// The index whose turn it is.
    pub fn next(&self) -> Index {
        self.next
    }

    /// A snapshot stands for everything below `next`: forgets it. Never goes back.
    pub fn fast_forward_to(&mut self, next: Index) {
        let next = if mutant!(FastForwardTooFar) { next.plus(1) } else { next };
        if next <= self.next {
            return;
        }
        self.next = next;
        while let Some(lowest) = self.waiting.first_entry()
            && *lowest.key() < next
        {
            self.bytes -= lowest.remove().len();
        }
    }

    /// The log goes on from `next` on another branch: forgets all that waits.
    pub fn reset(&mut self, next: Index) {
        *self = OrderedBuffer::new(next);
    }

    /// The first run of missing indexes: its first, and one past its last. `head_next` is one past the known head.
    pub fn hole(&self, head_next: Index) -> Option<(Index, Index)> {
        let mut from = self.next;
        for &index in self.waiting.keys() {
            if index > from {
                return Some((from, index));
            }
            from = index.plus(1);
        }
        (from < head_next).then_some((from, head_next))
    }

    /// Whether there are so many holes, between here and the highest record that waits.
    pub fn has_holes(&self, at_least: usize) -> bool {
        let mut from = self.next;
        let is_hole = |index: &&Index| **index > std::mem::replace(&mut from, index.plus(1));
        self.waiting.keys().filter(is_hole).take(at_least).count() == at_least
    }

    /// How many records wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(index: u64, bytes: &[u8]) -> Record {
        Record { index: Index(index), bytes: Bytes::copy_from_slice(bytes) }
    }

    fn limits(buffer_entries: usize, buffer_bytes: usize) -> Config {
        Config { buffer_entries, buffer_bytes, ..Config::default() }
    }

    fn drain(buffer: &mut OrderedBuffer) -> Vec<u64> {
        std::iter::from_fn(|| buffer.pop()).map(|record| record.index.0).collect()
    }

    #[test]
    fn records_leave_in_order_once_the_hole_closes() {
        let (mut buffer, config) = (OrderedBuffer::new(Index(5)), Config::default());
        for index in [7, 6, 9] {
            assert_eq!(buffer.insert(record(index, b"x"), &config), Inserted::Kept { dropped: 0 });
        }
        assert_eq!((drain(&mut buffer), buffer.len()), (vec![], 3));
        buffer.insert(record(5, b"x"), &config);
        assert_eq!((drain(&mut buffer), buffer.next(), buffer.bytes()), (vec![5, 6, 7], Index(8), 1));
        assert_eq!(buffer.insert(record(6, b"x"), &config), Inserted::Duplicate);
    }

    #[test]
    fn holes_are_counted_up_to_the_highest_record() {
        let (mut buffer, config) = (OrderedBuffer::new(Index(5)), Config::default());
        assert!(!buffer.has_holes(1));
        for index in [7, 8, 10, 20] {
            buffer.insert(record(index, b"x"), &config);
        }
        assert!(buffer.has_holes(3) && !buffer.has_holes(4), "5 to 6, 9, 11 to 19");
        buffer.insert(record(5, b"x"), &config);
        buffer.insert(record(6, b"x"), &config);
        assert!(buffer.has_holes(2) && !buffer.has_holes(3));
    }

    #[test]
    fn the_first_content_of_an_index_stays() {
        let (mut buffer, config) = (OrderedBuffer::new(Index(0)), Config::default());
        buffer.insert(record(0, b"first"), &config);
        assert_eq!(buffer.insert(record(0, b"first"), &config), Inserted::Duplicate);
        assert_eq!(buffer.insert(record(0, b"other"), &config), Inserted::Conflict);
        assert_eq!(buffer.pop(), Some(record(0, b"first")));
    }

    #[test]
    fn a_full_buffer_gives_up_its_highest_records() {
        let (mut buffer, config) = (OrderedBuffer::new(Index(0)), limits(3, 100));
        for index in [4, 5, 6] {
            buffer.insert(record(index, b"x"), &config);
        }
        assert_eq!(buffer.insert(record(7, b"x"), &config), Inserted::Dropped);
        assert_eq!(buffer.insert(record(2, b"x"), &config), Inserted::Kept { dropped: 1 });
        assert_eq!(buffer.waiting.keys().map(|index| index.0).collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(buffer.insert(record(1, &[0; 99]), &config), Inserted::Kept { dropped: 2 });
        assert_eq!(buffer.bytes(), 100);
    }

    #[test]
    fn a_record_that_finds_no_room_costs_no_other_its_place() {
        let (mut buffer, config) = (OrderedBuffer::new(Index(0)), limits(9, 10));
        buffer.insert(record(1, &[0; 8]), &config);
        buffer.insert(record(3, &[0; 2]), &config);
        assert_eq!(buffer.insert(record(2, &[0; 5]), &config), Inserted::Dropped);
        assert_eq!((buffer.len(), buffer.bytes()), (2, 10));
    }

    #[test]
    fn the_next_record_always_finds_room() {
        let (mut buffer, config) = (OrderedBuffer::new(Index(0)), limits(1, 4));
        buffer.insert(record(3, b"four"), &config);
        assert_eq!(buffer.insert(record(0, b"longer than all"), &config), Inserted::Kept { dropped: 1 });
        assert_eq!(drain(&mut buffer), [0]);
    }

    #[test]
    fn a_snapshot_stands_for_what_is_below_it() {
        let (mut buffer, config) = (OrderedBuffer::new(Index(0)), Config::default());
        for index in [3, 4, 6] {
            buffer.insert(record(index, b"xy"), &config);
        }
        buffer.fast_forward_to(Index(4));
        buffer.fast_forward_to(Index(2));
        assert_eq!((drain(&mut buffer), buffer.next(), buffer.bytes()), (vec![4], Index(5), 2));
        buffer.reset(Index(1));
        assert_eq!((buffer.next(), buffer.len(), buffer.bytes()), (Index(1), 0, 0));
    }

    #[test]
    fn the_first_missing_run_is_the_hole() {
        let (mut buffer, config) = (OrderedBuffer::new(Index(2)), Config::default());
        assert_eq!((buffer.hole(Index(0)), buffer.hole(Index(2))), (None, None));
        assert_eq!(buffer.hole(Index(5)), Some((Index(2), Index(5))));
        buffer.insert(record(4, b"x"), &config);
        buffer.insert(record(8, b"x"), &config);
        assert_eq!(buffer.hole(Index(0)), Some((Index(2), Index(4))));
        buffer.insert(record(2, b"x"), &config);
        buffer.insert(record(3, b"x"), &config);
        assert_eq!(buffer.hole(Index(20)), Some((Index(5), Index(8))), "what is here but not yet taken is no hole");
    }

    #[test]
    fn the_last_index_there_is_does_no_harm() {
        let (mut buffer, config) = (OrderedBuffer::new(Index(u64::MAX)), Config::default());
        buffer.insert(record(u64::MAX, b"x"), &config);
        assert_eq!(buffer.hole(Index(u64::MAX)), None);
        assert!(buffer.pop().is_some());
    }

    proptest! {
        /// Deliveries in any order and number, from a source that sends again what is missing, against tight limits.
        #[test]
        fn every_record_leaves_once_and_in_order(
            deliveries in proptest::collection::vec(0..60u64, 0..400),
            entries in 1..20usize,
            bytes in 1..64usize,
        ) {
            let (mut buffer, config) = (OrderedBuffer::new(Index(0)), limits(entries, bytes));
            let content = |index: u64| vec![index as u8; (index % 7) as usize];
            let mut released = Vec::new();
            // What was dropped comes again: after the arbitrary deliveries everything is sent once more, in order.
            for index in deliveries.into_iter().chain(0..60) {
                let before = buffer.len();
                let inserted = buffer.insert(record(index, &content(index)), &config);
                if let Inserted::Kept { dropped } = inserted {
                    prop_assert_eq!(buffer.len() as u64, before as u64 + 1 - dropped);
                } else {
                    prop_assert_eq!(buffer.len(), before);
                    prop_assert_ne!(inserted, Inserted::Conflict);
                }
                prop_assert!(buffer.len() <= entries && buffer.bytes() <= bytes.max(6));
                prop_assert_eq!(buffer.bytes(), buffer.waiting.values().map(Bytes::len).sum::<usize>());
                while let Some(next) = buffer.pop() {
                    prop_assert_eq!(&next.bytes[..], &content(next.index.0)[..]);
                    released.push(next.index.0);
                }
                if let Some((from, until)) = buffer.hole(Index(60)) {
                    prop_assert!(from == buffer.next() && from < until);
                    prop_assert!(buffer.waiting.range(from..until).next().is_none());
                }
            }
            prop_assert_eq!(released, (0..60).collect::<Vec<_>>());
        }
    }
}
