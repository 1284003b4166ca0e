//! The `lockstep` program: one real node, a cluster on this machine, and the questions one asks of them.

pub mod announce;
pub mod api;
pub mod commands;
pub mod config;
pub mod driver;
pub mod handle;
pub mod logging;
pub mod network;
pub mod runners;
pub mod store;
pub mod work;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main()
}
