//! The gateway's deadlines, in order: at most one for each task.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replication::Moment;

use crate::id::TaskId;

#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    in_order: BTreeSet<(Moment, TaskId)>,
    at: BTreeMap<TaskId, Moment>,
}

impl Deadlines {
    pub(super) fn set(&mut self, task: TaskId, at: Option<Moment>) {
        let before = match at {
            Some(at) => self.at.insert(task, at),
            None => self.at.remove(&task),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.in_order.remove(&(before, task));
        }
        if let Some(at) = at {
            self.in_order.insert((at, task));
        }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// The tasks whose time has come.
    pub(super) fn due(&self, now: Moment) -> Vec<TaskId> {
        self.in_order.iter().take_while(|(at, _)| *at <= now).map(|(_, task)| *task).collect()
    }
}
