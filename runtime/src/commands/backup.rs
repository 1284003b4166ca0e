//! `lockstep backup` and `restore`: the cluster's state and log in one file, and a data directory out of such a file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::StreamExt as _;
use lockstep_inference::Inference;

use super::client::Target;
use super::errors::WrongCall;
use super::output;
use crate::store::backup;

/// Write what a running node holds, its newest snapshot and the log after it, into one file.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep backup monday.lockstep
  lockstep backup --replace latest.lockstep")]
pub struct Backup {
    /// The file to write. It appears when it is complete.
    file: PathBuf,

    /// Replace a file that is there.
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    target: Target,
}

/// Make a new node's data directory out of a backup.
///
/// Each entry is checked. The directory may hold keys, but no log yet. Start the node with it afterwards.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep restore monday.lockstep --data restored
  lockstep node --data restored       as a node of its own
  lockstep lead-anyway --yes          where the old cluster is gone: go on from the backup

To join a cluster that still stands, start a node with an empty directory instead: it catches up by itself.")]
pub struct Restore {
    /// The backup.
    file: PathBuf,

    /// The directory to make.
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_DATA")]
    data: PathBuf,

    /// Print one JSON document, and nothing else, on standard output.
    #[arg(long)]
    json: bool,
}

impl Backup {
    /// Fetches and writes.
    pub async fn run(self) -> anyhow::Result<()> {
        let path = &self.file;
        if path.exists() && !self.replace {
            bail!(WrongCall(format!("{} is there already: name another file, or say --replace", path.display())));
        }
        let unwritable = || format!("{} cannot be written", path.display());
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Under another name until it is whole; removed if it does not get there.
        let mut draft = tempfile::NamedTempFile::new_in(directory).with_context(unwritable)?;
        let client = self.target.client()?;
        let response = client.succeed(client.get(client.url(["v1", "backup"]))).await?;
        let bar = output::progress(None, "the backup comes");
        let mut body = response.bytes_stream();
        let mut bytes = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.context("the backup broke off, nothing is kept of it")?;
            bytes += chunk.len() as u64;
            draft.write_all(&chunk).with_context(unwritable)?;
        }
        draft.as_file().sync_all().with_context(unwritable)?;
        bar.finish_and_clear();
        if self.replace {
            draft.persist(path).with_context(unwritable)?;
        } else {
            draft.persist_noclobber(path).with_context(unwritable)?;
        }
        if self.target.json {
            output::json(&serde_json::json!({"file": path, "bytes": bytes}), false)?;
        } else {
            output::line(&format!("{} holds the backup, {}.", path.display(), output::bytes(bytes)))?;
        }
        Ok(())
    }
}

impl Restore {
    /// Checks the backup and makes the directory.
    pub async fn run(self) -> anyhow::Result<()> {
        let Restore { file, data, json } = self;
        std::fs::create_dir_all(&data).with_context(|| format!("{} cannot be made", data.display()))?;
        let bar = output::progress(None, "each entry is checked");
        let (from, into) = (file.clone(), data.clone());
        let restored = tokio::task::spawn_blocking(move || backup::restore::<Inference>(&from, &into)).await??;
        bar.finish_and_clear();
        let index = restored.next.previous();
        if json {
            let document = serde_json::json!({"data": data, "index": index, "log_hash": restored.hash});
            output::json(&document, false)?;
        } else {
            let reach = index.map_or("an empty log".to_owned(), |index| format!("entries up to {index}"));
            output::line(&format!(
                "{0} is a data directory with {reach}. Start a node with it by `lockstep node --data {0}`; where the old \
                 cluster is gone, let it lead by `lockstep lead-anyway --yes`.",
                data.display()
            ))?;
        }
        Ok(())
    }
}
