//! What a node may say only when it is on its disk: confirmations, what it stored, that it leads and how far.

use lockstep_replication::message::{DoneMark, EntriesKind, Message};
use lockstep_replication::{Index, NodeId, Session};

use super::Broken;
use super::ledger::{Ledger, Place};
use crate::kv::Kv;
use crate::world::disk::Disk;

fn broken(reason: String) -> Broken {
    Broken::new("spoken", reason)
}

/// Who speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speaker<'a> {
    pub(crate) node: NodeId,
    pub(crate) disk: &'a Disk,
    /// The log that its disk holds.
    pub(crate) stored: Place,
    /// The log that it applied.
    pub(crate) applied: Place,
}

impl Speaker<'_> {
    /// Checks one message against the speaker's disk.
    pub(crate) fn may_say(&self, ledger: &Ledger, message: &Message<Kv>) -> Result<(), Broken> {
        match message {
            Message::Stored { session, next, .. } => {
                self.confirmed(*session)?;
                self.stored(*next)
            }
            Message::Lead(lead) => {
                self.leads(ledger, lead.session)?;
                self.confirmed(lead.session)?;
                lead.done.map_or(Ok(()), |done| possible(&done))
            }
            Message::Done(done) => {
                self.leads(ledger, done.session)?;
                possible(done)
            }
            Message::Hello { standing, .. } => {
                if standing.confirmed > self.disk.kept.confirmed {
                    return Err(broken(format!(
                        "it says that it confirmed {:?} before that is on its disk",
                        standing.confirmed
                    )));
                }
                match standing.session {
                    Some(session) if session.leader == self.node => self.leads(ledger, session),
                    Some(_) | None => Ok(()),
                }
            }
            Message::Beat(beat) if beat.applied.0 > self.applied.next => Err(broken(format!(
                "it says that it applied all before {}, it stands before {}",
                beat.applied, self.applied.next
            ))),
            Message::Entries(entries) if entries.kind == EntriesKind::Fresh && entries.session.leader != self.node => {
                Err(broken(format!("it hands out fresh entries of {}, which another node leads", entries.session)))
            }
            Message::Beat(_)
            | Message::Entries(_)
            | Message::Reach { .. }
            | Message::Probe { .. }
            | Message::Echo { .. }
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
            | Message::Reject { .. } => Ok(()),
        }
    }

    fn confirmed(&self, session: Session) -> Result<(), Broken> {
        if self.disk.kept.confirmed == Some(session) {
            return Ok(());
        }
        Err(broken(format!("it speaks as one who confirmed {session}, its disk says {:?}", self.disk.kept.confirmed)))
    }

    fn stored(&self, next: Index) -> Result<(), Broken> {
        if next <= self.disk.next() {
            return Ok(());
        }
        Err(broken(format!("it says that it stored all before {next}, its disk ends before {}", self.disk.next())))
    }

    /// It leads this session, whose opening is on its disk.
    fn leads(&self, ledger: &Ledger, session: Session) -> Result<(), Broken> {
        if session.leader != self.node {
            return Err(broken(format!("it speaks as the leader of {session}")));
        }
        if ledger.opened(session).is_some_and(|opened| ledger.leads_to(opened, self.stored)) {
            return Ok(());
        }
        Err(broken(format!("it speaks as the leader of {session} before the opening is on its disk")))
    }
}

fn possible(done: &DoneMark) -> Result<(), Broken> {
    if done.held == 0 || done.held > done.of {
        return Err(broken(format!("entry {} is held by {} of {}", done.index, done.held, done.of)));
    }
    Ok(())
}
