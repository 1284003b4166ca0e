//! A run as data: how many machines, what the world is like, what goes wrong when, what clients ask for.
//!
//! Whatever a shrinker may take away stands here. What is random and does not stand here is drawn by key
//! ([`crate::dice`]), so that taking something away leaves the other draws as they were. Times are nanoseconds of world
//! time ([`Span`]). Machines are named by their numbers.

use std::collections::BTreeSet;

use lockstep_replication::{Config, NodeId, Span};
use serde::{Deserialize, Serialize};

pub use crate::faults::{Fault, Kind, Mischief, Timed, Who};

/// Everything that a run is made of. The same plan gives the same run, event by event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Where all draws come from.
    pub seed: u64,
    /// How every node is configured.
    pub config: Config,
    /// What the network is like while faults go on.
    pub weather: Weather,
    /// How exact and how fast machines and disks are.
    pub timing: Timing,
    /// When faults and commands stop.
    pub quiet_from: Span,
    /// When so many events have happened, faults and commands stop too.
    pub quiet_after_events: u64,
    /// A run with more events than this has failed: nodes excite each other without end.
    pub events_at_most: u64,
    /// Whether messages cross the network as bytes, encoded and decoded, or are handed over as values.
    pub on_the_wire: bool,
    /// Whether faults spare one good copy of what was stored: a fault that would destroy too many does not happen.
    pub spare_copies: bool,
    /// Whether nodes have moods: what they may do, but seldom do, they do now and then.
    #[serde(default)]
    pub moods: bool,
    /// What is left of what the dice would do; everything if nothing is said.
    #[serde(default)]
    pub only: Only,
    /// The machines, in order of their numbers.
    pub machines: Vec<MachinePlan>,
    /// What clients do.
    pub loads: Vec<Load>,
    /// What goes wrong, by time.
    pub faults: Vec<Timed>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachinePlan {
    /// Its number: at least 1, each once.
    pub number: u16,
    /// When it is started first.
    #[serde(default)]
    pub starts: Span,
    /// The schema that it reads and writes at first.
    #[serde(default = "newest_schema")]
    pub schema: u32,
    /// The machine whose identity it has, if not one of its own: then one identity runs twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin_of: Option<u16>,
    /// With `twin_of`: whether it starts from a copy of that machine's disk, or from an empty one.
    #[serde(default)]
    pub copies_disk: bool,
}

/// What the network is like. Chances are in a thousand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weather {
    /// The shortest time on the way.
    pub delay: Span,
    /// Added to it, up to this.
    pub jitter: Span,
    /// How often a message takes ten times as long.
    pub slow: u64,
    /// Loss on connections: a law says that any send may be lost.
    pub loss: u64,
    /// Loss at each hop of gossip.
    pub gossip_loss: u64,
    /// How often a message comes twice.
    pub duplicates: u64,
    /// Whether messages overtake each other on a connection too.
    pub reorders: bool,
    /// Bytes that a directed link carries in a millisecond.
    pub bytes_per_milli: u64,
    /// Bytes that wait on a directed link at most; what is sent beyond that is lost.
    pub queue_bytes: u64,
}

/// How exact and how fast machines and disks are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// How long a piece of disk work takes, up to twice as long, bytes not counted.
    pub disk: Span,
    /// Bytes that a disk reads or writes in a millisecond.
    pub disk_bytes_per_milli: u64,
    /// Bytes of state that are encoded or decoded in a millisecond.
    pub snapshot_bytes_per_milli: u64,
    /// How long a node works at each input: what comes meanwhile waits.
    pub step: Span,
    /// Wake-ups come late by up to so much.
    pub late: Span,
    /// One step in so many is followed by a wake-up that nobody asked for; 0: none.
    pub spurious_one_in: u64,
    /// Monotonic clocks run faster than the world by up to so many millionths.
    pub drift: u64,
    /// How long a dial takes at most.
    pub dial: Span,
    /// How long a broken connection goes unnoticed at most.
    pub notice: Span,
}

/// What one group of clients does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// Counts the commands' uids; each once.
    pub number: u32,
    /// When it begins.
    pub from: Span,
    /// When it ends, if not with the faults.
    pub until: Span,
    /// Commands come in such intervals, up to twice as long.
    pub every: Span,
    /// How many come at once: between one and so many.
    pub burst: u64,
    /// How many there are at most.
    pub commands: u64,
    /// The machines that are asked; any that is up if none is named.
    pub nodes: Vec<u16>,
    /// How many in a hundred carry a name and are tried again.
    pub named: u64,
    /// How many in a hundred are additions, which nothing refuses; the rest are of all kinds.
    pub additions: u64,
    /// How many keys there are.
    pub keys: u32,
    /// The shortest value that is written.
    pub value_bytes_min: u64,
    /// The longest.
    pub value_bytes: u64,
    /// How often nodes see something, say something of themselves or send a signal; never if 0.
    pub notices_every: Span,
}

/// What is left of what the dice would do: how shrinking takes away commands and losses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Only {
    /// Only these commands exist, by uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<BTreeSet<u64>>,
    /// Of the messages that the weather would lose, only these are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<BTreeSet<Sent>>,
}

/// One message on one directed link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sent {
    /// The sender.
    pub from: u16,
    /// The receiver.
    pub to: u16,
    /// How many were sent that way before.
    pub n: u64,
}

fn newest_schema() -> u32 {
    crate::kv::NEWEST_SCHEMA
}

/// One microsecond of world time, which is counted in nanoseconds.
pub const MICROS: u64 = 1_000;
/// One millisecond of world time.
pub const MILLIS: u64 = 1_000 * MICROS;
/// One second of world time.
pub const SECONDS: u64 = 1_000 * MILLIS;

/// The identity of the machine of this number. Identities sort as numbers do.
pub const fn node_id(number: u16) -> NodeId {
    let mut bytes = [0; 32];
    [bytes[0], bytes[1]] = number.to_be_bytes();
    NodeId(bytes)
}

/// The number that an identity stands for.
pub const fn number_of(id: NodeId) -> u16 {
    u16::from_be_bytes([id.0[0], id.0[1]])
}

impl Plan {
    /// A world without faults and without commands: so many nodes that expect each other, on a fast network.
    pub fn calm(seed: u64, nodes: u16) -> Plan {
        Plan {
            seed,
            config: Config { founders: usize::from(nodes), ..Config::default() },
            weather: Weather::default(),
            timing: Timing::default(),
            quiet_from: Span::seconds(5),
            quiet_after_events: u64::MAX,
            events_at_most: u64::MAX,
            on_the_wire: false,
            spare_copies: true,
            moods: false,
            only: Only::default(),
            machines: (1..=nodes).map(MachinePlan::new).collect(),
            loads: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Whether entries that were stored may be nowhere after one of its faults.
    pub fn loses_data(&self) -> bool {
        self.faults.iter().any(|timed| timed.fault.loses_data())
    }

    /// Whether two machines run under one identity.
    pub fn has_twins(&self) -> bool {
        self.machines.iter().any(|machine| machine.twin_of.is_some())
    }
}

impl MachinePlan {
    /// A machine that starts at once.
    pub fn new(number: u16) -> MachinePlan {
        MachinePlan { number, starts: Span::ZERO, schema: crate::kv::NEWEST_SCHEMA, twin_of: None, copies_disk: false }
    }

    /// Under which identity it runs.
    pub fn identity(&self) -> NodeId {
        node_id(self.twin_of.unwrap_or(self.number))
    }
}

impl Default for Weather {
    /// No fault at all, and a short way.
    fn default() -> Self {
        Weather {
            delay: Span(200 * MICROS),
            jitter: Span(300 * MICROS),
            slow: 0,
            loss: 0,
            gossip_loss: 0,
            duplicates: 0,
            reorders: false,
            bytes_per_milli: 100_000,
            queue_bytes: 64 << 20,
        }
    }
}

impl Default for Timing {
    /// Quick and exact.
    fn default() -> Self {
        Timing {
            disk: Span(200 * MICROS),
            disk_bytes_per_milli: 500_000,
            snapshot_bytes_per_milli: 200_000,
            step: Span::ZERO,
            late: Span::ZERO,
            spurious_one_in: 64,
            drift: 0,
            dial: Span::millis(5),
            notice: Span::millis(5),
        }
    }
}

impl Default for Load {
    /// A few commands a second of all kinds, for as long as faults go on.
    fn default() -> Self {
        Load {
            number: 0,
            from: Span::millis(1),
            until: Span(u64::MAX),
            every: Span::millis(100),
            burst: 1,
            commands: 6_000,
            nodes: Vec::new(),
            named: 50,
            additions: 0,
            keys: 12,
            value_bytes_min: 0,
            value_bytes: 40,
            notices_every: Span::millis(200),
        }
    }
}
