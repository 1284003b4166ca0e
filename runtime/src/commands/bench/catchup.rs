//! `lockstep bench catchup`: how fast a node with an empty disk joins a cluster with a long past.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::future::try_join_all;
use libp2p::Multiaddr;
use serde_json::Value;

use super::super::children::{self, Node, Plan};
use super::super::client::Client;
use super::super::errors::DidNotHold;
use super::super::node::Signals;
use super::super::output;
use super::load;
use super::report::{Joiner, Leader, Mode, Report};
use crate::announce;
use crate::store::keys;

/// How long a joiner may take: far more than it should, so that a slow one is measured and not given up.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How long nodes that are ready may take to finish and to stand at one index: nothing new is put in meanwhile.
const EQUAL_WITHIN: Duration = Duration::from_secs(10);

/// How often a joiner is asked whether its catch-up is finished.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Measure how fast nodes with empty disks catch up with a cluster of one leader.
///
/// All are processes of this executable on loopback. Commands go in through the leader's public API, each synced.
/// Joiners then start one after another; all of them are stopped, and start once more at the same moment.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep bench catchup                               100 000 entries, three joiners, by snapshot
  lockstep bench catchup --no-snapshot                 by the whole log
  lockstep bench catchup --events 1000000 --json

Exit code 1 where the states differ. The disks are in the system's temporary directory (TMPDIR).")]
pub struct Arguments {
    /// How many commands to put in before anybody joins.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    events: u64,

    /// How many nodes join.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    joiners: u16,

    /// Keep the whole log on the leader, make no snapshots, and fetch none.
    #[arg(long)]
    no_snapshot: bool,

    /// Print one JSON document, and nothing else, on standard output.
    #[arg(long)]
    json: bool,
}

/// What all nodes of the bench share.
struct Setting<'a> {
    root: &'a Path,
    mode: Mode,
    log: &'a str,
}

impl Arguments {
    /// Measures and reports.
    pub async fn run(self, log: &str) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let root = tempfile::Builder::new().prefix("lockstep-bench-").tempdir();
        let root = root.context("no temporary directory can be made")?;
        let mode = if self.no_snapshot { Mode::Log } else { Mode::Snapshot };
        let setting = Setting { root: root.path(), mode, log };
        let report = tokio::select! {
            report = self.measure(&setting) => report,
            // Nodes are killed as they are dropped: nothing of theirs is worth keeping.
            () = signals.next() => Err(anyhow::anyhow!("interrupted: there is no result")),
        };
        root.close().context("the temporary directory cannot be removed")?;
        let report = report?;
        if self.json {
            output::line(&serde_json::to_string(&report)?)?;
        } else {
            report.tell()?;
        }
        if report.equal { Ok(()) } else { Err(DidNotHold.into()) }
    }

    async fn measure(&self, setting: &Setting<'_>) -> anyhow::Result<Report> {
        keys::cluster_or_new(setting.root)?;
        let mut leader = setting.plan("leader", Vec::new()).start()?;
        leader.ready(READY_WITHIN).await?;
        let client = Client::local(leader.api().await?);
        let bar = output::progress(Some(self.events), "commands go in");
        let took = load::load(&client, self.events, &bar).await?;
        bar.finish_and_clear();
        let log_bytes = store_bytes(&leader.data)?;
        let peers = leader.peer_addresses().await?;

        let bar = output::progress(None, "nodes join one after another");
        let (joiners, alone_equal, _) = self.one_after_another(setting, &leader, &peers).await?;
        bar.set_message("nodes join at the same moment");
        let (together, together_equal, state_hash) = self.all_at_once(setting, &leader, &peers).await?;
        bar.finish_and_clear();
        let peak_rss_bytes = leader.peak_memory();
        leader.stop().await;
        Ok(Report {
            entries: self.events,
            mode: setting.mode,
            leader: Leader { acked_per_s: (self.events as f64 / took.as_secs_f64()) as u64, log_bytes, peak_rss_bytes },
            joiners,
            together,
            state_hash,
            equal: alone_equal && together_equal,
        })
    }

    async fn one_after_another(
        &self,
        setting: &Setting<'_>,
        leader: &Node,
        peers: &[Multiaddr],
    ) -> anyhow::Result<(Vec<Joiner>, bool, String)> {
        let mut nodes = Vec::new();
        let mut joiners = Vec::new();
        for n in 1..=self.joiners {
            let mut node = setting.plan(&format!("joiner-{n}"), peers.to_vec()).start()?;
            let ready = node.ready(READY_WITHIN).await?;
            joiners.push(joined(&mut node, ready).await?);
            nodes.push(node);
        }
        let (equal, hash) = equal(leader, &mut nodes).await?;
        children::stop_all(nodes).await;
        Ok((joiners, equal, hash))
    }

    async fn all_at_once(
        &self,
        setting: &Setting<'_>,
        leader: &Node,
        peers: &[Multiaddr],
    ) -> anyhow::Result<(Vec<Joiner>, bool, String)> {
        let mut nodes = Vec::new();
        for n in 1..=self.joiners {
            nodes.push(setting.plan(&format!("together-{n}"), peers.to_vec()).start()?);
        }
        let ready = try_join_all(nodes.iter_mut().map(|node| node.ready(READY_WITHIN))).await?;
        let mut joiners = Vec::new();
        for (node, ready) in nodes.iter_mut().zip(ready) {
            joiners.push(joined(node, ready).await?);
        }
        let (equal, hash) = equal(leader, &mut nodes).await?;
        children::stop_all(nodes).await;
        Ok((joiners, equal, hash))
    }
}

impl Setting<'_> {
    fn plan(&self, name: &str, peers: Vec<Multiaddr>) -> Plan {
        // Said outright, so that what the environment says of it does not change what is measured.
        let settings = match self.mode {
            Mode::Snapshot => vec!["replication.fetch_snapshots=true".to_owned()],
            Mode::Log => {
                vec!["replication.fetch_snapshots=false".to_owned(), "replication.snapshot_every=0".to_owned()]
            }
        };
        Plan {
            name: name.to_owned(),
            data: self.root.join(name),
            cluster_key: self.root.join(keys::CLUSTER_FILE),
            api_port: 0,
            peers,
            settings,
            log: self.log.to_owned(),
        }
    }
}

/// What a joiner that is ready says of how it came there. Ready is a little behind the head: the last entries of its
/// catch-up may still be on their way.
async fn joined(node: &mut Node, ready: Duration) -> anyhow::Result<Joiner> {
    let client = Client::local(node.api().await?);
    let began = Instant::now();
    loop {
        let cluster = client.cluster().await?;
        let finished = cluster["catch_ups"].as_array().is_some_and(|all| !all.is_empty());
        if finished || began.elapsed() > EQUAL_WITHIN {
            return Ok(Joiner::new(&cluster, ready, node.peak_memory()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether all have the leader's state at the leader's index, and that state's hash.
async fn equal(leader: &Node, nodes: &mut [Node]) -> anyhow::Result<(bool, String)> {
    let leader = Client::local(announce::read_api(&leader.data).context("the leader's API is not known any more")?);
    let mut others = Vec::new();
    for node in nodes {
        others.push(Client::local(node.api().await?));
    }
    let began = Instant::now();
    loop {
        let (index, hash) = hashed(&leader, 0).await?;
        let found = try_join_all(others.iter().map(|other| hashed(other, index))).await?;
        // Somebody may have joined the state meanwhile: only states at one index can be compared.
        if found.iter().all(|(at, _)| *at == index) {
            return Ok((found.iter().all(|(_, other)| *other == hash), hash));
        }
        if began.elapsed() > EQUAL_WITHIN {
            let others: Vec<u64> = found.iter().map(|(at, _)| *at).collect();
            bail!("the leader stands at index {index}, the joiners at {others:?}, and they do not come together");
        }
    }
}

/// A node's state: one past its last entry, and its hash, once it stands there or further.
async fn hashed(client: &Client, next: u64) -> anyhow::Result<(u64, String)> {
    let mut url = client.url(["v1", "cluster"]);
    url.query_pairs_mut().append_pair("hash", "true");
    if let Some(index) = next.checked_sub(1) {
        url.query_pairs_mut().append_pair("at_least", &index.to_string());
    }
    let cluster: Value = client.json(client.get(url)).await?;
    let hash = cluster["state_hash"].as_str().context("a node told no state hash")?;
    Ok((cluster["next"].as_u64().context("a node told no index")?, hash.to_owned()))
}

/// What the store takes on the disk: everything in the data directory but the text log.
fn store_bytes(data: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    let mut directories: Vec<PathBuf> = vec![data.to_owned()];
    while let Some(directory) = directories.pop() {
        for file in std::fs::read_dir(&directory).with_context(|| format!("{} cannot be read", directory.display()))? {
            let file = file?;
            let about = file.metadata()?;
            if about.is_dir() {
                directories.push(file.path());
            } else if file.file_name() != "log.txt" {
                bytes += about.len();
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_all_but_the_text_log() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("store.redb"), [0; 100]).unwrap();
        std::fs::write(data.path().join("log.txt"), [0; 50]).unwrap();
        std::fs::create_dir(data.path().join("aside")).unwrap();
        std::fs::write(data.path().join("aside/1"), [0; 7]).unwrap();
        assert_eq!(store_bytes(data.path()).unwrap(), 107);
    }
}
