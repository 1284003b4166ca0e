//! Stepping one node, checking what came out, and doing it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lockstep_replication::entry::Entry;
use lockstep_replication::io::{Notice, Stop, Work, Worked};
use lockstep_replication::message::Message;
use lockstep_replication::{
    Hash, Index, Input, Node, NodeId, Now, Operator, Outcome, Output, Role, Ticket, WorkId, wire,
};

use super::checks::spoken;
use super::kv::Kv;
use super::world::{Event, World};
use super::{MICROS, MILLIS, between};

/// The most outputs of one step.
const OUTPUTS_AT_MOST: usize = 50_000;

/// The most writes that may wait.
const WRITES_AT_MOST: usize = 20_000;

impl World {
    /// One step of a node that is up.
    pub(crate) fn step(&mut self, id: NodeId, input: Input<Kv>) -> Result<(), String> {
        let time = self.time;
        let text = self.trace.input(&input);
        let set_aside =
            if let Input::Worked { result: Ok(Worked::Rewound(_, name)), .. } = &input { name.clone() } else { None };
        let now = self.machines[&id].clock.now(time);
        let spurious = self.rng.chance(1, 64);
        let process = self.process(id);
        let mut out = Vec::new();
        stepped(&mut process.node, now, input, &mut out).map_err(|panic| format!("L14: {id:?} panics: {panic}"))?;
        if let Some(wake) = process.node.next_wake()
            && wake.at <= now.at
        {
            return Err(format!("L3: {id:?} is at {:?} and wants to be woken at {wake:?}", now.at));
        }
        if spurious {
            early(&process.node, now).map_err(|what| format!("L4: {id:?} {what}"))?;
        }
        self.trace.step(time, id, &text, &out);
        if out.len() > OUTPUTS_AT_MOST {
            return Err(format!("L10: {} outputs in one step", out.len()));
        }
        if let Some(name) = set_aside
            && !out.iter().any(|output| matches!(output, Output::Notice(Notice::SetAside(said)) if *said == name))
        {
            return Err(format!("L12: {id:?} set {name} aside and did not say so"));
        }
        self.applied(id, &out)?;
        let mut ends = None;
        for output in out {
            ends = self.perform(id, output)?.or(ends);
        }
        match ends {
            Some(End { down }) => self.end(id, down),
            None => {
                self.schedule_wake(id);
                Ok(())
            }
        }
    }

    /// Follows the log that a node applied, entry by entry.
    fn applied(&mut self, id: NodeId, out: &[Output<Kv>]) -> Result<(), String> {
        let mut entries: Vec<&Entry<Kv>> = Vec::new();
        let mut replaced = None;
        for output in out {
            if let Output::Applied(entry) = output {
                entries.push(entry);
            }
            if let Output::Replaced { next } = output {
                replaced = Some(*next);
                self.follow(id, &entries)?;
                entries.clear();
            }
        }
        if let Some(next) = replaced {
            // The state came from elsewhere: it must be one that somebody built, and what follows must fit.
            let target = self.process(id).node.replica().hash();
            let leads = |from: &Hash| {
                let chained = entries.iter().fold(*from, |hash, entry| entry.seal(1).chain(hash));
                chained == target
            };
            let from = self.ledger.with_next(next).into_iter().find(leads);
            let from = from.ok_or_else(|| format!("L6: {id:?} has a state before {next} that nobody built"))?;
            self.process(id).applied = from;
        }
        self.follow(id, &entries)?;
        let applied = self.process(id).applied;
        let replica = self.process(id).node.replica().clone();
        if replica.hash() != applied || replica.next() != self.ledger.next(applied) {
            return Err(format!("L6: {id:?} applied other entries than it said, before {}", replica.next()));
        }
        let looks = replaced.is_some() || !entries.is_empty() && replica.next().0.is_multiple_of(8);
        if looks { self.ledger.state(applied, replica.digest()) } else { Ok(()) }
    }

    fn follow(&mut self, id: NodeId, entries: &[&Entry<Kv>]) -> Result<(), String> {
        for entry in entries {
            let before = self.process(id).applied;
            let (hash, new) = self.ledger.extend(before, &entry.seal(1), entry)?;
            if new {
                self.promises.ordered(&self.ledger, hash)?;
            }
            self.process(id).applied = hash;
        }
        Ok(())
    }

    fn perform(&mut self, id: NodeId, output: Output<Kv>) -> Result<Option<End>, String> {
        match output {
            Output::Send { to, message } => self.send(id, &[to], &message)?,
            Output::Broadcast(message) => {
                let others: Vec<NodeId> = self.plan.nodes.iter().copied().filter(|node| *node != id).collect();
                self.send(id, &others, &message)?;
            }
            Output::Work { id: work_id, work } => self.work(id, work_id, work)?,
            Output::Reply { ticket, outcome } => self.reply(id, ticket, &outcome)?,
            Output::Refuse { peer, .. } => self.cut(id, peer),
            Output::Left => return Ok(Some(End { down: self.process(id).leaving.unwrap_or_default() })),
            Output::Stop(Stop::Disk(_) | Stop::Rejected(_)) => {
                return Ok(Some(End { down: between(&mut self.rng, 100, 1000) * MILLIS }));
            }
            Output::Applied(_)
            | Output::Replaced { .. }
            | Output::Transient { .. }
            | Output::Role(_)
            | Output::Notice(_) => {}
        }
        Ok(None)
    }

    fn send(&mut self, from: NodeId, to: &[NodeId], message: &Message<Kv>) -> Result<(), String> {
        let bytes = wire::encode(message);
        spoken::may_say(from, &self.machines[&from].disk, message, bytes.len())
            .map_err(|what| format!("{from:?} sends {message:?}: {what}"))?;
        for &to in to {
            let believes = self.process(from).peers.get(&to).copied();
            for trip in self.net.carry(self.time, from, to, believes, bytes.len()) {
                self.push(trip.at, Event::Arrive { from, to, epoch: trip.epoch, bytes: bytes.clone() });
            }
        }
        Ok(())
    }

    fn work(&mut self, node: NodeId, id: WorkId, work: Work<Kv>) -> Result<(), String> {
        let each = self.machines[&node].disk_each;
        let takes = between(&mut self.rng, each, each * 2);
        let time = self.time;
        let machine = self.machine(node);
        let life = machine.life;
        match work {
            Work::Read { .. } | Work::Encode { .. } | Work::Decode { .. } => {
                self.push(time + takes, Event::Read { node, life, id, work });
            }
            Work::Keep(_)
            | Work::Append { .. }
            | Work::Rewind { .. }
            | Work::Install(_)
            | Work::Save(_)
            | Work::Trim { .. } => {
                machine.disk.ask(id, work);
                if machine.disk.waiting() > WRITES_AT_MOST {
                    return Err(format!("L10: {} writes wait at {node:?}", machine.disk.waiting()));
                }
                machine.disk_until = machine.disk_until.max(time) + takes;
                let at = machine.disk_until;
                self.push(at, Event::Written { node, life });
            }
        }
        Ok(())
    }

    fn reply(&mut self, node: NodeId, ticket: Ticket, outcome: &Outcome<Kv>) -> Result<(), String> {
        if !self.process(node).tickets.remove(&ticket) {
            return Err(format!("L9: {node:?} answers {ticket:?}, which does not wait: {outcome:?}"));
        }
        let Some((uid, attempts)) = self.clients.answered(ticket) else {
            return Err(format!("L9: {node:?} answers {ticket:?}, which nobody drew"));
        };
        let log = self.process(node).applied;
        let now = self.machines[&node].clock.now(self.time);
        let view = self.process(node).node.view(now.at);
        let session = match view.role {
            Role::Seeking => view.confirmed,
            Role::Following(session) | Role::Leading(session) => Some(session),
        };
        self.promises.reply(&self.ledger, (session, log), uid, attempts, outcome)?;
        if let Outcome::Done { index, held, of } = outcome
            && held * 2 > *of
            && !self.plan.loses_data()
        {
            self.stored_by(log, *index, *held)?;
        }
        if let Some(after) = self.clients.tries_again(uid, Some(outcome)) {
            self.push(self.time + after, Event::Try { uid, at: None });
        }
        Ok(())
    }

    /// L12, at its root: so many disks hold what was done by majority, at the moment when the client is told.
    fn stored_by(&self, log: Hash, index: Index, held: u32) -> Result<(), String> {
        let Some(hash) = self.ledger.cut(log, index) else { return Ok(()) };
        let holds = |node: &NodeId| {
            let disk = &self.machines[node].disk;
            let (base, next) = disk.base();
            let folded = || index < next && self.ledger.leads_to(hash, base);
            disk.hash_at(index).map_or_else(folded, |there| there == hash)
        };
        let found = self.plan.nodes.iter().filter(|node| holds(node)).count() as u32;
        if found < held {
            return Err(format!("L12: entry {index} is held by {held}, says a node; it is on {found} disks"));
        }
        Ok(())
    }

    /// Plans the next wake-up, if it is another one than is planned already.
    pub(crate) fn schedule_wake(&mut self, node: NodeId) {
        let late = self.plan.timing.late;
        let late = between(&mut self.rng, 0, late / MICROS) * MICROS;
        let time = self.time;
        let machine = self.machine(node);
        let (life, clock) = (machine.life, machine.clock);
        let Some(process) = machine.process.as_mut() else { return };
        let when = process.node.next_wake().map(|wake| clock.when(wake.at).max(time));
        if when == process.wake.1 && when.is_some_and(|when| when > time) {
            return;
        }
        process.wake = (process.wake.0 + 1, when);
        let n = process.wake.0;
        if let Some(when) = when {
            self.push(when + late, Event::Wake { node, life, n });
        }
    }

    /// The process ends by itself, and is started again after a while. It answered all its clients first.
    fn end(&mut self, node: NodeId, down: u64) -> Result<(), String> {
        if let Some(ticket) = self.process(node).tickets.first() {
            return Err(format!("L9: {node:?} stops without an answer to {ticket:?}"));
        }
        self.crash(node, down)
    }

    /// An operator's wish.
    pub(crate) fn operate(&mut self, node: NodeId, operator: Operator) -> Result<(), String> {
        if self.machines[&node].is_up() { self.step(node, Input::Operator(operator)) } else { Ok(()) }
    }
}

/// The process ends, and is started again after this time.
struct End {
    down: u64,
}

fn stepped(node: &mut Node<Kv>, now: Now, input: Input<Kv>, out: &mut Vec<Output<Kv>>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| node.step(now, input, out))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
    })
}

/// A wake-up that comes too early changes nothing.
fn early(node: &Node<Kv>, now: Now) -> Result<(), String> {
    let mut copy = node.clone();
    let mut out = Vec::new();
    stepped(&mut copy, now, Input::Wake, &mut out)?;
    if !out.is_empty() {
        return Err(format!("does something at a wake-up that it did not ask for: {out:?}"));
    }
    if copy.next_wake() != node.next_wake() {
        return Err(format!("moves its wake-up from {:?} to {:?}", node.next_wake(), copy.next_wake()));
    }
    Ok(())
}
