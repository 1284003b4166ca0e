//! Dials what is due, and makes what fails known: to the dialer, and to the operator where it helps.

use std::time::{Duration, Instant};

use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionDenied, ConnectionId, DialError, ListenError};
use libp2p::{Multiaddr, PeerId};
use lockstep_replication::NodeId;

use super::Task;
use crate::network::addresses::{self, Introductions};
use crate::network::dialer::Target;
use crate::network::events::NetworkEvent;
use crate::network::identity::{node_of_peer, peer_of_node};
use crate::network::transport;

impl Task {
    pub(super) fn dial(&mut self) {
        let now = Instant::now();
        for attempt in self.dialer.due(now) {
            // A port of its own for each attempt: two nodes that dial each other at the same moment from the ports that
            // they listen on open one TCP connection with two dialling ends, and fail.
            let options = match attempt.target {
                Target::Given(_) => match attempt.addresses.into_iter().next() {
                    Some(address) => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
                    None => continue,
                },
                Target::Node(node) => match peer_of_node(&node) {
                    Some(peer) => DialOpts::peer_id(peer)
                        .condition(PeerCondition::Always)
                        .addresses(attempt.addresses)
                        .allocate_new_port()
                        .build(),
                    None => continue,
                },
            };
            let connection = options.connection_id();
            self.attempts.insert(connection, attempt.target);
            if let Err(error) = self.swarm.dial(options) {
                self.dial_failed(connection, error);
            }
        }
    }

    pub(super) fn dial_failed(&mut self, connection: ConnectionId, error: DialError) {
        tracing::debug!(%error, "dialling failed");
        let Some(target) = self.attempts.remove(&connection) else { return };
        match error {
            DialError::LocalPeerId { address } => {
                self.dialer.is_self(target);
                let address = addresses::without_peer(&address);
                if !self.swarm.listeners().any(|own| *own == address) {
                    let reason = "it is this node itself, or another machine with this node's identity";
                    self.reject(address, false, reason.into());
                }
                return;
            }
            DialError::WrongPeerId { address, .. } => match target {
                Target::Node(node) => self.dialer.is_not_at(node, &address),
                Target::Given(_) => self.reject(address, false, "another node answers there".into()),
            },
            DialError::Transport(errors) => {
                for (address, error) in errors {
                    if let Some(reason) = transport::stranger(&error) {
                        self.reject(address, false, reason);
                    }
                }
            }
            DialError::Denied { cause } => tracing::debug!(%cause, "dialling was denied"),
            DialError::NoAddresses | DialError::DialPeerConditionFalse(_) | DialError::Aborted => {}
        }
        self.dialer.failed(target, Instant::now());
    }

    pub(super) fn incoming_failed(&mut self, address: Multiaddr, error: ListenError) {
        tracing::debug!(%error, "an incoming connection failed");
        match error {
            ListenError::Transport(error) => {
                if let Some(reason) = transport::stranger(&error) {
                    self.reject(address, true, reason);
                }
            }
            ListenError::Denied { cause } => {
                if let Some(reason) = denied(&cause) {
                    self.reject(address, true, reason.into());
                }
            }
            // The other end of a node that dials itself.
            ListenError::LocalPeerId { .. } | ListenError::WrongPeerId { .. } | ListenError::Aborted => {}
        }
    }

    pub(super) fn discovered(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let mut nodes = Introductions::new();
        for (peer, address) in found {
            if let Some(node) = node_of_peer(&peer) {
                nodes.entry(node).or_default().push(address);
            }
        }
        for (node, found) in nodes {
            self.dialer.learn(node, addresses::usable(&found, false), Instant::now());
        }
        self.dial();
    }

    pub(super) fn refuse(&mut self, node: NodeId, time: Duration) {
        self.dialer.refuse(node, Instant::now() + time);
        if let Some(peer) = peer_of_node(&node) {
            self.swarm.behaviour_mut().refused.block_peer(peer);
        }
    }

    pub(super) fn reject(&mut self, addr: Multiaddr, came_in: bool, reason: String) {
        self.outlets.counters.reject();
        if self.rejections.is_news(&addr, came_in, Instant::now()) {
            self.events.push_back(NetworkEvent::PeerRejected { addr, reason });
        }
    }
}

/// What to tell of a connection that this node itself turned down; nothing of one that it refuses for a while.
fn denied(cause: &ConnectionDenied) -> Option<&'static str> {
    if cause.downcast_ref::<libp2p_allow_block_list::NotAllowed>().is_some() {
        Some("this node does not allow it: its id is not on the list of allowed nodes")
    } else if cause.downcast_ref::<libp2p_connection_limits::Exceeded>().is_some() {
        Some("this node has as many connections as it may have")
    } else {
        None
    }
}
