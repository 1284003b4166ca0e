//! Every limit and every time of the core, with its unit and its reason.

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// How a node behaves. All nodes of a cluster should agree on it; nothing breaks where they do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many nodes, itself included, a node without any log expects to found a cluster with. 1: it may found alone. It
    /// never founds with half of them or fewer.
    pub founders: usize,
    /// How often a node says that it lives. 1 s: five chances before it is lost.
    pub beat_every: Span,
    /// How often the leader beats. Half a second, so that a lost last entry is noticed soon.
    pub leader_beat_every: Span,
    /// Silence after which the leader counts a node as lost: between this and one tick more.
    pub lost_after: Span,
    /// The leader's tick, on its own monotonic clock.
    pub tick_every: Span,
    /// How long connections to a node must be broken, to everybody who is asked, before it is lost: time for one redial.
    pub broken_after: Span,
    /// How long a lost node keeps what it held. A minute: a stalled node comes back with its models loaded.
    pub evict_after: Span,
    /// A known node that is lost for so long is forgotten. A day.
    pub forget_after: Span,
    /// The longest time for which a node may say "busy": loading a large model.
    pub busy_at_most: Span,
    /// How often neighbours probe each other.
    pub probe_every: Span,

    /// Silence of the leader after which a follower asks whether others hear it.
    pub campaign_after: Span,
    /// Spread added to it, drawn evenly.
    pub campaign_jitter: Span,
    /// How long a node waits for answers to "do you hear the leader?" and to its candidacy when most are connected.
    pub campaign_for: Span,
    /// The same when at most half of the known nodes are connected: they may be on their way.
    pub campaign_for_minority: Span,
    /// A beat not older than this counts as hearing the leader. Twice its interval.
    pub hears_within: Span,
    /// A leader whose append is unsynced for so long stops beating.
    pub stalled_after: Span,
    /// The highest step by which another member's clock may be ahead of ours. 2^32: centuries of elections.
    pub clock_step_at_most: u64,

    /// How long a hole in the order is left alone: gossip reorders more often than it loses.
    pub gap_grace: Span,
    /// The base of the delay before asking for a gap again.
    pub nack_base: Span,
    /// Its ceiling.
    pub nack_ceiling: Span,
    /// After so many attempts without progress a snapshot is asked for.
    pub nack_attempts: u32,
    /// After so long without progress, likewise.
    pub nack_patience: Span,
    /// How long the leader waits for more who miss the same range.
    pub repair_linger: Span,
    /// From so many askers on a repair is broadcast.
    pub repair_broadcast_from: usize,
    /// From so many holes on they are not asked for one by one: a replay brings all of them in one round trip.
    pub repair_holes: usize,
    /// The most entries in a repair; what is longer is a replay.
    pub repair_entries: u64,
    /// The most bytes in a repair.
    pub repair_bytes: usize,
    /// The most bytes in a broadcast repair: half of gossip's message cap.
    pub repair_broadcast_bytes: usize,
    /// How many NACKs a second a peer may send, with a burst of twice as many.
    pub nacks_per_second: u32,
    /// Credit of a replay: how many bytes may be on their way.
    pub replay_window: usize,
    /// How much one message of a replay, or one batch of entries, carries at most.
    pub batch_bytes: usize,
    /// The most entries in one batch.
    pub batch_entries: usize,
    /// How many bytes all replays and repairs of a node may have outstanding together.
    pub outstanding_bytes: usize,

    /// The most entries that wait in the ordered buffer.
    pub buffer_entries: usize,
    /// The most bytes that wait in it.
    pub buffer_bytes: usize,
    /// How much of the log's end is kept in memory, so that repairs need no disk.
    pub tail_bytes: usize,
    /// The longest entry, in bytes; a wish that would make a longer one is refused.
    pub entry_bytes: usize,

    /// Proposals of this node that may wait; above that commands are refused.
    pub outbox_entries: usize,
    /// Bytes of proposals that may wait.
    pub outbox_bytes: usize,
    /// How long before an unanswered proposal is sent again.
    pub propose_again: Span,
    /// How long a client waits before it is told "unknown".
    pub reply_within: Span,

    /// Whether snapshots are fetched; without, the log is replayed.
    pub fetch_snapshots: bool,
    /// Periodic snapshots fall on multiples of this, so that nodes hold equal bytes. 0: none, and the whole log is kept.
    pub snapshot_every: u64,
    /// The shortest time between two periodic snapshots.
    pub snapshot_at_least: Span,
    /// How many entries below the newest snapshot the log is kept.
    pub keep_behind: u64,
    /// The most bytes of a chunk.
    pub chunk_bytes: usize,
    /// How many chunks are asked for at the same time.
    pub chunks_in_flight: usize,
    /// How long to wait for a chunk before asking another source.
    pub chunk_within: Span,
    /// Without a new chunk for so long the transfer begins again with a new manifest.
    pub transfer_patience: Span,
    /// How long decoding and installing may take: apart from the transfer's time, or a slow disk restarts it for ever.
    pub install_within: Span,
    /// The most bytes of a compressed snapshot that is accepted.
    pub snapshot_bytes: u64,
    /// The most bytes of a snapshot's raw form that is accepted.
    pub snapshot_raw_bytes: u64,
    /// How many peers are served snapshots at the same time.
    pub serves: usize,
    /// How long the log is held for a joiner that is catching up.
    pub hold_log_for: Span,

    /// The most nodes that may be known, heard or tracked.
    pub nodes: usize,
    /// A node is caught up when it is at most so many entries behind,
    pub caught_up_entries: u64,
    /// or at most so long.
    pub caught_up_span: Span,
}

/// Settings that may be 0. Others at 0 would be a mistake: a time that is over before it began, or no room at all.
pub const MAY_BE_NOTHING: [&str; 10] = [
    "campaign_jitter",
    "gap_grace",
    "repair_linger",
    "fetch_snapshots",
    "snapshot_every",
    "snapshot_at_least",
    "keep_behind",
    "tail_bytes",
    "caught_up_entries",
    "caught_up_span",
];

/// The most bytes of a session's opening, beside the other nodes that a founding names.
pub(crate) const OPENING_BYTES: usize = 192;

impl Config {
    /// The longest entry: a session can be opened whatever is configured.
    pub(crate) fn entry_limit(&self) -> usize {
        self.entry_bytes.max(OPENING_BYTES)
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            founders: 1,
            beat_every: Span::seconds(1),
            leader_beat_every: Span::millis(500),
            lost_after: Span::seconds(5),
            tick_every: Span::seconds(1),
            broken_after: Span::millis(400),
            evict_after: Span::seconds(60),
            forget_after: Span::seconds(24 * 3600),
            busy_at_most: Span::seconds(15 * 60),
            probe_every: Span::seconds(2),
            campaign_after: Span::seconds(2),
            campaign_jitter: Span::millis(500),
            campaign_for: Span::millis(500),
            campaign_for_minority: Span::seconds(5),
            hears_within: Span::seconds(1),
            stalled_after: Span::seconds(2),
            clock_step_at_most: 1 << 32,
            gap_grace: Span::millis(10),
            nack_base: Span::millis(50),
            nack_ceiling: Span::seconds(1),
            nack_attempts: 6,
            nack_patience: Span::seconds(5),
            repair_linger: Span::millis(25),
            repair_broadcast_from: 3,
            repair_holes: 8,
            repair_entries: 1000,
            repair_bytes: 256 << 10,
            repair_broadcast_bytes: 32 << 10,
            nacks_per_second: 10,
            replay_window: 4 << 20,
            batch_bytes: 512 << 10,
            batch_entries: 4096,
            outstanding_bytes: 32 << 20,
            buffer_entries: 20_000,
            buffer_bytes: 16 << 20,
            tail_bytes: 4 << 20,
            entry_bytes: 32 << 10,
            outbox_entries: 16_384,
            outbox_bytes: 8 << 20,
            propose_again: Span::millis(500),
            reply_within: Span::seconds(30),
            fetch_snapshots: true,
            snapshot_every: 5000,
            snapshot_at_least: Span::seconds(1),
            keep_behind: 5000,
            chunk_bytes: 512 << 10,
            chunks_in_flight: 4,
            chunk_within: Span::seconds(2),
            transfer_patience: Span::seconds(15),
            install_within: Span::seconds(60),
            snapshot_bytes: 64 << 20,
            snapshot_raw_bytes: 256 << 20,
            serves: 4,
            hold_log_for: Span::seconds(60),
            nodes: 1024,
            caught_up_entries: 64,
            caught_up_span: Span::seconds(1),
        }
    }
}
