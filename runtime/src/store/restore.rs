//! Building the state up again from what is stored: the best snapshot, then the log after it.

use std::path::Path;

use lockstep_replication::entry::Unreadable;
use lockstep_replication::replica::NotApplied;
use lockstep_replication::snapshot::Bad;
use lockstep_replication::{App, Boot, Index, Replica, Restored};

use super::database::{StoredSnapshot, View};
use super::error::StoreError;
use super::snapshots;

/// A state, and what of the store it was built from.
pub(super) struct Rebuilt<A: App> {
    pub(super) restored: Restored<A>,
    /// The part of the log that holds together with it.
    pub(super) first: Index,
    pub(super) next: Index,
    /// The snapshots that are not known to be damaged.
    pub(super) snapshots: Vec<StoredSnapshot>,
    /// How it shows that stored entries are missing, if it does.
    pub(super) loss: Option<String>,
}

/// Builds the state up. What is damaged is left out and told; what is merely of another version is an error.
pub(super) fn restore<A: App>(dir: &Path, boot: Boot, view: &View) -> Result<Rebuilt<A>, StoreError> {
    let ledger = &view.ledger;
    let mut kept_snapshots = ledger.snapshots.clone();
    let joins = |at: Index| ledger.first <= at && at <= ledger.next;
    let mut joined: Option<Replica<A>> = None;
    let mut newest: Option<Replica<A>> = None;
    for stored in ledger.snapshots.iter().rev() {
        match load(dir, *stored) {
            Ok(replica) if joins(stored.next) => {
                joined = Some(replica);
                break;
            }
            Ok(replica) => newest = newest.or(Some(replica)),
            Err(StoreError::Damaged { path, reason }) => {
                tracing::warn!("the snapshot {} is damaged ({reason}); an older one or the log serves", path.display());
                kept_snapshots.retain(|kept| kept != stored);
            }
            Err(error) => return Err(error),
        }
    }
    let joined = joined.or_else(|| joins(Index(0)).then(Replica::default));
    let apart = newest.filter(|newest| joined.is_none() || newest.next() > ledger.next);

    let (start, mut loss) = match (joined, apart) {
        (Some(start), None) => (start, None),
        (_, apart) => {
            let loss = format!("the log holds entries {} to {} and no snapshot joins it", ledger.first, ledger.next);
            (apart.unwrap_or_default(), Some(loss))
        }
    };
    let began = start.next();
    let mut restored = Restored::new(boot, ledger.kept, start);
    if loss.is_none() {
        for record in view.records(began..ledger.next) {
            let record = match record {
                Ok(record) => record,
                Err(StoreError::Damaged { reason, .. }) => {
                    loss = Some(reason);
                    break;
                }
                Err(error) => return Err(error),
            };
            // Its bytes are those that were appended: if they cannot be read, it is not the disk's doing.
            restored.push(record).map_err(|error| incompatible(dir, error))?;
        }
    }
    let next = restored.replica.next();
    let first = if joins(began) { ledger.first } else { next };
    restored.log_first = first;
    restored.snapshots = kept_snapshots.iter().map(|stored| stored.next).collect();
    Ok(Rebuilt { restored, first, next, snapshots: kept_snapshots, loss })
}

fn incompatible(dir: &Path, error: NotApplied) -> StoreError {
    let hint = match error {
        NotApplied::Unreadable(Unreadable::Newer { .. }) => "",
        NotApplied::Unreadable(Unreadable::Malformed { .. })
        | NotApplied::OutOfOrder { .. }
        | NotApplied::Unfounded => " (its bytes are intact, so another program or version wrote it)",
    };
    StoreError::Incompatible { path: dir.to_owned(), reason: format!("{error}{hint}") }
}

fn load<A: App>(dir: &Path, stored: StoredSnapshot) -> Result<Replica<A>, StoreError> {
    let snapshot = snapshots::read(dir, stored)?;
    let path = stored.path(dir);
    // It was checked against the operator's limits when it came; here its own manifest is the limit.
    snapshot.decode(snapshot.manifest.raw_bytes).map_err(|bad| match bad {
        Bad::Version { .. } => StoreError::Incompatible { path, reason: bad.to_string() },
        Bad::Hash | Bad::Mismatch | Bad::Malformed(_) | Bad::Manifest(_) | Bad::TooLarge { .. } => {
            StoreError::Damaged { path, reason: bad.to_string() }
        }
    })
}
