//! The embedded store: a node's log, snapshots and what it keeps beside them, durable, in one directory.
//!
//! ```text
//! lock                     one process a directory
//! store.redb               the log, and the ledger of all else, changed together in one synced commit
//! witness                  how many commits are known to be synced, so that a lost one is noticed
//! snapshot-<next>-<hash>   the state before entry <next>
//! aside/<n>-<fork>.aside   what a losing branch left
//! store.redb.damaged-<n>   a database that could not be trusted, as it was found
//! identity.key, cluster.key
//! ```
//!
//! Every stored byte that matters is under a checksum. What is damaged leads to a clear error, or to the state before
//! the damage with the node marked as damaged; what another version wrote is an error and stays as it is.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lockstep_replication::io::{Work, WorkFailed, Worked};
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{App, Boot, Index, Restored, WorkId};

pub mod aside;
pub mod backup;
mod database;
mod error;
pub(crate) mod files;
mod frames;
pub mod keys;
mod lock;
mod reader;
mod recovery;
mod restore;
mod rewind;
mod snapshots;
mod witness;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use reader::LogReader;
pub use recovery::Damage;

use database::{Change, StoredSnapshot};
use lock::DirectoryLock;
use reader::Shared;
use restore::Rebuilt;
use witness::Witness;

/// A node's open data directory. It writes; [`Store::reader`] reads beside it.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    boot: Boot,
    damage: Option<Damage>,
    _lock: DirectoryLock,
}

/// Work that waits for the commit that it shares with others.
#[derive(Default)]
struct Group {
    change: Option<Change>,
    /// Snapshot files that nothing names once the change is durable.
    obsolete: Vec<StoredSnapshot>,
}

/// How work stands to the commit that others wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It belongs to it, and fails with it.
    Shared,
    /// It belongs to it, and may fail without it.
    Dispensable,
    /// It comes after it.
    Alone,
}

impl Store {
    /// Opens a data directory, or begins one, and builds the state up from it. It counts as a start: the boot is this
    /// one's, with `nonce`, which should be drawn at random.
    ///
    /// Damage is repaired as far as can be: then `restored.kept.damaged` is set and [`Store::damage`] tells.
    pub fn open<A: App>(dir: &Path, nonce: u64) -> Result<(Store, Restored<A>), StoreError> {
        fs::create_dir_all(dir).map_err(StoreError::io(dir))?;
        let lock = DirectoryLock::take(dir)?;
        let (witness, seen) = Witness::open(dir)?;
        let mut damage = Damage::default();
        let database = recovery::open(dir, seen, &mut damage)?;

        let view = database.view()?;
        let seen = seen.unwrap_or_default();
        if damage.reasons.is_empty() && view.ledger.commits < seen.commits {
            damage.reasons.push(format!(
                "the database is as of commit {}, though commit {} was synced",
                view.ledger.commits, seen.commits
            ));
        }
        let boot = Boot { starts: view.ledger.starts.max(seen.starts) + 1, nonce };
        let mut rebuilt = restore::restore::<A>(dir, boot, &view)?;
        let mut change = database.change()?;
        if let Some(loss) = &rebuilt.loss {
            damage.reasons.push(loss.clone());
            let rest = recovery::set_aside_rest(dir, &view, rebuilt.next, &mut change.ledger)?;
            damage.set_aside = damage.set_aside.take().or(rest);
        }
        drop(view);
        rebuilt.settle(&mut change, !damage.reasons.is_empty())?;
        change.ledger.starts = boot.starts;
        change.ledger.commits = change.ledger.commits.max(seen.commits);
        let named = change.ledger.snapshots.clone();

        let shared = Arc::new(Shared::new(dir.to_owned(), database, witness, change.ledger.clone()));
        shared.commit(change)?;
        shared.witness_start()?;
        // Files whose commit never came, or whose removal was interrupted.
        let unnamed = snapshots::found(dir)?.into_iter().filter(|found| !named.contains(found));
        unnamed.for_each(|stored| files::remove(&stored.path(dir)));
        let damage = (!damage.reasons.is_empty()).then_some(damage);
        if let Some(Damage { reasons, moved_to, set_aside }) = &damage {
            tracing::error!(?moved_to, ?set_aside, "the data directory is damaged: {}", reasons.join("; "));
        }
        Ok((Store { shared, boot, damage, _lock: lock }, rebuilt.restored))
    }

    /// What was found damaged when the store was opened; none if all was well.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Reads beside this store's writing, from any thread.
    pub fn reader(&self) -> LogReader {
        LogReader(Arc::clone(&self.shared))
    }

    /// Performs work in order, as much as can be in one synced commit, and says of each how it went.
    ///
    /// When something fails, all that shares its commit fails with it, and so does all that comes after it. Only `Save`
    /// and `Trim`, which the log does not need, may fail alone.
    pub fn perform<A: App>(&mut self, batch: Vec<(WorkId, Work<A>)>) -> Vec<(WorkId, Result<Worked<A>, WorkFailed>)> {
        let mut results = Vec::with_capacity(batch.len());
        // Results before this are final: their commit is done.
        let mut durable = 0;
        let mut group = Group::default();
        let mut failed: Option<WorkFailed> = None;
        for (id, work) in batch {
            let place = Place::of(&work);
            if failed.is_none() && place == Place::Alone {
                // It looks at what is stored, so what came before must be.
                failed = self.commit(&mut group).err().map(WorkFailed::from);
                durable = if failed.is_none() { results.len() } else { durable };
            }
            if let Some(failed) = &failed {
                results.push((id, Err(failed.clone())));
                continue;
            }
            let result = self.one(&mut group, work);
            if let Err(error) = &result
                && (place != Place::Dispensable || group.is_broken())
            {
                failed = Some(error.clone());
            }
            results.push((id, result));
            if place == Place::Alone && failed.is_none() {
                durable = results.len();
            }
        }
        if failed.is_none() {
            failed = self.commit(&mut group).err().map(WorkFailed::from);
        }
        if let Some(failed) = failed {
            results[durable..].iter_mut().for_each(|(_, result)| *result = Err(failed.clone()));
        }
        results
    }

    /// Performs one piece of work, in the group if it can be.
    fn one<A: App>(&self, group: &mut Group, work: Work<A>) -> Result<Worked<A>, WorkFailed> {
        match work {
            Work::Keep(kept) => group.change(&self.shared)?.ledger.kept = *kept,
            Work::Append { first, records } => group.change(&self.shared)?.append(first, &records)?,
            Work::Install(snapshot) => self.install(group, &snapshot)?,
            Work::Save(snapshot) => self.save(group, &snapshot)?,
            Work::Trim { log_below, snapshots_but } => self.trim(group, log_below, &snapshots_but)?,
            Work::Rewind { to, winner } => {
                let (restored, name) = rewind::rewind::<A>(&self.shared, self.boot, to, winner)?;
                return Ok(Worked::Rewound(Box::new(restored), name));
            }
            work @ (Work::Read { .. } | Work::Encode { .. } | Work::Decode { .. }) => {
                return self.reader().perform(work);
            }
        }
        Ok(Worked::Stored)
    }

    fn install(&self, group: &mut Group, snapshot: &Snapshot) -> Result<(), StoreError> {
        let stored = snapshots::write(&self.shared.dir, snapshot)?;
        let change = group.change(&self.shared)?;
        // Snapshots past it belong to a log that is not this one.
        let (stay, go) = change.ledger.snapshots.iter().partition(|old| old.next < stored.next);
        change.ledger.snapshots = stay;
        change.ledger.snapshots.push(stored);
        change.begin_at(stored.next)?;
        group.drop_later(go);
        Ok(())
    }

    fn save(&self, group: &mut Group, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (next, ledger) = (snapshot.manifest.next(), &group.change(&self.shared)?.ledger);
        if next < ledger.first || next > ledger.next {
            return Err(StoreError::Refused(format!(
                "a snapshot before entry {next} does not join the log, which holds entries {} to before {}",
                ledger.first, ledger.next
            )));
        }
        let stored = snapshots::write(&self.shared.dir, snapshot)?;
        let named = &mut group.change(&self.shared)?.ledger.snapshots;
        let (stay, go) = named.iter().partition(|old| old.next != stored.next);
        *named = stay;
        named.push(stored);
        named.sort_unstable();
        group.drop_later(go);
        Ok(())
    }

    fn trim(&self, group: &mut Group, below: Index, but: &[Index]) -> Result<(), StoreError> {
        let change = group.change(&self.shared)?;
        let (stay, go): (Vec<StoredSnapshot>, _) =
            change.ledger.snapshots.iter().partition(|stored| but.contains(&stored.next));
        let first = change.ledger.first.max(below);
        let joined = |at: Index| first <= at && at <= change.ledger.next;
        if !joined(Index(0)) && !stay.iter().any(|stored| joined(stored.next)) {
            return Err(StoreError::Refused(format!(
                "the log from entry {first} on could not be restored: no snapshot that stays joins it"
            )));
        }
        change.ledger.snapshots = stay;
        change.trim(below)?;
        group.drop_later(go);
        Ok(())
    }

    /// Makes the group's changes durable and begins a new group.
    fn commit(&self, group: &mut Group) -> Result<(), StoreError> {
        let Group { change, obsolete } = std::mem::take(group);
        if let Some(change) = change {
            let named = change.ledger.snapshots.clone();
            self.shared.commit(change)?;
            let gone = obsolete.iter().filter(|stored| !named.contains(stored));
            gone.for_each(|stored| files::remove(&stored.path(&self.shared.dir)));
        }
        Ok(())
    }
}

impl Place {
    fn of<A: App>(work: &Work<A>) -> Place {
        match work {
            Work::Keep(_) | Work::Append { .. } | Work::Install(_) => Place::Shared,
            Work::Save(_) | Work::Trim { .. } => Place::Dispensable,
            Work::Rewind { .. } | Work::Read { .. } | Work::Encode { .. } | Work::Decode { .. } => Place::Alone,
        }
    }
}

impl Group {
    /// Whether something failed half way, so that the group's change must not be committed.
    fn is_broken(&self) -> bool {
        self.change.as_ref().is_some_and(Change::is_broken)
    }

    fn change(&mut self, shared: &Shared) -> Result<&mut Change, StoreError> {
        if self.change.is_none() {
            self.change = Some(shared.change()?);
        }
        Ok(self.change.as_mut().expect("it has just been begun"))
    }

    fn drop_later(&mut self, stored: Vec<StoredSnapshot>) {
        self.obsolete.extend(stored);
    }
}

impl<A: App> Rebuilt<A> {
    /// Makes the store agree with what could be built from it.
    fn settle(&mut self, change: &mut Change, damaged: bool) -> Result<(), StoreError> {
        if self.first == self.next {
            change.begin_at(self.next)?;
        } else {
            change.cut(self.next)?;
        }
        change.ledger.snapshots.clone_from(&self.snapshots);
        let kept = &mut self.restored.kept;
        if damaged {
            (kept.damaged, kept.lacks) = (true, None);
            // What it kept may be lost too: at least it goes on above the sessions that its log has seen.
            let session = self.restored.replica.lineage().session();
            kept.clock = kept.clock.max(session.map_or(0, |session| session.clock));
        }
        change.ledger.kept = *kept;
        Ok(())
    }
}
