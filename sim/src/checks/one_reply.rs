//! L9: every client command gets one reply, and the reply is true: done at an index where the log shows it; refused, and then
//! it never comes; or unknown. What clients may take their outcomes for is the small model in here.

use std::collections::{BTreeMap, VecDeque};

use lockstep_replication::message::Refused;
use lockstep_replication::{Moment, Outcome, Span, Ticket};

use super::Broken;
use super::ledger::{Ledger, Place};
use super::pages::Pages;
use crate::kv::Kv;

pub(crate) fn broken(reason: String) -> Broken {
    Broken::new("one_reply", format!("L9: {reason}"))
}

/// What the clients of all machines wait for and were told.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    machines: Vec<Waiting>,
    commands: Pages<Told>,
    reply_within: Span,
    counts: Counts,
}

/// Who waits at one machine.
#[derive(Clone, Debug, Default)]
struct Waiting {
    /// For which command.
    tickets: BTreeMap<Ticket, u64>,
    /// Since when, the oldest first; those who were answered are still among them.
    since: VecDeque<(Moment, Ticket)>,
}

/// What the client of a command knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    /// How often it gave the command to a node.
    attempts: u32,
    fate: Fate,
}

/// What a client may take for granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    /// Nothing: no answer yet, or that nobody knows, or a refusal of one of several attempts.
    #[default]
    Unknown,
    /// It changed nothing, and will not unless it is tried again.
    Refused,
    /// It stands in a log, or did.
    Done,
}

/// How many replies there were of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each counts the outcome of its name")]
pub struct Counts {
    pub asked: u64,
    pub done: u64,
    pub done_by_majority: u64,
    pub done_before: u64,
    pub refused: u64,
    pub not_taken: u64,
    pub unknown: u64,
}

/// A reply that says "done".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// Which command.
    pub(crate) uid: u64,
    /// The log with it, up to its entry.
    pub(crate) with: Place,
    /// Whether more than half of the known nodes hold it, the reply says.
    pub(crate) by_majority: bool,
}

impl Clients {
    pub(crate) fn new(machines: usize, reply_within: Span) -> Clients {
        Clients {
            machines: vec![Waiting::default(); machines],
            commands: Pages::default(),
            reply_within,
            counts: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// A client gives its command to a node.
    pub(crate) fn asked(&mut self, at: usize, now: Moment, ticket: Ticket, uid: u64) -> Result<(), Broken> {
        let told = self.commands.at(uid);
        told.attempts += 1;
        if told.fate == Fate::Refused {
            told.fate = Fate::Unknown;
        }
        self.counts.asked += 1;
        let waiting = &mut self.machines[at];
        waiting.since.push_back((now, ticket));
        match waiting.tickets.insert(ticket, uid) {
            None => Ok(()),
            Some(_) => Err(broken(format!("{ticket:?} was drawn twice: a defect of the simulated clients"))),
        }
    }

    /// The process died, and with it the connections of its clients.
    pub(crate) fn crashed(&mut self, at: usize) {
        self.machines[at] = Waiting::default();
    }

    /// A node whose log is `log` replies.
    pub(crate) fn replied(
        &mut self,
        ledger: &Ledger,
        at: usize,
        log: Place,
        ticket: Ticket,
        outcome: &Outcome<Kv>,
    ) -> Result<Option<Done>, Broken> {
        let Some(uid) = self.machines[at].tickets.remove(&ticket) else {
            return Err(broken(format!("it answers {ticket:?}, where nobody waits: {outcome:?}")));
        };
        let told = self.commands.at(uid);
        let once = told.attempts == 1;
        match outcome {
            Outcome::Done { index, held, of } => {
                let there =
                    ledger.with_command(uid).find(|with| with.next == index.0 + 1 && ledger.leads_to(*with, log));
                let Some(with) = there else {
                    return Err(broken(format!(
                        "command {uid} is done at {index}, and the log shows something else there"
                    )));
                };
                if *held == 0 || held > of {
                    return Err(broken(format!("command {uid} is held by {held} of {of}")));
                }
                told.fate = Fate::Done;
                let by_majority = held * 2 > *of;
                self.counts.done += 1;
                self.counts.done_by_majority += u64::from(by_majority);
                return Ok(Some(Done { uid, with, by_majority }));
            }
            Outcome::Refused(Refused::DoneBefore(_)) => {
                if ledger.with_command(uid).next().is_none() {
                    return Err(broken(format!("command {uid} was done before, says a node, and it is in no log")));
                }
                self.counts.done_before += 1;
            }
            Outcome::Refused(Refused::Nothing(_)) => {
                return Err(broken(format!("command {uid} has nothing to change, says a node, and it would have")));
            }
            Outcome::Refused(Refused::Application(_) | Refused::TooLong { .. } | Refused::Before) => {
                self.counts.refused += 1;
                refuse(told, once);
            }
            Outcome::NotTaken(_) => {
                self.counts.not_taken += 1;
                refuse(told, once);
            }
            Outcome::Unknown(_) => self.counts.unknown += 1,
        }
        Ok(None)
    }

    /// A command is in a log now that was in none before.
    pub(crate) fn ordered(&self, uid: u64) -> Result<(), Broken> {
        match self.commands.get(uid).fate {
            Fate::Refused => Err(broken(format!("command {uid} was refused, and stands in a log now"))),
            Fate::Unknown | Fate::Done => Ok(()),
        }
    }

    /// After a step: nobody waits longer than the node's configuration says.
    pub(crate) fn stepped(&mut self, at: usize, now: Moment) -> Result<(), Broken> {
        let waiting = &mut self.machines[at];
        while let Some((since, ticket)) = waiting.since.front() {
            match waiting.tickets.get(ticket) {
                Some(uid) if *since + self.reply_within < now => {
                    return Err(broken(format!(
                        "{ticket:?} waits for command {uid} since {since:?}, and it is {now:?}"
                    )));
                }
                Some(_) => break,
                None => waiting.since.pop_front(),
            };
        }
        Ok(())
    }

    /// The process ends by itself: it answered all its clients first.
    pub(crate) fn stopped(&self, at: usize) -> Result<(), Broken> {
        match self.machines[at].tickets.first_key_value() {
            Some((ticket, uid)) => Err(broken(format!("it stops, and {ticket:?} has no answer to command {uid}"))),
            None => Ok(()),
        }
    }

    /// The run is over: nobody waits.
    pub(crate) fn ended(&self) -> Result<(), Broken> {
        match self.machines.iter().enumerate().find_map(|(at, waiting)| Some((at, waiting.tickets.first_key_value()?)))
        {
            Some((at, (ticket, uid))) => {
                Err(broken(format!("{ticket:?} never got an answer to command {uid}, at machine {at}")))
            }
            None => Ok(()),
        }
    }
}

/// Where there was one attempt, its refusal is that of the command. Of several another may still be done.
fn refuse(told: &mut Told, once: bool) {
    if once {
        told.fate = Fate::Refused;
    }
}
