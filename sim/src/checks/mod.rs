//! The checks of the laws, one file each. Each is told what happened and answers with a sentence when a law is broken.
//!
//! | | file | seen from outside |
//! |---|---|---|
//! | L1 | `crate::trace` | two runs of one plan have one hash: the sweep's and the tests' matter, since it needs two runs |
//! | L2, L3, L4 | [`wakes`] | at every step, and at wake-ups that nobody asked for |
//! | L5 | [`effects_in_order`] | what the network and the disks lose and fail is the world's; that the rest is in order is checked |
//! | L6 | [`one_content`] | every entry applied, every log's hash, states at checkpoints |
//! | L7 | [`sessions_rise`] | every opening, everything kept, every part taken |
//! | L8 | [`stamps`] | every entry ordered |
//! | L9 | [`one_reply`] | every reply, and those that do not come |
//! | L10 | [`limits`] | outputs, messages, work under way, views. What a buffer drops inside is seen beside that part only |
//! | L11 | [`once_in_order`] | every entry ordered |
//! | L12 | [`done_stays`] | every reply, every word of a leader on what is done, every mark, and the end |
//! | L13 | [`agreement`] | when faults stop |
//! | L14 | [`no_panic`] | every step. Memory inside a node is not seen; what it reports of its queues is |
//!
//! Beside the laws, [`known_one_by_one`] and [`marks`] hold what L12 leans on, and [`spoken`] holds what a node may say only when it is on its disk.
//!
//! The world calls [`Checks`] at each thing that happens. Machines are named by their place in `Plan::machines` (`at`). A check
//! costs what changed: entries are compared in the [`ledger`], which knows every log that anybody ever held.

use std::collections::BTreeSet;

use lockstep_replication::entry::{Body, Entry, Opened};
use lockstep_replication::io::{WorkFailed, Worked};
use lockstep_replication::message::{DoneMark, Message};
use lockstep_replication::{Config, NodeId, Now, Outcome, Output, Role, Session, Ticket, Wake, WorkId};

use crate::kv::{Kv, asked_by};
use crate::plan::Plan;
use crate::world::disk::Disk;
use crate::world::node::AnyNode;
use effects_in_order::{Asked, Kind};
use ledger::{Ledger, Place};
use one_reply::Clients;
pub use one_reply::Counts;
use sessions_rise::Confirmed;
use spoken::Speaker;

pub mod agreement;
mod content;
mod done_stays;
mod effects_in_order;
#[cfg(test)]
mod forged;
mod known_one_by_one;
mod ledger;
pub mod limits;
mod marks;
pub mod no_panic;
mod once_in_order;
mod one_content;
mod one_reply;
mod pages;
mod sessions_rise;
mod spoken;
mod stamps;
mod wakes;

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {reason}")]
pub struct Broken {
    /// The check that says so: the name that failures are told apart by.
    pub check: &'static str,
    /// What was wrong, as a sentence.
    pub reason: String,
}

impl Broken {
    /// What a check found.
    pub fn new(check: &'static str, reason: impl Into<String>) -> Broken {
        Broken { check, reason: reason.into() }
    }

    /// The same, of this machine.
    fn by(self, node: NodeId) -> Broken {
        let number = u16::from_be_bytes([node.0[0], node.0[1]]);
        Broken { reason: format!("node {number}: {}", self.reason), ..self }
    }
}

/// All checks of one run, with what they remember.
#[derive(Clone, Debug)]
pub struct Checks {
    ledger: Ledger,
    states: one_content::States,
    marks: marks::Marks,
    clients: Clients,
    promises: done_stays::Promises,
    machines: Vec<Machine>,
    /// By machine: the log that its disk holds.
    stored: Vec<Place>,
    config: Config,
    /// Whether what was stored may be lost by the plan's faults: then no disk is bound by what it once held.
    loses_data: bool,
}

/// Whether this is a new founding.
fn founds(output: &Output<Kv>) -> bool {
    let Output::Applied(entry) = output else { return false };
    matches!(entry.body, Body::Opened(Opened { founding: Some(_), .. }))
}

/// What the checks remember of a machine.
#[derive(Clone, Debug)]
struct Machine {
    node: NodeId,
    /// The log that its process applied.
    applied: Place,
    role: Role,
    asked: Asked,
    confirmed: Confirmed,
    /// The last word of it, as a leader, on what is done.
    marked: Option<DoneMark>,
    /// Where its log changed the known nodes last.
    changed: Option<u64>,
    /// The last session that it backed as its leader, and where.
    mark: Option<(Session, u64)>,
}

/// What a node was given, as far as checks ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The wake-up that it asked for, perhaps late.
    Wake,
    /// A wake-up that it did not ask for, earlier than the one it did ask for: nothing may follow from it (L2, L4).
    Unasked(Option<Wake>),
    /// A message.
    Message,
    /// A command ([`Checks::asked`] was told of it before).
    Command,
    /// Work ended, well or not.
    Worked {
        /// Which.
        id: WorkId,
        /// Whether it was done.
        well: bool,
    },
    /// The log was cut; what was set aside has this name.
    Rewound {
        /// By which work.
        id: WorkId,
        /// The file's name, if there was anything to set aside.
        aside: Option<String>,
    },
    /// Anything else.
    Other,
}

/// One step of a node.
#[derive(Debug)]
pub struct Step<'a> {
    /// The world's time, in nanoseconds.
    pub time: u64,
    /// Which machine.
    pub at: usize,
    /// Its clocks.
    pub now: Now,
    /// What it was given.
    pub given: Given,
    /// What it put out, in order.
    pub out: &'a [Output<Kv>],
}

impl Checks {
    /// Before anything happened.
    pub fn new(plan: &Plan) -> Checks {
        let machine = |node| Machine {
            node,
            applied: Place::EMPTY,
            role: Role::Seeking,
            asked: Asked::default(),
            confirmed: Confirmed::default(),
            marked: None,
            changed: None,
            mark: None,
        };
        Checks {
            ledger: Ledger::default(),
            states: one_content::States::default(),
            marks: marks::Marks::default(),
            clients: Clients::new(plan.machines.len(), plan.config.reply_within),
            promises: done_stays::Promises::default(),
            machines: plan.machines.iter().map(|planned| machine(planned.identity())).collect(),
            stored: vec![Place::EMPTY; plan.machines.len()],
            config: plan.config.clone(),
            loses_data: plan.loses_data(),
        }
    }

    /// What clients were told so far.
    pub fn outcomes(&self) -> Counts {
        self.clients.counts()
    }

    /// How many different entries were ever applied, on all branches.
    pub fn entries(&self) -> u64 {
        self.ledger.entries()
    }

    /// A machine's process started from its disk.
    pub fn started(&mut self, at: usize, node: &AnyNode, disk: &Disk) -> Result<(), Broken> {
        let machine = &mut self.machines[at];
        machine.applied = one_content::replaced(&self.ledger, node, node.next())?;
        machine.role = Role::Seeking;
        machine.asked = Asked::started(node.next().0);
        machine.confirmed.started(&disk.kept);
        // A write that a crash let through was never reported.
        self.marks.confirmed(machine.node, disk.kept.confirmed);
        machine.marked = None;
        machine.changed = node.changed().map(|index| index.0);
        self.stored[at] = machine.applied;
        self.ledger.hash(machine.applied, node.hash())?;
        self.states.looks(machine.applied, node)
    }

    /// A machine's process died; its disk is what a start would find now, unless more happens to it ([`Checks::disk_changed`]).
    pub fn crashed(&mut self, at: usize, _disk: &Disk) {
        self.clients.crashed(at);
    }

    /// A fault changed what is on the disk of a machine that is down: lost its tail, or all of it.
    pub fn disk_changed(&mut self, at: usize, disk: &Disk) {
        self.machines[at].confirmed.lost(&disk.kept);
        self.stored[at] = self.ledger.cut(self.stored[at], disk.next().0).unwrap_or(self.stored[at]);
    }

    /// A node made a step. Its outputs have not been performed yet.
    pub fn stepped(&mut self, step: &Step<'_>, node: &AnyNode) -> Result<(), Broken> {
        let me = self.machines[step.at].node;
        self.judge(step, node).map_err(|broken| broken.by(me))
    }

    fn judge(&mut self, step: &Step<'_>, node: &AnyNode) -> Result<(), Broken> {
        let at = step.at;
        wakes::stepped(step, node.next_wake())?;
        self.machines[at].asked.stepped(step)?;
        let mut applied = 0;
        for output in step.out {
            match output {
                Output::Applied(entry) => {
                    applied += 1;
                    self.applied(step, entry, node)?;
                }
                Output::Replaced { next } => {
                    applied += 1;
                    let machine = &mut self.machines[at];
                    machine.applied = one_content::replaced(&self.ledger, node, *next)?;
                    machine.asked.replaced(next.0);
                }
                Output::Work { id, work } => {
                    let machine = &mut self.machines[at];
                    machine.asked.asks(&mut self.ledger, machine.applied, *id, work)?;
                    if let lockstep_replication::io::Work::Keep(kept) = work {
                        machine.confirmed.asks(kept)?;
                    }
                }
                Output::Reply { ticket, outcome } => self.replied(at, *ticket, outcome)?,
                Output::Role(role) => {
                    let machine = &mut self.machines[at];
                    machine.role = *role;
                    machine.confirmed.takes(machine.node, *role)?;
                }
                Output::Send { message, .. } | Output::Broadcast(message) => self.marked(at, message)?,
                Output::Left | Output::Stop(_) => self.clients.stopped(at)?,
                Output::Transient { .. } | Output::Refuse { .. } | Output::Notice(_) => {}
            }
        }
        if applied > 0 {
            self.machines[at].changed = node.changed().map(|index| index.0);
        }
        let machine = &self.machines[at];
        one_content::stands(machine.applied, node)?;
        limits::stepped(step.out.len(), machine.asked.waiting())?;
        limits::waits(&self.config, node.waits())?;
        done_stays::announced(step)?;
        self.clients.stepped(at, step.now.at)?;
        if applied > 0 { self.states.changed(&mut self.ledger, machine.applied, node, applied) } else { Ok(()) }
    }

    fn applied(&mut self, step: &Step<'_>, entry: &Entry<Kv>, node: &AnyNode) -> Result<(), Broken> {
        let machine = &mut self.machines[step.at];
        let before = machine.applied;
        let extended = one_content::applied(&mut self.ledger, before, machine.node, entry)?;
        machine.applied = extended.place;
        let Some(stamp_before) = extended.fresh_after else { return Ok(()) };
        stamps::shows(stamp_before, step.now.wall, entry)?;
        match &entry.body {
            Body::Known(_) => {
                // A founding in the same step replaces the known nodes before anybody hears of this change.
                if !step.out.iter().any(founds) {
                    known_one_by_one::ordered(entry.index.0, machine.changed, node.view(step.now.at).done)?;
                }
                machine.changed = Some(entry.index.0);
            }
            Body::Backed => {
                if let Role::Leading(session) = machine.role {
                    machine.mark = Some((session, entry.index.0));
                    let changes = |output: &Output<Kv>| matches!(output, Output::Applied(entry) if matches!(entry.body, Body::Known(_)));
                    if !step.out.iter().any(changes) {
                        self.marks.ordered(session, &node.known())?;
                    }
                }
                self.promises.backed(&self.ledger, extended.place)?;
            }
            Body::Opened(opened) if opened.founding.is_some() => self.promises.founded_anew(&self.ledger, before),
            Body::Opened(_) | Body::Generation { .. } | Body::Decided(_) => {}
        }
        asked_by(entry).map_or(Ok(()), |by| self.clients.ordered(by.uid))
    }

    fn replied(&mut self, at: usize, ticket: Ticket, outcome: &Outcome<Kv>) -> Result<(), Broken> {
        let machine = &self.machines[at];
        let Some(done) = self.clients.replied(&self.ledger, at, machine.applied, ticket, outcome)? else {
            return Ok(());
        };
        match machine.role {
            Role::Following(session) | Role::Leading(session) => self.promises.done(&self.ledger, session, done),
            Role::Seeking => {
                Err(one_reply::broken(format!("a node without a leader says that command {} is done", done.uid)))
            }
        }
    }

    /// A leader's word on what is done, if it is a new one.
    fn marked(&mut self, at: usize, message: &Message<Kv>) -> Result<(), Broken> {
        let mark = match message {
            Message::Done(mark) => *mark,
            Message::Lead(lead) => match lead.done {
                Some(mark) => mark,
                None => return Ok(()),
            },
            Message::Hello { .. }
            | Message::Beat(_)
            | Message::Reach { .. }
            | Message::Probe { .. }
            | Message::Echo { .. }
            | Message::Entries(_)
            | Message::Stored { .. }
            | Message::Nack(_)
            | Message::Replay { .. }
            | Message::Credit { .. }
            | Message::LogBegins { .. }
            | Message::RequestSnapshot { .. }
            | Message::Offer { .. }
            | Message::RequestChunk { .. }
            | Message::Chunk { .. }
            | Message::Propose(_)
            | Message::Refused { .. }
            | Message::HandOver { .. }
            | Message::Transient(_)
            | Message::Reject { .. } => return Ok(()),
        };
        let machine = &mut self.machines[at];
        if machine.marked.replace(mark) == Some(mark) {
            return Ok(());
        }
        marks::said(&mark, machine.mark)?;
        let disks = if self.loses_data { None } else { Some(self.stored.as_slice()) };
        self.promises.marked(&self.ledger, machine.applied, &mark, disks)
    }

    /// A write was done, or failed. The node is told of it next.
    pub fn wrote(
        &mut self,
        at: usize,
        id: WorkId,
        disk: &Disk,
        result: &Result<Worked<Kv>, WorkFailed>,
    ) -> Result<(), Broken> {
        let machine = &mut self.machines[at];
        let node = machine.node;
        let Ok(worked) = result else { return Ok(()) };
        let holds = match machine.asked.kind(id) {
            Some(Kind::Append(place) | Kind::Install(place)) => place,
            Some(Kind::Keep) => {
                self.marks.confirmed(node, disk.kept.confirmed);
                return machine.confirmed.wrote(&disk.kept).map_err(|broken| broken.by(node));
            }
            Some(Kind::Rewind | Kind::Other) | None => match worked {
                Worked::Rewound(restored, _) => {
                    let replica = &restored.replica;
                    self.ledger.find(replica.lineage(), replica.next()).unwrap_or_default()
                }
                Worked::Stored | Worked::Read { .. } | Worked::Encoded(_) | Worked::Decoded(_) => return Ok(()),
            },
        };
        self.stored[at] = holds;
        if disk.next().0 != holds.next {
            let reason = format!("its disk ends before {}, by what was asked before {}", disk.next(), holds.next);
            return Err(effects_in_order::broken(reason).by(node));
        }
        Ok(())
    }

    /// A client gives its command `uid` to a node, for the first time or again, and waits under this ticket. To be called
    /// before the step that takes it in; the reply is found among the outputs of that or a later step.
    pub fn asked(&mut self, at: usize, now: Now, ticket: Ticket, uid: u64) -> Result<(), Broken> {
        self.clients.asked(at, now.at, ticket, uid)
    }

    /// A node sends a message of so many bytes, to one or to all.
    pub fn sent(&mut self, at: usize, disk: &Disk, message: &Message<Kv>, bytes: usize) -> Result<(), Broken> {
        let machine = &self.machines[at];
        let speaker = Speaker { node: machine.node, disk, stored: self.stored[at], applied: machine.applied };
        let says = speaker.may_say(&self.ledger, message);
        says.and_then(|()| limits::sent(&self.config, message, bytes)).map_err(|broken| broken.by(machine.node))
    }

    /// The run is over: all agree with the machine `at`, nothing waits any more, and set-aside files hold these commands.
    pub fn ended(&self, at: usize, aside: &BTreeSet<u64>) -> Result<(), Broken> {
        self.clients.ended()?;
        if self.loses_data {
            return Ok(());
        }
        self.promises.ended(&self.ledger, self.machines[at].applied, aside)
    }
}
