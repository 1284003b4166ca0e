//! What the API shows of this process beside the node.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::api::Surroundings;
use crate::store::{LogReader, aside, backup};

/// The data directory, the log and the network's metrics.
pub(super) struct Process {
    pub(super) data: PathBuf,
    pub(super) reader: LogReader,
    pub(super) network: Arc<Registry>,
}

impl Surroundings for Process {
    fn set_aside(&self) -> Value {
        match aside::list(&self.data) {
            Ok(files) => files
                .iter()
                .map(|file| {
                    json!({
                        "name": file.name, "when": file.when, "fork": file.fork, "entries": file.entries,
                        "winner": file.winner, "bytes": file.bytes,
                    })
                })
                .collect(),
            Err(error) => json!([{ "error": error.to_string() }]),
        }
    }

    fn network_metrics(&self, out: &mut String) -> fmt::Result {
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.network)?;
        out.push_str(&text);
        Ok(())
    }

    fn backup(&self, out: &mut dyn io::Write) -> io::Result<()> {
        backup::backup(&self.reader, out).map(drop).map_err(io::Error::other)
    }
}
