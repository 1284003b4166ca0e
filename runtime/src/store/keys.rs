//! The secrets of a data directory: who the node is, and which cluster it belongs to. Files of mode 0600, in hexadecimal.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use libp2p::identity::{Keypair, ed25519};

use super::files;

/// The file that holds a node's ed25519 secret.
pub const IDENTITY_FILE: &str = "identity.key";
/// The file that holds the cluster's secret.
pub const CLUSTER_FILE: &str = "cluster.key";

/// What all nodes of a cluster share. Without it there is no connection. It never shows in logs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClusterKey(pub [u8; 32]);

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

/// Text that is no key. It does not say what the text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits")]
pub struct NotAKey;

impl FromStr for ClusterKey {
    type Err = NotAKey;
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        unhex(text).map(ClusterKey)
    }
}

impl ClusterKey {
    /// The 64 hexadecimal digits to share by hand. Do not log them.
    pub fn reveal(&self) -> String {
        hex(&self.0)
    }
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others may read it.
    #[error("{} can be read by others (mode {mode:o}): run `chmod 600 {}`, and consider the key known", path.display(), path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds no key.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What a key is.
        source: NotAKey,
    },
    /// A key is there already.
    #[error("{} is there already: remove it first, if it is not needed any more", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The node's identity, drawn and stored at the first start. Call it while the directory is locked.
pub fn identity(dir: &Path) -> Result<Keypair, KeyError> {
    let path = dir.join(IDENTITY_FILE);
    let secret = match read(&path)? {
        Some(secret) => secret,
        None => create(&path, random())?,
    };
    Keypair::ed25519_from_bytes(secret).map_err(|_| KeyError::Malformed { path, source: NotAKey })
}

/// The cluster's key, if the directory holds one.
pub fn cluster(dir: &Path) -> Result<Option<ClusterKey>, KeyError> {
    Ok(read(&dir.join(CLUSTER_FILE))?.map(ClusterKey))
}

/// The cluster's key in a file of its own, which must be there.
pub fn cluster_from(path: &Path) -> Result<ClusterKey, KeyError> {
    let missing = || KeyError::Io { path: path.to_owned(), source: io::ErrorKind::NotFound.into() };
    read(path)?.map(ClusterKey).ok_or_else(missing)
}

/// The API's token: the first line of a file that only its owner may read.
pub fn token(path: &Path) -> Result<String, KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    check_mode(path, &file)?;
    let mut text = String::new();
    (&file).take(4096).read_to_string(&mut text).map_err(failed)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The cluster's key, drawn and stored if the directory holds none. Call it while the directory is locked.
pub fn cluster_or_new(dir: &Path) -> Result<ClusterKey, KeyError> {
    match cluster(dir)? {
        Some(key) => Ok(key),
        None => create(&dir.join(CLUSTER_FILE), random()).map(ClusterKey),
    }
}

/// Stores a cluster's key that came from elsewhere. It replaces none.
pub fn store_cluster(dir: &Path, key: ClusterKey) -> Result<(), KeyError> {
    create(&dir.join(CLUSTER_FILE), key.0).map(drop)
}

fn read(path: &Path) -> Result<Option<[u8; 32]>, KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    check_mode(path, &file)?;
    let mut bytes = Vec::new();
    (&file).take(128).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| NotAKey);
    let key = text.and_then(|text| unhex(text.trim()));
    key.map(Some).map_err(|source| KeyError::Malformed { path: path.to_owned(), source })
}

/// Refuses a secret that others may read.
fn check_mode(path: &Path, file: &File) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyError::Readable { path: path.to_owned(), mode }) }
}

/// Stores a key: the file is there whole, and never readable by others, not even for a moment.
fn create(path: &Path, key: [u8; 32]) -> Result<[u8; 32], KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let unfinished = path.with_added_extension(files::UNFINISHED);
    // From a start that was interrupted.
    files::remove(&unfinished);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(format!("{}\n", hex(&key)).as_bytes())?;
        file.sync_all()?;
        // A link does not replace what is there, as a rename would.
        fs::hard_link(&unfinished, path)
    })();
    files::remove(&unfinished);
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeyError::Exists { path: path.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    }
    path.parent().map_or(Ok(()), |dir| File::open(dir).and_then(|dir| dir.sync_all())).map_err(failed)?;
    Ok(key)
}

/// 32 bytes from the system's generator: a fresh ed25519 secret is nothing else.
fn random() -> [u8; 32] {
    let secret = ed25519::SecretKey::generate();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(secret.as_ref());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<[u8; 32], NotAKey> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(NotAKey);
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| NotAKey)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_drawn_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cluster(dir.path()).unwrap(), None);
        let key = cluster_or_new(dir.path()).unwrap();
        assert_eq!(cluster_or_new(dir.path()).unwrap(), key);
        assert_eq!(key.reveal().parse(), Ok(key));
        assert_eq!(identity(dir.path()).unwrap().public(), identity(dir.path()).unwrap().public());
        let other = tempfile::tempdir().unwrap();
        assert_ne!(cluster_or_new(other.path()).unwrap(), key);
        assert_ne!(identity(other.path()).unwrap().public(), identity(dir.path()).unwrap().public());
    }

    #[test]
    fn a_key_is_never_replaced_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let key = cluster_or_new(dir.path()).unwrap();
        assert!(matches!(store_cluster(dir.path(), ClusterKey([7; 32])), Err(KeyError::Exists { .. })));
        assert_eq!(cluster(dir.path()).unwrap(), Some(key));
        assert!(!format!("{key:?}").contains(&key.reveal()[..8]));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        identity(dir.path()).unwrap();
        let path = dir.path().join(IDENTITY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = identity(dir.path()).unwrap_err();
        assert!(matches!(error, KeyError::Readable { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"));
    }

    #[test]
    fn a_key_file_with_something_else_in_it_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        cluster_or_new(dir.path()).unwrap();
        fs::write(dir.path().join(CLUSTER_FILE), "hunter2").unwrap();
        let error = cluster_or_new(dir.path()).unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits") && !error.contains("hunter2"));
    }
}
