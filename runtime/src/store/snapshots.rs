//! Snapshots as files: `snapshot-<next>-<hash>`, written whole before the ledger names them, removed after it does not.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lockstep_replication::snapshot::{Manifest, Snapshot};
use lockstep_replication::{Hash, Index};

use super::database::StoredSnapshot;
use super::error::StoreError;
use super::files;
use super::frames::{BadFile, FrameReader, FrameWriter, Kind};

/// The tag of a manifest's frame, in all files that hold snapshots.
pub(super) const MANIFEST: u8 = 1;
/// The tag of a part of a snapshot's bytes.
pub(super) const PART: u8 = 2;
/// How many bytes such a part has, but for the last.
const PART_BYTES: usize = 1 << 20;
pub(super) const PREFIX: &str = "snapshot-";

impl StoredSnapshot {
    /// Names this snapshot.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        StoredSnapshot { next: snapshot.manifest.next(), hash: snapshot.manifest.hash }
    }

    /// The file it is in.
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{PREFIX}{}-{}", self.next, self.hash))
    }

    fn parse(name: &str) -> Option<Self> {
        let (next, hash) = name.strip_prefix(PREFIX)?.split_once('-')?;
        Some(StoredSnapshot { next: Index(next.parse().ok()?), hash: hash.parse::<Hash>().ok()? })
    }
}

/// The snapshot files of a directory, ascending, named in the ledger or not.
pub(super) fn found(dir: &Path) -> Result<Vec<StoredSnapshot>, StoreError> {
    let mut found: Vec<_> = files::names(dir)?.iter().filter_map(|name| StoredSnapshot::parse(name)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Writes a snapshot's file, synced. It does not count before the ledger names it.
pub(super) fn write(dir: &Path, snapshot: &Snapshot) -> Result<StoredSnapshot, StoreError> {
    let stored = StoredSnapshot::of(snapshot);
    files::write_whole(&stored.path(dir), |out| {
        let mut frames = FrameWriter::new(out, Kind::Snapshot)?;
        write_frames(&mut frames, snapshot)?;
        frames.finish()
    })?;
    Ok(stored)
}

/// Reads a snapshot's file back.
pub(super) fn read(dir: &Path, stored: StoredSnapshot) -> Result<Snapshot, StoreError> {
    let path = stored.path(dir);
    let read = || -> Result<Snapshot, BadFile> {
        let mut frames = FrameReader::new(BufReader::new(File::open(&path)?), Kind::Snapshot)?;
        let manifest = frames.expect(MANIFEST)?;
        let snapshot = read_frames(&manifest, &mut frames)?;
        if frames.frame()?.is_some() {
            return Err(BadFile::Content("something follows the snapshot".to_owned()));
        }
        if StoredSnapshot::of(&snapshot) != stored {
            return Err(BadFile::Content("it holds another snapshot than its name says".to_owned()));
        }
        Ok(snapshot)
    };
    read().map_err(|bad| {
        // A file that is gone is damage to the store, not trouble with the system.
        if matches!(&bad, BadFile::Io(error) if error.kind() == io::ErrorKind::NotFound) {
            return StoreError::Damaged { path: path.clone(), reason: "it is missing".to_owned() };
        }
        StoreError::file(&path)(bad)
    })
}

/// Writes a snapshot into a file that may hold other things too.
pub(super) fn write_frames<W: Write>(frames: &mut FrameWriter<W>, snapshot: &Snapshot) -> io::Result<()> {
    frames.frame(MANIFEST, &postcard::to_stdvec(&snapshot.manifest).map_err(io::Error::other)?)?;
    snapshot.bytes.chunks(PART_BYTES).try_for_each(|part| frames.frame(PART, part))
}

/// Reads a snapshot whose manifest's frame has just been read.
pub(super) fn read_frames<R: Read>(manifest: &[u8], frames: &mut FrameReader<R>) -> Result<Snapshot, BadFile> {
    let manifest: Manifest = match postcard::take_from_bytes(manifest) {
        Ok((manifest, [])) => manifest,
        Ok(_) | Err(_) => return Err(BadFile::Content("a manifest in it is not readable".to_owned())),
    };
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < manifest.bytes {
        let part = frames.expect(PART)?;
        if part.is_empty() {
            return Err(BadFile::Content("an empty part of a snapshot is in it".to_owned()));
        }
        bytes.extend(part);
    }
    if bytes.len() as u64 != manifest.bytes {
        return Err(BadFile::Content("a snapshot in it is longer than its manifest says".to_owned()));
    }
    Ok(Snapshot { manifest, bytes: Bytes::from(bytes) })
}
