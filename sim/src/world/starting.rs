//! Processes that start and die.

use std::collections::BTreeSet;

use lockstep_replication::{Boot, Input, Seed};

use super::machine::Process;
use super::node::AnyNode;
use super::{Event, World};
use crate::checks::{Broken, Given};
use crate::dice::Site;
use crate::plan::SECONDS;

impl World {
    pub(super) fn start(&mut self, at: usize) -> Result<(), Broken> {
        if self.machines[at].is_up() || self.machines[at].gone {
            return Ok(());
        }
        self.copy_disk(at);
        let (time, machines) = (self.time, self.machines.len());
        let machine = &mut self.machines[at];
        machine.life += 1;
        let mut roll = self.dice.roll(Site::Start, u64::from(machine.number), u64::from(machine.life));
        let (nonce, began) = (roll.number(), roll.below(SECONDS));
        let seed = Seed::from_number(self.plan.seed).fork(&format!("node {} {nonce}", machine.number));
        machine.clock.restarted(began);
        machine.device.write_fails = false;
        machine.disk.starts += 1;
        let boot = Boot { starts: machine.disk.starts, nonce };
        let now = machine.clock.now(time);
        let node = AnyNode::start(machine.id, self.plan.config.clone(), seed, &machine.disk, boot, machine.schema, now);
        let node =
            node.map_err(|why| Broken::new("restores", format!("node {} cannot start: {why}", machine.number)))?;
        machine.process = Some(Box::new(Process {
            node,
            boot,
            tickets: BTreeSet::new(),
            leaving: None,
            peers: vec![0; machines],
            wants: None,
            wants_at: u64::MAX,
            wakes_at: u64::MAX,
            wakes: 0,
        }));
        let number = machine.number;
        self.trace.line(time, || format!("{number} STARTS as {boot:?}"));
        let machine = &self.machines[at];
        if let Some(node) = machine.node() {
            self.checks.started(at, node, &machine.disk)?;
        }
        self.step(at, Input::Telemetry(1), Given::Other, boot.nonce)
    }

    /// A twin starts first: perhaps from what the other machine has on its disk.
    fn copy_disk(&mut self, at: usize) {
        let planned = &self.plan.machines[at];
        let Some(twin) = planned.twin_of.filter(|_| planned.copies_disk && self.machines[at].life == 0) else { return };
        let Some(original) = self.plan.machines.iter().position(|machine| machine.number == twin) else { return };
        self.machines[at].disk = self.machines[original].disk.copied();
    }

    /// The process dies, and is started again after a while.
    pub(super) fn crash(&mut self, at: usize, down: u64) -> Result<(), Broken> {
        let time = self.time;
        let machine = &mut self.machines[at];
        let Some(process) = machine.process.take() else { return Ok(()) };
        let now = machine.clock.now(time);
        let view = process.node.view(now.at);
        self.caught_up.extend(view.catch_ups.iter().map(|finished| (machine.number, *finished)));
        for (name, _, count) in view.counters.all() {
            *self.counted.entry(name).or_default() += count;
        }
        let mut roll = self.dice.roll(Site::Crash, u64::from(machine.number), u64::from(machine.life));
        let fails = machine.device.write_fails || machine.device.full_until > time;
        machine.disk.crash(&mut roll, process.boot, fails).map_err(|why| Broken::new("effects_in_order", why))?;
        machine.device.busy_until = time;
        machine.pace.free_at = time;
        let inbox = std::mem::take(&mut machine.inbox);
        let number = machine.number;
        self.checks.crashed(at, &self.machines[at].disk);
        for other in (0..self.machines.len()).filter(|other| *other != at) {
            self.cut(at, other);
        }
        for ticket in process.tickets {
            let uid = super::clients::uid_answered(ticket);
            if let Some(after) = self.clients.tries_again(uid, None, self.is_quiet) {
                self.push(time + after, Event::Try { uid, at: None });
            }
        }
        for event in inbox {
            if let Event::Try { uid, .. } = event {
                self.push(time, Event::Try { uid, at: None });
            }
        }
        self.trace.line(time, || format!("{number} IS DOWN"));
        self.push(time.saturating_add(down), Event::Start { at: at as u32 });
        Ok(())
    }
}
