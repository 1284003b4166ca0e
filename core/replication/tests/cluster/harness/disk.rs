//! A disk in memory: what is asked for waits, what is done stays, and a crash loses the rest.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use lockstep_replication::entry::{Body, Entry, Record};
use lockstep_replication::io::{Kept, Work, WorkFailed, Worked};
use lockstep_replication::rng::Rng;
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{Boot, Hash, Index, Replica, Restored, WorkId};

use super::kv::{Kv, asked_by};

/// One node's store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// How often it was started from.
    pub(crate) starts: u64,
    pub(crate) kept: Kept,
    first: Index,
    log: VecDeque<Bytes>,
    /// The running hash of the log up to each record.
    hashes: VecDeque<Hash>,
    /// By one past their last entry.
    snapshots: BTreeMap<Index, Snapshot>,
    /// What losing branches left: the client commands of each, by uid.
    pub(crate) asides: Vec<Vec<u64>>,
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

    /// The running hash of its log up to this entry, as far as it is there.
    pub(crate) fn hash_at(&self, index: Index) -> Option<Hash> {
        self.hashes.get(index.0.checked_sub(self.first.0)? as usize).copied()
    }

    fn push(&mut self, bytes: Bytes) {
        let before = match self.hashes.back() {
            Some(last) => *last,
            None => self.snapshots.get(&self.first).map_or_else(Hash::default, |snapshot| snapshot.manifest.log_hash),
        };
        self.hashes.push_back(Record { index: self.next(), bytes: bytes.clone() }.chain(before));
        self.log.push_back(bytes);
    }

    /// Where its state begins: the newest snapshot's running hash, and one past its last entry.
    pub(crate) fn base(&self) -> (Hash, Index) {
        let newest = self.snapshots.last_key_value();
        newest.map_or_else(Default::default, |(next, snapshot)| (snapshot.manifest.log_hash, *next))
    }

    /// Puts a write at the end of those that wait.
    pub(crate) fn ask(&mut self, id: WorkId, work: Work<Kv>) {
        self.waiting.push_back((id, work));
    }

    /// How many writes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Does the write that waited longest. An inner error is one that the node is told of, an outer one a broken law.
    pub(crate) fn do_next(
        &mut self,
        boot: Boot,
        fails: bool,
    ) -> Result<(WorkId, Result<Worked<Kv>, WorkFailed>), String> {
        let (id, work) = self.waiting.pop_front().ok_or("no write waits")?;
        if fails {
            return Ok((id, Err(WorkFailed("the disk says no".into()))));
        }
        Ok((id, Ok(self.write(work, boot)?)))
    }

    fn write(&mut self, work: Work<Kv>, boot: Boot) -> Result<Worked<Kv>, String> {
        match work {
            Work::Keep(kept) => self.kept = kept,
            Work::Append { first, records } => {
                if first != self.next() {
                    return Err(format!("an append at {first} where the log ends before {}", self.next()));
                }
                records.into_iter().for_each(|bytes| self.push(bytes));
            }
            Work::Rewind { to, winner } => {
                let name = self.set_aside(to, &format!("{}-{winner}", self.asides.len()));
                return Ok(Worked::Rewound(Box::new(self.restore(boot)?), name));
            }
            Work::Install(snapshot) => {
                self.log.clear();
                self.hashes.clear();
                self.first = snapshot.manifest.next();
                self.snapshots.insert(self.first, snapshot);
            }
            Work::Save(snapshot) => {
                if snapshot.manifest.next() > self.next() {
                    return Err(format!(
                        "a snapshot is saved that stands for more than the log before {}",
                        self.next()
                    ));
                }
                self.snapshots.insert(snapshot.manifest.next(), snapshot);
            }
            Work::Trim { log_below, snapshots_but } => {
                self.snapshots.retain(|next, _| snapshots_but.contains(next));
                while self.first < log_below && self.log.pop_front().is_some() {
                    self.hashes.pop_front();
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
        let mut asked = Vec::new();
        let mut worth = false;
        for next in self.snapshots.split_off(&to.next()).into_values() {
            worth = true;
            if let Ok(replica) = next.decode::<Kv>(u64::MAX) {
                asked.extend(replica.state().asked.keys().copied());
            }
        }
        let stays = (to.since(self.first) as usize).min(self.log.len());
        let cut = self.log.split_off(stays);
        self.hashes.truncate(stays);
        let starts_at = self.next();
        for (offset, bytes) in cut.into_iter().enumerate() {
            if let Ok(entry) = (Record { index: starts_at.plus(offset as u64), bytes }).open::<Kv>() {
                worth |= !matches!(entry.body, Body::Opened(_) | Body::Backed);
                asked.extend(asked_by(&entry).map(|by| by.uid));
            }
        }
        // What is left of a log that begins after the newest snapshot left has nothing to build upon.
        let base = self.snapshots.last_key_value().map_or(Index(0), |(next, _)| *next);
        if base < self.first {
            self.log.clear();
            self.hashes.clear();
            self.first = base;
        }
        worth.then(|| {
            self.asides.push(asked);
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

    /// The log's entries, as far as they are there.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Record, Entry<Kv>)> {
        self.log.iter().enumerate().filter_map(|(offset, bytes)| {
            let record = Record { index: self.first.plus(offset as u64), bytes: bytes.clone() };
            record.open().ok().map(|entry| (record, entry))
        })
    }

    /// The process dies: of the writes that wait, a first part may have come through, a last append torn.
    /// Of those behind a failed one, none.
    pub(crate) fn crash(&mut self, rng: &mut Rng, boot: Boot, fails: bool) -> Result<(), String> {
        if fails {
            self.waiting.clear();
        }
        let through = rng.below(self.waiting.len() as u64 + 1);
        for _ in 0..through {
            // Whoever asked for it hears nothing of it any more.
            let _unheard = self.do_next(boot, false)?;
        }
        if let Some((_, Work::Append { first, records })) = self.waiting.front()
            && *first == self.next()
        {
            let torn = rng.below(records.len() as u64 + 1) as usize;
            let torn: Vec<Bytes> = records[..torn].to_vec();
            torn.into_iter().for_each(|bytes| self.push(bytes));
        }
        self.waiting.clear();
        Ok(())
    }

    /// The newest entries are gone, though they were synced; the store notices.
    pub(crate) fn lose_tail(&mut self, entries: u64) {
        let floor = self.snapshots.last_key_value().map_or(Index(0), |(next, _)| *next).since(self.first);
        let stays = (self.log.len() as u64).saturating_sub(entries).max(floor) as usize;
        self.log.truncate(stays);
        self.hashes.truncate(stays);
        self.kept.damaged = true;
    }
}
