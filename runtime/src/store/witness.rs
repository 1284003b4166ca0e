//! The witness: what the database is known to have synced, written down beside it.
//!
//! A database file whose newest commit is damaged may open as of the commit before, and look well. So after each commit
//! its number is noted here. The note itself is not synced (that would double the cost of a commit): after a power
//! cut it may be older than the database, which proves nothing, but it is never newer, unless synced work was lost.
//! It also keeps the count of starts, so that a node whose database is lost does not come back as an earlier boot.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use lockstep_replication::Hash;

use super::error::StoreError;

pub(super) const FILE: &str = "witness";
const BYTES: usize = 24;

/// What was synced at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The number of the newest commit.
    pub(super) commits: u64,
    /// How often the node was started.
    pub(super) starts: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    path: std::path::PathBuf,
}

impl Witness {
    /// Opens it and reads what it says: none if it is new, torn or damaged, for then it is no proof of anything.
    pub(super) fn open(dir: &Path) -> Result<(Witness, Option<Seen>), StoreError> {
        let path = dir.join(FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io(&path))?;
        let mut bytes = Vec::new();
        (&file).take(BYTES as u64 + 1).read_to_end(&mut bytes).map_err(StoreError::io(&path))?;
        let seen = Seen::read(&bytes);
        if seen.is_none() && !bytes.is_empty() {
            tracing::warn!("{} is damaged; it is written anew", path.display());
        }
        Ok((Witness { file, path }, seen))
    }

    /// Notes it, without syncing.
    pub(super) fn note(&self, seen: Seen) -> Result<(), StoreError> {
        self.file.write_all_at(&seen.bytes(), 0).map_err(StoreError::io(&self.path))
    }

    /// Notes it, synced: before the directory's first use under a new count of starts.
    pub(super) fn note_synced(&self, seen: Seen) -> Result<(), StoreError> {
        self.note(seen)?;
        self.file.sync_all().map_err(StoreError::io(&self.path))
    }
}

impl Seen {
    fn bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.commits.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.starts.to_le_bytes());
        let check = Hash::of(&bytes[..16]);
        bytes[16..].copy_from_slice(&check.0[..8]);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Seen> {
        let commits = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        let starts = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
        let seen = Seen { commits, starts };
        (bytes == seen.bytes()).then_some(seen)
    }
}
