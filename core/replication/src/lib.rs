//! Lockstep's replicated log and state: sans-IO, generic over the application.

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
pub mod probes;
pub mod replica;
pub mod restored;
pub mod rng;
pub mod snapshot;
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
