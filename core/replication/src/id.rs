//! Who and which: the names of nodes, sessions, entries, proposals and commands.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A node's identity: its ed25519 public key. The transport proves it; the core trusts the transport and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub [u8; 32]);

/// The order of their bytes. Two keys nearly always differ in the first eight, and every table of nodes is searched by this.
impl Ord for NodeId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let head = |id: &NodeId| id.0.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
        head(self).cmp(&head(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for NodeId {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// SHA-256 of something: of a log up to an entry (the running hash), of a snapshot, of a chunk.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// The name a client gave to a command, so that asking twice does it once.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub [u8; 16]);

/// Text that is not the hexadecimal form of the identifier it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {digits} hexadecimal digits, this is {found:?}")]
pub struct NotHex {
    what: &'static str,
    digits: usize,
    found: String,
}

macro_rules! hexadecimal {
    ($name:ident, $bytes:literal, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $name {
            type Err = NotHex;
            fn from_str(text: &str) -> Result<Self, NotHex> {
                let wrong = || NotHex { what: $what, digits: 2 * $bytes, found: text.chars().take(80).collect() };
                if text.len() != 2 * $bytes || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(wrong());
                }
                let mut bytes = [0; $bytes];
                for (byte, at) in bytes.iter_mut().zip((0..text.len()).step_by(2)) {
                    *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    <[u8; $bytes]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

hexadecimal!(NodeId, 32, "a node id");
hexadecimal!(Hash, 32, "a hash");
hexadecimal!(CommandId, 16, "a command id");

impl NodeId {
    /// A readable stand-in for tests and examples: node `n`, whose id sorts as `n` does.
    pub const fn example(n: u8) -> NodeId {
        let mut bytes = [0; 32];
        bytes[0] = n;
        NodeId(bytes)
    }
}

/// The place of an entry in the durable log. Indexes start at 0, grow by one and go on across sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Index(pub u64);

impl Index {
    /// The one after this.
    pub const fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The one before this; none before the first.
    pub const fn previous(self) -> Option<Index> {
        match self.0 {
            0 => None,
            index => Some(Index(index - 1)),
        }
    }

    /// This index moved on by so many entries.
    pub const fn plus(self, entries: u64) -> Index {
        Index(self.0.saturating_add(entries))
    }

    /// How many entries lie from `earlier` up to here, this one not counted; none if `earlier` is later.
    pub const fn since(self, earlier: Index) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One start of one node. `starts` persists and grows at each start; two nonces under one `starts` are two machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boot {
    /// How often this node's disk was started from, this time included.
    pub starts: u64,
    /// Drawn at the start.
    pub nonce: u64,
}

/// One leadership. Ordered by clock, then leader, then boot; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session {
    /// Above every clock that the leader had heard of when it opened the session.
    pub clock: u64,
    /// The one node that orders entries in it.
    pub leader: NodeId,
    /// The leader's start, so that a restarted leader cannot open the same session again.
    pub boot: Boot,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.clock, self.leader)
    }
}

/// What a node asks the leader to order: the `n`th thing since it took this generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId {
    /// Who asks.
    pub node: NodeId,
    /// A start or a change of branch takes a new, higher one, which shuts out older ones. The upper half counts, the lower
    /// one tells starts apart.
    pub generation: u64,
    /// Counts from 1 within the generation.
    pub n: u64,
}

/// Names one piece of disk or snapshot work from its output to the input that says how it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkId(pub u64);

/// Names one waiting client of this node from its command to its reply. The driver draws it; the core hands it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket(pub u64);
