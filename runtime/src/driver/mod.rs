//! One real node, put together: store, network, API, and the task that drives the core between them.

mod disk;
mod machine;
mod surroundings;
mod task;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use lockstep_inference::Inference;
use lockstep_replication::{Node, Operator, Restored, Seed, wire};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::announce;
use crate::api::{self, ApiConfig};
use crate::config::NodeConfig;
use crate::handle::NodeHandle;
use crate::network::{self, NetworkConfig, NetworkEvent, NetworkLimits};
use crate::runners::Programs;
use crate::store::{Store, keys};
use crate::work::{self, Signals, WorkHandle};
use disk::Disk;
use surroundings::Process;
pub(crate) use task::Clock;
use task::{Ended, Task};

/// Requests of clients that may wait for the node's task; more wait with their clients.
const REQUESTS: usize = 4096;

/// A node of which so many beats on end stay away is not reached now, whether or not a connection stands.
const BEATS_MISSED: u64 = 3;

/// Runs a node until `shutdown`, or until it cannot go on.
///
/// # Errors
/// The data directory, a port or the configuration cannot be used, or the disk failed: as a sentence that says which.
pub async fn run(config: NodeConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let data = config.data.clone();
    let seed = Seed(libp2p::identity::ed25519::SecretKey::generate().as_ref().try_into().context("no randomness")?);
    let nonce = seed.fork("boot").rng().number();
    let opened = tokio::task::spawn_blocking(move || Store::open::<Inference>(&data, nonce)).await?;
    let (store, restored): (Store, Restored<Inference>) = opened?;
    let data = config.data.as_path();
    announce::withdraw(data).with_context(|| format!("{} cannot be written", data.display()))?;
    let keypair = keys::identity(data)?;
    let cluster_key = match &config.cluster_key_file {
        Some(file) => keys::cluster_from(file)?,
        None => keys::cluster_or_new(data)?,
    };
    let me = network::node_of_keypair(&keypair).context("the identity is no ed25519 key")?;
    tracing::info!(node = %me, data = %data.display(), start = restored.boot.starts, "starting");

    let mut registry = Registry::default();
    let (network, mut events) = network::start(
        NetworkConfig {
            keypair,
            cluster_key: cluster_key.0,
            listen: config.listen.clone(),
            announce: config.announce.clone(),
            peers: config.peers.clone(),
            mdns: config.mdns,
            allow: (!config.allow.is_empty()).then(|| config.allow.clone()),
            topics: wire::TOPICS,
            limits: NetworkLimits::default(),
        },
        &mut registry,
    )?;
    let mut listening = Vec::new();
    let mut early = Vec::new();
    while listening.len() < config.listen.len() {
        match events.next().await.context("the network ended")? {
            NetworkEvent::Listening(address) => listening.push(address),
            other @ (NetworkEvent::Connected(_)
            | NetworkEvent::Disconnected(_)
            | NetworkEvent::Message { .. }
            | NetworkEvent::PeerRejected { .. }) => early.push(other),
        }
    }

    let clock = Clock::start();
    let (finished, results) = mpsc::unbounded_channel();
    let reader = store.reader();
    let disk = Disk::start(store, finished).context("no thread for the disk")?;
    let node = Node::new(me, config.replication.clone(), seed.fork("node"), restored, clock.now());
    let silent_after = config.replication.beat_every.times(BEATS_MISSED);
    let (published, changes) = watch::channel(Arc::new(task::published(&node, clock, silent_after)));
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let handle = NodeHandle::new(requests, changes);

    let (signals, signalled) = Signals::new(&mut registry);
    let (models, desk) = WorkHandle::new();
    let work_shutdown = shutdown.child_token();
    let programs = Programs::new(config.runners.clone()).context("the path of this program is unknown")?;
    let runners = programs.names();
    let around = work::Surroundings {
        node: handle.clone(),
        signals: signalled,
        desk,
        programs,
        data,
        clock,
        seed: seed.fork("work"),
    };
    let (work, farewell) =
        work::start(around, work_shutdown.clone()).context("no thread for the copies of model cards")?;

    let surroundings = Process { data: data.to_owned(), reader: reader.clone(), network: Arc::new(registry) };
    let token = config.api_token_file.as_ref().map(|file| keys::token(file)).transpose()?;
    let (listen, next_free, hosts) = (config.api, config.api_next_free, config.api_hosts.clone());
    let api_config = ApiConfig { listen, next_free, token, hosts };
    let api_shutdown = CancellationToken::new();
    let served = api::serve(api_config, handle.clone(), models, reader, surroundings, api_shutdown.clone()).await?;
    announce::peer(data, &listening).context("the node's address cannot be announced")?;
    announce::api(data, served.address).context("the API's address cannot be announced")?;
    tracing::info!(api = %format!("http://{}", served.address), "ready to be asked");
    let (name, data) = (config.name.clone(), config.data.clone());
    let machine = tokio::spawn(machine::report(handle.clone(), name, data, runners, shutdown.clone()));

    let task = Task {
        node,
        disk,
        network,
        events,
        requests: inbox,
        finished: results,
        published,
        silent_after,
        signals,
        clock,
        waiting: BTreeMap::new(),
        tickets: 0,
        early,
    };
    let leave = tokio::spawn(leave(handle, farewell, shutdown));
    let ended = task.run().await;
    machine.abort();
    leave.abort();
    work_shutdown.cancel();
    api_shutdown.cancel();
    // They report their errors themselves.
    let _ = tokio::join!(work, served.task);
    match ended {
        Ended::Left => Ok(()),
        Ended::Stopped(stop) => Err(stop.into()),
    }
}

/// Has the node leave when the process is to end: behind what the work has still to say to other nodes.
async fn leave(node: NodeHandle, farewell: oneshot::Receiver<()>, shutdown: CancellationToken) {
    shutdown.cancelled().await;
    // An error means that the work has ended: it has no more to say.
    let _ = farewell.await;
    // An error means that the node has left already.
    let _ = node.operator(Operator::Leave).await;
}
