//! Whole networks on loopback: real sockets, free ports, no fixed sleeps.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use lockstep_replication::NodeId;
use lockstep_replication::wire::{GOSSIP_BYTES_AT_MOST, MESSAGE_BYTES_AT_MOST};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::frame::{Frame, Kind};
use super::*;

const TOPIC: &str = "global_events";
const KEY: [u8; 32] = [7; 32];
/// Far more than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    id: NodeId,
    network: Network,
    events: NetworkEvents,
    address: Multiaddr,
}

fn config(keypair: &Keypair, peers: Vec<Multiaddr>) -> NetworkConfig {
    NetworkConfig {
        keypair: keypair.clone(),
        cluster_key: KEY,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("it is an address")],
        announce: vec![],
        peers,
        mdns: false,
        allow: None,
        topics: &[TOPIC],
        limits: NetworkLimits::default(),
    }
}

impl Node {
    async fn new(peers: Vec<Multiaddr>) -> Node {
        Node::with(config(&Keypair::generate_ed25519(), peers)).await
    }

    async fn with(config: NetworkConfig) -> Node {
        let id = node_of_keypair(&config.keypair).expect("it is an ed25519 key");
        let (network, mut events) = start(config, &mut Registry::default()).expect("the network starts");
        match within(events.next()).await {
            Some(NetworkEvent::Listening(address)) => Node { id, network, events, address },
            other => panic!("listening comes first, not {other:?}"),
        }
    }

    /// Reads events until this one.
    async fn until(&mut self, wanted: NetworkEvent) {
        while self.next().await != wanted {}
    }

    async fn next(&mut self) -> NetworkEvent {
        within(self.events.next()).await.expect("the network goes on")
    }

    async fn next_message(&mut self) -> (NodeId, Bytes) {
        loop {
            if let NetworkEvent::Message { from, bytes } = self.next().await {
                return (from, bytes);
            }
        }
    }

    async fn rejected(&mut self) -> (Multiaddr, String) {
        loop {
            if let NetworkEvent::PeerRejected { addr, reason } = self.next().await {
                return (addr, reason);
            }
        }
    }

    fn urgent(&self, to: &Node, bytes: impl Into<Bytes>) {
        self.network.send(to.id, TOPIC, Lane::Urgent, bytes.into());
    }

    fn bulk(&self, to: &Node, bytes: impl Into<Bytes>) {
        self.network.send(to.id, TOPIC, Lane::Bulk, bytes.into());
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

/// Two nodes, connected; the second was given the first one's address.
async fn pair() -> (Node, Node) {
    let mut first = Node::new(vec![]).await;
    let mut second = Node::new(vec![first.address.clone()]).await;
    first.until(NetworkEvent::Connected(second.id)).await;
    second.until(NetworkEvent::Connected(first.id)).await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_connect_and_exchange_both_lanes_both_ways() {
    let (mut first, mut second) = pair().await;
    let large = Bytes::from(vec![3; MESSAGE_BYTES_AT_MOST]);
    first.urgent(&second, "beat");
    assert_eq!(second.next_message().await, (first.id, Bytes::from("beat")));
    first.bulk(&second, large.clone());
    assert_eq!(second.next_message().await, (first.id, large.clone()));
    second.bulk(&first, large.clone());
    assert_eq!(first.next_message().await, (second.id, large));
    second.network.broadcast(TOPIC, Lane::Urgent, Bytes::from("to all"), false);
    assert_eq!(first.next_message().await, (second.id, Bytes::from("to all")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_one_lane_keep_their_order() {
    let (first, mut second) = pair().await;
    for n in 0..2000_u32 {
        first.urgent(&second, n.to_le_bytes().to_vec());
    }
    for n in 0..2000_u32 {
        assert_eq!(second.next_message().await.1, n.to_le_bytes()[..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_overtakes_a_saturated_bulk_lane() {
    let (first, mut second) = pair().await;
    let chunk = Bytes::from(vec![1; 512 << 10]);
    // More than the receiver's share and all buffers on the way hold, so that bulk stands still.
    for _ in 0..120 {
        first.bulk(&second, chunk.clone());
    }
    while second.events.try_next().is_none() {
        tokio::task::yield_now().await;
    }
    first.urgent(&second, "urgent");
    let mut before = 0;
    while second.next_message().await.1.len() == chunk.len() {
        before += 1;
    }
    assert!(before < 60, "{before} chunks came before it");
    assert_eq!(first.network.counters().dropped(Cause::QueueFull), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_drops_the_newest_and_counts() {
    let keypair = Keypair::generate_ed25519();
    let mut second = Node::new(vec![]).await;
    let mut small = config(&keypair, vec![second.address.clone()]);
    small.limits.bulk_queue = QueueLimit { frames: 3, bytes: 10 };
    let mut first = Node::with(small).await;
    first.until(NetworkEvent::Connected(second.id)).await;
    first.bulk(&second, "more than ten bytes");
    assert_eq!(first.network.counters().dropped(Cause::QueueFull), 1);
    first.bulk(&second, "ten bytes!");
    assert_eq!(second.next_message().await.1, "ten bytes!");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_key_is_rejected_and_named_on_both_sides() {
    let mut ours = Node::new(vec![]).await;
    let mut other = config(&Keypair::generate_ed25519(), vec![ours.address.clone()]);
    other.cluster_key = [8; 32];
    let mut stranger = Node::with(other).await;
    let (address, reason) = stranger.rejected().await;
    assert_eq!(address, ours.address);
    assert_eq!(reason, "it does not have this cluster's key (or is no Lockstep node)");
    let (address, reason) = ours.rejected().await;
    assert!(address.to_string().starts_with("/ip4/127.0.0.1/tcp/"), "{address}");
    assert!(reason.contains("this cluster's key"), "{reason}");
    ours.network.shutdown().await;
    while let Some(event) = ours.events.next().await {
        assert!(!matches!(event, NetworkEvent::PeerRejected { .. }), "once a minute is enough: {event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_that_is_no_lockstep_node_is_rejected_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let SocketAddr::V4(socket) = listener.local_addr().expect("it is bound") else { panic!("it is version 4") };
    let address: Multiaddr = format!("/ip4/{}/tcp/{}", socket.ip(), socket.port()).parse().expect("an address");
    let mut node = Node::new(vec![address.clone()]).await;
    let (mut stream, _) = within(listener.accept()).await.expect("it dials");
    let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.expect("it listens");
    drop(stream);
    let (rejected, reason) = node.rejected().await;
    assert_eq!(rejected, address);
    assert!(reason.contains("is no Lockstep node"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_frame_closes_the_connection_is_counted_and_the_peer_may_come_again() {
    let (mut first, mut second) = pair().await;
    let peer = second.network.peers.read().expect("nobody panicked").get(&first.id).cloned().expect("it is connected");
    let payload = Bytes::from(vec![0; MESSAGE_BYTES_AT_MOST + 1]);
    peer.urgent.push(Frame { kind: Kind::Message, payload }).expect("there is room");
    first.until(NetworkEvent::Disconnected(second.id)).await;
    second.until(NetworkEvent::Disconnected(first.id)).await;
    assert_eq!(first.network.counters().dropped(Cause::Oversized), 1);
    first.until(NetworkEvent::Connected(second.id)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_closes_the_connection_and_is_counted() {
    let (mut first, second) = pair().await;
    let peer = second.network.peers.read().expect("nobody panicked").get(&first.id).cloned().expect("it is connected");
    peer.bulk.push(Frame { kind: Kind::Addresses, payload: Bytes::from("garbage") }).expect("there is room");
    first.until(NetworkEvent::Disconnected(second.id)).await;
    assert_eq!(first.network.counters().dropped(Cause::Garbage), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_addresses_ends_in_everybody_connected() {
    let mut nodes = vec![Node::new(vec![]).await];
    for _ in 0..4 {
        let previous = nodes.last().expect("there is one").address.clone();
        nodes.push(Node::new(vec![previous]).await);
    }
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
    join_all(nodes.iter_mut().map(|node| async {
        let mut missing: BTreeSet<NodeId> = ids.iter().copied().filter(|id| *id != node.id).collect();
        while !missing.is_empty() {
            match node.next().await {
                NetworkEvent::Connected(other) => assert!(missing.remove(&other), "each connects once"),
                NetworkEvent::Disconnected(other) => panic!("{other} went"),
                NetworkEvent::Message { .. } | NetworkEvent::Listening(_) | NetworkEvent::PeerRejected { .. } => {}
            }
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_dialled_where_it_says_that_it_is_found() {
    let forwarded = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let SocketAddr::V4(at) = forwarded.local_addr().expect("it is bound") else { panic!("it is version 4") };
    let mut between = Node::new(vec![]).await;
    let mut found_there = config(&Keypair::generate_ed25519(), vec![between.address.clone()]);
    found_there.announce = vec![format!("/ip4/{}/tcp/{}", at.ip(), at.port()).parse().expect("an address")];
    let mut found_there = Node::with(found_there).await;
    between.until(NetworkEvent::Connected(found_there.id)).await;
    // It listens nowhere, so that it alone can dial; what it knows of the other one it has from the node between.
    let mut dials = config(&Keypair::generate_ed25519(), vec![between.address.clone()]);
    dials.listen = vec![];
    let (_network, mut events) = start(dials, &mut Registry::default()).expect("the network starts");
    assert_eq!(within(events.next()).await, Some(NetworkEvent::Connected(between.id)));
    let mut incoming = tokio::select! {
        accepted = within(forwarded.accept()) => accepted.expect("it dials").0,
        event = events.next() => panic!("it was not dialled where it is found, but: {event:?}"),
    };
    let (_, port) = addresses::ip_and_port(&found_there.address).expect("it listens on TCP");
    let mut onward = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut incoming, &mut onward).await });
    assert_eq!(within(events.next()).await, Some(NetworkEvent::Connected(found_there.id)));
    found_there.until(NetworkEvent::Connected(between.id)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_with_its_key_and_port_is_connected_again_by_those_who_knew_it() {
    let keypair = Keypair::generate_ed25519();
    let mut first = Node::with(config(&keypair, vec![])).await;
    let mut second = Node::new(vec![first.address.clone()]).await;
    second.until(NetworkEvent::Connected(first.id)).await;
    first.until(NetworkEvent::Connected(second.id)).await;
    first.network.shutdown().await;
    second.until(NetworkEvent::Disconnected(first.id)).await;
    // It is given no addresses: the other one has to find it.
    let mut again = config(&keypair, vec![]);
    again.listen = vec![first.address];
    let mut first = Node::with(again).await;
    second.until(NetworkEvent::Connected(first.id)).await;
    first.until(NetworkEvent::Connected(second.id)).await;
    second.urgent(&first, "welcome");
    assert_eq!(first.next_message().await.1, "welcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_the_shutdown_arrives() {
    let (first, mut second) = pair().await;
    for n in 0..20_u8 {
        first.bulk(&second, vec![n; 100_000]);
    }
    first.urgent(&second, "good bye");
    let (id, shutdown) = (first.id, tokio::spawn(first.network.shutdown()));
    let (mut messages, mut gone) = (0, false);
    // What had arrived may still be on its way through the reader when the connection ends.
    while messages < 21 || !gone {
        match second.next().await {
            NetworkEvent::Message { .. } => messages += 1,
            NetworkEvent::Disconnected(node) => gone = node == id,
            NetworkEvent::Connected(_) | NetworkEvent::Listening(_) | NetworkEvent::PeerRejected { .. } => {}
        }
    }
    within(shutdown).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_a_node_through_another_and_only_its_addressee() {
    let keypairs = [(); 3].map(|()| Keypair::generate_ed25519());
    let [a, b, c] = keypairs.each_ref().map(|keypair| node_of_keypair(keypair).expect("it is an ed25519 key"));
    // The outer two work with the middle one alone, so that they never connect to each other. They would not take each
    // other's gossip either, were they not on the list: so each is, but nobody tells it the other's address in time.
    let mut middle = Node::with(config(&keypairs[1], vec![])).await;
    let mut outer = Vec::new();
    for keypair in [&keypairs[0], &keypairs[2]] {
        let mut alone = config(keypair, vec![middle.address.clone()]);
        alone.listen = vec![];
        let (network, events) = start(alone, &mut Registry::default()).expect("the network starts");
        let id = node_of_keypair(keypair).expect("it is an ed25519 key");
        let mut node = Node { id, network, events, address: middle.address.clone() };
        node.until(NetworkEvent::Connected(b)).await;
        middle.until(NetworkEvent::Connected(id)).await;
        outer.push(node);
    }
    let [first, last] = &mut outer[..] else { panic!("there are two") };
    // Who has subscribed to what takes a moment to get around: repeat until it arrives.
    let (from, bytes) = loop {
        first.network.send(c, TOPIC, Lane::Urgent, Bytes::from("through the middle"));
        tokio::select! {
            message = last.next_message() => break message,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    };
    assert_eq!((from, bytes), (a, Bytes::from("through the middle")));
    first.network.broadcast(TOPIC, Lane::Bulk, Bytes::from("to all"), true);
    loop {
        if last.next_message().await == (a, Bytes::from("to all")) {
            break;
        }
    }
    assert_eq!(middle.next_message().await, (a, Bytes::from("to all")), "the rest was not for it");
    assert_eq!(middle.events.try_next(), None, "it came directly, so gossip must not bring it again");
    first.network.send(c, TOPIC, Lane::Bulk, vec![0; GOSSIP_BYTES_AT_MOST + 1].into());
    assert_eq!(first.network.counters().dropped(Cause::TooLongForGossip), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_dial_each_other_at_the_same_moment_end_up_connected_once() {
    for _ in 0..20 {
        let (mut first, mut second) = tokio::join!(Node::new(vec![]), Node::new(vec![]));
        first.network.dial(second.address.clone());
        second.network.dial(first.address.clone());
        first.until(NetworkEvent::Connected(second.id)).await;
        second.until(NetworkEvent::Connected(first.id)).await;
        first.urgent(&second, "a");
        second.urgent(&first, "b");
        assert_eq!(second.next().await, NetworkEvent::Message { from: first.id, bytes: Bytes::from("a") });
        assert_eq!(first.next().await, NetworkEvent::Message { from: second.id, bytes: Bytes::from("b") });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_node_is_disconnected_and_kept_out() {
    let (mut first, mut second) = pair().await;
    first.network.refuse(second.id, "two machines run with its identity".into());
    first.until(NetworkEvent::Disconnected(second.id)).await;
    second.until(NetworkEvent::Disconnected(first.id)).await;
    let (address, reason) = second.rejected().await;
    assert_eq!(address, first.address);
    assert!(reason.contains("hung up"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_on_the_list_is_kept_out_and_named() {
    let mut listed = config(&Keypair::generate_ed25519(), vec![]);
    listed.allow = Some(BTreeSet::from([NodeId::example(1)]));
    let mut first = Node::with(listed).await;
    let mut second = Node::new(vec![first.address.clone()]).await;
    assert!(first.rejected().await.1.contains("not on the list"));
    assert!(second.rejected().await.1.contains("hung up"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_address_among_the_peers_does_no_harm() {
    let mut first = Node::new(vec![]).await;
    first.network.dial(first.address.clone());
    let mut second = Node::new(vec![first.address.clone()]).await;
    assert_eq!(first.next().await, NetworkEvent::Connected(second.id));
    assert_eq!(second.next().await, NetworkEvent::Connected(first.id));
}

#[tokio::test]
async fn a_port_in_use_and_an_address_of_another_kind_are_told_in_sentences() {
    let first = Node::new(vec![]).await;
    let mut second = config(&Keypair::generate_ed25519(), vec![]);
    second.listen = vec![first.address.clone()];
    let error = start(second, &mut Registry::default()).map(|_| ()).expect_err("the port is taken");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen on {}: another program does already; give another port, or 0 for any free one",
            first.address
        )
    );
    let udp: Multiaddr = "/ip4/127.0.0.1/udp/7".parse().expect("it is an address");
    let error = start(config(&Keypair::generate_ed25519(), vec![udp]), &mut Registry::default());
    assert!(matches!(error, Err(NetworkError::Unsupported(_))));
}
