//! The one task that owns the network: it feeds what happens to `dialer` and `links`, and does what they decide.
//!
//! Here is its loop, gossip and its end; `dialling`, `connections` and `introductions` hold the rest of what it does.

mod connections;
mod dialling;
mod introductions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::io::WriteHalf;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance};
use libp2p::metrics::{Metrics, Recorder as _};
use libp2p::swarm::{ConnectionId, Stream, Swarm, SwarmEvent};
use libp2p::{Multiaddr, mdns, ping};
use lockstep_replication::NodeId;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::addresses;
use super::counters::{Cause, Counters};
use super::dialer::{Dialer, Target};
use super::events::{Inbox, NetworkEvent};
use super::gossip::Envelope;
use super::identity::{node_of_peer, peer_of_node};

use super::links::Links;
use super::pump::{News, Notice};
use super::rejections::Rejections;
use super::swarm::{Behaviour, BehaviourEvent};
use super::{Command, Lane, NetworkConfig, NetworkLimits, Peers};

/// How long a refused node is left alone, and one that sent garbage: long enough that neither becomes a busy loop.
const REFUSE_FOR: Duration = Duration::from_secs(30);
const AVOID_FOR: Duration = Duration::from_secs(2);
/// A connection whose lanes are not open by then is closed.
const LANES_WITHIN: Duration = Duration::from_secs(10);
/// How exactly the times of dialling and closing are kept.
const TICK: Duration = Duration::from_millis(20);
/// How long what waits may take to leave at the end.
const FINISH_WITHIN: Duration = Duration::from_secs(1);
/// Events that may wait in here for a node that does not take them; then the network stands still.
const EVENTS_AT_MOST: usize = 1024;
/// Notices of pumps that may wait; then the pumps wait.
const NOTICES: usize = 256;

/// Where the task's results go.
pub(super) struct Outlets {
    pub(super) control: mpsc::Sender<NetworkEvent>,
    pub(super) inbox: Inbox,
    pub(super) counters: Counters,
    pub(super) peers: Peers,
}

/// A connection, from its handshake to its end.
struct Connection {
    node: NodeId,
    /// The address that was dialled, if this node dialled.
    dialled: Option<Multiaddr>,
    over_loopback: bool,
    /// What it was dialled for, until its lanes are open.
    target: Option<Target>,
    established_at: Instant,
    lanes_open: bool,
    /// The ways out, until somebody writes to them.
    sinks: Option<Sinks>,
    /// Ends its writers.
    stop: CancellationToken,
}

struct Sinks {
    urgent: WriteHalf<Stream>,
    bulk: WriteHalf<Stream>,
}

/// The network's task.
pub(super) struct Task {
    me: NodeId,
    swarm: Swarm<Behaviour>,
    outlets: Outlets,
    limits: NetworkLimits,
    /// The only nodes whose gossip is taken, if there is a list.
    allow: Option<BTreeSet<NodeId>>,
    dialer: Dialer,
    links: Links,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Attempts that did not yet come to a connection or an error.
    attempts: BTreeMap<ConnectionId, Target>,
    /// What to tell of where this node is; empty: where it listens.
    announce: Vec<Multiaddr>,
    /// Where connected nodes say that they listen.
    announced: BTreeMap<NodeId, Vec<Multiaddr>>,
    rejections: Rejections,
    /// Not yet taken by the node's channel.
    events: VecDeque<NetworkEvent>,
    notices: mpsc::Sender<Notice>,
    pumps_notices: mpsc::Receiver<Notice>,
    writers: TaskTracker,
    metrics: Metrics,
}

impl Task {
    pub(super) fn new(
        me: NodeId,
        config: NetworkConfig,
        swarm: Swarm<Behaviour>,
        outlets: Outlets,
        registry: &mut Registry,
    ) -> Self {
        let (notices, pumps_notices) = mpsc::channel(NOTICES);
        Task {
            me,
            swarm,
            outlets,
            limits: config.limits,
            allow: config.allow,
            dialer: Dialer::new(me, config.peers, Instant::now()),
            links: Links::new(me),
            connections: BTreeMap::new(),
            attempts: BTreeMap::new(),
            announce: config.announce,
            announced: BTreeMap::new(),
            rejections: Rejections::default(),
            events: VecDeque::new(),
            notices,
            pumps_notices,
            writers: TaskTracker::new(),
            metrics: Metrics::new(registry),
        }
    }

    /// Runs until it is told to end, all handles are gone, or nobody takes its events any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let control = self.outlets.control.clone();
        let mut asked_to_end = None;
        loop {
            tokio::select! {
                place = control.reserve(), if !self.events.is_empty() => match (place, self.events.pop_front()) {
                    (Ok(place), Some(event)) => place.send(event),
                    _ => break,
                },
                command = commands.recv() => match command {
                    Some(Command::Shutdown(done)) => {
                        asked_to_end = Some(done);
                        break;
                    }
                    Some(command) => self.obey(command),
                    None => break,
                },
                Some(notice) = self.pumps_notices.recv() => self.hear(notice),
                event = self.swarm.select_next_some(), if self.events.len() < EVENTS_AT_MOST => self.react(event),
                _ = tick.tick() => self.keep_house(Instant::now()),
                () = control.closed() => break,
            }
        }
        self.finish().await;
        // Its ports are free before anybody hears that it has ended.
        drop(self);
        if let Some(done) = asked_to_end {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Gossip { topic, envelope } => self.publish(topic, &envelope),
            Command::Refuse { node, reason } => {
                tracing::info!(%node, reason, "refusing a node");
                self.refuse(node, REFUSE_FOR);
            }
            Command::Dial(address) if addresses::is_supported(&address) => {
                self.dialer.give(address, Instant::now());
                self.dial();
            }
            Command::Dial(address) => self.reject(address, false, "it is no address that this node can dial".into()),
            Command::Shutdown(_) => unreachable!("the loop ends with it"),
        }
    }

    fn hear(&mut self, Notice { node, connection, news }: Notice) {
        match news {
            News::Addresses(introductions) => self.learn(node, connection, introductions),
            News::Broken { cause, reason } => {
                if !self.connections.contains_key(&connection) {
                    return;
                }
                self.outlets.counters.drop(cause);
                match cause {
                    Cause::Oversized | Cause::Garbage | Cause::HalfFrame => {
                        tracing::warn!(%node, reason, "closing a connection");
                        self.refuse(node, AVOID_FOR);
                    }
                    Cause::QueueFull
                    | Cause::TooLong
                    | Cause::TooLongForGossip
                    | Cause::GossipRefused
                    | Cause::InboxFull
                    | Cause::ConnectionEnded
                    | Cause::StreamBroke => {
                        tracing::debug!(%node, reason, "closing a connection");
                        self.swarm.close_connection(connection);
                    }
                }
            }
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the enum is libp2p's and non-exhaustive")]
    fn react(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Lanes(event)) => self.lanes(event),
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => {
                self.metrics.record(&event);
                self.gossip(event);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => {
                self.metrics.record(&event);
                if let Err(ping::Failure::Timeout) = event.result {
                    self.swarm.close_connection(event.connection);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => self.discovered(found),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => self.closed(connection_id),
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => self.dial_failed(connection_id, error),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.incoming_failed(send_back_addr, error)
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.events.push_back(NetworkEvent::Listening(address));
                self.introduce_myself();
            }
            SwarmEvent::ExpiredListenAddr { .. } => self.introduce_myself(),
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                tracing::error!(?addresses, %error, "no longer listening");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a connection could not be accepted"),
            _ => {}
        }
    }

    fn keep_house(&mut self, now: Instant) {
        for node in self.dialer.pardoned(now) {
            if let Some(peer) = peer_of_node(&node) {
                self.swarm.behaviour_mut().refused.unblock_peer(peer);
            }
        }
        for connection in self.links.superfluous(now) {
            self.swarm.close_connection(connection);
        }
        for (id, connection) in &self.connections {
            if !connection.lanes_open && now.duration_since(connection.established_at) > LANES_WITHIN {
                self.swarm.close_connection(*id);
            }
        }
        self.dial();
    }

    fn publish(&mut self, topic: &'static str, envelope: &Envelope) {
        let bytes = envelope.bytes.len();
        match self.swarm.behaviour_mut().gossip.publish(IdentTopic::new(topic), envelope.encode()) {
            Ok(_) => self.outlets.counters.sent_by_gossip(bytes),
            Err(error) => {
                tracing::debug!(%error, topic, "gossip was not taken");
                self.outlets.counters.drop(Cause::GossipRefused);
            }
        }
    }

    fn gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else { return };
        let acceptance = match message.source.as_ref().and_then(node_of_peer) {
            // Whoever passed it on may have another list.
            Some(author) if self.allow.as_ref().is_some_and(|allow| !allow.contains(&author)) => {
                MessageAcceptance::Ignore
            }
            Some(author) => self.gossip_message(author, message.data),
            None => MessageAcceptance::Reject,
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        // False if it is no longer remembered: then it is passed on to nobody, and nothing else follows.
        let _ = gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
    }

    /// Delivers a gossip message if it is for this node, and says whether to pass it on.
    fn gossip_message(&mut self, author: NodeId, data: Vec<u8>) -> MessageAcceptance {
        let Some(Envelope { lane, to, bytes }) = Envelope::decode(data) else {
            self.outlets.counters.drop(Cause::Garbage);
            return MessageAcceptance::Reject;
        };
        let for_me = match to {
            Some(to) => to == self.me,
            // Whoever is connected has sent it directly as well.
            None => !self.links.contains(&author),
        };
        if for_me {
            self.deliver(author, lane, bytes);
        }
        MessageAcceptance::Accept
    }

    fn deliver(&mut self, author: NodeId, lane: Lane, bytes: Bytes) {
        self.outlets.counters.received_by_gossip(bytes.len());
        // The task must not wait for the node, and gossip may be lost.
        if self.outlets.inbox.try_deliver(lane, author, bytes).is_err() {
            self.outlets.counters.drop(Cause::InboxFull);
        }
    }

    /// Lets what waits leave, then closes all connections in order.
    async fn finish(&mut self) {
        for queues in self.outlets.peers.read().unwrap_or_else(PoisonError::into_inner).values() {
            queues.urgent.finish();
            queues.bulk.finish();
        }
        self.writers.close();
        let writers = self.writers.clone();
        let swarm = &mut self.swarm;
        let finish = async {
            loop {
                tokio::select! {
                    () = writers.wait() => break,
                    _ = swarm.select_next_some() => {}
                }
            }
            for peer in swarm.connected_peers().copied().collect::<Vec<_>>() {
                // An error means that it is no longer connected.
                let _ = swarm.disconnect_peer_id(peer);
            }
            while swarm.connected_peers().next().is_some() {
                swarm.select_next_some().await;
            }
        };
        // Who does not take it within the time will have to do without.
        let _ = tokio::time::timeout(FINISH_WITHIN, finish).await;
        self.outlets.peers.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
