//! One process a runner at most, ever; and once things are quiet no process without an instance, and no instance without
//! its processes, unless it was given up.

use std::collections::BTreeSet;

use lockstep_inference::id::{InstanceId, RunnerId};
use lockstep_inference::state::State;
use lockstep_replication::NodeId;

use crate::checks::Broken;
use crate::plan::node_id;

const NAME: &str = "runners";

/// The books.
#[derive(Clone, Debug, Default)]
pub struct Runners {
    processes: BTreeSet<(usize, RunnerId)>,
}

impl Runners {
    /// A machine's worker started a process.
    pub fn started(&mut self, at: usize, runner: RunnerId) -> Result<(), Broken> {
        if self.processes.insert((at, runner)) {
            return Ok(());
        }
        Err(Broken::new(NAME, format!("machine {} starts {runner} while an earlier process of it runs", at + 1)))
    }

    /// A process ended.
    pub fn ended(&mut self, at: usize, runner: RunnerId) {
        self.processes.remove(&(at, runner));
    }

    /// What differs between the processes and the state that all agree on. `given_up`: the instances that some worker
    /// does not try any more.
    pub fn differs(&self, state: &State, given_up: &BTreeSet<InstanceId>) -> Option<String> {
        for (at, runner) in &self.processes {
            let node: NodeId = node_id(*at as u16 + 1);
            let wanted = state.runners.get(runner).is_some_and(|wanted| wanted.node == node);
            if !wanted {
                return Some(format!("machine {} runs {runner}, which no instance has there", at + 1));
            }
        }
        for (runner, wanted) in &state.runners {
            let runs =
                self.processes.iter().any(|(at, other)| other == runner && node_id(*at as u16 + 1) == wanted.node);
            if !runs && !given_up.contains(&wanted.instance) {
                return Some(format!("{runner} of instance {} has no process", wanted.instance));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lockstep_inference::state::{Runner, RunnerStatus};

    use super::*;

    #[test]
    fn processes_that_nobody_wants_or_that_lack_are_found() {
        let (instance, runner) = (InstanceId([1; 16]), RunnerId([2; 16]));
        let mut state = State::default();
        let (mut books, none) = (Runners::default(), BTreeSet::new());
        assert_eq!(books.differs(&state, &none), None);
        books.started(0, runner).unwrap();
        assert!(books.started(0, runner).is_err() && books.differs(&state, &none).is_some());
        let on = |number| Arc::new(Runner { instance, node: node_id(number), status: RunnerStatus::Ready });
        state.runners.insert(runner, on(2));
        assert!(books.differs(&state, &none).is_some(), "it runs on another machine");
        state.runners.insert(runner, on(1));
        assert_eq!(books.differs(&state, &none), None);
        books.ended(0, runner);
        assert!(books.differs(&state, &none).is_some());
        assert_eq!(books.differs(&state, &[instance].into()), None);
    }
}
