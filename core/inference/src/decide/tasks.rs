//! Decisions on tasks: where each goes, and its way out of the state.

use lockstep_replication::NodeId;

use crate::event::Event;
use crate::id::{ModelId, TaskId};
use crate::limits::{self, check_model};
use crate::refusal::Refusal;
use crate::state::{InputName, State, Task, TaskKind, TaskOutcome, TaskStatus};

/// An instance that still loads takes tasks too, if none is ready: they wait for it.
pub(super) fn create(
    state: &State,
    task: Option<TaskId>,
    model: ModelId,
    kind: TaskKind,
    input: InputName,
    gateway: Option<NodeId>,
) -> Result<Vec<Event>, Refusal> {
    let task = task.ok_or_else(|| Refusal::NoId { what: "task".into() })?;
    check_model(&model)?;
    if state.tasks.contains_key(&task) {
        return Err(Refusal::TaskExists { task });
    }
    limits::check_room("tasks", state.tasks.len(), limits::TASKS)?;
    match state.least_loaded(&model) {
        Some(instance) => Ok(vec![Event::TaskCreated { task, instance, kind, input, gateway }]),
        None if !state.cards.contains_key(&model) => Err(Refusal::UnknownModel { model }),
        None if state.instances.values().any(|instance| instance.model == model) => {
            Err(Refusal::NoneAvailable { model })
        }
        None => Err(Refusal::NoInstance { model }),
    }
}

pub(super) fn start(state: &State, task: TaskId) -> Result<Vec<Event>, Refusal> {
    match find(state, task)?.status {
        TaskStatus::Pending => Ok(vec![Event::TaskStatusChanged { task, status: TaskStatus::Running }]),
        TaskStatus::Running => Ok(vec![]),
    }
}

pub(super) fn finish(state: &State, task: TaskId, outcome: TaskOutcome) -> Result<Vec<Event>, Refusal> {
    find(state, task)?;
    if let TaskOutcome::Failed { reason } = &outcome {
        limits::check_text("the reason", reason, limits::REASON_CHARS)?;
    }
    Ok(vec![Event::TaskFinished { task, outcome }])
}

pub(super) fn cancel(state: &State, task: TaskId) -> Result<Vec<Event>, Refusal> {
    find(state, task)?;
    Ok(vec![Event::TaskCancelled { task }])
}

pub(super) fn delete(state: &State, task: TaskId) -> Result<Vec<Event>, Refusal> {
    find(state, task)?;
    Ok(vec![Event::TaskDeleted { task }])
}

fn find(state: &State, task: TaskId) -> Result<&Task, Refusal> {
    state.tasks.get(&task).map(|found| &**found).ok_or(Refusal::UnknownTask { task })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::id::{InstanceId, RunnerId};
    use crate::observation::Observation;
    use crate::state::RunnerStatus;
    use crate::testing::{Cluster, create_instance, create_task, input, instance, model, task};
    use lockstep_replication::Liveness;

    /// Where the leader sends this task.
    fn route(cluster: &mut Cluster, n: u8) -> InstanceId {
        let events = cluster.ask(create_task(n, "a")).unwrap();
        let [Event::TaskCreated { instance, .. }] = events[..] else { panic!("{events:?}") };
        instance
    }

    #[test]
    fn tasks_go_to_the_least_loaded_instance_of_their_model() {
        let mut cluster = Cluster::with_instances(&[&[1], &[2], &[3]]);
        cluster.ask(create_instance(9, "b", &[4])).unwrap();
        for n in 0..6 {
            assert_eq!(route(&mut cluster, n), instance(n % 3));
        }
        cluster.ask(Command::FinishTask { task: task(4), outcome: TaskOutcome::Done { tokens: 7 } }).unwrap();
        assert_eq!(route(&mut cluster, 10), instance(1));
        cluster.ask(Command::CancelTask { task: task(5) }).unwrap();
        assert_eq!(route(&mut cluster, 11), instance(2));
        cluster.ask(Command::DeleteTask { task: task(0) }).unwrap();
        assert_eq!(route(&mut cluster, 12), instance(0));
    }

    #[test]
    fn no_new_task_goes_where_a_node_is_lost_or_a_runner_failed() {
        let mut cluster = Cluster::with_instances(&[&[1, 2], &[3]]);
        cluster.hear(2, Liveness::Lost);
        assert_eq!([route(&mut cluster, 1), route(&mut cluster, 2)], [instance(1); 2]);
        let is = |status| Observation::Runner { runner: RunnerId::of(instance(1), 0), status };
        cluster.see(3, is(RunnerStatus::Failed { reason: "out of memory".into() }));
        assert_eq!(cluster.ask(create_task(3, "a")), Err(Refusal::NoneAvailable { model: model("a") }));
        cluster.hear(2, Liveness::Heard);
        assert_eq!([route(&mut cluster, 3), route(&mut cluster, 4)], [instance(0); 2]);
        cluster.see(3, is(RunnerStatus::Connecting));
        cluster.ask(Command::CancelTask { task: task(1) }).unwrap();
        assert_eq!(route(&mut cluster, 5), instance(1));
    }

    #[test]
    fn a_ready_instance_comes_before_one_that_still_loads() {
        let mut cluster = Cluster::with_instances(&[&[1], &[2, 3], &[4]]);
        let set = |cluster: &mut Cluster, node, n, rank, status| {
            cluster.see(node, Observation::Runner { runner: RunnerId::of(instance(n), rank), status });
        };
        set(&mut cluster, 1, 0, 0, RunnerStatus::Loading { percent: 90 });
        set(&mut cluster, 2, 1, 0, RunnerStatus::Ready);
        assert_eq!(route(&mut cluster, 1), instance(0), "one rank of two is not all of them");
        set(&mut cluster, 3, 1, 1, RunnerStatus::Running);
        assert_eq!([2, 3, 4].map(|n| route(&mut cluster, n)), [instance(1); 3]);
        set(&mut cluster, 4, 2, 0, RunnerStatus::Ready);
        assert_eq!([5, 6, 7, 8].map(|n| route(&mut cluster, n)), [2, 2, 2, 1].map(instance));
        set(&mut cluster, 3, 1, 1, RunnerStatus::Failed { reason: "killed".into() });
        set(&mut cluster, 4, 2, 0, RunnerStatus::WarmingUp);
        assert_eq!(route(&mut cluster, 9), instance(0), "only those that load are left");
    }

    #[test]
    fn a_task_that_cannot_be_is_refused() {
        let mut cluster = Cluster::with_instances(&[&[1]]);
        cluster.ask(create_task(1, "a")).unwrap();
        assert_eq!(cluster.ask(create_task(1, "a")), Err(Refusal::TaskExists { task: task(1) }));
        assert_eq!(cluster.ask(create_task(2, "b")), Err(Refusal::NoInstance { model: model("b") }));
        assert_eq!(cluster.ask(create_task(2, "z")), Err(Refusal::UnknownModel { model: model("z") }));
        let kind = TaskKind::Embedding;
        let without_id = Command::CreateTask { task: None, model: model("a"), kind, input: input(), gateway: None };
        assert_eq!(cluster.ask(without_id).unwrap_err().code(), "no_id");
    }

    #[test]
    fn a_task_begins_once_and_leaves_when_it_ends() {
        let mut cluster = Cluster::with_instances(&[&[1]]);
        let status = TaskStatus::Running;
        (1..=4).for_each(|n| drop(cluster.ask(create_task(n, "a")).unwrap()));
        let start = Command::StartTask { task: task(1) };
        assert_eq!(cluster.ask(start.clone()), Ok(vec![Event::TaskStatusChanged { task: task(1), status }]));
        assert_eq!(cluster.ask(start), Ok(vec![]));
        assert_eq!(cluster.state.tasks[&task(1)].status, status);
        let failed = TaskOutcome::Failed { reason: "the runner ended".into() };
        let ends = [
            Command::FinishTask { task: task(1), outcome: TaskOutcome::Done { tokens: 7 } },
            Command::FinishTask { task: task(2), outcome: failed },
            Command::CancelTask { task: task(3) },
            Command::DeleteTask { task: task(4) },
        ];
        for end in ends {
            assert_eq!(cluster.ask(end.clone()).unwrap().len(), 1);
            assert_eq!(cluster.ask(end).unwrap_err().code(), "unknown_task");
        }
        let counts = cluster.state.instances[&instance(0)].tasks;
        assert_eq!((counts.live, counts.done, counts.failed, counts.cancelled), (0, 1, 1, 1));
        assert!(cluster.state.tasks.is_empty());
        assert_eq!(cluster.ask(Command::StartTask { task: task(1) }).unwrap_err().code(), "unknown_task");
    }

    #[test]
    fn a_failure_needs_a_reason() {
        let mut cluster = Cluster::with_instances(&[&[1]]);
        cluster.ask(create_task(1, "a")).unwrap();
        let outcome = TaskOutcome::Failed { reason: String::new() };
        let refusal = cluster.refusal(Command::FinishTask { task: task(1), outcome });
        assert_eq!(refusal, "the reason is empty: give it at least one character");
    }

    #[test]
    fn the_cluster_has_room_for_so_many_tasks() {
        let mut cluster = Cluster::with_instances(&[&[1]]);
        let mut create = |n: u32| {
            let mut id = task(0);
            id.0[..4].copy_from_slice(&n.to_be_bytes());
            let (kind, model) = (TaskKind::Embedding, model("a"));
            cluster.ask(Command::CreateTask { task: Some(id), model, kind, input: input(), gateway: None }).map(drop)
        };
        assert!((0..limits::TASKS as u32).all(|n| create(n).is_ok()));
        assert_eq!(create(u32::MAX).unwrap_err().code(), "full");
    }
}
