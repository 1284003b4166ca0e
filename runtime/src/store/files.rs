//! Small things with files: whole or not at all, and durable when they return.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use super::error::StoreError;

/// What unfinished files end in. They mean nothing and are removed at the next start.
pub(crate) const UNFINISHED: &str = "tmp";

/// Writes a file so that it is there whole and synced, or not at all.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), StoreError> {
    let unfinished = path.with_added_extension(UNFINISHED);
    let written = (|| {
        let mut out = BufWriter::with_capacity(256 << 10, File::create(&unfinished)?);
        write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        fs::rename(&unfinished, path)
    })();
    if written.is_err() {
        // On a full disk the unfinished part only takes room.
        let _ = fs::remove_file(&unfinished);
    }
    written.map_err(StoreError::io(path))?;
    sync_directory_of(path)
}

/// Makes created, renamed and removed names in the path's directory durable.
pub(super) fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io(dir))
}

/// The names in a directory, sorted; none if it is not there. Names that are no text are not ours and left out.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io(dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(StoreError::io(dir))?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a file that is not needed any more. That it stays is worth a warning and nothing else.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("{} is not needed any more but cannot be removed: {error}", path.display());
    }
}
