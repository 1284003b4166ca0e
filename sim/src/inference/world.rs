//! The world: one heap of events by time, machines, a network, runners and clients. Everything follows from the plan.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use bytes::Bytes;
use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_inference::id::RunnerId;
use lockstep_inference::transient::Transient;
use lockstep_replication::io::{WorkFailed, Worked};
use lockstep_replication::{Input, NodeId, Span, WorkId};

use super::checks::Checks;
use super::clients::Stream;
use super::faults::Asked;
use super::machine::Machine;
use super::plan::Plan;
use super::runners::Act;
use crate::checks::Broken;
use crate::dice::Dice;
use crate::trace::{Detail, Trace};
use crate::world::network::Network;

/// A run that makes more events than this has failed: its parts excite each other without end.
const EVENTS_AT_MOST: u64 = 20_000_000;

/// A world in the middle of a run.
pub(super) struct World {
    pub(super) plan: Arc<Plan>,
    /// World time, in nanoseconds.
    pub(super) time: u64,
    pub(super) events: u64,
    pub(super) machines: Vec<Machine>,
    pub(super) network: Network,
    pub(super) streams: BTreeMap<u64, Stream>,
    pub(super) operators: Vec<Asked>,
    /// Counts the processes of all runners.
    pub(super) processes: u64,
    /// Counts what runners were told.
    pub(super) attempts: u64,
    pub(super) checks: Checks,
    pub(super) trace: Trace,
    pub(super) counted: BTreeMap<&'static str, u64>,
    pub(super) is_quiet: bool,
    pub(super) dice: Dice,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    /// The events of the heap, by the order in which they came.
    waiting: BTreeMap<u64, Event>,
    pushed: u64,
}

/// What happens at a moment of the world. Machines are named by their places, and what is meant for a process by its life.
pub(super) enum Event {
    Start {
        at: usize,
    },
    Wake {
        at: usize,
        life: u32,
        n: u64,
    },
    Arrive {
        from: usize,
        to: usize,
        epoch: u64,
        bytes: Bytes,
    },
    Written {
        at: usize,
        life: u32,
    },
    Worked {
        at: usize,
        life: u32,
        id: WorkId,
        result: Result<Worked<Inference>, WorkFailed>,
    },
    Dial {
        a: usize,
        b: usize,
    },
    Met {
        at: usize,
        life: u32,
        peer: usize,
        epoch: u64,
    },
    Parted {
        at: usize,
        life: u32,
        peer: usize,
        epoch: u64,
    },
    /// Something on the same machine asks this of the node.
    Node {
        at: usize,
        life: u32,
        input: Input<Inference>,
    },
    /// A worker or gateway has a command decided, for a stream or for nobody.
    Command {
        at: usize,
        life: u32,
        stream: Option<u64>,
        command: Command,
    },
    /// A signal for the worker or the gateway.
    Signal {
        at: usize,
        life: u32,
        from: NodeId,
        transient: Transient,
    },
    /// A runner's process does something.
    Runner {
        at: usize,
        life: u32,
        runner: RunnerId,
        start: u64,
        act: Act,
    },
    Fault(usize),
    Unblock {
        from: usize,
        to: usize,
    },
    /// The clients of a load ask again.
    Ask {
        load: usize,
        n: u64,
    },
    /// A client took a part.
    Took {
        stream: u64,
    },
    HangUp {
        stream: u64,
    },
    /// An operator asks, or asks again.
    Operator {
        n: usize,
    },
    /// The checks look at everybody.
    Look,
}

impl World {
    pub(super) fn new(plan: Arc<Plan>, detail: Detail) -> World {
        let dice = Dice::new(plan.seed);
        let machines = plan.machines();
        let numbers = (1..=machines as u16).collect();
        let mut world = World {
            time: 0,
            events: 0,
            machines: (1..=machines as u16).map(|number| Machine::new(number, dice)).collect(),
            network: Network::new(numbers, plan.weather.clone(), dice),
            streams: BTreeMap::new(),
            operators: Vec::new(),
            processes: 0,
            attempts: 0,
            checks: Checks::new(&plan),
            trace: Trace::new(detail),
            counted: BTreeMap::new(),
            is_quiet: false,
            dice,
            heap: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            pushed: 0,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let plan = self.plan.clone();
        let founders = usize::from(plan.nodes);
        (0..founders).for_each(|at| self.push(0, Event::Start { at }));
        for (joiner, at) in plan.joiners.iter().zip(founders..) {
            self.push(joiner.starts.0, Event::Start { at });
        }
        for a in 0..self.machines.len() {
            (a + 1..self.machines.len()).for_each(|b| self.push(0, Event::Dial { a, b }));
        }
        self.plan_operators();
        for (n, fault) in plan.faults.iter().enumerate() {
            self.push(fault.at.0, Event::Fault(n));
        }
        for (load, planned) in plan.loads.iter().enumerate() {
            self.push(planned.from.0, Event::Ask { load, n: 0 });
        }
        self.push(0, Event::Look);
    }

    pub(super) fn push(&mut self, at: u64, event: Event) {
        self.pushed += 1;
        self.heap.push(Reverse((at.max(self.time), self.pushed)));
        self.waiting.insert(self.pushed, event);
    }

    /// The same, so much later.
    pub(super) fn after(&mut self, span: Span, event: Event) {
        self.push(self.time + span.0, event);
    }

    pub(super) fn count(&mut self, name: &'static str, so_many: u64) {
        *self.counted.entry(name).or_default() += so_many;
    }

    /// Lets everything happen that happens up to this time.
    pub(super) fn run_until(&mut self, end: u64) -> Result<(), Broken> {
        while let Some(Reverse((at, seq))) = self.heap.peek().copied().filter(|first| first.0.0 <= end) {
            self.heap.pop();
            let Some(event) = self.waiting.remove(&seq) else { continue };
            self.time = at;
            self.events += 1;
            if self.events > EVENTS_AT_MOST {
                return Err(Broken::new("bounded", format!("more than {EVENTS_AT_MOST} events in one run")));
            }
            self.happen(event)?;
        }
        self.time = end;
        Ok(())
    }

    /// The machine that an event is for, and in which of its lives.
    fn concerned(event: &Event) -> Option<(usize, Option<u32>)> {
        match event {
            Event::Wake { at, life, .. }
            | Event::Written { at, life }
            | Event::Worked { at, life, .. }
            | Event::Met { at, life, .. }
            | Event::Parted { at, life, .. }
            | Event::Node { at, life, .. }
            | Event::Command { at, life, .. }
            | Event::Signal { at, life, .. }
            | Event::Runner { at, life, .. } => Some((*at, Some(*life))),
            Event::Arrive { to, .. } => Some((*to, None)),
            Event::Start { .. }
            | Event::Dial { .. }
            | Event::Fault(_)
            | Event::Unblock { .. }
            | Event::Ask { .. }
            | Event::Took { .. }
            | Event::HangUp { .. }
            | Event::Operator { .. }
            | Event::Look => None,
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        let concerned = World::concerned(&event);
        if let Some((at, life)) = concerned {
            let machine = &self.machines[at];
            if machine.process.is_none() || life.is_some_and(|life| life != machine.life) {
                return Ok(());
            }
        }
        self.act(event)?;
        match concerned {
            Some((at, _)) => self.settle(at),
            None => Ok(()),
        }
    }

    fn act(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Start { at } => self.start(at),
            Event::Wake { at, n, .. } => self.wake(at, n),
            Event::Arrive { from, to, epoch, bytes } => self.arrive(from, to, epoch, &bytes),
            Event::Written { at, .. } => self.written(at),
            Event::Worked { at, id, result, .. } => self.step(at, Input::Worked { id, result }, id.0 << 8 | 3),
            Event::Dial { a, b } => {
                self.dial(a, b);
                Ok(())
            }
            Event::Met { at, peer, epoch, .. } => self.met(at, peer, epoch),
            Event::Parted { at, peer, epoch, .. } => self.parted(at, peer, epoch),
            Event::Node { at, input, .. } => self.step(at, input, 4),
            Event::Command { at, stream, command, .. } => self.command(at, stream, command),
            Event::Signal { at, from, transient, .. } => self.signal(at, from, transient),
            Event::Runner { at, runner, start, act, .. } => self.runner_acts(at, runner, start, act),
            Event::Fault(n) => self.fault(n),
            Event::Unblock { from, to } => {
                self.network.unblock(from, to);
                Ok(())
            }
            Event::Ask { load, n } => self.client_asks(load, n),
            Event::Took { stream } => self.client_took(stream),
            Event::HangUp { stream } => self.client_hangs_up(stream),
            Event::Operator { n } => self.operator_asks(n),
            Event::Look => self.look(),
        }
    }
}
