//! Set-aside files: what a losing branch left, kept in `aside/` until the operator has looked.
//!
//! They are plain files, written once: another process may list, read and remove them while the node runs. The newest
//! eight and together one GiB are kept.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lockstep_replication::entry::{Entry, Record};
use lockstep_replication::id::Session;
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{App, Index, Wall};
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::files;
use super::frames::{BadFile, FrameReader, FrameWriter, Kind};
use super::recovery::wall;
use super::snapshots;

/// The directory they are in, below the data directory.
pub(super) const DIRECTORY: &str = "aside";
const EXTENSION: &str = "aside";
/// How many are kept.
const FILES_AT_MOST: usize = 8;
/// How many bytes they may have together; the newest is kept in any case.
const BYTES_AT_MOST: u64 = 1 << 30;

const HEADER: u8 = 3;
const RECORD: u8 = 4;

/// What a set-aside file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// The file's name.
    pub name: String,
    /// When it was written.
    pub when: Wall,
    /// The first index at which its branch differs from the winner's.
    pub fork: Index,
    /// How many entries it holds one by one; those before them are in its snapshots only.
    pub entries: u64,
    /// The session whose branch won; none if these are entries that were found beyond a damaged place.
    pub winner: Option<Session>,
    /// The file's size.
    pub bytes: u64,
}

/// What is about to be written.
pub(super) struct Contents {
    pub(super) fork: Index,
    pub(super) winner: Option<Session>,
    pub(super) entries: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    when: Wall,
    fork: Index,
    entries: u64,
    winner: Option<Session>,
}

/// The set-aside files of a data directory, oldest first. Damaged ones are left out with a warning.
pub fn list(data: &Path) -> Result<Vec<Aside>, StoreError> {
    let mut found = Vec::new();
    for (_, name) in numbered(data)? {
        match read(data, &name) {
            Ok(reader) => found.push(reader.about),
            Err(error) => tracing::warn!("a set-aside file is left out: {error}"),
        }
    }
    Ok(found)
}

/// Opens a set-aside file of a data directory by its name.
pub fn read(data: &Path, name: &str) -> Result<AsideReader, StoreError> {
    let path = path_of(data, name)?;
    let opened = || -> Result<AsideReader, BadFile> {
        let file = File::open(&path)?;
        let bytes = file.metadata()?.len();
        let mut frames = FrameReader::new(BufReader::new(file), Kind::Aside)?;
        let Header { when, fork, entries, winner } = match postcard::take_from_bytes(&frames.expect(HEADER)?) {
            Ok((header, [])) => header,
            Ok(_) | Err(_) => return Err(BadFile::Content("its header is not readable".to_owned())),
        };
        let about = Aside { name: name.to_owned(), when, fork, entries, winner, bytes };
        Ok(AsideReader { about, frames, path: path.clone(), ended: false })
    };
    opened().map_err(StoreError::file(&path))
}

/// Removes a set-aside file of a data directory by its name.
pub fn remove(data: &Path, name: &str) -> Result<(), StoreError> {
    let path = path_of(data, name)?;
    fs::remove_file(&path).map_err(StoreError::io(&path))?;
    files::sync_directory_of(&path)
}

/// Reads one set-aside file from its beginning.
pub struct AsideReader {
    about: Aside,
    frames: FrameReader<BufReader<File>>,
    path: PathBuf,
    ended: bool,
}

impl AsideReader {
    /// What the file says of itself.
    pub fn about(&self) -> &Aside {
        &self.about
    }

    /// Its entries in order. An entry that cannot be read is an error in its place; where the file is damaged it ends.
    pub fn entries<A: App>(self) -> impl Iterator<Item = Result<Entry<A>, StoreError>> {
        let path = self.path.clone();
        self.records().map(move |record| {
            record?
                .open::<A>()
                .map_err(|error| StoreError::Incompatible { path: path.clone(), reason: error.to_string() })
        })
    }

    /// Its records in order.
    pub fn records(mut self) -> impl Iterator<Item = Result<Record, StoreError>> {
        std::iter::from_fn(move || {
            while !self.ended {
                match self.frames.frame() {
                    Ok(Some((RECORD, content))) => {
                        let record = record_of(&content);
                        self.ended = record.is_err();
                        return Some(record.map_err(StoreError::file(&self.path)));
                    }
                    // Snapshots, and what later versions may add.
                    Ok(Some(_)) => {}
                    Ok(None) => self.ended = true,
                    Err(bad) => {
                        self.ended = true;
                        return Some(Err(StoreError::file(&self.path)(bad)));
                    }
                }
            }
            None
        })
    }
}

/// Writes a set-aside file, synced, under a number that was never used, and gives its name.
pub(super) fn write(
    data: &Path,
    asides: &mut u64,
    contents: &Contents,
    records: impl Iterator<Item = Result<Record, StoreError>>,
    states: &[Snapshot],
) -> Result<String, StoreError> {
    let dir = data.join(DIRECTORY);
    fs::create_dir_all(&dir).map_err(StoreError::io(&dir))?;
    files::sync_directory_of(&dir)?;
    let Contents { fork, winner, entries } = *contents;
    // The ledger may have been lost; the files know too.
    let number = numbered(data)?.last().map_or(0, |(last, _)| *last).max(*asides) + 1;
    let name = format!("{number}-{fork}.{EXTENSION}");
    files::write_whole(&dir.join(&name), |out| {
        let mut frames = FrameWriter::new(out, Kind::Aside)?;
        let header = Header { when: wall(), fork, entries, winner };
        frames.frame(HEADER, &postcard::to_stdvec(&header).map_err(io::Error::other)?)?;
        states.iter().try_for_each(|state| snapshots::write_frames(&mut frames, state))?;
        for record in records {
            let record = record.map_err(|error| io::Error::other(error.to_string()))?;
            frames.frame(RECORD, &frame_of(&record))?;
        }
        frames.finish()
    })?;
    *asides = number;
    make_room(data);
    Ok(name)
}

/// A record as a frame's content.
pub(super) fn frame_of(record: &Record) -> Vec<u8> {
    [&record.index.0.to_le_bytes()[..], &record.bytes].concat()
}

/// The record in a frame's content.
pub(super) fn record_of(content: &[u8]) -> Result<Record, BadFile> {
    let (index, bytes) =
        content.split_first_chunk().ok_or_else(|| BadFile::Content("an entry in it is cut off".to_owned()))?;
    Ok(Record { index: Index(u64::from_le_bytes(*index)), bytes: Bytes::copy_from_slice(bytes) })
}

/// Removes the oldest beyond the limits. That one cannot be removed must not stop the node.
fn make_room(data: &Path) {
    let Ok(files) = numbered(data) else { return };
    let mut bytes = 0;
    for (kept, (_, name)) in files.iter().rev().enumerate() {
        let path = data.join(DIRECTORY).join(name);
        bytes += fs::metadata(&path).map_or(0, |about| about.len());
        if kept > 0 && (kept >= FILES_AT_MOST || bytes > BYTES_AT_MOST) {
            tracing::warn!(
                "the set-aside file {name} is removed: the newest {FILES_AT_MOST}, and together {BYTES_AT_MOST} bytes, \
                 are kept"
            );
            files::remove(&path);
        }
    }
}

/// The names of set-aside files with their numbers, oldest first.
fn numbered(data: &Path) -> Result<Vec<(u64, String)>, StoreError> {
    let number = |name: String| Some((number_of(&name)?, name));
    let mut found: Vec<_> = files::names(&data.join(DIRECTORY))?.into_iter().filter_map(number).collect();
    found.sort_unstable();
    Ok(found)
}

/// `<number>-<fork>.aside`, and nothing else: a name comes from the operator, and must not lead out of the directory.
fn number_of(name: &str) -> Option<u64> {
    let (number, fork) = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split_once('-')?;
    fork.parse::<u64>().ok()?;
    number.parse().ok()
}

fn path_of(data: &Path, name: &str) -> Result<PathBuf, StoreError> {
    if number_of(name).is_none() {
        return Err(StoreError::Refused(format!(
            "{name:?} is no name of a set-aside file, such as 3-1200.{EXTENSION}"
        )));
    }
    Ok(data.join(DIRECTORY).join(name))
}
