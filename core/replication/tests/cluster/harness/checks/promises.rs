//! L9 and L12: what clients were told, and whether it stays true.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replication::message::Refused;
use lockstep_replication::{Hash, Index, Outcome};

use super::ledger::Ledger;
use crate::harness::kv::Kv;

/// What was promised.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promises {
    /// Beginnings of logs that were done by majority; in each founding the longest, for they continue each other.
    by_majority: BTreeMap<u64, Hash>,
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
    /// A client is answered by a node whose log is `log`. `attempts` is how often the command was given to a node.
    pub(crate) fn reply(
        &mut self,
        ledger: &Ledger,
        log: Hash,
        uid: u64,
        attempts: u32,
        outcome: &Outcome<Kv>,
    ) -> Result<(), String> {
        let name = match outcome {
            Outcome::Done { index, held, of } => {
                self.done_at(ledger, log, uid, *index, held * 2 > *of)?;
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

    fn done_at(&mut self, ledger: &Ledger, log: Hash, uid: u64, index: Index, majority: bool) -> Result<(), String> {
        let there = ledger.cut(log, index).and_then(|hash| ledger.beginning(hash).map(|entry| (hash, entry)));
        let Some((hash, entry)) = there.filter(|(_, entry)| entry.asked.is_some_and(|by| by.uid == uid)) else {
            return Err(format!(
                "L9: command {uid} is done at {index}, says a node whose log shows something else there"
            ));
        };
        self.done.insert(uid, entry.founding);
        if !majority {
            return Ok(());
        }
        let longest = *self.by_majority.entry(entry.founding).or_insert(hash);
        if !ledger.leads_to(longest, hash) && !ledger.leads_to(hash, longest) {
            return Err(format!("L12: command {uid} is done by majority at {index}, beside another log's promises"));
        }
        if ledger.next(hash) > ledger.next(longest) {
            self.by_majority.insert(entry.founding, hash);
        }
        for mark in self.marks.get(&entry.founding).into_iter().flatten() {
            later_holds(ledger, hash, *mark)?;
        }
        Ok(())
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
            if let Some(promised) = self.by_majority.get(&entry.founding) {
                later_holds(ledger, *promised, hash)?;
            }
        }
        Ok(())
    }

    /// At the end, when all agree on one log: everything done is in it or in a set-aside file.
    pub(crate) fn end(&self, ledger: &Ledger, log: Hash, aside: &BTreeSet<u64>) -> Result<(), String> {
        let founding = ledger.beginning(log).map_or(0, |entry| entry.founding);
        if let Some(promised) = self.by_majority.get(&founding)
            && !ledger.leads_to(*promised, log)
        {
            let index = ledger.next(*promised);
            return Err(format!("L12: what was done by majority before {index} is not in the log that won"));
        }
        let missing = self.done.keys().find(|uid| !ledger.has_command(log, **uid) && !aside.contains(uid));
        missing
            .map_or(Ok(()), |uid| Err(format!("L12: command {uid} was done, and is in no log and no set-aside file")))
    }
}

/// What was promised in a session is in every later one that is backed.
fn later_holds(ledger: &Ledger, promised: Hash, mark: Hash) -> Result<(), String> {
    let (Some(early), Some(late)) = (ledger.beginning(promised), ledger.beginning(mark)) else { return Ok(()) };
    if late.session > early.session && !ledger.leads_to(promised, mark) {
        return Err(format!(
            "L12: entry {} of session {} was done by majority; session {} is backed without it",
            early.index, early.session, late.session
        ));
    }
    Ok(())
}
