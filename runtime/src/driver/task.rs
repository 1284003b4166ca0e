//! The one task that owns the node: it feeds it what happens, performs what comes out, and waits for nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use lockstep_inference::Inference;
use lockstep_inference::transient::Transient;
use lockstep_replication::io::{Notice, Stop};
use lockstep_replication::message::Message;
use lockstep_replication::{Input, Moment, Node, Outcome, Output, Span, Ticket, Wall, wire};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{oneshot, watch};

use super::disk::{Disk, Finished};
use crate::handle::{Published, Reach, Request};
use crate::network::{Lane, Network, NetworkEvent, NetworkEvents};
use crate::work::Signals;

/// So much is taken in before the state is published and the next wait begins: readers see progress under any load.
const INPUTS_A_ROUND: usize = 512;

/// A node that beat within this time but is not connected is reached by gossip.
const HEARD_WITHIN: Span = Span::seconds(5);

/// Everything the node's task works with.
pub(super) struct Task {
    pub(super) node: Node<Inference>,
    pub(super) disk: Disk,
    pub(super) network: Network,
    pub(super) events: NetworkEvents,
    pub(super) requests: Receiver<Request>,
    pub(super) finished: UnboundedReceiver<Finished>,
    pub(super) published: watch::Sender<Arc<Published>>,
    /// Who did not beat for longer counts as silent.
    pub(super) silent_after: Span,
    pub(super) signals: Signals,
    pub(super) clock: Clock,
    pub(super) waiting: BTreeMap<Ticket, oneshot::Sender<Outcome<Inference>>>,
    pub(super) tickets: u64,
    /// What the network told before the node was made.
    pub(super) early: Vec<NetworkEvent>,
}

/// Time as the node, its worker and its gateway are told it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    /// The present.
    pub(crate) fn now(self) -> lockstep_replication::Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        lockstep_replication::Now {
            at: Moment(self.0.elapsed().as_nanos() as u64 + 1),
            wall: Wall(wall.as_millis() as u64),
        }
    }

    /// When that will be.
    pub(crate) fn instant(self, at: Moment) -> tokio::time::Instant {
        (self.0 + std::time::Duration::from_nanos(at.0)).into()
    }
}

/// How the task ended.
pub(super) enum Ended {
    /// It was asked to leave, and has.
    Left,
    /// It cannot go on.
    Stopped(Stop),
}

/// Whatever came first.
enum Came {
    Wake,
    Network(NetworkEvent),
    Request(Request),
    Finished(Finished),
}

impl Task {
    /// Runs the node until it has left or must stop.
    pub(super) async fn run(mut self) -> Ended {
        let mut out = Vec::new();
        let wake = tokio::time::sleep_until(tokio::time::Instant::now());
        tokio::pin!(wake);
        for event in std::mem::take(&mut self.early) {
            self.take(Came::Network(event), &mut out);
        }
        let ended = loop {
            if let Some(next) = self.node.next_wake() {
                let at = self.clock.instant(next.at);
                if wake.deadline() != at {
                    wake.as_mut().reset(at);
                }
            }
            let came = tokio::select! {
                biased;
                Some(finished) = self.finished.recv() => Came::Finished(finished),
                () = &mut wake => Came::Wake,
                Some(event) = self.events.next() => Came::Network(event),
                Some(request) = self.requests.recv() => Came::Request(request),
            };
            if let Some(ended) = self.take(came, &mut out) {
                break ended;
            }
            let mut ended = None;
            for _ in 0..INPUTS_A_ROUND {
                // One of each kind in turn: a peer that floods this node must not keep its clients waiting.
                let mut more = [
                    self.finished.try_recv().ok().map(Came::Finished),
                    self.events.try_next().map(Came::Network),
                    self.requests.try_recv().ok().map(Came::Request),
                ]
                .into_iter()
                .flatten()
                .peekable();
                if more.peek().is_none() {
                    break;
                }
                ended = more.find_map(|came| self.take(came, &mut out));
                if ended.is_some() {
                    break;
                }
            }
            self.publish();
            if let Some(ended) = ended {
                break ended;
            }
        };
        self.publish();
        self.network.shutdown().await;
        self.disk.close().await;
        ended
    }

    fn publish(&mut self) {
        self.published.send_replace(Arc::new(published(&self.node, self.clock, self.silent_after)));
    }

    /// Steps the node with what came, and performs what follows. Returns how it ended, if it did.
    fn take(&mut self, came: Came, out: &mut Vec<Output<Inference>>) -> Option<Ended> {
        let input = match came {
            Came::Wake => Input::Wake,
            Came::Finished((id, result)) => Input::Worked { id, result },
            Came::Request(Request::Operator(operator)) => Input::Operator(operator),
            Came::Request(Request::Input(input)) => *input,
            Came::Request(Request::Command { id, command, reply }) => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.waiting.insert(ticket, reply);
                Input::Command { ticket, id, command: *command }
            }
            Came::Network(NetworkEvent::Connected(peer)) => Input::Connected(peer),
            Came::Network(NetworkEvent::Disconnected(peer)) => Input::Disconnected(peer),
            Came::Network(NetworkEvent::Message { from, bytes }) => match wire::decode(&bytes) {
                Ok(message) => Input::Message { from, message },
                Err(no_message) => {
                    tracing::warn!(%from, "a message was dropped: {no_message}");
                    return None;
                }
            },
            Came::Network(NetworkEvent::Listening(address)) => {
                tracing::info!(%address, "listening for other nodes");
                return None;
            }
            Came::Network(NetworkEvent::PeerRejected { addr, reason }) => {
                tracing::warn!("{addr} {reason}");
                return None;
            }
        };
        self.node.step(self.clock.now(), input, out);
        let mut ended = None;
        for output in out.drain(..) {
            match output {
                Output::Send { to, message: message @ Message::Transient(Transient::Token(_)) } => {
                    self.network.send_answer(to, wire::topic(&message), wire::encode(&message));
                }
                Output::Send { to, message } => {
                    self.network.send(to, wire::topic(&message), lane(&message), wire::encode(&message));
                }
                Output::Broadcast(message) => {
                    let absent = self.node.hears_absent(self.clock.now().at, HEARD_WITHIN);
                    self.network.broadcast(wire::topic(&message), lane(&message), wire::encode(&message), absent);
                }
                Output::Work { id, work } => self.disk.perform(id, work),
                Output::Reply { ticket, outcome } => {
                    if let Some(reply) = self.waiting.remove(&ticket) {
                        // The client may have gone: nobody is left to be told.
                        let _ = reply.send(outcome);
                    }
                }
                Output::Refuse { peer, reject } => self.network.refuse(peer, reject.to_string()),
                Output::Role(role) => tracing::info!(?role, "this node's part changed"),
                Output::Notice(notice) => tell(&notice),
                Output::Transient { from, transient } => self.signals.hand_over(from, transient),
                // Consumers reconcile from the published state.
                Output::Applied(_) | Output::Replaced { .. } => {}
                Output::Left => ended = Some(Ended::Left),
                Output::Stop(stop) => ended = Some(Ended::Stopped(stop)),
            }
        }
        ended
    }
}

/// What the process may read of a node, as it stands now.
pub(super) fn published(node: &Node<Inference>, clock: Clock, silent_after: Span) -> Published {
    let view = node.view(clock.now().at);
    let reach = Reach::of(&view, silent_after);
    Published { replica: node.replica().clone(), view, reach, measured: node.observed().telemetry.clone() }
}

/// What must not wait behind entries and chunks.
fn lane(message: &Message<Inference>) -> Lane {
    match message {
        Message::Entries(_)
        | Message::Chunk { .. }
        | Message::Propose(_)
        | Message::Refused { .. }
        | Message::Transient(Transient::Input(_) | Transient::Trace(_)) => Lane::Bulk,
        Message::Hello { .. }
        | Message::Beat(_)
        | Message::Lead(_)
        | Message::Reach { .. }
        | Message::Probe { .. }
        | Message::Echo { .. }
        | Message::Stored { .. }
        | Message::Done(_)
        | Message::Nack(_)
        | Message::Replay { .. }
        | Message::Credit { .. }
        | Message::LogBegins { .. }
        | Message::RequestSnapshot { .. }
        | Message::Offer { .. }
        | Message::RequestChunk { .. }
        | Message::HandOver { .. }
        | Message::Transient(
            Transient::Token(_)
            | Transient::TokensMissing { .. }
            | Transient::InputMissing { .. }
            | Transient::Acknowledged { .. },
        )
        | Message::Reject { .. } => Lane::Urgent,
    }
}

/// Says to the operator what happened and, where something can be done, what.
fn tell(notice: &Notice) {
    match notice {
        Notice::SetAside(name) => tracing::warn!(
            "another branch of the log won: what this node alone held is kept in {name}; \
             look with `lockstep aside show {name}`, submit it again with `lockstep aside submit {name}`"
        ),
        Notice::Damaged => tracing::warn!(
            "this node lost entries that it had promised to hold: it neither leads nor counts until it has them again"
        ),
        Notice::Whole => tracing::info!("this node holds again all that it lost"),
        Notice::NeedsUpgrade(reason) => tracing::error!("this node stops applying entries: {reason}"),
        Notice::SameIdentity(node) => {
            tracing::error!("two machines run with the identity {node}: give one of them a new data directory")
        }
        Notice::OtherFounding { peer, we_yield: true } => {
            tracing::warn!("{peer} belongs to another founding of this cluster, and this node yields to it");
        }
        Notice::OtherFounding { peer, we_yield: false } => {
            tracing::warn!("{peer} belongs to another founding of this cluster, which yields to this one");
        }
        Notice::Snapshot(text) => tracing::warn!("{text}"),
        Notice::WaitingForPeers => tracing::info!(
            "waiting for other nodes: none that may lead is heard (`lockstep lead-anyway` goes on without them)"
        ),
        Notice::Conflict(index) => tracing::error!("two contents for entry {index} were met; the first is kept"),
    }
}
