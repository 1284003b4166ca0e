//! The node: the one entry and exit of the core. To come.

use crate::app::App;
use crate::config::Config;
use crate::id::NodeId;
use crate::io::{Input, Output, Wake};
use crate::replica::Replica;
use crate::restored::Restored;
use crate::rng::Seed;
use crate::time::Now;
use crate::view::View;

/// One node's replica of the log and state.
#[derive(Clone, Debug)]
pub struct Node<A: App> {
    replica: Replica<A>,
}

impl<A: App> Node<A> {
    /// A node as it starts from what its disk held.
    pub fn new(_me: NodeId, _config: Config, _seed: Seed, restored: Restored<A>, _now: Now) -> Self {
        Node { replica: restored.replica }
    }

    /// The only way in and out.
    pub fn step(&mut self, _now: Now, _input: Input<A>, _out: &mut Vec<Output<A>>) {}

    /// When it wants [`Input::Wake`], and why.
    pub fn next_wake(&self) -> Option<Wake> {
        None
    }

    /// The replicated state.
    pub fn replica(&self) -> &Replica<A> {
        &self.replica
    }

    /// Facts for checks, metrics and the API.
    pub fn view(&self, _now: Now) -> View {
        unreachable!("to come")
    }
}
