//! L8: stamps never decrease along a lineage. A stamp is the later of the one before it and the leader's wall clock.

use lockstep_replication::Wall;
use lockstep_replication::entry::Entry;

use super::Broken;
use crate::kv::Kv;

fn broken(reason: String) -> Broken {
    Broken::new("stamps", format!("L8: {reason}"))
}

/// An entry follows on one with this stamp.
pub(crate) fn rises(before: u64, entry: &Entry<Kv>) -> Result<(), Broken> {
    if entry.stamp.0 < before {
        return Err(broken(format!(
            "entry {} is stamped {} ms, earlier than the one before it at {before} ms",
            entry.index, entry.stamp.0
        )));
    }
    Ok(())
}

/// The leader ordered an entry at this time of its wall clock, after one with this stamp.
pub(crate) fn shows(before: u64, wall: Wall, entry: &Entry<Kv>) -> Result<(), Broken> {
    let right = before.max(wall.0);
    if entry.stamp.0 != right {
        return Err(broken(format!(
            "entry {} is stamped {} ms, where the one before it and the leader's clock make it {right} ms",
            entry.index, entry.stamp.0
        )));
    }
    Ok(())
}
