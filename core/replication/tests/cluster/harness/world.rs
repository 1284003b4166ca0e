//! The world: one heap of events by time, machines, a network and clients. Everything in it follows from the plan.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_replication::io::Work;
use lockstep_replication::rng::{Rng, Seed};
use lockstep_replication::{Boot, Hash, Input, Node, NodeId, View, WorkId, wire};

use super::checks::converged::reasons;
use super::checks::ledger::Ledger;
use super::checks::promises::Promises;
use super::disk::Disk;
use super::kv::Kv;
use super::machine::{Clock, Machine, Process};
use super::net::Net;
use super::plan::Plan;
use super::trace::Trace;
use super::workload::Clients;
use super::{MILLIS, SECONDS, between};

/// The most events of one run: far more than any needs, so that nodes which excite each other without end are caught.
const EVENTS_AT_MOST: u64 = 400_000;

/// A world in the middle of a run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) time: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    happened: u64,
    pub(crate) machines: BTreeMap<NodeId, Machine>,
    pub(crate) net: Net,
    pub(crate) clients: Clients,
    pub(crate) ledger: Ledger,
    pub(crate) promises: Promises,
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
}

/// What happens at a moment of the world.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A process starts.
    Start(NodeId),
    /// A wake-up comes, if it is still the one that the process waits for.
    Wake { node: NodeId, life: u64, n: u64 },
    /// A message arrives.
    Arrive { from: NodeId, to: NodeId, epoch: Option<u64>, bytes: Bytes },
    /// The write that waited longest is done.
    Written { node: NodeId, life: u64 },
    /// Reading, encoding or decoding is done.
    Read { node: NodeId, life: u64, id: WorkId, work: Work<Kv> },
    /// Two nodes try to connect.
    Dial { a: NodeId, b: NodeId },
    /// A node learns that a connection stands.
    Met { node: NodeId, life: u64, peer: NodeId, epoch: u64 },
    /// A node learns that a connection broke.
    Parted { node: NodeId, life: u64, peer: NodeId, epoch: u64 },
    /// The fault of this number comes.
    Fault(usize),
    /// A direction opens again.
    Unblock { from: NodeId, to: NodeId },
    /// A disk is as fast as before.
    FastDisk(NodeId),
    /// Clients ask for new things.
    Burst,
    /// A client tries a command, at this node if one is named.
    Try { uid: u64, at: Option<NodeId> },
    /// A node sees something, or has a signal to send.
    Notice(u64),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The rolling hash over all inputs and outputs, if it was asked for.
    pub(crate) hash: Hash,
    pub(crate) events: u64,
    pub(crate) entries: u64,
    /// How long it took to agree after the faults, in nanoseconds of world time.
    pub(crate) agreed_after: u64,
    /// Client outcomes by name.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(plan: Plan, trace: Trace) -> World {
        let seed = Seed::from_number(plan.seed);
        let mut rng = seed.fork("world").rng();
        let machine = |id: NodeId, rng: &mut Rng| Machine {
            id,
            disk: Disk::default(),
            clock: Clock {
                began: rng.below(SECONDS),
                drift: rng.below(plan.timing.drift + 1),
                wall: 1_800_000_000_000,
            },
            process: None,
            life: 0,
            paused_until: 0,
            disk_each: plan.timing.disk,
            disk_until: 0,
            write_fails: false,
            read_fails: false,
            turns: 0,
            confirmed: None,
        };
        let machines = plan.nodes.iter().map(|id| (*id, machine(*id, &mut rng))).collect();
        let mut world = World {
            net: Net::new(plan.nodes.clone(), plan.weather.clone(), seed.fork("net").rng()),
            clients: Clients::new(plan.workload.clone(), seed.fork("clients").rng()),
            time: 0,
            queue: BTreeMap::new(),
            events: 0,
            happened: 0,
            machines,
            ledger: Ledger::default(),
            promises: Promises::default(),
            rng,
            trace,
            plan,
        };
        for (node, at) in world.plan.starts.clone() {
            world.push(at, Event::Start(node));
        }
        for number in 0..world.plan.faults.len() {
            world.push(world.plan.faults[number].0, Event::Fault(number));
        }
        for (a, b) in world.pairs() {
            world.push(0, Event::Dial { a, b });
        }
        world.push(MILLIS, Event::Burst);
        world.push(2 * MILLIS, Event::Notice(0));
        world
    }

    /// All pairs of nodes.
    pub(crate) fn pairs(&self) -> Vec<(NodeId, NodeId)> {
        let nodes = &self.plan.nodes;
        let later = |at: usize| nodes[at + 1..].iter().map(move |b| (nodes[at], *b));
        (0..nodes.len()).flat_map(later).collect()
    }

    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.events += 1;
        self.queue.insert((at.max(self.time), self.events), event);
    }

    /// Lets everything happen that happens up to this time.
    pub(crate) fn run_until(&mut self, end: u64) -> Result<(), String> {
        while let Some(first) = self.queue.first_entry().filter(|first| first.key().0 <= end) {
            let ((time, _), event) = first.remove_entry();
            self.time = time;
            self.happened += 1;
            if self.happened > EVENTS_AT_MOST {
                return Err(format!("L10: more than {EVENTS_AT_MOST} events in one run"));
            }
            self.happen(event)?;
        }
        self.time = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let concerned = match &event {
            Event::Wake { node, life, .. }
            | Event::Written { node, life }
            | Event::Read { node, life, .. }
            | Event::Met { node, life, .. }
            | Event::Parted { node, life, .. } => Some((*node, Some(*life))),
            Event::Arrive { to, .. } => Some((*to, None)),
            Event::Try { at: Some(node), .. } => Some((*node, None)),
            Event::Start(_)
            | Event::Dial { .. }
            | Event::Fault(_)
            | Event::Unblock { .. }
            | Event::FastDisk(_)
            | Event::Burst
            | Event::Try { at: None, .. }
            | Event::Notice(_) => None,
        };
        if let Some((node, life)) = concerned {
            let machine = &self.machines[&node];
            if !machine.is_up() || life.is_some_and(|life| life != machine.life) {
                if let Event::Try { uid, .. } = event {
                    self.push(self.time + 50 * MILLIS, Event::Try { uid, at: None });
                }
                return Ok(());
            }
            if machine.paused_until > self.time {
                self.push(machine.paused_until, event);
                return Ok(());
            }
        }
        match event {
            Event::Start(node) => self.start(node),
            Event::Wake { node, n, .. } => {
                let waits = self.process(node).wake.0 == n;
                if waits { self.step(node, Input::Wake) } else { Ok(()) }
            }
            Event::Arrive { from, to, epoch, bytes } => self.arrive(from, to, epoch, &bytes),
            Event::Written { node, .. } => self.written(node),
            Event::Read { node, id, work, .. } => {
                let machine = self.machine(node);
                let fails = std::mem::take(&mut machine.read_fails);
                let failed = || Err(lockstep_replication::io::WorkFailed("the disk says no".into()));
                let result = if fails { failed() } else { machine.disk.read(work) };
                self.step(node, Input::Worked { id, result })
            }
            Event::Dial { a, b } => {
                self.dial(a, b);
                Ok(())
            }
            Event::Met { node, peer, epoch, .. } => {
                self.process(node).peers.insert(peer, epoch);
                self.step(node, Input::Connected(peer))
            }
            Event::Parted { node, peer, epoch, .. } => {
                let known = self.process(node).peers.get(&peer) == Some(&epoch);
                if !known {
                    return Ok(());
                }
                self.process(node).peers.remove(&peer);
                self.step(node, Input::Disconnected(peer))
            }
            Event::Fault(number) => {
                let fault = self.plan.faults[number].1.clone();
                self.trace.note(self.time, || format!("FAULT {fault:?}"));
                self.fault(fault)
            }
            Event::Unblock { from, to } => {
                self.net.unblock(from, to);
                Ok(())
            }
            Event::FastDisk(node) => {
                self.machine(node).disk_each = self.plan.timing.disk;
                Ok(())
            }
            Event::Burst => self.burst(),
            Event::Try { uid, at } => self.try_command(uid, at),
            Event::Notice(n) => self.notice(n),
        }
    }

    pub(crate) fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).expect("all machines exist from the beginning")
    }

    /// The process of a machine that is up.
    pub(crate) fn process(&mut self, node: NodeId) -> &mut Process {
        self.machine(node).process.as_mut().expect("the machine was found to be up")
    }

    fn start(&mut self, node: NodeId) -> Result<(), String> {
        if self.machines[&node].is_up() {
            return Ok(());
        }
        let nonce = self.rng.number();
        let seed = Seed::from_number(self.plan.seed).fork(&format!("node {node} {nonce}"));
        let began = self.rng.below(SECONDS);
        let config = self.plan.config.clone();
        let time = self.time;
        let machine = self.machine(node);
        machine.clock.began = began;
        machine.life += 1;
        machine.write_fails = false;
        machine.disk.starts += 1;
        let boot = Boot { starts: machine.disk.starts, nonce };
        let restored = machine.disk.restore(boot)?;
        let applied = restored.replica.hash();
        let now = machine.clock.now(time);
        machine.process = Some(Process {
            node: Node::new(node, config, seed, restored, now),
            boot,
            peers: BTreeMap::new(),
            tickets: std::collections::BTreeSet::new(),
            applied,
            wake: (0, None),
            leaving: None,
        });
        self.register(node)?;
        self.trace.note(time, || format!("{node:?} starts as {boot:?}"));
        self.schedule_wake(node);
        self.step(node, Input::Telemetry(1))
    }

    fn arrive(&mut self, from: NodeId, to: NodeId, epoch: Option<u64>, bytes: &[u8]) -> Result<(), String> {
        if epoch.is_some() && self.process(to).peers.get(&from).copied() != epoch {
            return Ok(());
        }
        let message = wire::decode(bytes).map_err(|error| format!("a message of {from:?} is none: {error}"))?;
        self.step(to, Input::Message { from, message })
    }

    fn written(&mut self, node: NodeId) -> Result<(), String> {
        let machine = self.machine(node);
        let boot = machine.process.as_ref().map(|process| process.boot);
        // Sped up when faults stopped, it is done already.
        let Some(boot) = boot.filter(|_| machine.disk.waiting() > 0) else { return Ok(()) };
        let (id, result) = machine.disk.do_next(boot, machine.write_fails)?;
        if machine.disk.kept.confirmed < machine.confirmed {
            return Err(format!(
                "L7: {node:?} confirmed {:?} after {:?}",
                machine.disk.kept.confirmed, machine.confirmed
            ));
        }
        machine.confirmed = machine.disk.kept.confirmed;
        if let Ok(lockstep_replication::io::Worked::Rewound(..)) = &result {
            self.register(node)?;
        }
        self.step(node, Input::Worked { id, result })
    }

    /// Tells the ledger of what a disk holds: some of it was perhaps never applied.
    fn register(&mut self, node: NodeId) -> Result<(), String> {
        let disk = &self.machines[&node].disk;
        let (mut hash, next) = disk.base();
        if next.0 > 0 && self.ledger.next(hash) != next {
            return Err(format!("L6: {node:?} holds a snapshot before {next} of a log that nobody had"));
        }
        for (record, entry) in disk.entries().filter(|(record, _)| record.index >= next) {
            let (grown, new) = self.ledger.extend(hash, &record, &entry)?;
            hash = grown;
            if new {
                self.promises.ordered(&self.ledger, grown)?;
            }
        }
        Ok(())
    }

    fn dial(&mut self, a: NodeId, b: NodeId) {
        let (time, timing) = (self.time, self.plan.timing.clone());
        let forgotten = |machine: &Machine, other: NodeId| {
            machine.paused_until <= time
                && machine.process.as_ref().is_some_and(|process| !process.peers.contains_key(&other))
        };
        let both = forgotten(&self.machines[&a], b) && forgotten(&self.machines[&b], a);
        if self.net.epoch(a, b).is_some() {
            return;
        }
        if !both || self.net.is_blocked(a, b) || self.net.is_blocked(b, a) {
            let again = time + between(&mut self.rng, 20, 200) * MILLIS;
            return self.push(again, Event::Dial { a, b });
        }
        let epoch = self.net.connect(a, b);
        let took = between(&mut self.rng, 0, timing.dial);
        for (node, peer) in [(a, b), (b, a)] {
            let at = self.net.in_order(time + took, peer, node);
            let life = self.machines[&node].life;
            self.push(at, Event::Met { node, life, peer, epoch });
        }
    }

    /// A connection breaks; each side notices in its time, and then they dial again.
    pub(crate) fn cut(&mut self, a: NodeId, b: NodeId) {
        let Some(epoch) = self.net.cut(a, b) else { return };
        let mut last = self.time;
        for (node, peer) in [(a, b), (b, a)] {
            // Not before the news that it stood.
            let notices = self.time + self.plan.timing.dial + between(&mut self.rng, 0, self.plan.timing.notice);
            let at = self.net.in_order(notices, peer, node);
            let life = self.machines[&node].life;
            self.push(at, Event::Parted { node, life, peer, epoch });
            last = last.max(at);
        }
        let redials = last + between(&mut self.rng, 0, self.plan.timing.dial);
        self.push(redials, Event::Dial { a, b });
    }

    /// Every node's view, of those that are up.
    pub(crate) fn views(&self) -> Vec<(NodeId, Option<View>)> {
        let view = |machine: &Machine| {
            let now = machine.clock.now(self.time);
            (machine.id, machine.process.as_ref().map(|process| process.node.view(now.at)))
        };
        self.machines.values().map(view).collect()
    }

    /// What there is to say when a law was broken.
    pub(crate) fn explain(&self, broken: &str) -> String {
        format!("at {} ms: {broken}\n{}\n{}", self.time / MILLIS, reasons(&self.views()), self.trace.text())
    }

    pub(crate) fn report(&self, agreed_after: u64) -> Report {
        let entries = self.machines.values().map(|machine| machine.disk.next().0).max().unwrap_or_default();
        let outcomes = self.promises.seen.clone();
        Report { hash: self.trace.hash(), events: self.events, entries, agreed_after, outcomes }
    }
}
