//! No live stream is closed: each failure that a client is told is true. No stream stays on what is dead: its client is
//! told soon.

use std::collections::BTreeSet;

use lockstep_inference::event::Event;
use lockstep_inference::gateway::Failure;
use lockstep_inference::id::{InstanceId, TaskId};
use lockstep_inference::state::{NodeStatus, State};
use lockstep_replication::Span;

use crate::checks::Broken;

const NAME: &str = "streams";

/// So long may a gateway wait for the rest of an answer whose task is gone.
pub const DEAD_AT_MOST: Span = Span::seconds(8);

/// The books.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Whether something went wrong outside runners.
    troubled: bool,
    /// Instances of which a runner fell.
    fallen: BTreeSet<InstanceId>,
    /// Which instance each task was given to.
    tasks: std::collections::BTreeMap<TaskId, InstanceId>,
}

/// What is known of a stream that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// Its task.
    pub task: TaskId,
    /// The state as its gateway sees it.
    pub state: &'a State,
    /// Whether its client reads too slowly.
    pub slow: bool,
    /// Whether it was asked in the quiet at the end.
    pub last: bool,
}

impl Streams {
    /// Nothing happened yet.
    pub fn new(troubled: bool) -> Streams {
        Streams { troubled, fallen: BTreeSet::new(), tasks: Default::default() }
    }

    /// Something went wrong outside runners.
    pub fn trouble(&mut self) {
        self.troubled = true;
    }

    /// A runner of this instance died, hangs, or prints garbage.
    pub fn runner_fell(&mut self, instance: InstanceId) {
        self.fallen.insert(instance);
    }

    /// Some machine applied an event.
    pub fn event(&mut self, event: &Event) {
        if let Event::TaskCreated { task, instance, .. } = event {
            self.tasks.insert(*task, *instance);
        }
    }

    /// A client is told that its answer does not come.
    pub fn failed(&self, failure: &Failure, of: Failed<'_>) -> Result<(), Broken> {
        let Failed { task, state, slow, last } = of;
        let fell = self.tasks.get(&task).is_some_and(|instance| self.fallen.contains(instance));
        let is_true = match failure {
            _ if last => false,
            Failure::Refused(_) => true,
            Failure::NotOrdered(_)
            | Failure::NotTaken(_)
            | Failure::Unknown(_)
            | Failure::TokensLost(_)
            | Failure::InputLost(_) => self.troubled,
            // More was asked of its instance than it can do.
            Failure::TimedOut(_) => true,
            Failure::Full(_) | Failure::TooLarge { .. } => false,
            // Gone, or there again after a branch of the log lost.
            Failure::TaskGone => !state.tasks.contains_key(&task) || self.troubled,
            Failure::InstanceGone(instance) => !state.instances.contains_key(instance),
            Failure::NodeGone(node) => {
                let stands = state.nodes.get(node).map(|node| node.status);
                matches!(stands, None | Some(NodeStatus::Lost { .. })) || self.troubled
            }
            Failure::Runner(_) => fell || self.troubled,
            // What was held up by a hole comes at once.
            Failure::TooSlow { .. } => slow || self.troubled,
        };
        if is_true {
            return Ok(());
        }
        Err(Broken::new(NAME, format!("a live stream is closed: task {task}: {failure}")))
    }

    /// A stream whose task its machine had, and has no more since then.
    pub fn dead(&self, stream: u64, since: u64, now: u64) -> Result<(), Broken> {
        if now - since <= DEAD_AT_MOST.0 {
            return Ok(());
        }
        Err(Broken::new(NAME, format!("stream {stream} is open {} after its task went", Span(now - since))))
    }
}

#[cfg(test)]
mod tests {
    use lockstep_inference::state::{InputName, TaskKind};
    use lockstep_replication::{Hash, NodeId};

    use super::*;

    const TASK: TaskId = TaskId([1; 16]);

    fn failed(books: &Streams, failure: &Failure, slow: bool, last: bool) -> bool {
        let state = State::default();
        books.failed(failure, Failed { task: TASK, state: &state, slow, last }).is_ok()
    }

    #[test]
    fn a_failure_without_a_cause_is_found() {
        let mut books = Streams::new(false);
        let input = InputName { hash: Hash::default(), bytes: 1 };
        let (instance, kind, gateway) = (InstanceId([2; 16]), TaskKind::Embedding, None);
        books.event(&Event::TaskCreated { task: TASK, instance, kind, input, gateway });
        let runner = Failure::Runner("it died".into());
        let tokens = Failure::TokensLost(NodeId::example(1));
        assert!(!failed(&books, &runner, false, false) && !failed(&books, &tokens, false, false));
        books.runner_fell(instance);
        assert!(failed(&books, &runner, false, false) && !failed(&books, &tokens, false, false));
        let slow = Failure::TooSlow { chunks: 1, bytes: 1 };
        assert!(failed(&books, &slow, true, false) && !failed(&books, &slow, false, false));
        books.trouble();
        assert!(failed(&books, &tokens, false, false));
        assert!(!failed(&books, &runner, false, true), "in the quiet all must go well");
        assert!(failed(&books, &Failure::TaskGone, false, false));
    }

    #[test]
    fn a_stream_on_a_dead_task_is_found() {
        let books = Streams::new(false);
        assert!(books.dead(1, 0, DEAD_AT_MOST.0).is_ok() && books.dead(1, 0, DEAD_AT_MOST.0 + 1).is_err());
    }
}
