//! L12: within one founding, what was done by majority is in every later backed session. What was done while held by fewer
//! is kept, or set aside whole.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replication::io::Notice;
use lockstep_replication::message::DoneMark;
use lockstep_replication::{Output, Session};

use super::ledger::{Ledger, Place};
use super::one_reply::Done;
use super::pages::Pages;
use super::{Broken, Given, Step};
use crate::kv::Kv;

fn broken(reason: String) -> Broken {
    Broken::new("done_stays", format!("L12: {reason}"))
}

fn broken_alone(reason: String) -> Broken {
    Broken::new("done_alone_is_set_aside", format!("L12: {reason}"))
}

/// What was promised.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promises {
    foundings: BTreeMap<u32, Promised>,
    /// By command: in which founding it was done, and how.
    done: Pages<Option<DoneIn>>,
}

/// What was promised within one founding.
#[derive(Clone, Debug, Default)]
struct Promised {
    /// The longest log that was done by majority; all others that were lead to it.
    longest: Place,
    /// The longest in each session.
    by_session: BTreeMap<Session, Place>,
    /// The mark of each session.
    marks: BTreeMap<Session, Place>,
    /// Whether an operator said that what is left of it is another founding: that the rest is gone. Then nobody is bound
    /// by what was promised in it, but to set aside what is given up.
    is_left: bool,
}

#[derive(Clone, Copy, Debug)]
struct DoneIn {
    founding: u32,
    by_majority: bool,
}

impl Promises {
    /// A client was told that its command is done.
    pub(crate) fn done(&mut self, ledger: &Ledger, session: Session, done: Done) -> Result<(), Broken> {
        let founding = ledger.founding_of(session).unwrap_or_default();
        let known = self.done.at(done.uid);
        let by_majority =
            done.by_majority || known.is_some_and(|known| known.founding == founding && known.by_majority);
        *known = Some(DoneIn { founding, by_majority });
        if done.by_majority { self.by_majority(ledger, session, done.with) } else { Ok(()) }
    }

    /// The leader of a session says how far promises go in its log, which is on these disks.
    pub(crate) fn marked(
        &mut self,
        ledger: &Ledger,
        log: Place,
        mark: &DoneMark,
        disks: Option<&[Place]>,
    ) -> Result<(), Broken> {
        if mark.held * 2 <= mark.of {
            return Ok(());
        }
        let Some(done) = ledger.cut(log, mark.index.0 + 1) else {
            return Err(broken(format!(
                "entry {} is done, says a leader whose log ends before {}",
                mark.index, log.next
            )));
        };
        if let Some(disks) = disks {
            let found = disks.iter().filter(|disk| ledger.leads_to(done, **disk)).count();
            if found < mark.held as usize {
                return Err(broken(format!(
                    "entry {} is held by {}, says the leader; it is on {found} disks",
                    mark.index, mark.held
                )));
            }
        }
        self.by_majority(ledger, mark.session, done)
    }

    fn by_majority(&mut self, ledger: &Ledger, session: Session, done: Place) -> Result<(), Broken> {
        let promised = self.foundings.entry(ledger.founding_of(session).unwrap_or_default()).or_default();
        let longest_here = promised.by_session.entry(session).or_default();
        if promised.is_left || ledger.leads_to(done, *longest_here) {
            return Ok(());
        }
        *longest_here = done;
        if ledger.leads_to(promised.longest, done) {
            promised.longest = done;
        } else if !ledger.leads_to(done, promised.longest) {
            return Err(broken(format!(
                "what ends with entry {} and what ends with entry {} is both done by majority, on two branches",
                done.next - 1,
                promised.longest.next - 1
            )));
        }
        let above = (std::ops::Bound::Excluded(session), std::ops::Bound::Unbounded);
        let mut later = promised.marks.range(above);
        later.try_for_each(|(later, mark)| holds(ledger, (session, done), (*later, *mark)))
    }

    /// Somebody founded anew on a log that ends here.
    pub(crate) fn founded_anew(&mut self, ledger: &Ledger, log: Place) {
        if let Some(founding) = ledger.founding(log) {
            self.foundings.entry(founding).or_default().is_left = true;
        }
    }

    /// A session was backed: its mark is the last entry of this log.
    pub(crate) fn backed(&mut self, ledger: &Ledger, log: Place) -> Result<(), Broken> {
        let (Some(founding), Some(session)) = (ledger.founding(log), ledger.session(log)) else { return Ok(()) };
        let promised = self.foundings.entry(founding).or_default();
        if promised.is_left {
            return Ok(());
        }
        promised.marks.insert(session, log);
        let mut earlier = promised.by_session.range(..session);
        earlier.try_for_each(|(earlier, done)| holds(ledger, (*earlier, *done), (session, log)))
    }

    /// The run is over, all agree on this log, and these commands were set aside.
    pub(crate) fn ended(&self, ledger: &Ledger, log: Place, aside: &BTreeSet<u64>) -> Result<(), Broken> {
        let founding = ledger.founding(log).unwrap_or_default();
        let bound = |founding: u32| self.foundings.get(&founding).filter(|promised| !promised.is_left);
        if let Some(promised) = bound(founding)
            && !ledger.leads_to(promised.longest, log)
        {
            return Err(broken(format!(
                "what was done by majority up to entry {} is not in the log that won",
                promised.longest.next - 1
            )));
        }
        for (uid, done) in self.done.iter().filter_map(|(uid, done)| Some((uid, done?))) {
            if ledger.has_command(log, uid) {
                continue;
            }
            if done.by_majority && done.founding == founding && bound(founding).is_some() {
                return Err(broken(format!("command {uid} was done by majority, and is not in the log that won")));
            }
            if !aside.contains(&uid) {
                return Err(broken_alone(format!("command {uid} was done, and is in no log and no set-aside file")));
            }
        }
        Ok(())
    }
}

/// What was set aside in this step is announced in it.
pub(crate) fn announced(step: &Step<'_>) -> Result<(), Broken> {
    let Given::Rewound { aside: Some(name), .. } = &step.given else { return Ok(()) };
    let says = |output: &Output<Kv>| matches!(output, Output::Notice(Notice::SetAside(said)) if said == name);
    if step.out.iter().any(says) {
        return Ok(());
    }
    Err(broken_alone(format!("{name} was set aside, and nobody is told")))
}

/// What was done in a session is in a later one that is backed.
fn holds(ledger: &Ledger, (session, done): (Session, Place), (later, mark): (Session, Place)) -> Result<(), Broken> {
    if ledger.leads_to(done, mark) {
        return Ok(());
    }
    Err(broken(format!(
        "entry {} was done by majority in session {session}; session {later} is backed without it",
        done.next - 1
    )))
}
