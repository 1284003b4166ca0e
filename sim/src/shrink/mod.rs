//! Making a failing run small: whatever can be taken out of its plan while the same check still fails is taken out.
//!
//! Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) over faults,
//! machines, loads, commands and lost messages; and what is odd is made ordinary, setting by setting.

mod failing;
mod ordinary;
mod reseeding;
mod smaller;

pub use failing::{Failing, Small};

use std::collections::BTreeSet;

use lockstep_replication::Span;
use serde::Serialize;

use crate::plan::{Plan, Sent};

/// What became of one run, as far as shrinking asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The check that failed.
    pub check: String,
    /// When, in the world's time.
    pub at: Span,
    /// The commands that clients gave to nodes.
    pub commands: BTreeSet<u64>,
    /// The messages that the weather lost.
    pub lost: BTreeSet<Sent>,
}

/// How large a plan is: what a reader has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Faults.
    pub faults: usize,
    /// Commands.
    pub commands: usize,
    /// Machines.
    pub machines: usize,
    /// Lost messages.
    pub lost: usize,
}

impl Size {
    /// All of it.
    pub fn total(self) -> usize {
        self.faults + self.commands + self.machines + self.lost
    }

    /// What a run of this size is to be shrunk to: a tenth of it, and never less than 20.
    pub fn goal(self) -> usize {
        (self.total() / 10).max(20)
    }
}

/// A failing plan, made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The plan that is left.
    pub plan: Plan,
    /// How it fails.
    pub outcome: Outcome,
    /// The size of what there was.
    pub before: Size,
    /// The size of what is left.
    pub after: Size,
    /// How many runs it took.
    pub runs: u64,
}

/// Makes a failing plan small in at most so many runs. `run` plays a plan and tells how it fails, if it does.
///
/// None if the plan does not fail.
pub fn shrink(plan: &Plan, runs_at_most: u64, run: &mut dyn FnMut(&Plan) -> Option<Outcome>) -> Option<Shrunk> {
    let outcome = run(plan)?;
    let before = size(plan, &outcome);
    let mut shrinking = Shrinking { plan: plan.clone(), outcome, runs: 1, runs_at_most, run };
    let failing = shrinking.outcome.clone();
    shrinking.as_a_whole();
    if size(&shrinking.plan, &shrinking.outcome).total() > before.goal() {
        shrinking.with_what_is_odd(plan, failing);
    }
    if size(&shrinking.plan, &shrinking.outcome).total() > before.goal() {
        shrinking.with_other_seeds(before.goal());
    }
    loop {
        let then = shrinking.plan.clone();
        shrinking.commands();
        shrinking.lost();
        shrinking.as_a_whole();
        if shrinking.plan == then || shrinking.is_over() {
            break;
        }
    }
    shrinking.tidy();
    let after = size(&shrinking.plan, &shrinking.outcome);
    Some(Shrunk { after, before, runs: shrinking.runs, plan: shrinking.plan, outcome: shrinking.outcome })
}

fn size(plan: &Plan, outcome: &Outcome) -> Size {
    Size {
        faults: plan.faults.len(),
        commands: outcome.commands.len(),
        machines: plan.machines.len(),
        lost: outcome.lost.len(),
    }
}

struct Shrinking<'a> {
    plan: Plan,
    outcome: Outcome,
    runs: u64,
    runs_at_most: u64,
    run: &'a mut dyn FnMut(&Plan) -> Option<Outcome>,
}

impl Shrinking<'_> {
    /// Takes away what goes in large pieces, until nothing more goes. What makes noise goes first: then fewer commands and
    /// losses are left to be taken away one by one.
    fn as_a_whole(&mut self) {
        loop {
            let then = self.plan.clone();
            self.end_early();
            self.ordinary();
            self.faults();
            self.loads();
            self.machines();
            if self.plan == then || self.is_over() {
                return;
            }
        }
    }

    /// Begins anew with the plan as it was, and leaves what is odd for last: over a slow link a few commands may do what
    /// takes thousands over a fast one.
    fn with_what_is_odd(&mut self, plan: &Plan, failing: Outcome) {
        let ordinary = (self.plan.clone(), self.outcome.clone());
        (self.plan, self.outcome) = (plan.clone(), failing);
        self.end_early();
        self.faults();
        self.loads();
        self.machines();
        if size(&self.plan, &self.outcome).total() < size(&ordinary.0, &ordinary.1).total() {
            self.as_a_whole();
        } else {
            (self.plan, self.outcome) = ordinary;
        }
    }

    fn is_over(&self) -> bool {
        self.runs >= self.runs_at_most
    }

    /// Takes this plan if it fails by the same check.
    fn try_plan(&mut self, plan: Plan) -> bool {
        if self.is_over() || plan == self.plan {
            return false;
        }
        self.runs += 1;
        match (self.run)(&plan).filter(|outcome| outcome.check == self.outcome.check) {
            Some(outcome) => {
                self.plan = plan;
                self.outcome = outcome;
                true
            }
            None => false,
        }
    }

    fn try_change(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.plan.clone();
        change(&mut plan);
        self.try_plan(plan)
    }

    /// The fewest of these items with which it still fails, as far as halving finds them.
    fn fewest<T: Clone>(&mut self, items: &[T], set: impl Fn(&mut Plan, Vec<T>)) {
        let mut left = items.to_vec();
        if left.is_empty() || self.try_change(|plan| set(plan, Vec::new())) {
            return;
        }
        let mut parts = 2;
        while left.len() > 1 && !self.is_over() {
            let each = left.len().div_ceil(parts);
            let smaller = (0..left.len()).step_by(each).find_map(|from| {
                let rest: Vec<T> = [&left[..from], &left[(from + each).min(left.len())..]].concat();
                self.try_change(|plan| set(plan, rest.clone())).then_some(rest)
            });
            match smaller {
                Some(rest) => {
                    left = rest;
                    parts = (parts - 1).max(2);
                }
                None if each == 1 => return,
                None => parts = (parts * 2).min(left.len()),
            }
        }
    }

    /// The smallest number up to `most` with which it still fails, as far as halving finds it.
    fn least(&mut self, most: u64, set: impl Fn(&mut Plan, u64)) {
        let (mut fails, mut holds) = (most, None);
        while holds.map_or(0, |holds: u64| holds + 1) < fails && !self.is_over() {
            let middle = holds.map_or(0, |holds| holds + (fails - holds) / 2);
            if self.try_change(|plan| set(plan, middle)) { fails = middle } else { holds = Some(middle) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Fault, Load, Timed, Weather, Who};

    fn crash(number: u16, second: u64) -> Timed {
        Timed { at: Span::seconds(second), fault: Fault::Crash { node: Who::Node(number), down: Span::seconds(1) } }
    }

    /// Fails if machine 2 crashes and command 7 comes and a certain message is lost.
    fn fails(plan: &Plan) -> Option<Outcome> {
        let commands: BTreeSet<u64> = plan.only.commands.clone().unwrap_or_else(|| (0..100).collect());
        let all = (0..50).map(|n| Sent { from: 1, to: 2, n }).collect();
        let lost: BTreeSet<Sent> = plan.only.lost.clone().unwrap_or(all);
        let crashes = plan.faults.iter().any(|timed| timed.fault.machines().contains(&2));
        let is_bad = crashes && commands.contains(&7) && lost.contains(&Sent { from: 1, to: 2, n: 33 });
        is_bad.then(|| Outcome { check: "some_law".into(), at: Span::seconds(9), commands, lost })
    }

    #[test]
    fn what_does_not_matter_is_taken_away() {
        let mut plan = Plan::calm(1, 5);
        plan.quiet_from = Span::seconds(60);
        plan.faults = (0..40).map(|n| crash((n % 5 + 1) as u16, n)).collect();
        plan.faults.push(Timed { at: Span::ZERO, fault: Fault::HandOver { node: Who::LEADER } });
        plan.weather.jitter = Span::seconds(1);
        let shrunk = shrink(&plan, 1000, &mut fails).expect("it fails");
        assert_eq!(shrunk.before, Size { faults: 41, commands: 100, machines: 5, lost: 50 });
        assert_eq!(shrunk.after, Size { faults: 1, commands: 1, machines: 1, lost: 1 });
        assert_eq!(shrunk.plan.weather, Weather::default());
        assert!(shrunk.plan.quiet_from < Span::seconds(10) && shrunk.runs < 200, "{} runs", shrunk.runs);
        assert_eq!(fails(&shrunk.plan), Some(shrunk.outcome));
    }

    #[test]
    fn what_is_odd_stays_where_it_saves_commands() {
        let mut plan = Plan::calm(1, 1);
        plan.weather.bytes_per_milli = 1;
        plan.loads = vec![Load { commands: 400, ..Load::default() }];
        // Over the slow link five commands overflow it, over a fast one it takes a hundred.
        let mut run = |plan: &Plan| {
            let most = plan.loads.first().map_or(0, |load| load.commands);
            let commands: BTreeSet<u64> = plan.only.commands.clone().unwrap_or_else(|| (0..most).collect());
            let least = if plan.weather.bytes_per_milli == 1 { 5 } else { 100 };
            let is_bad = commands.len() >= least;
            is_bad.then(|| Outcome { check: "some_law".into(), at: Span::seconds(9), commands, lost: BTreeSet::new() })
        };
        let shrunk = shrink(&plan, 1000, &mut run).expect("it fails");
        assert_eq!((shrunk.after.commands, shrunk.plan.weather.bytes_per_milli), (5, 1));
    }

    #[test]
    fn another_failure_is_not_taken_for_this_one() {
        let mut plan = Plan::calm(1, 2);
        plan.faults = vec![crash(1, 1), crash(2, 2)];
        let mut run = |plan: &Plan| {
            let check = if plan.faults.len() == 2 { "both" } else { "another" }.to_owned();
            Some(Outcome { check, at: Span::seconds(9), commands: BTreeSet::new(), lost: BTreeSet::new() })
        };
        assert_eq!(shrink(&plan, 1000, &mut run).map(|shrunk| shrunk.after.faults), Some(2));
    }

    #[test]
    fn a_plan_that_holds_is_not_shrunk_and_runs_are_bounded() {
        assert!(shrink(&Plan::calm(1, 2), 1000, &mut |_| None).is_none());
        let mut plan = Plan::calm(1, 5);
        plan.faults = (0..40).map(|n| crash(2, n)).collect();
        assert_eq!(shrink(&plan, 10, &mut fails).map(|shrunk| shrunk.runs), Some(10));
    }
}
