//! What can be taken away: time, faults, loads, machines, commands, lost messages.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replication::Span;

use super::Shrinking;
use crate::faults::Fault;
use crate::plan::{Load, Plan, Sent};
use crate::world::clients::{load_of, uid_of};

impl Shrinking<'_> {
    /// What comes after the failure did not cause it.
    pub(super) fn end_early(&mut self) {
        let at = self.outcome.at;
        if at < self.plan.quiet_from {
            self.try_change(|plan| {
                plan.quiet_from = at + Span(1);
                plan.faults.retain(|timed| timed.at <= at);
            });
        }
    }

    /// Whole families first, then one by one.
    pub(super) fn faults(&mut self) {
        let families: BTreeSet<_> = self.plan.faults.iter().map(|timed| timed.fault.name()).collect();
        for family in families {
            self.try_change(|plan| plan.faults.retain(|timed| timed.fault.name() != family));
        }
        let faults = self.plan.faults.clone();
        self.fewest(&faults, |plan, left| plan.faults = left);
    }

    /// Loads go as a whole, then their last commands, then what nodes say beside commands.
    pub(super) fn loads(&mut self) {
        let loads = self.plan.loads.clone();
        self.fewest(&loads, |plan, left| {
            let old: Vec<u32> = left.iter().map(|load| load.number).collect();
            plan.loads = (0..).zip(left).map(|(number, load)| Load { number, ..load }).collect();
            let renumbered = |uid: u64| {
                let number = old.iter().position(|number| *number == load_of(uid))?;
                Some(uid_of(number as u32, u64::from(uid as u32)))
            };
            let only = plan.only.commands.take();
            plan.only.commands = only.map(|uids| uids.into_iter().filter_map(renumbered).collect());
        });
        for place in 0..self.plan.loads.len() {
            self.try_change(|plan| plan.loads[place].notices_every = Span::ZERO);
            // No more than were given to nodes: the failure came before the others.
            let asked = self.outcome.commands.iter().filter(|uid| load_of(**uid) as usize == place).count() as u64;
            self.least(asked, |plan, most| plan.loads[place].commands = most);
            self.later(place);
        }
    }

    /// What is asked before a node is ready, or before it matters, need not be asked: a load begins later, and with fewer
    /// commands.
    fn later(&mut self, place: usize) {
        let asked = self.outcome.commands.len() as u64;
        for from in [Span::seconds(1), Span::seconds(3), Span(self.outcome.at.0 / 2)] {
            let load = &self.plan.loads[place];
            if from > load.from && from < load.until {
                for part in [8, 2] {
                    self.try_no_larger(|plan| {
                        plan.loads[place].from = from;
                        plan.loads[place].commands = plan.loads[place].commands.min(asked).div_ceil(part);
                    });
                }
            }
        }
    }

    /// Writes down which commands there are, and takes away each that is not needed.
    pub(super) fn commands(&mut self) {
        let commands: Vec<u64> = self.outcome.commands.iter().copied().collect();
        self.fewest(&commands, |plan, left| plan.only.commands = Some(left.into_iter().collect()));
    }

    /// Writes down which messages are lost, and lets each come that may.
    pub(super) fn lost(&mut self) {
        let lost: Vec<Sent> = self.outcome.lost.iter().copied().collect();
        self.fewest(&lost, |plan, left| plan.only.lost = Some(left.into_iter().collect()));
    }

    /// Machines go with the faults that name them, the last one first; or are at least numbered without gaps.
    pub(super) fn machines(&mut self) {
        let numbers: Vec<u16> = self.plan.machines.iter().map(|machine| machine.number).rev().collect();
        for number in numbers {
            if self.plan.machines.len() > 1 {
                let mut plan = self.plan.clone();
                without(&mut plan, number);
                let mut renumbered = plan.clone();
                renumber(&mut renumbered);
                let _ = self.try_plan(renumbered) || self.try_plan(plan);
            }
        }
        self.try_change(renumber);
    }
}

fn without(plan: &mut Plan, number: u16) {
    let all = plan.machines.len();
    plan.machines.retain(|machine| machine.number != number && machine.twin_of != Some(number));
    for timed in &mut plan.faults {
        if let Fault::Partition { side, .. } | Fault::Flapping { side, .. } = &mut timed.fault {
            side.retain(|other| *other != number);
        }
    }
    plan.faults.retain(|timed| !timed.fault.machines().contains(&number));
    plan.loads.iter_mut().for_each(|load| load.nodes.retain(|other| *other != number));
    // A majority of those who are left is as easily found as before.
    if plan.config.founders == all {
        plan.config.founders = plan.machines.len();
    }
    plan.config.founders = plan.config.founders.min(plan.machines.len());
}

/// Gives the machines the numbers from 1 on.
fn renumber(plan: &mut Plan) {
    let numbers: BTreeMap<u16, u16> = (1..).zip(&plan.machines).map(|(new, machine)| (machine.number, new)).collect();
    let renumbered = |number: &mut u16| *number = numbers.get(number).copied().unwrap_or(*number);
    for machine in &mut plan.machines {
        renumbered(&mut machine.number);
        machine.twin_of.iter_mut().for_each(renumbered);
    }
    plan.loads.iter_mut().flat_map(|load| &mut load.nodes).for_each(renumbered);
    for timed in &mut plan.faults {
        timed.fault.rename(&renumbered);
    }
    let only = plan.only.lost.take();
    plan.only.lost = only.map(|lost| {
        let renamed = |mut sent: Sent| {
            renumbered(&mut sent.from);
            renumbered(&mut sent.to);
            sent
        };
        lost.into_iter().map(renamed).collect()
    });
}
