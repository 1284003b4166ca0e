//! What must hold in a world of inference clusters, one file each. They look at what comes out of nodes, workers,
//! gateways and runners alone, and keep books of their own.
//!
//! That logs and states agree is checked by the first world's checks; here only their digests are compared at the end.

pub mod answers;
pub mod growth;
pub mod one_end;
pub mod runners;
pub mod same;
pub mod streams;

use lockstep_inference::Inference;
use lockstep_inference::id::TaskId;
use lockstep_replication::entry::{Body, Entry};
use lockstep_replication::{Index, Replica};

use super::plan::Plan;
use crate::checks::Broken;

use answers::Answers;
use growth::Growth;
use one_end::OneEnd;
use runners::Runners;
use streams::Streams;

/// The books of all checks.
#[derive(Clone, Debug)]
pub struct Checks {
    /// Each task and each stream ends once.
    pub one_end: OneEnd,
    /// No live stream is closed, and no dead one is left open.
    pub streams: Streams,
    /// Processes and instances.
    pub runners: Runners,
    /// The log's growth.
    pub growth: Growth,
    /// What clients were told is what runners said.
    pub answers: Answers,
    /// By machine: one past the last entry that the state contained when it was replaced. What is told of entries before
    /// it in the same step is in it already.
    contained: Vec<Index>,
}

impl Checks {
    /// Nothing happened yet.
    pub fn new(plan: &Plan) -> Checks {
        let rains = plan.weather.loss > 0 || plan.weather.gossip_loss > 0;
        Checks {
            one_end: OneEnd::new(plan.machines()),
            streams: Streams::new(rains),
            runners: Runners::default(),
            growth: Growth::new(plan),
            answers: Answers::default(),
            contained: vec![Index::default(); plan.machines()],
        }
    }

    /// A node started from what its disk held.
    pub fn started(&mut self, at: usize, replica: &Replica<Inference>) {
        self.replaced(at, replica);
        self.growth.node_started(at);
    }

    /// A node applied an entry.
    pub fn applied(&mut self, at: usize, entry: &Entry<Inference>) -> Result<(), Broken> {
        let Body::Decided(decided) = &entry.body else { return Ok(()) };
        for event in &decided.events {
            if entry.index >= self.contained[at] {
                self.one_end.event(at, event)?;
            }
            self.streams.event(event);
            self.answers.event(event)?;
        }
        self.growth.entry(entry.index, &decided.events);
        Ok(())
    }

    /// A node's state was replaced.
    pub fn replaced(&mut self, at: usize, replica: &Replica<Inference>) {
        let state = replica.state();
        self.contained[at] = replica.next();
        self.one_end.replaced(at, state.tasks.iter().map(|(id, task)| (*id, task.instance)));
        state.instances.values().for_each(|made| self.growth.made(&made.ranks));
    }

    /// A client asked, under this name of its task.
    pub fn opened(&mut self, stream: u64, task: TaskId) {
        self.one_end.opened(stream);
        self.answers.opened(task);
    }
}
