//! What a node finds on its disk: at a start, and after a branch was cut off.

use std::collections::VecDeque;

use crate::app::App;
use crate::entry::{Entry, Record};
use crate::id::{Boot, Index};
use crate::io::Kept;
use crate::replica::{NotApplied, Replica};

/// A state built up again: the newest snapshot, then the log after it, record by record.
#[derive(Clone, Debug)]
pub struct Restored<A: App> {
    /// This start.
    pub boot: Boot,
    /// What was kept beside the log.
    pub kept: Kept,
    /// The state so far.
    pub replica: Replica<A>,
    /// The first entry that the log on disk still holds; the next one if it holds none.
    pub log_first: Index,
    /// Snapshots on disk, by one past their last entry, ascending.
    pub snapshots: Vec<Index>,
    /// The newest records, for repairs.
    pub(crate) tail: VecDeque<Record>,
    tail_bytes: usize,
}

/// How much of the log's end is kept while restoring.
const TAIL_BYTES: usize = 1 << 20;

impl<A: App> Restored<A> {
    /// Begins from a snapshot's state, or from `Replica::default()`.
    pub fn new(boot: Boot, kept: Kept, replica: Replica<A>) -> Self {
        let log_first = replica.next();
        Restored { boot, kept, replica, log_first, snapshots: Vec::new(), tail: VecDeque::new(), tail_bytes: 0 }
    }

    /// Applies the next record of the log. On an error nothing changed: what was restored so far is the good part.
    pub fn push(&mut self, record: Record) -> Result<Entry<A>, NotApplied> {
        let entry = self.replica.take(&record)?;
        self.tail_bytes += record.bytes.len();
        self.tail.push_back(record);
        while self.tail_bytes > TAIL_BYTES
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_bytes -= oldest.bytes.len();
        }
        Ok(entry)
    }
}
