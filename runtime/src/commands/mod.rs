//! The command line: one file a command, and what they share. Exit codes: 0 it held, 1 it did not, 2 the call was wrong.

pub mod aside;
pub mod backup;
pub mod bench;
pub mod chat;
pub mod children;
pub mod client;
pub mod demo;
pub mod errors;
pub mod events;
pub mod instances;
pub mod key;
pub mod models;
pub mod node;
pub mod operator;
pub mod output;
pub mod place;
pub mod runner;
pub mod server_sent;
pub mod state;
pub mod status;
pub mod submit;
pub mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::logging::{self, LogFormat};

/// Keeps one event-sourced state identical on every node of a cluster.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log on standard error: a level, or levels by module ("info,libp2p=warn").
    #[arg(long, global = true, value_name = "LEVELS")]
    log: Option<String>,

    /// What log lines look like.
    #[arg(long, global = true, value_name = "FORM", value_enum, default_value_t)]
    log_format: LogFormat,
}

const AFTER_HELP: &str = "\
Examples:
  lockstep up                     three nodes on this machine, until Ctrl-C
  lockstep chat                   talk with the model that it places
  lockstep status                 what the node at http://127.0.0.1:7070 knows
  lockstep submit '{\"…\": {…}}'    order a command
  lockstep events --follow        see it applied

Exit codes: 0 it held, 1 it did not, 2 the call was wrong.";

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Arguments),
    Node(node::Arguments),
    Status(status::Arguments),
    State(state::Arguments),
    Events(events::Arguments),
    Submit(submit::Arguments),
    Models(models::Arguments),
    Place(place::Arguments),
    Instances(instances::Arguments),
    Chat(chat::Arguments),
    Aside(aside::Arguments),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Forget(operator::Forget),
    Handover(operator::Handover),
    LeadAnyway(operator::LeadAnyway),
    Key(key::Arguments),
    Bench(bench::Arguments),
    #[command(hide = true)]
    Runner(runner::Arguments),
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lockstep: no threads or timers can be had from the system: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(cli));
    // A read of standard input that nobody waits for any more must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => errors::report(&error),
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { command, log, log_format } = cli;
    if let Command::Node(arguments) = command {
        return arguments.run(log, log_format).await;
    }
    let log = log.or_else(|| std::env::var("RUST_LOG").ok());
    logging::start(log.as_deref().unwrap_or("warn"), log_format).map_err(errors::WrongCall)?;
    // Nodes that a command starts write to files, where more is welcome.
    let nodes_log = log.as_deref().unwrap_or("info");
    match command {
        Command::Node(_) => unreachable!("handled above"),
        Command::Up(arguments) => arguments.run(nodes_log).await,
        Command::Status(arguments) => arguments.run().await,
        Command::State(arguments) => arguments.run().await,
        Command::Events(arguments) => arguments.run().await,
        Command::Submit(arguments) => arguments.run().await,
        Command::Models(arguments) => arguments.run().await,
        Command::Place(arguments) => arguments.run().await,
        Command::Instances(arguments) => arguments.run().await,
        Command::Chat(arguments) => arguments.run().await,
        Command::Aside(arguments) => arguments.run().await,
        Command::Backup(arguments) => arguments.run().await,
        Command::Restore(arguments) => arguments.run().await,
        Command::Forget(arguments) => arguments.run().await,
        Command::Handover(arguments) => arguments.run().await,
        Command::LeadAnyway(arguments) => arguments.run().await,
        Command::Key(arguments) => arguments.run().await,
        Command::Bench(arguments) => arguments.run(nodes_log).await,
        Command::Runner(arguments) => arguments.run().await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_in_its_help() {
        for command in Cli::command().get_subcommands() {
            let without = command.get_after_help().is_none() && command.get_subcommands().next().is_none();
            assert!(!without, "`lockstep {}` has no examples", command.get_name());
        }
    }
}
