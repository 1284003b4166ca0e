//! Follows each connection from its handshake to its end, and tells the node who comes and goes.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use futures::io::AsyncReadExt as _;
use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;
use lockstep_replication::NodeId;
use tokio_util::sync::CancellationToken;

use super::{Connection, Sinks, Task};
use crate::network::counters::Cause;
use crate::network::events::NetworkEvent;
use crate::network::identity::node_of_peer;
use crate::network::lanes::{LaneEvent, Outcome, Streams};
use crate::network::links::{Closed, Link, Ready};
use crate::network::pump::LaneEnd;
use crate::network::{Lane, PeerQueues, addresses};

impl Task {
    pub(super) fn established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let target = self.attempts.remove(&id);
        let Some(node) = node_of_peer(&peer) else {
            self.reject(
                endpoint.get_remote_address().clone(),
                endpoint.is_listener(),
                "its key is no ed25519 key".into(),
            );
            self.swarm.close_connection(id);
            return;
        };
        if let Some(target) = target {
            self.dialer.reached(target, node);
        }
        let remote = endpoint.get_remote_address();
        let connection = Connection {
            node,
            dialled: endpoint.is_dialer().then(|| addresses::without_peer(remote)),
            over_loopback: addresses::is_loopback(remote),
            target,
            established_at: Instant::now(),
            lanes_open: false,
            sinks: None,
            stop: CancellationToken::new(),
        };
        self.connections.insert(id, connection);
    }

    pub(super) fn lanes(&mut self, LaneEvent { connection: id, outcome }: LaneEvent) {
        let now = Instant::now();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let node = connection.node;
        let Streams { urgent, bulk } = match outcome {
            Outcome::Ready(streams) => *streams,
            Outcome::Unusable(reason) => {
                if let Some(address) = connection.dialled.clone() {
                    self.reject(address, false, reason);
                }
                self.swarm.close_connection(id);
                return;
            }
        };
        connection.lanes_open = true;
        connection.target = None;
        let dialled_by_smaller = connection.dialled.is_some() == (self.me < node);
        let dialled = connection.dialled.clone();
        let (urgent_source, urgent) = urgent.split();
        let (bulk_source, bulk) = bulk.split();
        connection.sinks = Some(Sinks { urgent, bulk });
        self.dialer.connected(node);
        self.dialer.learn(node, dialled.into_iter().collect(), now);
        match self.links.ready(node, Link { connection: id, dialled_by_smaller, ready_at: now }) {
            Ready::First => self.begin(node, id),
            Ready::Anew(before) => {
                self.end(node, before);
                self.begin(node, id);
            }
            Ready::Instead(before) => {
                self.stop(before);
                self.write_to(node, id);
            }
            Ready::Spare => {}
        }
        tokio::spawn(self.lane_end(node, id, Lane::Urgent).read(urgent_source, self.outlets.inbox.clone()));
        tokio::spawn(self.lane_end(node, id, Lane::Bulk).read(bulk_source, self.outlets.inbox.clone()));
    }

    pub(super) fn closed(&mut self, id: ConnectionId) {
        let now = Instant::now();
        let Some(connection) = self.connections.remove(&id) else { return };
        connection.stop.cancel();
        if let Some(target) = connection.target {
            if let Some(address) = connection.dialled
                && !self.links.contains(&connection.node)
            {
                let reason = "it hung up at once: it may not allow this node, or refuse it for a while";
                self.reject(address, false, reason.into());
            }
            self.dialer.failed(target, now);
        }
        match self.links.closed(connection.node, id, now) {
            Closed::Nothing => {}
            Closed::Fallback(other) => self.write_to(connection.node, other),
            Closed::Last(lasted) => {
                self.end(connection.node, id);
                self.dialer.disconnected(connection.node, lasted, now);
                self.dial();
            }
        }
    }

    /// The node is connected from now on.
    fn begin(&mut self, node: NodeId, id: ConnectionId) {
        let queues = Arc::new(PeerQueues::new(&self.limits));
        self.outlets.peers.write().unwrap_or_else(PoisonError::into_inner).insert(node, queues);
        self.events.push_back(NetworkEvent::Connected(node));
        self.outlets.counters.show_connected(self.links.len());
        // Before anything that the node has to say, because it is short and gets the others connected.
        self.introduce_all_to(node, id);
        self.write_to(node, id);
    }

    /// The node is no longer connected.
    fn end(&mut self, node: NodeId, id: ConnectionId) {
        self.stop(id);
        self.announced.remove(&node);
        let queues = self.outlets.peers.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
        if let Some(queues) = queues {
            let lost = queues.urgent.take(usize::MAX).len() + queues.bulk.take(usize::MAX).len();
            self.outlets.counters.drop_many(Cause::ConnectionEnded, lost);
        }
        self.events.push_back(NetworkEvent::Disconnected(node));
        self.outlets.counters.show_connected(self.links.len());
    }

    /// No more is written to this connection.
    fn stop(&self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(&id) {
            connection.stop.cancel();
        }
    }

    /// What waits for the node is written to this connection from now on.
    fn write_to(&mut self, node: NodeId, id: ConnectionId) {
        let Some(queues) = self.queues(&node) else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(Sinks { urgent, bulk }) = connection.sinks.take() else { return };
        let stop = connection.stop.clone();
        for (lane, sink) in [(Lane::Urgent, urgent), (Lane::Bulk, bulk)] {
            let end = self.lane_end(node, id, lane);
            self.writers.spawn(end.write(sink, queues.lane(lane).clone(), stop.clone()));
        }
    }

    pub(super) fn queues(&self, node: &NodeId) -> Option<Arc<PeerQueues>> {
        self.outlets.peers.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    fn lane_end(&self, node: NodeId, connection: ConnectionId, lane: Lane) -> LaneEnd {
        LaneEnd { node, connection, lane, counters: self.outlets.counters.clone(), notices: self.notices.clone() }
    }
}
