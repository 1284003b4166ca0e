//! The bytes of a message: one version byte, then postcard. Bounded, and nothing may follow.

use bytes::Bytes;

use crate::app::App;
use crate::message::Message;

/// The version of the messages. A node reads this one.
pub const VERSION: u8 = 1;

/// The longest message: a batch or a chunk with room for what surrounds it.
pub const MESSAGE_BYTES_AT_MOST: usize = 1 << 20;

/// The longest message that may go by gossip: its cap is 64 KiB, and a message just under it is lost with its connection.
pub const GOSSIP_BYTES_AT_MOST: usize = 60 << 10;

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMessage {
    /// Empty or too long.
    #[error("a message has 1 to {MESSAGE_BYTES_AT_MOST} bytes, this has {0}")]
    Size(usize),
    /// Another version of the protocol.
    #[error("it speaks protocol version {0}, this node speaks version {VERSION}")]
    Version(u8),
    /// Not readable.
    #[error("it is no message: {0}")]
    Malformed(String),
}

/// The bytes of a message.
pub fn encode<A: App>(message: &Message<A>) -> Bytes {
    postcard::to_stdvec(&(VERSION, message)).expect("messages serialise into memory").into()
}

/// The message in these bytes.
pub fn decode<A: App>(bytes: &[u8]) -> Result<Message<A>, NoMessage> {
    if bytes.is_empty() || bytes.len() > MESSAGE_BYTES_AT_MOST {
        return Err(NoMessage::Size(bytes.len()));
    }
    if bytes[0] != VERSION {
        return Err(NoMessage::Version(bytes[0]));
    }
    match postcard::take_from_bytes(&bytes[1..]) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(NoMessage::Malformed(format!("{} bytes follow it", rest.len()))),
        Err(error) => Err(NoMessage::Malformed(error.to_string())),
    }
}

/// All gossip topics.
pub const TOPICS: &[&str] =
    &["commands", "global_events", "transient_events", "election_messages", "snapshot_responses"];

/// The gossip topic that a message travels on where there is no connection.
pub fn topic<A: App>(message: &Message<A>) -> &'static str {
    match message {
        Message::Propose(_) | Message::Refused { .. } => "commands",
        Message::Entries(_) | Message::Nack(_) | Message::Stored { .. } | Message::Done(_) => "global_events",
        Message::Transient(_) | Message::Beat(_) | Message::Probe { .. } | Message::Echo { .. } => "transient_events",
        Message::Hello { .. }
        | Message::Lead(_)
        | Message::Reach { .. }
        | Message::HandOver { .. }
        | Message::Reject { .. } => "election_messages",
        Message::Replay { .. }
        | Message::Credit { .. }
        | Message::LogBegins { .. }
        | Message::RequestSnapshot { .. }
        | Message::Offer { .. }
        | Message::RequestChunk { .. }
        | Message::Chunk { .. } => "snapshot_responses",
    }
}
