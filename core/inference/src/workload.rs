//! A made-up cluster's work as a stream of commands, for benches and demonstrations: the same seed, the same commands.

use std::collections::BTreeMap;
use std::ops::Bound;

use lockstep_replication::rng::Rng;
use lockstep_replication::{Hash, Index, NodeId, Place, Seed, Wall, Wish};

use crate::apply::apply;
use crate::command::Command;
use crate::decide::decide;
use crate::id::{InstanceId, ModelId, TaskId};
use crate::placement::Measured;
use crate::state::{InputName, ModelCard, NodeInfo, State, TaskKind, TaskOutcome, TaskStatus};

const NODES: usize = 6;
const CARDS: usize = 12;
const INSTANCES: usize = 16;
/// Between so many tasks, and twice as many, are live at any time.
const TASKS: u64 = 150;
/// The models that have instances; the cards of others come and go.
const MODELS: [(&str, u64, u32); 4] =
    [("tern-1b", 2, 16), ("heron-8b", 9, 32), ("stork-30b", 34, 48), ("crane-70b", 75, 80)];
const GIB: u64 = 1 << 30;

/// An endless stream of commands: nodes are described, models and instances come and go, and most of all tasks are
/// created, begun and ended.
///
/// Each is granted, and changes something, when they are decided in this order; commands of others in between do no
/// harm as long as they leave this workload's things alone. All its models carry the seed in their names, so that
/// workloads of different seeds can share a cluster. The state stays small however many are taken.
#[derive(Clone, Debug)]
pub struct Workload {
    seed: u64,
    rng: Rng,
    /// What a leader's state looks like after the commands so far: it knows which tasks live, and where.
    state: State,
    /// How many commands came so far.
    taken: u64,
    nodes: Vec<NodeId>,
}

impl Workload {
    /// The workload of this seed, from its beginning.
    pub fn new(seed: u64) -> Workload {
        let mut rng = Seed::from_number(seed).fork("inference workload").rng();
        let nodes = (0..NODES).map(|_| NodeId(bytes(&mut rng))).collect();
        Workload { seed, rng, state: State::default(), taken: 0, nodes }
    }

    fn draw(&mut self) -> Command {
        if let Some(node) = self.nodes.iter().find(|node| !self.state.nodes.contains_key(*node)) {
            return self.set_node_info(*node);
        }
        if let Some(model) = (0..MODELS.len()).find(|model| !self.state.cards.contains_key(&self.model(*model))) {
            return self.add_card(self.model(model), MODELS[model]);
        }
        if let Some(model) = (0..MODELS.len()).find(|model| self.instances_of(&self.model(*model)).is_empty()) {
            return self.create_instance(self.model(model));
        }
        match self.rng.below(1000) {
            0..20 => {
                let at = self.rng.below(self.nodes.len() as u64) as usize;
                self.set_node_info(self.nodes[at])
            }
            20..24 => self.change_cards(),
            24..28 => self.change_instances(),
            _ => self.change_tasks(),
        }
    }

    /// Always news: it carries the number of the command.
    fn set_node_info(&mut self, node: NodeId) -> Command {
        let at = self.nodes.iter().position(|other| *other == node).unwrap_or_default();
        let [.., high, middle, low] = self.taken.to_be_bytes();
        let info = NodeInfo {
            name: format!("studio-{at}.{:x}.example", self.seed),
            addresses: vec![format!("10.{high}.{middle}.{low}:7000")],
            memory_bytes: (64 + 64 * self.rng.below(8)) * GIB,
        };
        Command::SetNodeInfo { node, info }
    }

    fn change_cards(&mut self) -> Command {
        let spare = self.state.cards.keys().find(|model| self.instances_of(model).is_empty()).cloned();
        match spare {
            Some(model) if self.state.cards.len() >= CARDS => Command::DeleteCard { model },
            _ => {
                let model = ModelId::new(&format!("workload-{:x}/custom-{:06}", self.seed, self.taken));
                let gib = 1 + self.rng.below(100);
                self.add_card(model, ("custom", gib, 24))
            }
        }
    }

    fn change_instances(&mut self) -> Command {
        let model = self.some_model();
        let its = self.instances_of(&model);
        if self.state.instances.len() >= INSTANCES && its.len() > 1 {
            return Command::DeleteInstance { instance: its[self.rng.below(its.len() as u64) as usize] };
        }
        self.create_instance(model)
    }

    fn change_tasks(&mut self) -> Command {
        let wanted = TASKS + self.rng.below(TASKS);
        match self.some_task() {
            Some((task, status)) if self.state.tasks.len() as u64 >= wanted => self.advance_task(task, status),
            _ => self.create_task(),
        }
    }

    fn advance_task(&mut self, task: TaskId, status: TaskStatus) -> Command {
        match (self.rng.below(100), status) {
            (0..4, _) => Command::CancelTask { task },
            (4, _) => Command::DeleteTask { task },
            (_, TaskStatus::Pending) => Command::StartTask { task },
            (5..8, TaskStatus::Running) => {
                let reason = "the runner ended: out of memory".into();
                Command::FinishTask { task, outcome: TaskOutcome::Failed { reason } }
            }
            (_, TaskStatus::Running) => {
                Command::FinishTask { task, outcome: TaskOutcome::Done { tokens: self.rng.below(2000) } }
            }
        }
    }

    fn create_task(&mut self) -> Command {
        let task = Some(TaskId(bytes(&mut self.rng)));
        let model = self.some_model();
        let kind = match self.rng.below(10) {
            0 => TaskKind::Embedding,
            1 => TaskKind::Image { steps: 20 + self.rng.below(30) as u32 },
            _ => TaskKind::Chat { max_tokens: 1 + self.rng.below(4096) as u32 },
        };
        let input = InputName { hash: Hash(bytes(&mut self.rng)), bytes: 1 + self.rng.below(20_000) };
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        Command::CreateTask { task, model, kind, input, gateway: Some(self.nodes[at]) }
    }

    fn create_instance(&mut self, model: ModelId) -> Command {
        let instance = Some(InstanceId(bytes(&mut self.rng)));
        let first = self.rng.below(NODES as u64) as usize;
        let ranks = 1 + self.rng.below(4) as usize;
        let nodes = self.nodes.iter().cycle().skip(first).take(ranks).copied().collect();
        Command::CreateInstance { instance, model, nodes }
    }

    fn add_card(&self, model: ModelId, (name, gib, layers): (&str, u64, u32)) -> Command {
        let (runner, settings) = ("echo".to_owned(), BTreeMap::new());
        let custom = !MODELS.iter().any(|known| known.0 == name);
        let card = ModelCard {
            name: name.into(),
            weights_bytes: gib * GIB,
            layers,
            context_tokens: 32_768,
            custom,
            runner,
            settings,
        };
        Command::AddCard { model, card }
    }

    fn model(&self, at: usize) -> ModelId {
        ModelId::new(&format!("workload-{:x}/{}", self.seed, MODELS[at].0))
    }

    fn some_model(&mut self) -> ModelId {
        let at = self.rng.below(MODELS.len() as u64) as usize;
        self.model(at)
    }

    fn instances_of(&self, model: &ModelId) -> Vec<InstanceId> {
        self.state.instances.iter().filter(|(_, instance)| instance.model == *model).map(|(id, _)| *id).collect()
    }

    /// The next task at or after a random id: ids are random too, so any task comes about equally often.
    fn some_task(&mut self) -> Option<(TaskId, TaskStatus)> {
        let from = TaskId(bytes(&mut self.rng));
        let after = self.state.tasks.range((Bound::Included(from), Bound::Unbounded)).next();
        after.or_else(|| self.state.tasks.iter().next()).map(|(id, task)| (*id, task.status))
    }
}

impl Iterator for Workload {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        let command = self.draw();
        let events = decide(&self.state, &Measured::new(), Wish::Command(command.clone()))
            .expect("the workload wishes for nothing that its own state refuses");
        let place = Place { index: Index(self.taken), stamp: Wall(self.taken) };
        events.iter().for_each(|event| apply(&mut self.state, event, place));
        self.taken += 1;
        Some(command)
    }
}

fn bytes<const N: usize>(rng: &mut Rng) -> [u8; N] {
    let mut bytes = [0; N];
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&rng.number().to_le_bytes()[..part.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Inference;
    use crate::testing::Cluster;
    use lockstep_replication::Liveness;
    use lockstep_replication::entry::{Body, Decided, Entry};
    use lockstep_replication::id::ProposalId;

    #[test]
    fn each_of_many_commands_is_granted_and_changes_something_and_the_state_stays_small() {
        let mut cluster = Cluster::new();
        let (mut most_tasks, mut finished) = (0, 0);
        for (n, command) in Workload::new(7).take(50_000).enumerate() {
            let events = cluster.ask(command.clone());
            assert!(events.as_ref().is_ok_and(|events| !events.is_empty()), "{n}: {command:?} became {events:?}");
            most_tasks = most_tasks.max(cluster.state.tasks.len());
            finished += u32::from(matches!(command, Command::FinishTask { .. }));
        }
        assert!((150..=300).contains(&most_tasks), "{most_tasks} tasks at one time");
        assert!(finished > 10_000, "only {finished} tasks ended");
        assert!(cluster.state.instances.len() <= INSTANCES + MODELS.len() && cluster.state.cards.len() <= CARDS + 2);
        for (id, instance) in &cluster.state.instances {
            let live = cluster.state.tasks.values().filter(|task| task.instance == *id).count();
            assert_eq!(instance.tasks.live as usize, live);
        }
    }

    #[test]
    fn entries_are_as_long_as_real_ones() {
        let mut cluster = Cluster::new();
        let sizes: Vec<usize> = (0..)
            .zip(Workload::new(7).take(5000))
            .map(|(n, command)| {
                let proposal = Some(ProposalId { node: NodeId::example(1), generation: 3, n });
                let events = cluster.ask(command).unwrap();
                let body = Body::<Inference>::Decided(Decided { proposal, command: None, events });
                Entry { index: Index(n), stamp: Wall(1_790_000_000_000), body }.seal(1).bytes.len()
            })
            .collect();
        let [least, most] = [sizes.iter().min(), sizes.iter().max()].map(|size| *size.unwrap());
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!(least >= 60 && most <= 350 && (80..=150).contains(&mean), "{least} to {most}, {mean} in the mean");
    }

    #[test]
    fn workloads_of_two_seeds_and_a_living_cluster_get_along() {
        let mut cluster = Cluster::default();
        let pairs = Workload::new(1).zip(Workload::new(2)).take(3000);
        for (n, (one, two)) in pairs.enumerate() {
            cluster.ask(one).unwrap();
            cluster.ask(two).unwrap();
            let liveness = [Liveness::Heard, Liveness::Lost, Liveness::Evicted][n % 3];
            cluster.hear((n % 5) as u8, liveness);
        }
    }

    #[test]
    fn a_seed_means_the_same_commands() {
        let take = |seed| Workload::new(seed).take(2000).collect::<Vec<_>>();
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
    }

    #[test]
    fn every_kind_of_command_comes_up_but_eviction_and_placing() {
        let kinds: std::collections::BTreeSet<String> = Workload::new(5)
            .take(20_000)
            .map(|command| format!("{command:?}").split(' ').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(kinds.len(), 10, "{kinds:?}");
        assert!(!kinds.contains("EvictNode") && !kinds.contains("PlaceInstance"));
    }
}
