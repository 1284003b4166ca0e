//! What can go wrong, as data.

use std::fmt;

use lockstep_replication::Span;
use lockstep_replication::message::Message;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::kv::Kv;

/// A fault at its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// When it comes.
    pub at: Span,
    /// What comes.
    #[serde(flatten)]
    pub fault: Fault,
}

/// A machine, by its number or by its part at the moment when the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Who {
    /// The machine of this number.
    Node(u16),
    /// By its part.
    Part(Part),
}

/// What a node may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Whoever leads the newest session. The fault does not happen where nobody leads.
    Leader,
    /// The follower of the lowest number.
    Follower,
    /// Every machine, one after the other.
    Everybody,
}

impl Who {
    /// Whoever leads.
    pub const LEADER: Who = Who::Part(Part::Leader);
    /// The follower of the lowest number.
    pub const FOLLOWER: Who = Who::Part(Part::Follower);
    /// Every machine.
    pub const EVERYBODY: Who = Who::Part(Part::Everybody);
}

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The forms that a file may have.
        struct Forms;

        impl Visitor<'_> for Forms {
            type Value = Who;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a machine's number, \"leader\", \"follower\" or \"everybody\"")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Who, E> {
                u16::try_from(number).map(Who::Node).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Who, E> {
                u16::try_from(number).map(Who::Node).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Who, E> {
                match name {
                    "leader" => Ok(Who::LEADER),
                    "follower" => Ok(Who::FOLLOWER),
                    "everybody" => Ok(Who::EVERYBODY),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(Forms)
    }
}

/// One fault. What a fault breaks, it also mends, when it has lasted, at the latest when faults stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The process dies and starts again from its disk. Of the writes that wait, some may have come through, the last
    /// one torn.
    Crash {
        /// Which machine.
        node: Who,
        /// How long until it starts again.
        down: Span,
    },
    /// The process dies and never starts again.
    Gone {
        /// Which machine.
        node: Who,
    },
    /// The process dies and starts again with the newest schema, if it had an older one.
    Upgrade {
        /// Which machine.
        node: Who,
        /// How long until it starts again.
        down: Span,
    },
    /// The process stands still and then goes on, as a stalled or sleeping machine does.
    Pause {
        /// Which machine.
        node: Who,
        /// For how long.
        lasts: Span,
    },
    /// Each input takes the node so long, and what comes meanwhile waits.
    Slow {
        /// Which machine.
        node: Who,
        /// For how long each.
        each: Span,
        /// For how long in all.
        lasts: Span,
    },
    /// These machines do not reach the others, nor the others them.
    Partition {
        /// One side.
        side: Vec<u16>,
        /// For how long.
        lasts: Span,
        /// Whether connections are noticed as broken, or just silent.
        noticed: bool,
    },
    /// A partition that comes and goes.
    Flapping {
        /// One side.
        side: Vec<u16>,
        /// How long it stands, and how long it is gone, each time.
        each: Span,
        /// For how long in all.
        lasts: Span,
        /// Whether connections are noticed as broken, or just silent.
        noticed: bool,
    },
    /// One node does not reach another, which does reach it.
    OneWay {
        /// Who is not heard.
        from: Who,
        /// Who does not hear.
        to: Who,
        /// For how long.
        lasts: Span,
        /// Whether the connection is noticed as broken, or just silent.
        noticed: bool,
    },
    /// One node is cut off from all others.
    Isolate {
        /// Which machine.
        node: Who,
        /// For how long.
        lasts: Span,
        /// Whether it still hears the others.
        hears: bool,
        /// Whether the others still hear it.
        is_heard: bool,
        /// Whether connections are noticed as broken, or just silent.
        noticed: bool,
    },
    /// A connection breaks and is made again.
    Cut {
        /// One end.
        a: Who,
        /// The other.
        b: Who,
    },
    /// Something happens to some messages.
    Messages {
        /// Of which kinds; of all if none is named.
        #[serde(default)]
        kinds: Vec<Kind>,
        /// From whom.
        #[serde(default = "everybody")]
        from: Who,
        /// To whom.
        #[serde(default = "everybody")]
        to: Who,
        /// So many of them pass first.
        #[serde(default)]
        skip: u64,
        /// So many of them are struck, among those that follow; all if none is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
        /// How many in a thousand of them are struck.
        #[serde(default = "all")]
        share: u64,
        /// For how long.
        #[serde(default = "for_ever")]
        lasts: Span,
        /// What happens to them.
        what: Mischief,
    },
    /// The wall clock jumps.
    WallStep {
        /// Which machine's.
        node: Who,
        /// By so much; back if negative.
        millis: i64,
    },
    /// The wall clock runs faster by so many millionths from now on; slower if negative.
    WallDrift {
        /// Which machine's.
        node: Who,
        /// By so much.
        millionths: i64,
    },
    /// The disk takes so long for everything asked of it from now on.
    SlowDisk {
        /// Whose.
        node: Who,
        /// For how long each.
        each: Span,
        /// For how long in all.
        lasts: Span,
    },
    /// The disk answers nothing for a while.
    StalledDisk {
        /// Whose.
        node: Who,
        /// For how long.
        lasts: Span,
    },
    /// The next write fails.
    FailingDisk {
        /// Whose.
        node: Who,
    },
    /// What would make the store larger fails for a while.
    FullDisk {
        /// Whose.
        node: Who,
        /// For how long.
        lasts: Span,
    },
    /// The next reading, encoding or decoding fails.
    FailingRead {
        /// Whose.
        node: Who,
    },
    /// The process dies, and its synced last entries are gone when it starts again. The store notices.
    LostTail {
        /// Whose.
        node: Who,
        /// How many.
        entries: u64,
        /// How long until it starts again.
        down: Span,
    },
    /// The process dies, and one synced entry is rotten when it starts again: the store keeps what lies before it.
    BitRot {
        /// Whose.
        node: Who,
        /// How many entries before the log's end it lies.
        entries: u64,
        /// How long until it starts again.
        down: Span,
    },
    /// The process dies and starts again with an empty disk.
    LostDisk {
        /// Which machine.
        node: Who,
        /// How long until it starts again.
        down: Span,
    },
    /// The operator stops the node in order, and starts it again.
    Leave {
        /// Which machine.
        node: Who,
        /// How long until it starts again.
        down: Span,
    },
    /// The operator asks the node to hand over.
    HandOver {
        /// Which machine.
        node: Who,
    },
    /// The operator says that the node may lead although damaged or without a majority.
    LeadAnyway {
        /// Which machine.
        node: Who,
    },
    /// The operator has a node forgotten.
    Forget {
        /// Who is asked to.
        by: Who,
        /// Who is forgotten.
        node: Who,
    },
    /// The node says that it will be busy.
    Busy {
        /// Which machine.
        node: Who,
        /// For how long.
        lasts: Span,
    },
}

fn everybody() -> Who {
    Who::EVERYBODY
}

fn all() -> u64 {
    1000
}

fn for_ever() -> Span {
    Span(u64::MAX)
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mischief {
    /// It is lost.
    Lose,
    /// It comes twice.
    Double,
    /// What it carries (records, chunks) is damaged.
    Corrupt,
    /// It takes so much longer.
    Delay(Span),
    /// It comes, and once more so much later.
    Again(Span),
    /// The clock that it names is this one.
    Clock(u64),
    /// It comes, and once more with what it carries damaged: its sender contradicts itself.
    Contradict,
    /// Before it there comes another one that says the same but carries damaged things, from a node that did not send it.
    Forge,
}

/// The kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the message of its name")]
pub enum Kind {
    Hello,
    Beat,
    Lead,
    Reach,
    Probe,
    Echo,
    Entries,
    Stored,
    Done,
    Nack,
    Replay,
    Credit,
    LogBegins,
    RequestSnapshot,
    Offer,
    RequestChunk,
    Chunk,
    Propose,
    Refused,
    HandOver,
    Transient,
    Reject,
}

impl Kind {
    /// The kind of a message.
    pub fn of(message: &Message<Kv>) -> Kind {
        match message {
            Message::Hello { .. } => Kind::Hello,
            Message::Beat(_) => Kind::Beat,
            Message::Lead(_) => Kind::Lead,
            Message::Reach { .. } => Kind::Reach,
            Message::Probe { .. } => Kind::Probe,
            Message::Echo { .. } => Kind::Echo,
            Message::Entries(_) => Kind::Entries,
            Message::Stored { .. } => Kind::Stored,
            Message::Done(_) => Kind::Done,
            Message::Nack(_) => Kind::Nack,
            Message::Replay { .. } => Kind::Replay,
            Message::Credit { .. } => Kind::Credit,
            Message::LogBegins { .. } => Kind::LogBegins,
            Message::RequestSnapshot { .. } => Kind::RequestSnapshot,
            Message::Offer { .. } => Kind::Offer,
            Message::RequestChunk { .. } => Kind::RequestChunk,
            Message::Chunk { .. } => Kind::Chunk,
            Message::Propose(_) => Kind::Propose,
            Message::Refused { .. } => Kind::Refused,
            Message::HandOver { .. } => Kind::HandOver,
            Message::Transient(_) => Kind::Transient,
            Message::Reject { .. } => Kind::Reject,
        }
    }
}

impl Fault {
    /// Its name in scenario files.
    pub fn name(&self) -> String {
        let fields = serde_json::to_value(self).unwrap_or_default();
        fields["fault"].as_str().unwrap_or_default().to_owned()
    }

    /// The machines that it names by number.
    pub fn machines(&self) -> Vec<u16> {
        self.named_machines().into_iter().map(|(_, number)| number).collect()
    }

    /// The machines that it names by number, each with the key that names it.
    pub fn named_machines(&self) -> Vec<(&'static str, u16)> {
        let fields = serde_json::to_value(self).unwrap_or_default();
        let number = |value: &serde_json::Value| value.as_u64().and_then(|number| number.try_into().ok());
        let one = ["node", "from", "to", "a", "b", "by"].into_iter().map(|field| (field, number(&fields[field])));
        let several = fields["side"].as_array().into_iter().flatten().map(|value| ("side", number(value)));
        one.chain(several).filter_map(|(field, number)| Some((field, number?))).collect()
    }

    /// Gives the machines that it names other numbers.
    pub fn rename(&mut self, renamed: &impl Fn(&mut u16)) {
        let rename = |who: &mut Who| {
            if let Who::Node(number) = who {
                renamed(number);
            }
        };
        match self {
            Fault::Partition { side, .. } | Fault::Flapping { side, .. } => side.iter_mut().for_each(renamed),
            Fault::OneWay { from: one, to: other, .. }
            | Fault::Messages { from: one, to: other, .. }
            | Fault::Cut { a: one, b: other }
            | Fault::Forget { by: one, node: other } => {
                rename(one);
                rename(other);
            }
            Fault::Crash { node, .. }
            | Fault::Gone { node }
            | Fault::Upgrade { node, .. }
            | Fault::Pause { node, .. }
            | Fault::Slow { node, .. }
            | Fault::Isolate { node, .. }
            | Fault::WallStep { node, .. }
            | Fault::WallDrift { node, .. }
            | Fault::SlowDisk { node, .. }
            | Fault::StalledDisk { node, .. }
            | Fault::FailingDisk { node }
            | Fault::FullDisk { node, .. }
            | Fault::FailingRead { node }
            | Fault::LostTail { node, .. }
            | Fault::BitRot { node, .. }
            | Fault::LostDisk { node, .. }
            | Fault::Leave { node, .. }
            | Fault::HandOver { node }
            | Fault::LeadAnyway { node }
            | Fault::Busy { node, .. } => rename(node),
        }
    }

    /// Whether entries that were stored may be nowhere after it.
    pub fn loses_data(&self) -> bool {
        match self {
            Fault::LostTail { .. } | Fault::LostDisk { .. } | Fault::BitRot { .. } | Fault::LeadAnyway { .. } => true,
            Fault::Crash { .. }
            | Fault::Gone { .. }
            | Fault::Upgrade { .. }
            | Fault::Pause { .. }
            | Fault::Slow { .. }
            | Fault::Partition { .. }
            | Fault::Flapping { .. }
            | Fault::OneWay { .. }
            | Fault::Isolate { .. }
            | Fault::Cut { .. }
            | Fault::Messages { .. }
            | Fault::WallStep { .. }
            | Fault::WallDrift { .. }
            | Fault::SlowDisk { .. }
            | Fault::StalledDisk { .. }
            | Fault::FailingDisk { .. }
            | Fault::FullDisk { .. }
            | Fault::FailingRead { .. }
            | Fault::Leave { .. }
            | Fault::HandOver { .. }
            | Fault::Forget { .. }
            | Fault::Busy { .. } => false,
        }
    }
}
