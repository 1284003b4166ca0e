//! Messages on their way: their size and hash, computed once, and what mischief makes of them.

use std::sync::Arc;

use bytes::Bytes;
use lockstep_replication::app::App;
use lockstep_replication::message::Message;
use lockstep_replication::wire;

use crate::faults::{Fault, Kind, Mischief};
use crate::kv::Kv;
use crate::trace::Mixer;

use super::network::Parcel;

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) content: Content,
    /// The hash of its wire form.
    pub(super) hash: u64,
}

/// As what a message crosses.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Value(Message<Kv>),
    Wire(Bytes),
}

/// A fault that strikes messages, while it lasts.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// By what its draws go: when it came, so that they stay as they are when another fault is taken away.
    pub(super) key: u64,
    pub(super) until: u64,
    pub(super) kinds: Vec<Kind>,
    /// Machines, by place; none: all.
    pub(super) from: Option<usize>,
    pub(super) to: Option<usize>,
    pub(super) skip: u64,
    pub(super) left: Option<u64>,
    pub(super) share: u64,
    pub(super) what: Mischief,
    /// How many it has looked at.
    pub(super) seen: u64,
}

impl Envelope {
    /// The size and hash of a message in its wire form. `scratch` is memory to write in.
    pub(super) fn measure(message: &Message<Kv>, scratch: &mut Vec<u8>) -> (usize, u64) {
        let mut written = std::mem::take(scratch);
        written.clear();
        written = postcard::to_extend(message, written).expect("messages serialise into memory");
        let mut mixer = Mixer::default();
        mixer.bytes(&written);
        let measured = (written.len() + 1, mixer.hash());
        *scratch = written;
        measured
    }

    /// Opens it; copies the message only if somebody else still needs it.
    pub(super) fn open(this: Arc<Envelope>) -> Result<Message<Kv>, wire::NoMessage> {
        let content = match Arc::try_unwrap(this) {
            Ok(envelope) => envelope.content,
            Err(shared) => shared.content.clone(),
        };
        match content {
            Content::Value(message) => Ok(message),
            Content::Wire(bytes) => wire::decode(&bytes),
        }
    }
}

/// How a message of this kind goes.
pub(crate) fn parcel<A: App>(message: &Message<A>, bytes: usize) -> Parcel {
    let is_bulk = matches!(
        message,
        Message::Entries(_)
            | Message::Chunk { .. }
            | Message::Propose(_)
            | Message::Refused { .. }
            | Message::Transient(_)
    );
    Parcel { bytes, is_bulk }
}

impl Rule {
    /// Whether it may strike a message of this kind on this way; chance and counts not looked at.
    pub(super) fn concerns(&self, time: u64, from: usize, to: usize, kind: Kind) -> bool {
        time < self.until
            && self.from.is_none_or(|only| only == from)
            && self.to.is_none_or(|only| only == to)
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }

    /// The rule that a fault is.
    pub(super) fn new(key: u64, fault: &Fault, until: u64, from: Option<usize>, to: Option<usize>) -> Option<Rule> {
        let Fault::Messages { kinds, skip, count, share, what, .. } = fault else { return None };
        let (kinds, skip, left, share, what) = (kinds.clone(), *skip, *count, *share, *what);
        Some(Rule { key, until, kinds, from, to, skip, left, share, what, seen: 0 })
    }
}

/// The message with what it carries damaged; none if it carries nothing that could be.
pub(super) fn corrupted(mut message: Message<Kv>, which: u64) -> Option<Message<Kv>> {
    if let Message::Entries(entries) = &mut message {
        let at = which as usize % entries.records.len().max(1);
        let record = entries.records.get_mut(at)?;
        *record = flipped(record, which);
        return Some(message);
    }
    if let Message::Chunk { bytes: Some(bytes), .. } = &mut message {
        *bytes = flipped(bytes, which);
        return Some(message);
    }
    None
}

/// The message naming another clock, where it names one.
pub(super) fn with_clock(mut message: Message<Kv>, clock: u64) -> Message<Kv> {
    if let Message::Hello { standing, .. } = &mut message {
        standing.clock = clock;
    }
    message
}

fn flipped(bytes: &Bytes, which: u64) -> Bytes {
    let mut changed = bytes.to_vec();
    let at = (which >> 8) as usize % changed.len().max(1);
    if let Some(byte) = changed.get_mut(at) {
        *byte ^= 1 << (which & 7);
    }
    changed.into()
}
