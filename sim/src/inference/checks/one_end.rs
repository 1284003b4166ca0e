//! Each task ends exactly once, as done, cancelled, failed or with its instance; and each client that waits is told exactly
//! one end, and nothing after it.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_inference::event::Event;
use lockstep_inference::gateway::StreamPart;
use lockstep_inference::id::{InstanceId, TaskId};

use crate::checks::Broken;

const NAME: &str = "one_end";

/// How a client's stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Open,
    Ended,
    HungUp,
}

/// The books.
#[derive(Clone, Debug)]
pub struct OneEnd {
    /// By machine: its live tasks, and those that ended in the log as it has it.
    logs: Vec<(BTreeMap<TaskId, InstanceId>, BTreeSet<TaskId>)>,
    streams: BTreeMap<u64, Stands>,
}

impl OneEnd {
    /// Nothing happened yet on so many machines.
    pub fn new(machines: usize) -> OneEnd {
        OneEnd { logs: vec![Default::default(); machines], streams: BTreeMap::new() }
    }

    /// A machine's state is another one: what is live in it has not ended in its log.
    pub fn replaced(&mut self, at: usize, live: impl Iterator<Item = (TaskId, InstanceId)>) {
        let (lives, ended) = &mut self.logs[at];
        *lives = live.collect();
        // Which of the others ended in this branch of the log, it does not say.
        ended.clear();
    }

    /// A machine applied an event.
    pub fn event(&mut self, at: usize, event: &Event) -> Result<(), Broken> {
        let (lives, ended) = &mut self.logs[at];
        match event {
            Event::TaskCreated { task, instance, .. } => {
                if ended.contains(task) || lives.insert(*task, *instance).is_some() {
                    return Err(Broken::new(NAME, format!("task {task} is created a second time")));
                }
            }
            Event::TaskFinished { task, .. } | Event::TaskCancelled { task } | Event::TaskDeleted { task } => {
                if lives.remove(task).is_none() {
                    return Err(Broken::new(NAME, format!("task {task} ends, and is not live")));
                }
                ended.insert(*task);
            }
            Event::InstanceDeleted { instance } => {
                ended.extend(lives.extract_if(.., |_, of| of == instance).map(|(task, _)| task));
            }
            Event::TaskStatusChanged { task, .. } => {
                if !lives.contains_key(task) {
                    return Err(Broken::new(NAME, format!("task {task} goes on, and is not live")));
                }
            }
            Event::NodeJoined { .. }
            | Event::NodeInfoChanged { .. }
            | Event::NodeTimedOut { .. }
            | Event::NodeReturned { .. }
            | Event::NodeEvicted { .. }
            | Event::LinksChanged { .. }
            | Event::CardAdded { .. }
            | Event::CardDeleted { .. }
            | Event::InstanceCreated { .. }
            | Event::RunnerStatusChanged { .. } => {}
        }
        Ok(())
    }

    /// A client asked.
    pub fn opened(&mut self, stream: u64) {
        self.streams.insert(stream, Stands::Open);
    }

    /// A client hung up, or lost its connection.
    pub fn hung_up(&mut self, stream: u64) {
        self.streams.insert(stream, Stands::HungUp);
    }

    /// A client is told something.
    pub fn delivered(&mut self, stream: u64, part: &StreamPart) -> Result<(), Broken> {
        match self.streams.get(&stream) {
            Some(Stands::Open) => {}
            Some(Stands::HungUp) => {
                return Err(Broken::new(NAME, format!("stream {stream} gets {part:?} after its client left")));
            }
            Some(Stands::Ended) | None => {
                return Err(Broken::new(NAME, format!("stream {stream} gets {part:?} after its end")));
            }
        }
        match part {
            StreamPart::Text(_) => {}
            StreamPart::End { .. } | StreamPart::Failed(_) => {
                self.streams.insert(stream, Stands::Ended);
            }
        }
        Ok(())
    }

    /// The streams whose clients still wait.
    pub fn open(&self) -> Vec<u64> {
        self.streams.iter().filter(|(_, stands)| **stands == Stands::Open).map(|(stream, _)| *stream).collect()
    }
}

#[cfg(test)]
mod tests {
    use lockstep_inference::gateway::Failure;
    use lockstep_inference::state::TaskOutcome;

    use super::*;

    const TASK: TaskId = TaskId([1; 16]);

    fn live() -> OneEnd {
        let mut books = OneEnd::new(1);
        books.replaced(0, [(TASK, InstanceId([9; 16]))].into_iter());
        books
    }

    #[test]
    fn a_task_that_ends_twice_is_found() {
        let mut books = live();
        books.event(0, &Event::TaskFinished { task: TASK, outcome: TaskOutcome::Done { tokens: 1 } }).unwrap();
        assert!(books.event(0, &Event::TaskCancelled { task: TASK }).is_err());
        let mut books = live();
        books.event(0, &Event::InstanceDeleted { instance: InstanceId([9; 16]) }).unwrap();
        assert!(books.event(0, &Event::TaskDeleted { task: TASK }).is_err());
        // In another branch of the log it may still live.
        books.replaced(0, [(TASK, InstanceId([9; 16]))].into_iter());
        books.event(0, &Event::TaskCancelled { task: TASK }).unwrap();
    }

    #[test]
    fn a_client_that_is_told_two_ends_or_more_after_it_is_found() {
        let mut books = OneEnd::new(1);
        books.opened(1);
        books.opened(2);
        let (text, end) = (StreamPart::Text("a".into()), StreamPart::Failed(Failure::TaskGone));
        books.delivered(1, &text).unwrap();
        books.delivered(1, &end).unwrap();
        assert!(books.delivered(1, &text).is_err() && books.delivered(1, &end).is_err());
        assert_eq!(books.open(), [2]);
        books.hung_up(2);
        assert!(books.delivered(2, &text).is_err() && books.delivered(3, &text).is_err());
        assert!(books.open().is_empty());
    }
}
