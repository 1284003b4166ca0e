//! `lockstep runner`: what a node starts as the processes of its runners. Not for people.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::anyhow;
use clap::{Args, Subcommand};

use crate::runners::builtin::echo::Echo;
use crate::runners::builtin::openai::OpenAi;
use crate::runners::builtin::serve;
use crate::runners::minder;

/// Run a model for the node that starts this, by the protocol of runners on the standard streams.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    program: Program,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// Say what it is told, a word at a time.
    Echo,
    /// Ask a server that speaks OpenAI's API.
    Openai,
    /// Run another program, and end it with its node.
    Mind {
        /// The node's process.
        #[arg(long, value_name = "PID")]
        node: u32,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

impl Arguments {
    /// Runs it until it is told to end, or its node is gone.
    pub async fn run(self) -> anyhow::Result<()> {
        let (input, output) = (stream(&std::io::stdin())?, stream(&std::io::stdout())?);
        let served = match self.program {
            Program::Echo => serve::<Echo>(input, output).await,
            Program::Openai => serve::<OpenAi>(input, output).await,
            Program::Mind { node, command } => {
                let (program, arguments) = command.split_first().ok_or_else(|| anyhow!("no program is named"))?;
                return minder::mind(node, program, arguments);
            }
        };
        served.map_err(|reason| anyhow!(reason))
    }
}

/// A standard stream, to be used without a buffer that others share.
fn stream(standard: &impl AsFd) -> std::io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(File::from(standard.as_fd().try_clone_to_owned()?)))
}
