//! A gateway on node 9, with a cluster that does what it asks when a test says so.

use bytes::Bytes;
use lockstep_replication::{Index, Moment, NodeId, Now, Seed, Span, Wall};

use crate::command::Command;
use crate::gateway::{Gateway, GatewayConfig, GatewayInput, GatewayOutput, StreamId, StreamPart};
use crate::id::RunnerId;
use crate::refusal::Refusal;
use crate::state::{TaskKind, TaskOutcome};
use crate::testing::{Cluster, instance, model, task};
use crate::transient::{Attempt, StopReason, TokenChunk, TokenPart, Transient, Usage};

pub(super) const ME: NodeId = NodeId::example(9);
pub(super) const END: TokenPart =
    TokenPart::End { stop: StopReason::Stop, usage: Usage { prompt_tokens: 1, completion_tokens: 2 } };

pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) gateway: Gateway,
    pub(super) now: Moment,
}

impl Stage {
    /// Instance 0 of model `a` is on these nodes. Requests go out in parts of 4 bytes.
    pub(super) fn with(nodes: &[u8]) -> Stage {
        Stage::configured(nodes, GatewayConfig { part_bytes: 4, ..GatewayConfig::default() })
    }

    pub(super) fn configured(nodes: &[u8], config: GatewayConfig) -> Stage {
        let mut stage = Stage {
            cluster: Cluster::with_instances(&[nodes]),
            gateway: Gateway::new(ME, config, Seed::from_number(1)),
            now: Moment(1_000_000_000),
        };
        assert!(stage.step(GatewayInput::Changed).is_empty());
        stage
    }

    /// The same, with stream 1 for task 1, which node 1 works on and has acknowledged.
    pub(super) fn streaming() -> Stage {
        let mut stage = Stage::with(&[1]);
        stage.open(1);
        stage.create(1);
        stage.says(1, Transient::Acknowledged { task: task(1), runner: RunnerId::of(instance(0), 0) });
        stage
    }

    /// What the gateway asks for then, in words. The laws of time are checked.
    pub(super) fn step(&mut self, input: GatewayInput) -> Vec<String> {
        let mut out = vec![];
        let (now, next) = (Now { at: self.now, wall: Wall(0) }, Index(self.cluster.events));
        self.gateway.step(now, &self.cluster.state, next, input, &mut out);
        assert!(self.gateway.next_wake().is_none_or(|at| at > self.now), "L3");
        let mut again = vec![];
        self.gateway.step(now, &self.cluster.state, next, GatewayInput::Wake, &mut again);
        assert!(again.is_empty(), "L4: {again:?}");
        out.iter().map(words).collect()
    }

    /// Stream n asks model `a` for task n.
    pub(super) fn open(&mut self, n: u8) -> Vec<String> {
        self.ask_for(n, "a", b"question")
    }

    pub(super) fn ask_for(&mut self, n: u8, name: &str, input: &'static [u8]) -> Vec<String> {
        let (kind, input) = (TaskKind::Chat { max_tokens: 9 }, Bytes::from_static(input));
        self.step(GatewayInput::Open { stream: StreamId(n.into()), model: model(name), kind, input, task: task(n) })
    }

    /// The creation of task n is decided; the gateway does not see it yet.
    pub(super) fn decide(&mut self, n: u8) -> Result<Index, Refusal> {
        let (kind, input) = (TaskKind::Chat { max_tokens: 9 }, crate::testing::input());
        let gateway = Some(ME);
        let create = Command::CreateTask { task: Some(task(n)), model: model("a"), kind, input, gateway };
        self.cluster.ask(create).map(|_| Index(self.cluster.events - 1))
    }

    /// It is decided, and the gateway sees it.
    pub(super) fn create(&mut self, n: u8) -> Vec<String> {
        let index = self.decide(n).unwrap();
        self.submitted(n, Ok(index))
    }

    pub(super) fn submitted(&mut self, n: u8, result: Result<Index, crate::gateway::Failure>) -> Vec<String> {
        self.step(GatewayInput::Submitted { stream: StreamId(n.into()), result })
    }

    pub(super) fn ask(&mut self, command: Command) -> Vec<String> {
        self.cluster.ask(command).unwrap();
        self.step(GatewayInput::Changed)
    }

    pub(super) fn finish(&mut self, n: u8) -> Vec<String> {
        self.ask(Command::FinishTask { task: task(n), outcome: TaskOutcome::Done { tokens: 2 } })
    }

    pub(super) fn says(&mut self, node: u8, transient: Transient) -> Vec<String> {
        self.step(GatewayInput::Transient { from: NodeId::example(node), transient })
    }

    /// A node sends a part of the answer to task 1.
    pub(super) fn part(&mut self, node: u8, n: u64, part: TokenPart) -> Vec<String> {
        self.part_of(node, Attempt(1), n, part)
    }

    pub(super) fn part_of(&mut self, node: u8, attempt: Attempt, n: u64, part: TokenPart) -> Vec<String> {
        self.says(node, Transient::Token(TokenChunk { task: task(1), n, part, attempt }))
    }

    pub(super) fn text(&mut self, n: u64, text: &str) -> Vec<String> {
        self.part(1, n, TokenPart::Text(text.into()))
    }

    pub(super) fn close(&mut self, n: u8) -> Vec<String> {
        self.step(GatewayInput::Closed { stream: StreamId(n.into()) })
    }

    /// Time passes; the gateway is woken whenever it wants to be. Each word comes with its time in milliseconds.
    pub(super) fn wait(&mut self, span: Span) -> Vec<String> {
        let (began, until) = (self.now, self.now + span);
        let mut said = vec![];
        while let Some(at) = self.gateway.next_wake().filter(|at| *at <= until) {
            self.now = at;
            let ms = at.since(began).as_millis();
            said.extend(self.step(GatewayInput::Wake).into_iter().map(|words| format!("{ms}: {words}")));
        }
        self.now = until;
        said
    }

    /// Nothing of any stream or task is left.
    pub(super) fn check_empty(&self) {
        let view = self.gateway.view();
        assert_eq!((view.streams, view.input_bytes, view.calling_off), (0, 0, 0));
        assert_eq!(self.gateway.next_wake(), None);
    }
}

pub(super) fn words(output: &GatewayOutput) -> String {
    let node = |node: &NodeId| node.0[0];
    match output {
        GatewayOutput::Create { stream, command } => {
            let Command::CreateTask { task: Some(task), gateway, .. } = command else { panic!("{command:?}") };
            assert_eq!(*gateway, Some(ME));
            format!("create {} for {}", task.0[0], stream.0)
        }
        GatewayOutput::Submit(Command::CancelTask { task }) => format!("cancel {}", task.0[0]),
        GatewayOutput::Submit(command) => panic!("{command:?}"),
        GatewayOutput::Send { to, transient: Transient::Input(part) } => {
            let bytes = String::from_utf8_lossy(&part.bytes);
            format!("to {}: {} of {} of task {}, {bytes}", node(to), part.n, part.of, part.task.0[0])
        }
        GatewayOutput::Send { to, transient: Transient::TokensMissing { task, from } } => {
            format!("to {}: task {} from {from}", node(to), task.0[0])
        }
        GatewayOutput::Send { transient, .. } => panic!("{transient:?}"),
        GatewayOutput::Deliver { stream, part } => match part {
            StreamPart::Text(text) => format!("{}: {text}", stream.0),
            StreamPart::End { stop, usage } => format!("{}: {stop:?} {}", stream.0, usage.completion_tokens),
            StreamPart::Failed(failure) => format!("{}: {failure}", stream.0),
        },
    }
}
