//! L9 and L12: what clients were told, and whether it stays true.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replication::message::Refused;
use lockstep_replication::{Hash, Index, Outcome, Session};

use super::ledger::Ledger;
use crate::harness::kv::Kv;

/// What was promised.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promises {
    /// Beginnings of logs that were done by majority, by founding and the session in which they were: an entry may be
    /// older than the session that gets it done. In each the longest, for they continue each other.
    by_majority: BTreeMap<u64, BTreeMap<Session, Hash>>,
    /// All marks, by founding.
    marks: BTreeMap<u64, Vec<Hash>>,
    /// Commands that were done, each with the founding that it was done in.
    done: BTreeMap<u64, u64>,
    /// Commands that will never be done, unless their client tries again.
    refused: BTreeSet<u64>,
    /// How often each outcome was seen, for the report.
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

impl Promises {
    /// A client is answered by a node in `session` whose log is `log`. `attempts` is how often the command was given to
    /// a node.
    pub(crate) fn reply(
        &mut self,
        ledger: &Ledger,
        (session, log): (Option<Session>, Hash),
        uid: u64,
        attempts: u32,
        outcome: &Outcome<Kv>,
    ) -> Result<(), String> {
        let name = match outcome {
            Outcome::Done { index, held, of } => {
                let hash = self.done_at(ledger, log, uid, *index)?;
                if held * 2 > *of {
                    let session =
                        session.ok_or("L9: a node without a leader says that something is done by majority")?;
                    self.by_majority(ledger, session, hash)?;
                }
                "done"
            }
            Outcome::Refused(Refused::DoneBefore(_)) => {
                if !ledger.anybody_had(uid) {
                    return Err(format!("L9: command {uid} was done before, says a node, but it is in no log"));
                }
                "done before"
            }
            Outcome::Refused(Refused::Nothing(_)) => return Err(format!("L9: command {uid} changes something")),
            Outcome::Refused(Refused::Application(_) | Refused::TooLong { .. } | Refused::Before) => {
                // With more than one attempt, another one may still be done.
                if attempts == 1 {
                    self.refused.insert(uid);
                }
                "refused"
            }
            Outcome::NotTaken(_) => {
                if attempts == 1 {
                    self.refused.insert(uid);
                }
                "not taken"
            }
            Outcome::Unknown(_) => "unknown",
        };
        *self.seen.entry(name).or_default() += 1;
        Ok(())
    }

    fn done_at(&mut self, ledger: &Ledger, log: Hash, uid: u64, index: Index) -> Result<Hash, String> {
        let there = ledger.cut(log, index).and_then(|hash| ledger.beginning(hash).map(|entry| (hash, entry)));
        let Some((hash, entry)) = there.filter(|(_, entry)| entry.asked.is_some_and(|by| by.uid == uid)) else {
            return Err(format!(
                "L9: command {uid} is done at {index}, says a node whose log shows something else there"
            ));
        };
        self.done.insert(uid, entry.founding);
        Ok(hash)
    }

    fn by_majority(&mut self, ledger: &Ledger, session: Session, hash: Hash) -> Result<(), String> {
        let Some(entry) = ledger.beginning(hash) else { return Ok(()) };
        let promises = self.by_majority.entry(entry.founding).or_default();
        if let Some(other) =
            promises.values().find(|other| !ledger.leads_to(**other, hash) && !ledger.leads_to(hash, **other))
        {
            return Err(format!(
                "L12: entries {} and {} are both done by majority, on two branches",
                entry.index,
                ledger.next(*other)
            ));
        }
        let longest = promises.entry(session).or_insert(hash);
        if ledger.next(hash) > ledger.next(*longest) {
            *longest = hash;
        }
        let mut marks = self.marks.get(&entry.founding).into_iter().flatten();
        marks.try_for_each(|mark| later_holds(ledger, session, hash, *mark))
    }

    /// A client tries a command once more.
    pub(crate) fn tried_again(&mut self, uid: u64) {
        self.refused.remove(&uid);
    }

    /// An entry that nobody had seen is in a log now.
    pub(crate) fn ordered(&mut self, ledger: &Ledger, hash: Hash) -> Result<(), String> {
        let Some(entry) = ledger.beginning(hash) else { return Ok(()) };
        if let Some(by) = entry.asked.filter(|by| self.refused.contains(&by.uid)) {
            return Err(format!("L9: command {} was refused and stands at {} now", by.uid, entry.index));
        }
        if entry.marks {
            self.marks.entry(entry.founding).or_default().push(hash);
            for (session, promised) in self.by_majority.get(&entry.founding).into_iter().flatten() {
                later_holds(ledger, *session, *promised, hash)?;
            }
        }
        Ok(())
    }

    /// At the end, when all agree on one log: everything done is in it or in a set-aside file.
    pub(crate) fn end(&self, ledger: &Ledger, log: Hash, aside: &BTreeSet<u64>) -> Result<(), String> {
        let founding = ledger.beginning(log).map_or(0, |entry| entry.founding);
        let promises = self.by_majority.get(&founding).into_iter().flat_map(BTreeMap::values);
        if let Some(promised) = promises.into_iter().find(|promised| !ledger.leads_to(**promised, log)) {
            let index = ledger.next(*promised);
            return Err(format!("L12: what was done by majority before {index} is not in the log that won"));
        }
        let missing = self.done.keys().find(|uid| !ledger.has_command(log, **uid) && !aside.contains(uid));
        missing
            .map_or(Ok(()), |uid| Err(format!("L12: command {uid} was done, and is in no log and no set-aside file")))
    }
}

/// What was done by majority in a session is in every later one that is backed.
fn later_holds(ledger: &Ledger, session: Session, promised: Hash, mark: Hash) -> Result<(), String> {
    let (Some(early), Some(late)) = (ledger.beginning(promised), ledger.beginning(mark)) else { return Ok(()) };
    if late.session > session && !ledger.leads_to(promised, mark) {
        return Err(format!(
            "L12: entry {} was done by majority in session {session}; session {} is backed without it",
            early.index, late.session
        ));
    }
    Ok(())
}
