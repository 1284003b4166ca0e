//! L5: every effect but a send is asked for in order, by an id of its own, and what fails stops the node. What it writes is what
//! it applied, one after the other.

use lockstep_replication::entry::Record;
use lockstep_replication::io::Work;
use lockstep_replication::{Output, WorkId};

use super::ledger::{Ledger, Place};
use super::{Broken, Given, Step, content, one_content};
use crate::kv::Kv;

pub(crate) fn broken(reason: String) -> Broken {
    Broken::new("effects_in_order", format!("L5: {reason}"))
}

/// One append in so many is read again and compared with what was applied.
const READS_ONE_IN: u64 = 8;

/// What one process asked for, and what waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    last: WorkId,
    waiting: Vec<(WorkId, Kind)>,
    /// One past the last entry that it asked to be written; none while its log is cut.
    end: Option<u64>,
    appends: u64,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something beside the log.
    Keep,
    /// Entries; then the disk holds this log.
    Append(Place),
    /// The log is cut.
    Rewind,
    /// A snapshot takes the log's place; then the disk holds this one.
    Install(Place),
    /// A failure of it stops nobody.
    Other,
}

impl Asked {
    /// A process starts from a log that ends before `end`.
    pub(crate) fn started(end: u64) -> Asked {
        Asked { end: Some(end), ..Asked::default() }
    }

    /// How many pieces of work are under way.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What was asked for under this id.
    pub(crate) fn kind(&self, id: WorkId) -> Option<Kind> {
        self.waiting.iter().find(|(waits, _)| *waits == id).map(|(_, kind)| *kind)
    }

    /// Some work ended: in the same step a node stops that cannot go on without it.
    pub(crate) fn stepped(&mut self, step: &Step<'_>) -> Result<(), Broken> {
        let (id, well) = match &step.given {
            Given::Worked { id, well } => (*id, *well),
            Given::Rewound { id, .. } => (*id, true),
            Given::Wake | Given::Unasked(_) | Given::Message | Given::Command | Given::Other => return Ok(()),
        };
        let Some(at) = self.waiting.iter().position(|(waits, _)| *waits == id) else {
            return Err(broken(format!("{id:?} ended, and nobody asked for it: a defect of the simulated machine")));
        };
        let (_, kind) = self.waiting.remove(at);
        let stops = || step.out.iter().any(|output| matches!(output, Output::Stop(_)));
        match kind {
            Kind::Keep | Kind::Append(_) | Kind::Rewind | Kind::Install(_) if !well && !stops() => {
                Err(broken(format!("{kind:?} failed, and the node goes on")))
            }
            Kind::Keep | Kind::Append(_) | Kind::Rewind | Kind::Install(_) | Kind::Other => Ok(()),
        }
    }

    /// Its state was replaced: its log goes on from here.
    pub(crate) fn replaced(&mut self, next: u64) {
        self.end.get_or_insert(next);
    }

    /// It asks for work. Its log so far is `log`.
    pub(crate) fn asks(&mut self, ledger: &mut Ledger, log: Place, id: WorkId, work: &Work<Kv>) -> Result<(), Broken> {
        if id <= self.last {
            return Err(broken(format!("work is asked for as {id:?} after {:?}", self.last)));
        }
        self.last = id;
        let kind = match work {
            Work::Keep(_) => Kind::Keep,
            Work::Append { first, records } => {
                let until = first.0 + records.len() as u64;
                if self.end != Some(first.0) {
                    return Err(broken(format!(
                        "entries are written from {first} on, after the log to {:?}",
                        self.end
                    )));
                }
                self.end = Some(until);
                let Some(written) = ledger.cut(log, until) else {
                    return Err(broken(format!("entries are written up to {until}, and applied up to {}", log.next)));
                };
                self.appends += 1;
                if self.appends.is_multiple_of(READS_ONE_IN) {
                    let at = (self.appends / READS_ONE_IN) % records.len().max(1) as u64;
                    let record = records.get(at as usize);
                    record.map_or(Ok(()), |bytes| {
                        self.reads(ledger, written, Record { index: first.plus(at), bytes: bytes.clone() })
                    })?;
                }
                Kind::Append(written)
            }
            Work::Rewind { to, .. } => {
                if self.end.is_none_or(|end| to.0 > end) {
                    return Err(broken(format!("a log to {:?} is to be cut at {to}", self.end)));
                }
                self.end = None;
                Kind::Rewind
            }
            Work::Install(snapshot) => {
                let (manifest, next) = (&snapshot.manifest, snapshot.manifest.next());
                let Some(place) = ledger.find(&manifest.lineage, next) else {
                    return Err(one_content::broken(format!("a snapshot before {next} is of a log that nobody had")));
                };
                ledger.hash(place, manifest.log_hash)?;
                self.end = Some(next.0);
                Kind::Install(place)
            }
            Work::Encode { capture, .. } => {
                if let Some(place) = ledger.cut(log, capture.next().0) {
                    ledger.hash(place, capture.hash())?;
                }
                Kind::Other
            }
            Work::Save(_) | Work::Trim { .. } | Work::Read { .. } | Work::Decode { .. } => Kind::Other,
        };
        self.waiting.push((id, kind));
        Ok(())
    }

    /// What is written is what was applied.
    fn reads(&self, ledger: &Ledger, log: Place, record: Record) -> Result<(), Broken> {
        let entry = record.open::<Kv>().map_err(|error| broken(format!("it writes what is no entry: {error}")))?;
        let applied = ledger.cut(log, record.index.0 + 1).and_then(|place| ledger.content(place));
        if applied != Some(content::of(&entry)) {
            return Err(broken(format!("entry {} is written otherwise than it was applied", record.index)));
        }
        Ok(())
    }
}
