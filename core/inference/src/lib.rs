//! The inference cluster as a replicated application: state, events, commands and pure decisions.
//!
//! [`decide()`] turns wishes into events on the leader alone; [`apply()`] changes the state on every node. Neither looks
//! at anything but its arguments, and no event has a side effect: what must happen outside follows from comparing what
//! is with what the state says should be. Prompts and other inputs never enter commands, events or state, only their
//! hashes; they travel as [`transient`] signals.
//!
//! [`decide()`]: decide::decide
//! [`apply()`]: apply::apply

pub mod apply;
pub mod command;
pub mod decide;
pub mod event;
pub mod gateway;
pub mod id;
pub mod keyed_backoff;
pub mod limits;
pub mod observation;
pub mod placement;
pub mod refusal;
pub mod runner;
pub mod state;
pub mod tasks;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod traces;
pub mod transient;
pub mod worker;
pub mod workload;

use std::collections::BTreeSet;

use lockstep_replication::{App, NodeId, Observed, Place, Wish};

use crate::command::Command;
use crate::event::Event;
use crate::observation::Observation;
use crate::refusal::Refusal;
use crate::state::State;
use crate::telemetry::Telemetry;
use crate::transient::Transient;

/// The application. It has no values: it only names the types and functions that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inference {}

impl App for Inference {
    type State = State;
    type Event = Event;
    type Command = Command;
    type Observation = Observation;
    type Transient = Transient;
    type Telemetry = Telemetry;
    type Refusal = Refusal;

    const SCHEMA: u32 = 1;

    fn decide(state: &State, observed: &Observed<Self>, wish: Wish<Self>) -> Result<Vec<Event>, Refusal> {
        decide::decide(state, &observed.telemetry, wish)
    }

    fn apply(state: &mut State, event: &Event, place: Place) {
        apply::apply(state, event, place);
    }

    fn links(_me: NodeId, reached: &BTreeSet<NodeId>) -> Option<Observation> {
        Some(Observation::Links(reached.clone()))
    }

    fn key(observation: &Observation) -> u64 {
        observation.key()
    }
}
