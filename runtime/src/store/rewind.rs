//! Cutting off a branch that lost: it is set aside first, whole and synced, then the log ends at the fork.

use lockstep_replication::entry::{Body, Record};
use lockstep_replication::id::Session;
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{App, Boot, Index, Restored};

use super::aside;
use super::database::{StoredSnapshot, View};
use super::error::StoreError;
use super::files;
use super::reader::Shared;
use super::restore;
use super::snapshots;

/// Moves what lies from `to` on into a set-aside file, and gives what is left, and the file's name if there is one.
pub(super) fn rewind<A: App>(
    shared: &Shared,
    boot: Boot,
    to: Index,
    winner: Session,
) -> Result<(Restored<A>, Option<String>), StoreError> {
    let view = shared.view()?;
    let (stay, go): (Vec<StoredSnapshot>, Vec<StoredSnapshot>) =
        view.ledger.snapshots.iter().partition(|stored| stored.next <= to);
    let mut asides = view.ledger.asides;
    let name = if is_worth_keeping::<A>(&view, to)? {
        let from = view.ledger.first.max(to);
        let contents = aside::Contents { fork: to, winner: Some(winner), entries: view.ledger.next.since(from) };
        let states = readable(shared, &go)?;
        Some(aside::write(&shared.dir, &mut asides, &contents, view.records(from..view.ledger.next), &states)?)
    } else {
        None
    };
    drop(view);

    let mut change = shared.change()?;
    change.ledger.asides = asides;
    change.ledger.snapshots = stay;
    change.cut(to)?;
    shared.commit(change)?;
    go.iter().for_each(|stored| files::remove(&stored.path(&shared.dir)));

    let mut rebuilt = restore::restore::<A>(&shared.dir, boot, &shared.view()?)?;
    if let Some(loss) = rebuilt.loss.take() {
        tracing::warn!("after rewinding to entry {to} the store begins at {}: {loss}", rebuilt.next);
        let mut change = shared.change()?;
        rebuilt.settle(&mut change, true)?;
        shared.commit(change)?;
    }
    Ok((rebuilt.restored, name))
}

/// Whether the part from `to` on holds anything but openings and marks, or something that only its snapshots tell.
fn is_worth_keeping<A: App>(view: &View, to: Index) -> Result<bool, StoreError> {
    let ledger = &view.ledger;
    if to >= ledger.next {
        return Ok(false);
    }
    if to < ledger.first {
        return Ok(true);
    }
    for record in view.records(to..ledger.next) {
        if says_something::<A>(&record?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn says_something<A: App>(record: &Record) -> bool {
    match record.open::<A>().map(|entry| entry.body) {
        Ok(Body::Opened(_) | Body::Backed) => false,
        Ok(Body::Generation { .. } | Body::Known(_) | Body::Decided(_)) | Err(_) => true,
    }
}

/// A damaged snapshot is no reason to stay on a branch that lost: the entries are what counts.
fn readable(shared: &Shared, stored: &[StoredSnapshot]) -> Result<Vec<Snapshot>, StoreError> {
    let mut found = Vec::new();
    for stored in stored {
        match snapshots::read(&shared.dir, *stored) {
            Ok(snapshot) => found.push(snapshot),
            Err(StoreError::Damaged { path, reason }) => {
                tracing::warn!("the snapshot {} is not set aside: {reason}", path.display());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
