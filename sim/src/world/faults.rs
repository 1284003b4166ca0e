//! Faults as they come, and how all of them are mended when they stop.

use lockstep_replication::{Input, Operator, Role, Session};

use super::disk::Disk;
use super::messages::Rule;
use super::{Event, World};
use crate::checks::{Broken, Given};
use crate::faults::{Fault, Part, Who};
use crate::kv::NEWEST_SCHEMA;

impl World {
    /// A fault of the plan comes.
    pub(super) fn fault(&mut self, number: usize) -> Result<(), Broken> {
        if self.is_quiet {
            return Ok(());
        }
        let plan = self.plan.clone();
        let fault = &plan.faults[number].fault;
        self.trace.line(self.time, || format!("FAULT {fault:?}"));
        match fault {
            Fault::Crash { node, down } => self.each(*node, |world, at| world.crash(at, down.0)),
            Fault::Gone { node } => self.each(*node, |world, at| {
                world.machines[at].gone = true;
                world.crash(at, u64::MAX)
            }),
            Fault::Upgrade { node, down } => self.each(*node, |world, at| {
                world.machines[at].schema = NEWEST_SCHEMA;
                world.crash(at, down.0)
            }),
            Fault::Pause { node, lasts } => self.each(*node, |world, at| {
                let until = world.time.saturating_add(lasts.0);
                let pace = &mut world.machines[at].pace;
                pace.free_at = pace.free_at.max(until);
                Ok(())
            }),
            Fault::Slow { node, each, lasts } => self.each(*node, |world, at| {
                let until = world.time.saturating_add(lasts.0);
                let pace = &mut world.machines[at].pace;
                (pace.slow_each, pace.slow_until) = (each.0, until);
                Ok(())
            }),
            Fault::Partition { side, lasts, noticed } => {
                self.part(side, lasts.0, *noticed);
                Ok(())
            }
            Fault::Flapping { lasts, .. } => {
                self.flap(number, self.time.saturating_add(lasts.0), true);
                Ok(())
            }
            Fault::OneWay { from, to, lasts, noticed } => {
                for (from, to) in self.ways(*from, *to) {
                    self.block(from, to, lasts.0, *noticed);
                }
                Ok(())
            }
            Fault::Isolate { node, lasts, hears, is_heard, noticed } => self.each(*node, |world, at| {
                for other in (0..world.machines.len()).filter(|other| *other != at) {
                    if !is_heard {
                        world.block(at, other, lasts.0, *noticed);
                    }
                    if !hears {
                        world.block(other, at, lasts.0, *noticed);
                    }
                }
                Ok(())
            }),
            Fault::Cut { a, b } => {
                self.ways(*a, *b).into_iter().for_each(|(a, b)| self.cut(a, b));
                Ok(())
            }
            Fault::Messages { from, to, lasts, .. } => {
                let (from, to, until) = (self.only(*from), self.only(*to), self.time.saturating_add(lasts.0));
                self.rules.extend(Rule::new(plan.faults[number].at.0, fault, until, from, to));
                Ok(())
            }
            Fault::WallStep { node, millis } => self.each(*node, |world, at| {
                world.machines[at].clock.step_wall(*millis);
                Ok(())
            }),
            Fault::WallDrift { node, millionths } => self.each(*node, |world, at| {
                let time = world.time;
                world.machines[at].clock.drift_wall(time, *millionths);
                Ok(())
            }),
            Fault::SlowDisk { node, each, lasts } => self.each(*node, |world, at| {
                let device = &mut world.machines[at].device;
                (device.each, device.slowed) = (each.0, device.slowed + 1);
                let slowed = device.slowed;
                world.push(world.time.saturating_add(lasts.0), Event::FastDisk { at: at as u32, slowed });
                Ok(())
            }),
            Fault::StalledDisk { node, lasts } => self.each(*node, |world, at| {
                world.machines[at].device.stalled_until = world.time.saturating_add(lasts.0);
                Ok(())
            }),
            Fault::FailingDisk { node } => self.each(*node, |world, at| {
                world.machines[at].device.write_fails = true;
                Ok(())
            }),
            Fault::FullDisk { node, lasts } => self.each(*node, |world, at| {
                world.machines[at].device.full_until = world.time.saturating_add(lasts.0);
                Ok(())
            }),
            Fault::FailingRead { node } => self.each(*node, |world, at| {
                world.machines[at].device.read_fails = true;
                Ok(())
            }),
            Fault::LostTail { node, entries, down } => {
                self.each(*node, |world, at| world.lose(at, down.0, |disk| disk.lose_tail(*entries)))
            }
            Fault::BitRot { node, entries, down } => {
                self.each(*node, |world, at| world.lose(at, down.0, |disk| disk.rot(*entries)))
            }
            Fault::LostDisk { node, down } => {
                self.each(*node, |world, at| world.lose(at, down.0, |disk| *disk = Disk::default()))
            }
            Fault::Leave { node, down } => self.each(*node, |world, at| {
                if let Some(process) = world.machines[at].process.as_mut() {
                    process.leaving = Some(down.0);
                }
                world.operate(at, Operator::Leave)
            }),
            Fault::HandOver { node } => self.each(*node, |world, at| world.operate(at, Operator::HandOver)),
            Fault::LeadAnyway { node } => self.each(*node, |world, at| world.operate(at, Operator::LeadAnyway)),
            Fault::Forget { by, node } => {
                let whom: Vec<_> = self.whom(*node).into_iter().map(|place| self.machines[place].id).collect();
                self.each(*by, |world, at| whom.iter().try_for_each(|id| world.operate(at, Operator::Forget(*id))))
            }
            Fault::Busy { node, lasts } => self.each(*node, |world, at| {
                let seen = lasts.0;
                if world.machines[at].is_up() {
                    world.step(at, Input::Busy(*lasts), Given::Other, seen)
                } else {
                    Ok(())
                }
            }),
        }
    }

    /// An operator's wish.
    fn operate(&mut self, at: usize, operator: Operator) -> Result<(), Broken> {
        if self.machines[at].is_up() { self.step(at, Input::Operator(operator), Given::Other, 3) } else { Ok(()) }
    }

    fn each(&mut self, who: Who, mut does: impl FnMut(&mut World, usize) -> Result<(), Broken>) -> Result<(), Broken> {
        self.whom(who).into_iter().try_for_each(|at| does(self, at))
    }

    /// Whom a fault strikes now.
    fn whom(&self, who: Who) -> Vec<usize> {
        let all = 0..self.machines.len();
        match who {
            Who::Node(number) => all.filter(|at| self.machines[*at].number == number).collect(),
            Who::Part(Part::Everybody) => all.collect(),
            Who::Part(Part::Leader) => self.leader().into_iter().collect(),
            Who::Part(Part::Follower) => {
                let follows = |at: &usize| {
                    self.machines[*at].node().is_some_and(|node| matches!(node.role(), Role::Following(_)))
                };
                all.into_iter().find(follows).into_iter().collect()
            }
        }
    }

    /// The machine that leads the newest session.
    pub fn leader(&self) -> Option<usize> {
        let led = |at: usize| -> Option<(Session, usize)> {
            match self.machines[at].node()?.role() {
                Role::Leading(session) => Some((session, at)),
                Role::Following(_) | Role::Seeking => None,
            }
        };
        (0..self.machines.len()).filter_map(led).max().map(|(_, at)| at)
    }

    /// The one machine that is meant; none: all.
    fn only(&self, who: Who) -> Option<usize> {
        match who {
            Who::Part(Part::Everybody) => None,
            // Where nobody leads or follows nobody is struck.
            Who::Node(_) | Who::Part(Part::Leader | Part::Follower) => {
                Some(self.whom(who).first().copied().unwrap_or(usize::MAX))
            }
        }
    }

    fn ways(&self, from: Who, to: Who) -> Vec<(usize, usize)> {
        let to = self.whom(to);
        let from = self.whom(from).into_iter();
        from.flat_map(|from| to.iter().map(move |to| (from, *to))).filter(|(from, to)| from != to).collect()
    }

    fn block(&mut self, from: usize, to: usize, lasts: u64, noticed: bool) {
        self.network.block(from, to);
        self.push(self.time.saturating_add(lasts), Event::Unblock { from: from as u32, to: to as u32 });
        if noticed {
            self.cut(from, to);
        }
    }

    fn part(&mut self, side: &[u16], lasts: u64, noticed: bool) {
        let is_in: Vec<bool> = self.machines.iter().map(|machine| side.contains(&machine.number)).collect();
        for a in 0..is_in.len() {
            for b in (a + 1..is_in.len()).filter(|b| is_in[a] != is_in[*b]) {
                self.block(a, b, lasts, noticed);
                self.block(b, a, lasts, noticed);
            }
        }
    }

    pub(super) fn flap(&mut self, number: usize, until: u64, stands: bool) {
        let plan = self.plan.clone();
        let Fault::Flapping { side, each, noticed, .. } = &plan.faults[number].fault else { return };
        if self.is_quiet || self.time >= until {
            return;
        }
        if stands {
            self.part(side, each.0.min(until - self.time), *noticed);
        }
        self.push(self.time + each.0.max(1), Event::Flap { fault: number as u32, until, stands: !stands });
    }

    /// The process dies and its disk loses something, unless too many have lost something already.
    fn lose(&mut self, at: usize, down: u64, loses: impl FnOnce(&mut Disk)) -> Result<(), Broken> {
        self.settle_debts();
        let owing = self.machines.iter().filter(|machine| machine.owes.is_some()).count();
        let more = usize::from(self.machines[at].owes.is_none());
        if self.plan.spare_copies && (owing + more) * 2 >= self.machines.len() {
            self.trace.line(self.time, || "too few good copies are left: it does not happen".to_owned());
            return Ok(());
        }
        self.crash(at, down)?;
        let machine = &mut self.machines[at];
        machine.owes = machine.owes.max(Some(machine.disk.next()));
        loses(&mut machine.disk);
        self.checks.disk_changed(at, &machine.disk);
        Ok(())
    }

    /// Who has again what it lost, and is whole, owes nothing more.
    fn settle_debts(&mut self) {
        let time = self.time;
        for machine in &mut self.machines {
            let now = machine.clock.now(time);
            let is_whole = machine.process.as_ref().is_some_and(|process| !process.node.view(now.at).damaged);
            if is_whole && !machine.disk.kept.damaged && Some(machine.disk.next()) >= machine.owes {
                machine.owes = None;
            }
        }
    }

    /// Faults stop: everything that still is broken is mended.
    pub fn quiet(&mut self) -> Result<(), Broken> {
        self.trace.line(self.time, || "FAULTS STOP".to_owned());
        self.is_quiet = true;
        self.rules.clear();
        self.network.heal();
        let (time, each) = (self.time, self.plan.timing.disk.0);
        for at in 0..self.machines.len() {
            let machine = &mut self.machines[at];
            let device = &mut machine.device;
            (device.each, device.slowed) = (each, device.slowed + 1);
            (device.write_fails, device.read_fails) = (false, false);
            (device.stalled_until, device.full_until) = (time, time);
            // What waits behind a slow write is done in the disk's usual time.
            let waiting = machine.disk.waiting() as u64;
            device.busy_until = time + waiting * each;
            machine.pace.slow_until = time;
            machine.pace.free_at = time;
            let (life, paused) = (machine.life, !machine.inbox.is_empty());
            let leaving = machine.process.as_ref().is_some_and(|process| process.leaving.is_some());
            (1..=waiting).for_each(|n| self.push(time + n * each, Event::Written { at: at as u32, life }));
            if paused {
                self.push(time, Event::GoOn { at: at as u32 });
            }
            if self.machines[at].needs_upgrade {
                self.machines[at].schema = NEWEST_SCHEMA;
            }
            if leaving || self.machines[at].needs_upgrade && self.machines[at].is_up() {
                self.crash(at, 0)?;
            }
            self.push(time, Event::Start { at: at as u32 });
        }
        Ok(())
    }
}
