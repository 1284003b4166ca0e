//! A run that fails: where it comes from, what plays its smaller forms, and the scenario that is left.

use lockstep_replication::chaos::Mutant;

use super::{Outcome, Shrunk, shrink};
use crate::plan::Plan;
use crate::report::{Failure, Report};
use crate::run::{Options, run};
use crate::scenario::{EXPECT, Expect, Scenario};

/// A run that fails.
#[derive(Clone, Debug)]
pub struct Failing {
    /// What it is called: the seed of what.
    pub name: String,
    /// The run.
    pub plan: Plan,
    /// What it expects beside the laws, if that is what fails: this one thing alone.
    pub expect: Expect,
    /// The fault that is planted in the nodes. What is left holds without it.
    pub mutant: Option<Mutant>,
    /// How it fails.
    pub failure: Failure,
}

/// What is left of a failing run.
#[derive(Clone, Debug)]
pub struct Small {
    /// As a scenario.
    pub scenario: Scenario,
    /// What became of it on the way.
    pub shrunk: Shrunk,
}

/// Why there is nothing to make small.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFailing {
    /// It holds.
    #[error("{0} holds: there is nothing to shrink")]
    Holds(String),
    /// It fails with and without the fault that is planted.
    #[error("{0} fails without the planted fault too: shrink it without")]
    NotOfTheFault(String),
    /// What fails is a count of one phase, and shrinking knows no phases.
    #[error("{0} fails in a count of one phase, which cannot be shrunk: {1}")]
    OfAPhase(String, String),
}

impl Failing {
    /// A seed of the swarm.
    ///
    /// # Errors
    /// It does not fail, or fails without the planted fault too.
    pub fn of_seed(seed: u64, mutant: Option<Mutant>) -> Result<Failing, NotFailing> {
        let (plan, name) = (Plan::drawn(seed), format!("seed {seed} of the swarm"));
        let report = run(&plan, &Options { mutant, ..Options::default() });
        Failing::of(name, plan, Expect::default(), mutant, report)
    }

    /// A seed of a scenario of this name.
    ///
    /// # Errors
    /// It does not fail, or fails without the planted fault too, or in what no single expectation says.
    pub fn of_scenario(
        scenario: &Scenario,
        name: &str,
        seed: u64,
        mutant: Option<Mutant>,
    ) -> Result<Failing, NotFailing> {
        let (plan, name) = (scenario.plan(seed), format!("seed {seed} of {name}"));
        let mut report = run(&plan, &Options { mutant, phase_ends: scenario.phase_ends(), ..Options::default() });
        let mut expect = Expect::default();
        if report.failure.is_none()
            && let Err(broken) = scenario.holds(&report.facts)
        {
            let fails = |single: &Expect| single.holds(&report.facts).is_err();
            let single = scenario.expect.one_by_one().into_iter().find(fails);
            expect = single.ok_or_else(|| NotFailing::OfAPhase(name.clone(), broken.reason))?;
            scenario.judge(&mut report);
        }
        Failing::of(name, plan, expect, mutant, report)
    }

    fn of(
        name: String,
        plan: Plan,
        expect: Expect,
        mutant: Option<Mutant>,
        report: Report,
    ) -> Result<Failing, NotFailing> {
        let Some(failure) = report.failure else { return Err(NotFailing::Holds(name)) };
        let failing = Failing { name, plan, expect, mutant, failure };
        match failing.mutant.is_some() && failing.fails(&failing.plan, None).is_some() {
            true => Err(NotFailing::NotOfTheFault(failing.name)),
            false => Ok(failing),
        }
    }

    /// Plays a plan: how it fails, if it does, and only because of the planted fault if there is one.
    pub fn play(&self, plan: &Plan) -> Option<Outcome> {
        let outcome = self.fails(plan, self.mutant)?;
        let known = outcome.check == self.failure.check;
        (self.mutant.is_none() || known && self.fails(plan, None).is_none()).then_some(outcome)
    }

    fn fails(&self, plan: &Plan, mutant: Option<Mutant>) -> Option<Outcome> {
        let named = self.expect.machines();
        if named.iter().any(|number| plan.machines.iter().all(|machine| machine.number != *number)) {
            return None;
        }
        let report = run(plan, &Options { mutant, ..Options::default() });
        let broken = report.failure.map(|failure| (failure.check, failure.at));
        let expected = || self.expect.holds(&report.facts).err().map(|broken| (broken.check.to_owned(), report.lasted));
        let (check, at) = broken.or_else(expected)?;
        Some(Outcome { check, at, commands: report.commands, lost: report.lost_messages })
    }

    /// Makes it small in at most so many runs; `tick` is called at each.
    pub fn shrink(&self, runs_at_most: u64, tick: &dyn Fn()) -> Option<Small> {
        let mut play = |plan: &Plan| {
            tick();
            self.play(plan)
        };
        let shrunk = shrink(&self.plan, runs_at_most, &mut play)?;
        let options = Options { mutant: self.mutant, ..Options::default() };
        let report = run(&shrunk.plan, &options);
        let expected = || self.expect.holds(&report.facts).err().map(|broken| broken.reason);
        let reason =
            report.failure.as_ref().map(|failure| failure.reason.clone()).or_else(expected).unwrap_or_default();
        let title = format!("{} fails: {reason}", shrunk.outcome.check);
        let why = match self.mutant {
            None => format!("{} failed so, and was made small.", capital(&self.name)),
            Some(mutant) => format!("{} failed so with the fault {mutant}, and was made small.", capital(&self.name)),
        };
        let mut scenario = Scenario::of(&shrunk.plan, &title, &why);
        scenario.mutant = self.mutant.map(|mutant| mutant.to_string());
        if shrunk.outcome.check == EXPECT {
            scenario.expect = self.expect.clone();
        }
        Some(Small { scenario, shrunk })
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
