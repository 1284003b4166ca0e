//! A node of either version of the application. Inputs and outputs are those of the newer one: for the older version they
//! are translated, by way of their serialised form, which both have in common.

use lockstep_replication::io::{Work, Worked};
use lockstep_replication::lineage::Lineage;
use lockstep_replication::replica::Founded;
use lockstep_replication::{
    Boot, Config, Hash, Index, Input, Moment, Node, NodeId, Now, Outcome, Output, Replica, Restored, Role, Seed, View,
    Wake,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::Disk;
use crate::kv::{Kv, NEWEST_SCHEMA, OldKv, State};

/// A node, whatever version it runs.
#[derive(Clone, Debug)]
pub enum AnyNode {
    /// Of the newer version.
    New(Box<Node<Kv>>),
    /// Of the older one.
    Old(Box<OldNode>),
}

/// A node of the older version.
#[derive(Clone, Debug)]
pub struct OldNode {
    node: Node<OldKv>,
    boot: Boot,
    /// Memory that is used again at each step.
    out: Vec<Output<OldKv>>,
}

/// What both versions answer alike.
macro_rules! either {
    ($this:expr, $node:ident => $answer:expr) => {
        match $this {
            AnyNode::New($node) => $answer,
            AnyNode::Old(old) => {
                let $node = &old.node;
                $answer
            }
        }
    };
}

impl AnyNode {
    /// A node as it starts from what its disk holds.
    pub fn start(
        me: NodeId,
        config: Config,
        seed: Seed,
        disk: &Disk,
        boot: Boot,
        schema: u32,
        now: Now,
    ) -> Result<AnyNode, String> {
        Ok(if schema >= NEWEST_SCHEMA {
            AnyNode::New(Box::new(Node::new(me, config, seed, disk.restore(boot)?, now)))
        } else {
            let node = Node::new(me, config, seed, disk.restore(boot)?, now);
            AnyNode::Old(Box::new(OldNode { node, boot, out: Vec::new() }))
        })
    }

    /// One step.
    pub fn step(&mut self, now: Now, input: Input<Kv>, out: &mut Vec<Output<Kv>>) {
        match self {
            AnyNode::New(node) => node.step(now, input, out),
            AnyNode::Old(old) => {
                old.node.step(now, input_to_old(input, old.boot), &mut old.out);
                out.extend(old.out.drain(..).map(output_from_old));
            }
        }
    }

    /// When it wants to be woken.
    pub fn next_wake(&self) -> Option<Wake> {
        either!(self, node => node.next_wake())
    }

    /// Facts about it. Costs something: not for every step.
    pub fn view(&self, at: Moment) -> View {
        either!(self, node => node.view(at))
    }

    /// Its part: cheap.
    pub fn role(&self) -> Role {
        either!(self, node => node.role())
    }

    /// The application's state.
    pub fn state(&self) -> &State {
        either!(self, node => node.state())
    }

    /// One past the last entry that it applied.
    pub fn next(&self) -> Index {
        either!(self, node => node.replica().next())
    }

    /// The known nodes.
    pub fn known(&self) -> Vec<NodeId> {
        either!(self, node => node.replica().known().iter().copied().collect())
    }

    /// Where the known nodes changed last.
    pub fn changed(&self) -> Option<Index> {
        either!(self, node => node.replica().changed().map(|(index, _)| index))
    }

    /// How many entries wait for those before them, and how many bytes they have.
    pub fn waits(&self) -> (usize, usize) {
        either!(self, node => node.waits())
    }

    /// The running hash of the log that it applied.
    pub fn hash(&self) -> Hash {
        either!(self, node => node.replica().hash())
    }

    /// The sessions of the log that it applied.
    pub fn lineage(&self) -> &Lineage {
        either!(self, node => node.replica().lineage())
    }

    /// The founding of its log, and how many nodes that log knows.
    pub fn founding(&self) -> Option<Founded> {
        either!(self, node => node.replica().founding())
    }

    /// The digest of its whole replicated state: costs what the state is large.
    pub fn digest(&self) -> Hash {
        either!(self, node => node.replica().digest())
    }

    /// Its whole replicated state, if it runs the newest version.
    pub fn replica(&self) -> Option<&Replica<Kv>> {
        match self {
            AnyNode::New(node) => Some(node.replica()),
            AnyNode::Old(_) => None,
        }
    }
}

/// The same in the other version's words.
pub(super) fn translated<From: Serialize, To: DeserializeOwned>(from: &From) -> To {
    let bytes = postcard::to_stdvec(from).expect("application data serialises into memory");
    postcard::from_bytes(&bytes).expect("both versions write the same form")
}

fn input_to_old(input: Input<Kv>, boot: Boot) -> Input<OldKv> {
    match input {
        Input::Wake => Input::Wake,
        Input::Connected(peer) => Input::Connected(peer),
        Input::Disconnected(peer) => Input::Disconnected(peer),
        Input::Message { from, message } => Input::Message { from, message: translated(&message) },
        Input::Command { ticket, id, command } => Input::Command { ticket, id, command },
        Input::Observe(seen) => Input::Observe(seen),
        Input::Telemetry(telemetry) => Input::Telemetry(telemetry),
        Input::Transient { to, transient } => Input::Transient { to, transient },
        Input::Worked { id, result } => Input::Worked { id, result: result.map(|worked| worked_to_old(worked, boot)) },
        Input::Busy(span) => Input::Busy(span),
        Input::Operator(operator) => Input::Operator(operator),
    }
}

fn worked_to_old(worked: Worked<Kv>, boot: Boot) -> Worked<OldKv> {
    match worked {
        Worked::Stored => Worked::Stored,
        Worked::Read { first, records } => Worked::Read { first, records },
        Worked::Rewound(restored, name) => {
            let mut old = Restored::<OldKv>::new(boot, restored.kept, translated(&restored.replica));
            (old.log_first, old.snapshots) = (restored.log_first, restored.snapshots);
            Worked::Rewound(Box::new(old), name)
        }
        Worked::Encoded(snapshot) => Worked::Encoded(snapshot),
        Worked::Decoded(replica) => Worked::Decoded(Box::new(translated(&*replica))),
    }
}

fn output_from_old(output: Output<OldKv>) -> Output<Kv> {
    match output {
        Output::Send { to, message } => Output::Send { to, message: translated(&message) },
        Output::Broadcast(message) => Output::Broadcast(translated(&message)),
        Output::Work { id, work } => Output::Work { id, work: work_from_old(work) },
        Output::Applied(entry) => Output::Applied(translated(&entry)),
        Output::Replaced { next } => Output::Replaced { next },
        Output::Reply { ticket, outcome } => Output::Reply { ticket, outcome: outcome_from_old(outcome) },
        Output::Transient { from, transient } => Output::Transient { from, transient },
        Output::Role(role) => Output::Role(role),
        Output::Refuse { peer, reject } => Output::Refuse { peer, reject },
        Output::Notice(notice) => Output::Notice(notice),
        Output::Left => Output::Left,
        Output::Stop(stop) => Output::Stop(stop),
    }
}

fn work_from_old(work: Work<OldKv>) -> Work<Kv> {
    match work {
        Work::Keep(kept) => Work::Keep(kept),
        Work::Append { first, records } => Work::Append { first, records },
        Work::Rewind { to, winner } => Work::Rewind { to, winner },
        Work::Install(snapshot) => Work::Install(snapshot),
        Work::Save(snapshot) => Work::Save(snapshot),
        Work::Trim { log_below, snapshots_but } => Work::Trim { log_below, snapshots_but },
        Work::Read { from, until, max_bytes } => Work::Read { from, until, max_bytes },
        Work::Encode { capture, chunk_bytes } => Work::Encode { capture: Box::new(translated(&*capture)), chunk_bytes },
        Work::Decode { snapshot, raw_bytes_at_most } => Work::Decode { snapshot, raw_bytes_at_most },
    }
}

fn outcome_from_old(outcome: Outcome<OldKv>) -> Outcome<Kv> {
    match outcome {
        Outcome::Done { index, held, of } => Outcome::Done { index, held, of },
        Outcome::Refused(refused) => Outcome::Refused(translated(&refused)),
        Outcome::NotTaken(why) => Outcome::NotTaken(why),
        Outcome::Unknown(why) => Outcome::Unknown(why),
    }
}
