//! Whole clusters in memory: conversations between a few nodes, and seeded chaos among up to five.
//!
//! Nothing in the harness decides for the core: it carries messages, does disk work late, and checks the laws.

mod chaos;
mod conversations;
mod harness;
