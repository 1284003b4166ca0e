//! A disk in memory: what is asked for waits, what is done stays.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use lockstep_replication::entry::{Body, Record};
use lockstep_replication::io::{Kept, Work, WorkFailed, Worked};
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{Boot, Index, Replica, Restored, WorkId};

use super::kv::Kv;

/// One node's store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// How often it was started from.
    pub(crate) starts: u64,
    pub(crate) kept: Kept,
    first: Index,
    log: VecDeque<Bytes>,
    /// By one past their last entry.
    snapshots: BTreeMap<Index, Snapshot>,
    /// How many losing branches were set aside.
    asides: u64,
    /// Writes that wait, in order.
    waiting: VecDeque<(WorkId, Work<Kv>)>,
}

impl Disk {
    /// One past the last entry on it.
    pub(crate) fn next(&self) -> Index {
        self.first.plus(self.log.len() as u64)
    }

    pub(crate) fn record(&self, index: Index) -> Option<Record> {
        let at = index.0.checked_sub(self.first.0)? as usize;
        self.log.get(at).map(|bytes| Record { index, bytes: bytes.clone() })
    }

    fn push(&mut self, bytes: Bytes) {
        self.log.push_back(bytes);
    }

    /// Puts a write at the end of those that wait.
    pub(crate) fn ask(&mut self, id: WorkId, work: Work<Kv>) {
        self.waiting.push_back((id, work));
    }

    /// Does the write that waited longest. An error is a broken law.
    pub(crate) fn do_next(&mut self, boot: Boot) -> Result<(WorkId, Worked<Kv>), String> {
        let (id, work) = self.waiting.pop_front().ok_or("no write waits")?;
        Ok((id, self.write(work, boot)?))
    }

    fn write(&mut self, work: Work<Kv>, boot: Boot) -> Result<Worked<Kv>, String> {
        match work {
            Work::Keep(kept) => self.kept = *kept,
            Work::Append { first, records } => {
                if first != self.next() {
                    return Err(format!("an append at {first} where the log ends before {}", self.next()));
                }
                records.into_iter().for_each(|bytes| self.push(bytes));
            }
            Work::Rewind { to, winner } => {
                let name = self.set_aside(to, &format!("{}-{winner}", self.asides));
                return Ok(Worked::Rewound(Box::new(self.restore(boot)?), name));
            }
            Work::Install(snapshot) => {
                self.log.clear();
                self.first = snapshot.manifest.next();
                self.snapshots.insert(self.first, *snapshot);
            }
            Work::Save(snapshot) => {
                if snapshot.manifest.next() > self.next() {
                    return Err(format!(
                        "a snapshot is saved that stands for more than the log before {}",
                        self.next()
                    ));
                }
                self.snapshots.insert(snapshot.manifest.next(), *snapshot);
            }
            Work::Trim { log_below, snapshots_but } => {
                self.snapshots.retain(|next, _| snapshots_but.contains(next));
                while self.first < log_below && self.log.pop_front().is_some() {
                    self.first = self.first.next();
                }
                if self.first > Index(0) && !self.snapshots.range(self.first..).any(|(next, _)| *next <= self.next()) {
                    return Err(format!("a trim leaves the log from {} without a snapshot to begin from", self.first));
                }
            }
            Work::Read { .. } | Work::Encode { .. } | Work::Decode { .. } => return Err("reading is no write".into()),
        }
        Ok(Worked::Stored)
    }

    /// Does what only reads.
    pub(crate) fn read(&self, work: Work<Kv>) -> Result<Worked<Kv>, WorkFailed> {
        let failed = |error: lockstep_replication::snapshot::Bad| WorkFailed(error.to_string());
        match work {
            Work::Read { from, until, max_bytes } => {
                let mut records = Vec::new();
                let mut bytes = 0;
                let mut index = from;
                while index < until
                    && let Some(record) = self.record(index)
                {
                    bytes += record.bytes.len();
                    if bytes > max_bytes && !records.is_empty() {
                        break;
                    }
                    records.push(record.bytes);
                    index = index.next();
                }
                Ok(Worked::Read { first: from, records })
            }
            Work::Encode { capture, chunk_bytes } => Snapshot::encode(&capture, chunk_bytes)
                .map(|snapshot| Worked::Encoded(Box::new(snapshot)))
                .map_err(failed),
            Work::Decode { snapshot, raw_bytes_at_most } => {
                let replica = snapshot.decode(raw_bytes_at_most).map_err(failed)?;
                Ok(Worked::Decoded(Box::new(replica)))
            }
            Work::Keep(_)
            | Work::Append { .. }
            | Work::Rewind { .. }
            | Work::Install(_)
            | Work::Save(_)
            | Work::Trim { .. } => Err(WorkFailed("this writes".into())),
        }
    }

    /// Moves what lies past the fork away; names it if it held anything but openings and marks.
    fn set_aside(&mut self, to: Index, name: &str) -> Option<String> {
        let mut worth = !self.snapshots.split_off(&to.next()).is_empty();
        let stays = (to.since(self.first) as usize).min(self.log.len());
        let cut = self.log.split_off(stays);
        let starts_at = self.next();
        for (offset, bytes) in cut.into_iter().enumerate() {
            if let Ok(entry) = (Record { index: starts_at.plus(offset as u64), bytes }).open::<Kv>() {
                worth |= !matches!(entry.body, Body::Opened(_) | Body::Backed);
            }
        }
        // What is left of a log that begins after the newest snapshot left has nothing to build upon.
        let base = self.snapshots.last_key_value().map_or(Index(0), |(next, _)| *next);
        if base < self.first {
            self.log.clear();
            self.first = base;
        }
        worth.then(|| {
            self.asides += 1;
            name.to_owned()
        })
    }

    /// Builds the state up again: the newest snapshot, then the log.
    pub(crate) fn restore(&self, boot: Boot) -> Result<Restored<Kv>, String> {
        let replica = match self.snapshots.last_key_value() {
            None => Replica::default(),
            Some((_, snapshot)) => snapshot.decode(u64::MAX).map_err(|bad| bad.to_string())?,
        };
        let mut restored = Restored::new(boot, self.kept, replica);
        while let Some(record) = self.record(restored.replica.next()) {
            restored.push(record).map_err(|error| error.to_string())?;
        }
        restored.log_first = self.first;
        restored.snapshots = self.snapshots.keys().copied().collect();
        if restored.replica.next() != self.next() {
            return Err(format!("the log ends before {} and cannot be replayed up to there", self.next()));
        }
        Ok(restored)
    }
}
