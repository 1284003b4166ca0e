//! A gateway and modelled workers over a network that loses, doubles and reorders: each stream ends exactly once, what a
//! client got is what was sent as far as it goes, and an answer that ends well is whole. Where every loss can be
//! repaired, all answers are whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use lockstep_replication::io::{NotTaken, Unknown};
use lockstep_replication::rng::Rng;
use lockstep_replication::{Hash, Index, Liveness, Moment, NodeId, Now, Seed, Span, Wall};

use super::stage::ME;
use crate::command::Command;
use crate::gateway::{Failure, Gateway, GatewayConfig, GatewayInput, GatewayOutput, StreamId, StreamPart};
use crate::id::TaskId;
use crate::refusal::Refusal;
use crate::state::{State, TaskKind, TaskOutcome, TaskStatus};
use crate::testing::{Cluster, create_instance, model};
use crate::transient::{Attempt, InputChunk, StopReason, TokenChunk, TokenPart, Transient, Usage};

const TICK: Span = Span::millis(7);
const PART_BYTES: usize = 8;

/// What the network and the people do.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// Losses that can be repaired.
    Repairable,
    /// Anything.
    Wild,
    /// Nothing any more.
    Calm,
}

struct World {
    cluster: Cluster,
    gateway: Gateway,
    /// What the gateway's node has of the state.
    seen: (State, Index),
    workers: BTreeMap<u8, Worker>,
    clients: BTreeMap<StreamId, Client>,
    now: Moment,
    rng: Rng,
    mood: Mood,
    post: Vec<(Moment, NodeId, NodeId, Transient)>,
    /// How often something was lost.
    losses: BTreeMap<String, u32>,
    /// Creations on their way to the leader, and their outcomes on the way back.
    creations: Vec<(StreamId, Command)>,
    outcomes: Vec<(StreamId, Result<Index, Failure>)>,
    /// Where tasks were created: a second creation of one name does nothing.
    created: BTreeMap<TaskId, Index>,
    /// How many instances there were.
    instances: u8,
    /// All that the gateway asked for.
    log: String,
}

struct Client {
    task: TaskId,
    text: String,
    last: Option<Result<(), Failure>>,
    untaken: u64,
    closed: bool,
    reads: bool,
}

#[derive(Default)]
struct Worker {
    lost: bool,
    works: BTreeMap<TaskId, Work>,
}

#[derive(Default)]
struct Work {
    parts: BTreeMap<u32, InputChunk>,
    asked: Moment,
    sent: u64,
    said: Vec<TokenPart>,
}

/// What the model answers to a task.
fn answer(task: TaskId) -> Vec<String> {
    let words = u64::from(task.0[0]) * 7 % 40;
    (0..words).map(|n| format!("{}.{n} ", task.0[0])).collect()
}

fn token(task: TaskId, n: u64, part: TokenPart) -> Transient {
    Transient::Token(TokenChunk { task, n, part, attempt: Attempt(1) })
}

fn request(task: TaskId) -> Bytes {
    vec![task.0[0]; usize::from(task.0[0]) % 50].into()
}

impl World {
    fn new(seed: u64, mood: Mood) -> World {
        let cluster = Cluster::with_instances(&[&[1, 2], &[3]]);
        let config = GatewayConfig {
            part_bytes: PART_BYTES,
            parts_at_once: 2,
            untaken_bytes: 30 * 64,
            ..GatewayConfig::default()
        };
        World {
            seen: (cluster.state.clone(), Index(cluster.events)),
            cluster,
            gateway: Gateway::new(ME, config, Seed::from_number(seed)),
            workers: [1, 2, 3].map(|node| (node, Worker::default())).into(),
            clients: BTreeMap::new(),
            now: Moment(1),
            rng: Seed::from_number(seed).fork("world").rng(),
            mood,
            post: vec![],
            losses: BTreeMap::new(),
            creations: vec![],
            outcomes: vec![],
            created: BTreeMap::new(),
            instances: 2,
            log: String::new(),
        }
    }

    fn run(&mut self, span: Span) {
        let until = self.now + span;
        while self.now < until {
            self.now = self.now + TICK;
            if self.mood == Mood::Wild {
                self.trouble();
            }
            self.lead();
            for node in [1, 2, 3] {
                self.work(node);
            }
            self.deliver();
            // The gateway's node hears of some states and skips others.
            if self.rng.chance(1, 3) {
                self.seen = (self.cluster.state.clone(), Index(self.cluster.events));
                self.step(GatewayInput::Changed);
            }
            for (stream, result) in std::mem::take(&mut self.outcomes) {
                self.step(GatewayInput::Submitted { stream, result });
            }
            self.read();
            if self.gateway.next_wake().is_some_and(|at| at <= self.now) {
                self.step(GatewayInput::Wake);
            }
        }
    }

    fn open(&mut self, n: u8) {
        let (stream, task) = (StreamId(n.into()), TaskId([n; 16]));
        let reads = self.mood != Mood::Wild || !self.rng.chance(1, 8);
        let client = Client { task, text: String::new(), last: None, untaken: 0, closed: false, reads };
        self.clients.insert(stream, client);
        let (kind, input) = (TaskKind::Chat { max_tokens: 9 }, request(task));
        self.step(GatewayInput::Open { stream, model: model("a"), kind, input, task });
    }

    fn step(&mut self, input: GatewayInput) {
        let now = Now { at: self.now, wall: Wall(0) };
        let mut out = vec![];
        self.gateway.step(now, &self.seen.0, self.seen.1, input, &mut out);
        assert!(self.gateway.next_wake().is_none_or(|at| at > self.now), "L3");
        for output in out {
            writeln!(self.log, "{:?}: {output:?}", self.now).unwrap();
            match output {
                GatewayOutput::Create { stream, command } => self.creations.push((stream, command)),
                GatewayOutput::Submit(command) => {
                    if self.mood != Mood::Wild || self.rng.chance(2, 3) {
                        self.cluster.ask(command).ok();
                    }
                }
                GatewayOutput::Send { to, transient } => self.send(ME, to, transient),
                GatewayOutput::Deliver { stream, part } => self.clients.get_mut(&stream).unwrap().get(part),
            }
        }
    }

    fn trouble(&mut self) {
        let n = self.rng.below(200) as u8;
        let node = 1 + self.rng.below(3) as u8;
        match n {
            0 => {
                let lost = !self.workers[&node].lost;
                self.cluster.hear(node, if lost { Liveness::Lost } else { Liveness::Heard });
                self.workers.get_mut(&node).unwrap().lost = lost;
            }
            1 if self.rng.chance(1, 4) && self.instances < 40 => {
                let first = *self.cluster.state.instances.keys().next().unwrap();
                self.cluster.ask(Command::DeleteInstance { instance: first }).unwrap();
                let nodes: &[u8] = if node == 1 { &[1, 2] } else { &[node] };
                if self.cluster.ask(create_instance(self.instances, "a", nodes)).is_err() {
                    // The node is lost; another is not.
                    let up = *self.workers.iter().find(|(_, worker)| !worker.lost).map_or(&1, |(node, _)| node);
                    self.cluster.hear(up, Liveness::Heard);
                    self.workers.get_mut(&up).unwrap().lost = false;
                    self.cluster.ask(create_instance(self.instances, "a", &[up])).unwrap();
                }
                self.instances += 1;
            }
            2 => {
                let task = TaskId([1 + self.rng.below(60) as u8; 16]);
                self.cluster.ask(Command::CancelTask { task }).ok();
            }
            3 => {
                let stream = StreamId(1 + self.rng.below(60));
                if let Some(client) = self.clients.get_mut(&stream).filter(|client| client.last.is_none()) {
                    client.closed = true;
                    self.step(GatewayInput::Closed { stream });
                }
            }
            _ => {}
        }
    }

    /// The leader decides; who asked may never know.
    fn lead(&mut self) {
        for (stream, command) in std::mem::take(&mut self.creations) {
            if self.rng.chance(1, 2) {
                self.creations.push((stream, command));
                continue;
            }
            let fate = if self.mood == Mood::Calm { 9 } else { self.rng.below(10) };
            if fate == 0 {
                self.outcomes.push((stream, Err(Failure::Unknown(Unknown::TimedOut))));
                continue;
            }
            if fate == 1 && self.mood == Mood::Wild {
                self.outcomes.push((stream, Err(Failure::NotTaken(NotTaken::Full))));
                continue;
            }
            let Command::CreateTask { task: Some(task), input, .. } = &command else { panic!("{command:?}") };
            let (task, index) = (*task, Index(self.cluster.events));
            assert_eq!(input.hash, Hash::of(&request(task)));
            let result = match self.created.get(&task) {
                Some(index) if !self.cluster.state.tasks.contains_key(&task) => Ok(*index),
                Some(_) | None => self.cluster.ask(command).map(|_| index),
            };
            if let Ok(index) = result {
                self.created.insert(task, index);
            }
            let result = match (fate, result) {
                (2, _) => Err(Failure::Unknown(Unknown::Contested)),
                (_, result) => result.map_err(Failure::Refused),
            };
            self.outcomes.push((stream, result));
        }
    }

    /// What a worker does for the tasks of its node.
    fn work(&mut self, node: u8) {
        let me = NodeId::example(node);
        let mut worker = self.workers.remove(&node).unwrap();
        let tasks: Vec<_> = self.cluster.state.tasks.iter().map(|(id, task)| (*id, task.clone())).collect();
        for (id, task) in tasks.iter().filter(|_| !worker.lost) {
            let ranks = &self.cluster.state.instances[&task.instance].ranks;
            let Some(rank) = ranks.iter().position(|rank| rank.node == me) else { continue };
            let runner = ranks[rank].runner;
            let work = worker.works.entry(*id).or_default();
            let of = work.parts.values().next().map(|part| part.of);
            if of != Some(work.parts.len() as u32) {
                if self.now.since(work.asked) > Span::millis(500) {
                    work.asked = self.now;
                    let parts = (0..of.unwrap_or(0)).filter(|n| !work.parts.contains_key(n)).collect();
                    self.send(me, ME, Transient::InputMissing { task: *id, parts });
                }
                continue;
            }
            let whole: Vec<u8> = work.parts.values().flat_map(|part| part.bytes.to_vec()).collect();
            assert_eq!(whole, request(*id), "the request arrives as it was");
            if work.sent == 0 && rank == 0 && task.status == TaskStatus::Pending {
                self.send(me, ME, Transient::Acknowledged { task: *id, runner });
                self.cluster.ask(Command::StartTask { task: *id }).unwrap();
            } else if rank != 0 {
                if work.sent == 0 {
                    work.sent = 1;
                    self.send(me, ME, Transient::Acknowledged { task: *id, runner });
                }
            } else {
                let words = answer(*id);
                for _ in 0..self.rng.below(4) {
                    let n = work.said.len();
                    if matches!(work.said.last(), Some(TokenPart::End { .. })) {
                        break;
                    }
                    let usage = Usage { prompt_tokens: 0, completion_tokens: words.len() as u64 };
                    let part = match words.get(n) {
                        Some(word) => TokenPart::Text(word.clone()),
                        None => TokenPart::End { stop: StopReason::Stop, usage },
                    };
                    work.said.push(part.clone());
                    work.sent += 1;
                    self.send(me, ME, token(*id, n as u64, part));
                }
                if matches!(work.said.last(), Some(TokenPart::End { .. })) {
                    let outcome = TaskOutcome::Done { tokens: words.len() as u64 };
                    self.cluster.ask(Command::FinishTask { task: *id, outcome }).unwrap();
                }
            }
        }
        self.workers.insert(node, worker);
    }

    fn send(&mut self, from: NodeId, to: NodeId, transient: Transient) {
        let key = match &transient {
            Transient::Token(chunk) => format!("{:?} {}", chunk.task, chunk.n),
            Transient::TokensMissing { task, from } => format!("{task:?} {from} asked"),
            Transient::Input(_)
            | Transient::InputMissing { .. }
            | Transient::Trace(_)
            | Transient::Acknowledged { .. } => format!("{transient:?}"),
        };
        // A part and one of its repeats may go, and one request for it: the third request then fetches it.
        let most = if matches!(transient, Transient::TokensMissing { .. }) { 1 } else { 2 };
        let lost = self.losses.entry(key).or_default();
        let goes = match self.mood {
            Mood::Repairable => *lost < most && self.rng.chance(1, 4),
            Mood::Wild => self.rng.chance(1, 3),
            Mood::Calm => false,
        };
        if goes {
            *lost += 1;
            return;
        }
        let copies = if self.mood != Mood::Calm && self.rng.chance(1, 10) { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now + Span::millis(self.rng.below(40));
            self.post.push((at, from, to, transient.clone()));
        }
    }

    fn deliver(&mut self) {
        let (due, later) = std::mem::take(&mut self.post).into_iter().partition(|(at, ..)| *at <= self.now);
        self.post = later;
        let due: Vec<(Moment, NodeId, NodeId, Transient)> = due;
        for (_, from, to, transient) in due {
            if to == ME {
                self.step(GatewayInput::Transient { from, transient });
                continue;
            }
            let worker = self.workers.get_mut(&to.0[0]).unwrap();
            if worker.lost {
                continue;
            }
            match transient {
                Transient::Input(part) => drop(worker.works.entry(part.task).or_default().parts.insert(part.n, part)),
                Transient::TokensMissing { task, from: first } => {
                    let said = worker.works.get(&task).map(|work| work.said.clone()).unwrap_or_default();
                    for (n, part) in (0..).zip(said).skip(first as usize).take(5) {
                        self.send(to, ME, token(task, n, part));
                    }
                }
                Transient::Token(_)
                | Transient::InputMissing { .. }
                | Transient::Trace(_)
                | Transient::Acknowledged { .. } => panic!("{transient:?} to a worker"),
            }
        }
    }

    fn read(&mut self) {
        let streams: Vec<StreamId> = self.clients.keys().copied().collect();
        for stream in streams {
            let client = self.clients.get_mut(&stream).unwrap();
            if client.reads && client.untaken > 0 && !client.closed {
                let chunks = std::mem::take(&mut client.untaken);
                self.step(GatewayInput::Taken { stream, chunks });
            }
        }
    }
}

impl Client {
    fn get(&mut self, part: StreamPart) {
        assert!(self.last.is_none() && !self.closed, "nothing follows the end: {:?} {part:?}", self.task);
        match part {
            StreamPart::Text(text) => {
                self.text.push_str(&text);
                self.untaken += 1;
            }
            StreamPart::End { stop, usage } => {
                let words = answer(self.task);
                assert_eq!((stop, usage.completion_tokens), (StopReason::Stop, words.len() as u64));
                assert_eq!(self.text, words.concat(), "what ended well is whole");
                self.last = Some(Ok(()));
            }
            StreamPart::Failed(failure) => self.last = Some(Err(failure)),
        }
        assert!(answer(self.task).concat().starts_with(&self.text), "{:?}", self.text);
    }
}

/// Runs a world until all is quiet; the gateway forgot everything.
fn played(seed: u64, mood: Mood, streams: u8) -> World {
    let mut world = World::new(seed, mood);
    for n in 1..=streams {
        world.open(n);
        let pause = world.rng.below(30);
        world.run(Span::millis(pause));
    }
    world.run(Span::seconds(5));
    world.mood = Mood::Calm;
    for node in [1, 2, 3] {
        world.cluster.hear(node, Liveness::Heard);
        world.workers.get_mut(&node).unwrap().lost = false;
    }
    world.run(Span::seconds(45));
    for client in world.clients.values() {
        assert!(client.closed != client.last.is_some(), "seed {seed}: {:?} ends once", client.task);
    }
    let view = world.gateway.view();
    assert_eq!((view.streams, view.input_bytes, view.calling_off), (0, 0, 0), "seed {seed}");
    assert!(world.cluster.state.tasks.is_empty(), "seed {seed}: no task without a client");
    assert_eq!(world.gateway.next_wake(), None, "seed {seed}");
    world
}

#[test]
fn what_can_be_repaired_is_repaired() {
    let mut asked = 0;
    for seed in 0..20 {
        let world = played(seed, Mood::Repairable, 60);
        for client in world.clients.values() {
            assert_eq!(client.last, Some(Ok(())), "seed {seed}: {:?}", client.task);
        }
        asked += world.gateway.view().counts.holes_asked;
    }
    assert!(asked > 1000, "the network was too good: {asked}");
}

#[test]
fn every_stream_ends_once_whatever_happens() {
    let mut ends = BTreeSet::new();
    for seed in 0..60 {
        let world = played(seed, Mood::Wild, 60);
        for client in world.clients.values() {
            ends.insert(match &client.last {
                None => "closed",
                Some(Ok(())) => "whole",
                Some(Err(Failure::Refused(Refusal::NoneAvailable { .. } | Refusal::NoInstance { .. }))) => "refused",
                Some(Err(Failure::NotTaken(_))) => "not taken",
                Some(Err(Failure::TaskGone)) => "task gone",
                Some(Err(Failure::InstanceGone(_))) => "instance gone",
                Some(Err(Failure::NodeGone(_))) => "node gone",
                Some(Err(Failure::TokensLost(_))) => "tokens lost",
                Some(Err(Failure::TooSlow { .. })) => "too slow",
                Some(Err(other)) => panic!("seed {seed}: {other:?}"),
            });
        }
    }
    let all = ["closed", "instance gone", "node gone", "not taken", "refused", "task gone", "too slow", "whole"];
    assert!(all.iter().all(|end| ends.contains(end)), "{ends:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(played(7, Mood::Wild, 40).log, played(7, Mood::Wild, 40).log);
}
