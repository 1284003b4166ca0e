//! L10: every buffer, transfer and queue has a limit. Seen from outside: what a step puts out, what messages carry, what waits
//! for the disk, and what a node says of itself. Buffers inside are tried beside each part of the core.

use lockstep_replication::message::{EntriesKind, Message};
use lockstep_replication::wire::MESSAGE_BYTES_AT_MOST;
use lockstep_replication::{Config, View};

use super::Broken;
use crate::kv::Kv;

fn broken(reason: String) -> Broken {
    Broken::new("limits", format!("L10: {reason}"))
}

/// The most outputs of one step: a full outbox answered at once, and what it sends meanwhile.
const OUTPUTS_AT_MOST: usize = 50_000;

/// The most pieces of work that one node may have under way.
const WORK_AT_MOST: usize = 256;

/// So many outputs of one step, and so many pieces of work under way after it.
pub(crate) fn stepped(outputs: usize, work: usize) -> Result<(), Broken> {
    if outputs > OUTPUTS_AT_MOST {
        return Err(broken(format!("{outputs} outputs in one step")));
    }
    if work > WORK_AT_MOST {
        return Err(broken(format!("{work} pieces of work are under way at once")));
    }
    Ok(())
}

/// So many entries of so many bytes wait for those before them. One alone may be longer than all may be together.
pub(crate) fn waits(config: &Config, (entries, bytes): (usize, usize)) -> Result<(), Broken> {
    if entries > config.buffer_entries.max(1) || bytes > config.buffer_bytes && entries > 1 {
        return Err(broken(format!("{entries} entries of {bytes} bytes wait in the ordered buffer")));
    }
    Ok(())
}

/// A message of so many bytes.
pub(crate) fn sent(config: &Config, message: &Message<Kv>, bytes: usize) -> Result<(), Broken> {
    if bytes > MESSAGE_BYTES_AT_MOST {
        return Err(broken(format!("a message of {bytes} bytes")));
    }
    match message {
        Message::Entries(entries) => {
            let (count, bytes) = (entries.records.len(), entries.bytes());
            let count_at_most = match entries.kind {
                EntriesKind::Fresh => config.batch_entries,
                EntriesKind::Repair => config.repair_entries as usize,
                // Bytes alone bound a replay's messages.
                EntriesKind::Replay => usize::MAX,
            };
            let bytes_at_most = config.batch_bytes.max(config.repair_bytes).max(config.entry_bytes);
            if count > count_at_most || bytes > bytes_at_most && count > 1 {
                return Err(broken(format!("{count} entries of {bytes} bytes in one message")));
            }
            if let Some(record) = entries.records.iter().find(|record| record.len() > config.entry_bytes) {
                return Err(broken(format!("an entry of {} bytes", record.len())));
            }
        }
        Message::Chunk { bytes: Some(bytes), .. } if bytes.len() > config.chunk_bytes => {
            return Err(broken(format!("a chunk of {} bytes", bytes.len())));
        }
        Message::Lead(lead) if lead.heard.len() > config.nodes => {
            return Err(broken(format!("a beat that names {} nodes", lead.heard.len())));
        }
        Message::Nack(range) if range.until <= range.from => {
            return Err(broken(format!("a NACK for no entry: {range:?}")));
        }
        Message::Nack(_)
        | Message::Chunk { .. }
        | Message::Lead(_)
        | Message::Hello { .. }
        | Message::Beat(_)
        | Message::Reach { .. }
        | Message::Probe { .. }
        | Message::Echo { .. }
        | Message::Stored { .. }
        | Message::Done(_)
        | Message::Replay { .. }
        | Message::Credit { .. }
        | Message::LogBegins { .. }
        | Message::RequestSnapshot { .. }
        | Message::Offer { .. }
        | Message::RequestChunk { .. }
        | Message::Propose(_)
        | Message::Refused { .. }
        | Message::HandOver { .. }
        | Message::Transient(_)
        | Message::Reject { .. } => {}
    }
    Ok(())
}

/// What a node says of itself.
pub fn seen(config: &Config, view: &View) -> Result<(), Broken> {
    if view.outbox > config.outbox_entries {
        return Err(broken(format!("{} proposals wait in the outbox of {:?}", view.outbox, view.me)));
    }
    // Known nodes and this one itself are listed beside those that it tracks.
    if view.nodes.len() > config.nodes + view.nodes.values().filter(|seen| seen.known).count() + 1 {
        return Err(broken(format!("{:?} tracks {} nodes", view.me, view.nodes.len())));
    }
    Ok(())
}
