//! A cluster of eight nodes with instances on each, all ready, and so many live tasks.

use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_inference::decide::decide;
use lockstep_inference::event::Event;
use lockstep_inference::id::{InstanceId, ModelId, TaskId};
use lockstep_inference::observation::Observation;
use lockstep_inference::placement::Measured;
use lockstep_inference::state::{InputName, ModelCard, RunnerStatus, State, TaskKind};
use lockstep_inference::telemetry::Telemetry;
use lockstep_replication::{App as _, Hash, Index, Liveness, NodeId, Place, Replica, Wall, Wish};

use crate::past::Past;

const NODES: u8 = 8;

/// So many instances share the tasks.
const INSTANCES: u8 = 16;

/// An instance of another model, with one task of its own.
const SMALL: InstanceId = InstanceId([0xee; 16]);
const SMALL_MODEL: &str = "tern-1b";

/// The cluster, as its leader knows it.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// The replicated part.
    pub replica: Replica<Inference>,
    /// What the nodes said last of themselves.
    pub measured: Measured,
    /// The model of nearly all instances.
    pub model: ModelId,
}

/// The nth task. Ids of neighbours in time are far apart in order, as drawn ones are.
pub fn task(n: u32) -> TaskId {
    let mut id = [0; 16];
    id.copy_from_slice(&Hash::of(&n.to_be_bytes()).0[..16]);
    TaskId(id)
}

impl Crowd {
    /// With so many live tasks, and one more of the small instance.
    pub fn new(tasks: u32) -> Crowd {
        let model = ModelId::new("heron-8b");
        let small = ModelId::new(SMALL_MODEL);
        let nodes: Vec<NodeId> = (1..=NODES).map(NodeId::example).collect();
        let telemetry = Telemetry {
            memory_total_bytes: 512 << 30,
            memory_free_bytes: 400 << 30,
            runners: ["echo".to_owned()].into(),
            ..Telemetry::default()
        };
        let measured = nodes.iter().map(|node| (*node, telemetry.clone())).collect();
        let mut crowd = Crowd { replica: Replica::default(), measured, model: model.clone() };
        let mut past = Past::beginning();
        let mut n = 0;
        let mut wish = |past: &mut Past, wish| {
            let events = decide(past.replica.state(), &crowd.measured, wish).expect("it can be granted");
            n += 1;
            past.decided(n, events);
        };
        for node in &nodes {
            wish(&mut past, Wish::Liveness(*node, Liveness::Heard));
            let others = nodes.iter().filter(|other| *other != node).copied().collect();
            wish(&mut past, Wish::Observation(*node, Observation::Links(others)));
        }
        for (model, gib) in [(&model, 8), (&small, 1)] {
            wish(&mut past, Wish::Command(Command::AddCard { model: model.clone(), card: card(gib) }));
        }
        let places = (0..INSTANCES).map(|n| (InstanceId([n; 16]), &model)).chain([(SMALL, &small)]);
        for (instance, model) in places {
            let (instance, model) = (Some(instance), model.clone());
            wish(&mut past, Wish::Command(Command::PlaceInstance { instance, model, ranks: Some(2) }));
        }
        let runners: Vec<_> = past.replica.state().runners.iter().map(|(id, runner)| (*id, runner.node)).collect();
        for (runner, node) in runners {
            let ready = Observation::Runner { runner, status: RunnerStatus::Ready };
            wish(&mut past, Wish::Observation(node, ready));
        }
        wish(&mut past, Wish::Command(create_task(u32::MAX, small)));
        for n in 0..tasks {
            wish(&mut past, Wish::Command(create_task(n, model.clone())));
        }
        crowd.replica = past.replica;
        crowd
    }

    /// The state.
    pub fn state(&self) -> &State {
        self.replica.state()
    }

    /// What the leader decides on a command.
    pub fn decide(&self, state: &State, command: Command) -> Vec<Event> {
        decide(state, &self.measured, Wish::Command(command)).expect("it can be granted")
    }

    /// Applies an event.
    pub fn apply(&self, state: &mut State, event: &Event) {
        Inference::apply(state, event, Place { index: Index(1 << 20), stamp: Wall(1 << 40) });
    }

    /// The wish for the nth task.
    pub fn create_task(&self, n: u32) -> Command {
        create_task(n, self.model.clone())
    }

    /// The wish for one more instance, of two ranks.
    pub fn place(&self, n: u32) -> Command {
        Command::PlaceInstance { instance: Some(InstanceId(task(n).0)), model: self.model.clone(), ranks: Some(2) }
    }

    /// The end of the instance that `place` asked for.
    pub fn delete_placed(&self, n: u32) -> Command {
        Command::DeleteInstance { instance: InstanceId(task(n).0) }
    }

    /// The small instance ends, is placed again, and gets its task again.
    pub fn small_comes_and_goes(&self) -> [Command; 3] {
        let (instance, model) = (Some(SMALL), ModelId::new(SMALL_MODEL));
        [
            Command::DeleteInstance { instance: SMALL },
            Command::PlaceInstance { instance, model: model.clone(), ranks: Some(2) },
            create_task(u32::MAX, model),
        ]
    }
}

fn create_task(n: u32, model: ModelId) -> Command {
    let input = InputName { hash: Hash::of(&n.to_le_bytes()), bytes: 4000 };
    let gateway = Some(NodeId::example((n % u32::from(NODES)) as u8 + 1));
    Command::CreateTask { task: Some(task(n)), model, kind: TaskKind::Chat { max_tokens: 500 }, input, gateway }
}

fn card(gib: u64) -> ModelCard {
    ModelCard {
        name: "A model".into(),
        weights_bytes: gib << 30,
        layers: 32,
        context_tokens: 32_768,
        custom: false,
        runner: "echo".into(),
        settings: [].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_is_as_large_as_asked() {
        let crowd = Crowd::new(100);
        let state = crowd.state();
        assert_eq!((state.tasks.len(), state.instances.len()), (101, usize::from(INSTANCES) + 1));
        assert!(state.instances.values().all(|instance| state.is_ready(instance)));
    }
}
