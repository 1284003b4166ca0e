//! The log's growth is bounded, also where a runner dies at each start; and an idle cluster writes nothing.

use std::collections::BTreeMap;

use lockstep_inference::event::Event;
use lockstep_inference::id::RunnerId;
use lockstep_inference::state::Rank;
use lockstep_replication::Index;

use super::Plan;
use crate::checks::Broken;
use crate::plan::number_of;

const NAME: &str = "growth";

/// The most entries that one start of a runner may cost: each step of its life, and the progress of loading.
const ENTRIES_A_START: u64 = 30;

/// The books.
#[derive(Clone, Debug)]
pub struct Growth {
    /// After so many failures a worker gives an instance up.
    starts: u64,
    /// How often each machine started.
    lives: Vec<u64>,
    runners: BTreeMap<RunnerId, Costs>,
    /// The ranks of each instance, by each of their runners.
    ranks: BTreeMap<RunnerId, Vec<Rank>>,
    /// One past the newest entry that was counted.
    next: Index,
}

/// What a runner cost.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    starts: u64,
    tasks: u64,
    entries: u64,
}

impl Growth {
    /// Nothing happened yet.
    pub fn new(plan: &Plan) -> Growth {
        Growth {
            starts: u64::from(plan.worker.starts),
            lives: vec![0; plan.machines()],
            runners: BTreeMap::new(),
            ranks: BTreeMap::new(),
            next: Index::default(),
        }
    }

    /// A machine started.
    pub fn node_started(&mut self, at: usize) {
        self.lives[at] += 1;
    }

    /// A process was started.
    pub fn runner_started(&mut self, runner: RunnerId) {
        self.runners.entry(runner).or_default().starts += 1;
    }

    /// A runner was given a task.
    pub fn told_task(&mut self, runner: RunnerId) {
        self.runners.entry(runner).or_default().tasks += 1;
    }

    /// An instance has these ranks.
    pub fn made(&mut self, ranks: &[Rank]) {
        ranks.iter().for_each(|rank| drop(self.ranks.insert(rank.runner, ranks.to_vec())));
    }

    /// Some machine applied this entry; the first one that does counts.
    pub fn entry(&mut self, index: Index, events: &[Event]) {
        let is_new = index >= self.next;
        for event in events {
            if let Event::RunnerStatusChanged { runner, .. } = event {
                self.runners.entry(*runner).or_default().entries += u64::from(is_new);
            }
            if let Event::InstanceCreated { ranks, .. } = event {
                self.made(ranks);
            }
        }
        self.next = self.next.max(index.next());
    }

    /// No runner cost more than it may.
    pub fn ended(&self) -> Result<(), Broken> {
        for (runner, costs) in &self.runners {
            let lives = |rank: &Rank| self.lives[usize::from(number_of(rank.node)) - 1];
            let ranks = self.ranks.get(runner).map_or(&[][..], Vec::as_slice);
            let lives: u64 = ranks.iter().map(lives).sum();
            // Each rank may fail so often in each life of its node; the others start anew with it, and at most once for
            // each time that they missed it.
            let starts = self.starts.saturating_mul(lives).saturating_mul(2);
            if costs.starts > starts {
                let reason = format!("{runner} was started {} times, with {lives} lives of its nodes", costs.starts);
                return Err(Broken::new(NAME, reason));
            }
            let entries = ENTRIES_A_START * (costs.starts + lives) + 3 * costs.tasks;
            if costs.entries > entries {
                let reason = format!(
                    "{runner} cost {} entries in {} starts, {} tasks",
                    costs.entries, costs.starts, costs.tasks
                );
                return Err(Broken::new(NAME, reason));
            }
        }
        Ok(())
    }

    /// So long a log before and after nobody did anything.
    pub fn idle(before: Index, after: Index) -> Result<(), Broken> {
        if before == after {
            return Ok(());
        }
        Err(Broken::new(NAME, format!("an idle cluster wrote {} entries", after.since(before))))
    }
}

#[cfg(test)]
mod tests {
    use lockstep_inference::id::{InstanceId, ModelId};
    use lockstep_inference::state::RunnerStatus;

    use super::*;
    use crate::plan::node_id;

    fn books() -> Growth {
        let mut plan = Plan::drawn(0);
        plan.worker.starts = 2;
        let mut books = Growth::new(&plan);
        books.node_started(0);
        let (instance, model) = (InstanceId([1; 16]), ModelId::new("a"));
        let ranks = vec![Rank { node: node_id(1), runner: RunnerId([2; 16]) }];
        books.entry(Index(0), &[Event::InstanceCreated { instance, model, ranks }]);
        books
    }

    #[test]
    fn a_crash_loop_without_end_is_found() {
        let mut books = books();
        (0..4).for_each(|_| books.runner_started(RunnerId([2; 16])));
        books.ended().unwrap();
        books.runner_started(RunnerId([2; 16]));
        assert!(books.ended().is_err());
    }

    #[test]
    fn a_runner_that_fills_the_log_is_found() {
        let mut books = books();
        let told = [Event::RunnerStatusChanged { runner: RunnerId([2; 16]), status: RunnerStatus::Ready }];
        books.runner_started(RunnerId([2; 16]));
        (1..=2 * ENTRIES_A_START).for_each(|n| books.entry(Index(n), &told));
        books.ended().unwrap();
        books.entry(Index(1), &told);
        books.ended().unwrap();
        books.entry(Index(1_000), &told);
        assert!(books.ended().is_err());
    }

    #[test]
    fn an_idle_cluster_that_writes_is_found() {
        Growth::idle(Index(3), Index(3)).unwrap();
        assert!(Growth::idle(Index(3), Index(4)).is_err());
    }
}
