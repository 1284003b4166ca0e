//! A node without a cluster: it decides every command itself, at once, or as a test tells it to.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use lockstep_inference::Inference;
use lockstep_inference::event::Event;
use lockstep_inference::placement::Measured;
use lockstep_inference::refusal::Refusal;
use lockstep_inference::telemetry::Telemetry;
use lockstep_replication::entry::{Body, Decided, Entry, Founding, Opened, Record};
use lockstep_replication::lineage::Position;
use lockstep_replication::message::{DoneMark, Refused};
use lockstep_replication::replica::Founded;
use lockstep_replication::view::Counters;
use lockstep_replication::{
    App as _, Boot, CommandId, Index, Liveness, NodeId, Observed, Operator, Outcome, Replica, Role, Session, View,
    Wall, Wish,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::super::ReadLog;
use crate::handle::{NodeHandle, Published, Reach, Request};

pub(super) const ME: NodeId = NodeId::example(1);
pub(super) const OTHER: NodeId = NodeId::example(2);

/// A log in memory that can forget its beginning.
#[derive(Clone, Default)]
pub(super) struct FakeLog(Arc<Mutex<(u64, Vec<Record>)>>);

impl FakeLog {
    pub(super) fn forget_below(&self, index: u64) {
        self.0.lock().unwrap().0 = index;
    }

    fn push(&self, record: Record) {
        self.0.lock().unwrap().1.push(record);
    }

    fn cut(&self, next: usize) {
        self.0.lock().unwrap().1.truncate(next);
    }
}

impl ReadLog for FakeLog {
    fn first(&self) -> Index {
        Index(self.0.lock().unwrap().0)
    }

    fn next(&self) -> Index {
        Index(self.0.lock().unwrap().1.len() as u64)
    }

    fn read(&self, from: Index, until: Index, _: usize) -> Result<Vec<Record>, Box<dyn Error + Send + Sync>> {
        let log = self.0.lock().unwrap();
        let held = if from.0 < log.0 { &[] } else { &log.1[from.0 as usize..until.0 as usize] };
        // As little as is allowed, so that readers have to ask again.
        Ok(held.iter().take(3).cloned().collect())
    }
}

/// What tests tell the node.
#[derive(Debug)]
pub(super) enum Order {
    /// Keep commands waiting, or go on with them.
    Hold(bool),
    /// Answer the next commands so.
    Answer(Outcome<Inference>),
    /// Hear a node, which has so much memory free.
    Hear(NodeId, u64),
    /// Change the facts.
    View(fn(&mut View)),
    /// Throw the log away from here on, and open another session.
    Rewind(usize),
    /// Say what the operator asked for.
    Asked(oneshot::Sender<Vec<Operator>>),
    /// End.
    Stop,
}

pub(super) struct FakeNode {
    handle: NodeHandle,
    orders: mpsc::UnboundedSender<Order>,
}

impl FakeNode {
    pub(super) fn start(log: FakeLog) -> FakeNode {
        let (requests, inbox) = mpsc::channel(1024);
        let (orders, orders_inbox) = mpsc::unbounded_channel();
        let mut task = Task::new(log);
        let (publish, published) = watch::channel(task.publish());
        tokio::spawn(async move { task.run(inbox, orders_inbox, publish).await });
        FakeNode { handle: NodeHandle::new(requests, published), orders }
    }

    pub(super) fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Tells the node something; it has done so once a later command is answered or change is seen.
    pub(super) fn tell(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    /// Changes the facts, and waits until they are published.
    pub(super) async fn view(&self, change: fn(&mut View)) {
        let mut changes = self.handle.changes();
        changes.borrow_and_update();
        self.tell(Order::View(change));
        changes.changed().await.unwrap();
    }

    pub(super) async fn operator_asked(&self) -> Vec<Operator> {
        let (sender, asked) = oneshot::channel();
        self.tell(Order::Asked(sender));
        asked.await.unwrap()
    }
}

type Command = (Option<CommandId>, lockstep_inference::command::Command, oneshot::Sender<Outcome<Inference>>);

struct Task {
    log: FakeLog,
    replica: Replica<Inference>,
    view: View,
    measured: Measured,
    holds: bool,
    held: Vec<Command>,
    answers: Vec<Outcome<Inference>>,
    operator: Vec<Operator>,
}

impl Task {
    fn new(log: FakeLog) -> Task {
        let mut task = Task {
            log,
            replica: Replica::default(),
            view: view(),
            measured: BTreeMap::new(),
            holds: false,
            held: Vec::new(),
            answers: Vec::new(),
            operator: Vec::new(),
        };
        task.open(1, Some(Founding { id: 7, widest: 0, known: founders() }));
        task.append(Body::Backed);
        task
    }

    fn open(&mut self, clock: u64, founding: Option<Founding>) {
        let session = Session { clock, leader: ME, boot: Boot::default() };
        self.view.role = Role::Leading(session);
        self.append(Body::Opened(Opened { session, founding }));
    }

    fn append(&mut self, body: Body<Inference>) -> Index {
        let index = self.replica.next();
        let entry = Entry { index, stamp: Wall(1_000 + index.0), body };
        let record = entry.seal(1);
        self.replica.apply(&record, &entry).unwrap();
        self.log.push(record);
        index
    }

    fn publish(&mut self) -> Arc<Published> {
        let next = self.replica.next();
        self.view.lineage = self.replica.lineage().clone();
        (self.view.next, self.view.synced, self.view.head_next) = (next, next, next);
        Arc::new(Published {
            replica: self.replica.clone(),
            view: self.view.clone(),
            reach: Reach { known: 2, reached: 1 },
            measured: self.measured.clone(),
        })
    }

    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Request>,
        mut orders: mpsc::UnboundedReceiver<Order>,
        publish: watch::Sender<Arc<Published>>,
    ) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Stop) | None => return,
                    Some(order) => self.obey(order),
                },
                taken = inbox.recv_many(&mut batch, 256) => if taken == 0 { return },
            }
            for request in batch.drain(..) {
                match request {
                    Request::Command { id, command, reply } => self.take((id, *command, reply)),
                    Request::Operator(operator) => self.operator.push(operator),
                    Request::Input(_) => {}
                }
            }
            publish.send_replace(self.publish());
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Hold(holds) => {
                self.holds = holds;
                if !holds {
                    std::mem::take(&mut self.held).into_iter().for_each(|command| self.take(command));
                }
            }
            Order::Answer(outcome) => self.answers.push(outcome),
            Order::Hear(node, memory_free_bytes) => {
                let (memory_total_bytes, runners) = (1 << 40, ["echo".to_owned()].into());
                let telemetry = Telemetry { memory_total_bytes, memory_free_bytes, runners, ..Telemetry::default() };
                self.measured.insert(node, telemetry);
                let events = self.decide(Wish::Liveness(node, Liveness::Heard)).unwrap();
                self.append(Body::Decided(Decided { proposal: None, command: None, events }));
            }
            Order::View(change) => change(&mut self.view),
            Order::Rewind(next) => {
                let kept = self.log.0.lock().unwrap().1[..next].to_vec();
                self.log.cut(next);
                self.replica = Replica::default();
                kept.iter().for_each(|record| drop(self.replica.take(record).unwrap()));
                self.open(2, None);
            }
            Order::Asked(answer) => answer.send(self.operator.clone()).unwrap(),
            Order::Stop => unreachable!("handled above"),
        }
    }

    fn take(&mut self, command: Command) {
        if self.holds {
            return self.held.push(command);
        }
        let (id, command, reply) = command;
        // Whoever asked may have hung up.
        let _ = reply.send(self.outcome(id, command));
    }

    fn decide(&self, wish: Wish<Inference>) -> Result<Vec<Event>, Refusal> {
        let observed = Observed { telemetry: self.measured.clone(), schema: 1, wall: Wall(0) };
        Inference::decide(self.replica.state(), &observed, wish)
    }

    fn outcome(&mut self, id: Option<CommandId>, command: lockstep_inference::command::Command) -> Outcome<Inference> {
        if !self.answers.is_empty() {
            return self.answers.remove(0);
        }
        if let Some(before) = id.and_then(|id| self.replica.command(id)) {
            return Outcome::Refused(Refused::DoneBefore(before));
        }
        match self.decide(Wish::Command(command)) {
            Err(refusal) => Outcome::Refused(Refused::Application(refusal)),
            Ok(events) => {
                let index = self.append(Body::Decided(Decided { proposal: None, command: id, events }));
                let session = self.replica.lineage().session().unwrap();
                self.view.done = Some(DoneMark { session, index, held: 2, of: 3 });
                Outcome::Done { index, held: 2, of: 3 }
            }
        }
    }
}

fn founders() -> Vec<(NodeId, Option<u64>)> {
    vec![(ME, None), (OTHER, None)]
}

/// Two nodes that nobody heard yet.
pub(crate) fn view() -> View {
    View {
        me: ME,
        role: Role::Seeking,
        leader: Some(ME),
        confirmed: None,
        backed: true,
        lineage: Default::default(),
        position: Position::default(),
        next: Index(0),
        synced: Index(0),
        log_first: Index(0),
        head_next: Index(0),
        done: None,
        ready: true,
        not_ready: None,
        catch_up: None,
        catch_ups: Vec::new(),
        founding: Some(Founded { widest: 2, anew: 0, id: 7 }),
        nodes: BTreeMap::from([(ME, Default::default()), (OTHER, Default::default())]),
        damaged: false,
        outbox: 0,
        counters: Counters::default(),
    }
}
