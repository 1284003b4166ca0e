//! The application: what is replicated. The one type parameter of the whole core.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};

use serde::{Serialize, de::DeserializeOwned};

use crate::id::{Index, NodeId};
use crate::time::Wall;

/// What an application's data must be able to do: be sent, stored, compared and shown.
pub trait Data: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<T: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static> Data for T {}

/// An application to replicate. Implement it on an empty type.
///
/// Nothing in it may depend on a clock, a hash order, randomness, floating-point library functions or the machine: the
/// same arguments give the same answer on every node, byte for byte.
pub trait App: Clone + Debug + PartialEq + Eq + Send + Sync + 'static {
    /// The replicated state. `clone` should be O(1) (persistent maps): it is how a snapshot is captured. Its serialised
    /// form must be canonical (ordered maps).
    type State: Data + Default;
    /// A durable event, in the past tense.
    type Event: Data;
    /// What a client asks for, in the imperative.
    type Command: Data;
    /// Something a node saw, to be ordered if the leader finds it new. A newer one with the same key replaces the older.
    type Observation: Data;
    /// A signal of one request: never ordered, kept or replayed.
    type Transient: Data;
    /// What a node says of itself with each beat: kept by every node in memory, for the leader's decisions.
    type Telemetry: Data + Default;
    /// Why a wish was not granted, as a sentence for its client.
    type Refusal: Data + Display;

    /// The version of `State` and `Event`. Raise it with each change; older stored forms must still be read.
    const SCHEMA: u32;

    /// The first version whose programs read the serialised form that `State` has now: raise it to `SCHEMA` when that form
    /// changes. While nodes are upgraded one by one, those that are not yet can use snapshots only from this version on.
    const STATE_SCHEMA: u32 = Self::SCHEMA;

    /// Turns a wish into events, or refuses it. Runs on the leader alone. No events means: granted, nothing to do.
    fn decide(
        state: &Self::State,
        observed: &Observed<Self>,
        wish: Wish<Self>,
    ) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// Changes the state. Runs on every node; cannot fail and looks at nothing outside.
    fn apply(state: &mut Self::State, event: &Self::Event, place: Place);

    /// What should be ordered when the neighbours that this node reaches have changed; nothing by default.
    fn links(_me: NodeId, _reached: &BTreeSet<NodeId>) -> Option<Self::Observation> {
        None
    }

    /// Under which name an observation replaces an older one that is still waiting.
    fn key(observation: &Self::Observation) -> u64;
}

/// Where an event stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The entry's index.
    pub index: Index,
    /// When the leader ordered it; never earlier than the entry before.
    pub stamp: Wall,
}

/// What the leader is asked to decide.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish<A: App> {
    /// A client's command.
    Command(A::Command),
    /// A node's observation.
    Observation(NodeId, A::Observation),
    /// What the leader's own liveness says of a node.
    Liveness(NodeId, Liveness),
}

/// What became of a node, as the leader hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It is heard: for the first time, or again.
    Heard,
    /// It was silent for too long, or its connections broke: no new work goes there.
    Lost,
    /// It has been lost for longer than the grace: what it held is given up.
    Evicted,
}

/// A node's volatile knowledge, beside the state: the leader's is what it decides by.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed<A: App> {
    /// What each node that is heard said last of itself.
    pub telemetry: BTreeMap<NodeId, A::Telemetry>,
    /// The newest schema that every known node reads: events of later ones must not be written.
    pub schema: u32,
    /// The leader's wall clock, as of its newest decision.
    pub wall: Wall,
}
