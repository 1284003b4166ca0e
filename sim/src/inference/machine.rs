//! One node's machine: the process that may die with its node, worker, gateway and runners, the disk and the copies of
//! cards that outlive it. Starting, stepping the node, and doing what comes out.

use std::collections::BTreeMap;

use lockstep_inference::Inference;
use lockstep_inference::gateway::{Gateway, GatewayInput};
use lockstep_inference::id::{ModelId, RunnerId};
use lockstep_inference::observation::Observation;
use lockstep_inference::state::{ModelCard, NodeInfo};
use lockstep_inference::telemetry::Telemetry;
use lockstep_inference::transient::Transient;
use lockstep_inference::worker::{Worker, WorkerInput};
use lockstep_replication::io::Work;
use lockstep_replication::{Boot, Input, Moment, Node, NodeId, Output, Replica, Seed, Ticket, WorkId};

use super::checks::streams::Trouble;
use super::runners::Runner;
use super::world::{Event, World};
use crate::checks::Broken;
use crate::checks::no_panic::guarded;
use crate::dice::{Dice, Site};
use crate::plan::{MICROS, MILLIS, SECONDS, node_id};
use crate::world::clock::Clock;
use crate::world::disk::{Disk, Stored};

impl Stored for Inference {}

/// A machine in the world.
pub(super) struct Machine {
    pub(super) number: u16,
    pub(super) id: NodeId,
    pub(super) disk: Disk<Inference>,
    /// The copies of custom cards on its disk.
    pub(super) cards: BTreeMap<ModelId, ModelCard>,
    pub(super) clock: Clock,
    pub(super) process: Option<Box<Process>>,
    /// Counts the processes.
    pub(super) life: u32,
    /// How often work was asked of the disk.
    asked: u64,
    /// When the last write that was asked for will be done.
    busy_until: u64,
    /// Until when its disk is slow.
    pub(super) slow_until: u64,
    /// Whether the next write fails.
    pub(super) disk_fails: bool,
    /// Whether one failed in this life: those behind it are not done either.
    disk_failed: bool,
}

/// What dies with a crash.
pub(super) struct Process {
    pub(super) node: Node<Inference>,
    pub(super) worker: Worker,
    pub(super) gateway: Gateway,
    /// Whether the node had caught up, so that worker and gateway began.
    pub(super) works: bool,
    /// Whether the state is new since they saw it.
    changed: bool,
    pub(super) boot: Boot,
    /// Whose commands wait for a reply.
    pub(super) tickets: BTreeMap<Ticket, Asker>,
    pub(super) given: u64,
    pub(super) runners: BTreeMap<(RunnerId, u64), Runner>,
    /// The connections it was told of, by machine; 0: none.
    pub(super) peers: Vec<u64>,
    wants: Option<Moment>,
    wakes: u64,
    out: Vec<Output<Inference>>,
}

/// Who gave a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    Stream(u64),
    Operator(usize),
    Nobody,
}

impl Machine {
    pub(super) fn new(number: u16, dice: Dice) -> Machine {
        let drift = dice.roll(Site::Machine, u64::from(number), 0).below(50);
        Machine {
            number,
            id: node_id(number),
            disk: Disk::default(),
            cards: BTreeMap::new(),
            clock: Clock::new(drift),
            process: None,
            life: 0,
            asked: 0,
            busy_until: 0,
            slow_until: 0,
            disk_fails: false,
            disk_failed: false,
        }
    }

    /// What its node knows, if it is up.
    pub(super) fn replica(&self) -> Option<&Replica<Inference>> {
        self.process.as_ref().map(|process| process.node.replica())
    }

    /// Whether clients can be served here.
    pub(super) fn works(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.works)
    }
}

impl World {
    /// The process of a machine that was found to be up.
    pub(super) fn process(&mut self, at: usize) -> &mut Process {
        self.machines[at].process.as_mut().expect("the machine was found to be up")
    }

    pub(super) fn start(&mut self, at: usize) -> Result<(), Broken> {
        let (time, machines) = (self.time, self.machines.len());
        let mut config = self.plan.config.clone();
        config.founders = usize::from(self.plan.nodes);
        let machine = &mut self.machines[at];
        if machine.process.is_some() {
            return Ok(());
        }
        machine.life += 1;
        // It catches up, and while it does it may fall behind again.
        self.checks.streams.started(at, time);
        let mut roll = self.dice.roll(Site::Start, u64::from(machine.number), u64::from(machine.life));
        let (nonce, began) = (roll.number(), roll.below(SECONDS));
        let seed = Seed::from_number(self.plan.seed).fork(&format!("node {} {nonce}", machine.number));
        machine.clock.restarted(began);
        machine.disk.starts += 1;
        let boot = Boot { starts: machine.disk.starts, nonce };
        let now = machine.clock.now(time);
        let restored = machine.disk.restore(boot);
        let restored =
            restored.map_err(|why| Broken::new("restores", format!("node {} cannot start: {why}", machine.number)))?;
        let node = Node::new(machine.id, config, seed, restored, now);
        self.checks.started(at, node.replica());
        let (worker_seed, gateway_seed) = (seed.fork("worker"), seed.fork("gateway"));
        machine.process = Some(Box::new(Process {
            node,
            worker: Worker::new(machine.id, self.plan.worker.clone(), worker_seed),
            gateway: Gateway::new(machine.id, self.plan.gateway.clone(), gateway_seed),
            works: false,
            changed: false,
            boot,
            tickets: BTreeMap::new(),
            given: 0,
            runners: BTreeMap::new(),
            peers: vec![0; machines],
            wants: None,
            wakes: 0,
            out: Vec::new(),
        }));
        let number = machine.number;
        self.trace.line(time, || format!("{number} STARTS as {boot:?}"));
        let telemetry = Telemetry {
            memory_total_bytes: 64 << 30,
            memory_free_bytes: 48 << 30,
            disk_free_bytes: 1 << 40,
            cpu_percent: 5,
            runners: ["echo".to_owned()].into(),
        };
        self.step(at, Input::Telemetry(telemetry), nonce)?;
        let (name, addresses) = (format!("machine {number}"), vec![format!("10.0.0.{number}")]);
        let info = NodeInfo { name, addresses, memory_bytes: 64 << 30 };
        self.step(at, Input::Observe(Observation::Info(info)), 5)?;
        self.settle(at)
    }

    /// The process dies with its runners, and is started again after a while.
    pub(super) fn crash(&mut self, at: usize, down: u64) -> Result<(), Broken> {
        let time = self.time;
        let machine = &mut self.machines[at];
        let Some(process) = machine.process.take() else { return Ok(()) };
        let mut roll = self.dice.roll(Site::Crash, u64::from(machine.number), u64::from(machine.life));
        let failed = std::mem::take(&mut machine.disk_failed);
        machine.disk.crash(&mut roll, process.boot, failed).map_err(|why| Broken::new("effects_in_order", why))?;
        machine.busy_until = time;
        let (number, life) = (machine.number, machine.life);
        self.trace.line(time, || format!("{number} IS DOWN"));
        let now = self.machines[at].clock.now(time).at;
        let view = process.node.view(now);
        self.count("snapshots_installed", view.counters.snapshots_installed);
        self.count("sessions_opened", view.counters.sessions_opened);
        self.count_work(&process.worker.view(), &process.gateway.view());
        for runner in process.runners.values() {
            self.checks.runners.ended(at, runner.runner);
            self.checks.streams.runner_fell(runner.instance, time);
        }
        let until = time.saturating_add(down);
        self.checks.streams.trouble(Trouble { machines: [at].into(), cuts: false, until });
        self.client_connections_break(at, life)?;
        for other in (0..self.machines.len()).filter(|other| *other != at) {
            self.cut(at, other);
        }
        self.push(until, Event::Start { at });
        Ok(())
    }

    /// One step of a node that is up. `seen` stands for the input in the trace's hash.
    pub(super) fn step(&mut self, at: usize, input: Input<Inference>, seen: u64) -> Result<(), Broken> {
        let (time, machine) = (self.time, &mut self.machines[at]);
        let (number, now) = (machine.number, machine.clock.now(time));
        self.trace.step(time, number, seen);
        if self.trace.is_told() && !matches!(input, Input::Wake | Input::Message { .. }) {
            self.trace.line(time, || format!("{number} <- {input:?}"));
        }
        let Some(process) = machine.process.as_mut() else { return Ok(()) };
        let mut out = std::mem::take(&mut process.out);
        guarded(|| process.node.step(now, input, &mut out))?;
        let mut stops = false;
        for output in out.drain(..) {
            stops |= self.perform(at, output)?;
        }
        self.process(at).out = out;
        if stops {
            return self.crash(at, SECONDS);
        }
        Ok(())
    }

    /// Does what a node asks for. True: its process is to end.
    fn perform(&mut self, at: usize, output: Output<Inference>) -> Result<bool, Broken> {
        match output {
            Output::Send { to, message } => self.send(at, to, &message),
            Output::Broadcast(message) => self.broadcast(at, &message),
            Output::Work { id, work } => self.work(at, id, work),
            Output::Applied(entry) => {
                self.trace.output(8, entry.index.0);
                self.process(at).changed = true;
                self.checks.applied(at, &entry)?;
            }
            Output::Replaced { next } => {
                self.trace.output(9, next.0);
                let process = self.machines[at].process.as_mut().expect("the machine was found to be up");
                process.changed = true;
                self.checks.replaced(at, process.node.replica());
            }
            Output::Reply { ticket, outcome } => match self.process(at).tickets.remove(&ticket) {
                Some(Asker::Stream(stream)) => self.created(at, stream, outcome)?,
                Some(Asker::Operator(n)) => self.operator_hears(n, &outcome),
                Some(Asker::Nobody) | None => {}
            },
            Output::Transient { from, transient } => {
                let life = self.machines[at].life;
                self.push(self.time, Event::Signal { at, life, from, transient });
            }
            Output::Refuse { peer, .. } => {
                if let Some(peer) = self.place_of(peer) {
                    self.cut(at, peer);
                }
            }
            Output::Role(role) => {
                let (time, number) = (self.time, self.machines[at].number);
                self.trace.line(time, || format!("{number} IS {role:?}"));
            }
            Output::Notice(_) => {}
            Output::Left | Output::Stop(_) => return Ok(true),
        }
        Ok(false)
    }

    /// After each event: worker and gateway see what is new, and the next wake-up is planned.
    pub(super) fn settle(&mut self, at: usize) -> Result<(), Broken> {
        let now = self.machines[at].clock.now(self.time).at;
        let Some(process) = self.machines[at].process.as_mut() else { return Ok(()) };
        if !process.works {
            process.works = process.node.view(now).ready;
            process.changed = true;
        }
        if process.works && std::mem::take(&mut process.changed) {
            self.worker(at, WorkerInput::Changed)?;
            self.gateway(at, GatewayInput::Changed)?;
        }
        self.plan_wake(at);
        Ok(())
    }

    fn plan_wake(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let (clock, life) = (machine.clock, machine.life);
        let Some(process) = machine.process.as_mut() else { return };
        let node = process.node.next_wake().map(|wake| wake.at);
        let wants = node.into_iter().chain(process.worker.next_wake()).chain(process.gateway.next_wake()).min();
        if wants == process.wants {
            return;
        }
        process.wants = wants;
        process.wakes += 1;
        let n = process.wakes;
        if let Some(wants) = wants {
            self.push(clock.when(wants), Event::Wake { at, life, n });
        }
    }

    pub(super) fn wake(&mut self, at: usize, n: u64) -> Result<(), Broken> {
        let now = self.machines[at].clock.now(self.time).at;
        let process = self.process(at);
        if process.wakes != n {
            return Ok(());
        }
        process.wants = None;
        let due = |wants: Option<Moment>| wants.is_some_and(|wants| wants <= now);
        let (node, worker) = (due(process.node.next_wake().map(|wake| wake.at)), due(process.worker.next_wake()));
        let gateway = due(process.gateway.next_wake());
        if node {
            self.step(at, Input::Wake, 1)?;
        }
        if worker && self.machines[at].process.is_some() {
            self.worker(at, WorkerInput::Wake)?;
        }
        if gateway && self.machines[at].process.is_some() {
            self.gateway(at, GatewayInput::Wake)?;
        }
        Ok(())
    }

    fn work(&mut self, at: usize, id: WorkId, work: Work<Inference>) {
        let time = self.time;
        let machine = &mut self.machines[at];
        machine.asked += 1;
        let mut roll = self.dice.roll(Site::Work, u64::from(machine.number), machine.asked);
        let takes = roll.between(100, 1_000) * MICROS;
        let life = machine.life;
        match work {
            Work::Read { .. } => {
                let result = machine.disk.read(work);
                self.push(time + takes, Event::Worked { at, life, id, result });
            }
            Work::Encode { .. } | Work::Decode { .. } => {
                let result = machine.disk.code(work, <Inference as lockstep_replication::App>::SCHEMA);
                self.push(time + takes + MILLIS, Event::Worked { at, life, id, result });
            }
            Work::Keep(_)
            | Work::Append { .. }
            | Work::Rewind { .. }
            | Work::Install(_)
            | Work::Save(_)
            | Work::Trim { .. } => {
                machine.disk.ask(id, work);
                let takes = if time < machine.slow_until { 100 * takes } else { takes };
                machine.busy_until = machine.busy_until.max(time) + takes;
                let when = machine.busy_until;
                self.push(when, Event::Written { at, life });
            }
        }
    }

    /// The write that waited longest is done.
    pub(super) fn written(&mut self, at: usize) -> Result<(), Broken> {
        let machine = &mut self.machines[at];
        let Some(boot) = machine.process.as_ref().map(|process| process.boot) else { return Ok(()) };
        machine.disk_failed |= std::mem::take(&mut machine.disk_fails);
        let fails = machine.disk_failed.then_some("no space is left");
        let done = machine.disk.do_next(boot, <Inference as lockstep_replication::App>::SCHEMA, fails);
        match done.map_err(|why| Broken::new("effects_in_order", format!("node {}: {why}", machine.number)))? {
            Some((id, result)) => self.step(at, Input::Worked { id, result }, id.0 << 8 | 2),
            None => Ok(()),
        }
    }

    /// A signal of a request, for whom it is.
    pub(super) fn signal(&mut self, at: usize, from: NodeId, transient: Transient) -> Result<(), Broken> {
        match transient {
            Transient::Token(_)
            | Transient::InputMissing { .. }
            | Transient::Trace(_)
            | Transient::Acknowledged { .. } => self.gateway(at, GatewayInput::Transient { from, transient }),
            Transient::TokensMissing { .. } | Transient::Input(_) => {
                self.worker(at, WorkerInput::Transient { from, transient })
            }
        }
    }
}
