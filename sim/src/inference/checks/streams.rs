//! No live stream is closed: each failure that a client is told has a cause in what went wrong, where it went wrong, while
//! its stream was open or shortly before. No stream stays on what is dead: its client is told soon.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_inference::event::Event;
use lockstep_inference::gateway::Failure;
use lockstep_inference::id::{InstanceId, TaskId};
use lockstep_inference::refusal::Refusal;
use lockstep_inference::state::{NodeStatus, State, TaskStatus};
use lockstep_replication::{NodeId, Span};

use crate::checks::Broken;
use crate::plan::number_of;

const NAME: &str = "streams";

/// So long may a gateway wait for the rest of an answer whose task is gone.
pub const DEAD_AT_MOST: Span = Span::seconds(8);

/// So long after its end trouble still has consequences: leaders are elected, nodes catch up, branches of the log meet, and
/// a creation whose outcome nobody knows is asked about.
const SETTLES: Span = Span::seconds(40);

/// So long after a runner fell its tasks still fail: a hung one is found by its silence.
const FALLS: Span = Span::seconds(30);

/// The books.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Whether the network loses what is sent, all the time.
    rains: bool,
    troubles: Vec<Trouble>,
    /// When each machine started last.
    started: BTreeMap<usize, u64>,
    /// When a runner of an instance fell last.
    fallen: BTreeMap<InstanceId, u64>,
    /// The machines of each instance.
    ranks: BTreeMap<InstanceId, BTreeSet<usize>>,
    deleted: BTreeSet<InstanceId>,
    /// Which instances each task was given to: in branches of the log that lost, others.
    tasks: BTreeMap<TaskId, BTreeSet<InstanceId>>,
}

/// Something went wrong outside runners, until this time.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// On these machines, or between them and all others.
    pub machines: BTreeSet<usize>,
    /// Whether it is the way between them and others.
    pub cuts: bool,
    /// When it ends.
    pub until: u64,
}

/// What is known of a stream that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// Its task.
    pub task: TaskId,
    /// Where its client asked.
    pub at: usize,
    /// When.
    pub opened: u64,
    /// The time now.
    pub now: u64,
    /// The state as its gateway sees it.
    pub state: &'a State,
    /// Whether its client reads too slowly.
    pub slow: bool,
    /// Whether it was asked in the quiet at the end.
    pub last: bool,
}

impl Streams {
    /// Nothing happened yet.
    pub fn new(rains: bool) -> Streams {
        Streams {
            rains,
            troubles: Vec::new(),
            started: BTreeMap::new(),
            fallen: BTreeMap::new(),
            ranks: BTreeMap::new(),
            deleted: BTreeSet::new(),
            tasks: BTreeMap::new(),
        }
    }

    /// Something went wrong outside runners.
    pub fn trouble(&mut self, trouble: Trouble) {
        self.troubles.push(trouble);
    }

    /// A node starts.
    pub fn started(&mut self, at: usize, now: u64) {
        self.started.insert(at, now);
    }

    /// A runner of this instance died, hangs, or prints garbage.
    pub fn runner_fell(&mut self, instance: InstanceId, now: u64) {
        self.fallen.insert(instance, now);
    }

    /// Some machine applied an event.
    pub fn event(&mut self, event: &Event) {
        if let Event::TaskCreated { task, instance, .. } = event {
            self.tasks.entry(*task).or_default().insert(*instance);
        }
        if let Event::InstanceCreated { instance, ranks, .. } = event {
            self.ranks.insert(*instance, ranks.iter().map(|rank| machine(rank.node)).collect());
        }
        if let Event::InstanceDeleted { instance } = event {
            self.deleted.insert(*instance);
        }
    }

    /// A client is told that its answer does not come.
    pub fn failed(&self, failure: &Failure, of: Failed<'_>) -> Result<(), Broken> {
        if !of.last && self.is_true(failure, of) {
            return Ok(());
        }
        Err(Broken::new(NAME, format!("a live stream is closed: task {}: {failure}", of.task)))
    }

    fn is_true(&self, failure: &Failure, of: Failed<'_>) -> bool {
        let Failed { task, at, opened, now, state, slow, .. } = of;
        let none = BTreeSet::new();
        let instances = self.tasks.get(&task).unwrap_or(&none);
        let workers: BTreeSet<usize> =
            instances.iter().filter_map(|it| self.ranks.get(it)).flatten().copied().collect();
        let troubles = || self.troubles.iter().filter(|trouble| trouble.until + SETTLES.0 >= opened);
        // Anything may change the leader, and with it what comes of commands, or which branch of the log wins.
        let leads = troubles().next().is_some();
        // Between the gateway and the workers, or on one of them.
        let between = troubles().any(|Trouble { machines, cuts, .. }| {
            let its = || workers.iter().chain([&at]);
            let inside = its().filter(|machine| machines.contains(machine)).count();
            if *cuts { inside > 0 && inside < its().count() } else { inside > 0 }
        });
        let fell = instances.iter().filter_map(|it| self.fallen.get(it)).any(|fell| fell + FALLS.0 >= opened);
        let deleted = instances.iter().any(|it| self.deleted.contains(it));
        let shown = state.tasks.get(&task).map(|task| task.status);
        match failure {
            Failure::Refused(refusal) => matches!(
                refusal,
                Refusal::NoInstance { .. } | Refusal::NoneAvailable { .. } | Refusal::UnknownModel { .. }
            ),
            // The word why it was refused was lost, and the leader does not remember it.
            Failure::NotOrdered(_) => self.rains || leads,
            Failure::NotTaken(_) => leads || self.started.get(&at).is_some_and(|started| started + SETTLES.0 >= opened),
            Failure::Unknown(_) => leads,
            Failure::TokensLost(_) | Failure::InputLost(_) => self.rains || between,
            Failure::Anew(_) => leads,
            // More was asked of its instance than it can do: it still waits for its turn.
            Failure::TimedOut(_) => shown != Some(TaskStatus::Running) && now >= opened,
            Failure::Full(_) | Failure::TooLarge { .. } | Failure::Request(_) => false,
            // The end was lost on its way, or it was called off, or its branch of the log lost.
            Failure::TaskGone => self.rains || leads || deleted,
            Failure::InstanceGone(instance) => !state.instances.contains_key(instance) && (deleted || leads),
            Failure::NodeGone(node) => {
                let stands = state.nodes.get(node).map(|node| node.status);
                matches!(stands, None | Some(NodeStatus::Lost { .. })) || leads
            }
            Failure::Runner(_) => fell || leads || self.rains,
            Failure::TooSlow { .. } => slow,
        }
    }

    /// A stream whose task its machine had, and has no more since then.
    pub fn dead(&self, stream: u64, since: u64, now: u64) -> Result<(), Broken> {
        if now - since <= DEAD_AT_MOST.0 {
            return Ok(());
        }
        Err(Broken::new(NAME, format!("stream {stream} is open {} after its task went", Span(now - since))))
    }
}

fn machine(node: NodeId) -> usize {
    usize::from(number_of(node)) - 1
}

#[cfg(test)]
mod tests {
    use lockstep_inference::id::{ModelId, RunnerId};
    use lockstep_inference::state::{InputName, Rank, TaskKind};
    use lockstep_replication::Hash;

    use super::*;
    use crate::plan::node_id;

    const TASK: TaskId = TaskId([1; 16]);
    const INSTANCE: InstanceId = InstanceId([2; 16]);
    const MINUTE: u64 = 60_000_000_000;

    /// Task 1, which machine 0's client asked for after a minute, is worked on by machine 1.
    fn books() -> Streams {
        let mut books = Streams::new(false);
        let input = InputName { hash: Hash::default(), bytes: 1 };
        let ranks = vec![Rank { node: node_id(2), runner: RunnerId([3; 16]) }];
        books.event(&Event::InstanceCreated { instance: INSTANCE, model: ModelId::new("m"), ranks });
        let (kind, gateway) = (TaskKind::Embedding, None);
        books.event(&Event::TaskCreated { task: TASK, instance: INSTANCE, kind, input, gateway });
        books
    }

    fn holds(books: &Streams, failure: &Failure, slow: bool, last: bool) -> bool {
        let state = State::default();
        let (opened, now) = (MINUTE, MINUTE + 1);
        books.failed(failure, Failed { task: TASK, at: 0, opened, now, state: &state, slow, last }).is_ok()
    }

    fn trouble(machines: &[usize], cuts: bool, until: u64) -> Trouble {
        Trouble { machines: machines.iter().copied().collect(), cuts, until }
    }

    #[test]
    fn a_failure_without_a_cause_is_found() {
        let mut books = books();
        let runner = Failure::Runner("it died".into());
        let tokens = Failure::TokensLost(node_id(2));
        assert!(!holds(&books, &runner, false, false) && !holds(&books, &tokens, false, false));
        books.runner_fell(INSTANCE, 1);
        assert!(!holds(&books, &runner, false, false), "it fell long before");
        books.runner_fell(INSTANCE, MINUTE);
        assert!(holds(&books, &runner, false, false) && !holds(&books, &tokens, false, false));
        assert!(!holds(&books, &runner, false, true), "in the quiet all must go well");
        let slow = Failure::TooSlow { chunks: 1, bytes: 1 };
        assert!(holds(&books, &slow, true, false) && !holds(&books, &slow, false, false));
        assert!(!holds(&books, &Failure::TaskGone, false, false));
        books.event(&Event::InstanceDeleted { instance: INSTANCE });
        assert!(holds(&books, &Failure::TaskGone, false, false));
    }

    #[test]
    fn trouble_explains_what_it_touches_and_while_it_lasts() {
        let tokens = Failure::TokensLost(node_id(2));
        let with = |trouble| {
            let mut books = books();
            books.trouble(trouble);
            (holds(&books, &tokens, false, false), holds(&books, &Failure::TaskGone, false, false))
        };
        assert_eq!(with(trouble(&[1], false, MINUTE)), (true, true));
        assert_eq!(with(trouble(&[1], false, 1)), (false, false), "it was over long before");
        assert_eq!(with(trouble(&[2], false, MINUTE)), (false, true), "another machine, but it may have led");
        assert_eq!(with(trouble(&[0, 2], true, MINUTE)), (true, true));
        assert_eq!(with(trouble(&[0, 1], true, MINUTE)), (false, true), "both are on one side");
        assert_eq!(with(trouble(&[], true, MINUTE)), (false, true));
    }

    #[test]
    fn a_stream_on_a_dead_task_is_found() {
        let books = Streams::new(false);
        assert!(books.dead(1, 0, DEAD_AT_MOST.0).is_ok() && books.dead(1, 0, DEAD_AT_MOST.0 + 1).is_err());
    }
}
