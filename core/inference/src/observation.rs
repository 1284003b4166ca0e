//! What nodes see and the leader orders if it is new.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::RunnerId;
use crate::state::{NodeInfo, RunnerStatus};

/// Something that a node saw of itself. It tells how things are, not what changed: a newer one makes an older one void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// "This is what I am."
    Info(NodeInfo),
    /// "These neighbours answer my probes."
    Links(BTreeSet<lockstep_replication::NodeId>),
    /// "This runner of mine is so far."
    Runner {
        /// The runner.
        runner: RunnerId,
        /// How far it is.
        status: RunnerStatus,
    },
}

impl Observation {
    /// Under which name it replaces an older one of the same node.
    pub fn key(&self) -> u64 {
        match self {
            Observation::Info(_) => 0,
            Observation::Links(_) => 1,
            // The first bit keeps runners apart from the rest. Two runners of one node that share the other 63 would
            // hide each other's status for a moment; ids are drawn at random.
            Observation::Runner { runner, .. } => {
                let id = u128::from_be_bytes(runner.0);
                ((id >> 64) as u64 ^ id as u64) | 1 << 63
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InstanceId;

    #[test]
    fn a_newer_observation_replaces_an_older_one_of_the_same_thing_only() {
        let runner =
            |rank, status| Observation::Runner { runner: RunnerId::of(InstanceId([3; 16]), rank), status }.key();
        assert_eq!(runner(0, RunnerStatus::Idle), runner(0, RunnerStatus::Ready));
        let keys = [
            Observation::Info(NodeInfo::default()).key(),
            Observation::Links(BTreeSet::new()).key(),
            runner(0, RunnerStatus::Idle),
            runner(1, RunnerStatus::Idle),
        ];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    }
}
