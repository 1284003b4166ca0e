//! One node's machine: the process that may die, the disk that outlives it, its clocks, and what waits for it.

use std::collections::{BTreeSet, VecDeque};

use lockstep_replication::{Boot, Index, Moment, NodeId, Ticket};

use super::Event;
use super::clock::Clock;
use super::disk::Disk;
use super::node::AnyNode;

/// A machine in the world.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its number in the plan.
    pub number: u16,
    /// Its identity: that of its number, if it is no twin.
    pub id: NodeId,
    /// Its disk.
    pub disk: Disk,
    /// Its clocks.
    pub clock: Clock,
    /// Its process; none while it is down.
    pub process: Option<Box<Process>>,
    /// The schema that its program has from the next start on.
    pub schema: u32,
    /// Whether it says that it needs a newer program: it gets one when faults stop.
    pub needs_upgrade: bool,
    /// Counts the processes, so that what was meant for an older one is dropped.
    pub life: u32,
    /// Whether it never starts again.
    pub gone: bool,
    /// How many commands it was given.
    pub turns: u64,
    /// How many steps its nodes made.
    pub steps: u64,
    /// Whether it lost what it had stored, and how far that went: until it has that much again and is whole.
    pub owes: Option<Index>,
    pub(super) pace: Pace,
    pub(super) device: Device,
    /// What waits until the machine goes on.
    pub(super) inbox: VecDeque<Event>,
}

/// When a machine works.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// It does nothing before this time.
    pub(super) free_at: u64,
    /// Until when it is slow.
    pub(super) slow_until: u64,
    /// How long each input takes it while it is slow.
    pub(super) slow_each: u64,
    /// Whether an event is on its way that empties the inbox.
    pub(super) wakes: bool,
}

/// How a machine's disk behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Device {
    /// How often work was asked of it.
    pub(super) asked: u64,
    /// How long each piece of work takes, up to twice as long.
    pub(super) each: u64,
    /// Counts the faults that made it slow, so that only the last one's end counts.
    pub(super) slowed: u64,
    /// When the last write that was asked for will be done.
    pub(super) busy_until: u64,
    pub(super) stalled_until: u64,
    pub(super) full_until: u64,
    pub(super) write_fails: bool,
    pub(super) read_fails: bool,
}

/// What dies with a crash.
#[derive(Clone, Debug)]
pub struct Process {
    /// The node.
    pub node: AnyNode,
    /// This start.
    pub boot: Boot,
    /// The clients that wait.
    pub tickets: BTreeSet<Ticket>,
    /// Whether an operator asked it to leave, and for how long it stays down then.
    pub leaving: Option<u64>,
    /// The connections it was told of, by machine; 0: none.
    pub(super) peers: Vec<u64>,
    /// The wake-up that the node wants.
    pub(super) wants: Option<Moment>,
    /// When that is, in the world's time.
    pub(super) wants_at: u64,
    /// For when the newest wake-up was planned that is under way.
    pub(super) wakes_at: u64,
    /// Counts planned wake-ups, so that older ones are dropped.
    pub(super) wakes: u64,
}

impl Machine {
    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Its node, if it is up.
    pub fn node(&self) -> Option<&AnyNode> {
        self.process.as_ref().map(|process| &process.node)
    }
}
