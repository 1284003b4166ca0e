//! The side that offers snapshots: what is cached, who is served, what is answered. Encoding itself is the driver's work.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Manifest, Snapshot};
use crate::config::Config;
use crate::id::{Hash, Index, NodeId, WorkId};
use crate::message::Offer;
use crate::time::{Moment, Span};

/// How many of the newest snapshots are cached, besides those that are being pulled just now.
const CACHED: usize = 2;

/// A peer may ask for an offer so often.
const ASK_EVERY: Span = Span::seconds(1);

/// Who finds all places taken may ask again after this time: most transfers are over by then.
const FULL_AGAIN: Span = Span::millis(200);

/// A peer that asks for no chunk for so long is served no more.
const SERVED_IDLE: Span = Span::seconds(60);

/// The same chunk is not given to the same peer again within this time: a doubled request costs one answer. Shorter than
/// `chunk_within`, after which a chunk is truly asked for again.
const SAME_CHUNK_AFTER: Span = Span::seconds(1);

/// Snapshots that others may pull, and who pulls them.
#[derive(Clone, Debug, Default)]
pub struct Serve {
    /// By one past the last entry, ascending.
    cache: Vec<Snapshot>,
    served: BTreeMap<NodeId, Served>,
    /// Who waits for the encoding under way, and where each stands.
    waiting: BTreeMap<NodeId, Index>,
    encoding: Option<WorkId>,
    /// When each peer may ask for an offer again.
    may_ask: BTreeMap<NodeId, Moment>,
}

/// What this node's log has to offer instead of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogInfo {
    /// The first entry that it holds.
    pub first: Index,
    /// One past the last.
    pub next: Index,
    /// About how many bytes an entry takes.
    pub entry_bytes: u64,
}

/// What to do about a request for a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Answer this.
    Offer(Offer),
    /// Begin to encode the state and say so by [`Serve::encoding`]. The peer is answered when that is done.
    Encode,
    /// An encoding is under way. The peer is answered when that is done.
    Wait,
}

/// What to do about a request for a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// Send these bytes.
    Chunk(Bytes),
    /// Say that this node does not hold it (or that all places are taken): the peer asks another.
    Absent,
    /// Say nothing: the same chunk went to the same peer just now.
    TooSoon,
}

/// A peer that catches up.
#[derive(Clone, Debug)]
struct Served {
    /// The log must be kept from here for it.
    from: Index,
    since: Moment,
    /// When it last asked for anything.
    asked: Moment,
    /// What it pulls, and when each chunk was given; none if it replays the log.
    pulls: Option<(Hash, BTreeMap<u32, Moment>)>,
}

impl Serve {
    /// A peer that has everything before `peer_next` asks for a snapshot.
    pub fn asked(&mut self, now: Moment, peer: NodeId, peer_next: Index, log: LogInfo, config: &Config) -> Answer {
        self.expire(now, config);
        if let Some(later) = self.may_ask.get(&peer).filter(|at| **at > now) {
            probe!("an offer is asked for too often");
            return Answer::Offer(Offer::Later(later.since(now)));
        }
        self.may_ask.insert(peer, now + ASK_EVERY);
        if log.next == Index(0) {
            return Answer::Offer(Offer::NothingYet);
        }
        if peer_next >= log.next || self.log_is_shorter(peer_next, log, config) {
            self.begin(now, peer, peer_next, None);
            return Answer::Offer(Offer::LogShorter);
        }
        if !self.has_place(peer, config) {
            probe!("all places for joiners are taken");
            self.may_ask.insert(peer, now + FULL_AGAIN);
            return Answer::Offer(Offer::Later(FULL_AGAIN));
        }
        let tail_at_most = config.snapshot_every.saturating_mul(2).max(config.repair_entries);
        let serves_it = |manifest: &Manifest| {
            let next = manifest.next();
            next > peer_next && next >= log.first && log.next.since(next) <= tail_at_most
        };
        if let Some(manifest) = self.newest().filter(|manifest| serves_it(manifest)).cloned() {
            return Answer::Offer(self.offer(now, peer, manifest));
        }
        self.waiting.insert(peer, peer_next);
        if self.encoding.is_none() {
            return Answer::Encode;
        }
        probe!("a joiner waits for an encoding under way");
        Answer::Wait
    }

    /// An encoding began, for a joiner or for a periodic snapshot. There is one at a time.
    pub fn encoding(&mut self, id: WorkId) {
        assert!(self.encoding.is_none(), "one encoding at a time");
        self.encoding = Some(id);
    }

    /// Which encoding is under way.
    pub fn encodes(&self) -> Option<WorkId> {
        self.encoding
    }

    /// The encoding is done: caches the snapshot. Returns who waited for it, and what each is to be told.
    pub fn encoded(&mut self, now: Moment, snapshot: Snapshot, config: &Config) -> Vec<(NodeId, Offer)> {
        self.encoding = None;
        let manifest = snapshot.manifest.clone();
        self.hold(snapshot, config);
        let waited = std::mem::take(&mut self.waiting);
        let answer = |(peer, next): (NodeId, Index)| {
            if next < manifest.next() {
                return (peer, self.offer(now, peer, manifest.clone()));
            }
            self.begin(now, peer, next, None);
            (peer, Offer::LogShorter)
        };
        waited.into_iter().map(answer).collect()
    }

    /// The encoding failed. Returns who waited for it.
    pub fn failed(&mut self) -> Vec<NodeId> {
        self.encoding = None;
        std::mem::take(&mut self.waiting).into_keys().collect()
    }

    /// A peer asks for a chunk, of this node's offer or of anybody's with the same hash.
    pub fn chunk(&mut self, now: Moment, peer: NodeId, snapshot: &Hash, chunk: u32, config: &Config) -> Given {
        self.expire(now, config);
        let Some(held) = self.cache.iter().find(|held| held.manifest.hash == *snapshot) else { return Given::Absent };
        let Some(bytes) = held.chunk(chunk) else { return Given::Absent };
        let pulls_it = |served: &Served| served.pulls.as_ref().is_some_and(|(hash, _)| hash == snapshot);
        if !self.served.get(&peer).is_some_and(pulls_it) {
            if !self.has_place(peer, config) {
                return Given::Absent;
            }
            let from = held.manifest.next();
            self.begin(now, peer, from, Some(*snapshot));
        }
        let served = self.served.get_mut(&peer).filter(|served| pulls_it(served));
        let Some(Served { asked, pulls: Some((_, given)), .. }) = served else { return Given::Absent };
        *asked = now;
        if given.get(&chunk).is_some_and(|at| now.since(*at) < SAME_CHUNK_AFTER) {
            probe!("a chunk is asked for twice");
            return Given::TooSoon;
        }
        given.insert(chunk, now);
        Given::Chunk(bytes)
    }

    /// Serves this snapshot too: this node's own, or one that it fetched.
    pub fn hold(&mut self, snapshot: Snapshot, config: &Config) {
        if self.cache.iter().any(|held| held.manifest.hash == snapshot.manifest.hash) {
            return;
        }
        self.cache.push(snapshot);
        self.cache.sort_by_key(|held| held.manifest.next());
        self.drop_old(config);
    }

    /// The newest snapshot that is served.
    pub fn newest(&self) -> Option<&Manifest> {
        self.cache.last().map(|snapshot| &snapshot.manifest)
    }

    /// The peer has caught up, or is gone: nothing is held for it any more.
    pub fn forget(&mut self, peer: NodeId) {
        self.served.remove(&peer);
        self.waiting.remove(&peer);
        self.may_ask.remove(&peer);
    }

    /// A peer stored the log up to `next`: it needs a place no more, wherever its chunks came from.
    pub fn stored(&mut self, peer: NodeId, next: Index) {
        if let Some(served) = self.served.get_mut(&peer).filter(|served| next >= served.from) {
            served.pulls = None;
        }
    }

    /// The log was cut or replaced: what was cached may belong to the branch that lost. An encoding under way goes on,
    /// but nobody waits for it.
    pub fn clear(&mut self) {
        *self = Serve { encoding: self.encoding, may_ask: std::mem::take(&mut self.may_ask), ..Serve::default() };
    }

    /// The first entry that peers who catch up will want, for at most `hold_log_for` since each began.
    pub fn log_needed_from(&self, now: Moment, config: &Config) -> Option<Index> {
        let held = self.served.values().filter(|served| now.since(served.since) <= config.hold_log_for);
        held.map(|served| served.from).min()
    }

    /// How many peers pull a snapshot or wait for one.
    pub fn serving(&self) -> usize {
        self.served.iter().filter(|(peer, served)| !self.waiting.contains_key(peer) && self.pulls(served)).count()
            + self.waiting.len()
    }

    /// The log does when it reaches far enough back and is less to send than a snapshot, or little in any case.
    fn log_is_shorter(&self, peer_next: Index, log: LogInfo, config: &Config) -> bool {
        let missing = log.next.since(peer_next);
        let smaller = |manifest: &Manifest| missing.saturating_mul(log.entry_bytes) <= manifest.bytes;
        peer_next >= log.first && (missing <= config.repair_entries || self.newest().is_some_and(smaller))
    }

    fn has_place(&self, peer: NodeId, config: &Config) -> bool {
        let has_one =
            self.waiting.contains_key(&peer) || self.served.get(&peer).is_some_and(|served| self.pulls(served));
        has_one || self.serving() < config.serves
    }

    /// Whether the peer still pulls: not when it was given every chunk.
    fn pulls(&self, served: &Served) -> bool {
        served.pulls.as_ref().is_some_and(|(hash, given)| {
            let held = self.cache.iter().find(|held| held.manifest.hash == *hash);
            held.is_some_and(|held| given.len() < held.manifest.chunks.len())
        })
    }

    fn offer(&mut self, now: Moment, peer: NodeId, manifest: Manifest) -> Offer {
        self.begin(now, peer, manifest.next(), Some(manifest.hash));
        Offer::Snapshot(Box::new(manifest))
    }

    fn begin(&mut self, now: Moment, peer: NodeId, from: Index, pulls: Option<Hash>) {
        let pulls = pulls.map(|hash| (hash, BTreeMap::new()));
        self.served.insert(peer, Served { from, since: now, asked: now, pulls });
    }

    fn expire(&mut self, now: Moment, config: &Config) {
        self.may_ask.retain(|_, at| *at > now);
        self.served.retain(|_, served| now.since(served.asked) < SERVED_IDLE);
        self.drop_old(config);
    }

    /// Keeps the newest snapshots, and those that somebody pulls: a transfer on a slow link outlives two periodic ones.
    /// At most `serves` of those, so the cache is bounded.
    fn drop_old(&mut self, config: &Config) {
        let mut old = self.cache.len().saturating_sub(CACHED);
        let pulling = self.served.values().filter(|served| self.pulls(served));
        let pulled: Vec<Hash> = pulling.filter_map(Served::hash).take(config.serves).collect();
        self.cache.retain(|held| {
            let newest = old == 0;
            old = old.saturating_sub(1);
            newest || pulled.contains(&held.manifest.hash)
        });
    }
}

impl Served {
    fn hash(&self) -> Option<Hash> {
        self.pulls.as_ref().map(|(hash, _)| *hash)
    }
}
