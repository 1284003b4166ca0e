//! The names of commands: from a client's key, or drawn for those that come without.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_replication::{CommandId, Hash};

/// The longest key, in bytes.
const KEY_BYTES_AT_MOST: usize = 255;

/// A key that cannot name a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("A command's key has 1 to {KEY_BYTES_AT_MOST} visible ASCII characters and no spaces.")]
pub(crate) struct BadKey;

/// The name that a client's key stands for, the same on every node: the first half of the key's SHA-256.
pub(crate) fn from_key(key: &[u8]) -> Result<CommandId, BadKey> {
    if !(1..=KEY_BYTES_AT_MOST).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
        return Err(BadKey);
    }
    Ok(name_of(key))
}

fn name_of(bytes: &[u8]) -> CommandId {
    let mut name = [0; 16];
    name.copy_from_slice(&Hash::of(bytes).0[..16]);
    CommandId(name)
}

/// Draws names for commands that came without a key. The log does not keep them: they serve to ask this node about the
/// command, and to name what the command creates.
#[derive(Debug)]
pub(crate) struct Names {
    /// Random, so that a name of an earlier start is not taken for one of this.
    start: u64,
    drawn: AtomicU64,
}

impl Names {
    /// Names unlike those of other starts.
    pub(crate) fn new() -> Self {
        // The standard library's source of randomness for hash tables; nothing here needs to be secret.
        Names { start: RandomState::new().hash_one("names of commands"), drawn: AtomicU64::new(0) }
    }

    /// A new name.
    pub(crate) fn draw(&self) -> CommandId {
        let n = self.drawn.fetch_add(1, Ordering::Relaxed);
        // Hashed, because some ids must not be neighbours of each other (see `RunnerId::of`).
        name_of(&((u128::from(self.start) << 64) | u128::from(n)).to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_name_everywhere_and_has_limits() {
        // SHA-256 of "key", first half: clients may rely on it.
        assert_eq!(from_key(b"key").unwrap().to_string(), "2c70e12b7a0646f92279f427c7b38e73");
        assert!(from_key(&[b'k'; 255]).is_ok());
        for bad in [&b""[..], &[b'k'; 256], b"with space", "schlüssel".as_bytes(), b"tab\t"] {
            assert_eq!(from_key(bad), Err(BadKey));
        }
    }

    #[test]
    fn drawn_names_differ_within_a_start_and_between_starts() {
        let (one, other) = (Names::new(), Names::new());
        assert_ne!(one.draw(), one.draw());
        assert_ne!(one.draw(), other.draw());
    }
}
