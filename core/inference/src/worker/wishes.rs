//! What a worker wants of its tasks, asked for again until the state shows it.

use std::collections::BTreeMap;

use lockstep_replication::{Moment, Span};

use super::config::WorkerConfig;
use crate::command::Command;
use crate::id::TaskId;

#[derive(Clone, Debug, Default)]
pub(super) struct Wishes(BTreeMap<TaskId, Wish>);

#[derive(Clone, Debug)]
struct Wish {
    command: Command,
    wait: Span,
}

impl Wishes {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Something new: asked for at once, and again at the time that is returned. A newer wish replaces an older one.
    pub(super) fn make(&mut self, now: Moment, task: TaskId, command: Command, config: &WorkerConfig) -> Moment {
        self.0.insert(task, Wish { command, wait: config.repeat_first });
        now + config.repeat_first
    }

    /// It was not seen in time: ask for it again, and then again at the time that is returned.
    pub(super) fn again(&mut self, now: Moment, task: &TaskId, config: &WorkerConfig) -> Option<(Command, Moment)> {
        let wish = self.0.get_mut(task)?;
        wish.wait = wish.wait.times(2).min(config.repeat_longest);
        Some((wish.command.clone(), now + wish.wait))
    }

    /// The state shows what was asked for.
    pub(super) fn granted(&mut self, task: &TaskId) -> bool {
        self.0.remove(task).is_some()
    }

    /// The state shows that the task has begun.
    pub(super) fn begun(&mut self, task: &TaskId) -> bool {
        matches!(self.0.get(task), Some(Wish { command: Command::StartTask { .. }, .. })) && self.granted(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_ever_less_often_until_it_is_so() {
        let (mut wishes, config, task) = (Wishes::default(), WorkerConfig::default(), TaskId([1; 16]));
        let mut at = wishes.make(Moment(0), task, Command::CancelTask { task }, &config);
        for wait in [4, 8, 16, 30, 30] {
            let (command, next) = wishes.again(at, &task, &config).unwrap();
            assert_eq!((command, next.since(at)), (Command::CancelTask { task }, Span::seconds(wait)));
            at = next;
        }
        assert!(!wishes.begun(&task) && wishes.granted(&task) && !wishes.granted(&task));
        assert_eq!(wishes.again(at, &task, &config), None);
    }
}
