//! A small cluster to try decisions on: what is decided is applied at once.

use std::collections::BTreeMap;

use lockstep_replication::{Hash, Index, Liveness, NodeId, Place, Wall, Wish};

use crate::Inference;
use crate::apply::apply;
use crate::command::Command;
use crate::decide::decide;
use crate::event::Event;
use crate::id::{InstanceId, ModelId, TaskId};
use crate::observation::Observation;
use crate::placement::Measured;
use crate::refusal::Refusal;
use crate::state::{InputName, ModelCard, State, TaskKind};
use crate::telemetry::Telemetry;

/// A state, and how many events made it. Each event is stamped with the number of those before it, in milliseconds.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) state: State,
    pub(crate) events: u64,
    /// What the nodes said of themselves.
    pub(crate) measured: Measured,
}

impl Cluster {
    /// Nodes 1 to 4 are up, and models `a` (with 8 layers) and `b` (with 2) have cards.
    pub(crate) fn new() -> Cluster {
        let mut cluster = Cluster::default();
        for node in 1..=4 {
            cluster.hear(node, Liveness::Heard);
        }
        for (name, layers) in [("a", 8), ("b", 2)] {
            cluster.ask(Command::AddCard { model: model(name), card: card(layers) }).unwrap();
        }
        cluster
    }

    /// The same, with instances of model `a`, numbered from 0, on these nodes.
    pub(crate) fn with_instances(instances: &[&[u8]]) -> Cluster {
        let mut cluster = Cluster::new();
        for (n, nodes) in (0..).zip(instances) {
            cluster.ask(create_instance(n, "a", nodes)).unwrap();
        }
        cluster
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        apply(&mut self.state, event, Place { index: Index(self.events), stamp: Wall(self.events) });
        self.events += 1;
    }

    pub(crate) fn ask(&mut self, command: Command) -> Result<Vec<Event>, Refusal> {
        self.wish(Wish::Command(command))
    }

    /// The sentence with which a command is refused.
    pub(crate) fn refusal(&mut self, command: Command) -> String {
        self.ask(command).unwrap_err().to_string()
    }

    pub(crate) fn see(&mut self, node: u8, observation: Observation) -> Vec<Event> {
        self.wish(Wish::Observation(NodeId::example(node), observation)).unwrap()
    }

    pub(crate) fn hear(&mut self, node: u8, liveness: Liveness) -> Vec<Event> {
        self.wish(Wish::Liveness(NodeId::example(node), liveness)).unwrap()
    }

    /// A node says that it has 1024 GiB of memory, and so many of them free.
    pub(crate) fn measure(&mut self, node: u8, free_gib: u64) {
        let [memory_total_bytes, memory_free_bytes] = [1024, free_gib].map(|gib| gib << 30);
        let runners = ["echo".to_owned()].into();
        let telemetry = Telemetry { memory_total_bytes, memory_free_bytes, runners, ..Telemetry::default() };
        self.measured.insert(NodeId::example(node), telemetry);
    }

    /// How many live tasks an instance counts.
    pub(crate) fn live(&self, n: u8) -> u32 {
        self.state.instances[&instance(n)].tasks.live
    }

    fn wish(&mut self, wish: Wish<Inference>) -> Result<Vec<Event>, Refusal> {
        let events = decide(&self.state, &self.measured, wish)?;
        events.iter().for_each(|event| self.apply(event));
        Ok(events)
    }
}

pub(crate) fn model(name: &str) -> ModelId {
    ModelId::new(name)
}

pub(crate) fn card(layers: u32) -> ModelCard {
    ModelCard {
        name: "A model".into(),
        weights_bytes: 1 << 30,
        layers,
        context_tokens: 4096,
        custom: false,
        runner: "echo".into(),
        settings: BTreeMap::new(),
    }
}

pub(crate) fn instance(n: u8) -> InstanceId {
    InstanceId([n; 16])
}

pub(crate) fn task(n: u8) -> TaskId {
    TaskId([n; 16])
}

pub(crate) fn input() -> InputName {
    InputName { hash: Hash([7; 32]), bytes: 12 }
}

pub(crate) fn create_instance(n: u8, name: &str, nodes: &[u8]) -> Command {
    let nodes = nodes.iter().map(|node| NodeId::example(*node)).collect();
    Command::CreateInstance { instance: Some(instance(n)), model: model(name), nodes }
}

pub(crate) fn create_task(n: u8, name: &str) -> Command {
    let kind = TaskKind::Chat { max_tokens: 100 };
    Command::CreateTask { task: Some(task(n)), model: model(name), kind, input: input(), gateway: None }
}
