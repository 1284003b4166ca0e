//! One node's machine: the process that may die, the disk that outlives it, and its clocks.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replication::{Boot, Hash, Moment, Node, NodeId, Now, Session, Ticket, Wall};

use super::MILLIS;
use super::disk::Disk;
use super::kv::Kv;

/// A machine in the world.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    /// None while the process is down.
    pub(crate) process: Option<Process>,
    /// Counts the processes, so that what was meant for an older one is dropped.
    pub(crate) life: u64,
    /// Everything waits until then.
    pub(crate) paused_until: u64,
    /// The disk's time for each piece of work.
    pub(crate) disk_each: u64,
    /// When the last write that was asked for will be done.
    pub(crate) disk_until: u64,
    pub(crate) write_fails: bool,
    pub(crate) read_fails: bool,
    /// How many commands this node was given.
    pub(crate) turns: u64,
    /// The newest session that it confirmed, on its disk, over all its lives.
    pub(crate) confirmed: Option<Session>,
}

/// What dies with a crash.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) node: Node<Kv>,
    pub(crate) boot: Boot,
    /// The connections it was told of.
    pub(crate) peers: BTreeMap<NodeId, u64>,
    /// The clients that wait.
    pub(crate) tickets: BTreeSet<Ticket>,
    /// The log that it applied, by its running hash.
    pub(crate) applied: Hash,
    /// The wake-up under way: its number and when.
    pub(crate) wake: (u64, Option<u64>),
    /// Whether an operator asked it to leave.
    pub(crate) leaving: Option<u64>,
}

/// A machine's clocks against the world's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What the monotonic clock said at the world's beginning.
    pub(crate) began: u64,
    /// How much faster than the world's it runs, in millionths.
    pub(crate) drift: u64,
    /// The wall clock at the world's beginning, in milliseconds.
    pub(crate) wall: i64,
}

impl Clock {
    /// Both clocks at a time of the world.
    pub(crate) fn now(&self, time: u64) -> Now {
        let elapsed = time + (u128::from(time) * u128::from(self.drift) / 1_000_000) as u64;
        let wall = self.wall + (time / MILLIS) as i64;
        Now { at: Moment(self.began + elapsed), wall: Wall(wall.max(0) as u64) }
    }

    /// The first time of the world at which the monotonic clock shows at least this.
    pub(crate) fn when(&self, at: Moment) -> u64 {
        let elapsed = u128::from(at.0.saturating_sub(self.began));
        let mut time = (elapsed * 1_000_000 / (1_000_000 + u128::from(self.drift))) as u64;
        while self.now(time).at < at {
            time += 1;
        }
        time
    }
}

impl Machine {
    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }
}
