//! The database file: the log, one record a row, and one row of all else, changed together in one synced commit.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lockstep_replication::entry::Record;
use lockstep_replication::io::Kept;
use lockstep_replication::{Hash, Index};
use redb::{Durability, ReadableDatabase as _, TableDefinition};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::StoreError;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const LEDGER: TableDefinition<'_, (), &[u8]> = TableDefinition::new("ledger");

/// The version of the ledger's form.
const VERSION: u8 = 1;

/// How many bytes of a SHA-256 stand before each record and the ledger: redb checks pages at open, not at each read.
const CHECK_BYTES: usize = 8;

/// What redb may keep in memory. Reads are of the log's end, which the node has in memory too.
const CACHE_BYTES: usize = 32 << 20;

/// Above this size, a file of which less than a quarter is used is compacted at open.
const COMPACT_ABOVE: u64 = 16 << 20;

/// All that is stored beside the log's records. Written whole with each commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// Counts commits.
    pub(super) commits: u64,
    /// Counts starts of the node.
    pub(super) starts: u64,
    /// What the node keeps beside its log.
    pub(super) kept: Kept,
    /// The first entry of the log; `next` if it is empty.
    pub(super) first: Index,
    /// One past the last entry.
    pub(super) next: Index,
    /// The snapshots whose files belong to this store, ascending.
    pub(super) snapshots: Vec<StoredSnapshot>,
    /// How many set-aside files there ever were.
    pub(super) asides: u64,
}

/// A snapshot file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct StoredSnapshot {
    /// One past the last entry that it stands for.
    pub(super) next: Index,
    /// Its hash, so that another branch's snapshot of the same index is another file.
    pub(super) hash: Hash,
}

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    /// There until it is dropped.
    redb: Option<redb::Database>,
    path: PathBuf,
}

/// The database as of one commit.
pub(super) struct View {
    log: Option<redb::ReadOnlyTable<u64, &'static [u8]>>,
    path: PathBuf,
    /// The ledger of that commit.
    pub(super) ledger: Ledger,
}

/// Changes that become durable together, or not at all when this is dropped.
pub(super) struct Change {
    transaction: redb::WriteTransaction,
    path: PathBuf,
    /// What the ledger will be.
    pub(super) ledger: Ledger,
    broken: bool,
}

impl Database {
    /// Opens the file, or begins it. Every page is checked: what redb would trust wrongly is refused as damaged.
    pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
        let mut database = Self::open_as(path, true)?;
        guarded(path, || database.compact())?;
        Ok(database)
    }

    /// Opens a damaged file as it is, to save what can be read.
    pub(super) fn open_unchecked(path: &Path) -> Result<Database, StoreError> {
        Self::open_as(path, false)
    }

    fn open_as(path: &Path, check: bool) -> Result<Database, StoreError> {
        guarded(path, || {
            let redb = redb::Builder::new()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(check)
                .create(path)
                .map_err(because(path))?;
            Ok(Database { redb: Some(redb), path: path.to_owned() })
        })
    }

    /// What is stored now.
    pub(super) fn view(&self) -> Result<View, StoreError> {
        guarded(&self.path, || {
            let transaction = self.redb().begin_read().map_err(because(&self.path))?;
            let table = match transaction.open_table(LEDGER) {
                Ok(table) => table,
                // A new file.
                Err(redb::TableError::TableDoesNotExist(_)) => {
                    return Ok(View { log: None, path: self.path.clone(), ledger: Ledger::default() });
                }
                Err(error) => return Err(because(&self.path)(error)),
            };
            let row = table.get(()).map_err(because(&self.path))?;
            let ledger = Ledger::read(row.as_ref().map_or(&[], |row| row.value()), &self.path)?;
            let log = transaction.open_table(LOG).map_err(because(&self.path))?;
            Ok(View { log: Some(log), path: self.path.clone(), ledger })
        })
    }

    /// Begins to change it.
    pub(super) fn change(&self) -> Result<Change, StoreError> {
        let ledger = self.view()?.ledger;
        guarded(&self.path, || {
            let mut transaction = self.redb().begin_write().map_err(because(&self.path))?;
            transaction.set_durability(Durability::Immediate).map_err(because(&self.path))?;
            Ok(Change { transaction, path: self.path.clone(), ledger, broken: false })
        })
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        let size = std::fs::metadata(&self.path).map_err(StoreError::io(&self.path))?.len();
        if size <= COMPACT_ABOVE {
            return Ok(());
        }
        let transaction = self.redb().begin_write().map_err(because(&self.path))?;
        let used = transaction.stats().map_err(because(&self.path))?.stored_bytes();
        transaction.abort().map_err(because(&self.path))?;
        if used < size / 4
            && let Some(redb) = &mut self.redb
        {
            redb.compact().map_err(because(&self.path))?;
        }
        Ok(())
    }

    fn redb(&self) -> &redb::Database {
        self.redb.as_ref().expect("it is there until the database is dropped")
    }
}

impl Drop for Database {
    /// Closing writes too, and may fail on a damaged file as everything else may.
    fn drop(&mut self) {
        let closed = guarded(&self.path, || {
            drop(self.redb.take());
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!("closing failed: {error}");
        }
    }
}

impl View {
    /// The records of this range, in order, each checked. After an error there is nothing more.
    pub(super) fn records(&self, range: Range<Index>) -> impl Iterator<Item = Result<Record, StoreError>> + '_ {
        let mut rows = None;
        let mut next = range.start;
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed || next >= range.end {
                return None;
            }
            let record = guarded(&self.path, || {
                let damaged = |reason: String| StoreError::Damaged { path: self.path.clone(), reason };
                let missing = || damaged(format!("entry {next} is missing"));
                if rows.is_none() {
                    let log = self.log.as_ref().ok_or_else(missing)?;
                    rows = Some(log.range(range.start.0..range.end.0).map_err(because(&self.path))?);
                }
                let row = rows.as_mut().and_then(Iterator::next).ok_or_else(missing)?;
                let (key, value) = row.map_err(because(&self.path))?;
                if key.value() != next.0 {
                    return Err(missing());
                }
                unseal(next, value.value()).ok_or_else(|| damaged(format!("entry {next} has changed")))
            });
            failed = record.is_err();
            next = next.next();
            Some(record)
        })
    }

    /// Every record from here on that can still be read, whatever lies between. For saving what is left.
    pub(super) fn readable_from(&self, from: Index) -> impl Iterator<Item = Record> + '_ {
        let rows = self
            .log
            .as_ref()
            .and_then(|log| guarded(&self.path, || log.range(from.0..).map_err(because(&self.path))).ok());
        let mut rows = rows.into_iter().flatten();
        let mut readable = std::iter::from_fn(move || {
            guarded(&self.path, || {
                rows.next()
                    .map(|row| {
                        let (key, value) = row.map_err(because(&self.path))?;
                        Ok(unseal(Index(key.value()), value.value()))
                    })
                    .transpose()
            })
            // Where the tree itself is broken there is no way on.
            .unwrap_or_default()
        });
        let mut last = None;
        std::iter::from_fn(move || {
            // A broken tree might lead round in a circle: indexes only grow.
            let found = readable.by_ref().flatten().find(|record| last.is_none_or(|last| record.index > last))?;
            last = Some(found.index);
            Some(found)
        })
    }
}

impl Change {
    /// Adds records to the log's end.
    pub(super) fn append(&mut self, first: Index, records: &[Bytes]) -> Result<(), StoreError> {
        if first != self.ledger.next {
            return Err(StoreError::NotAtEnd { end: self.ledger.next, found: first });
        }
        let appended = guarded(&self.path, || {
            let mut log = self.transaction.open_table(LOG).map_err(because(&self.path))?;
            for record in records {
                let sealed = seal(self.ledger.next, record);
                log.insert(self.ledger.next.0, &sealed[..]).map_err(because(&self.path))?;
                self.ledger.next = self.ledger.next.next();
            }
            Ok(())
        });
        self.broken |= appended.is_err();
        appended
    }

    /// Whether something failed half way: it must not be committed.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Removes the log from `to` on.
    pub(super) fn cut(&mut self, to: Index) -> Result<(), StoreError> {
        self.remove(to..self.ledger.next)?;
        self.ledger.next = self.ledger.next.min(to);
        self.ledger.first = self.ledger.first.min(self.ledger.next);
        Ok(())
    }

    /// Removes the log below an index, which is not beyond its end.
    pub(super) fn trim(&mut self, below: Index) -> Result<(), StoreError> {
        self.remove(self.ledger.first..below)?;
        self.ledger.first = self.ledger.first.max(below);
        Ok(())
    }

    /// Empties the log; the next entry will be this.
    pub(super) fn begin_at(&mut self, next: Index) -> Result<(), StoreError> {
        self.remove(Index(0)..Index(u64::MAX))?;
        (self.ledger.first, self.ledger.next) = (next, next);
        Ok(())
    }

    fn remove(&mut self, range: Range<Index>) -> Result<(), StoreError> {
        let removed = guarded(&self.path, || {
            let mut log = self.transaction.open_table(LOG).map_err(because(&self.path))?;
            if range.start < range.end {
                log.retain_in(range.start.0..range.end.0, |_, _| false).map_err(because(&self.path))?;
            }
            Ok(())
        });
        self.broken |= removed.is_err();
        removed
    }

    /// Makes it durable, synced. On an error nothing of it counts as done.
    pub(super) fn commit(mut self) -> Result<Ledger, StoreError> {
        guarded(&self.path, || {
            self.ledger.commits += 1;
            // The first commit makes both tables, so that a view finds both or none.
            self.transaction.open_table(LOG).map_err(because(&self.path))?;
            {
                let mut table = self.transaction.open_table(LEDGER).map_err(because(&self.path))?;
                table.insert((), &self.ledger.bytes()[..]).map_err(because(&self.path))?;
            }
            self.transaction.commit().map_err(because(&self.path))?;
            Ok(self.ledger)
        })
    }
}

impl Ledger {
    fn bytes(&self) -> Vec<u8> {
        let body = postcard::to_extend(self, vec![VERSION]).expect("plain data serialises into memory");
        [&Hash::of(&body).0[..CHECK_BYTES], &body].concat()
    }

    fn read(row: &[u8], path: &Path) -> Result<Ledger, StoreError> {
        let damaged = |reason: &str| StoreError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let (check, body) = row.split_at_checked(CHECK_BYTES).ok_or_else(|| damaged("its ledger is missing"))?;
        if Hash::of(body).0[..CHECK_BYTES] != *check {
            return Err(damaged("its ledger has changed"));
        }
        match body.split_first() {
            Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((ledger, [])) => Ok(ledger),
                Ok(_) | Err(_) => Err(damaged("its ledger is not readable")),
            },
            Some((version, _)) => Err(StoreError::Incompatible {
                path: path.to_owned(),
                reason: format!("its ledger has version {version}, this program reads version {VERSION}"),
            }),
            None => Err(damaged("its ledger is empty")),
        }
    }
}

/// A record as it is stored: a check over its index and bytes, then the bytes.
fn seal(index: Index, record: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECK_BYTES + record.len());
    sealed.extend(record_check(index, record));
    sealed.extend(record);
    sealed
}

fn unseal(index: Index, sealed: &[u8]) -> Option<Record> {
    let (check, bytes) = sealed.split_at_checked(CHECK_BYTES)?;
    (record_check(index, bytes) == *check).then(|| Record { index, bytes: Bytes::copy_from_slice(bytes) })
}

fn record_check(index: Index, record: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = Sha256::new().chain_update(index.0.to_le_bytes()).chain_update(record).finalize();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash[..CHECK_BYTES]);
    check
}

fn because<E: Into<redb::Error>>(path: &Path) -> impl FnOnce(E) -> StoreError + '_ {
    move |error| StoreError::database(path)(error.into())
}

/// Runs something of redb's. It may panic on a file that was damaged in an unlucky way; that is an error like others.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = format!("the database gave up on it: {}", said(&*panic));
        Err(StoreError::Damaged { path: path.to_owned(), reason })
    })
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}
