//! Tells connected nodes where others can be found, and takes in what they tell.

use std::time::Instant;

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use lockstep_replication::NodeId;

use super::Task;
use crate::network::addresses::{self, Introductions};
use crate::network::counters::Cause;
use crate::network::frame::{Frame, Kind};

impl Task {
    /// A peer told addresses: its own, which are passed on, and those of nodes that it is connected to.
    pub(super) fn learn(&mut self, from: NodeId, id: ConnectionId, introductions: Introductions) {
        let Some(over_loopback) = self.connections.get(&id).map(|connection| connection.over_loopback) else { return };
        let now = Instant::now();
        for (node, told) in introductions {
            let told = addresses::usable(&told, over_loopback);
            if node == from && self.announced.get(&node) != Some(&told) {
                self.announced.insert(node, told.clone());
                self.introduce(node, &told);
            }
            self.dialer.learn(node, told, now);
        }
        self.dial();
    }

    /// Tells a newly connected node where this one is, and where those listen that this one is connected to.
    pub(super) fn introduce_all_to(&self, node: NodeId, id: ConnectionId) {
        let mut all: Introductions = self.announced.clone();
        all.insert(self.me, self.found_at());
        self.tell(node, id, &all);
    }

    pub(super) fn introduce_myself(&self) {
        self.introduce(self.me, &self.found_at());
    }

    /// Where others find this node.
    fn found_at(&self) -> Vec<Multiaddr> {
        if self.announce.is_empty() { self.swarm.listeners().cloned().collect() } else { self.announce.clone() }
    }

    /// Tells all connected nodes where this one can be found.
    fn introduce(&self, node: NodeId, found_at: &[Multiaddr]) {
        let introduction = Introductions::from([(node, found_at.to_vec())]);
        for (other, id) in self.links.in_use().filter(|(other, _)| *other != node) {
            self.tell(other, id, &introduction);
        }
    }

    fn tell(&self, node: NodeId, id: ConnectionId, introductions: &Introductions) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Some(queues) = self.queues(&node) else { return };
        let for_this_node = introductions
            .iter()
            .filter(|(other, _)| **other != node)
            .map(|(other, all)| (*other, addresses::usable(all, connection.over_loopback)))
            .filter(|(_, usable)| !usable.is_empty())
            .collect();
        let payload = addresses::encode(&for_this_node);
        if queues.urgent.push(Frame { kind: Kind::Addresses, payload }).is_err() {
            self.outlets.counters.drop(Cause::QueueFull);
        }
    }
}
