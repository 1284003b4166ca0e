//! Support for whole-system tests: real `lockstep` processes on loopback, their API, and links between them that a
//! test can break, hold or slow down.
//!
//! Everything listens on port 0 and lives in a temporary directory, so that tests run side by side. Whatever a test
//! starts ends with it, also when it fails: processes are killed when their [`node::Node`] is dropped.
//!
//! Helpers panic with what they waited for or what went wrong: to a test that is a failure with a reason.

pub mod api;
pub mod binary;
pub mod cluster;
pub mod inference;
pub mod node;
pub mod proxy;
pub mod wait;
