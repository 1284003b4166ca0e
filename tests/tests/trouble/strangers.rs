//! Nodes with different cluster keys: named on both sides, never connected, and no harm to the cluster.

use lockstep_tests::api::add_card;
use lockstep_tests::cluster::SOON;
use lockstep_tests::node::{Node, Plan};
use lockstep_tests::wait::until_true;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const STRANGER: &str = "it does not have this cluster's key";

/// A ready node of a cluster of its own.
async fn alone(name: &str) -> (Node, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Plan::new(name, directory.path()).start();
    node.ready(SOON).await;
    (node, directory)
}

#[tokio::test]
async fn nodes_with_different_keys_are_named_on_both_sides_and_do_not_connect() {
    let (mut inside, _directory) = alone("inside").await;
    let address = inside.peer_address().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut outside = Plan::new("outside", elsewhere.path()).peer(address).set("replication.founders=1").start();
    until_true("both say why", SOON, async || {
        let line = |node: &Node| node.log().lines().any(|line| line.contains("WARN") && line.contains(STRANGER));
        line(&inside) && line(&outside)
    })
    .await;
    let dialled = format!("/ip4/{}/tcp/{} {STRANGER}", address.ip(), address.port());
    assert!(outside.log().contains(&dialled), "it names whom it dialled: {}", outside.log());

    for node in [&mut inside, &mut outside] {
        let view = node.cluster().await.unwrap();
        let nodes = view["nodes"].as_object().expect("it knows itself");
        assert_eq!(nodes.len(), 1, "neither knows the other: {view}");
        node.api().await.done("alone", &add_card("alone"), SOON).await;
    }
    // It dials on for ever, and says so once a minute.
    let said = |node: &Node| node.log().matches(STRANGER).count();
    assert_eq!((said(&inside), said(&outside)), (1, 1));
}

#[tokio::test]
async fn a_stranger_that_is_no_node_is_hung_up_on() {
    let (mut node, _directory) = alone("inside").await;
    let address = node.peer_address().await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    for said in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], &[0; 4096], &[0xff; 24]] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // It may hang up before all was sent.
        let _ = socket.write_all(said).await;
        let mut heard = Vec::new();
        let end = tokio::time::timeout(SOON, socket.read_to_end(&mut heard)).await;
        assert!(end.is_ok(), "it is still connected");
    }
    let mut heard = Vec::new();
    let end = tokio::time::timeout(SOON, silent.read_to_end(&mut heard)).await;
    assert!(end.is_ok(), "whoever says nothing is hung up on too");
    node.api().await.done("after", &add_card("after"), SOON).await;
}
