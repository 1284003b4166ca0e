//! Reading the log and snapshots while the store writes.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use lockstep_replication::entry::Record;
use lockstep_replication::io::{Work, WorkFailed, Worked};
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{App, Index};

use super::database::{Change, Database, Ledger, View};
use super::error::StoreError;
use super::snapshots;
use super::witness::{Seen, Witness};

/// What the store and its readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    database: Database,
    witness: Witness,
    /// As of the newest commit, so that the log's ends can be told without a transaction.
    ledger: RwLock<Ledger>,
}

impl Shared {
    pub(super) fn new(dir: PathBuf, database: Database, witness: Witness, ledger: Ledger) -> Self {
        Shared { dir, database, witness, ledger: RwLock::new(ledger) }
    }

    pub(super) fn view(&self) -> Result<View, StoreError> {
        self.database.view()
    }

    pub(super) fn change(&self) -> Result<Change, StoreError> {
        self.database.change()
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the change durable and visible to readers.
    pub(super) fn commit(&self, change: Change) -> Result<(), StoreError> {
        let ledger = change.commit()?;
        if let Err(error) = self.witness.note(Seen { commits: ledger.commits, starts: ledger.starts }) {
            // The commit stands; only a later loss of it might go unnoticed.
            tracing::warn!("the newest commit is not witnessed: {error}");
        }
        *self.ledger.write().unwrap_or_else(PoisonError::into_inner) = ledger;
        Ok(())
    }

    pub(super) fn witness_start(&self) -> Result<(), StoreError> {
        let ledger = self.ledger();
        self.witness.note_synced(Seen { commits: ledger.commits, starts: ledger.starts })
    }
}

/// Reads the stored log and snapshots, from any thread, as of the newest commit. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogReader(pub(super) Arc<Shared>);

impl LogReader {
    /// The first entry that the log holds; [`LogReader::next`] if it holds none.
    pub fn first(&self) -> Index {
        self.0.ledger().first
    }

    /// One past the last entry that the log holds.
    pub fn next(&self) -> Index {
        self.0.ledger().next
    }

    /// The records from `from` to before `until` or the log's end, whichever is first; after the first record only as
    /// many as fit `max_bytes`. Empty if the log does not hold `from`.
    pub fn read(&self, from: Index, until: Index, max_bytes: usize) -> Result<Vec<Record>, StoreError> {
        let view = self.0.view()?;
        let ledger = &view.ledger;
        if from < ledger.first || from >= ledger.next {
            return Ok(Vec::new());
        }
        let mut bytes = 0;
        let mut records: Vec<Record> = Vec::new();
        for record in view.records(from..until.min(ledger.next)) {
            let record = record?;
            bytes += record.bytes.len();
            if bytes > max_bytes && !records.is_empty() {
                break;
            }
            records.push(record);
        }
        Ok(records)
    }

    /// The stored snapshots, ascending, by one past their last entry.
    pub fn snapshots(&self) -> Vec<Index> {
        self.0.ledger().snapshots.iter().map(|stored| stored.next).collect()
    }

    /// The stored snapshot that stands for the log before `next`; none if there is no such.
    pub fn snapshot(&self, next: Index) -> Result<Option<Snapshot>, StoreError> {
        let stored = self.0.ledger().snapshots.iter().rev().find(|stored| stored.next == next).copied();
        stored.map(|stored| snapshots::read(&self.0.dir, stored)).transpose()
    }

    /// Performs work that only reads: `Read`, `Encode` or `Decode`. It may run beside [`super::Store::perform`].
    /// Work that writes is refused.
    pub fn perform<A: App>(&self, work: Work<A>) -> Result<Worked<A>, WorkFailed> {
        match work {
            Work::Read { from, until, max_bytes } => {
                let records = self.read(from, until, max_bytes)?;
                Ok(Worked::Read { first: from, records: records.into_iter().map(|record| record.bytes).collect() })
            }
            Work::Encode { capture, chunk_bytes } => Snapshot::encode(&capture, chunk_bytes)
                .map(|snapshot| Worked::Encoded(Box::new(snapshot)))
                .map_err(|bad| WorkFailed(format!("the snapshot cannot be encoded: {bad}"))),
            Work::Decode { snapshot, raw_bytes_at_most } => snapshot
                .decode(raw_bytes_at_most)
                .map(|replica| Worked::Decoded(Box::new(replica)))
                .map_err(|bad| WorkFailed(format!("the snapshot cannot be decoded: {bad}"))),
            Work::Keep(_)
            | Work::Append { .. }
            | Work::Rewind { .. }
            | Work::Install(_)
            | Work::Save(_)
            | Work::Trim { .. } => Err(WorkFailed("work that writes was given to a reader".to_owned())),
        }
    }
}
