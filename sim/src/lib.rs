//! The seeded simulator: whole clusters of real nodes in a world of plain data, every law checked at every step.
//!
//! A [`Plan`] says everything about a run; [`run::run`] plays it. Nothing that decides is reimplemented here: the nodes are
//! those of `lockstep-replication`, the world around them (network, disks, clocks, clients) is simulated.

#![allow(rustdoc::private_intra_doc_links, reason = "the documentation is built with private items")]

pub mod bench;
pub mod checks;
pub mod dice;
mod draw;
pub mod faults;
pub mod inference;
pub mod kv;
pub mod mutants;
pub mod plan;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod sweep;
pub mod trace;
pub mod world;

pub use plan::Plan;
