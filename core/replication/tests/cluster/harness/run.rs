//! One run from its plan to its verdict: faults and commands, then quiet, then agreement, then one more command each.

use std::collections::BTreeSet;

use lockstep_replication::{Hash, NodeId};

use super::checks::converged::{disagreement, waits_for_operator};
use super::plan::Plan;
use super::trace::{Detail, Trace};
use super::world::{Event, Report, World};
use super::{MILLIS, SECONDS};

/// A run. An error is the whole explanation of what went wrong.
pub(crate) fn run(plan: &Plan, detail: Detail) -> Result<Report, String> {
    let mut world = World::new(plan.clone(), Trace::new(detail));
    world.lives().map_err(|broken| world.explain(&broken))
}

impl World {
    fn lives(&mut self) -> Result<Report, String> {
        self.run_until(self.plan.quiet_from)?;
        self.quiet()?;
        let quiet = self.time;
        let deadline = 10 * SECONDS + self.plan.timing.notice + 2 * self.plan.timing.dial;
        if self.plan.loses_data() && waits_for_operator(&self.views()) {
            return Ok(self.report(0));
        }
        self.agree(quiet + deadline, "L13: they do not agree in time")?;
        let agreed_after = self.time - quiet;
        let sessions = |world: &World| -> BTreeSet<_> {
            world.views().iter().filter_map(|(_, view)| view.as_ref().map(|view| format!("{:?}", view.role))).collect()
        };
        let agreed = sessions(self);

        // Agreement lasts, and new commands are done everywhere.
        self.run_until(self.time + 3 * SECONDS)?;
        let before = self.promises.seen.clone();
        for node in self.plan.nodes.clone() {
            let uid = self.clients.fresh_addition();
            self.push(self.time, Event::Try { uid, at: Some(node) });
        }
        self.run_until(self.time + SECONDS)?;
        self.agree(self.time + 4 * SECONDS, "L13: they do not agree again")?;
        if sessions(self) != agreed {
            return Err(format!("L13: they agreed on {agreed:?}, and left it without a fault"));
        }
        let done = |seen: &std::collections::BTreeMap<&'static str, u64>| seen.get("done").copied().unwrap_or_default();
        if done(&self.promises.seen) < done(&before) + self.plan.nodes.len() as u64 {
            return Err(format!(
                "L9: a command was not done in a quiet cluster: {before:?} became {:?}",
                self.promises.seen
            ));
        }
        self.run_until(self.time + self.plan.config.reply_within.0 + SECONDS)?;
        if let Some((node, ticket)) = self.unanswered() {
            return Err(format!("L9: {node:?} never answered {ticket}"));
        }
        let log = self.process(self.plan.nodes[0]).applied;
        let aside: BTreeSet<u64> =
            self.machines.values().flat_map(|machine| machine.disk.asides.iter().flatten().copied()).collect();
        if !self.plan.loses_data() {
            self.promises.end(&self.ledger, log, &aside)?;
        }
        Ok(self.report(agreed_after))
    }

    /// Waits until all agree; at the deadline, says who does not.
    fn agree(&mut self, deadline: u64, law: &str) -> Result<(), String> {
        loop {
            let open = disagreement(&self.views()).or_else(|| self.different_states());
            let Some(open) = open else { return Ok(()) };
            if self.time >= deadline {
                return Err(format!("{law}: {open}"));
            }
            self.run_until(self.time + 50 * MILLIS)?;
        }
    }

    fn different_states(&mut self) -> Option<String> {
        let digests: BTreeSet<Hash> = self
            .machines
            .values()
            .filter_map(|machine| machine.process.as_ref().map(|process| process.node.replica().digest()))
            .collect();
        (digests.len() > 1).then(|| format!("{} states at one index", digests.len()))
    }

    fn unanswered(&self) -> Option<(NodeId, String)> {
        let first = |process: &super::machine::Process| process.tickets.first().map(|ticket| format!("{ticket:?}"));
        self.machines.values().find_map(|machine| Some((machine.id, machine.process.as_ref().and_then(first)?)))
    }
}
