//! A worker on node 1, with a cluster that does what it asks and runners whose lines are in the tests.

use lockstep_replication::{Hash, Index, Moment, NodeId, Now, Seed, Span, Wall};
use sha2::{Digest, Sha256};

use crate::command::Command;
use crate::id::RunnerId;
use crate::observation::Observation;
use crate::runner::{FromRunner, ToRunner, VERSION};
use crate::state::{InputName, RunnerStatus, TaskKind};
use crate::testing::{Cluster, instance, model, task};
use crate::transient::{InputChunk, TokenPart, Transient};
use crate::worker::{RunnerSaid, Worker, WorkerConfig, WorkerInput, WorkerOutput};

pub(super) const ME: NodeId = NodeId::example(1);
pub(super) const INPUT: &str = r#"{"messages":[]}"#;

pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) worker: Worker,
    pub(super) now: Moment,
    /// What the cluster has not ordered yet.
    pub(super) asked: Vec<WorkerOutput>,
}

impl Stage {
    /// The cluster has these instances of model `a`, and the worker has seen them.
    pub(super) fn with(instances: &[&[u8]]) -> (Stage, Vec<String>) {
        let mut stage = Stage {
            cluster: Cluster::with_instances(instances),
            worker: Worker::new(ME, WorkerConfig::default(), Seed::from_number(1)),
            now: Moment(1_000_000_000),
            asked: vec![],
        };
        let said = stage.step(WorkerInput::Changed);
        (stage, said)
    }

    /// The same with one instance on this node alone, whose runner is ready for two tasks at a time.
    pub(super) fn ready() -> Stage {
        let (mut stage, _) = Stage::with(&[&[1]]);
        stage.bring_up(1);
        stage
    }

    /// Plays a runner that does what it is told, from its hello on.
    pub(super) fn bring_up(&mut self, life: u64) {
        for line in [
            FromRunner::Hello { version: VERSION, tasks: 2 },
            FromRunner::Connected,
            FromRunner::Loaded,
            FromRunner::Ready,
        ] {
            self.says(life, line);
        }
        self.order();
    }

    /// What the worker asks for then, in words. The laws of time are checked.
    pub(super) fn step(&mut self, input: WorkerInput) -> Vec<String> {
        let mut out = vec![];
        let now = Now { at: self.now, wall: Wall(0) };
        let next = Index(self.cluster.events);
        self.worker.step(now, &self.cluster.state, next, input, &mut out);
        assert!(self.worker.next_wake().is_none_or(|at| at > self.now), "L3");
        let mut again = vec![];
        self.worker.step(now, &self.cluster.state, next, WorkerInput::Wake, &mut again);
        assert!(again.is_empty(), "L4: {again:?}");
        let words = out.iter().map(words).collect();
        let ordered = |one: &WorkerOutput| matches!(one, WorkerOutput::Observe(_) | WorkerOutput::Submit(_));
        self.asked.extend(out.into_iter().filter(ordered));
        words
    }

    /// The runner of instance 0 says this.
    pub(super) fn says(&mut self, life: u64, message: FromRunner) -> Vec<String> {
        self.does(life, RunnerSaid::Message(message))
    }

    pub(super) fn does(&mut self, life: u64, said: RunnerSaid) -> Vec<String> {
        self.step(WorkerInput::Runner { runner: self.runner(0), life, said })
    }

    pub(super) fn runner(&self, n: u8) -> RunnerId {
        let ranks = &self.cluster.state.instances[&instance(n)].ranks;
        ranks.iter().find(|rank| rank.node == ME).unwrap().runner
    }

    /// The cluster orders all that was asked for, and the worker sees it.
    pub(super) fn order(&mut self) -> Vec<String> {
        for asked in std::mem::take(&mut self.asked) {
            match asked {
                WorkerOutput::Observe(observation) => drop(self.cluster.see(1, observation)),
                WorkerOutput::Submit(command) => drop(self.cluster.ask(command)),
                other @ (WorkerOutput::Send { .. }
                | WorkerOutput::Start { .. }
                | WorkerOutput::Tell { .. }
                | WorkerOutput::End { .. }
                | WorkerOutput::Mirror { .. }
                | WorkerOutput::Busy(_)) => panic!("{other:?}"),
            }
        }
        self.step(WorkerInput::Changed)
    }

    pub(super) fn ask(&mut self, command: Command) -> Vec<String> {
        self.cluster.ask(command).unwrap();
        self.step(WorkerInput::Changed)
    }

    /// A rank of instance 0 on another node is seen to be so far.
    pub(super) fn other(&mut self, node: u8, rank: u16, status: RunnerStatus) -> Vec<String> {
        let runner = RunnerId::of(instance(0), rank);
        self.cluster.see(node, Observation::Runner { runner, status });
        self.step(WorkerInput::Changed)
    }

    /// Node 2's client has a task for model `a`.
    pub(super) fn create(&mut self, n: u8) -> Vec<String> {
        self.ask(create(n, Some(NodeId::example(2))))
    }

    /// Node 2 sends the input of a task.
    pub(super) fn input(&mut self, n: u8) -> Vec<String> {
        let bytes = INPUT.as_bytes().to_vec().into();
        let chunk = InputChunk { task: task(n), input: name().hash, n: 0, of: 1, bytes };
        self.signal(Transient::Input(chunk))
    }

    pub(super) fn signal(&mut self, transient: Transient) -> Vec<String> {
        self.step(WorkerInput::Transient { from: NodeId::example(2), transient })
    }

    /// Time passes; the worker is woken whenever it wants to be.
    pub(super) fn wait(&mut self, span: Span) -> Vec<String> {
        let until = self.now + span;
        let mut said = vec![];
        while let Some(at) = self.worker.next_wake().filter(|at| *at <= until) {
            self.now = at;
            said.extend(self.step(WorkerInput::Wake));
        }
        self.now = until;
        said
    }
}

pub(super) fn name() -> InputName {
    InputName { hash: Hash(Sha256::digest(INPUT).into()), bytes: INPUT.len() as u64 }
}

pub(super) fn create(n: u8, gateway: Option<NodeId>) -> Command {
    let kind = TaskKind::Chat { max_tokens: 100 };
    Command::CreateTask { task: Some(task(n)), model: model("a"), kind, input: name(), gateway }
}

/// An output in a few words; tasks and nodes by their number.
fn words(output: &WorkerOutput) -> String {
    match output {
        WorkerOutput::Observe(Observation::Runner { status, .. }) => format!("observe {status:?}"),
        WorkerOutput::Observe(other) => format!("observe {other:?}"),
        WorkerOutput::Submit(Command::StartTask { task }) => format!("begin {}", task.0[0]),
        WorkerOutput::Submit(Command::FinishTask { task, outcome }) => format!("finish {} {outcome:?}", task.0[0]),
        WorkerOutput::Submit(Command::CancelTask { task }) => format!("call off {}", task.0[0]),
        WorkerOutput::Submit(other) => format!("submit {other:?}"),
        WorkerOutput::Send { to, transient } => format!("to node {}: {}", to.0[0], signal(transient)),
        WorkerOutput::Start { life, .. } => format!("start {life}"),
        WorkerOutput::Tell { life, message, .. } => format!("tell {life}: {}", line(message)),
        WorkerOutput::End { life, grace, .. } => format!("end {life} within {grace}"),
        WorkerOutput::Mirror { cards, whole } => {
            let cards: Vec<String> = cards.iter().map(|(model, card)| format!("{model}={}", card.is_some())).collect();
            format!("mirror {}{}", if *whole { "all " } else { "" }, cards.join(","))
        }
        WorkerOutput::Busy(span) => format!("busy {span}"),
    }
}

fn signal(transient: &Transient) -> String {
    match transient {
        Transient::Token(chunk) => {
            let part = match &chunk.part {
                TokenPart::Text(text) => format!("{text:?}"),
                TokenPart::End { stop, usage } => format!("{stop:?} after {}", usage.completion_tokens),
                TokenPart::Error(reason) => format!("error: {reason}"),
                TokenPart::Refused(reason) => format!("refused: {reason}"),
            };
            format!("{}.{} {part}", chunk.task.0[0], chunk.n)
        }
        Transient::InputMissing { task, parts } => format!("input {} lacks {parts:?}", task.0[0]),
        Transient::Acknowledged { task, .. } => format!("has {}", task.0[0]),
        Transient::Trace(trace) => format!("trace {} of {}", trace.spans.len(), trace.task.0[0]),
        other @ (Transient::TokensMissing { .. } | Transient::Input(_)) => panic!("not a worker's: {other:?}"),
    }
}

fn line(message: &ToRunner) -> String {
    match message {
        ToRunner::Hello { rank, ranks, .. } => format!("hello, rank {rank} of {ranks}"),
        ToRunner::Connect => "connect".into(),
        ToRunner::Load => "load".into(),
        ToRunner::WarmUp => "warm up".into(),
        ToRunner::Task { task, input, .. } => format!("task {} {input}", task.0[0]),
        ToRunner::Cancel { task } => format!("cancel {}", task.0[0]),
        ToRunner::ShutDown => "shut down".into(),
    }
}
