//! `lockstep key`: the cluster's key in a data directory, which its nodes share by hand.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::errors::WrongCall;
use super::output;
use crate::config::NodeConfig;
use crate::store::keys::{self, ClusterKey};

/// Show, make or set the cluster's key: only nodes that have it can connect to each other.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep key                     show the key of this machine's node
  lockstep key new --data a        make one, before the first start
  lockstep key --data a | lockstep key set - --data b
                                   let two nodes belong to one cluster

The key is a secret: whoever has it can join the cluster.")]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,

    /// The data directory.
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_DATA", global = true)]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print it.
    Show,
    /// Make one where there is none yet, and print it.
    New,
    /// Store one that another node has.
    Set {
        /// Its 64 hexadecimal digits; `-` reads them from standard input, where other users of the machine cannot see them.
        key: String,
    },
}

impl Arguments {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<()> {
        let data = self.data.unwrap_or_else(|| NodeConfig::default().data);
        match self.action.unwrap_or(Action::Show) {
            Action::Show => match keys::cluster(&data)? {
                Some(key) => output::line(&key.reveal())?,
                None => bail!(
                    "{} holds no key: a node makes one at its first start, `lockstep key new` before it",
                    data.display()
                ),
            },
            Action::New => {
                make(&data)?;
                if keys::cluster(&data)?.is_some() {
                    bail!("{} holds a key already: `lockstep key show` prints it", data.display());
                }
                output::line(&keys::cluster_or_new(&data)?.reveal())?;
            }
            Action::Set { key } => {
                let key = if key == "-" { from_standard_input()? } else { key };
                let key: ClusterKey =
                    key.trim().parse().map_err(|error: keys::NotAKey| WrongCall(error.to_string()))?;
                make(&data)?;
                keys::store_cluster(&data, key)?;
            }
        }
        Ok(())
    }
}

fn make(data: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(data).with_context(|| format!("{} cannot be made", data.display()))
}

fn from_standard_input() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(1024).read_to_string(&mut text).context("standard input cannot be read")?;
    Ok(text)
}
