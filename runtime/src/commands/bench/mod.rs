//! `lockstep bench`: measurements with real node processes on loopback.

pub mod catchup;
pub mod load;
pub mod report;

use clap::{Args, Subcommand};

/// Measure real node processes on this machine.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    Catchup(catchup::Arguments),
}

impl Arguments {
    /// Measures and reports.
    pub async fn run(self, log: &str) -> anyhow::Result<()> {
        match self.bench {
            Bench::Catchup(arguments) => arguments.run(log).await,
        }
    }
}
