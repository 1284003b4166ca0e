//! What can go wrong with a data directory, as sentences for the operator.

use std::io;
use std::path::{Path, PathBuf};

use lockstep_replication::Index;
use lockstep_replication::io::WorkFailed;

use super::frames::BadFile;

/// Why the store could not do what it was asked. Unless a variant says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory.
    #[error(
        "the data directory {} is in use by {}: stop that node first, or give this one another directory",
        dir.display(), holder.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, if it left its id.
        holder: Option<u32>,
    },
    /// The operating system said no: disk full, not allowed, broken.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database said no, for a reason that is neither the system's nor damage.
    #[error("{}: {reason}", path.display())]
    Database {
        /// The database's file.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The file is not what was written.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// A newer version wrote it, or another application. It is intact, and left alone.
    #[error("{} cannot be read by this version, and is left as it is: {reason}", path.display())]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What it would need.
        reason: String,
    },
    /// An append that is not at the log's end.
    #[error("the log ends before entry {end}, so entry {found} cannot be appended")]
    NotAtEnd {
        /// The index that is next.
        end: Index,
        /// The index that came.
        found: Index,
    },
    /// What was asked would leave a store that cannot be restored, or makes no sense.
    #[error("{0}")]
    Refused(String),
}

impl StoreError {
    /// Adds the path to an error of the operating system.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
        move |source| StoreError::Io { path: path.to_owned(), source }
    }

    /// Adds the path to what is wrong with a framed file.
    pub(super) fn file(path: &Path) -> impl FnOnce(BadFile) -> StoreError + '_ {
        move |bad| match bad {
            BadFile::Io(source) => StoreError::Io { path: path.to_owned(), source },
            BadFile::Version { .. } => StoreError::Incompatible { path: path.to_owned(), reason: bad.to_string() },
            BadFile::Foreign(_) | BadFile::Torn | BadFile::Content(_) => {
                StoreError::Damaged { path: path.to_owned(), reason: bad.to_string() }
            }
        }
    }

    /// Adds the path to what the database says, and sorts it by kind.
    pub(super) fn database(path: &Path) -> impl FnOnce(redb::Error) -> StoreError + '_ {
        move |error| {
            let path = path.to_owned();
            // redb reports a file that is no database, or ends too early, as an error of the system.
            let of_the_file = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
            if let redb::Error::Io(source) = error {
                return match of_the_file.contains(&source.kind()) {
                    true => StoreError::Damaged { path, reason: source.to_string() },
                    false => StoreError::Io { path, source },
                };
            }
            let reason = error.to_string();
            let of_the_call = matches!(
                error,
                redb::Error::PreviousIo
                    | redb::Error::DatabaseClosed
                    | redb::Error::DatabaseAlreadyOpen
                    | redb::Error::LockProtocolMismatch
                    | redb::Error::TransactionInProgress
                    | redb::Error::ValueTooLarge(_)
            );
            if of_the_call { StoreError::Database { path, reason } } else { StoreError::Damaged { path, reason } }
        }
    }
}

impl From<StoreError> for WorkFailed {
    fn from(error: StoreError) -> WorkFailed {
        WorkFailed(error.to_string())
    }
}
