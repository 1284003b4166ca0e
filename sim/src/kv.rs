//! The application under test: a small map whose events name the commands that they come from.
//!
//! It exists in two versions, so that clusters can be upgraded while they run: the newer one ([`Kv`]) writes an event
//! that the older one ([`OldKv`]) does not know, as soon as every known node reads it.

use std::fmt;

use bytes::Bytes;
use imbl::OrdMap;
use lockstep_replication::NodeId;
use lockstep_replication::app::{App, Liveness, Observed, Place, Wish};
use lockstep_replication::entry::{Body, Entry};
use serde::{Deserialize, Serialize};

/// A key-value map, as a version of this schema knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version<const SCHEMA: u32>;

/// The version that all machines run which are not told otherwise.
pub type Kv = Version<NEWEST_SCHEMA>;

/// The version before.
pub type OldKv = Version<{ NEWEST_SCHEMA - 1 }>;

/// The schema of [`Kv`].
pub const NEWEST_SCHEMA: u32 = 2;

/// Who asked for something: written into the log, so that the checks can follow each command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct By {
    /// The client's command: the same at each attempt.
    pub uid: u64,
    /// The number of the machine that it was given to at this attempt.
    pub node: u16,
    /// How many commands that machine was given before, over all of its starts.
    pub turn: u64,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Who.
    pub by: By,
    /// What.
    pub what: What,
}

/// The kinds of commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// Writes a key.
    Set {
        /// The key.
        key: u32,
        /// Its value.
        value: Bytes,
    },
    /// Removes a key; refused if there is no such key.
    Delete {
        /// The key.
        key: u32,
    },
    /// One command, two changes: both are seen or none. Refused if there is nothing to move.
    Move {
        /// Removed.
        from: u32,
        /// Written.
        to: u32,
    },
    /// Adds to the sum. Never refused.
    Add {
        /// So much.
        amount: u64,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The first event of each command.
    Asked(By),
    /// A key was written.
    Set {
        /// The key.
        key: u32,
        /// Its value.
        value: Bytes,
    },
    /// A key was removed.
    Deleted {
        /// The key.
        key: u32,
    },
    /// Something was added. How many nodes the leader heard goes into the event, since only the leader knows it.
    Added {
        /// So much.
        amount: u64,
        /// How many nodes the leader heard.
        heard: u64,
    },
    /// A node saw something.
    Saw {
        /// Which node.
        node: NodeId,
        /// What.
        seen: Seen,
    },
    /// A node came or went.
    Lived {
        /// Which node.
        node: NodeId,
        /// What became of it.
        alive: Alive,
    },
    /// The newer version's `Set`, which also counts. The older version does not know it.
    SetAndCounted {
        /// The key.
        key: u32,
        /// Its value.
        value: Bytes,
    },
}

/// What became of a node: the replicated form of [`Liveness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Alive {
    /// It is heard.
    Heard,
    /// It was silent for too long.
    Lost,
    /// What it held is given up.
    Evicted,
}

/// An observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// A newer one replaces an older one of the same key.
    pub key: u64,
    /// What was seen.
    pub value: u64,
}

/// The replicated state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What was set and not deleted.
    pub map: OrdMap<u32, Bytes>,
    /// What was added.
    pub sum: u64,
    /// Which commands were done, 64 uids a word: no command more than once.
    pub asked: OrdMap<u64, u64>,
    /// How many commands were done twice: always 0 where the laws hold.
    pub twice: u64,
    /// What nodes saw last.
    pub seen: OrdMap<(NodeId, u64), u64>,
    /// What became of each node.
    pub nodes: OrdMap<NodeId, Alive>,
}

impl State {
    /// Whether this command was done.
    pub fn has_done(&self, uid: u64) -> bool {
        self.asked.get(&(uid / 64)).is_some_and(|word| word >> (uid % 64) & 1 == 1)
    }

    /// All commands that were done.
    pub fn done(&self) -> impl Iterator<Item = u64> {
        let uids = |(word, bits): (&u64, &u64)| {
            let (word, bits) = (*word, *bits);
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
        };
        self.asked.iter().flat_map(uids)
    }
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoSuchKey(pub u32);

impl fmt::Display for NoSuchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no key {}", self.0)
    }
}

impl<const SCHEMA: u32> App for Version<SCHEMA> {
    type State = State;
    type Event = Event;
    type Command = Command;
    type Observation = Seen;
    type Transient = u64;
    type Telemetry = u64;
    type Refusal = NoSuchKey;

    const SCHEMA: u32 = SCHEMA;
    // Only the events changed.
    const STATE_SCHEMA: u32 = NEWEST_SCHEMA - 1;

    fn decide(state: &State, observed: &Observed<Self>, wish: Wish<Self>) -> Result<Vec<Event>, NoSuchKey> {
        let set = |key, value| {
            if observed.schema >= NEWEST_SCHEMA && SCHEMA >= NEWEST_SCHEMA {
                Event::SetAndCounted { key, value }
            } else {
                Event::Set { key, value }
            }
        };
        match wish {
            Wish::Command(Command { by, what }) => {
                let asked = Event::Asked(by);
                Ok(match what {
                    What::Set { key, value } => vec![asked, set(key, value)],
                    What::Delete { key } => {
                        state.map.get(&key).ok_or(NoSuchKey(key))?;
                        vec![asked, Event::Deleted { key }]
                    }
                    What::Move { from, to } => {
                        let value = state.map.get(&from).ok_or(NoSuchKey(from))?.clone();
                        vec![asked, Event::Deleted { key: from }, set(to, value)]
                    }
                    What::Add { amount } => {
                        vec![asked, Event::Added { amount, heard: observed.telemetry.len() as u64 }]
                    }
                })
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

    fn apply(state: &mut State, event: &Event, _place: Place) {
        match event {
            Event::Asked(by) => {
                let word = state.asked.entry(by.uid / 64).or_default();
                let bit = 1 << (by.uid % 64);
                state.twice += u64::from(*word & bit != 0);
                *word |= bit;
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
            Event::SetAndCounted { key, value } => {
                // The older version, were it ever given one, would go on with another state: the checks would see it.
                if SCHEMA >= NEWEST_SCHEMA {
                    state.map.insert(*key, value.clone());
                    state.sum = state.sum.wrapping_add(1);
                }
            }
        }
    }

    fn key(observation: &Seen) -> u64 {
        observation.key
    }
}

/// The client's command that an entry does, if it does one. It is the first event of such an entry.
pub fn asked_by<const SCHEMA: u32>(entry: &Entry<Version<SCHEMA>>) -> Option<By> {
    let Body::Decided(decided) = &entry.body else { return None };
    match decided.events.first() {
        Some(Event::Asked(by)) => Some(*by),
        Some(
            Event::Set { .. }
            | Event::Deleted { .. }
            | Event::Added { .. }
            | Event::Saw { .. }
            | Event::Lived { .. }
            | Event::SetAndCounted { .. },
        )
        | None => None,
    }
}
