//! What goes into a node and what comes out of it.

use bytes::Bytes;

use crate::app::App;
use crate::entry::Entry;
use crate::id::{CommandId, Index, NodeId, Session, Ticket, WorkId};
use crate::message::{Message, Refused, Reject};
use crate::replica::Replica;
use crate::restored::Restored;
use crate::snapshot::Snapshot;
use crate::time::{Moment, Span};

/// The only things that happen to a node.
#[derive(Clone, Debug)]
pub enum Input<A: App> {
    /// The time of `next_wake` came.
    Wake,
    /// A connection to a peer stands.
    Connected(NodeId),
    /// No connection to the peer stands any more.
    Disconnected(NodeId),
    /// A message came.
    Message {
        /// Its sender, as the transport authenticated it.
        from: NodeId,
        /// What it says.
        message: Message<A>,
    },
    /// A client asks for something. There will be exactly one [`Output::Reply`] for it.
    Command {
        /// Names the waiting client.
        ticket: Ticket,
        /// The name that the client gave to the command, if it did.
        id: Option<CommandId>,
        /// What it asks for.
        command: A::Command,
    },
    /// This node saw something that should be ordered.
    Observe(A::Observation),
    /// What this node says of itself from now on.
    Telemetry(A::Telemetry),
    /// A signal to send, to one node or to all.
    Transient {
        /// To whom; to all if none.
        to: Option<NodeId>,
        /// The signal.
        transient: A::Transient,
    },
    /// Work ended.
    Worked {
        /// Which.
        id: WorkId,
        /// How.
        result: Result<Worked<A>, WorkFailed>,
    },
    /// This node will be busy, and perhaps silent, for so long.
    Busy(Span),
    /// The operator's hand.
    Operator(Operator),
}

/// What an operator may ask of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Hand leadership over, if it has it, and take no new work: the node is about to stop. Ends with [`Output::Left`].
    Leave,
    /// Hand leadership over and stay.
    HandOver,
    /// Remove a node from the known ones.
    Forget(NodeId),
    /// Lead although damaged or without a majority: a new founding.
    LeadAnyway,
}

/// The only effects of a node. Perform them in order; only sends may be lost.
#[derive(Clone, Debug)]
pub enum Output<A: App> {
    /// Send to one node.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message<A>,
    },
    /// Send to all: over a connection where there is one, else by gossip.
    Broadcast(Message<A>),
    /// Do this work, and say by [`Input::Worked`] how it went.
    Work {
        /// Names the work.
        id: WorkId,
        /// What to do.
        work: Work<A>,
    },
    /// This entry was applied to the state.
    Applied(Entry<A>),
    /// The state was replaced by another, at this index: consumers reconcile.
    Replaced {
        /// One past the last entry that the new state contains.
        next: Index,
    },
    /// Answer a client.
    Reply {
        /// The client.
        ticket: Ticket,
        /// What became of its command.
        outcome: Outcome<A>,
    },
    /// A signal for the application came.
    Transient {
        /// From whom.
        from: NodeId,
        /// What.
        transient: A::Transient,
    },
    /// This node's part changed.
    Role(Role),
    /// Close the connection to a peer and say why.
    Refuse {
        /// The peer.
        peer: NodeId,
        /// Why.
        reject: Reject,
    },
    /// Something that an operator should read.
    Notice(Notice),
    /// The node has handed over all it had; the process may end.
    Left,
    /// The node cannot go on: end the process with this reason.
    Stop(Stop),
}

/// Work on disk or on snapshots. Performed in the order asked for, but `Read`, `Encode` and `Decode`, which only read.
#[derive(Clone, Debug)]
pub enum Work<A: App> {
    /// Persist this beside the log, replacing what was there.
    Keep(Box<Kept>),
    /// Add to the end of the log, and sync.
    Append {
        /// The first record's index: one past the log's end.
        first: Index,
        /// The records.
        records: Vec<Bytes>,
    },
    /// Move the log from `to` on, and snapshots past it, into a set-aside file; then load what is left as at a start.
    Rewind {
        /// One past the last entry that stays.
        to: Index,
        /// For the operator: whose branch won.
        winner: Session,
    },
    /// Persist a snapshot that came from elsewhere; the log becomes empty and begins after it.
    Install(Box<Snapshot>),
    /// Persist a snapshot of this node's own.
    Save(Box<Snapshot>),
    /// Remove what is no longer needed.
    Trim {
        /// Log entries below this.
        log_below: Index,
        /// Snapshots but these (named by one past their last entry).
        snapshots_but: Vec<Index>,
    },
    /// Read entries from the log.
    Read {
        /// The first.
        from: Index,
        /// One past the last.
        until: Index,
        /// Stop when so many bytes are read, after at least one entry.
        max_bytes: usize,
    },
    /// Encode this state: [`Snapshot::encode`].
    Encode {
        /// What was captured, in O(1).
        capture: Box<Replica<A>>,
        /// The size of its chunks.
        chunk_bytes: usize,
    },
    /// Decode and check this snapshot: [`Snapshot::decode`].
    Decode {
        /// The whole of it.
        snapshot: Box<Snapshot>,
        /// Refuse to go beyond so many raw bytes.
        raw_bytes_at_most: u64,
    },
}

/// How work ended well.
#[derive(Clone, Debug)]
pub enum Worked<A: App> {
    /// `Keep`, `Append`, `Install`, `Save` or `Trim` is done and synced.
    Stored,
    /// What was read; empty if the log does not hold the first entry.
    Read {
        /// The first one's index.
        first: Index,
        /// The records.
        records: Vec<Bytes>,
    },
    /// The log is cut; this is what is left. The set-aside part, if it held anything but openings and marks, has a name.
    Rewound(Box<Restored<A>>, Option<String>),
    /// The snapshot is encoded.
    Encoded(Box<Snapshot>),
    /// The snapshot is decoded.
    Decoded(Box<Replica<A>>),
}

/// Work failed; the reason is a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WorkFailed(pub String);

/// What a node keeps beside its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    /// Drawn when the disk was first used, so that a node under an old name with an empty disk is known for what it is; 0
    /// until it is drawn.
    pub disk: u64,
    /// The highest clock that it used or confirmed.
    pub clock: u64,
    /// The newest session that it confirmed.
    pub confirmed: Option<Session>,
    /// How many sessions it led.
    pub led: u64,
    /// Whether the disk was empty, and the log did not show yet whether others know this node by another: by one that it
    /// lost.
    pub fresh: bool,
    /// Whether it lost synced entries, and is not whole again yet.
    pub damaged: bool,
    /// What it lost, if that is known: the log up to before this index, whose last entry this session ordered. Its own cut
    /// of a branch took it along, since the log before the fork was trimmed.
    pub lacks: Option<(Session, Index)>,
}

/// What became of a client's command.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<A: App> {
    /// It is in the log.
    Done {
        /// Where.
        index: Index,
        /// How many known nodes hold it.
        held: u32,
        /// Of how many.
        of: u32,
    },
    /// It changed nothing, and will not.
    Refused(Refused<A>),
    /// This node takes no commands now; it changed nothing, and will not.
    NotTaken(NotTaken),
    /// It may be in the log or come into it.
    Unknown(Unknown),
}

/// Why a node takes no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Too many wait already.
    #[error("too many commands wait at this node: send fewer at a time, or try another node")]
    Full,
    /// It is stopping.
    #[error("this node is stopping: ask another one")]
    Leaving,
    /// It does not know the state yet.
    #[error("this node has not caught up yet: ask again, or ask another one")]
    NotReady,
}

/// Why nobody can say what became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No answer came in time.
    #[error("no leader confirmed it in time; it may still be done")]
    TimedOut,
    /// This node skipped the entries in question by a snapshot.
    #[error("this node caught up by a snapshot that does not tell; look at the state")]
    Skipped,
    /// A leader refused it, but it had been sent to an earlier one.
    #[error("the leader refused it, but an earlier leader may have ordered it")]
    Contested,
    /// The entry was in a branch that lost.
    #[error("it was ordered in a branch of the log that lost, and was set aside")]
    SetAside,
    /// The node stopped first.
    #[error("this node stopped before it knew; it may still be done")]
    Stopped,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It knows no leader.
    Seeking,
    /// It follows this session's leader.
    Following(Session),
    /// It leads this session.
    Leading(Session),
}

/// News for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A branch of the log lost; what it held is in the set-aside file of this name.
    SetAside(String),
    /// This node lost synced entries, or its store is empty under a name that others know.
    Damaged,
    /// It is whole again.
    Whole,
    /// Entries of a newer version came.
    NeedsUpgrade(String),
    /// A peer's node runs twice.
    SameIdentity(NodeId),
    /// Another founding of this cluster was met, and yields to ours or we to it.
    OtherFounding {
        /// Who belongs to it.
        peer: NodeId,
        /// Whether this node yields.
        we_yield: bool,
    },
    /// A snapshot could not be fetched, decoded or encoded; what happens instead.
    Snapshot(String),
    /// No node that may lead can be reached.
    WaitingForPeers,
    /// Two contents for one index were met.
    Conflict(Index),
}

/// Why a node cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The disk failed.
    #[error("the data directory cannot be written: {0}")]
    Disk(String),
    /// Its identity is used by another machine.
    #[error("{0}")]
    Rejected(Reject),
}

/// When a node wants to be woken, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wake {
    /// At this time.
    pub at: Moment,
    /// For this.
    pub why: Why,
}

/// The kinds of deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// A node's beat.
    Beat,
    /// The leader's beat.
    Lead,
    /// The leader's tick: liveness, membership.
    Tick,
    /// Probing neighbours.
    Probe,
    /// The leader is silent.
    Silence,
    /// A campaign or its pre-vote ends.
    Campaign,
    /// A gap is asked for.
    Gap,
    /// A repair that lingers leaves.
    Repair,
    /// A snapshot transfer is late, or may be asked for again.
    Transfer,
    /// Proposals are sent again, or clients are told that nobody knows.
    Proposals,
}
