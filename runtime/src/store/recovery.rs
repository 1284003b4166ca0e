//! Opening the database whatever state its file is in. A damaged file is moved aside whole, and what can be read goes on.

use std::fs;
use std::path::{Path, PathBuf};

use lockstep_replication::entry::Record;
use lockstep_replication::{Index, Wall};

use super::aside;
use super::database::{Database, Ledger, View};
use super::error::StoreError;
use super::files;
use super::snapshots;
use super::witness::Seen;

/// The database's file name.
pub(super) const FILE: &str = "store.redb";
/// Where a new one is made, before it takes its place whole.
const NEW: &str = "store.redb.new";
/// Where a damaged one is copied to be read; removed after.
const SALVAGE: &str = "store.redb.salvage.tmp";
/// What damaged ones are called, with a number.
const DAMAGED: &str = "store.redb.damaged-";
/// How many damaged files are kept for the operator.
const DAMAGED_AT_MOST: usize = 3;

/// What the store found wrong when it was opened. The node is marked as damaged for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong, as sentences.
    pub reasons: Vec<String>,
    /// The damaged database file as it was, if the file itself was at fault.
    pub moved_to: Option<PathBuf>,
    /// The set-aside file of the entries beyond the damage that could be read, if there were any.
    pub set_aside: Option<String>,
}

/// Opens the database, makes a new one, or saves what can be read of a damaged one.
pub(super) fn open(dir: &Path, seen: Option<Seen>, damage: &mut Damage) -> Result<Database, StoreError> {
    let path = dir.join(FILE);
    tidy(dir)?;
    if !path.exists() {
        let ledger = Ledger { snapshots: snapshots::found(dir)?, ..Ledger::default() };
        if seen.is_some() || !ledger.snapshots.is_empty() || !damaged_files(dir)?.is_empty() {
            damage.reasons.push(format!("{} is gone, though the node ran here before", path.display()));
        }
        make(dir, ledger, &mut std::iter::empty())?;
        return Database::open(&path);
    }
    let opened = Database::open(&path).and_then(|database| {
        // A database gets its name after its first commit: an empty one was cut off.
        if database.view()?.ledger.commits == 0 {
            return Err(StoreError::Damaged { path: path.clone(), reason: "it is empty".to_owned() });
        }
        Ok(database)
    });
    match opened {
        Err(error @ StoreError::Damaged { .. }) => {
            damage.reasons.push(error.to_string());
            salvage(dir, damage)?;
            Database::open(&path)
        }
        opened => opened,
    }
}

/// Finishes or forgets what an earlier process left half done.
fn tidy(dir: &Path) -> Result<(), StoreError> {
    let (path, new) = (dir.join(FILE), dir.join(NEW));
    if !path.exists() && new.exists() {
        // The old one was moved aside, which happens only when the new one is complete.
        fs::rename(&new, &path).map_err(StoreError::io(&new))?;
        files::sync_directory_of(&path)?;
    }
    let unfinished = |name: &&String| name.ends_with(files::UNFINISHED) || *name == NEW;
    for place in [dir.to_owned(), dir.join(aside::DIRECTORY)] {
        files::names(&place)?.iter().filter(unfinished).for_each(|name| files::remove(&place.join(name)));
    }
    Ok(())
}

/// Makes a whole database from this ledger and these records, which begin at its `first`, and puts it in its place.
fn make(dir: &Path, mut ledger: Ledger, records: &mut dyn Iterator<Item = Record>) -> Result<(), StoreError> {
    let new = dir.join(NEW);
    files::remove(&new);
    let database = Database::open(&new)?;
    let mut change = database.change()?;
    ledger.next = ledger.first;
    change.ledger = ledger;
    for record in records {
        change.append(record.index, &[record.bytes])?;
    }
    change.commit()?;
    drop(database);
    fs::rename(&new, dir.join(FILE)).map_err(StoreError::io(&new))?;
    files::sync_directory_of(&new)
}

/// Moves the damaged file aside and makes a new one of what it still tells.
fn salvage(dir: &Path, damage: &mut Damage) -> Result<(), StoreError> {
    let (path, copy) = (dir.join(FILE), dir.join(SALVAGE));
    // Reading a damaged database may change it further.
    fs::copy(&path, &copy).map_err(StoreError::io(&copy))?;
    let database = Database::open_unchecked(&copy);
    let view = database.as_ref().ok().and_then(|database| database.view().ok());
    let made = make_from(dir, view.as_ref(), damage);
    drop(view);
    drop(database);
    files::remove(&copy);
    made
}

fn make_from(dir: &Path, view: Option<&View>, damage: &mut Damage) -> Result<(), StoreError> {
    let path = dir.join(FILE);
    let mut ledger = match view {
        Some(view) if view.ledger.commits > 0 => view.ledger.clone(),
        Some(_) | None => Ledger { snapshots: snapshots::found(dir)?, ..Ledger::default() },
    };
    let whole_until = |from: Index| {
        view.map_or(from, |view| {
            view.records(from..ledger.next).map_while(Result::ok).last().map_or(from, |record| record.index.next())
        })
    };
    let mut end = whole_until(ledger.first);
    if let Some(newest) = ledger.snapshots.last().filter(|newest| end < newest.next && newest.next <= ledger.next) {
        // The hole lies below the newest snapshot: what comes after that is worth more.
        ledger.first = newest.next;
        end = whole_until(newest.next);
    }
    let (first, stored) = (ledger.first, ledger.next);
    if let Some(view) = view {
        damage.set_aside = set_aside_rest(dir, view, end, &mut ledger)?;
    }
    tracing::warn!("of entries {first} to {stored} in {}, those before {end} are readable", path.display());

    let taken = damaged_files(dir)?;
    let number = taken.last().map_or(1, |(number, _)| number + 1);
    let moved = dir.join(format!("{DAMAGED}{number}"));
    // A link, so that at each moment there is a database of the proper name.
    fs::hard_link(&path, &moved).or_else(|_| fs::copy(&path, &moved).map(drop)).map_err(StoreError::io(&moved))?;
    let mut records = view.into_iter().flat_map(|view| view.records(first..end)).map_while(Result::ok);
    make(dir, ledger, &mut records)?;
    let too_many = (taken.len() + 1).saturating_sub(DAMAGED_AT_MOST);
    taken.iter().take(too_many).for_each(|(_, old)| files::remove(old));
    damage.moved_to = Some(moved);
    Ok(())
}

/// Writes the records that can be read from `from` on into a set-aside file. Gives its name, or none if there are none.
pub(super) fn set_aside_rest(
    dir: &Path,
    view: &View,
    from: Index,
    ledger: &mut Ledger,
) -> Result<Option<String>, StoreError> {
    let entries = view.readable_from(from).count() as u64;
    if entries == 0 {
        return Ok(None);
    }
    let contents = aside::Contents { fork: from, winner: None, entries };
    let name = aside::write(dir, &mut ledger.asides, &contents, view.readable_from(from).map(Ok), &[])?;
    Ok(Some(name))
}

/// The damaged files of this directory with their numbers, ascending.
fn damaged_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let numbered = |name: &String| Some((name.strip_prefix(DAMAGED)?.parse().ok()?, dir.join(name)));
    let mut found: Vec<_> = files::names(dir)?.iter().filter_map(numbered).collect();
    found.sort_unstable();
    Ok(found)
}

/// The wall clock, to date files with.
pub(super) fn wall() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Wall(since.map_or(0, |since| since.as_millis() as u64))
}
