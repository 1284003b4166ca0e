//! `lockstep up`: a cluster on this machine, until Ctrl-C.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::children::{self, Node, Plan};
use super::client::Client;
use super::errors::DidNotHold;
use super::node::Signals;
use super::{demo, output, status};
use crate::config::API_PORT;
use crate::store::keys;

/// A cluster on loopback is ready within a second; a machine in trouble gets more.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long the cluster is kept back for its model, which takes a tenth of a second to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Run a cluster on this machine until Ctrl-C, with a model that repeats what it is told.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep up                        three nodes, nothing kept
  lockstep up --nodes 5 --data demo  five nodes that go on from demo/ next time
  lockstep up --json                 where they listen, as one JSON document")]
pub struct Arguments {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,

    /// Keep the data here; without, it goes with the cluster.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// A setting of every node (may be given several times).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,

    /// Print one JSON document, and nothing else, on standard output.
    #[arg(long)]
    json: bool,
}

/// What is known of a node once the cluster stands.
struct Listed {
    name: String,
    role: &'static str,
    id: String,
    api: String,
    pid: Option<u32>,
}

impl Arguments {
    /// Runs the cluster.
    pub async fn run(self, log: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut signals = Signals::new()?;
        let (root, temporary) = match &self.data {
            Some(data) => (std::path::absolute(data).context("--data is no path")?, None),
            None => {
                let made = tempfile::Builder::new().prefix("lockstep-").tempdir();
                let made = made.context("no temporary directory can be made: name one by --data")?;
                (made.path().to_owned(), Some(made))
            }
        };
        let mut nodes = Vec::new();
        let result = tokio::select! {
            result = self.cluster(&mut nodes, &root, log, began) => result,
            () = signals.next() => Ok(()),
        };
        children::stop_all(nodes).await;
        if let Some(temporary) = temporary {
            temporary.close().context("the temporary directory cannot be removed")?;
        }
        result
    }

    /// Starts the first node, and the others when it has said where it listens.
    async fn start(&self, root: &Path, log: &str, nodes: &mut Vec<Node>) -> anyhow::Result<()> {
        std::fs::create_dir_all(root).with_context(|| format!("{} cannot be written", root.display()))?;
        keys::cluster_or_new(root)?;
        let mut settings = vec![format!("replication.founders={}", self.nodes)];
        settings.extend_from_slice(&self.assignments);
        let mut peers = Vec::new();
        for n in 0..self.nodes {
            let name = format!("node-{}", n + 1);
            let plan = Plan {
                data: root.join(&name),
                name,
                cluster_key: root.join(keys::CLUSTER_FILE),
                api_port: API_PORT + n,
                peers: peers.clone(),
                settings: settings.clone(),
                log: log.to_owned(),
            };
            nodes.push(plan.start()?);
            if let [first] = &mut nodes[..] {
                peers = first.peer_addresses().await?;
            }
        }
        Ok(())
    }

    /// Starts the nodes, says when all are ready, then reports nodes that end until none is left.
    async fn cluster(&self, nodes: &mut Vec<Node>, root: &Path, log: &str, began: Instant) -> anyhow::Result<()> {
        self.start(root, log, nodes).await?;
        let bar = output::progress(None, "the nodes start");
        let listed = one_cluster(nodes).await;
        bar.finish_and_clear();
        let listed = listed?;
        let took = began.elapsed();
        let client = Client::local(nodes.first_mut().context("there is no node")?.api().await?);
        let answers = demo::place(&client, ANSWERS_WITHIN).await;
        if let Err(error) = &answers {
            eprintln!("The model {} does not answer yet: {error}. `lockstep instances` tells more.", demo::MODEL);
        }
        if self.json {
            output::json(&document(&listed, root, took, answers.is_ok()), false)?;
        } else {
            self.tell(&listed, took)?;
        }
        loop {
            let (node, status) = children::first_to_end(nodes).await;
            eprintln!("{}", node.ended(status));
            if nodes.is_empty() {
                eprintln!("No node is left.");
                return Err(DidNotHold.into());
            }
            eprintln!("The others go on.");
        }
    }

    fn tell(&self, listed: &[Listed], took: Duration) -> anyhow::Result<()> {
        let mut table = output::table(["node", "role", "id", "API", "pid"]);
        for node in listed {
            let pid = node.pid.map_or_else(|| "-".into(), |pid| pid.to_string());
            table.add_row([&node.name, node.role, output::short(&node.id), &node.api, &pid]);
        }
        output::print_table(&table)?;
        let api = listed.first().map(|node| node.api.as_str()).unwrap_or_default();
        let other = listed.last().map(|node| node.api.as_str()).unwrap_or_default();
        output::line(&format!(
            "\n{} nodes are ready, {} after the start. Ctrl-C ends them{}.\n\n\
             Dashboard: {api}\n\
             OpenAI API: {api}/v1, and the same at every other node; the model {} repeats what it is told\n\n\
             Try this:\n\
             \x20 {}\n\
             \x20 lockstep chat {} 'Hello there' --api {other}\n\
             \x20 lockstep instances --api {api}\n\
             \x20 lockstep status --api {other}",
            listed.len(),
            output::duration(took),
            if self.data.is_some() { "; their data stays" } else { "" },
            demo::MODEL,
            demo::curl(api),
            demo::MODEL,
        ))?;
        Ok(())
    }
}

/// Waits until every node is ready and all agree on a leader among them.
async fn one_cluster(nodes: &mut [Node]) -> anyhow::Result<Vec<Listed>> {
    try_join_all(nodes.iter_mut().map(|node| node.ready(READY_WITHIN))).await?;
    loop {
        let mut clusters = Vec::new();
        for node in nodes.iter_mut() {
            let address = node.api().await?;
            clusters.push((format!("http://{address}"), Client::local(address).cluster().await?));
        }
        let leader = &clusters[0].1["leader"];
        let agreed = leader.is_string() && clusters.iter().all(|(_, cluster)| cluster["leader"] == *leader);
        if agreed && clusters.iter().any(|(_, cluster)| cluster["me"] == *leader) {
            return Ok(nodes.iter().zip(&clusters).map(|(node, (api, cluster))| listed(node, api, cluster)).collect());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn listed(node: &Node, api: &str, cluster: &Value) -> Listed {
    Listed {
        name: node.name.clone(),
        role: status::role(cluster),
        id: cluster["me"].as_str().unwrap_or_default().to_owned(),
        api: api.to_owned(),
        pid: node.pid(),
    }
}

fn document(listed: &[Listed], root: &Path, took: Duration, answers: bool) -> Value {
    let nodes: Vec<Value> = listed
        .iter()
        .map(|node| {
            let data = root.join(&node.name);
            json!({"name": node.name, "role": node.role, "id": node.id, "api": node.api, "pid": node.pid, "data": data})
        })
        .collect();
    json!({
        "nodes": nodes,
        "ready_ms": took.as_secs_f64() * 1e3,
        "model": answers.then_some(demo::MODEL),
        "cluster_key_file": root.join(keys::CLUSTER_FILE),
    })
}
