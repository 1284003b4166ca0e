//! The live tasks, found by their id and by their instance.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{InstanceId, TaskId};
use crate::state::{Task, TaskStatus};

/// All live tasks. It reads as the map of tasks by their id, and is written as it.
#[derive(Clone, Default, PartialEq)]
pub struct Tasks {
    by_id: OrdMap<TaskId, Arc<Task>>,
    /// The same tasks, so that those of one instance are found without looking at the others. Follows from `by_id`.
    by_instance: OrdSet<(InstanceId, TaskId)>,
}

impl Tasks {
    /// The tasks of one instance, in order.
    pub fn of(&self, instance: InstanceId) -> impl Iterator<Item = TaskId> {
        let (first, last) = (TaskId([0; 16]), TaskId([u8::MAX; 16]));
        self.by_instance.range((instance, first)..=(instance, last)).map(|(_, task)| *task)
    }

    pub(crate) fn insert(&mut self, id: TaskId, task: Task) {
        self.remove(id);
        self.by_instance.insert((task.instance, id));
        self.by_id.insert(id, Arc::new(task));
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Arc<Task>> {
        let task = self.by_id.remove(&id)?;
        self.by_instance.remove(&(task.instance, id));
        Some(task)
    }

    pub(crate) fn remove_of(&mut self, instance: InstanceId) {
        let its: Vec<TaskId> = self.of(instance).collect();
        for task in its {
            self.remove(task);
        }
    }

    /// Changes how far a task is, and nothing that it is found by.
    pub(crate) fn set_status(&mut self, id: TaskId, status: TaskStatus) {
        if let Some(task) = self.by_id.get_mut(&id) {
            Arc::make_mut(task).status = status;
        }
    }
}

impl Deref for Tasks {
    type Target = OrdMap<TaskId, Arc<Task>>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.by_id.fmt(f)
    }
}

impl Serialize for Tasks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_id.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tasks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_id = OrdMap::<TaskId, Arc<Task>>::deserialize(deserializer)?;
        let by_instance = by_id.iter().map(|(id, task)| (task.instance, *id)).collect();
        Ok(Tasks { by_id, by_instance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::TaskKind;
    use crate::testing::{input, instance, task};
    use lockstep_replication::Wall;

    fn of(n: u8) -> Task {
        let (kind, status, created) = (TaskKind::Embedding, TaskStatus::Pending, Wall(1));
        Task { instance: instance(n), kind, input: input(), gateway: None, status, created }
    }

    #[test]
    fn an_instance_finds_its_tasks_and_no_others() {
        let mut tasks = Tasks::default();
        for (n, owner) in [(0, 1), (255, 1), (3, 0), (4, 2), (5, 1)] {
            tasks.insert(task(n), of(owner));
        }
        let found = |tasks: &Tasks, n| tasks.of(instance(n)).collect::<Vec<_>>();
        assert_eq!(found(&tasks, 1), [task(0), task(5), task(255)]);
        tasks.remove(task(5));
        tasks.insert(task(4), of(1));
        assert_eq!(found(&tasks, 1), [task(0), task(4), task(255)]);
        assert_eq!(found(&tasks, 2), []);
        tasks.remove_of(instance(1));
        assert_eq!((tasks.len(), tasks.by_instance.len(), found(&tasks, 0)), (1, 1, vec![task(3)]));
    }

    #[test]
    fn tasks_that_were_read_back_are_found_as_before() {
        let mut tasks = Tasks::default();
        (0..9).for_each(|n| tasks.insert(task(n), of(n % 3)));
        let back: Tasks = postcard::from_bytes(&postcard::to_stdvec(&tasks).unwrap()).unwrap();
        assert_eq!(back, tasks);
        assert_eq!(back.of(instance(2)).collect::<Vec<_>>(), [task(2), task(5), task(8)]);
    }
}
