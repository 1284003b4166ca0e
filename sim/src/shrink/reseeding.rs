//! Where the failure hangs on so fine a chance that nothing can be taken away: much is taken away at once, and other seeds
//! are tried until one fails by the same check.

use lockstep_replication::{Config, Span};

use super::{Shrinking, size};
use crate::plan::{Only, Plan, Timing, Weather};

/// So many other seeds for each smaller plan.
const SEEDS: u64 = 16;

/// The longest value that a smaller plan writes: an entry with it is within its limit.
const LONGEST: u64 = 20_000;

/// One thing that is changed in a plan.
type Change<'a> = &'a dyn Fn(&mut Plan);

impl Shrinking<'_> {
    /// Takes away much at once, with other seeds, until the plan is as small as this or nothing helps.
    pub(super) fn with_other_seeds(&mut self, goal: usize) {
        let mut helped = true;
        while helped && size(&self.plan, &self.outcome).total() > goal && !self.is_over() {
            helped = false;
            for smaller in self.much_smaller() {
                if self.try_seeds(&smaller) {
                    helped = true;
                    self.as_a_whole();
                    break;
                }
            }
        }
    }

    fn try_seeds(&mut self, smaller: &Plan) -> bool {
        let smaller = Plan { only: Only::default(), ..smaller.clone() };
        if smaller == (Plan { only: Only::default(), ..self.plan.clone() }) {
            return false;
        }
        let now = size(&self.plan, &self.outcome).total();
        let before = (self.plan.clone(), self.outcome.clone());
        let own = self.plan.seed;
        for seed in (0..SEEDS).map(|other| if other == 0 { own } else { other }) {
            if self.try_plan(Plan { seed, ..smaller.clone() }) {
                if size(&self.plan, &self.outcome).total() < now {
                    return true;
                }
                (self.plan, self.outcome) = before.clone();
            }
        }
        false
    }

    /// The plan without most of something: the calmest first.
    fn much_smaller(&self) -> Vec<Plan> {
        let calm = |plan: &mut Plan| plan.weather = Weather::default();
        let usual = |plan: &mut Plan| plan.timing = Timing::default();
        let few = |plan: &mut Plan| {
            let asked = self.outcome.commands.len() as u64;
            plan.loads.iter_mut().for_each(|load| load.commands = load.commands.min(asked) / 2);
        };
        // An eighth of the commands, each eight times as long: as many bytes.
        let longer = |plan: &mut Plan| {
            let asked = self.outcome.commands.len() as u64;
            for load in &mut plan.loads {
                load.commands = load.commands.min(asked).div_ceil(8);
                load.value_bytes = (load.value_bytes * 8).clamp(400, LONGEST);
                load.value_bytes_min = load.value_bytes;
                load.keys = load.keys.max(500);
            }
        };
        // Nothing is asked before nodes are ready.
        let late = |plan: &mut Plan| plan.loads.iter_mut().for_each(|load| load.from = load.from.max(Span::seconds(3)));
        // A log that is long, of a state that is small.
        let one_key = |plan: &mut Plan| plan.loads.iter_mut().for_each(|load| load.keys = 1);
        let limits = |plan: &mut Plan| {
            plan.config = Config { founders: plan.config.founders, ..Config::default() };
        };
        let faults = self.plan.faults.len();
        let first = |plan: &mut Plan| plan.faults.truncate(faults / 2);
        let last = |plan: &mut Plan| drop(plan.faults.drain(..faults / 2));
        let changes: [&[Change<'_>]; 14] = [
            &[&calm, &longer],
            &[&longer, &late],
            &[&longer],
            &[&calm, &longer, &one_key],
            &[&longer, &one_key],
            &[&calm, &usual, &few, &limits],
            &[&calm, &usual, &few],
            &[&calm, &few],
            &[&calm],
            &[&few, &first],
            &[&few, &last],
            &[&first],
            &[&last],
            &[&few],
        ];
        let changed = |changes: &[Change<'_>]| {
            let mut plan = self.plan.clone();
            changes.iter().for_each(|change| change(&mut plan));
            plan
        };
        changes.into_iter().map(changed).collect()
    }
}
