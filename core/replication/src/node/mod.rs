//! The node: the one entry and exit of the core. It joins the parts; each file beside this one is what it does in one part.

mod catching_up;
mod disk;
mod electing;
mod following;
mod founding;
mod healing;
mod leading;
mod leaving;
mod proposing;
mod serving;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use crate::app::{App, Observed};
use crate::config::Config;
use crate::entry::{Body, Entry, KnownChange, Record};
use crate::id::{Boot, NodeId, Session};
use crate::io::{Input, Kept, Operator, Output, Role, Stop, Wake, Why};
use crate::message::{Message, Purpose, Reject, Standing};
use crate::order::buffer::OrderedBuffer;
use crate::order::repair::GapRepair;
use crate::outbox::{Outbox, Replies};
use crate::peers::Peers;
use crate::probes::Probes;
use crate::replica::Replica;
use crate::restored::Restored;
use crate::rng::{Rng, Seed};
use crate::tail::Tail;
use crate::time::{Moment, Now, Span};
use crate::view::{Counters, FinishedCatchUp};

use catching_up::CatchingUp;
use disk::Disk;
use electing::Seeking;
use following::Following;
use healing::Healing;
use leading::Leading;
use leaving::Leaving;
use serving::Serving;

/// One node's replica of the log and state.
#[derive(Clone, Debug)]
pub struct Node<A: App> {
    me: NodeId,
    config: Config,
    boot: Boot,
    rng: Rng,
    /// What is to be kept; decisions go by it.
    kept: Kept,
    /// What is kept on disk; others are told of this.
    on_disk: Kept,
    /// The highest clock heard of, in any authenticated member's standing.
    clock: u64,
    replica: Replica<A>,
    tail: Tail,
    disk: Disk,
    peers: Peers,
    part: Part<A>,
    buffer: OrderedBuffer,
    gap: GapRepair,
    catching_up: CatchingUp,
    caught_up: Vec<FinishedCatchUp>,
    serving: Serving,
    outbox: Outbox<A>,
    probes: Probes,
    telemetry: A::Telemetry,
    /// What the nodes say of themselves: a leader decides by it, and any node can tell what a leader would decide.
    observed: Observed<A>,
    busy_until: Moment,
    beat_due: Moment,
    healing: Healing,
    /// Why entries cannot be applied any more, if so.
    stuck: Option<String>,
    leaving: Option<Leaving>,
    /// Who said that this start must not be.
    rejected_by: BTreeSet<NodeId>,
    stopped: bool,
    counters: Counters,
}

/// What a node is, with what belongs to it.
#[derive(Clone, Debug)]
enum Part<A: App> {
    Seeking(Seeking),
    Following(Box<Following>),
    Leading(Box<Leading<A>>),
}

/// One step: its time, and where its effects go.
struct Turn<'a, A: App> {
    now: Now,
    out: &'a mut Vec<Output<A>>,
}

impl<A: App> Turn<'_, A> {
    fn at(&self) -> Moment {
        self.now.at
    }

    fn put(&mut self, output: Output<A>) {
        self.out.push(output);
    }

    fn send(&mut self, to: NodeId, message: Message<A>) {
        self.put(Output::Send { to, message });
    }

    fn broadcast(&mut self, message: Message<A>) {
        self.put(Output::Broadcast(message));
    }
}

impl<A: App> Node<A> {
    /// A node as it starts from what its disk held. It asks for its first wake-up at once.
    pub fn new(me: NodeId, config: Config, seed: Seed, mut restored: Restored<A>, now: Now) -> Self {
        if mutant!(ClockForgotten) {
            restored.kept = Kept { clock: 0, confirmed: None, ..restored.kept };
        }
        let mut node = Node {
            me,
            boot: restored.boot,
            rng: seed.fork("node").rng(),
            kept: restored.kept,
            on_disk: restored.kept,
            clock: restored.kept.clock,
            buffer: OrderedBuffer::new(restored.replica.next()),
            tail: Tail::default(),
            disk: Disk::default(),
            replica: Replica::default(),
            peers: Peers::default(),
            part: Part::Seeking(Seeking::begin(now.at)),
            gap: GapRepair::default(),
            catching_up: CatchingUp::default(),
            caught_up: Vec::new(),
            serving: Serving::default(),
            outbox: Outbox::new(restored.boot.nonce),
            probes: Probes::default(),
            telemetry: A::Telemetry::default(),
            observed: Observed { telemetry: BTreeMap::new(), schema: A::SCHEMA, wall: now.wall },
            busy_until: now.at,
            beat_due: now.at + Span(1),
            healing: Healing::default(),
            stuck: None,
            leaving: None,
            rejected_by: BTreeSet::new(),
            stopped: false,
            counters: Counters::default(),
            config,
        };
        if node.kept.disk == 0 {
            node.kept.disk = node.rng.number().max(1);
        }
        node.kept.fresh |= restored.replica.next().0 == 0;
        node.restore(restored);
        node
    }

    /// The only way in and out: takes one input, makes one pass over the parts, and puts every effect into `out`.
    pub fn step(&mut self, now: Now, input: Input<A>, out: &mut Vec<Output<A>>) {
        if self.stopped {
            return;
        }
        let mut turn = Turn { now, out };
        let t = &mut turn;
        let told_by = |kept: &Kept| (kept.disk, kept.fresh);
        if told_by(&self.kept) != told_by(&self.on_disk) && !self.disk.keeps() {
            self.keep(t);
        }
        match input {
            Input::Wake => {}
            Input::Connected(peer) => self.connected(t, peer),
            Input::Disconnected(peer) => self.disconnected(t, peer),
            Input::Message { from, message } => self.message(t, from, message),
            Input::Command { ticket, id, command } => self.command(t, ticket, id, command),
            Input::Observe(observation) => self.observe(observation),
            Input::Telemetry(telemetry) => {
                self.observed.telemetry.insert(self.me, telemetry.clone());
                self.telemetry = telemetry;
            }
            Input::Transient { to, transient } => self.transient(t, to, transient),
            Input::Worked { id, result } => self.worked(t, id, result),
            Input::Busy(span) => {
                self.busy_until = t.at() + span.min(self.config.busy_at_most);
                self.beat_due = t.at();
            }
            Input::Operator(operator) => self.operator(t, operator),
        }
        self.pass(t);
    }

    /// When the node wants [`Input::Wake`], and why. Always later than the last step's time.
    pub fn next_wake(&self) -> Option<Wake> {
        if self.stopped {
            return None;
        }
        let wake = |at: Option<Moment>, why| at.map(|at| Wake { at, why });
        let part = match &self.part {
            Part::Seeking(seeking) => wake(self.seek_due(seeking), Why::Campaign),
            Part::Following(following) => wake(Some(following.silent_at), Why::Silence),
            Part::Leading(leading) => {
                wake(Some(leading.lead_due), Why::Lead).into_iter().chain(wake(leading.liveness.due(), Why::Tick)).min()
            }
        };
        [
            part,
            wake(Some(self.beat_due), Why::Beat),
            wake(self.probes.due(), Why::Probe),
            wake(self.gap.due().filter(|_| self.may_catch_up()), Why::Gap),
            wake(self.catching_up.due(&self.config).filter(|_| self.may_catch_up()), Why::Transfer),
            wake(self.serving.repairer.due().filter(|_| self.session().is_some()), Why::Repair),
            wake(self.outbox.due(&self.config, self.leader().is_some()), Why::Proposals),
            wake(self.leaving.as_ref().and_then(Leaving::due), Why::Campaign),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The replicated state.
    pub fn replica(&self) -> &Replica<A> {
        &self.replica
    }

    /// How many entries wait for those before them, and how many bytes they have.
    pub fn waits(&self) -> (usize, usize) {
        (self.buffer.len(), self.buffer.bytes())
    }

    /// The application's state.
    pub fn state(&self) -> &A::State {
        self.replica.state()
    }

    /// What this node heard the nodes say of themselves, its own word included.
    pub fn observed(&self) -> &Observed<A> {
        &self.observed
    }

    /// One pass over the parts: whatever is due or became possible.
    fn pass(&mut self, t: &mut Turn<'_, A>) {
        self.go_on(t);
        self.beat(t);
        self.probe(t);
        match self.part {
            Part::Seeking(_) => self.seek(t),
            Part::Following(_) => self.hear_silence(t),
            Part::Leading(_) => {}
        }
        self.propose(t);
        if let Part::Leading(_) = self.part {
            self.lead(t);
        }
        self.flush(t);
        self.take_intake(t);
        self.tell_done(t);
        self.catch_up(t);
        self.serve(t);
        self.leave(t);
    }

    /// Takes over what was found on disk, at the start and after the log was cut.
    fn restore(&mut self, restored: Restored<A>) {
        self.tail.replace(restored.tail);
        self.disk.restored(restored.log_first, restored.replica.next(), restored.snapshots);
        self.buffer = OrderedBuffer::new(restored.replica.next());
        self.gap.reset();
        self.catching_up = CatchingUp::default();
        self.serving.clear();
        self.replica = restored.replica;
    }

    fn leader(&self) -> Option<NodeId> {
        match &self.part {
            Part::Seeking(_) => None,
            Part::Following(following) => Some(following.session.leader),
            Part::Leading(_) => Some(self.me),
        }
    }

    /// The session that this node takes part in.
    fn session(&self) -> Option<Session> {
        match &self.part {
            Part::Seeking(_) => None,
            Part::Following(following) => Some(following.session),
            Part::Leading(leading) => Some(leading.session),
        }
    }

    /// What the node is at the moment.
    pub fn role(&self) -> Role {
        match &self.part {
            Part::Seeking(_) => Role::Seeking,
            Part::Following(following) => Role::Following(following.session),
            Part::Leading(leading) => Role::Leading(leading.session),
        }
    }

    fn connected(&mut self, t: &mut Turn<'_, A>, peer: NodeId) {
        let Some(record) = self.peers.entry(peer, self.config.nodes) else {
            t.put(Output::Refuse { peer, reject: Reject::Full });
            return;
        };
        // A start that was heard by gossip alone has no connection that could break.
        record.gone |= record.connected.is_none();
        record.connected = record.connected.or(Some(t.at()));
        let purpose = if self.kept.damaged { self.question() } else { Purpose::Tell };
        self.say(t, peer, purpose);
        let message = self.beat_message(t.at());
        t.send(peer, message);
        self.probes.connected(t.at(), peer);
        self.reach(t, peer, true);
        self.replay_by_connection(t, peer);
    }

    fn disconnected(&mut self, t: &mut Turn<'_, A>, peer: NodeId) {
        if let Some(record) = self.peers.entry(peer, self.config.nodes) {
            record.connected = None;
            record.gone = true;
        }
        self.observed.telemetry.remove(&peer);
        self.probes.disconnected(peer);
        self.serving.forget(peer);
        self.catching_up.lost(peer);
        self.reach(t, peer, false);
        if let Part::Following(following) = &self.part
            && following.session.leader == peer
        {
            self.enter_seeking(t);
        }
        if let Part::Seeking(seeking) = &mut self.part {
            seeking.forget(peer);
        }
    }

    /// Takes or passes on the news that a connection broke or stands.
    fn reach(&mut self, t: &mut Turn<'_, A>, peer: NodeId, connected: bool) {
        match &mut self.part {
            Part::Leading(leading) => leading.liveness.connected(t.at(), peer, connected),
            Part::Following(following) if following.session.leader != peer => {
                t.send(following.session.leader, Message::Reach { node: peer, connected });
            }
            Part::Following(_) | Part::Seeking(_) => {}
        }
    }

    fn message(&mut self, t: &mut Turn<'_, A>, from: NodeId, message: Message<A>) {
        if from == self.me {
            self.counters.rejected_origin += 1;
            return;
        }
        if let Part::Leading(leading) = &mut self.part {
            leading.liveness.spoke(t.at(), from);
        }
        match message {
            Message::Hello { standing, purpose } => self.hello(t, from, *standing, purpose),
            Message::Beat(beat) => self.beat_from(t, from, beat),
            Message::Lead(lead) => self.lead_from(t, from, *lead),
            Message::Reach { node, connected } => {
                if let Part::Leading(leading) = &mut self.part {
                    leading.liveness.reach(t.at(), from, node, connected);
                }
            }
            Message::Probe { n } => t.send(from, Message::Echo { n }),
            Message::Echo { n } => self.probes.echo(t.at(), from, n),
            Message::Entries(entries) => self.entries_from(t, from, entries),
            Message::Stored { session, boot, disk, next } => self.stored_at(from, session, (boot, disk), next),
            Message::Done(mark) => self.done_from(t, from, mark),
            Message::Nack(range) => self.nack_from(t, from, range),
            Message::Replay { session, from: first, window } => self.replay_for(t, from, session, first, window),
            Message::Credit { session, bytes } => self.serving.replays.credit(from, session, bytes),
            Message::LogBegins { session, first } => self.log_begins(t, from, session, first),
            Message::RequestSnapshot { session, next } => self.snapshot_for(t, from, session, next),
            Message::Offer { session, offer } => self.offer_from(t, from, session, offer),
            Message::RequestChunk { snapshot, chunk } => self.chunk_for(t, from, snapshot, chunk),
            Message::Chunk { snapshot, chunk, bytes } => self.chunk_from(t, from, snapshot, chunk, bytes),
            Message::Propose(propose) => self.propose_from(t, from, propose),
            Message::Refused { generation, items } => {
                if self.leader() == Some(from) {
                    let replies = self.outbox.refused(generation, items);
                    self.reply(t, replies);
                } else {
                    self.counters.rejected_origin += 1;
                }
            }
            Message::HandOver { session, next } => self.hand_over_from(t, from, session, next),
            Message::Transient(transient) => t.put(Output::Transient { from, transient }),
            Message::Reject { boot, reject } => self.rejected(t, from, boot, reject),
        }
    }

    /// A node says that this start of ours must not be. One node's word does not stop another: the leader's does, or that
    /// of more than half of the known nodes.
    fn rejected(&mut self, t: &mut Turn<'_, A>, from: NodeId, boot: Boot, reject: Reject) {
        let known = self.replica.known();
        if boot != self.boot || !(known.is_empty() || known.contains(&from)) {
            probe!("a rejection counts for nothing");
            self.counters.rejected_origin += 1;
            return;
        }
        self.rejected_by.insert(from);
        if self.leader() == Some(from) || self.rejected_by.len() * 2 > known.len() {
            probe!("a node is stopped by the others");
            self.stop(t, Stop::Rejected(reject));
        }
    }

    fn transient(&mut self, t: &mut Turn<'_, A>, to: Option<NodeId>, transient: A::Transient) {
        match to {
            Some(to) if to == self.me => t.put(Output::Transient { from: self.me, transient }),
            Some(to) => t.send(to, Message::Transient(transient)),
            None => t.broadcast(Message::Transient(transient)),
        }
    }

    fn operator(&mut self, t: &mut Turn<'_, A>, operator: Operator) {
        match operator {
            Operator::Leave => self.begin_leaving(t, true),
            Operator::HandOver => self.begin_leaving(t, false),
            Operator::Forget(node) => self.forget(t, node),
            Operator::LeadAnyway => self.lead_anyway(t),
        }
    }

    fn beat(&mut self, t: &mut Turn<'_, A>) {
        if t.at() >= self.beat_due {
            self.beat_due = t.at() + self.config.beat_every;
            if buggify!("a node leaves out a beat") {
                return;
            }
            let message = self.beat_message(t.at());
            t.broadcast(message);
        }
    }

    fn probe(&mut self, t: &mut Turn<'_, A>) {
        for (peer, n) in self.probes.fire(t.at(), &self.config) {
            t.send(peer, Message::Probe { n });
        }
        if let Some(edges) = self.probes.edges_changed()
            && let Some(observation) = A::links(self.me, &edges)
        {
            self.observe(observation);
        }
    }

    /// Who this node is and how far it stands.
    fn standing(&self, now: Moment) -> Standing {
        let session = match &self.part {
            Part::Seeking(_) => None,
            Part::Following(following) => following.hears(now, &self.config).then_some(following.session),
            Part::Leading(leading) => leading.ready.then_some(leading.session),
        };
        Standing {
            boot: self.boot,
            disk: self.kept.disk,
            schema: A::SCHEMA,
            clock: self.clock.max(self.on_disk.clock),
            confirmed: self.on_disk.confirmed,
            founding: self.replica.founding(),
            lineage: self.replica.lineage().clone(),
            seniority: self.kept.led,
            damaged: self.is_damaged(),
            session,
        }
    }

    /// What follows from an entry for this node itself, whoever ordered it.
    fn applied(&mut self, t: &mut Turn<'_, A>, record: Record, entry: Entry<A>) {
        self.counters.entries_applied += 1;
        match &entry.body {
            Body::Generation { node, generation } if *node == self.me => {
                let replies = self.outbox.generation_ordered(*generation);
                self.reply(t, replies);
            }
            Body::Decided(decided) => {
                if let Some(id) = decided.proposal
                    && id.node == self.me
                {
                    self.outbox.ordered(id, entry.index);
                }
            }
            Body::Opened(opened) => self.recognise(t, opened.founding.is_some()),
            Body::Known(change) => {
                self.read_anew();
                self.recognise(t, matches!(change, KnownChange::Joined { node, .. } if *node == self.me));
            }
            Body::Generation { .. } | Body::Backed => {}
        }
        self.disk.write(record.bytes.clone(), entry.index);
        self.tail.push(record, self.config.tail_bytes);
        t.put(Output::Applied(entry));
        self.capture_if_due(t);
    }

    fn reply(&mut self, t: &mut Turn<'_, A>, replies: Replies<A>) {
        for (ticket, outcome) in replies {
            self.counters.count(&outcome);
            t.put(Output::Reply { ticket, outcome });
        }
    }

    fn stop(&mut self, t: &mut Turn<'_, A>, stop: Stop) {
        let replies = self.outbox.stop();
        self.reply(t, replies);
        self.stopped = true;
        t.put(Output::Stop(stop));
    }
}
