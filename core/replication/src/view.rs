//! Facts about a node for checks, metrics and the API. Reading them changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::id::{Index, NodeId, Session};
use crate::io::{Outcome, Role};
use crate::lineage::{Lineage, Position};
use crate::message::DoneMark;
use crate::replica::Founded;

/// What a node looks like from outside at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// This node.
    pub me: NodeId,
    /// Its part.
    pub role: Role,
    /// The leader it knows, itself perhaps.
    pub leader: Option<NodeId>,
    /// The newest session that it confirmed.
    pub confirmed: Option<Session>,
    /// Whether the log holds the current session's mark.
    pub backed: bool,
    /// The sessions of its log.
    pub lineage: Lineage,
    /// How far the log stands.
    pub position: Position,
    /// One past the last entry applied.
    pub next: Index,
    /// One past the last entry synced.
    pub synced: Index,
    /// The first entry that its log on disk holds.
    pub log_first: Index,
    /// One past the head, as far as it heard.
    pub head_next: Index,
    /// How far promises go.
    pub done: Option<DoneMark>,
    /// Whether it has caught up.
    pub ready: bool,
    /// If not, why, as a sentence.
    pub not_ready: Option<String>,
    /// Catch-up under way.
    pub catch_up: Option<CatchUp>,
    /// Catch-ups that ended, oldest first: the newest few.
    pub catch_ups: Vec<FinishedCatchUp>,
    /// The founding of its log.
    pub founding: Option<Founded>,
    /// The known nodes and all others that were heard.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Whether synced entries were lost.
    pub damaged: bool,
    /// Proposals that wait.
    pub outbox: usize,
    /// What happened so far.
    pub counters: Counters,
}

/// Catch-up under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CatchUp {
    /// By which way.
    pub path: CatchUpPath,
    /// How many bytes of the snapshot are here.
    pub bytes: u64,
    /// Of how many.
    pub bytes_of: u64,
    /// Entries between here and the head.
    pub entries_behind: u64,
}

/// A catch-up that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FinishedCatchUp {
    /// By which way.
    pub path: CatchUpPath,
    /// From the first request until all that the leader's log held then was applied, in microseconds.
    pub requested_to_applied_us: u64,
    /// Bytes of the snapshot.
    pub snapshot_bytes: u64,
    /// Entries that came by the log.
    pub tail_entries: u64,
}

/// The ways to catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUpPath {
    /// A small hole, by NACK.
    Repair,
    /// A snapshot was asked for.
    Asking,
    /// A snapshot's chunks are coming.
    Snapshot,
    /// A snapshot is decoded and installed.
    Installing,
    /// The log is replayed.
    Log,
}

/// Another node, as this one sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Whether it counts for majorities.
    pub known: bool,
    /// Whether a connection stands.
    pub connected: bool,
    /// How many milliseconds ago it was heard.
    pub heard_ago_ms: Option<u64>,
    /// How long a probe takes, in microseconds.
    pub round_trip_us: Option<u64>,
    /// One past the last entry that it stored, as the leader knows.
    pub stored: Option<Index>,
    /// Whether the leader counts it as lost.
    pub lost: bool,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What happened since the node was made. All of them only grow.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Counters {
            /// Counts what became of a client's command.
            pub(crate) fn count<A: App>(&mut self, outcome: &Outcome<A>) {
                match outcome {
                    Outcome::Done { .. } => self.commands_done += 1,
                    Outcome::Refused(_) | Outcome::NotTaken(_) => self.commands_refused += 1,
                    Outcome::Unknown(_) => self.commands_unknown += 1,
                }
            }

            /// Name, meaning and value of each.
            pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Entries applied to the state.
    entries_applied,
    /// Entries ordered as leader.
    entries_ordered,
    /// Entries that came twice.
    entries_duplicate,
    /// Entries dropped because the ordered buffer was full.
    entries_dropped,
    /// Entries or messages from a node that may not send them.
    rejected_origin,
    /// Messages of a session that is over.
    stale_session,
    /// Second contents for an index.
    conflicts,
    /// Holes in the order that were noticed.
    gaps,
    /// NACKs sent.
    nacks_sent,
    /// NACKs not sent because the hole closed first.
    nacks_suppressed,
    /// NACKs answered to one node.
    repairs_unicast,
    /// Repairs sent to all.
    repairs_broadcast,
    /// NACKs and requests dropped by a rate limit or because too much was outstanding.
    requests_limited,
    /// Gaps given up for a snapshot.
    escalations,
    /// Replays begun as the one who catches up.
    replays_started,
    /// Snapshots asked for.
    snapshots_requested,
    /// Snapshots installed.
    snapshots_installed,
    /// Snapshot bytes taken in.
    snapshot_bytes_received,
    /// Snapshot chunks that were wrong, unasked for, foreign or stale.
    chunks_rejected,
    /// Snapshot chunks asked for again.
    chunks_retried,
    /// Snapshots that failed to decode or did not come.
    snapshots_failed,
    /// Snapshots encoded.
    snapshots_encoded,
    /// Snapshot chunks served.
    chunks_served,
    /// Campaigns begun.
    campaigns,
    /// Sessions opened by this node.
    sessions_opened,
    /// Changes of the leader that this node followed.
    leaders_followed,
    /// Branches set aside.
    rewinds,
    /// Nodes counted as lost.
    nodes_lost,
    /// Times the leader doubted its own ears.
    self_doubts,
    /// Client commands done.
    commands_done,
    /// Client commands refused.
    commands_refused,
    /// Client commands whose outcome is unknown.
    commands_unknown,
    /// Proposals sent again.
    proposals_repeated,
    /// Wishes of peers that a limit dropped.
    proposals_dropped,
    /// Transient signals that had no connection to go by.
    transients_unsent,
}
