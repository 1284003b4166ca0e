//! What a node may say only when it is on its disk: confirmations, what it stored, how far it leads. And L10, in bytes.

use lockstep_replication::message::{DoneMark, Lead, Message};
use lockstep_replication::wire::MESSAGE_BYTES_AT_MOST;
use lockstep_replication::{Index, NodeId, Session};

use crate::harness::disk::Disk;
use crate::harness::kv::Kv;

/// Checks one message that a node sends, against its disk.
pub(crate) fn may_say(me: NodeId, disk: &Disk, message: &Message<Kv>, bytes: usize) -> Result<(), String> {
    if bytes > MESSAGE_BYTES_AT_MOST {
        return Err(format!("L10: a message of {bytes} bytes"));
    }
    match message {
        Message::Stored { session, next, .. } => confirmed(disk, *session).and_then(|()| stored(disk, *next)),
        Message::Lead(Lead { session, done, .. }) => {
            if session.leader != me {
                return Err(format!("it beats as the leader of {session}"));
            }
            confirmed(disk, *session)?;
            done.map_or(Ok(()), |done| possible(&done))
        }
        Message::Done(done) => possible(done),
        Message::Hello { standing, .. } => {
            if standing.confirmed > disk.kept.confirmed {
                return Err(format!("it says that it confirmed {:?} before it is on its disk", standing.confirmed));
            }
            Ok(())
        }
        Message::Beat(_)
        | Message::Reach { .. }
        | Message::Probe { .. }
        | Message::Echo { .. }
        | Message::Entries(_)
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

fn confirmed(disk: &Disk, session: Session) -> Result<(), String> {
    if disk.kept.confirmed != Some(session) {
        return Err(format!("it speaks as one who confirmed {session}, its disk says {:?}", disk.kept.confirmed));
    }
    Ok(())
}

fn stored(disk: &Disk, next: Index) -> Result<(), String> {
    if disk.next() < next {
        return Err(format!("it says that it stored all before {next}, its disk ends before {}", disk.next()));
    }
    Ok(())
}

fn possible(done: &DoneMark) -> Result<(), String> {
    if done.held == 0 || done.held > done.of {
        return Err(format!("{} is held by {} of {}", done.index, done.held, done.of));
    }
    Ok(())
}
