//! `lockstep state`: the replicated state, or a part of it.

use clap::Args;

use super::client::Target;
use super::output;

/// Show the replicated state, or the part of it at a path.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep state                     all of it
  lockstep state nodes               a part
  lockstep state tasks/4f…           one task
  lockstep state --at-least 1200     once this node has applied entry 1200")]
pub struct Arguments {
    /// Keys with `/` between them.
    path: Option<String>,

    /// Wait until the node has applied this index.
    #[arg(long, value_name = "INDEX")]
    at_least: Option<u64>,

    #[command(flatten)]
    target: Target,
}

impl Arguments {
    /// Asks and prints.
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        let keys = self.path.iter().flat_map(|path| path.split('/')).filter(|key| !key.is_empty());
        let mut url = client.url(["v1", "state"].into_iter().chain(keys));
        if let Some(index) = self.at_least {
            url.query_pairs_mut().append_pair("at_least", &index.to_string());
        }
        let state = client.json(client.get(url)).await?;
        Ok(output::json(&state, !self.target.json)?)
    }
}
