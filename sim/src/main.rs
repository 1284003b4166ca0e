//! `cargo sim`: scenarios and seeds, run, swept and made small.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Whole clusters of real nodes in a simulated world, every law checked at every step.
///
/// The same seed gives the same run, event by event, on every machine.
#[derive(Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(commands::run::Run),
    Sweep(commands::sweep::Sweep),
    Shrink(commands::shrink::Shrink),
    Mutants(commands::mutants::Mutants),
    Bench(commands::bench::Bench),
}

/// How a command ended, if it could be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It held.
    Held,
    /// It did not.
    Failed,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(run) => run.execute(),
        Command::Sweep(sweep) => sweep.execute(),
        Command::Shrink(shrink) => shrink.execute(),
        Command::Mutants(mutants) => mutants.execute(),
        Command::Bench(bench) => bench.execute(),
    };
    match done {
        Ok(Verdict::Held) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
