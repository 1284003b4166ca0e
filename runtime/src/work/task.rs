//! The one task of the work: it waits for whatever comes first, steps the machine that it concerns, performs what comes
//! out, and waits for nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_inference::gateway::{Failure, Gateway, GatewayInput, GatewayOutput, StreamId, StreamPart};
use lockstep_inference::observation::Observation;
use lockstep_inference::state::RunnerStatus;
use lockstep_inference::transient::Transient;
use lockstep_inference::worker::{Worker, WorkerInput, WorkerOutput};
use lockstep_replication::io::Unknown;
use lockstep_replication::message::Refused;
use lockstep_replication::{CommandId, Index, NodeId, Outcome, Span};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::cards::Cards;
use super::clients::{Ask, Views};
use crate::driver::Clock;
use crate::handle::{NodeHandle, Published};
use crate::runners::{Event, Runners};

/// How long runners have to end when the node stops: whoever stopped it waits, and nobody waits for their answers.
const STOP_WITHIN: Span = Span::seconds(1);

/// How often it shows what it does.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// What the task owns.
pub(super) struct Task {
    pub(super) me: NodeId,
    pub(super) clock: Clock,
    pub(super) worker: Worker,
    pub(super) gateway: Gateway,
    pub(super) runners: Runners,
    pub(super) cards: Cards,
    pub(super) node: NodeHandle,
    /// The newest state that the machines were told of.
    pub(super) seen: Arc<Published>,
    pub(super) streams: BTreeMap<StreamId, UnboundedSender<StreamPart>>,
    /// What becomes of the commands that make streams' tasks.
    pub(super) creating: FuturesUnordered<BoxFuture<'static, (StreamId, Outcome<Inference>)>>,
    /// Signals from this node to itself.
    pub(super) here: VecDeque<Transient>,
    pub(super) views: watch::Sender<Option<Views>>,
    pub(super) stopping: bool,
}

/// What it hears.
pub(super) struct Inbox {
    pub(super) signals: Receiver<(NodeId, Transient)>,
    pub(super) asks: UnboundedReceiver<Ask>,
    pub(super) said: Receiver<Event>,
}

impl Task {
    /// Works until `shutdown`, then tells who waits, and ends all runners.
    pub(super) async fn run(mut self, mut inbox: Inbox, farewell: oneshot::Sender<()>, shutdown: CancellationToken) {
        let mut changes = self.node.changes();
        // A node that is catching up knows of work that was done long ago.
        let caught_up = async { changes.wait_for(|published| published.view.ready).await.is_ok() };
        if shutdown.run_until_cancelled(caught_up).await == Some(true) {
            self.seen = self.node.now();
            self.worker(WorkerInput::Changed);
            self.gateway(GatewayInput::Changed);
            self.work(&mut inbox, &shutdown).await;
        }
        self.stopping = true;
        self.worker(WorkerInput::Stop);
        // The node may have left before, for another reason.
        let _ = farewell.send(());
        // Clients hear from the API that this node stops.
        self.streams.clear();
        drop(inbox);
        self.runners.close().await;
        self.cards.close().await;
    }

    async fn work(&mut self, inbox: &mut Inbox, shutdown: &CancellationToken) {
        let mut changes = self.node.changes();
        let mut show = tokio::time::interval(SHOW_EVERY);
        let wake = tokio::time::sleep_until(tokio::time::Instant::now());
        tokio::pin!(wake);
        loop {
            let next = [self.worker.next_wake(), self.gateway.next_wake()].into_iter().flatten().min();
            if let Some(next) = next.map(|next| self.clock.instant(next))
                && wake.deadline() != next
            {
                wake.as_mut().reset(next);
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let published = changes.borrow_and_update().clone();
                    self.changed(published);
                }
                Some((from, transient)) = inbox.signals.recv() => self.signal(from, transient),
                Some((runner, life, said)) = inbox.said.recv() => self.worker(WorkerInput::Runner { runner, life, said }),
                Some(ask) = inbox.asks.recv() => self.asked(ask),
                Some((stream, outcome)) = self.creating.next() => {
                    self.gateway(GatewayInput::Submitted { stream, result: result(outcome) });
                }
                _ = show.tick() => {
                    let views = Views { worker: self.worker.view(), gateway: self.gateway.view() };
                    self.views.send_replace(Some(views));
                }
                () = &mut wake, if next.is_some() => {
                    self.worker(WorkerInput::Wake);
                    self.gateway(GatewayInput::Wake);
                }
            }
            while let Some(transient) = self.here.pop_front() {
                self.signal(self.me, transient);
            }
        }
    }

    fn changed(&mut self, published: Arc<Published>) {
        let stands = |published: &Published| (published.replica.next(), published.replica.hash());
        // The node publishes after each round, whether or not entries were applied.
        let same = stands(&published) == stands(&self.seen);
        self.seen = published;
        if !same {
            self.worker(WorkerInput::Changed);
            self.gateway(GatewayInput::Changed);
        }
    }

    fn signal(&mut self, from: NodeId, transient: Transient) {
        match transient {
            Transient::Token(_)
            | Transient::InputMissing { .. }
            | Transient::Trace(_)
            | Transient::Acknowledged { .. } => self.gateway(GatewayInput::Transient { from, transient }),
            Transient::TokensMissing { .. } | Transient::Input(_) => {
                self.worker(WorkerInput::Transient { from, transient });
            }
        }
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Open { stream, model, kind, input, task, parts, room } => {
                self.streams.insert(stream, parts);
                self.gateway(GatewayInput::Open { stream, model, kind, input, task });
                drop(room);
            }
            Ask::Taken { stream, chunks } => self.gateway(GatewayInput::Taken { stream, chunks }),
            Ask::Closed { stream } => {
                self.streams.remove(&stream);
                self.gateway(GatewayInput::Closed { stream });
            }
            Ask::Traces { reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(self.gateway.traces().clone());
            }
        }
    }

    fn worker(&mut self, input: WorkerInput) {
        let mut out = Vec::new();
        let replica = &self.seen.replica;
        self.worker.step(self.clock.now(), replica.state(), replica.next(), input, &mut out);
        for output in out {
            match output {
                // What does not find a place now is asked for again, until the state shows it.
                WorkerOutput::Observe(observation) => {
                    if let Observation::Runner { runner, status: RunnerStatus::Failed { reason } } = &observation {
                        tracing::warn!(%runner, "a runner failed: {reason}");
                    }
                    let _ = self.node.observe(observation);
                }
                WorkerOutput::Submit(command) => drop(self.node.try_command(None, command)),
                WorkerOutput::Send { to, transient } => self.send(to, transient),
                WorkerOutput::Start { runner, life, card } => self.runners.start(runner, life, &card),
                WorkerOutput::Tell { runner, life, message } => self.runners.tell(runner, life, &message),
                WorkerOutput::End { runner, life, grace } => {
                    let grace = if self.stopping { grace.min(STOP_WITHIN) } else { grace };
                    self.runners.end(runner, life, grace);
                }
                WorkerOutput::Mirror { cards, whole } => self.cards.mirror(cards, whole),
                WorkerOutput::Busy(span) => drop(self.node.busy(span)),
            }
        }
    }

    fn gateway(&mut self, input: GatewayInput) {
        let mut out = Vec::new();
        let replica = &self.seen.replica;
        self.gateway.step(self.clock.now(), replica.state(), replica.next(), input, &mut out);
        for output in out {
            match output {
                GatewayOutput::Create { stream, command } => self.create(stream, command),
                GatewayOutput::Submit(command) => drop(self.node.try_command(None, command)),
                GatewayOutput::Send { to, transient } => self.send(to, transient),
                GatewayOutput::Deliver { stream, part } => self.deliver(stream, part),
            }
        }
    }

    fn create(&mut self, stream: StreamId, command: Command) {
        // Named after its task, it is done at most once, also if it comes again when the task has ended.
        let task = if let Command::CreateTask { task, .. } = &command { *task } else { None };
        let outcome = self.node.try_command(task.map(|task| CommandId(task.0)), command);
        self.creating.push(Box::pin(async move {
            let outcome = match outcome {
                Ok(outcome) => outcome.await.unwrap_or(Outcome::Unknown(Unknown::Stopped)),
                Err(reason) => Outcome::NotTaken(reason),
            };
            (stream, outcome)
        }));
    }

    fn send(&mut self, to: NodeId, transient: Transient) {
        if to == self.me {
            self.here.push_back(transient);
        } else {
            // It may be lost: then it is asked for again.
            let _ = self.node.transient(to, transient);
        }
    }

    fn deliver(&mut self, stream: StreamId, part: StreamPart) {
        let last = match &part {
            StreamPart::Text(_) => false,
            StreamPart::End { .. } | StreamPart::Failed(_) => true,
        };
        if let Some(parts) = self.streams.get(&stream) {
            // The client may have gone; that it has comes on its own way.
            let _ = parts.send(part);
        }
        if last {
            self.streams.remove(&stream);
        }
    }
}

/// What became of a stream's task, as the gateway hears it.
fn result(outcome: Outcome<Inference>) -> Result<Index, Failure> {
    match outcome {
        Outcome::Done { index, .. } | Outcome::Refused(Refused::Nothing(index) | Refused::DoneBefore(index)) => {
            Ok(index)
        }
        Outcome::Refused(Refused::Application(refusal)) => Err(Failure::Refused(refusal)),
        Outcome::Refused(Refused::TooLong { bytes, limit }) => {
            Err(Failure::NotOrdered(format!("its entry would have {bytes} bytes, the limit is {limit}")))
        }
        Outcome::Refused(Refused::Before) => Err(Failure::NotOrdered("an earlier leader refused it".into())),
        Outcome::NotTaken(reason) => Err(Failure::NotTaken(reason)),
        Outcome::Unknown(reason) => Err(Failure::Unknown(reason)),
    }
}
