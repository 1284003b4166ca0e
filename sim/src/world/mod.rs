//! The world: one heap of events by time, machines, a network and clients. Everything in it follows from the plan.
//!
//! It is plain data: clone it to try another future. Machines are named by their places in `Plan::machines`.

mod carrying;
pub mod clients;
pub(crate) mod clock;
mod connecting;
pub mod disk;
mod faults;
pub mod machine;
pub(crate) mod messages;
pub mod network;
pub mod node;
mod starting;
mod stepping;
mod working;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use lockstep_replication::io::{WorkFailed, Worked};
use lockstep_replication::view::FinishedCatchUp;
use lockstep_replication::{Input, Output, Span, View, WorkId};

use crate::checks::{Broken, Checks, Given};
use crate::dice::{Dice, Site};
use crate::kv::{Kv, Seen};
use crate::plan::{MICROS, MILLIS, Plan};
use crate::trace::{Detail, Trace};

use clients::Clients;
use clock::Clock;
use machine::{Device, Machine, Pace, Process};
use messages::{Envelope, Rule};
use network::Network;

/// A world in the middle of a run.
#[derive(Clone, Debug)]
pub struct World {
    /// What it follows from.
    pub plan: Arc<Plan>,
    /// World time, in nanoseconds.
    pub time: u64,
    /// How many events have happened.
    pub events: u64,
    /// The machines, as `plan.machines` has them.
    pub machines: Vec<Machine>,
    /// The network.
    pub network: Network,
    /// The clients.
    pub clients: Clients,
    /// The checks.
    pub checks: Checks,
    /// The record.
    pub trace: Trace,
    /// What nodes that died had counted.
    pub counted: BTreeMap<&'static str, u64>,
    /// Catch-ups of nodes that died.
    pub caught_up: Vec<(u16, FinishedCatchUp)>,
    /// Whom a leader counted as lost, and when.
    pub lost_nodes: Vec<(u16, Span)>,
    /// How often clients were told what.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Whether faults and commands have stopped.
    pub is_quiet: bool,
    dice: Dice,
    heap: BinaryHeap<Reverse<Queued>>,
    pushed: u64,
    rules: Vec<Rule>,
    /// The places of the machines with a number or identity of this number.
    places: Vec<Vec<usize>>,
    /// Memory that is used again at each step.
    out: Vec<Output<Kv>>,
    scratch: Vec<u8>,
}

/// An event in the heap.
#[derive(Clone, Debug)]
struct Queued {
    at: u64,
    seq: u64,
    event: Event,
}

/// What happens at a moment of the world.
#[derive(Clone, Debug)]
enum Event {
    /// A process starts.
    Start { at: u32 },
    /// A wake-up comes, if it is still the one that the process waits for.
    Wake { at: u32, life: u32, n: u64 },
    /// A wake-up that nobody asked for.
    Unasked { at: u32, life: u32 },
    /// A message arrives; by a connection, or (0) by gossip.
    Arrive { from: u32, to: u32, epoch: u64, envelope: Arc<Envelope> },
    /// The write that waited longest is done.
    Written { at: u32, life: u32 },
    /// It is time to read.
    Read { at: u32, life: u32, work: Box<(WorkId, lockstep_replication::io::Work<Kv>)> },
    /// Reading, encoding or decoding is done.
    Worked { at: u32, life: u32, done: Box<(WorkId, Result<Worked<Kv>, WorkFailed>)> },
    /// Two machines try to connect.
    Dial { a: u32, b: u32 },
    /// A node learns that a connection stands.
    Met { at: u32, life: u32, peer: u32, epoch: u64 },
    /// A node learns that a connection broke.
    Parted { at: u32, life: u32, peer: u32, epoch: u64 },
    /// What waited for a machine that did nothing goes on.
    GoOn { at: u32 },
    /// The fault of this number comes.
    Fault(u32),
    /// A direction opens again.
    Unblock { from: u32, to: u32 },
    /// A partition comes again, or goes.
    Flap { fault: u32, until: u64, stands: bool },
    /// A disk is as fast as before.
    FastDisk { at: u32, slowed: u64 },
    /// Clients ask for new things.
    Burst { load: u32 },
    /// A client tries a command, at this machine if one is named.
    Try { uid: u64, at: Option<u32> },
    /// A node sees something, or has a signal to send.
    Notice { load: u32, n: u64 },
}

impl World {
    /// A world at its beginning.
    pub fn new(plan: Arc<Plan>, detail: Detail) -> World {
        let dice = Dice::new(plan.seed);
        let machine = |planned: &crate::plan::MachinePlan| Machine {
            number: planned.number,
            id: planned.identity(),
            disk: disk::Disk::default(),
            clock: Clock::new(dice.roll(Site::Machine, u64::from(planned.number), 0).below(plan.timing.drift + 1)),
            process: None,
            schema: planned.schema,
            needs_upgrade: false,
            life: 0,
            gone: false,
            turns: 0,
            steps: 0,
            owes: None,
            pace: Pace::default(),
            device: Device { each: plan.timing.disk.0, ..Device::default() },
            inbox: std::collections::VecDeque::new(),
        };
        let numbers: Vec<u16> = plan.machines.iter().map(|machine| machine.number).collect();
        let mut places = vec![Vec::new(); usize::from(numbers.iter().copied().max().unwrap_or_default()) + 1];
        for (place, machine) in plan.machines.iter().enumerate() {
            places[usize::from(machine.number)].push(place);
            if let Some(list) = machine.twin_of.and_then(|twin| places.get_mut(usize::from(twin))) {
                list.push(place);
            }
        }
        let mut world = World {
            machines: plan.machines.iter().map(machine).collect(),
            network: Network::new(numbers, plan.weather.clone(), dice),
            clients: Clients::new(&plan.loads, dice),
            checks: Checks::new(&plan),
            trace: Trace::new(detail),
            time: 0,
            events: 0,
            counted: BTreeMap::new(),
            caught_up: Vec::new(),
            lost_nodes: Vec::new(),
            outcomes: BTreeMap::new(),
            is_quiet: false,
            dice,
            heap: BinaryHeap::new(),
            pushed: 0,
            rules: Vec::new(),
            places,
            out: Vec::new(),
            scratch: Vec::new(),
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let plan = self.plan.clone();
        for (at, machine) in plan.machines.iter().enumerate() {
            self.push(machine.starts.0, Event::Start { at: at as u32 });
        }
        for (number, timed) in plan.faults.iter().enumerate() {
            self.push(timed.at.0, Event::Fault(number as u32));
        }
        for a in 0..self.machines.len() as u32 {
            (a + 1..self.machines.len() as u32).for_each(|b| self.push(0, Event::Dial { a, b }));
        }
        for (load, planned) in plan.loads.iter().enumerate() {
            self.push(planned.from.0, Event::Burst { load: load as u32 });
            if planned.notices_every.0 > 0 {
                self.push(planned.from.0 + MILLIS, Event::Notice { load: load as u32, n: 0 });
            }
        }
    }

    fn push(&mut self, at: u64, event: Event) {
        self.pushed += 1;
        self.heap.push(Reverse(Queued { at: at.max(self.time), seq: self.pushed, event }));
    }

    /// Lets everything happen that happens up to this time, or until faults should stop because enough has happened.
    pub fn run_until(&mut self, end: u64) -> Result<(), Broken> {
        while let Some(at) = self.heap.peek().map(|first| first.0.at).filter(|at| *at <= end) {
            if !self.is_quiet && self.events >= self.plan.quiet_after_events {
                return Ok(());
            }
            if let Some(Reverse(first)) = self.heap.pop() {
                self.time = at;
                self.events += 1;
                if self.events > self.plan.events_at_most {
                    let most = self.plan.events_at_most;
                    return Err(Broken::new("bounded", format!("more than {most} events in one run")));
                }
                self.happen(first.event)?;
            }
        }
        self.time = end;
        Ok(())
    }

    /// The machine that an event waits for, and in which of its lives.
    fn concerned(event: &Event) -> Option<(usize, Option<u32>)> {
        match event {
            Event::Wake { at, life, .. }
            | Event::Unasked { at, life }
            | Event::Written { at, life }
            | Event::Read { at, life, .. }
            | Event::Worked { at, life, .. }
            | Event::Met { at, life, .. }
            | Event::Parted { at, life, .. } => Some((*at as usize, Some(*life))),
            Event::Arrive { to, .. } => Some((*to as usize, None)),
            Event::Try { at: Some(at), .. } => Some((*at as usize, None)),
            Event::Start { .. }
            | Event::Dial { .. }
            | Event::GoOn { .. }
            | Event::Fault(_)
            | Event::Unblock { .. }
            | Event::Flap { .. }
            | Event::FastDisk { .. }
            | Event::Burst { .. }
            | Event::Try { at: None, .. }
            | Event::Notice { .. } => None,
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        let Some((at, life)) = World::concerned(&event) else { return self.act(event) };
        let time = self.time;
        let machine = &mut self.machines[at];
        if machine.process.is_none() || life.is_some_and(|life| life != machine.life) {
            if let Event::Try { uid, .. } = event {
                self.push(time + 50 * MILLIS, Event::Try { uid, at: None });
            }
            return Ok(());
        }
        // What comes while a machine stands still, or works, waits in its order.
        if machine.pace.free_at > time || !machine.inbox.is_empty() {
            machine.inbox.push_back(event);
            if !machine.pace.wakes {
                machine.pace.wakes = true;
                let free_at = machine.pace.free_at;
                self.push(free_at, Event::GoOn { at: at as u32 });
            }
            return Ok(());
        }
        self.act(event)?;
        self.tires(at);
        Ok(())
    }

    /// A step took its time.
    fn tires(&mut self, at: usize) {
        let (time, each) = (self.time, self.plan.timing.step.0);
        let pace = &mut self.machines[at].pace;
        let each = if pace.slow_until > time { each + pace.slow_each } else { each };
        if each > 0 {
            pace.free_at = pace.free_at.max(time + each);
        }
    }

    /// A machine goes on with what waited for it, as far as its time allows.
    fn go_on(&mut self, at: usize) -> Result<(), Broken> {
        self.machines[at].pace.wakes = false;
        while self.machines[at].pace.free_at <= self.time {
            let Some(event) = self.machines[at].inbox.pop_front() else { return Ok(()) };
            let (_, life) = World::concerned(&event).expect("only what waits for a machine is put there");
            let machine = &self.machines[at];
            if machine.process.is_some() && life.is_none_or(|life| life == machine.life) {
                self.act(event)?;
                self.tires(at);
            }
        }
        let machine = &mut self.machines[at];
        if !machine.inbox.is_empty() && !machine.pace.wakes {
            machine.pace.wakes = true;
            let free_at = machine.pace.free_at;
            self.push(free_at, Event::GoOn { at: at as u32 });
        }
        Ok(())
    }

    fn act(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Start { at } => self.start(at as usize)?,
            Event::Wake { at, n, .. } => self.wake(at as usize, n)?,
            Event::Unasked { at, .. } => self.unasked(at as usize)?,
            Event::Arrive { from, to, epoch, envelope } => self.arrive(from as usize, to as usize, epoch, envelope)?,
            Event::Written { at, .. } => self.written(at as usize)?,
            Event::Read { at, work, .. } => self.read(at as usize, work.0, work.1)?,
            Event::Worked { at, done, .. } => self.worked(at as usize, done.0, done.1)?,
            Event::Dial { a, b } => self.dial(a as usize, b as usize),
            Event::Met { at, peer, epoch, .. } => self.met(at as usize, peer as usize, epoch)?,
            Event::Parted { at, peer, epoch, .. } => self.parted(at as usize, peer as usize, epoch)?,
            Event::GoOn { at } => self.go_on(at as usize)?,
            Event::Fault(number) => self.fault(number as usize)?,
            Event::Unblock { from, to } => self.network.unblock(from as usize, to as usize),
            Event::Flap { fault, until, stands } => self.flap(fault as usize, until, stands),
            Event::FastDisk { at, slowed } => {
                let each = self.plan.timing.disk.0;
                let device = &mut self.machines[at as usize].device;
                if device.slowed == slowed {
                    device.each = each;
                }
            }
            Event::Burst { load } => self.burst(load as usize)?,
            Event::Try { uid, at } => self.try_command(uid, at.map(|at| at as usize))?,
            Event::Notice { load, n } => self.notice(load as usize, n)?,
        }
        Ok(())
    }

    fn burst(&mut self, load: usize) -> Result<(), Broken> {
        if self.is_quiet || self.time >= self.clients.load(load).until.0 {
            return Ok(());
        }
        let (uids, next) = self.clients.burst(load);
        for uid in uids {
            if self.plan.only.commands.as_ref().is_none_or(|only| only.contains(&uid)) {
                self.try_command(uid, None)?;
            }
        }
        if let Some(next) = next {
            self.push(self.time + next, Event::Burst { load: load as u32 });
        }
        Ok(())
    }

    /// A client hands its command to a machine; to any that it may be given to and that is up where none is named.
    fn try_command(&mut self, uid: u64, at: Option<usize>) -> Result<(), Broken> {
        let Some(at) = at.or_else(|| self.choose(uid)) else { return Ok(()) };
        let machine = &mut self.machines[at];
        if machine.pace.free_at > self.time || machine.process.is_none() {
            let when = machine.pace.free_at.max(self.time + MILLIS);
            self.push(when, Event::Try { uid, at: Some(at as u32) });
            return Ok(());
        }
        machine.turns += 1;
        let (number, turn) = (machine.number, machine.turns);
        let attempt = self.clients.attempt(uid, number, turn);
        if let Some(process) = self.machines[at].process.as_mut() {
            process.tickets.insert(attempt.ticket);
        }
        let now = self.machines[at].clock.now(self.time);
        self.checks.asked(at, now, attempt.ticket, uid)?;
        let seen = attempt.ticket.0;
        let input = Input::Command { ticket: attempt.ticket, id: attempt.id, command: attempt.command };
        self.step(at, input, Given::Command, seen)
    }

    fn choose(&self, uid: u64) -> Option<usize> {
        let only = self.clients.nodes(uid);
        let may = |at: &usize| {
            let machine = &self.machines[*at];
            machine.is_up() && (only.is_empty() || only.contains(&machine.number))
        };
        let up = (0..self.machines.len()).filter(may).count() as u64;
        let nth = self.dice.roll(Site::Attempt, uid, u64::from(self.clients.tried(uid))).below(up) as usize;
        (0..self.machines.len()).filter(may).nth(nth)
    }

    /// A node sees something now and then, and sends signals.
    fn notice(&mut self, load: usize, n: u64) -> Result<(), Broken> {
        let planned = self.clients.load(load);
        if self.is_quiet || self.time >= planned.until.0 {
            return Ok(());
        }
        let every = planned.notices_every.0;
        let mut roll = self.dice.roll(Site::Notice, u64::from(planned.number), n);
        let at = roll.below(self.machines.len() as u64) as usize;
        let machine = &self.machines[at];
        if machine.is_up() && machine.pace.free_at <= self.time {
            let input = match n % 3 {
                0 => Input::Observe(Seen { key: n % 5, value: n / 7 }),
                1 => Input::Telemetry(n),
                _ => Input::Transient { to: None, transient: n },
            };
            self.step(at, input, Given::Other, n)?;
        }
        self.push(self.time + roll.between(every / 4, every * 2), Event::Notice { load: load as u32, n: n + 1 });
        Ok(())
    }

    /// Asks for one more command, one of those that nothing refuses, at this machine.
    pub fn ask_last(&mut self, at: usize) {
        let uid = self.clients.last();
        self.push(self.time, Event::Try { uid, at: Some(at as u32) });
    }

    /// Every machine's view, of those that are up.
    pub fn views(&self) -> Vec<(u16, Option<View>)> {
        let view = |machine: &Machine| {
            let now = machine.clock.now(self.time);
            (machine.number, machine.node().map(|node| node.view(now.at)))
        };
        self.machines.iter().map(view).collect()
    }

    fn process(&mut self, at: usize) -> &mut Process {
        self.machines[at].process.as_mut().expect("the machine was found to be up")
    }

    /// Looks up what draws lateness and spares: between nothing and `most`.
    fn late(&self, at: usize, when: u64) -> u64 {
        let most = self.plan.timing.late.0 / MICROS;
        if most == 0 {
            return 0;
        }
        self.dice.roll(Site::Wake, u64::from(self.machines[at].number), when).below(most + 1) * MICROS
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Queued) -> Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}
