//! Two nodes in memory: a leader with a past, and one with nothing that catches up. No disk, no network, no clock.

use std::collections::VecDeque;

use bytes::Bytes;
use lockstep_inference::Inference;
use lockstep_replication::io::{Kept, Work, Worked};
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{
    Boot, Config, Hash, Index, Input, Moment, Node, NodeId, Now, Output, Replica, Restored, Role, Seed, Wall, WorkId,
    wire,
};

use crate::past::{DISK, LEADER, Past, SESSION};

const JOINER: NodeId = NodeId::example(2);

/// How a joiner gets the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a snapshot that the leader makes for it.
    Snapshot,
    /// By the whole log.
    Log,
}

/// A leader that has just taken office, and a node with an empty disk beside it, not yet connected.
///
/// Messages pass through their wire form, and work is done as it is asked for, so a catch-up costs what it costs the
/// processors of two real nodes, without disk and network. Time goes on only where both nodes wait for it.
#[derive(Clone, Debug)]
pub struct Pair {
    machines: [Machine; 2],
    connected: bool,
    arrivals: VecDeque<(NodeId, Arrival)>,
    now: Moment,
}

#[derive(Clone, Debug)]
struct Machine {
    id: NodeId,
    node: Node<Inference>,
    log_first: Index,
    log: Vec<Bytes>,
}

#[derive(Clone, Debug)]
enum Arrival {
    Message { from: NodeId, bytes: Bytes },
    Input(Box<Input<Inference>>),
}

impl Pair {
    /// A leader with this past, whose joiner will come by this way.
    pub fn new(past: &Past, way: Way) -> Pair {
        let config = match way {
            Way::Snapshot => Config::default(),
            Way::Log => Config { fetch_snapshots: false, snapshot_every: 0, ..Config::default() },
        };
        let kept = Kept {
            disk: DISK,
            clock: SESSION.clock,
            confirmed: Some(SESSION),
            led: 1,
            fresh: false,
            damaged: false,
            lacks: None,
        };
        let mut restored = Restored::new(Boot { starts: 2, nonce: 2 }, kept, Replica::default());
        restored.log_first = Index(0);
        for record in &past.records {
            restored.push(record.clone()).expect("the past is whole");
        }
        let empty = Restored::new(Boot { starts: 1, nonce: 3 }, Kept::default(), Replica::default());
        let log = past.records.iter().map(|record| record.bytes.clone()).collect();
        let machine = |id, restored, log, config: &Config| {
            let node = Node::new(id, config.clone(), Seed::from_number(1), restored, Now::default());
            Machine { id, node, log_first: Index(0), log }
        };
        // The joiner expects another node, so that it does not found a cluster of its own.
        let joins = Config { founders: 2, ..config.clone() };
        let machines = [machine(LEADER, restored, log, &config), machine(JOINER, empty, Vec::new(), &joins)];
        let mut pair = Pair { machines, connected: false, arrivals: VecDeque::new(), now: Moment(0) };
        while !matches!(pair.machines[0].node.view(pair.now).role, Role::Leading(_)) || !pair.arrivals.is_empty() {
            pair.turn();
        }
        pair
    }

    /// Connects the two, and goes on until the joiner has all that the leader had then. Returns how far that was.
    pub fn catch_up(&mut self) -> Index {
        let head = self.machines[0].node.replica().next();
        self.connected = true;
        self.arrive(LEADER, Input::Connected(JOINER));
        self.arrive(JOINER, Input::Connected(LEADER));
        while self.machines[1].node.replica().next() < head {
            self.turn();
        }
        head
    }

    /// Goes on until both stand at the same index; the hashes of their states there.
    pub fn digests(&mut self) -> [Hash; 2] {
        while self.machines[1].node.replica().next() < self.machines[0].node.replica().next() {
            self.turn();
        }
        self.machines.each_ref().map(|machine| machine.node.replica().digest())
    }

    /// How many snapshots the joiner installed.
    pub fn snapshots_installed(&self) -> u64 {
        self.machines[1].node.view(self.now).counters.snapshots_installed
    }

    fn arrive(&mut self, id: NodeId, input: Input<Inference>) {
        self.arrivals.push_back((id, Arrival::Input(Box::new(input))));
    }

    /// The next thing that happens to one of the two.
    fn turn(&mut self) {
        let (id, arrival) = self.arrivals.pop_front().unwrap_or_else(|| {
            let due = |machine: &Machine| machine.node.next_wake().map(|wake| (wake.at, machine.id));
            let (at, id) = self.machines.iter().filter_map(due).min().expect("a node always wants to be woken again");
            self.now = self.now.max(at);
            (id, Arrival::Input(Box::new(Input::Wake)))
        });
        let input = match arrival {
            Arrival::Input(input) => *input,
            Arrival::Message { from, bytes } => {
                Input::Message { from, message: wire::decode(&bytes).expect("a node wrote it") }
            }
        };
        let now = Now { at: self.now, wall: Wall(self.now.0 / 1_000_000) };
        let machine = if id == LEADER { &mut self.machines[0] } else { &mut self.machines[1] };
        let mut outputs = Vec::new();
        machine.node.step(now, input, &mut outputs);
        let other = if id == LEADER { JOINER } else { LEADER };
        for output in outputs {
            match output {
                // Lost where there is no connection, as any message may be.
                Output::Send { message, .. } | Output::Broadcast(message) if self.connected => {
                    let bytes = wire::encode(&message);
                    self.arrivals.push_back((other, Arrival::Message { from: id, bytes }));
                }
                Output::Work { id: work_id, work } => {
                    let input = Input::Worked { id: work_id, result: Ok(machine.perform(work_id, work)) };
                    self.arrivals.push_back((id, Arrival::Input(Box::new(input))));
                }
                Output::Stop(stop) => unreachable!("nothing fails here: {stop}"),
                Output::Send { .. }
                | Output::Broadcast(_)
                | Output::Applied(_)
                | Output::Replaced { .. }
                | Output::Reply { .. }
                | Output::Transient { .. }
                | Output::Role(_)
                | Output::Refuse { .. }
                | Output::Notice(_)
                | Output::Left => {}
            }
        }
    }
}

impl Machine {
    /// Does what a disk and a pool of threads would do.
    fn perform(&mut self, id: WorkId, work: Work<Inference>) -> Worked<Inference> {
        match work {
            Work::Keep(_) | Work::Save(_) => Worked::Stored,
            Work::Append { records, .. } => {
                self.log.extend(records);
                Worked::Stored
            }
            Work::Install(snapshot) => {
                self.log.clear();
                self.log_first = snapshot.manifest.next();
                Worked::Stored
            }
            Work::Trim { log_below, .. } => {
                self.log.drain(..log_below.since(self.log_first) as usize);
                self.log_first = self.log_first.max(log_below);
                Worked::Stored
            }
            Work::Read { from, until, max_bytes } => {
                let (first, end) = (from.since(self.log_first) as usize, until.since(self.log_first) as usize);
                let mut bytes = 0;
                let fits = |record: &&Bytes| {
                    bytes += record.len();
                    bytes <= max_bytes
                };
                let records = self.log[first..end.min(self.log.len())].iter().take_while(fits).cloned().collect();
                Worked::Read { first: from, records }
            }
            Work::Encode { capture, chunk_bytes } => {
                Worked::Encoded(Box::new(Snapshot::encode(&capture, chunk_bytes).expect("a state can be encoded")))
            }
            Work::Decode { snapshot, raw_bytes_at_most } => {
                Worked::Decoded(Box::new(snapshot.decode(raw_bytes_at_most).expect("it was encoded here")))
            }
            Work::Rewind { .. } => unreachable!("there is one branch, yet {id:?} cuts it off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joiner_comes_to_the_leaders_state_by_the_way_it_is_told() {
        let past = Past::ordinary(5000);
        for (way, snapshots) in [(Way::Snapshot, 1), (Way::Log, 0)] {
            let mut pair = Pair::new(&past, way);
            assert_eq!(pair.machines[1].node.replica().next(), Index(0), "it has caught up before it was told to");
            assert!(pair.catch_up() > Index(5000));
            assert_eq!(pair.snapshots_installed(), snapshots, "{way:?}");
            let [leader, joiner] = pair.digests();
            assert_eq!(leader, joiner, "{way:?}");
        }
    }
}
