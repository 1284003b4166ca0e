//! Lockstep's replicated log and state: one event-sourced state, identical on every node of a cluster.
//!
//! A sans-IO core, generic over the application ([`App`]). Everything enters by [`Node::step`] and every effect leaves by
//! its sink; time comes in as numbers, randomness from a seed. A driver (the real runtime, a simulator, a test) performs
//! the [`Output`]s and feeds what came of them back as [`Input`]s:
//!
//! ```text
//! loop {
//!     let input = whichever comes first: a message, a client, finished work, or node.next_wake();
//!     node.step(now, input, &mut out);
//!     for output in out.drain(..) { perform(output) }   // in order; only sends may be lost
//! }
//! ```
//!
//! # The laws
//!
//! | | law | checked in |
//! |---|---|---|
//! | L1 | Outputs depend only on seed, config and the sequence of (now, input): byte for byte, on every machine | simulator: runs repeated |
//! | L2 | After `step` nothing is pending inside: every effect is in `out` | simulator: a second wake-up at the same time is silent |
//! | L3 | After `step(now)`, `next_wake()` is later than `now` | simulator: every step |
//! | L4 | A tick before `next_wake` changes nothing; lateness only delays, or makes a node more cautious | simulator: early and late wake-ups |
//! | L5 | A send may be lost, doubled, reordered or delayed; every other output is performed in order, or reported failed by its id | simulator: the network and disk do just that |
//! | L6 | An index of a lineage has one content everywhere, applied once, in order; states at one index are equal | simulator: every entry applied |
//! | L7 | Sessions are ordered; a node's session never goes back; one is never reused, not even after a lost disk | simulator: every step |
//! | L8 | Stamps never decrease along a lineage | simulator: every entry applied |
//! | L9 | Every client command gets one reply: done at index i, held by k of n; refused, why; or unknown, why | simulator: at the end |
//! | L10 | Every buffer, transfer and queue has a limit in [`Config`]; at the limit it drops or refuses, and counts | beside each part |
//! | L11 | A proposal enters the log at most once, and exactly once if its node stays; one node's proposals keep order | simulator: every entry applied |
//! | L12 | Within one founding, what was done by majority is in every later backed session. What was done while held by fewer is there too if one that holds it takes part in the next election and no higher position does; else it lies whole in a set-aside file that is announced | simulator: at the end |
//! | L13 | When faults stop, all connected nodes reach one session, one index, one state within 10 s plus transfer time | simulator: at the end |
//! | L14 | Nothing from the network, the disk or a client makes a node panic or grow without bound | beside each part, and in the runtime's tests |

#[cfg(feature = "simulation")]
#[macro_use]
pub mod chaos;
#[cfg(not(feature = "simulation"))]
#[macro_use]
#[path = "chaos/off.rs"]
mod chaos;

pub mod app;
pub mod config;
pub mod entry;
pub mod id;
pub mod io;
pub mod lineage;
pub mod liveness;
pub mod message;
pub mod node;
pub mod order;
mod outbox;
mod peers;
pub mod probes;
pub mod replica;
pub mod restored;
pub mod rng;
pub mod snapshot;
mod tail;
mod tally;
pub mod time;
pub mod view;
pub mod wire;

pub use app::{App, Liveness, Observed, Place, Wish};
pub use config::Config;
pub use id::{Boot, CommandId, Hash, Index, NodeId, Session, Ticket, WorkId};
pub use io::{Input, Operator, Outcome, Output, Role, Wake};
pub use node::Node;
pub use replica::Replica;
pub use restored::Restored;
pub use rng::Seed;
pub use time::{Moment, Now, Span, Wall};
pub use view::View;
