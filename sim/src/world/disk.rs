//! A disk in memory: what is asked for waits, what is done stays, and a crash loses the rest. Its work is done as soon as
//! it is called for; how long that takes is the machine's business.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use lockstep_replication::app::App;
use lockstep_replication::entry::{Body, Entry, Record};
use lockstep_replication::io::{Kept, Work, WorkFailed, Worked};
use lockstep_replication::snapshot::{Bad, Snapshot};
use lockstep_replication::{Boot, Index, Replica, Restored, WorkId};

use super::node::translated;
use crate::dice::Roll;
use crate::kv::{Kv, NEWEST_SCHEMA, OldKv, asked_by};

/// What a disk must know of an application that is stored on it, beside its types.
pub trait Stored: App {
    /// Encodes a state as a program of this schema does.
    fn encode(capture: &Replica<Self>, chunk_bytes: usize, _schema: u32) -> Result<Snapshot, Bad> {
        Snapshot::encode(capture, chunk_bytes)
    }

    /// Decodes a snapshot as a program of this schema does.
    fn decode(snapshot: &Snapshot, raw_bytes_at_most: u64, _schema: u32) -> Result<Replica<Self>, Bad> {
        snapshot.decode(raw_bytes_at_most)
    }

    /// Whether a program of this schema can start from a disk.
    fn is_readable(_disk: &Disk<Self>, _boot: Boot, _schema: u32) -> Result<(), String> {
        Ok(())
    }

    /// The client's command that an entry does, by uid, where the application knows.
    fn asked(_entry: &Entry<Self>) -> Option<u64> {
        None
    }

    /// The client commands that a state contains, by uid, where the application knows.
    fn done(_state: &Self::State) -> Vec<u64> {
        Vec::new()
    }
}

impl Stored for Kv {
    fn encode(capture: &Replica<Kv>, chunk_bytes: usize, schema: u32) -> Result<Snapshot, Bad> {
        if schema < NEWEST_SCHEMA {
            Snapshot::encode(&translated::<_, Replica<OldKv>>(capture), chunk_bytes)
        } else {
            Snapshot::encode(capture, chunk_bytes)
        }
    }

    fn decode(snapshot: &Snapshot, raw_bytes_at_most: u64, schema: u32) -> Result<Replica<Kv>, Bad> {
        if schema < NEWEST_SCHEMA {
            snapshot.decode::<OldKv>(raw_bytes_at_most).map(|replica| translated(&replica))
        } else {
            snapshot.decode(raw_bytes_at_most)
        }
    }

    fn is_readable(disk: &Disk<Kv>, boot: Boot, schema: u32) -> Result<(), String> {
        if schema < NEWEST_SCHEMA {
            // It reads less, but what it reads means the same.
            disk.restore::<OldKv>(boot)?;
        }
        Ok(())
    }

    fn asked(entry: &Entry<Kv>) -> Option<u64> {
        asked_by(entry).map(|by| by.uid)
    }

    fn done(state: &crate::kv::State) -> Vec<u64> {
        state.done().collect()
    }
}

/// One node's store.
#[derive(Clone, Debug)]
pub struct Disk<A: App = Kv> {
    /// How often it was started from.
    pub starts: u64,
    /// What lies beside the log.
    pub kept: Kept,
    first: Index,
    log: VecDeque<Bytes>,
    /// By one past their last entry.
    snapshots: BTreeMap<Index, Snapshot>,
    /// What losing branches left.
    pub asides: Vec<Aside>,
    /// Writes that wait, in order.
    waiting: VecDeque<(WorkId, Work<A>)>,
}

/// A set-aside file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Its name.
    pub name: String,
    /// One past the last entry that stayed.
    pub fork: Index,
    /// The client commands in it, by uid.
    pub commands: Vec<u64>,
}

impl<A: App> Default for Disk<A> {
    fn default() -> Self {
        let (starts, kept, first, log, snapshots, asides, waiting) = Default::default();
        Disk { starts, kept, first, log, snapshots, asides, waiting }
    }
}

impl<A: Stored> Disk<A> {
    /// One past the last entry on it.
    pub fn next(&self) -> Index {
        self.first.plus(self.log.len() as u64)
    }

    /// An entry of its log.
    pub fn record(&self, index: Index) -> Option<Record> {
        let at = index.0.checked_sub(self.first.0)? as usize;
        self.log.get(at).map(|bytes| Record { index, bytes: bytes.clone() })
    }

    fn push(&mut self, bytes: Bytes) {
        self.log.push_back(bytes);
    }

    /// One past the last entry of its newest snapshot: where its state begins.
    pub fn base(&self) -> Index {
        self.snapshots.last_key_value().map(|(next, _)| *next).unwrap_or_default()
    }

    /// How many bytes its log and its newest snapshot have, unpacked.
    pub fn bytes(&self) -> u64 {
        let log: usize = self.log.iter().map(Bytes::len).sum();
        log as u64 + self.newest_snapshot().map_or(0, |snapshot| snapshot.manifest.raw_bytes)
    }

    /// Its newest snapshot.
    pub fn newest_snapshot(&self) -> Option<&Snapshot> {
        self.snapshots.last_key_value().map(|(_, snapshot)| snapshot)
    }

    /// The first entry that its log holds.
    pub fn first(&self) -> Index {
        self.first
    }

    /// Puts a write at the end of those that wait.
    pub fn ask(&mut self, id: WorkId, work: Work<A>) {
        self.waiting.push_back((id, work));
    }

    /// How many writes wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The write that waited longest.
    pub fn first_waiting(&self) -> Option<&Work<A>> {
        self.waiting.front().map(|(_, work)| work)
    }

    /// Does the write that waited longest, unless it fails. An inner error is one that the node is told of, an outer one a
    /// broken law.
    #[expect(clippy::type_complexity, reason = "what came of it, for whom, or why it must not be")]
    pub fn do_next(
        &mut self,
        boot: Boot,
        schema: u32,
        fails: Option<&str>,
    ) -> Result<Option<(WorkId, Result<Worked<A>, WorkFailed>)>, String> {
        let Some((id, work)) = self.waiting.pop_front() else { return Ok(None) };
        if let Some(why) = fails {
            return Ok(Some((id, Err(WorkFailed(why.to_owned())))));
        }
        Ok(Some((id, Ok(self.write(work, boot, schema)?))))
    }

    fn write(&mut self, work: Work<A>, boot: Boot, schema: u32) -> Result<Worked<A>, String> {
        match work {
            Work::Keep(kept) => self.kept = *kept,
            Work::Append { first, records } => {
                if first != self.next() {
                    return Err(format!("an append at {first} where the log ends before {}", self.next()));
                }
                records.into_iter().for_each(|bytes| self.push(bytes));
            }
            Work::Rewind { to, winner } => {
                let name = self.set_aside(to, &format!("{}-{winner}", self.asides.len()));
                return Ok(Worked::Rewound(Box::new(self.restored(boot, schema)?), name));
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

    /// Reads from the log.
    pub fn read(&self, work: Work<A>) -> Result<Worked<A>, WorkFailed> {
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
            Work::Keep(_)
            | Work::Append { .. }
            | Work::Rewind { .. }
            | Work::Install(_)
            | Work::Save(_)
            | Work::Trim { .. }
            | Work::Encode { .. }
            | Work::Decode { .. } => Err(WorkFailed("this reads no records".into())),
        }
    }

    /// Encodes or decodes, as a program of this schema does.
    pub fn code(&self, work: Work<A>, schema: u32) -> Result<Worked<A>, WorkFailed> {
        let failed = |error: Bad| WorkFailed(error.to_string());
        match work {
            Work::Encode { capture, chunk_bytes } => {
                let snapshot = A::encode(&capture, chunk_bytes, schema);
                snapshot.map(|snapshot| Worked::Encoded(Box::new(snapshot))).map_err(failed)
            }
            Work::Decode { snapshot, raw_bytes_at_most } => {
                let replica = A::decode(&snapshot, raw_bytes_at_most, schema);
                replica.map(|replica| Worked::Decoded(Box::new(replica))).map_err(failed)
            }
            Work::Keep(_)
            | Work::Append { .. }
            | Work::Rewind { .. }
            | Work::Install(_)
            | Work::Save(_)
            | Work::Read { .. }
            | Work::Trim { .. } => Err(WorkFailed("this is no encoding".into())),
        }
    }

    /// What a program of this schema finds when it starts.
    fn restored(&self, boot: Boot, schema: u32) -> Result<Restored<A>, String> {
        A::is_readable(self, boot, schema)?;
        self.restore(boot)
    }

    /// A copy of what is stored, as a copied disk image has it.
    pub fn copied(&self) -> Disk<A> {
        Disk { waiting: VecDeque::new(), ..self.clone() }
    }

    /// Moves what lies past the fork away; names it if it held anything but openings and marks.
    fn set_aside(&mut self, to: Index, name: &str) -> Option<String> {
        let mut asked = Vec::new();
        let mut worth = false;
        for next in self.snapshots.split_off(&to.next()).into_values() {
            worth = true;
            if let Ok(replica) = next.decode::<A>(u64::MAX) {
                asked.extend(A::done(replica.state()));
            }
        }
        let stays = (to.since(self.first) as usize).min(self.log.len());
        let cut = self.log.split_off(stays);
        let starts_at = self.next();
        for (offset, bytes) in cut.into_iter().enumerate() {
            if let Ok(entry) = (Record { index: starts_at.plus(offset as u64), bytes }).open::<A>() {
                worth |= !matches!(entry.body, Body::Opened(_) | Body::Backed);
                asked.extend(A::asked(&entry));
            }
        }
        // What is left of a log that begins after the newest snapshot left has nothing to build upon.
        let base = self.snapshots.last_key_value().map_or(Index(0), |(next, _)| *next);
        if base < self.first {
            self.log.clear();
            self.first = base;
        }
        worth.then(|| {
            self.asides.push(Aside { name: name.to_owned(), fork: to, commands: asked });
            name.to_owned()
        })
    }

    /// Builds the state up again: the newest snapshot, then the log.
    pub fn restore<B: App>(&self, boot: Boot) -> Result<Restored<B>, String> {
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

    /// The log's records.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let numbered = self.log.iter().enumerate();
        numbered.map(|(offset, bytes)| Record { index: self.first.plus(offset as u64), bytes: bytes.clone() })
    }

    /// The process dies: of the writes that wait, a first part may have come through, a last append torn. Of those behind
    /// one that fails, none.
    pub fn crash(&mut self, roll: &mut Roll, boot: Boot, fails: bool) -> Result<(), String> {
        if fails {
            self.waiting.clear();
        }
        let through = roll.below(self.waiting.len() as u64 + 1);
        for _ in 0..through {
            // Whoever asked for it hears nothing of it any more.
            let _unheard = self.do_next(boot, A::SCHEMA, None)?;
        }
        if let Some((_, Work::Append { first, records })) = self.waiting.front()
            && *first == self.next()
        {
            let torn = roll.below(records.len() as u64 + 1) as usize;
            let torn: Vec<Bytes> = records[..torn].to_vec();
            torn.into_iter().for_each(|bytes| self.push(bytes));
        }
        self.waiting.clear();
        Ok(())
    }

    /// The newest entries are gone, though they were synced; the store notices.
    pub fn lose_tail(&mut self, entries: u64) {
        let floor = self.snapshots.last_key_value().map_or(Index(0), |(next, _)| *next).since(self.first);
        let stays = (self.log.len() as u64).saturating_sub(entries).max(floor) as usize;
        self.log.truncate(stays);
        (self.kept.damaged, self.kept.lacks) = (true, None);
    }

    /// An entry is rotten, so many before the log's end: the store keeps what holds together without it.
    pub fn rot(&mut self, entries_before_end: u64) {
        let at = self.next().0.saturating_sub(entries_before_end + 1).max(self.first.0);
        if at >= self.next().0 {
            return;
        }
        (self.kept.damaged, self.kept.lacks) = (true, None);
        let base = self.base().0;
        if at >= base {
            self.log.truncate((at - self.first.0) as usize);
        } else {
            // What the newest snapshot stands for is whole; the log before it is not, and goes.
            self.log.drain(..(base - self.first.0).min(self.log.len() as u64) as usize);
            self.first = Index(base);
            self.snapshots.retain(|next, _| next.0 == base);
        }
    }
}
