//! All nodes are killed at the same moment and started again, in every order: what the log held, it holds.

use std::path::Path;
use std::time::Duration;

use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::wait::until_true;
use serde_json::Value;

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// A node that is alone waits five seconds for the others before it leads without them.
const ALONE: Duration = Duration::from_secs(15);

/// A node that lost its disk asks the others what they hold as soon as it knows that. Before the next one loses its own it
/// must be whole.
const WHOLE: Duration = Duration::from_secs(2);

/// How many commands are put in before each power cut.
const COMMANDS: usize = 200;

/// Kills all nodes of a cluster that stand at one index, and starts them in this order, each once the one before
/// listens. Afterwards all must hold the entries that they held.
async fn cut_power(cluster: &mut Cluster, order: [usize; 3]) {
    let (next, before) = cluster.equal(SOON).await;
    cluster.kill_all().await;
    for node in order {
        cluster.start(node).api().await;
    }
    holds_all(cluster, next, &before, order).await;
}

async fn holds_all(cluster: &mut Cluster, next: u64, before: &[Value], order: [usize; 3]) {
    cluster.all_ready(SOON).await;
    let (now, after) = cluster.equal(SOON).await;
    assert!(now >= next, "order {order:?}: the log ends at {now}, it had {next} entries");
    let kept = after.iter().filter(|entry| entry["index"].as_u64().is_some_and(|index| index < next));
    assert!(kept.eq(before), "order {order:?}: entries below {next} are others now");
}

/// What a node has on its disk once that was replaced, and only its identity was brought over.
fn empty(data: &Path) {
    for file in std::fs::read_dir(data).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap();
        } else if !path.ends_with("identity.key") && !path.ends_with("log.txt") {
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_in_any_order_all_nodes_hold_all_entries() {
    let mut cluster = Cluster::founded_by(3).await;
    for (seed, order) in (0..).zip(ORDERS) {
        let leader = cluster.all_ready(SOON).await;
        cluster.api(leader).await.load(seed, COMMANDS).await;
        cut_power(&mut cluster, order).await;
    }
    cluster.interrupt_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_node_that_starts_first_takes_nothing_from_the_others() {
    let mut cluster = Cluster::founded_by(3).await;
    for (seed, order) in (0..).zip([ORDERS[0], ORDERS[3], ORDERS[4]]) {
        let leader = cluster.all_ready(SOON).await;
        cluster.api(leader).await.load(seed, COMMANDS).await;
        let (next, before) = cluster.equal(SOON).await;
        let id = cluster.id(order[0]).await;
        cluster.kill_all().await;
        empty(&cluster.data(order[0]));
        for node in order {
            cluster.start(node).api().await;
        }
        holds_all(&mut cluster, next, &before, order).await;
        assert_eq!(cluster.id(order[0]).await, id, "it came back as the same node");
        let api = cluster.api(order[0]).await;
        let is_whole = async || api.cluster().await.is_ok_and(|view| view["damaged"] == false);
        until_true("the emptied node is whole again", WHOLE, is_whole).await;
    }
    cluster.interrupt_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_worked_alone_before_the_others_started_keeps_all_entries_too() {
    let mut cluster = Cluster::founded_by(3).await;
    let leader = cluster.all_ready(SOON).await;
    cluster.api(leader).await.load(1, COMMANDS).await;
    let (next, before) = cluster.equal(SOON).await;
    cluster.kill_all().await;
    cluster.start(0);
    assert_eq!(cluster.agree(&[0], ALONE).await, 0);
    assert_eq!(cluster.node(0).cluster().await.unwrap()["backed"], false, "one of three");
    cluster.start_all();
    holds_all(&mut cluster, next, &before, ORDERS[0]).await;
}
