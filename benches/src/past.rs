//! A made-up past: the log that a leader would have written for a workload, and the state that it leads to.

use std::collections::BTreeMap;

use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_inference::event::Event;
use lockstep_inference::state::State;
use lockstep_inference::workload::Workload;
use lockstep_replication::entry::{Body, Decided, Entry, Founding, Opened, Record};
use lockstep_replication::id::ProposalId;
use lockstep_replication::{App, Boot, Index, NodeId, Observed, Replica, Session, Wall, Wish};

/// The workload is the same each time.
pub const SEED: u64 = 1;

/// Who led, and leads.
pub const LEADER: NodeId = NodeId::example(1);

/// The start of the leader in which it wrote the log.
pub const BOOT: Boot = Boot { starts: 1, nonce: 1 };

/// The number of the leader's disk.
pub const DISK: u64 = 11;

/// The one session of the log.
pub const SESSION: Session = Session { clock: 1, leader: LEADER, boot: BOOT };

/// When the first entry was ordered: a date of today's size, so that stamps have today's length.
const BEGAN: u64 = 1_790_000_000_000;

/// A log, and where it leads.
#[derive(Clone, Debug)]
pub struct Past {
    /// Every entry as it is sent and stored, from index 0.
    pub records: Vec<Record>,
    /// The state after the last one.
    pub replica: Replica<Inference>,
}

impl Past {
    /// A cluster's ordinary life: the workload's first so many commands, an entry each, after what a log begins with.
    pub fn ordinary(commands: usize) -> Past {
        Past::of(Workload::new(SEED).take(commands))
    }

    /// The same cluster with its tasks piling up: those of the first so many commands that begin, end or remove tasks are
    /// left out. The state of a much larger cluster.
    pub fn piled_up(commands: usize) -> Past {
        let adds = |command: &Command| match command {
            Command::StartTask { .. }
            | Command::FinishTask { .. }
            | Command::CancelTask { .. }
            | Command::DeleteTask { .. }
            | Command::DeleteInstance { .. } => false,
            Command::SetNodeInfo { .. }
            | Command::EvictNode { .. }
            | Command::AddCard { .. }
            | Command::DeleteCard { .. }
            | Command::CreateInstance { .. }
            | Command::PlaceInstance { .. }
            | Command::CreateTask { .. } => true,
        };
        Past::of(Workload::new(SEED).take(commands).filter(adds))
    }

    /// The log of these commands. Those that are refused leave no entry.
    fn of(commands: impl Iterator<Item = Command>) -> Past {
        let mut past = Past::beginning();
        for (n, command) in (1..).zip(commands) {
            if let Ok(events) = decide(past.replica.state(), command) {
                past.decided(n, events);
            }
        }
        past
    }

    /// What each log begins with.
    pub(crate) fn beginning() -> Past {
        let mut past = Past { records: Vec::new(), replica: Replica::default() };
        let founding = Some(Founding { id: 7, widest: 0, known: vec![(LEADER, Some(DISK))] });
        past.push(Body::Opened(Opened { session: SESSION, founding }));
        past.push(Body::Backed);
        past.push(Body::Generation { node: LEADER, generation: 1 });
        past
    }

    /// Adds what was decided on the leader's nth proposal.
    pub(crate) fn decided(&mut self, n: u64, events: Vec<Event>) {
        let proposal = Some(ProposalId { node: LEADER, generation: 1, n });
        self.push(Body::Decided(Decided { proposal, command: None, events }));
    }

    fn push(&mut self, body: Body<Inference>) {
        let index = self.replica.next();
        // A thousand entries a second.
        let entry = Entry { index, stamp: Wall(BEGAN + index.0), body };
        let record = entry.seal(Inference::SCHEMA);
        self.replica.apply(&record, &entry).expect("it is the next one");
        self.records.push(record);
    }

    /// The state before entry `next`.
    pub fn replica_before(&self, next: Index) -> Replica<Inference> {
        let mut replica = Replica::default();
        for record in &self.records[..next.0 as usize] {
            replica.take(record).expect("the log is whole");
        }
        replica
    }
}

/// What a leader decides on a command.
///
/// # Errors
/// The application refuses it.
pub fn decide(state: &State, command: Command) -> Result<Vec<Event>, <Inference as App>::Refusal> {
    let observed = Observed { telemetry: BTreeMap::new(), schema: Inference::SCHEMA, wall: Wall(BEGAN) };
    Inference::decide(state, &observed, Wish::Command(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_whole_and_the_same_each_time() {
        let (one, other) = (Past::ordinary(1000), Past::ordinary(1000));
        assert_eq!((one.records.len(), one.replica.next()), (1003, Index(1003)));
        assert_eq!(one.replica.digest(), other.replica.digest());
        assert_eq!(one.replica_before(one.replica.next()).digest(), one.replica.digest());
    }

    #[test]
    fn piled_up_tasks_stay() {
        let (ordinary, piled_up) = (Past::ordinary(5000), Past::piled_up(5000));
        assert!(piled_up.replica.state().tasks.len() > 5 * ordinary.replica.state().tasks.len());
    }
}
