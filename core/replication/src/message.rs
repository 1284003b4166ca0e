//! What nodes say to each other. Every message arrives with its sender, as the transport authenticated it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::id::{Boot, CommandId, Hash, Index, NodeId, Session};
use crate::lineage::{Lineage, Position};
use crate::replica::Founded;
use crate::snapshot::Manifest;
use crate::time::{Span, Wall};

/// Everything that crosses the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub enum Message<A: App> {
    /// Who I am and how far: on connection, at the opening of a session, and when asked. Elections are made of it: a node
    /// without a leader asks all for theirs (do you hear one? if not, how far are you?), and its own is its candidacy.
    Hello {
        /// The sender's standing.
        standing: Box<Standing>,
        /// Why it is said.
        purpose: Purpose,
    },
    /// A node lives.
    Beat(Beat<A>),
    /// The leader lives, and this is how far the log goes.
    Lead(Box<Lead>),
    /// "My connection to this node broke" (or stands again): for the leader.
    Reach {
        /// The node in question.
        node: NodeId,
        /// Whether the sender is connected to it.
        connected: bool,
    },
    /// Are you there?
    Probe {
        /// Comes back in the echo.
        n: u64,
    },
    /// Yes.
    Echo {
        /// From the probe.
        n: u64,
    },

    /// Entries in their order: fresh ones, a repair, or a part of a replay.
    Entries(Entries),
    /// The sender confirmed a session, and this is what it holds of it: both are on its disk. Said again at each beat of
    /// the leader, since it may be lost.
    Stored {
        /// The session: the newest that the sender confirmed.
        session: Session,
        /// The sender's start.
        boot: Boot,
        /// The number of its disk.
        disk: u64,
        /// One past the last entry that it has synced.
        next: Index,
    },
    /// What clients may be told.
    Done(DoneMark),
    /// "I miss these."
    Nack(Range),
    /// "Send me the log from here on, this many bytes ahead of what I credit."
    Replay {
        /// Whose log.
        session: Session,
        /// The first entry wanted.
        from: Index,
        /// Bytes that may be on their way.
        window: u64,
    },
    /// "I have taken in so many bytes of the replay."
    Credit {
        /// Whose log.
        session: Session,
        /// Since the last credit.
        bytes: u64,
    },
    /// The entries asked for are gone: the log begins later. Take a snapshot.
    LogBegins {
        /// Whose log.
        session: Session,
        /// Its first index.
        first: Index,
    },

    /// "I stand here. Have you a snapshot?"
    RequestSnapshot {
        /// Whose.
        session: Session,
        /// One past the last entry that the sender has.
        next: Index,
    },
    /// The answer.
    Offer {
        /// Whose.
        session: Session,
        /// What there is.
        offer: Offer,
    },
    /// "Send me this chunk."
    RequestChunk {
        /// The snapshot's hash.
        snapshot: Hash,
        /// Which chunk.
        chunk: u32,
    },
    /// Here it is; none if this node does not hold that snapshot.
    Chunk {
        /// The snapshot's hash.
        snapshot: Hash,
        /// Which chunk.
        chunk: u32,
        /// Its bytes.
        bytes: Option<Bytes>,
    },

    /// A node's proposals, in order.
    Propose(Propose<A>),
    /// Proposals that the leader refused.
    Refused {
        /// The generation that they belong to.
        generation: u64,
        /// Which, and why.
        items: Vec<(u64, Refused<A>)>,
    },

    /// The leader goes, and asks the receiver to lead.
    HandOver {
        /// The session that ends.
        session: Session,
        /// One past its last entry.
        next: Index,
    },

    /// A signal of one request, for the application.
    Transient(A::Transient),
    /// "I do not work with this start of you", and why.
    Reject {
        /// Which start of the receiver.
        boot: Boot,
        /// Why.
        reject: Reject,
    },
}

/// Who a node is and how far it stands: what elections and merging decide by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The node's start.
    pub boot: Boot,
    /// The number of its disk.
    pub disk: u64,
    /// The newest schema that it reads.
    pub schema: u32,
    /// The highest clock that it heard of.
    pub clock: u64,
    /// The newest session that it confirmed.
    pub confirmed: Option<Session>,
    /// The founding of its log.
    pub founding: Option<Founded>,
    /// The sessions of its log.
    pub lineage: Lineage,
    /// How many sessions it led.
    pub seniority: u64,
    /// Whether it lost synced entries.
    pub damaged: bool,
    /// The session that it leads, or follows and hears.
    pub session: Option<Session>,
}

/// Why a standing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// The receiver should know.
    Tell,
    /// The sender wants the receiver's in return.
    Ask {
        /// How often this start of the sender was damaged so far.
        losses: u64,
    },
    /// The receiver asked for it.
    Answer {
        /// The start of the receiver that asked.
        boot: Boot,
        /// As that said in its question.
        losses: u64,
    },
}

/// A node's beat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Beat<A: App> {
    /// The node's start.
    pub boot: Boot,
    /// The newest schema that it reads.
    pub schema: u32,
    /// One past the last entry that it applied.
    pub applied: Index,
    /// For how long it may be busy and silent.
    pub busy: Span,
    /// Whether it lost synced entries: it holds no more for majorities.
    pub damaged: bool,
    /// What the application says with it.
    pub telemetry: A::Telemetry,
}

/// The leader's beat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// The session that it leads.
    pub session: Session,
    /// One past the highest index that it has given out.
    pub next: Index,
    /// The running hash of the log up to there.
    pub hash: Hash,
    /// Its wall clock.
    pub wall: Wall,
    /// One past the last entry that every known node has stored: what lies below is needed by none of them.
    pub all: Index,
    /// Whose beats it heard lately.
    pub heard: Vec<NodeId>,
    /// What clients may be told.
    pub done: Option<DoneMark>,
}

/// How far promises go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneMark {
    /// In which session.
    pub session: Session,
    /// Clients may be told of entries up to this one.
    pub index: Index,
    /// How many known nodes hold it.
    pub held: u32,
    /// Of how many.
    pub of: u32,
}

/// A run of entries.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// In which session they were asked for or ordered.
    pub session: Session,
    /// The first one's index.
    pub first: Index,
    /// Their bytes.
    pub records: Vec<Bytes>,
    /// Why they were sent.
    pub kind: EntriesKind,
}

/// Why entries were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntriesKind {
    /// They are new.
    Fresh,
    /// Somebody missed them.
    Repair,
    /// A part of a replay.
    Replay,
}

/// A hole in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// Whose log.
    pub session: Session,
    /// The first missing index.
    pub from: Index,
    /// One past the last missing index.
    pub until: Index,
}

/// What a snapshot's source has to offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Offer {
    /// This one.
    Snapshot(Box<Manifest>),
    /// The log from where you stand is less work.
    LogShorter,
    /// There is no entry yet.
    NothingYet,
    /// Too busy: ask again after this time.
    Later(Span),
    /// The log begins later, and the state needs a program that reads this schema.
    Newer(u32),
}

/// A node's proposals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Propose<A: App> {
    /// The generation they belong to. A new one comes without items: it must be ordered first.
    pub generation: u64,
    /// Everything below this number is settled.
    pub floor: u64,
    /// What is above this number and not among the items, up to the last of them, is settled too.
    pub after: u64,
    /// Number and content, ascending.
    pub items: Vec<(u64, Proposal<A>)>,
}

/// What a node asks the leader to order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub enum Proposal<A: App> {
    /// A client's command, under the name that the client gave it.
    Command(Option<CommandId>, A::Command),
    /// Something that the node saw.
    Observation(A::Observation),
}

/// Why a proposal was not ordered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub enum Refused<A: App> {
    /// The application says no.
    Application(A::Refusal),
    /// Nothing had to change; the state at this index shows it already.
    Nothing(Index),
    /// A command of this name was done before, at this index (or earlier, where that is forgotten).
    DoneBefore(Index),
    /// Its entry would be too long.
    TooLong {
        /// Bytes of the entry.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// It was refused before, by a leader that is gone or has forgotten why.
    Before,
}

/// Why a node does not work with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reject {
    /// Two machines run with one identity.
    SameIdentity,
    /// A later start of the same identity is known: this one runs from an old disk image.
    OldStart,
    /// Too many nodes.
    Full,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reject::SameIdentity => "two machines run with this node's identity: give one of them a new data directory",
            Reject::OldStart => {
                "a later start of this node's identity was seen: it runs twice, or from an old disk image"
            }
            Reject::Full => "the cluster has as many nodes as it may have",
        })
    }
}

impl Standing {
    /// How far the node's log stands.
    pub fn position(&self) -> Position {
        self.lineage.position()
    }

    /// Whether this and a log belong to different foundings, and neither was founded anew on the other.
    pub fn is_foreign_to(&self, founding: Option<Founded>, lineage: &Lineage) -> bool {
        let differ = matches!((self.founding, founding), (Some(one), Some(another)) if one.id != another.id);
        differ && !self.lineage.contains(lineage) && !lineage.contains(&self.lineage)
    }
}

impl Entries {
    /// Their size in bytes.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.first.plus(self.records.len() as u64);
        write!(f, "{:?} {}..{until} of {} ({} bytes)", self.kind, self.first, self.session, self.bytes())
    }
}
