//! What can go wrong, as data.

use lockstep_replication::NodeId;

/// One fault. Times are nanoseconds of world time; what a fault breaks, it also mends.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The process dies and starts again from its disk.
    Crash { node: NodeId, down: u64 },
    /// The process stands still and then goes on, as a stalled or sleeping machine does.
    Pause { node: NodeId, lasts: u64 },
    /// These nodes do not reach the others, nor the others them. Connections are noticed as broken, or just silent.
    Partition { side: Vec<NodeId>, lasts: u64, noticed: bool },
    /// One node does not reach another, which does reach it.
    OneWay { from: NodeId, to: NodeId, lasts: u64, noticed: bool },
    /// A connection breaks and is made again.
    Cut { a: NodeId, b: NodeId },
    /// The wall clock jumps.
    WallStep { node: NodeId, millis: i64 },
    /// The disk takes so long for everything asked of it from now on.
    SlowDisk { node: NodeId, each: u64, lasts: u64 },
    /// The next write fails.
    FailingDisk { node: NodeId },
    /// The next reading, encoding or decoding fails.
    FailingRead { node: NodeId },
    /// The process dies, and its synced last entries are gone when it starts again.
    LostTail { node: NodeId, entries: u64, down: u64 },
    /// The process dies and starts again with an empty disk.
    LostDisk { node: NodeId, down: u64 },
    /// The operator stops the node in order, and starts it again.
    Leave { node: NodeId, down: u64 },
    /// The operator asks the node to hand over.
    HandOver { node: NodeId },
    /// The node says that it will be busy.
    Busy { node: NodeId, lasts: u64 },
}

impl Fault {
    /// Whether entries that were stored may be nowhere after it.
    pub(crate) fn loses_data(&self) -> bool {
        match self {
            Fault::LostTail { .. } | Fault::LostDisk { .. } => true,
            Fault::Crash { .. }
            | Fault::Pause { .. }
            | Fault::Partition { .. }
            | Fault::OneWay { .. }
            | Fault::Cut { .. }
            | Fault::WallStep { .. }
            | Fault::SlowDisk { .. }
            | Fault::FailingDisk { .. }
            | Fault::FailingRead { .. }
            | Fault::Leave { .. }
            | Fault::HandOver { .. }
            | Fault::Busy { .. } => false,
        }
    }
}
