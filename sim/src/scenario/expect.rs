//! What a scenario expects beside the laws: times, counts and ways.

use std::collections::BTreeMap;

use lockstep_replication::Span;
use lockstep_replication::view::CatchUpPath;
use serde::{Deserialize, Serialize};

use super::Scenario;
use crate::checks::Broken;
use crate::report::Facts;

/// The check that fails where a scenario's expectations do.
pub const EXPECT: &str = "expect";

/// What must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// So soon after faults stop, all nodes agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub converge_within: Option<Span>,
    /// How far the run's counters go.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, Band>,
    /// Nodes that the leader must count as lost, and when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// Nodes that no leader may count as lost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never_lost: Vec<u16>,
    /// Nodes that must catch up, and how.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caught_up: Vec<CaughtUp>,
}

/// A number's bounds, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Band {
    /// The least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u64>,
    /// The most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
}

/// A node that must be counted as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// Which.
    pub node: u16,
    /// When its silence begins, from the beginning of the run.
    pub silent_from: Span,
    /// Not sooner than so long after that.
    #[serde(default)]
    pub not_before: Span,
    /// Not later.
    pub within: Span,
}

/// A node that must catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaughtUp {
    /// Which.
    pub node: u16,
    /// By which way, if that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<CatchUpPath>,
    /// From its request to the head of then.
    pub within: Span,
}

impl Band {
    fn check(self, what: &str, found: u64) -> Result<(), Broken> {
        if self.at_least.is_some_and(|least| found < least) || self.at_most.is_some_and(|most| found > most) {
            let least = self.at_least.map_or("0".to_owned(), |least| least.to_string());
            let most = self.at_most.map_or("any number".to_owned(), |most| most.to_string());
            return Err(Broken::new(EXPECT, format!("{what}: {found}, expected {least} to {most}")));
        }
        Ok(())
    }
}

impl Expect {
    /// The machines that it names.
    pub fn machines(&self) -> Vec<u16> {
        let lost = self.lost.iter().map(|lost| lost.node);
        let caught_up = self.caught_up.iter().map(|caught_up| caught_up.node);
        lost.chain(caught_up).chain(self.never_lost.iter().copied()).collect()
    }
}

impl Scenario {
    /// Whether what happened is what was expected.
    ///
    /// # Errors
    /// It is not: the first expectation that failed, with what was found.
    pub fn holds(&self, facts: &Facts) -> Result<(), Broken> {
        for (phase, entries) in self.phases.iter().zip(&facts.entries_by_phase) {
            let phase = phase.get_ref();
            phase.entries.unwrap_or_default().check(&format!("entries in phase {:?}", phase.title), *entries)?;
        }
        self.expect.holds(facts)
    }
}

impl Expect {
    /// Whether what happened is what was expected.
    ///
    /// # Errors
    /// It is not: the first expectation that failed, with what was found.
    pub fn holds(&self, facts: &Facts) -> Result<(), Broken> {
        let broken = |reason: String| Err(Broken::new(EXPECT, reason));
        if let Some(within) = self.converge_within
            && facts.agreed_after > within
        {
            return broken(format!("all agreed {} after faults stopped, expected {within}", facts.agreed_after));
        }
        for (name, band) in &self.counters {
            band.check(name, facts.counters.get(name.as_str()).copied().unwrap_or_default())?;
        }
        for Lost { node, silent_from, not_before, within } in &self.lost {
            let when = facts.lost.iter().find(|(number, at)| number == node && at >= silent_from);
            let after = when.map(|(_, at)| *at - *silent_from);
            if !after.is_some_and(|after| after >= *not_before && after <= *within) {
                let found = after.map_or("never".to_owned(), |after| format!("after {after}"));
                return broken(format!("node {node} was lost {found}, expected after {not_before} to {within}"));
            }
        }
        if let Some((node, at)) = facts.lost.iter().find(|(node, _)| self.never_lost.contains(node)) {
            return broken(format!("node {node} was counted as lost at {at}, expected never"));
        }
        for CaughtUp { node, path, within } in &self.caught_up {
            let its = facts.caught_up.iter().filter(|(number, _)| number == node).map(|(_, finished)| finished);
            let fits = |found: CatchUpPath| path.is_none_or(|path| path == found);
            let best =
                its.clone().filter(|finished| fits(finished.path)).map(|finished| finished.requested_to_applied_us);
            if !best.clone().any(|micros| micros <= within.0 / 1000) {
                let all: Vec<String> =
                    its.map(|run| format!("{:?} in {} µs", run.path, run.requested_to_applied_us)).collect();
                let wanted = path.map_or("any way".to_owned(), |path| format!("{path:?}"));
                let found = if all.is_empty() { "never".to_owned() } else { all.join(", ") };
                return broken(format!("node {node} caught up {found}, expected by {wanted} within {within}"));
            }
        }
        Ok(())
    }

    /// Each thing that is expected, by itself.
    pub fn one_by_one(&self) -> Vec<Expect> {
        let one = |set: &dyn Fn(&mut Expect)| {
            let mut one = Expect::default();
            set(&mut one);
            one
        };
        let mut all = vec![one(&|one| one.converge_within = self.converge_within)];
        all.extend(self.counters.iter().map(|(name, band)| one(&|one| one.counters = [(name.clone(), *band)].into())));
        all.extend(self.lost.iter().map(|lost| one(&|one| one.lost = vec![*lost])));
        all.extend(self.never_lost.iter().map(|number| one(&|one| one.never_lost = vec![*number])));
        all.extend(self.caught_up.iter().map(|caught_up| one(&|one| one.caught_up = vec![*caught_up])));
        all
    }
}
