//! Faults and clients as they come: what happens to machines, links and commands.

use lockstep_replication::{Input, NodeId, Operator, Span};

use super::disk::Disk;
use super::faults::Fault;
use super::kv::Seen;
use super::world::{Event, World};
use super::{MILLIS, between};

impl World {
    /// A fault comes. What it breaks is mended when faults stop, at the latest.
    pub(crate) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        let left = self.plan.quiet_from.saturating_sub(self.time);
        match fault {
            Fault::Crash { node, down } => self.crash(node, down.min(left))?,
            Fault::Pause { node, lasts } => {
                let until = self.time + lasts.min(left);
                self.machine(node).paused_until = until;
            }
            Fault::Partition { side, lasts, noticed } => {
                for (a, b) in self.pairs() {
                    if side.contains(&a) != side.contains(&b) {
                        self.block(a, b, lasts.min(left), noticed);
                        self.block(b, a, lasts.min(left), noticed);
                    }
                }
            }
            Fault::OneWay { from, to, lasts, noticed } => {
                if from != to {
                    self.block(from, to, lasts.min(left), noticed);
                }
            }
            Fault::Cut { a, b } => self.cut(a, b),
            Fault::WallStep { node, millis } => self.machine(node).clock.wall += millis,
            Fault::SlowDisk { node, each, lasts } => {
                self.machine(node).disk_each = each;
                self.push(self.time + lasts.min(left), Event::FastDisk(node));
            }
            Fault::FailingDisk { node } => self.machine(node).write_fails = true,
            Fault::FailingRead { node } => self.machine(node).read_fails = true,
            Fault::LostTail { node, entries, down } => {
                self.crash(node, down.min(left))?;
                self.machine(node).disk.lose_tail(entries);
            }
            Fault::LostDisk { node, down } => {
                self.crash(node, down.min(left))?;
                let machine = self.machine(node);
                machine.disk = Disk::default();
                machine.confirmed = None;
            }
            Fault::Leave { node, down } => {
                if let Some(process) = self.machine(node).process.as_mut() {
                    process.leaving = Some(down.min(left));
                }
                self.operate(node, Operator::Leave)?;
            }
            Fault::HandOver { node } => self.operate(node, Operator::HandOver)?,
            Fault::Busy { node, lasts } => {
                if self.machines[&node].is_up() {
                    self.step(node, Input::Busy(Span(lasts)))?;
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, from: NodeId, to: NodeId, lasts: u64, noticed: bool) {
        self.net.block(from, to);
        self.push(self.time + lasts, Event::Unblock { from, to });
        if noticed {
            self.cut(from, to);
        }
    }

    /// The process dies, and is started again after a while.
    pub(crate) fn crash(&mut self, node: NodeId, down: u64) -> Result<(), String> {
        let machine = self.machines.get_mut(&node).expect("all machines exist from the beginning");
        let Some(process) = machine.process.take() else { return Ok(()) };
        machine.disk.crash(&mut self.rng, process.boot, machine.write_fails)?;
        machine.confirmed = machine.disk.kept.confirmed.max(machine.confirmed);
        machine.disk_until = self.time;
        machine.paused_until = 0;
        let others: Vec<NodeId> = self.plan.nodes.iter().copied().filter(|other| *other != node).collect();
        for other in others {
            self.cut(node, other);
        }
        for ticket in process.tickets {
            let Some((uid, _)) = self.clients.answered(ticket) else { continue };
            if let Some(after) = self.clients.tries_again(uid, None) {
                self.push(self.time + after, Event::Try { uid, at: None });
            }
        }
        self.trace.note(self.time, || format!("{node:?} is down"));
        self.push(self.time + down, Event::Start(node));
        Ok(())
    }

    /// Faults stop: everything that still is broken is mended.
    pub(crate) fn quiet(&mut self) -> Result<(), String> {
        self.trace.note(self.time, || "FAULTS STOP".to_owned());
        self.net.heal();
        let weather = &mut self.net.weather;
        (weather.loss, weather.gossip_loss, weather.duplicates, weather.slow) = (0, 0, 0, 0);
        weather.reorders = false;
        for node in self.plan.nodes.clone() {
            let (time, each) = (self.time, self.plan.timing.disk);
            let machine = self.machine(node);
            (machine.disk_each, machine.write_fails, machine.read_fails) = (each, false, false);
            // What waits behind a slow write is done in the disk's usual time.
            let (life, waiting) = (machine.life, machine.disk.waiting() as u64);
            machine.disk_until = time + waiting * each;
            (1..=waiting).for_each(|n| self.push(time + n * each, Event::Written { node, life }));
            if self.machines[&node].process.as_ref().is_some_and(|process| process.leaving.is_some()) {
                self.crash(node, 0)?;
            }
        }
        Ok(())
    }

    pub(crate) fn burst(&mut self) -> Result<(), String> {
        if self.time >= self.plan.quiet_from {
            return Ok(());
        }
        for uid in self.clients.burst() {
            self.try_command(uid, None)?;
        }
        let next = self.time + self.clients.next_burst();
        self.push(next, Event::Burst);
        Ok(())
    }

    /// A client hands its command to a node; to any that is up where none is named.
    pub(crate) fn try_command(&mut self, uid: u64, at: Option<NodeId>) -> Result<(), String> {
        let up: Vec<NodeId> =
            self.machines.values().filter(|machine| machine.is_up()).map(|machine| machine.id).collect();
        let Some(node) = at.or_else(|| up.get(self.rng.below(up.len() as u64) as usize).copied()) else {
            return Ok(());
        };
        if self.machines[&node].paused_until > self.time {
            self.push(self.machines[&node].paused_until, Event::Try { uid, at: Some(node) });
            return Ok(());
        }
        self.promises.tried_again(uid);
        let machine = self.machine(node);
        machine.turns += 1;
        let turn = machine.turns;
        let attempt = self.clients.attempt(uid, node, turn);
        self.process(node).tickets.insert(attempt.ticket);
        self.step(node, Input::Command { ticket: attempt.ticket, id: attempt.id, command: attempt.command })
    }

    /// A node sees something now and then, and sends signals.
    pub(crate) fn notice(&mut self, n: u64) -> Result<(), String> {
        if self.time >= self.plan.quiet_from {
            return Ok(());
        }
        let node = self.plan.nodes[self.rng.below(self.plan.nodes.len() as u64) as usize];
        if self.machines[&node].is_up() && self.machines[&node].paused_until <= self.time {
            match n % 3 {
                0 => self.step(node, Input::Observe(Seen { key: n % 5, value: n / 7 }))?,
                1 => self.step(node, Input::Telemetry(n))?,
                _ => self.step(node, Input::Transient { to: None, transient: n })?,
            }
        }
        let next = self.time + between(&mut self.rng, 50, 400) * MILLIS;
        self.push(next, Event::Notice(n + 1));
        Ok(())
    }
}
