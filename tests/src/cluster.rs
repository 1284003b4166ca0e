//! Several nodes of one cluster, each linked to each other one by a proxy of its own, so that a test can cut them apart.
//!
//! Nodes are named by numbers from 0. They know each other by their proxies alone: these stay where they are while
//! nodes come and go, and what nodes tell each other of their real addresses leads nowhere (`announce`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;
use crate::node::{self, Node, Plan, Signal};
use crate::proxy::{Proxy, Way};
use crate::wait::until;

/// Where nobody listens: learnt addresses must not lead around the proxies.
const NOWHERE: &str = "announce=/ip4/127.0.0.1/tcp/1";

/// How long things may take that a healthy cluster does in a second, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(20);

/// Nodes of one cluster in one temporary directory.
#[derive(Debug)]
pub struct Cluster {
    plans: Vec<Plan>,
    nodes: BTreeMap<usize, Node>,
    /// By who dials and who is dialled.
    links: BTreeMap<(usize, usize), Proxy>,
    // Last, so that it goes when no process writes into it any more.
    directory: TempDir,
}

impl Cluster {
    /// A cluster of this many nodes, of which the first `founders` found it and the others may join later. None runs yet.
    pub async fn new(founders: usize, nodes: usize) -> Cluster {
        let directory = tempfile::Builder::new().prefix("lockstep-test-").tempdir().expect("a directory can be made");
        let data = |node: usize| directory.path().join(name(node));
        let mut links = BTreeMap::new();
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                let data = data(to);
                links.insert((from, to), Proxy::start(move || node::peer_address(&data)).await);
            }
        }
        let plan = |node: usize| {
            let mut plan = Plan::new(&name(node), directory.path()).set(NOWHERE);
            // Who joins later never founds a cluster of its own.
            let founders = if node < founders { founders } else { nodes };
            plan.settings.push(format!("replication.founders={founders}"));
            plan.peers = links.iter().filter(|((from, _), _)| *from == node).map(|(_, link)| link.address()).collect();
            plan
        };
        let plans = (0..nodes).map(plan).collect();
        Cluster { plans, nodes: BTreeMap::new(), links, directory }
    }

    /// A running cluster of so many founders, all ready.
    pub async fn founded_by(founders: usize) -> Cluster {
        let mut cluster = Cluster::new(founders, founders).await;
        cluster.start_all();
        cluster.all_ready(SOON).await;
        cluster
    }

    /// A setting for all nodes that are started from now on, as `KEY=VALUE`.
    #[must_use]
    pub fn set(mut self, assignment: &str) -> Cluster {
        for plan in &mut self.plans {
            plan.settings.push(assignment.to_owned());
        }
        self
    }

    /// Where the nodes' directories and the key are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A node's data directory.
    pub fn data(&self, node: usize) -> PathBuf {
        self.plans[node].data.clone()
    }

    /// What a node is started with, to be changed before its next start.
    pub fn plan(&mut self, node: usize) -> &mut Plan {
        &mut self.plans[node]
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, node: usize) -> &mut Node {
        assert!(!self.nodes.contains_key(&node), "{} runs already", name(node));
        let started = self.plans[node].start();
        self.nodes.entry(node).or_insert(started)
    }

    /// Starts all nodes that do not run.
    pub fn start_all(&mut self) {
        for node in 0..self.plans.len() {
            if !self.nodes.contains_key(&node) {
                self.start(node);
            }
        }
    }

    /// The numbers of those that run.
    pub fn running(&self) -> Vec<usize> {
        self.nodes.keys().copied().collect()
    }

    /// A node that runs.
    pub fn node(&mut self, node: usize) -> &mut Node {
        self.nodes.get_mut(&node).unwrap_or_else(|| panic!("{} does not run", name(node)))
    }

    /// The API of a node that runs.
    pub async fn api(&mut self, node: usize) -> Api {
        self.node(node).api().await
    }

    /// A node's id, from its API.
    pub async fn id(&mut self, node: usize) -> String {
        let cluster = self.node(node).cluster().await.expect("it answers");
        cluster["me"].as_str().expect("it has an id").to_owned()
    }

    /// Takes a node out: for those who stop it in their own way.
    pub fn take(&mut self, node: usize) -> Node {
        self.nodes.remove(&node).unwrap_or_else(|| panic!("{} does not run", name(node)))
    }

    /// `kill -9` of one node.
    pub async fn kill(&mut self, node: usize) {
        self.take(node).kill().await;
    }

    /// `kill -9` of all nodes at the same moment.
    pub async fn kill_all(&mut self) {
        let nodes = std::mem::take(&mut self.nodes);
        // All signals leave before anybody is waited for.
        nodes.values().for_each(|node| node.signal(Signal::KILL));
        join_all(nodes.into_values().map(Node::kill)).await;
    }

    /// Ctrl-C for all nodes, and waits until they have left.
    pub async fn interrupt_all(&mut self) {
        join_all(std::mem::take(&mut self.nodes).into_values().map(Node::interrupt)).await;
    }

    /// Waits until all that run are ready, of one session, under one leader that runs; which that is.
    pub async fn all_ready(&mut self, within: Duration) -> usize {
        let running = self.running();
        self.agree(&running, within).await
    }

    /// Waits until these are ready, of one session, under one leader among them; which that is.
    ///
    /// # Panics
    /// Not in time, or one ends.
    pub async fn agree(&mut self, nodes: &[usize], within: Duration) -> usize {
        let mut apis = Vec::new();
        for node in nodes {
            apis.push(self.api(*node).await);
        }
        let what = format!("{nodes:?} are ready under one leader among them");
        let found = until(&what, within, async || {
            let views = try_join_all(apis.iter().map(Api::cluster)).await?;
            let agreed = views.iter().all(|view| {
                view["ready"] == true && view["session"].is_object() && view["session"] == views[0]["session"]
            });
            let leader = views.iter().position(|view| view["me"] == view["leader"]).filter(|_| agreed);
            leader.ok_or_else(|| summary(nodes, &views))
        })
        .await;
        nodes[found]
    }

    /// Waits until the log knows that all that run reach each other: the last entries that come by themselves on a start.
    ///
    /// # Panics
    /// Not in time.
    pub async fn linked(&mut self, within: Duration) {
        let running = self.running();
        let api = self.api(running[0]).await;
        until("each node reaches the others", within, async || {
            let links = api.state().await?["links"].take();
            let reached = |links: &Value| links.as_array().map_or(0, Vec::len);
            let all: usize = links.as_object().into_iter().flat_map(|links| links.values()).map(reached).sum();
            if all == running.len() * (running.len() - 1) { Ok(()) } else { Err(links.to_string()) }
        })
        .await;
    }

    /// Waits until all that run stand at one index with one state, and sees that their logs hold the same entries.
    ///
    /// Gives the index and the longest log.
    ///
    /// # Panics
    /// They do not come together in time, or differ.
    pub async fn equal(&mut self, within: Duration) -> (u64, Vec<Value>) {
        let mut apis = Vec::new();
        for node in self.running() {
            apis.push(self.api(node).await);
        }
        let (next, hashes) = until("all stand at one index", within, async || {
            let found = try_join_all(apis.iter().map(Api::hash)).await?;
            let next = found[0].0;
            let hashes: Vec<String> = found.iter().map(|(_, hash)| hash.clone()).collect();
            if found.iter().all(|(at, _)| *at == next) { Ok((next, hashes)) } else { Err(format!("{found:?}")) }
        })
        .await;
        assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), 1, "states differ at index {next}: {hashes:?}");
        let logs = join_all(apis.iter().map(|api| whole_log(api, next))).await;
        let longest = logs.iter().max_by_key(|log| log.len()).cloned().unwrap_or_default();
        for log in &logs {
            // All of them end at the same entry; they may begin at different ones.
            let same = &longest[longest.len() - log.len()..];
            let differs = log.iter().zip(same).find(|(one, other)| one != other);
            assert_eq!(differs, None, "entries differ");
        }
        (next, longest)
    }

    /// Changes the links between two groups, in both directions.
    pub fn between(&self, one: &[usize], other: &[usize], way: Way) {
        for ((from, to), link) in &self.links {
            if one.contains(from) && other.contains(to) || other.contains(from) && one.contains(to) {
                link.set(way);
            }
        }
    }

    /// Changes all links of a node.
    pub fn around(&self, node: usize, way: Way) {
        let others: Vec<usize> = (0..self.plans.len()).filter(|other| *other != node).collect();
        self.between(&[node], &others, way);
    }
}

fn name(node: usize) -> String {
    format!("node-{node}")
}

/// All entries that a node's log keeps up to this index, once they are on its disk: it may have applied them before.
async fn whole_log(api: &Api, next: u64) -> Vec<Value> {
    until("the log reaches as far as the state", SOON, async || {
        let first = api.cluster().await?["log_first"].as_u64().ok_or("no first index")?;
        let mut log = api.events(first).await?;
        log.retain(|entry| entry["index"].as_u64().is_some_and(|index| index < next));
        let end = log.last().map_or(first, |last| last["index"].as_u64().unwrap_or_default() + 1);
        if end == next { Ok(log) } else { Err(format!("it ends at {end}, the state stands at {next}")) }
    })
    .await
}

/// What matters of some nodes' views, for a failure.
fn summary(nodes: &[usize], views: &[Value]) -> String {
    let one = |(node, view): (&usize, &Value)| {
        format!(
            "\n  node-{node}: me {} leader {} session {} next {} of {} ready {} because {} catching up {}",
            view["me"],
            view["leader"],
            view["session"],
            view["next"],
            view["head_next"],
            view["ready"],
            view["not_ready"],
            view["catch_up"]
        )
    };
    nodes.iter().zip(views).map(one).collect()
}
