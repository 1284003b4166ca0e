//! What libp2p does for the network: the protocols that run on its connections, and their limits.

use std::time::Duration;

use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{gossipsub, mdns, ping};
use libp2p_allow_block_list::{AllowedPeers, BlockedPeers};
use libp2p_connection_limits::ConnectionLimits;
use prometheus_client::registry::Registry;

use super::identity::{node_of_keypair, peer_of_node};
use super::{NetworkConfig, NetworkError, gossip, lanes, transport};

/// Two that dialled each other at once, and one that comes anew while they are sorted out.
const CONNECTIONS_A_PEER: u32 = 4;
/// Connections in the middle of their handshake, each way.
const HANDSHAKES_AT_MOST: u32 = 64;
/// How often the other side's network is heard from where nothing else flows,
const PING_EVERY: Duration = Duration::from_secs(5);
/// and when the connection is given up. Far above the time after which the protocol calls a node lost: that is decided
/// there, and a node that was only stalled finds its connections standing.
const PING_WITHIN: Duration = Duration::from_secs(20);

/// The protocols of every connection.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: libp2p_connection_limits::Behaviour,
    pub(super) allowed: Toggle<libp2p_allow_block_list::Behaviour<AllowedPeers>>,
    pub(super) refused: libp2p_allow_block_list::Behaviour<BlockedPeers>,
    pub(super) lanes: lanes::Behaviour,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// A swarm that does not listen yet.
pub(super) fn build(config: &NetworkConfig, registry: &mut Registry) -> Result<Swarm<Behaviour>, NetworkError> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| NetworkError::Setup(format!("{what}: {error}"));
    let keypair = &config.keypair;
    let me = node_of_keypair(keypair).ok_or(NetworkError::WrongKeyType)?;
    let peer = keypair.public().to_peer_id();
    let transport =
        transport::build(keypair, config.cluster_key).map_err(|error| cannot("encryption cannot be set up", &error))?;
    let gossip =
        gossip::build(keypair, config.topics, registry).map_err(|error| cannot("gossip cannot be set up", &error))?;
    let mdns = config
        .mdns
        .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), peer))
        .transpose()
        .map_err(|error| cannot("the local network cannot be searched for nodes (mDNS)", &error))?;
    let allowed = config.allow.as_ref().map(|nodes| {
        let mut allowed = libp2p_allow_block_list::Behaviour::<AllowedPeers>::default();
        for peer in nodes.iter().filter(|node| **node != me).filter_map(peer_of_node) {
            allowed.allow_peer(peer);
        }
        allowed
    });
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(HANDSHAKES_AT_MOST))
        .with_max_pending_outgoing(Some(HANDSHAKES_AT_MOST))
        .with_max_established(Some(config.limits.connections))
        .with_max_established_per_peer(Some(CONNECTIONS_A_PEER));
    let behaviour = Behaviour {
        limits: libp2p_connection_limits::Behaviour::new(limits),
        allowed: allowed.into(),
        refused: libp2p_allow_block_list::Behaviour::default(),
        lanes: lanes::Behaviour::default(),
        gossip,
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_WITHIN)),
        mdns: mdns.into(),
    };
    Ok(Swarm::new(transport, behaviour, peer, libp2p::swarm::Config::with_tokio_executor()))
}
