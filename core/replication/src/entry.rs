//! Entries of the durable log, and the bytes that one is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::id::{CommandId, Hash, Index, NodeId, ProposalId, Session};
use crate::time::Wall;

/// All events of one command or one observation, or a change of the log's own affairs, in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Entry<A: App> {
    /// Its place.
    pub index: Index,
    /// The later of the previous entry's stamp and the leader's wall clock.
    pub stamp: Wall,
    /// What it holds.
    pub body: Body<A>,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "", rename_all = "snake_case")]
pub enum Body<A: App> {
    /// A session begins here.
    Opened(Opened),
    /// More than half of the known nodes confirmed the session.
    Backed,
    /// A node takes a new generation; its older proposals are shut out.
    Generation {
        /// Whose.
        node: NodeId,
        /// Higher than every one that this node had.
        generation: u64,
    },
    /// The known nodes change by one.
    Known(KnownChange),
    /// The leader decided.
    Decided(Decided<A>),
}

/// The first entry of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// The session that begins.
    pub session: Session,
    /// At index 0, and where the operator founded anew.
    pub founding: Option<Founding>,
}

/// What index 0 draws: which cluster life this is, and who belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Drawn at random.
    pub id: u64,
    /// The most nodes that the log is known to have known at once, in foundings before this one: 0 at index 0. Whoever
    /// founds anew may not have all of that log.
    pub widest: u32,
    /// The known nodes that it names, in order, each with its disk's number as far as that is known: a node that finds
    /// itself named with another one has lost its disk since.
    pub known: Vec<(NodeId, Option<u64>)>,
}

/// One change of the known nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownChange {
    /// A node joined.
    Joined {
        /// The node.
        node: NodeId,
        /// Its disk's number.
        disk: Option<u64>,
    },
    /// The operator forgot a node, or it was lost for a day.
    Forgotten(NodeId),
}

/// What the leader decided on one wish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Decided<A: App> {
    /// Whose proposal it was; none if the leader's own liveness wished it.
    pub proposal: Option<ProposalId>,
    /// The name its client gave to the command.
    pub command: Option<CommandId>,
    /// What happened, in order.
    pub events: Vec<A::Event>,
}

/// An entry as it is sent, hashed and stored: one content an index means these bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub index: Index,
    /// The schema's version, then the entry.
    pub bytes: Bytes,
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A newer version wrote it.
    #[error("entry {index} needs schema version {needs}, this node reads up to {reads}: upgrade it")]
    Newer {
        /// Which entry.
        index: Index,
        /// The version that wrote it.
        needs: u32,
        /// The newest version that this node reads.
        reads: u32,
    },
    /// The bytes are no entry.
    #[error("entry {index} is not readable: {reason}")]
    Malformed {
        /// Which entry.
        index: Index,
        /// What is wrong with it.
        reason: String,
    },
}

impl<A: App> Entry<A> {
    /// The bytes of this entry, written for nodes that read `schema`.
    pub fn seal(&self, schema: u32) -> Record {
        let bytes = postcard::to_stdvec(&(schema, self)).expect("application data serialises into memory");
        Record { index: self.index, bytes: bytes.into() }
    }
}

impl Record {
    /// The schema that it was written for.
    pub fn schema(&self) -> Result<u32, Unreadable> {
        self.split().map(|(schema, _)| schema)
    }

    fn split(&self) -> Result<(u32, &[u8]), Unreadable> {
        postcard::take_from_bytes::<u32>(&self.bytes)
            .map_err(|error| Unreadable::Malformed { index: self.index, reason: error.to_string() })
    }

    /// Reads the entry; refuses trailing bytes, another index and newer schemas.
    pub fn open<A: App>(&self) -> Result<Entry<A>, Unreadable> {
        let malformed = |reason: String| Unreadable::Malformed { index: self.index, reason };
        let (schema, rest) = self.split()?;
        if schema > A::SCHEMA {
            return Err(Unreadable::Newer { index: self.index, needs: schema, reads: A::SCHEMA });
        }
        let (entry, rest) =
            postcard::take_from_bytes::<Entry<A>>(rest).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes follow it", rest.len())));
        }
        if entry.index != self.index {
            return Err(malformed(format!("it says that it is entry {}", entry.index)));
        }
        Ok(entry)
    }

    /// The running hash of the log up to this record, from that of the log before it.
    pub fn chain(&self, before: Hash) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(before.0);
        hasher.update((self.bytes.len() as u64).to_le_bytes());
        hasher.update(&self.bytes);
        Hash(hasher.finalize().into())
    }
}

impl Hash {
    /// The SHA-256 of some bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }
}
