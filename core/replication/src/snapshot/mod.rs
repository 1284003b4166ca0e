//! Snapshots: a state as bytes, its manifest, and back. Who fetches and who serves lives in the files beside.

pub mod fetch;
pub mod periodic;
pub mod serve;
#[cfg(test)]
mod tests;

use std::io::Read as _;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::id::{Hash, Index, Session};
use crate::lineage::Lineage;
use crate::replica::Replica;

/// The version of the form below. Older ones would be read by their own code.
const FORMAT: u8 = 1;

/// Level 1: 2.5 times faster than 3 for a tenth more bytes, and joiners wait for it.
const LEVEL: i32 = 1;

/// The decoder's window: 8 MiB. What `encode` writes needs 512 KiB.
const WINDOW_LOG_AT_MOST: u32 = 23;

/// What a snapshot is, and how to know its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The sessions of the log that it stands for; `lineage.next()` is one past its last entry.
    pub lineage: Lineage,
    /// The running hash of that log.
    pub log_hash: Hash,
    /// The schema of the state.
    pub schema: u32,
    /// The size of the state's serialised form.
    pub raw_bytes: u64,
    /// The size of the compressed form, which is what is sent.
    pub bytes: u64,
    /// The SHA-256 of the compressed form: the snapshot's name.
    pub hash: Hash,
    /// The size of each chunk but the last.
    pub chunk_bytes: u32,
    /// The SHA-256 of each chunk.
    pub chunks: Vec<Hash>,
}

/// A snapshot whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is.
    pub manifest: Manifest,
    /// The compressed form.
    pub bytes: Bytes,
}

/// What is wrong with a snapshot or manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Sizes that cannot be.
    #[error("its manifest is impossible: {0}")]
    Manifest(&'static str),
    /// Beyond a limit.
    #[error("{what} is {found}, the limit is {limit}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How much it is.
        found: u64,
        /// How much it may be.
        limit: u64,
    },
    /// Not the bytes that the manifest names.
    #[error("its bytes do not have the hash that the manifest names")]
    Hash,
    /// Another version wrote it.
    #[error("it has format {format} and schema {schema}, this node reads format {FORMAT} and schemas up to {reads}")]
    Version {
        /// The form's version.
        format: u8,
        /// The state's version.
        schema: u32,
        /// What this node reads.
        reads: u32,
    },
    /// Not readable.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// The state is not the one that the manifest describes.
    #[error("its state is not the one that the manifest describes")]
    Mismatch,
}

impl Manifest {
    /// One past the last entry that it stands for.
    pub fn next(&self) -> Index {
        self.lineage.next()
    }

    /// The session of its last entry.
    pub fn session(&self) -> Option<Session> {
        self.lineage.session()
    }

    /// Checks that the sizes fit each other and the limits, before anything is allocated for it.
    pub fn check(&self, bytes_at_most: u64, raw_bytes_at_most: u64, chunk_bytes_at_most: usize) -> Result<(), Bad> {
        let limit = |what, found, limit| {
            if found > limit { Err(Bad::TooLarge { what, found, limit }) } else { Ok(()) }
        };
        limit("its size", self.bytes, bytes_at_most)?;
        limit("its raw size", self.raw_bytes, raw_bytes_at_most)?;
        limit("its chunks' size", u64::from(self.chunk_bytes), chunk_bytes_at_most as u64)?;
        if self.chunk_bytes == 0 || self.bytes == 0 {
            return Err(Bad::Manifest("it is empty"));
        }
        if self.chunks.len() as u64 != self.bytes.div_ceil(u64::from(self.chunk_bytes)) {
            return Err(Bad::Manifest("it names another number of chunks than its size needs"));
        }
        Ok(())
    }

    /// How many bytes this chunk has; none if there is no such chunk.
    pub fn chunk_len(&self, chunk: u32) -> Option<usize> {
        let start = u64::from(chunk) * u64::from(self.chunk_bytes);
        (start < self.bytes).then(|| (self.bytes - start).min(u64::from(self.chunk_bytes)) as usize)
    }
}

impl Snapshot {
    /// The schema of a snapshot of this state: who reads its log reads that, as far as the form of the state allows.
    pub fn schema_of<A: App>(replica: &Replica<A>) -> u32 {
        replica.schema().max(A::STATE_SCHEMA)
    }

    /// Encodes a state. The same state gives the same bytes on every node.
    pub fn encode<A: App>(replica: &Replica<A>, chunk_bytes: usize) -> Result<Snapshot, Bad> {
        let malformed = |error: String| Bad::Malformed(error);
        let schema = Self::schema_of(replica);
        let form = (FORMAT, schema.to_le_bytes(), replica);
        let raw = postcard::to_stdvec(&form).map_err(|error| malformed(error.to_string()))?;
        let bytes = Bytes::from(zstd::bulk::compress(&raw, LEVEL).map_err(|error| malformed(error.to_string()))?);
        let manifest = Manifest {
            lineage: replica.lineage().clone(),
            log_hash: replica.hash(),
            schema,
            raw_bytes: raw.len() as u64,
            bytes: bytes.len() as u64,
            hash: Hash::of(&bytes),
            chunk_bytes: chunk_bytes as u32,
            chunks: bytes.chunks(chunk_bytes).map(Hash::of).collect(),
        };
        Ok(Snapshot { manifest, bytes })
    }

    /// Decodes the state through a hard cap, and checks that it is the one that the manifest describes.
    pub fn decode<A: App>(&self, raw_bytes_at_most: u64) -> Result<Replica<A>, Bad> {
        if Hash::of(&self.bytes) != self.manifest.hash {
            return Err(Bad::Hash);
        }
        let malformed = |error: std::io::Error| Bad::Malformed(error.to_string());
        let mut decoder = zstd::stream::read::Decoder::new(&self.bytes[..]).map_err(malformed)?;
        decoder.window_log_max(WINDOW_LOG_AT_MOST).map_err(malformed)?;
        let mut raw = Vec::new();
        let limit = self.manifest.raw_bytes.min(raw_bytes_at_most);
        decoder.take(limit + 1).read_to_end(&mut raw).map_err(malformed)?;
        if raw.len() as u64 > limit {
            return Err(Bad::TooLarge { what: "its raw size", found: raw.len() as u64, limit });
        }
        let (head, body) = raw.split_at_checked(5).ok_or(Bad::Mismatch)?;
        let schema = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        if head[0] != FORMAT || schema > A::SCHEMA {
            return Err(Bad::Version { format: head[0], schema, reads: A::SCHEMA });
        }
        let (replica, rest) =
            postcard::take_from_bytes::<Replica<A>>(body).map_err(|error| Bad::Malformed(error.to_string()))?;
        if !rest.is_empty() || replica.lineage() != &self.manifest.lineage || replica.hash() != self.manifest.log_hash {
            return Err(Bad::Mismatch);
        }
        Ok(replica)
    }

    /// One chunk of it.
    pub fn chunk(&self, chunk: u32) -> Option<Bytes> {
        let len = self.manifest.chunk_len(chunk)?;
        let start = chunk as usize * self.manifest.chunk_bytes as usize;
        Some(self.bytes.slice(start..start + len))
    }
}
