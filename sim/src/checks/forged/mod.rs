//! The checks themselves, tried: each is shown forged histories that it must reject, beside honest ones that it must accept.

use lockstep_replication::entry::{Body, Decided, Entry, Founding, Opened};
use lockstep_replication::id::ProposalId;
use lockstep_replication::{Boot, Index, Moment, NodeId, Now, Output, Session, Wall};

use super::ledger::{Extended, Ledger, Place};
use super::{Broken, Given, Step};
use crate::kv::{By, Event, Kv};
use crate::plan::node_id;

mod clients;
mod logs;
mod nodes;

/// A log under forgery, and all others that it forks from.
#[derive(Clone, Debug, Default)]
struct Forged {
    ledger: Ledger,
    at: Place,
}

/// A session of node 1.
fn session(clock: u64) -> Session {
    Session { clock, leader: node_id(1), boot: Boot::default() }
}

fn opened(clock: u64, founding: Option<u64>) -> Body<Kv> {
    let founding = founding.map(|id| Founding { id, widest: 0, known: Vec::new() });
    Body::Opened(Opened { session: session(clock), founding })
}

/// Command `uid`, given to machine 1 as its command of this turn.
fn asked(uid: u64, turn: u64) -> Body<Kv> {
    let events = vec![Event::Asked(By { uid, node: 1, turn })];
    Body::Decided(Decided { proposal: None, command: None, events })
}

/// The `n`th proposal of node 2 in a generation.
fn proposed(generation: u64, n: u64) -> Body<Kv> {
    let proposal = Some(ProposalId { node: node_id(2), generation, n });
    Body::Decided(Decided { proposal, command: None, events: vec![Event::Deleted { key: n as u32 }] })
}

impl Forged {
    /// A log with its founding.
    fn founded() -> Forged {
        let mut forged = Forged::default();
        forged.add(0, opened(1, Some(7))).expect("a founding begins a log");
        forged
    }

    /// One more entry.
    fn add(&mut self, stamp: u64, body: Body<Kv>) -> Result<Extended, Broken> {
        let entry = self.entry(stamp, body);
        let extended = self.ledger.extend(self.at, &entry)?;
        self.at = extended.place;
        Ok(extended)
    }

    /// The next entry.
    fn entry(&self, stamp: u64, body: Body<Kv>) -> Entry<Kv> {
        Entry { index: Index(self.at.next), stamp: Wall(stamp), body }
    }

    /// Many entries of one session, the commands from this uid on.
    fn add_commands(&mut self, uids: std::ops::Range<u64>) {
        uids.for_each(|uid| self.add(uid, asked(uid, uid)).map(|_| ()).expect("each is next"));
    }
}

fn now(nanos: u64) -> Now {
    Now { at: Moment(nanos), wall: Wall(0) }
}

fn step<'a>(given: Given, out: &'a [Output<Kv>]) -> Step<'a> {
    Step { time: 0, at: 0, now: now(1000), given, out }
}

/// The check of this name rejects it.
#[track_caller]
fn breaks<T: std::fmt::Debug>(check: &str, result: Result<T, Broken>) {
    let broken = result.expect_err("the check let it pass");
    assert_eq!(broken.check, check, "{broken}");
}

fn stranger() -> NodeId {
    node_id(9)
}
