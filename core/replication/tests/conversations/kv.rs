//! The application under test: a small map whose events name the commands that they come from.

use std::fmt;

use imbl::OrdMap;
use lockstep_replication::app::{App, Liveness, Observed, Place, Wish};
use lockstep_replication::entry::{Body, Entry};
use lockstep_replication::{Index, NodeId};
use serde::{Deserialize, Serialize};

/// A key-value map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kv;

/// Who asked for something: written into the log, so that the checks can follow each command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct By {
    /// The client's command: the same at each attempt.
    pub(crate) uid: u64,
    /// The node that it was given to at this attempt.
    pub(crate) node: NodeId,
    /// How many commands that node was given before, over all of its starts.
    pub(crate) turn: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) by: By,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum What {
    Set {
        key: u8,
        value: String,
    },
    /// Refused if there is no such key.
    Delete {
        key: u8,
    },
    /// One command, two changes: both are seen or none.
    Move {
        from: u8,
        to: u8,
    },
    Add {
        amount: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The first event of each command.
    Asked(By),
    Set {
        key: u8,
        value: String,
    },
    Deleted {
        key: u8,
    },
    /// How many nodes the leader heard goes into the event, since only the leader knows it.
    Added {
        amount: u64,
        heard: u64,
    },
    Saw {
        node: NodeId,
        seen: Seen,
    },
    Lived {
        node: NodeId,
        alive: Alive,
    },
}

/// What became of a node: the replicated form of [`Liveness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Alive {
    Heard,
    Lost,
    Evicted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) key: u64,
    pub(crate) value: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) map: OrdMap<u8, String>,
    pub(crate) sum: u64,
    /// Where each command stands, and how often it was applied is thereby at most once.
    pub(crate) asked: OrdMap<u64, Index>,
    pub(crate) seen: OrdMap<(NodeId, u64), u64>,
    pub(crate) nodes: OrdMap<NodeId, Alive>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NoSuchKey(pub(crate) u8);

impl fmt::Display for NoSuchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no key {}", self.0)
    }
}

impl App for Kv {
    type State = State;
    type Event = Event;
    type Command = Command;
    type Observation = Seen;
    type Transient = u64;
    type Telemetry = u64;
    type Refusal = NoSuchKey;

    const SCHEMA: u32 = 1;

    fn decide(state: &State, observed: &Observed<Kv>, wish: Wish<Kv>) -> Result<Vec<Event>, NoSuchKey> {
        match wish {
            Wish::Command(command) => {
                let mut events = vec![Event::Asked(command.by)];
                match command.what {
                    What::Set { key, value } => events.push(Event::Set { key, value }),
                    What::Delete { key } => {
                        state.map.get(&key).ok_or(NoSuchKey(key))?;
                        events.push(Event::Deleted { key });
                    }
                    What::Move { from, to } => {
                        let value = state.map.get(&from).ok_or(NoSuchKey(from))?.clone();
                        events.push(Event::Deleted { key: from });
                        events.push(Event::Set { key: to, value });
                    }
                    What::Add { amount } => {
                        events.push(Event::Added { amount, heard: observed.telemetry.len() as u64 });
                    }
                }
                Ok(events)
            }
            Wish::Observation(node, seen) => {
                let news = state.seen.get(&(node, seen.key)) != Some(&seen.value);
                Ok(if news { vec![Event::Saw { node, seen }] } else { Vec::new() })
            }
            Wish::Liveness(node, liveness) => {
                let alive = match liveness {
                    Liveness::Heard => Alive::Heard,
                    Liveness::Lost => Alive::Lost,
                    Liveness::Evicted => Alive::Evicted,
                };
                let news = state.nodes.get(&node) != Some(&alive);
                Ok(if news { vec![Event::Lived { node, alive }] } else { Vec::new() })
            }
        }
    }

    fn apply(state: &mut State, event: &Event, place: Place) {
        match event {
            Event::Asked(by) => {
                state.asked.insert(by.uid, place.index);
            }
            Event::Set { key, value } => {
                state.map.insert(*key, value.clone());
            }
            Event::Deleted { key } => {
                state.map.remove(key);
            }
            Event::Added { amount, heard } => state.sum = state.sum.wrapping_add(amount.wrapping_mul(heard + 1)),
            Event::Saw { node, seen } => {
                state.seen.insert((*node, seen.key), seen.value);
            }
            Event::Lived { node, alive } => {
                state.nodes.insert(*node, *alive);
            }
        }
    }

    fn key(observation: &Seen) -> u64 {
        observation.key
    }
}

/// The client's command that an entry does, if it does one.
pub(crate) fn asked_by(entry: &Entry<Kv>) -> Option<By> {
    let Body::Decided(decided) = &entry.body else { return None };
    decided.events.iter().find_map(|event| if let Event::Asked(by) = event { Some(*by) } else { None })
}
