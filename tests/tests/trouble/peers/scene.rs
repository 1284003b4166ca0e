//! A cluster that is lied to, and what must hold of it afterwards.

use bytes::Bytes;
use libp2p::Multiaddr;
use lockstep_inference::Inference;
use lockstep_inference::event::Event;
use lockstep_inference::id::ModelId;
use lockstep_inference::state::ModelCard;
use lockstep_replication::entry::{Body, Decided, Entry};
use lockstep_replication::{Hash, Index, Wall};
use lockstep_tests::api::{Api, add_card};
use lockstep_tests::cluster::{Cluster, SOON};
use serde_json::Value;

use super::hostile::{Hostile, Lanes};

/// Three nodes with something in their state, and what is needed to lie to them.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) leader: usize,
    pub(super) follower: usize,
    pub(super) key: [u8; 32],
    writes: u32,
}

impl Scene {
    pub(super) async fn set() -> Scene {
        let mut cluster = Cluster::founded_by(3).await;
        let leader = cluster.all_ready(SOON).await;
        cluster.linked(SOON).await;
        let key = std::fs::read_to_string(cluster.directory().join("cluster.key")).expect("the cluster has a key");
        let key: Hash = key.trim().parse().expect("a key is as long as a hash");
        let mut scene = Scene { cluster, leader, follower: (leader + 1) % 3, key: key.0, writes: 0 };
        scene.unharmed().await;
        scene
    }

    pub(super) async fn address(&mut self, node: usize) -> Multiaddr {
        let address = self.cluster.node(node).peer_address().await;
        format!("/ip4/{}/tcp/{}", address.ip(), address.port()).parse().expect("a well-formed address")
    }

    /// A connection under an identity of its own.
    pub(super) async fn strange(&mut self, node: usize) -> Lanes {
        let address = self.address(node).await;
        Hostile::new(self.key).connect(&address).await
    }

    /// Every node takes a write, and all come to one state.
    pub(super) async fn unharmed(&mut self) {
        for node in 0..3 {
            self.writes += 1;
            let name = format!("write-{}", self.writes);
            self.cluster.api(node).await.done(&name, &add_card(&name), SOON).await;
        }
        self.cluster.equal(SOON).await;
    }

    /// Index, state and session of each node, once they stand still.
    pub(super) async fn standing(&mut self) -> Vec<(u64, String, Value)> {
        self.cluster.equal(SOON).await;
        let mut all = Vec::new();
        for node in 0..3 {
            let api = self.cluster.api(node).await;
            let (next, hash) = api.hash().await.unwrap();
            all.push((next, hash, api.cluster().await.unwrap()["session"].clone()));
        }
        all
    }

    pub(super) async fn counter(&mut self, node: usize, name: &str) -> u64 {
        let view = self.cluster.node(node).cluster().await.unwrap();
        view["counters"][name].as_u64().unwrap_or_else(|| panic!("there is no counter {name}"))
    }

    /// By how much a node's peak memory grew. The system counts in parts and sums them up roughly, so that the peak may
    /// even read a little lower than before.
    pub(super) fn memory_grown(&mut self, node: usize, before: u64) -> u64 {
        self.peak_memory(node).saturating_sub(before)
    }

    /// The most memory that a node had so far, in bytes.
    pub(super) fn peak_memory(&mut self, node: usize) -> u64 {
        let pid = self.cluster.node(node).pid().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the system tells");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
    }
}

/// A counter of the metrics page by its full name; 0 if it is not there yet.
pub(super) async fn counted(api: &Api, name: &str) -> u64 {
    let page = api.get("/metrics").await.unwrap();
    let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    page.as_str().and_then(|page| page.lines().find_map(number)).unwrap_or_default()
}

/// A whole, readable entry that the application would take, were it the leader's.
pub(super) fn forged_entry(index: Index) -> Bytes {
    let card = ModelCard {
        name: "forged".into(),
        weights_bytes: 1,
        layers: 1,
        context_tokens: 1,
        custom: true,
        runner: "echo".into(),
        settings: Default::default(),
    };
    let events = vec![Event::CardAdded { model: ModelId::new("forged"), card }];
    let body = Body::Decided(Decided { proposal: None, command: None, events });
    Entry::<Inference> { index, stamp: Wall(u64::MAX / 2), body }.seal(1).bytes
}
