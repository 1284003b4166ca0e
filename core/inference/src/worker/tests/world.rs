//! Three workers, played runners and gateways under random faults: whatever happened, when things are quiet each
//! rank has its process and no other, cards are mirrored, tasks end, and no answer is a mixture of two. A worker that
//! joins late and sees the last state alone ends with the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use lockstep_replication::rng::Rng;
use lockstep_replication::{Index, Liveness, Moment, NodeId, Now, Seed, Span, Wall};

use super::stage::{INPUT, create, name};
use crate::command::Command;
use crate::id::{ModelId, RunnerId, TaskId};
use crate::observation::Observation;
use crate::runner::{FromRunner, ToRunner, VERSION};
use crate::state::{ModelCard, RunnerStatus, State};
use crate::testing::{Cluster, card, create_instance, instance, model, task};
use crate::transient::{InputChunk, StopReason, TokenPart, Transient, Usage};
use crate::worker::{RunnerSaid, Worker, WorkerConfig, WorkerInput, WorkerOutput};

const NODES: [u8; 3] = [1, 2, 3];
const TICK: Span = Span::millis(50);

struct World {
    cluster: Cluster,
    nodes: BTreeMap<u8, Machine>,
    now: Moment,
    rng: Rng,
    faults: bool,
    /// What gateways got: each piece of each task.
    answers: BTreeMap<(TaskId, u64), TokenPart>,
    /// What is on its way: from, to, what.
    post: Vec<(u8, u8, Transient)>,
    tasks: u8,
    instances: u8,
}

struct Machine {
    worker: Worker,
    /// What it last saw.
    state: State,
    events: u64,
    outbox: BTreeMap<u64, Observation>,
    commands: VecDeque<Command>,
    processes: BTreeMap<RunnerId, Process>,
    inputs: VecDeque<WorkerInput>,
    disk: BTreeMap<ModelId, ModelCard>,
    starts: u64,
}

struct Process {
    life: u64,
    /// Unlike that of any other process.
    name: String,
    told: VecDeque<ToRunner>,
    connects: bool,
    /// The processes of the other ranks that it found.
    peers: BTreeMap<RunnerId, String>,
    tasks: BTreeMap<TaskId, u64>,
    hangs: bool,
    dies: Option<Moment>,
}

impl Machine {
    fn new(node: u8, seed: u64, starts: u64) -> Machine {
        let config = WorkerConfig {
            starts: u32::MAX,
            longest_wait: Span::seconds(5),
            connect: Span::seconds(10),
            hello: Span::seconds(10),
            warm_up: Span::seconds(20),
            silence: Span::seconds(10),
            ..WorkerConfig::default()
        };
        Machine {
            worker: Worker::new(NodeId::example(node), config, Seed::from_number(seed * 1000 + starts)),
            state: State::default(),
            events: 0,
            outbox: BTreeMap::new(),
            commands: VecDeque::new(),
            processes: BTreeMap::new(),
            inputs: VecDeque::new(),
            disk: BTreeMap::new(),
            starts,
        }
    }
}

impl World {
    fn new(seed: u64) -> World {
        World {
            cluster: Cluster::new(),
            nodes: NODES.map(|node| (node, Machine::new(node, seed, 0))).into(),
            now: Moment(1),
            rng: Seed::from_number(seed).fork("world").rng(),
            faults: true,
            answers: BTreeMap::new(),
            post: vec![],
            tasks: 0,
            instances: 0,
        }
    }

    fn run(&mut self, span: Span) {
        let until = self.now + span;
        while self.now < until {
            self.now = self.now + TICK;
            if self.faults {
                self.trouble();
            }
            NODES.iter().for_each(|node| self.live(*node));
            self.deliver();
        }
    }

    /// What people do, and what goes wrong.
    fn trouble(&mut self) {
        let node = NODES[self.rng.below(3) as usize];
        match self.rng.below(120) {
            0 if self.instances < 40 => {
                let mut nodes: Vec<u8> = NODES.into();
                let first = self.rng.below(3) as usize;
                nodes.rotate_left(first);
                nodes.truncate(1 + self.rng.below(3) as usize);
                self.instances += 1;
                drop(self.cluster.ask(create_instance(self.instances, "a", &nodes)));
            }
            1 => {
                let n = self.rng.below(u64::from(self.instances) + 1) as u8;
                drop(self.cluster.ask(Command::DeleteInstance { instance: instance(n) }));
            }
            // The same id again, on other nodes: two changes that may be seen as one.
            2 => {
                let n = self.rng.below(u64::from(self.instances) + 1) as u8;
                let deleted = self.cluster.ask(Command::DeleteInstance { instance: instance(n) });
                drop(deleted.and_then(|_| self.cluster.ask(create_instance(n, "a", &[node]))));
            }
            3..10 if self.tasks < 250 => {
                self.tasks += 1;
                drop(self.cluster.ask(create(self.tasks, Some(NodeId::example(node)))));
            }
            10 => {
                let n = self.rng.below(u64::from(self.tasks) + 1) as u8;
                drop(self.cluster.ask(Command::CancelTask { task: task(n) }));
            }
            11 => {
                let name = format!("c{}", self.rng.below(4));
                let custom = ModelCard { custom: self.rng.chance(3, 4), ..card(1 + self.rng.below(3) as u32) };
                drop(self.cluster.ask(Command::AddCard { model: model(&name), card: custom }));
                let name = format!("c{}", self.rng.below(4));
                drop(self.cluster.ask(Command::DeleteCard { model: model(&name) }));
            }
            12 => {
                let lost = if self.rng.chance(1, 2) { Liveness::Lost } else { Liveness::Heard };
                self.cluster.hear(node, lost);
            }
            13 => self.restart(node),
            14..18 => {
                let at = self.rng.below(8) as usize;
                let kind = self.rng.below(3);
                let machine = self.nodes.get_mut(&node).unwrap();
                let Some((runner, process)) = machine.processes.iter_mut().nth(at % 4) else { return };
                let (runner, life) = (*runner, process.life);
                let said = match kind {
                    0 => {
                        machine.processes.remove(&runner);
                        RunnerSaid::Ended { reason: "killed by signal 9".into() }
                    }
                    1 => RunnerSaid::Garbage("line 1 is no JSON".into()),
                    _ => {
                        process.hangs = true;
                        return;
                    }
                };
                machine.inputs.push_back(WorkerInput::Runner { runner, life, said });
            }
            _ => {}
        }
    }

    fn restart(&mut self, node: u8) {
        let seed = self.rng.number() % 1000;
        let old = self.nodes.get_mut(&node).unwrap();
        let mut new = Machine::new(node, seed, old.starts + 1);
        // The disk stays; what was to be ordered is lost.
        new.disk = std::mem::take(&mut old.disk);
        *old = new;
    }

    fn live(&mut self, node: u8) {
        let lags = self.faults && self.rng.chance(1, 4);
        let machine = self.nodes.get_mut(&node).unwrap();
        if !(self.faults && self.rng.chance(1, 3)) {
            std::mem::take(&mut machine.outbox).into_values().for_each(|seen| drop(self.cluster.see(node, seen)));
            machine.commands.drain(..).for_each(|command| drop(self.cluster.ask(command)));
        }
        if !lags && machine.events != self.cluster.events {
            (machine.state, machine.events) = (self.cluster.state.clone(), self.cluster.events);
            self.step(node, WorkerInput::Changed);
        }
        self.play(node);
        while let Some(input) = self.nodes.get_mut(&node).unwrap().inputs.pop_front() {
            self.step(node, input);
        }
        if self.nodes[&node].worker.next_wake().is_some_and(|at| at <= self.now) {
            self.step(node, WorkerInput::Wake);
        }
    }

    fn step(&mut self, node: u8, input: WorkerInput) {
        let machine = self.nodes.get_mut(&node).unwrap();
        let mut out = vec![];
        let now = Now { at: self.now, wall: Wall(0) };
        machine.worker.step(now, &machine.state, Index(machine.events), input, &mut out);
        assert!(machine.worker.next_wake().is_none_or(|at| at > self.now), "L3 on node {node}");
        for output in out {
            match output {
                WorkerOutput::Observe(observation) => drop(machine.outbox.insert(observation.key(), observation)),
                WorkerOutput::Submit(command) => machine.commands.push_back(command),
                WorkerOutput::Send { to, transient } => self.post.push((node, to.0[0], transient)),
                WorkerOutput::Start { runner, life, .. } => {
                    let process = Process {
                        life,
                        name: format!("{node}/{}/{life}", machine.starts),
                        told: VecDeque::new(),
                        connects: false,
                        peers: BTreeMap::new(),
                        tasks: BTreeMap::new(),
                        hangs: false,
                        dies: None,
                    };
                    let before = machine.processes.insert(runner, process);
                    assert!(before.is_none(), "two processes for {runner:?} on node {node}");
                }
                WorkerOutput::Tell { runner, life, message } => {
                    if let Some(process) = machine.processes.get_mut(&runner).filter(|process| process.life == life) {
                        process.told.push_back(message);
                    }
                }
                WorkerOutput::End { runner, life, grace } => {
                    if let Some(process) = machine.processes.get_mut(&runner).filter(|process| process.life == life) {
                        process.dies = Some(self.now + grace);
                    }
                }
                WorkerOutput::Mirror { cards, whole } => {
                    if whole {
                        machine.disk.clear();
                    }
                    for (model, card) in cards {
                        match card {
                            Some(card) => drop(machine.disk.insert(model, (*card).clone())),
                            None => drop(machine.disk.remove(&model)),
                        }
                    }
                }
                WorkerOutput::Busy(_) => {}
            }
        }
    }

    /// The processes of a node do what they were told.
    fn play(&mut self, node: u8) {
        let connecting: BTreeMap<RunnerId, String> = self
            .nodes
            .values()
            .flat_map(|machine| &machine.processes)
            .filter(|(_, process)| process.connects && process.dies.is_none())
            .map(|(runner, process)| (*runner, process.name.clone()))
            .collect();
        let Machine { processes, inputs, state, .. } = self.nodes.get_mut(&node).unwrap();
        let mut ended = vec![];
        for (runner, process) in processes.iter_mut() {
            let life = process.life;
            let mut says = |message| {
                inputs.push_back(WorkerInput::Runner { runner: *runner, life, said: RunnerSaid::Message(message) });
            };
            if process.dies.is_some_and(|at| at <= self.now) {
                ended.push((*runner, life));
                continue;
            }
            if process.hangs || self.rng.chance(1, 4) {
                continue;
            }
            match process.told.front() {
                None => {}
                Some(ToRunner::Hello { .. }) => says(FromRunner::Hello { version: VERSION, tasks: 2 }),
                Some(ToRunner::Connect) => {
                    process.connects = true;
                    let ranks = state.runners.get(runner).and_then(|it| state.instances.get(&it.instance));
                    let Some(ranks) = ranks.map(|made| &made.ranks) else { continue };
                    let others = ranks.iter().filter(|rank| rank.runner != *runner);
                    let found: Option<BTreeMap<RunnerId, String>> =
                        others.map(|rank| Some((rank.runner, connecting.get(&rank.runner)?.clone()))).collect();
                    let Some(found) = found else { continue };
                    process.peers = found;
                    says(FromRunner::Connected);
                }
                Some(ToRunner::Load) => says(FromRunner::Loaded),
                Some(ToRunner::WarmUp) => says(FromRunner::Ready),
                Some(ToRunner::Task { task, input, .. }) => {
                    assert_eq!(input.to_string(), INPUT);
                    assert!(process.tasks.len() < 2, "more tasks than it takes");
                    process.tasks.insert(*task, 0);
                    says(FromRunner::Started { task: *task });
                }
                Some(ToRunner::Cancel { task }) => {
                    process.tasks.remove(task);
                }
                Some(ToRunner::ShutDown) => {
                    ended.push((*runner, life));
                    continue;
                }
            }
            process.told.pop_front();
            // Without the others there is nothing to answer with.
            let whole = process.peers.iter().all(|(peer, name)| connecting.get(peer) == Some(name));
            let mut done = vec![];
            for (task, said) in process.tasks.iter_mut().filter(|_| whole) {
                *said += 1;
                if *said <= 5 {
                    says(FromRunner::Token { task: *task, text: format!("{} ", process.name) });
                } else {
                    let usage = Usage { prompt_tokens: 1, completion_tokens: 5 };
                    says(FromRunner::Done { task: *task, stop: StopReason::Stop, usage });
                    done.push(*task);
                }
            }
            process.tasks.retain(|task, _| !done.contains(task));
        }
        for (runner, life) in ended {
            processes.remove(&runner);
            let said = RunnerSaid::Ended { reason: "exit status 0".into() };
            inputs.push_back(WorkerInput::Runner { runner, life, said });
        }
    }

    /// Gateways answer; some of it is lost.
    fn deliver(&mut self) {
        for (from, to, transient) in std::mem::take(&mut self.post) {
            if self.faults && self.rng.chance(1, 5) {
                continue;
            }
            match transient {
                Transient::Token(chunk) => {
                    let known = self.answers.entry((chunk.task, chunk.n)).or_insert_with(|| chunk.part.clone());
                    // An error may end what came without it.
                    let same = *known == chunk.part || matches!(chunk.part, TokenPart::Error(_));
                    assert!(same, "two answers to {:?}: {known:?} and {:?}", chunk.task, chunk.part);
                }
                Transient::InputMissing { task, .. } => {
                    let bytes = Bytes::from_static(INPUT.as_bytes());
                    let chunk = InputChunk { task, input: name().hash, n: 0, of: 1, bytes };
                    let input =
                        WorkerInput::Transient { from: NodeId::example(to), transient: Transient::Input(chunk) };
                    self.nodes.get_mut(&from).unwrap().inputs.push_back(input);
                }
                Transient::Acknowledged { .. } | Transient::Trace(_) => {}
                Transient::TokensMissing { .. } | Transient::Input(_) => panic!("no worker says {transient:?}"),
            }
        }
    }

    /// Faults stop; all nodes are there.
    fn calm(&mut self) {
        self.faults = false;
        NODES.iter().for_each(|node| drop(self.cluster.hear(*node, Liveness::Heard)));
        self.run(Span::seconds(240));
    }

    /// What must be so when things are quiet.
    fn check(&self, seed: u64) {
        let state = &self.cluster.state;
        assert!(state.tasks.is_empty(), "seed {seed}: {:?}", state.tasks);
        for (runner, shown) in &state.runners {
            assert_eq!(shown.status, RunnerStatus::Ready, "seed {seed}: {runner:?} on {:?}", shown.node);
        }
        let custom = state.cards.iter().filter(|(_, card)| card.custom);
        let custom: BTreeMap<ModelId, ModelCard> = custom.map(|(id, card)| (id.clone(), (**card).clone())).collect();
        for (node, machine) in &self.nodes {
            let wanted = state.runners.iter().filter(|(_, runner)| runner.node == NodeId::example(*node));
            let wanted: BTreeSet<RunnerId> = wanted.map(|(runner, _)| *runner).collect();
            assert_eq!(machine.processes.keys().copied().collect::<BTreeSet<_>>(), wanted, "seed {seed}, node {node}");
            assert_eq!(machine.disk, custom, "seed {seed}, node {node}");
            let view = machine.worker.view();
            assert_eq!((view.tasks, view.wishes, view.input_bytes, view.answer_bytes), (0, 0, 0, 0), "seed {seed}");
            assert!(view.failed_instances.iter().all(|instance| state.instances.contains_key(instance)));
            assert_eq!(machine.worker.next_wake(), None, "seed {seed}: an idle worker sleeps");
        }
    }
}

#[test]
fn whatever_happened_all_ends_well_and_a_late_joiner_ends_the_same() {
    let mut rounds_void = 0;
    for seed in 0..60 {
        let mut world = World::new(seed);
        world.run(Span::seconds(120));
        world.calm();
        world.check(seed);
        rounds_void += world.nodes.values().map(|machine| machine.worker.view().counts.rounds_void).sum::<u64>();
        let runners = |world: &World| -> BTreeSet<(u8, RunnerId)> {
            let of = |(node, machine): (&u8, &Machine)| -> Vec<(u8, RunnerId)> {
                machine.processes.keys().map(|runner| (*node, *runner)).collect()
            };
            world.nodes.iter().flat_map(of).collect()
        };
        let (before, disk) = (runners(&world), world.nodes[&2].disk.clone());
        // Node 2 comes back with nothing, and sees the last state alone.
        world.restart(2);
        world.nodes.get_mut(&2).unwrap().disk = [(model("stale"), card(1))].into();
        world.calm();
        world.check(seed);
        assert_eq!((runners(&world), &world.nodes[&2].disk), (before, &disk), "seed {seed}");
    }
    assert!(rounds_void > 100, "{rounds_void}: the seeds are too tame");
}
