//! The network: connections that come and break, gossip for those without one, and what goes wrong on the way.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replication::NodeId;
use lockstep_replication::rng::Rng;
use lockstep_replication::wire::GOSSIP_BYTES_AT_MOST;

use super::{MICROS, between};

/// What the network is like. Chances are in a thousand.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// The shortest time on the way, in nanoseconds.
    pub(crate) delay: u64,
    /// Added to it, up to this.
    pub(crate) jitter: u64,
    /// How often a message takes ten times as long.
    pub(crate) slow: u64,
    /// Loss on connections: a law says that any send may be lost.
    pub(crate) loss: u64,
    /// Loss at each hop of gossip.
    pub(crate) gossip_loss: u64,
    pub(crate) duplicates: u64,
    /// Whether messages overtake each other on a connection too.
    pub(crate) reorders: bool,
    /// Bytes that a link carries in a millisecond.
    pub(crate) bytes_per_milli: u64,
}

impl Weather {
    /// No fault at all, and a short way.
    pub(crate) fn calm() -> Weather {
        Weather {
            delay: 200 * MICROS,
            jitter: 300 * MICROS,
            slow: 0,
            loss: 0,
            gossip_loss: 0,
            duplicates: 0,
            reorders: false,
            bytes_per_milli: 100_000,
        }
    }
}

/// When a copy of a message arrives, and by which connection, if by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trip {
    pub(crate) at: u64,
    pub(crate) epoch: Option<u64>,
}

/// All links of the world.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    pub(crate) weather: Weather,
    rng: Rng,
    nodes: Vec<NodeId>,
    /// Connections that stand, by their two ends in order.
    up: BTreeMap<(NodeId, NodeId), u64>,
    epochs: u64,
    /// How many faults block this direction now.
    blocked: BTreeMap<(NodeId, NodeId), u32>,
    /// When the last message of a direction arrives.
    arrives: BTreeMap<(NodeId, NodeId), u64>,
}

/// Two nodes in the order in which links are named.
pub(crate) fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Net {
    pub(crate) fn new(nodes: Vec<NodeId>, weather: Weather, rng: Rng) -> Net {
        let (up, blocked, arrives) = Default::default();
        Net { weather, rng, nodes, up, epochs: 0, blocked, arrives }
    }

    /// The connection between two nodes that stands.
    pub(crate) fn epoch(&self, a: NodeId, b: NodeId) -> Option<u64> {
        self.up.get(&pair(a, b)).copied()
    }

    /// A connection is made. Returns its number.
    pub(crate) fn connect(&mut self, a: NodeId, b: NodeId) -> u64 {
        self.epochs += 1;
        self.up.insert(pair(a, b), self.epochs);
        self.epochs
    }

    /// A connection breaks; what is under way on it is lost.
    pub(crate) fn cut(&mut self, a: NodeId, b: NodeId) -> Option<u64> {
        self.up.remove(&pair(a, b))
    }

    pub(crate) fn block(&mut self, from: NodeId, to: NodeId) {
        *self.blocked.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn unblock(&mut self, from: NodeId, to: NodeId) {
        if let Some(count) = self.blocked.get_mut(&(from, to)) {
            *count = count.saturating_sub(1);
        }
    }

    /// Nothing is blocked any more.
    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
    }

    pub(crate) fn is_blocked(&self, from: NodeId, to: NodeId) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    /// When messages arrive that are sent in order from now on: also used for the news that a connection stands.
    pub(crate) fn in_order(&mut self, now: u64, from: NodeId, to: NodeId) -> u64 {
        let on_the_way = self.on_the_way(0);
        let last = self.arrives.entry((from, to)).or_default();
        *last = (now + on_the_way).max(*last + 1);
        *last
    }

    /// Carries one message: by the connection that the sender believes in, else by gossip.
    pub(crate) fn carry(
        &mut self,
        now: u64,
        from: NodeId,
        to: NodeId,
        believes: Option<u64>,
        bytes: usize,
    ) -> Vec<Trip> {
        match believes {
            Some(epoch) => self.by_connection(now, from, to, epoch, bytes),
            None => self.by_gossip(now, from, to, bytes),
        }
    }

    fn by_connection(&mut self, now: u64, from: NodeId, to: NodeId, epoch: u64, bytes: usize) -> Vec<Trip> {
        let lost = self.rng.chance(self.weather.loss, 1000);
        if lost || self.epoch(from, to) != Some(epoch) || self.is_blocked(from, to) {
            return Vec::new();
        }
        let mut at = now + self.on_the_way(bytes);
        let last = self.arrives.entry((from, to)).or_default();
        if !self.weather.reorders {
            at = at.max(*last + 1);
        }
        *last = at.max(*last);
        let mut trips = vec![Trip { at, epoch: Some(epoch) }];
        if self.weather.reorders && self.rng.chance(self.weather.duplicates, 1000) {
            trips.push(Trip { at: at + self.on_the_way(0), epoch: Some(epoch) });
        }
        trips
    }

    fn by_gossip(&mut self, now: u64, from: NodeId, to: NodeId, bytes: usize) -> Vec<Trip> {
        let Some(hops) = self.hops(from, to).filter(|_| bytes <= GOSSIP_BYTES_AT_MOST) else { return Vec::new() };
        let copies = if self.rng.chance(self.weather.duplicates, 1000) { 2 } else { 1 };
        let mut trips = Vec::new();
        for _ in 0..copies {
            let mut at = now;
            let mut lost = false;
            for _ in 0..hops {
                at += self.on_the_way(bytes);
                lost |= self.rng.chance(self.weather.gossip_loss, 1000);
            }
            if !lost {
                trips.push(Trip { at, epoch: None });
            }
        }
        trips
    }

    /// How many connections a gossiped message crosses, if it can get there.
    fn hops(&self, from: NodeId, to: NodeId) -> Option<u32> {
        let mut reached = BTreeSet::from([from]);
        let mut edge = vec![from];
        for hops in 1.. {
            let mut further = Vec::new();
            for &here in &edge {
                for &there in &self.nodes {
                    let open = self.epoch(here, there).is_some() && !self.is_blocked(here, there);
                    if open && reached.insert(there) {
                        further.push(there);
                    }
                }
            }
            if reached.contains(&to) {
                return Some(hops);
            }
            if further.is_empty() {
                return None;
            }
            edge = further;
        }
        None
    }

    fn on_the_way(&mut self, bytes: usize) -> u64 {
        let Weather { delay, jitter, slow, bytes_per_milli, .. } = self.weather;
        let mut time = between(&mut self.rng, delay, delay + jitter);
        if self.rng.chance(slow, 1000) {
            time *= 10;
        }
        time + bytes as u64 * super::MILLIS / bytes_per_milli.max(1)
    }
}
