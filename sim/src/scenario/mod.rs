//! A scenario: chaos written down for people, CI and the shrinker. A title, why it exists, a plan in phases, and what
//! must hold.

mod expect;
mod load;
#[cfg(test)]
mod refused;
mod words;
mod write;

pub use expect::{Band, CaughtUp, EXPECT, Expect, Lost};
pub use load::ScenarioError;

use lockstep_replication::{Config, Span};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::plan::{Load, MachinePlan, Only, Plan, Timed, Timing, Weather};
use crate::report::{Failure, Report};

/// A scenario as its file has it. Times in a phase count from its beginning.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What happens, in a line.
    pub title: String,
    /// Why it exists: what broke once, or must never break.
    pub why: String,
    /// Whose report it replays, if one's: `exo #2197`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// Where all draws come from, if the command line names no other.
    #[serde(default = "one")]
    pub seed: u64,
    /// Machines 1 to this one start at once.
    #[serde(default)]
    pub nodes: u16,
    /// Machines that start later or otherwise: those of a number up to `nodes` replace what that says.
    #[serde(default, rename = "machine", skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Spanned<MachinePlan>>,
    /// What differs from a node's defaults. Without `founders`, the machines that start at once expect each other.
    #[serde(default)]
    pub config: Config,
    /// What the network is like, until faults stop.
    #[serde(default)]
    pub weather: Weather,
    /// How exact and fast machines and disks are.
    #[serde(default)]
    pub timing: Timing,
    /// Whether messages cross the network as bytes.
    #[serde(default = "yes")]
    pub on_the_wire: bool,
    /// Whether nodes now and then do what they seldom do, though they may.
    #[serde(default)]
    pub moods: bool,
    /// Whether faults spare one good copy of what was stored.
    #[serde(default = "yes")]
    pub spare_copies: bool,
    /// A run with more events than this has failed.
    #[serde(default = "many")]
    pub events_at_most: u64,
    /// When so many events have happened, faults and commands stop early.
    #[serde(default = "no_end")]
    pub quiet_after_events: u64,
    /// The deliberate breakage of the core that it runs with, for a scenario that must fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// What is left of what the dice would do.
    #[serde(default, skip_serializing_if = "is_default")]
    pub only: Only,
    /// What happens, one phase after the other. When the last ends, faults stop and all must agree.
    #[serde(rename = "phase")]
    pub phases: Vec<Spanned<Phase>>,
    /// What must hold beside the laws.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expect: Expect,
}

/// A stretch of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// What it is for.
    pub title: String,
    /// When it ends, from the beginning of the run.
    pub until: Span,
    /// How many entries may be ordered in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Band>,
    /// What clients do. A load that names no end goes on to the end of the phase.
    #[serde(default, rename = "load", skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<Spanned<Load>>,
    /// What goes wrong.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Spanned<Timed>>,
}

/// How many events a scenario may have that names no limit: far more than any needs.
pub const MANY_EVENTS: u64 = 50_000_000;

impl Scenario {
    /// The run that it describes, from this seed.
    pub fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan {
            config: self.config.clone(),
            weather: self.weather.clone(),
            timing: self.timing.clone(),
            quiet_from: self.phases.last().map_or(Span::ZERO, |last| last.get_ref().until),
            quiet_after_events: self.quiet_after_events,
            events_at_most: self.events_at_most,
            on_the_wire: self.on_the_wire,
            moods: self.moods,
            spare_copies: self.spare_copies,
            only: self.only.clone(),
            ..Plan::calm(seed, self.nodes)
        };
        for machine in self.machines.iter().map(Spanned::get_ref) {
            plan.machines.retain(|other| other.number != machine.number);
            plan.machines.push(machine.clone());
        }
        plan.machines.sort_by_key(|machine| machine.number);
        let mut begins = Span::ZERO;
        for phase in self.phases.iter().map(Spanned::get_ref) {
            for load in phase.loads.iter().map(Spanned::get_ref) {
                let number = plan.loads.len() as u32;
                let (from, until) = (begins + load.from, (begins + load.until).min(phase.until));
                plan.loads.push(Load { number, from, until, ..load.clone() });
            }
            let faults = phase.faults.iter().map(Spanned::get_ref);
            plan.faults.extend(faults.map(|timed| Timed { at: begins + timed.at, fault: timed.fault.clone() }));
            begins = phase.until;
        }
        plan.faults.sort_by_key(|timed| timed.at);
        plan
    }

    /// Adds to a report of its run whether what happened is what was expected.
    pub fn judge(&self, report: &mut Report) {
        if report.failure.is_none() {
            report.failure = self.holds(&report.facts).err().map(|broken| Failure {
                check: broken.check.to_owned(),
                reason: broken.reason,
                at: report.lasted,
                nodes: String::new(),
            });
        }
    }

    /// When each phase ends.
    pub fn phase_ends(&self) -> Vec<Span> {
        self.phases.iter().map(|phase| phase.get_ref().until).collect()
    }
}

fn one() -> u64 {
    1
}

fn yes() -> bool {
    true
}

fn many() -> u64 {
    MANY_EVENTS
}

fn no_end() -> u64 {
    u64::MAX
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
