//! The pull side of a snapshot: which chunks are here, which are asked for and of whom. Who is asked at all is the node's.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};

use super::{Bad, Manifest, Snapshot};
use crate::config::Config;
use crate::id::{Hash, Index, NodeId};
use crate::time::{Moment, Span};

/// More chunks than this do not fit a manifest of 64 KiB. A snapshot of 64 MiB in chunks of 512 KiB has 128.
const CHUNKS_AT_MOST: u64 = 2048;

/// A chunk is late after so many times as long as chunks take.
const LATE_TIMES: u64 = 8;

/// The wait for a chunk doubles with each time that a source is asked for it, so often at most: a slow link is not made
/// slower by asking again, and one that was bad for a while is soon found to be good.
const DOUBLINGS_AT_MOST: u32 = 2;

/// One transfer of one snapshot. Memory grows with the chunks that came, never with what a peer announces.
#[derive(Clone, Debug)]
pub struct Fetch {
    manifest: Manifest,
    /// Who offered it: asked first, since it surely holds it.
    source: NodeId,
    here: BTreeMap<u32, Bytes>,
    bytes_here: u64,
    /// Chunks that were asked for and did not come yet.
    wanted: BTreeMap<u32, Wanted>,
    /// All from this one on were never asked for.
    unasked: u32,
    /// Who said that it does not hold this snapshot.
    absent: BTreeSet<NodeId>,
    /// How often each source was late or wrong since its last good chunk.
    failures: BTreeMap<NodeId, u32>,
    /// How long a chunk takes, smoothed; none before the first.
    chunk_takes: Option<Span>,
    retried: u64,
    patience: Span,
    give_up_at: Moment,
    /// Since when every source that could be asked has said that it does not hold the snapshot.
    nobody_since: Option<Moment>,
}

/// A chunk on its way.
#[derive(Clone, Debug, Default)]
struct Wanted {
    tries: u32,
    asked: BTreeMap<NodeId, Asked>,
}

/// One request. It stays when it is late, because the answer may still come.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since: Moment,
    /// How often it was sent.
    times: u32,
    /// Until when this source is not asked for the chunk again; none once that time is over.
    until: Option<Moment>,
    /// Its answer came and was wrong.
    wrong: bool,
}

impl Asked {
    fn pending(&self) -> bool {
        self.until.is_some() && !self.wrong
    }
}

/// What became of a chunk that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Took {
    /// Dropped. Nothing changed, except that a source of wrong bytes is asked last from now on.
    Rejected(Rejection),
    /// The sender does not hold this snapshot. It is not asked again; others are.
    Absent,
    /// It is new and right; more are missing.
    Kept,
    /// It was the last one. The transfer is over. That the whole has the manifest's hash is for [`Snapshot::decode`]
    /// to see, away from the node's own thread.
    Complete(Box<Snapshot>),
}

/// Why a chunk was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It belongs to another snapshot: an older transfer's, or nobody's.
    #[error("it belongs to another snapshot")]
    OtherSnapshot,
    /// This chunk was not asked for, or not of this node.
    #[error("it was not asked for")]
    NotAsked,
    /// The chunk is here already.
    #[error("it came before")]
    Twice,
    /// Another length or hash than the manifest says.
    #[error("its bytes are not those that the manifest names")]
    WrongBytes,
}

impl Fetch {
    /// Begins the transfer of what `source` offered. Refuses a manifest that is impossible or beyond the limits.
    pub fn new(now: Moment, manifest: Manifest, source: NodeId, config: &Config) -> Result<Fetch, Bad> {
        manifest.check(config.snapshot_bytes, config.snapshot_raw_bytes, config.chunk_bytes)?;
        let (found, limit) = (manifest.chunks.len() as u64, CHUNKS_AT_MOST);
        if found > limit {
            return Err(Bad::TooLarge { what: "its number of chunks", found, limit });
        }
        if manifest.next() == Index(0) || !manifest.lineage.is_possible() {
            return Err(Bad::Manifest("no log has its lineage"));
        }
        Ok(Fetch {
            manifest,
            source,
            here: BTreeMap::new(),
            bytes_here: 0,
            wanted: BTreeMap::new(),
            unasked: 0,
            absent: BTreeSet::new(),
            failures: BTreeMap::new(),
            chunk_takes: None,
            retried: 0,
            patience: config.transfer_patience,
            give_up_at: now + config.transfer_patience,
            nobody_since: None,
        })
    }

    /// What is fetched.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The requests to send now, as (source, chunk): fills the window, and asks again for what is late, of another source
    /// where there is one.
    ///
    /// `sources` are the connected nodes that may hold the snapshot, in order of preference. Call it after every change:
    /// when chunks came, sources came or went, or [`Fetch::due`] is reached.
    pub fn ask(&mut self, now: Moment, sources: &[NodeId], config: &Config) -> Vec<(NodeId, u32)> {
        self.expire(now);
        let mut pending = self.wanted.values().flat_map(|wanted| wanted.asked.values()).filter(|a| a.pending()).count();
        let mut requests = Vec::new();
        let late: Vec<u32> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| wanted.is_free() && !mutant!(LostChunkRestartsAll))
            .map(|(chunk, _)| *chunk)
            .collect();
        let fresh = self.unasked..self.manifest.chunks.len() as u32;
        for chunk in late.into_iter().chain(fresh) {
            if pending >= config.chunks_in_flight.max(1) {
                break;
            }
            let Some(source) = self.best_source(chunk, sources) else { continue };
            self.request(now, chunk, source, config);
            requests.push((source, chunk));
            pending += 1;
        }
        let nobody = pending == 0 && !sources.is_empty() && sources.iter().all(|node| self.absent.contains(node));
        self.nobody_since = nobody.then(|| self.nobody_since.unwrap_or(now));
        requests
    }

    /// A chunk came from `from`, or the word that `from` does not hold the snapshot. Only what was asked for, of whom it
    /// was asked, with the right length and hash, is kept.
    pub fn take(&mut self, now: Moment, from: NodeId, snapshot: Hash, chunk: u32, bytes: Option<Bytes>) -> Took {
        if snapshot != self.manifest.hash {
            probe!("a chunk of another snapshot came");
            return Took::Rejected(Rejection::OtherSnapshot);
        }
        let Some(bytes) = bytes else { return self.take_absence(from, chunk) };
        if self.here.contains_key(&chunk) {
            probe!("a chunk came twice");
            return Took::Rejected(Rejection::Twice);
        }
        let Some(asked) = self.wanted.get_mut(&chunk).and_then(|wanted| wanted.asked.get_mut(&from)) else {
            return Took::Rejected(Rejection::NotAsked);
        };
        let right_length = self.manifest.chunk_len(chunk) == Some(bytes.len());
        if !right_length || self.manifest.chunks.get(chunk as usize) != Some(&Hash::of(&bytes)) {
            probe!("a chunk had the wrong bytes");
            asked.wrong = true;
            *self.failures.entry(from).or_default() += 1;
            return Took::Rejected(Rejection::WrongBytes);
        }
        let took = now.since(asked.since);
        // Which request a chunk answers is known only where there was one (Karn and Partridge, 1987).
        if self.wanted.get(&chunk).is_some_and(|wanted| wanted.tries == 1) {
            let before = self.chunk_takes.unwrap_or(took);
            self.chunk_takes = Some(Span((before.0 * 7).saturating_add(took.0) / 8));
        }
        self.failures.remove(&from);
        self.wanted.remove(&chunk);
        self.bytes_here += bytes.len() as u64;
        self.here.insert(chunk, bytes);
        self.give_up_at = now + self.patience;
        if self.here.len() < self.manifest.chunks.len() {
            Took::Kept
        } else {
            Took::Complete(Box::new(self.complete()))
        }
    }

    /// The connection to a source is gone: what was asked of it is free again. When it comes back it may be asked anew.
    pub fn lost(&mut self, peer: NodeId) {
        self.wanted.values_mut().for_each(|wanted| {
            wanted.asked.remove(&peer);
        });
        self.absent.remove(&peer);
        self.failures.remove(&peer);
    }

    /// The same snapshot was offered anew, by `source`: what is here stays, and the patience begins again.
    pub fn resume(&mut self, now: Moment, source: NodeId) {
        self.source = source;
        self.absent.remove(&source);
        self.nobody_since = None;
        self.give_up_at = now + self.patience;
    }

    /// When to call [`Fetch::ask`] at the latest, and look at [`Fetch::stalled`]. Not in the past after a call of `ask`,
    /// unless the transfer has stalled.
    pub fn due(&self) -> Option<Moment> {
        let asked = self.wanted.values().flat_map(|wanted| wanted.asked.values());
        let at_once = self.nobody_since.map(|since| since + Span(1));
        asked.filter_map(|asked| asked.until).chain([self.give_up_at]).chain(at_once).min()
    }

    /// Whether the transfer is to be given up for a new manifest: no new chunk came for `transfer_patience`, or nobody
    /// who is connected holds the snapshot any more.
    pub fn stalled(&self, now: Moment) -> bool {
        self.nobody_since.is_some() || now >= self.give_up_at
    }

    /// How many of the compressed form's bytes are here, and of how many.
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes_here, self.manifest.bytes)
    }

    /// How many requests were for a chunk that had been asked for before.
    pub fn retried(&self) -> u64 {
        self.retried
    }

    fn expire(&mut self, now: Moment) {
        for wanted in self.wanted.values_mut() {
            for (source, asked) in &mut wanted.asked {
                if asked.until.is_some_and(|until| until <= now) {
                    asked.until = None;
                    if !asked.wrong {
                        *self.failures.entry(*source).or_default() += 1;
                    }
                }
            }
        }
    }

    /// The source that failed least, then the one that was not asked for this chunk, then who offered, then the order given.
    fn best_source(&self, chunk: u32, sources: &[NodeId]) -> Option<NodeId> {
        let asked = self.wanted.get(&chunk).map(|wanted| &wanted.asked);
        let of = |node: &NodeId| asked.and_then(|asked| asked.get(node));
        sources
            .iter()
            .filter(|node| !self.absent.contains(*node) && of(node).is_none_or(|asked| asked.until.is_none()))
            .min_by_key(|node| (self.failures.get(*node).copied(), of(node).is_some(), **node != self.source))
            .copied()
    }

    fn request(&mut self, now: Moment, chunk: u32, source: NodeId, config: &Config) {
        let usual = self.chunk_takes.map_or(Span::ZERO, |span| span.times(LATE_TIMES)).max(config.chunk_within);
        let wanted = self.wanted.entry(chunk).or_default();
        // Where chunks do come it is known how long they take: one that does not was rather lost, however often.
        let times = wanted.asked.get(&source).map_or(0, |asked| asked.times);
        let doublings = times.min(if self.chunk_takes.is_some() { 1 } else { DOUBLINGS_AT_MOST });
        let within = usual.times(1 << doublings);
        let within = if buggify!("a chunk is soon asked for again") { Span::millis(20) } else { within };
        wanted.asked.insert(source, Asked { since: now, times: times + 1, until: Some(now + within), wrong: false });
        if wanted.tries > 0 {
            probe!("a chunk is asked for again");
            self.retried += 1;
        }
        wanted.tries += 1;
        self.unasked = self.unasked.max(chunk + 1);
    }

    fn take_absence(&mut self, from: NodeId, chunk: u32) -> Took {
        let asked = self.wanted.get(&chunk).is_some_and(|wanted| wanted.asked.contains_key(&from));
        if !asked && !self.absent.contains(&from) {
            return Took::Rejected(Rejection::NotAsked);
        }
        self.lost(from);
        self.absent.insert(from);
        // An answer, and a quick one: it is no reason to wait longer for the next source.
        if let Some(wanted) = self.wanted.get_mut(&chunk) {
            wanted.tries = wanted.tries.saturating_sub(1);
        }
        Took::Absent
    }

    fn complete(&mut self) -> Snapshot {
        let mut whole = BytesMut::with_capacity(self.bytes_here as usize);
        while let Some((_, bytes)) = self.here.pop_first() {
            whole.extend_from_slice(&bytes);
        }
        Snapshot { manifest: self.manifest.clone(), bytes: whole.freeze() }
    }
}

impl Wanted {
    fn is_free(&self) -> bool {
        !self.asked.values().any(Asked::pending)
    }
}
