//! The newest records of the log, kept in memory so that repairs need no disk.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::entry::Record;
use crate::id::Index;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn replace(&mut self, records: VecDeque<Record>) {
        self.bytes = records.iter().map(|record| record.bytes.len()).sum();
        self.records = records;
    }

    pub(crate) fn push(&mut self, record: Record, bytes_at_most: usize) {
        self.bytes += record.bytes.len();
        self.records.push_back(record);
        while self.bytes > bytes_at_most
            && self.records.len() > 1
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= oldest.bytes.len();
        }
    }

    /// The first index that is still here.
    pub(crate) fn first(&self) -> Option<Index> {
        self.records.front().map(|record| record.index)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Record> {
        let first = self.first()?;
        if index < first {
            return None;
        }
        self.records.get(index.since(first) as usize)
    }

    /// Records from `from` up to before `until`, at least one and else at most so many bytes; none if the first is gone.
    pub(crate) fn range(&self, from: Index, until: Index, max_bytes: usize) -> Option<Vec<Bytes>> {
        let first = self.first().filter(|first| *first <= from)?;
        let mut bytes = 0;
        let wanted = self.records.iter().skip(from.since(first) as usize);
        let records: Vec<Bytes> = wanted
            .take_while(|record| {
                bytes += record.bytes.len();
                record.index < until && (bytes <= max_bytes || record.index == from)
            })
            .map(|record| record.bytes.clone())
            .collect();
        (!records.is_empty()).then_some(records)
    }

    /// Bytes per entry, as far as can be seen here.
    pub(crate) fn entry_bytes(&self) -> u64 {
        (self.bytes / self.records.len().max(1)) as u64
    }
}
