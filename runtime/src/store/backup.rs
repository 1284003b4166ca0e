//! One file that holds a state and the log after it: for a cluster that was lost whole.
//!
//! It holds no identity, no keys and no confirmations: those belong to one disk and must not exist twice.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use lockstep_replication::io::{Kept, Work, Worked};
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{App, Boot, Hash, Index, Replica, Restored, WorkId};
use serde::{Deserialize, Serialize};

use super::aside::{self, frame_of, record_of};
use super::error::StoreError;
use super::frames::{BadFile, FrameReader, FrameWriter, Kind};
use super::reader::LogReader;
use super::{Store, files, recovery, snapshots, witness};

const RECORD: u8 = 4;
/// What the file holds, as its last frame: what was written can be known only then.
const SUM: u8 = 5;

/// How many records are appended to the new store in one commit.
const RECORDS_A_COMMIT: usize = 10_000;

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// One past the last entry that its snapshot stands for; 0 if it holds none.
    pub snapshot: Index,
    /// One past its last entry.
    pub next: Index,
    /// The running hash of the log up to there.
    pub hash: Hash,
}

/// Writes the newest snapshot and the log after it, as of one commit, while the node runs or not.
///
/// Errors name the data directory, or `out` as "the backup". The caller syncs `out`.
pub fn backup(reader: &LogReader, out: impl Write) -> Result<Backup, StoreError> {
    let writing = || StoreError::io(Path::new("the backup"));
    let shared = &reader.0;
    let view = shared.view()?;
    let ledger = &view.ledger;
    let joined = ledger.snapshots.iter().rev().find(|stored| ledger.first <= stored.next && stored.next <= ledger.next);
    let mut frames = FrameWriter::new(BufWriter::new(out), Kind::Backup).map_err(writing())?;
    let (from, mut hash) = match joined {
        Some(stored) => {
            let snapshot = snapshots::read(&shared.dir, *stored)?;
            snapshots::write_frames(&mut frames, &snapshot).map_err(writing())?;
            (stored.next, snapshot.manifest.log_hash)
        }
        None if ledger.first == Index(0) => (Index(0), Hash::default()),
        None => return Err(StoreError::Refused("no stored snapshot joins the log; try again in a moment".to_owned())),
    };
    for record in view.records(from..ledger.next) {
        let record = record?;
        hash = record.chain(hash);
        frames.frame(RECORD, &frame_of(&record)).map_err(writing())?;
    }
    let sum = Backup { snapshot: from, next: ledger.next, hash };
    let bytes = postcard::to_stdvec(&sum).map_err(io::Error::other);
    bytes.and_then(|bytes| frames.frame(SUM, &bytes)).and_then(|()| frames.finish()).map_err(writing())?;
    Ok(sum)
}

/// Makes a new data directory's store from a backup, after every record of it was checked by applying it.
///
/// The directory may hold keys and configuration, but no store. On an error it holds none after it either.
pub fn restore<A: App>(backup: &Path, dir: &Path) -> Result<Backup, StoreError> {
    if let Some(found) = files::names(dir)?.iter().find(|name| belongs_to_a_store(name)) {
        return Err(StoreError::Refused(format!(
            "{} holds {found} already: restore into a directory without a store",
            dir.display()
        )));
    }
    let sum = check::<A>(backup)?;
    let made = make::<A>(backup, dir);
    if made.is_err() {
        for name in files::names(dir)?.iter().filter(|name| belongs_to_a_store(name)) {
            files::remove(&dir.join(name));
        }
    }
    made.map(|()| sum)
}

fn belongs_to_a_store(name: &str) -> bool {
    name.starts_with(recovery::FILE)
        || name == witness::FILE
        || name.starts_with(snapshots::PREFIX)
        || name == aside::DIRECTORY
}

/// What a backup is read as, part by part.
enum Part {
    Snapshot(Snapshot),
    Record(lockstep_replication::entry::Record),
    Sum(Backup),
}

fn parts(path: &Path) -> Result<impl Iterator<Item = Result<Part, StoreError>> + '_, StoreError> {
    let file = File::open(path).map_err(StoreError::io(path))?;
    let mut frames = FrameReader::new(BufReader::new(file), Kind::Backup).map_err(StoreError::file(path))?;
    let mut part = move || -> Result<Option<Part>, BadFile> {
        Ok(match frames.frame()? {
            Some((snapshots::MANIFEST, manifest)) => {
                Some(Part::Snapshot(snapshots::read_frames(&manifest, &mut frames)?))
            }
            Some((RECORD, content)) => Some(Part::Record(record_of(&content)?)),
            Some((SUM, content)) => match postcard::take_from_bytes(&content) {
                Ok((sum, [])) => Some(Part::Sum(sum)),
                Ok(_) | Err(_) => return Err(BadFile::Content("its sum is not readable".to_owned())),
            },
            Some((tag, _)) => return Err(BadFile::Content(format!("it has an unknown part {tag}"))),
            None => None,
        })
    };
    Ok(std::iter::from_fn(move || part().map_err(StoreError::file(path)).transpose()))
}

/// Reads the whole backup and applies it, keeping nothing.
fn check<A: App>(path: &Path) -> Result<Backup, StoreError> {
    let wrong = |reason: String| StoreError::Damaged { path: path.to_owned(), reason };
    let mut restored = Restored::<A>::new(Boot::default(), Kept::default(), Replica::default());
    let mut sum = None;
    for part in parts(path)? {
        match part? {
            Part::Snapshot(snapshot) => {
                let replica = snapshot.decode(snapshot.manifest.raw_bytes).map_err(|bad| wrong(bad.to_string()))?;
                restored = Restored::new(Boot::default(), Kept::default(), replica);
            }
            Part::Record(record) => drop(restored.push(record).map_err(|error| wrong(error.to_string()))?),
            Part::Sum(found) => sum = Some(found),
        }
    }
    sum.filter(|sum| sum.next == restored.replica.next() && sum.hash == restored.replica.hash())
        .ok_or_else(|| wrong("its entries do not come to the sum that it names".to_owned()))
}

fn make<A: App>(path: &Path, dir: &Path) -> Result<(), StoreError> {
    let (mut store, _) = Store::open::<A>(dir, 0)?;
    let mut first = Index(0);
    let mut records = Vec::new();
    for part in parts(path)? {
        match part? {
            Part::Snapshot(snapshot) => {
                first = snapshot.manifest.next();
                store.must(Work::<A>::Install(Box::new(snapshot)))?;
            }
            Part::Record(record) => {
                records.push(record.bytes);
                if records.len() == RECORDS_A_COMMIT {
                    let count = records.len() as u64;
                    store.must(Work::<A>::Append { first, records: std::mem::take(&mut records) })?;
                    first = first.plus(count);
                }
            }
            Part::Sum(_) => store.must(Work::<A>::Append { first, records: std::mem::take(&mut records) })?,
        }
    }
    drop(store);
    // What is kept beside the log begins anew, above the sessions that the log has seen.
    let (mut store, restored) = Store::open::<A>(dir, 0)?;
    let clock = restored.replica.lineage().session().map_or(0, |session| session.clock);
    store.must(Work::<A>::Keep(Box::new(Kept { clock, ..Kept::default() })))
}

impl Store {
    fn must<A: App>(&mut self, work: Work<A>) -> Result<(), StoreError> {
        let done = self.perform(vec![(WorkId(0), work)]);
        let failed = done.into_iter().find_map(|(_, result): (_, Result<Worked<A>, _>)| result.err());
        failed.map_or(Ok(()), |failed| Err(StoreError::Refused(failed.to_string())))
    }
}
