//! What each event does to the state. Cannot fail: what an event names and the state does not have is passed over.

use std::sync::Arc;

use imbl::OrdMap;
use lockstep_replication::{NodeId, Place};

use crate::event::Event;
use crate::id::{InstanceId, TaskId};
use crate::state::{
    Instance, Node, NodeInfo, NodeStatus, Rank, Runner, RunnerStatus, State, Task, TaskCounts, TaskOutcome, TaskStatus,
};

/// Changes the state by one event.
pub fn apply(state: &mut State, event: &Event, place: Place) {
    match event {
        Event::NodeJoined { node } => {
            let announced = || Node { info: NodeInfo::default(), status: NodeStatus::Up, joined: place.stamp };
            change_or_insert(&mut state.nodes, *node, announced, |node| {
                node.status = NodeStatus::Up;
                node.joined = place.stamp;
            });
        }
        Event::NodeInfoChanged { node, info } => {
            let announced = || Node { info: info.clone(), status: NodeStatus::Announced, joined: place.stamp };
            change_or_insert(&mut state.nodes, *node, announced, |node| node.info = info.clone());
        }
        Event::NodeTimedOut { node } => set_status(state, *node, NodeStatus::Lost { since: place.stamp }),
        Event::NodeReturned { node } => set_status(state, *node, NodeStatus::Up),
        Event::NodeEvicted { node } => {
            state.nodes.remove(node);
            state.links.remove(node);
        }
        Event::LinksChanged { node, reaches } => {
            if reaches.is_empty() {
                state.links.remove(node);
            } else {
                state.links.insert(*node, Arc::new(reaches.clone()));
            }
        }
        Event::CardAdded { model, card } => {
            state.cards.insert(model.clone(), Arc::new(card.clone()));
        }
        Event::CardDeleted { model } => {
            state.cards.remove(model);
        }
        Event::InstanceCreated { instance, model, ranks } => {
            let created = Instance {
                model: model.clone(),
                ranks: ranks.clone(),
                created: place.stamp,
                tasks: TaskCounts::default(),
            };
            create_instance(state, *instance, created);
        }
        Event::InstanceDeleted { instance } => delete_instance(state, *instance),
        Event::RunnerStatusChanged { runner, status } => {
            change(&mut state.runners, runner, |runner| runner.status = status.clone());
        }
        Event::TaskCreated { task, instance, kind, input, gateway } => {
            let created = Task {
                instance: *instance,
                kind: *kind,
                input: *input,
                gateway: *gateway,
                status: TaskStatus::Pending,
                created: place.stamp,
            };
            create_task(state, *task, created);
        }
        Event::TaskStatusChanged { task, status } => state.tasks.set_status(*task, *status),
        Event::TaskCancelled { task } => end_task(state, *task, |counts| counts.cancelled += 1),
        Event::TaskFinished { task, outcome: TaskOutcome::Done { .. } } => {
            end_task(state, *task, |counts| counts.done += 1);
        }
        Event::TaskFinished { task, outcome: TaskOutcome::Failed { .. } } => {
            end_task(state, *task, |counts| counts.failed += 1);
        }
        Event::TaskDeleted { task } => end_task(state, *task, |_| {}),
    }
}

fn set_status(state: &mut State, node: NodeId, status: NodeStatus) {
    change(&mut state.nodes, &node, |node| node.status = status);
}

fn create_instance(state: &mut State, id: InstanceId, instance: Instance) {
    if state.instances.contains_key(&id) {
        return;
    }
    for Rank { node, runner } in &instance.ranks {
        let idle = Runner { instance: id, node: *node, status: RunnerStatus::Idle };
        state.runners.insert(*runner, Arc::new(idle));
    }
    state.instances.insert(id, Arc::new(instance));
}

fn delete_instance(state: &mut State, id: InstanceId) {
    let Some(instance) = state.instances.remove(&id) else { return };
    for rank in &instance.ranks {
        state.runners.remove(&rank.runner);
    }
    state.tasks.remove_of(id);
}

fn create_task(state: &mut State, id: TaskId, task: Task) {
    if state.tasks.contains_key(&id) || !state.instances.contains_key(&task.instance) {
        return;
    }
    change(&mut state.instances, &task.instance, |instance| instance.tasks.live += 1);
    state.tasks.insert(id, task);
}

fn end_task(state: &mut State, id: TaskId, count: impl FnOnce(&mut TaskCounts)) {
    let Some(task) = state.tasks.remove(id) else { return };
    change(&mut state.instances, &task.instance, |instance| {
        instance.tasks.live = instance.tasks.live.saturating_sub(1);
        count(&mut instance.tasks);
    });
}

fn change<K: Ord + Clone, V: Clone>(map: &mut OrdMap<K, Arc<V>>, key: &K, change: impl FnOnce(&mut V)) {
    if let Some(value) = map.get_mut(key) {
        change(Arc::make_mut(value));
    }
}

fn change_or_insert<K: Ord + Clone, V: Clone>(
    map: &mut OrdMap<K, Arc<V>>,
    key: K,
    new: impl FnOnce() -> V,
    change: impl FnOnce(&mut V),
) {
    match map.get_mut(&key) {
        Some(value) => change(Arc::make_mut(value)),
        None => drop(map.insert(key, Arc::new(new()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::TaskKind;
    use crate::testing::{self, Cluster};

    #[test]
    fn events_that_name_what_is_not_there_change_nothing() {
        let mut cluster = Cluster::with_instances(&[&[1]]);
        let before = cluster.state.clone();
        let (node, instance, task) = (NodeId::example(99), InstanceId([99; 16]), TaskId([99; 16]));
        let [model, runner] = [testing::model("none").0.to_string(), instance.to_string()];
        let strangers = [
            Event::NodeTimedOut { node },
            Event::NodeReturned { node },
            Event::NodeEvicted { node },
            Event::LinksChanged { node, reaches: [].into() },
            Event::CardDeleted { model: testing::model(&model) },
            Event::InstanceDeleted { instance },
            Event::RunnerStatusChanged { runner: runner.parse().unwrap(), status: RunnerStatus::Ready },
            Event::TaskCreated { task, instance, kind: TaskKind::Embedding, input: testing::input(), gateway: None },
            Event::TaskStatusChanged { task, status: TaskStatus::Running },
            Event::TaskCancelled { task },
            Event::TaskFinished { task, outcome: TaskOutcome::Done { tokens: 1 } },
            Event::TaskDeleted { task },
        ];
        for event in strangers {
            cluster.apply(&event);
            assert_eq!(cluster.state, before, "{event:?}");
        }
    }

    #[test]
    fn a_second_creation_of_one_id_is_passed_over() {
        let mut cluster = Cluster::with_instances(&[&[1], &[2]]);
        let [first, second] = [testing::instance(0), testing::instance(1)];
        let task = testing::task(1);
        let created = |instance| Event::TaskCreated {
            task,
            instance,
            kind: TaskKind::Embedding,
            input: testing::input(),
            gateway: None,
        };
        cluster.apply(&created(first));
        let before = cluster.state.clone();
        cluster.apply(&created(second));
        cluster.apply(&Event::InstanceCreated { instance: first, model: testing::model("b"), ranks: vec![] });
        assert_eq!(cluster.state, before);
        assert_eq!((cluster.live(0), cluster.live(1)), (1, 0));
    }

    #[test]
    fn a_clone_keeps_what_it_showed() {
        let mut cluster = Cluster::with_instances(&[&[1]]);
        let captured = cluster.state.clone();
        cluster.apply(&Event::TaskCreated {
            task: testing::task(1),
            instance: testing::instance(0),
            kind: TaskKind::Embedding,
            gateway: None,
            input: testing::input(),
        });
        assert_eq!((captured.tasks.len(), captured.instances[&testing::instance(0)].tasks.live), (0, 0));
        assert_eq!((cluster.state.tasks.len(), cluster.live(0)), (1, 1));
    }
}
