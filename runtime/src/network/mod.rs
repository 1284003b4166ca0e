//! Moves bytes between authenticated nodes. What they mean is not its business; a message may be lost, never forged.
//!
//! Every pair of nodes holds one connection: TCP under the cluster key, encrypted by the nodes' identities, with two
//! lanes. *Urgent* is for what is small and must not wait (beats, elections, acknowledgements), *bulk* for entries and
//! chunks. Each lane has a bounded queue at the sender, and at the receiver a bounded share of what the node has not
//! taken yet: a node that falls behind stops reading its bulk lanes, so that their senders' queues fill and drop, while
//! the urgent lanes flow on. Gossip reaches the nodes that the sender is not connected to.
//!
//! `task` owns all of it and makes no decisions that `dialer` (whom to dial and when) and `links` (which connection to
//! use) can make without sockets. `lanes` opens the streams, `pump` moves `frame`s between them and `queue` and
//! `events`; `addresses` is what nodes tell each other so that all get connected.

mod addresses;
mod counters;
mod dialer;
mod events;
mod frame;
mod gossip;
mod identity;
mod lanes;
mod links;
mod pump;
mod queue;
mod rejections;
mod swarm;
mod task;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, PoisonError, RwLock};
use std::{fmt, io};

use bytes::Bytes;
use libp2p::Multiaddr;
use libp2p::core::transport::TransportError;
use libp2p::identity::Keypair;
use lockstep_replication::NodeId;
use lockstep_replication::wire::{GOSSIP_BYTES_AT_MOST, MESSAGE_BYTES_AT_MOST};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};

pub use counters::{Cause, Counters};
pub use events::{NetworkEvent, NetworkEvents};
pub use identity::{node_of_keypair, node_of_peer, peer_of_node};
pub use queue::QueueLimit;

use frame::{Frame, Kind};
use gossip::Envelope;
use queue::{Full, LaneQueue};

/// Requests that may wait for the network's task.
const COMMANDS: usize = 2048;
/// Of these, so many places are kept for other requests than gossip.
const COMMANDS_BUT_GOSSIP: usize = 256;

/// How the network is set up.
pub struct NetworkConfig {
    /// This node's identity: an ed25519 keypair.
    pub keypair: Keypair,
    /// What all nodes of the cluster share, and nobody else has.
    pub cluster_key: [u8; 32],
    /// Where to listen: `/ip4/…/tcp/…` or `/ip6/…/tcp/…`. Port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// What other nodes are told of where this one is; empty: where it listens.
    pub announce: Vec<Multiaddr>,
    /// Where other nodes may be found. One that answers is enough; they are dialled for ever.
    pub peers: Vec<Multiaddr>,
    /// Whether to look for nodes on the local network.
    pub mdns: bool,
    /// The only nodes to work with; none: all that have the cluster key.
    pub allow: Option<BTreeSet<NodeId>>,
    /// The gossip topics to listen to: all that may be named in [`Network::send`] and [`Network::broadcast`].
    pub topics: &'static [&'static str],
    /// Limits.
    pub limits: NetworkLimits,
}

/// How much the network holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkLimits {
    /// What may wait to be sent to one peer on the urgent lane.
    pub urgent_queue: QueueLimit,
    /// Up to so much may wait on the urgent lane before parts of answers go with the bulk: a slow link must not hold
    /// beats up for more than a moment.
    pub answers_queue: QueueLimit,
    /// What may wait to be sent to one peer on the bulk lane. Above what the protocol lets one peer have outstanding
    /// (a replay's window of 4 MiB and four chunks), so that it fills only when the peer is too slow.
    pub bulk_queue: QueueLimit,
    /// Bytes of received urgent messages that the node has not taken yet, from all peers.
    pub urgent_inbox_bytes: usize,
    /// Bytes of received bulk messages that the node has not taken yet, from all peers.
    pub bulk_inbox_bytes: usize,
    /// Connections in all.
    pub connections: u32,
}

impl Default for NetworkLimits {
    fn default() -> Self {
        NetworkLimits {
            urgent_queue: QueueLimit { frames: 4096, bytes: 8 << 20 },
            answers_queue: QueueLimit { frames: 2048, bytes: 256 << 10 },
            bulk_queue: QueueLimit { frames: 8192, bytes: 64 << 20 },
            urgent_inbox_bytes: 16 << 20,
            bulk_inbox_bytes: 32 << 20,
            connections: 2048,
        }
    }
}

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Another program listens there.
    #[error("cannot listen on {0}: another program does already; give another port, or 0 for any free one")]
    InUse(Multiaddr),
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}: {reason}")]
    CannotListen {
        /// The address as it was given.
        address: Multiaddr,
        /// What the system says.
        reason: String,
    },
    /// An address of a kind that this network does not know.
    #[error("{0} is no address that this node can use; write /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT")]
    Unsupported(Multiaddr),
    /// The identity is of another kind.
    #[error("the node's identity must be an ed25519 key")]
    WrongKeyType,
    /// A part of the network cannot be set up.
    #[error("{0}")]
    Setup(String),
}

/// How long a message may wait behind others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Beats, elections, acknowledgements: never behind bulk.
    Urgent,
    /// Entries and chunks.
    Bulk,
}

/// A handle to the network. Cloned freely; none of its methods but the last waits. The network ends with the last handle.
#[derive(Clone)]
pub struct Network {
    me: NodeId,
    answers_queue: QueueLimit,
    peers: Peers,
    commands: mpsc::Sender<Command>,
    counters: Counters,
}

/// The queues of the connected nodes.
type Peers = Arc<RwLock<BTreeMap<NodeId, Arc<PeerQueues>>>>;

/// What waits to be sent to one node.
#[derive(Debug)]
struct PeerQueues {
    urgent: Arc<LaneQueue>,
    bulk: Arc<LaneQueue>,
}

/// What the handle asks of the task.
enum Command {
    Gossip { topic: &'static str, envelope: Envelope },
    Refuse { node: NodeId, reason: String },
    Dial(Multiaddr),
    Shutdown(oneshot::Sender<()>),
}

/// Starts the network: it listens when this returns, and dials from now on. To be called within a tokio runtime; the
/// counters are added to the registry.
pub fn start(config: NetworkConfig, registry: &mut Registry) -> Result<(Network, NetworkEvents), NetworkError> {
    let me = node_of_keypair(&config.keypair).ok_or(NetworkError::WrongKeyType)?;
    if let Some(address) = config
        .listen
        .iter()
        .chain(&config.announce)
        .chain(&config.peers)
        .find(|address| !addresses::is_supported(address))
    {
        return Err(NetworkError::Unsupported(address.clone()));
    }
    let mut swarm = swarm::build(&config, registry)?;
    for address in &config.listen {
        see_that_it_is_free(address)?;
        swarm.listen_on(address.clone()).map_err(|error| cannot_listen(address, error))?;
    }
    let (control, inbox, events) = events::channel(events::InboxLimits {
        urgent_bytes: config.limits.urgent_inbox_bytes,
        bulk_bytes: config.limits.bulk_inbox_bytes,
    });
    let counters = Counters::register(registry);
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let answers_queue = config.limits.answers_queue;
    let network = Network { me, answers_queue, peers: Peers::default(), commands, counters: counters.clone() };
    let outlets = task::Outlets { control, inbox, counters, peers: network.peers.clone() };
    tokio::spawn(task::Task::new(me, config, swarm, outlets, registry).run(receiver));
    Ok((network, events))
}

/// libp2p listens in a way that lets a second process take the same port and half of the connections: so that nobody
/// does, each looks first whether anybody listens there.
fn see_that_it_is_free(address: &Multiaddr) -> Result<(), NetworkError> {
    let Some((ip, port)) = addresses::ip_and_port(address) else {
        return Err(NetworkError::Unsupported(address.clone()));
    };
    match TcpListener::bind((ip, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(NetworkError::InUse(address.clone())),
        Err(error) => Err(NetworkError::CannotListen { address: address.clone(), reason: error.to_string() }),
    }
}

fn cannot_listen(address: &Multiaddr, error: TransportError<io::Error>) -> NetworkError {
    match error {
        TransportError::MultiaddrNotSupported(address) => NetworkError::Unsupported(address),
        TransportError::Other(error) => {
            NetworkError::CannotListen { address: address.clone(), reason: error.to_string() }
        }
    }
}

impl Network {
    /// Sends to one node: over its connection if there is one, else by gossip on this topic, with the node named.
    /// Dropped and counted when the node's queue is full, or when it is too long for the way it would have to go.
    pub fn send(&self, to: NodeId, topic: &'static str, lane: Lane, bytes: Bytes) {
        if self.is_too_long(&bytes) || to == self.me {
            return;
        }
        let peer = self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&to).cloned();
        match peer {
            Some(peer) => self.push(&peer, lane, bytes),
            None => self.gossip(Some(to), topic, lane, bytes),
        }
    }

    /// As [`Self::send`], for parts of answers: they are small and somebody waits for each, so they do not wait behind
    /// bulk; but there may be any number of them, so no more than a share of the urgent lane is theirs. Where they take
    /// both lanes they may overtake each other.
    pub fn send_answer(&self, to: NodeId, topic: &'static str, bytes: Bytes) {
        let peer = self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&to).cloned();
        let Some(peer) = peer.filter(|_| bytes.len() <= MESSAGE_BYTES_AT_MOST) else {
            return self.send(to, topic, Lane::Urgent, bytes);
        };
        let frame = Frame { kind: Kind::Message, payload: bytes };
        if let Err(frame) = peer.urgent.push_within(self.answers_queue, frame) {
            self.push(&peer, Lane::Bulk, frame.payload);
        }
    }

    /// Sends to every connected node and, if `absent` says that there are nodes without a connection, also by gossip on
    /// this topic. Nodes that are connected pass over what they would get twice.
    pub fn broadcast(&self, topic: &'static str, lane: Lane, bytes: Bytes, absent: bool) {
        if self.is_too_long(&bytes) {
            return;
        }
        for peer in self.peers.read().unwrap_or_else(PoisonError::into_inner).values() {
            self.push(peer, lane, bytes.clone());
        }
        if absent {
            self.gossip(None, topic, lane, bytes);
        }
    }

    /// Ends the connection to a node, and neither dials nor accepts it for 30 s. The reason goes to the log.
    pub fn refuse(&self, node: NodeId, reason: String) {
        self.command(Command::Refuse { node, reason });
    }

    /// Dials this address now, and from now on whenever nobody is connected there.
    pub fn dial(&self, address: Multiaddr) {
        self.command(Command::Dial(address));
    }

    /// What was sent, received and dropped.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sends what waits, for at most a second, and ends the network.
    pub async fn shutdown(self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            // An error means that the task has ended already.
            let _ = wait.await;
        }
    }

    fn is_too_long(&self, bytes: &Bytes) -> bool {
        let too_long = bytes.len() > MESSAGE_BYTES_AT_MOST;
        if too_long {
            self.counters.drop(Cause::TooLong);
        }
        too_long
    }

    fn push(&self, peer: &PeerQueues, lane: Lane, bytes: Bytes) {
        if peer.lane(lane).push(Frame { kind: Kind::Message, payload: bytes }) == Err(Full) {
            self.counters.drop(Cause::QueueFull);
        }
    }

    fn gossip(&self, to: Option<NodeId>, topic: &'static str, lane: Lane, bytes: Bytes) {
        if bytes.len() > GOSSIP_BYTES_AT_MOST {
            self.counters.drop(Cause::TooLongForGossip);
        } else if self.commands.capacity() <= COMMANDS_BUT_GOSSIP {
            self.counters.drop(Cause::GossipRefused);
        } else {
            self.command(Command::Gossip { topic, envelope: Envelope { lane, to, bytes } });
        }
    }

    fn command(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            self.counters.drop(Cause::QueueFull);
        }
    }
}

impl PeerQueues {
    fn new(limits: &NetworkLimits) -> Self {
        let queue = |limit| Arc::new(LaneQueue::new(limit));
        PeerQueues { urgent: queue(limits.urgent_queue), bulk: queue(limits.bulk_queue) }
    }

    fn lane(&self, lane: Lane) -> &Arc<LaneQueue> {
        match lane {
            Lane::Urgent => &self.urgent,
            Lane::Bulk => &self.bulk,
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("me", &self.me).finish_non_exhaustive()
    }
}

/// Without the keys.
impl fmt::Debug for NetworkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkConfig")
            .field("listen", &self.listen)
            .field("announce", &self.announce)
            .field("peers", &self.peers)
            .field("mdns", &self.mdns)
            .field("allow", &self.allow)
            .field("topics", &self.topics)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
