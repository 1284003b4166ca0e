//! The leader goes, by `kill -9` or by Ctrl-C: another one leads soon, and nothing that was done is missing.

use std::time::{Duration, Instant};

use lockstep_tests::api::{Api, add_card};
use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::node::Signal;
use serde_json::Value;

/// From `kill -9` of the leader to the next command that is done.
const DONE_AFTER_KILL: Duration = Duration::from_secs(2);

/// From Ctrl-C on the leader to the next command that is done.
const DONE_AFTER_INTERRUPT: Duration = Duration::from_millis(300);

/// Whether this node has the first so many cards; the first that it lacks.
async fn all_there(api: &Api, cards: usize) -> Result<(), String> {
    let state = api.state().await?;
    (0..cards).map(card).find(|name| state["cards"][name].is_null()).map_or(Ok(()), Err)
}

fn card(n: usize) -> String {
    format!("card-{n}")
}

/// Adds a card through a node; when that was done.
async fn write(api: &Api, n: usize) -> Instant {
    api.done(&card(n), &add_card(&card(n)), SOON).await;
    Instant::now()
}

/// The entries at these indexes, as a log tells them.
fn entries_before(log: &[Value], next: u64) -> Vec<&Value> {
    log.iter().filter(|entry| entry["index"].as_u64().is_some_and(|index| index < next)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_leader_is_killed_another_leads_within_two_seconds_and_nothing_done_is_missing() {
    let mut cluster = Cluster::founded_by(3).await;
    let leader = cluster.all_ready(SOON).await;
    let others: Vec<usize> = cluster.running().into_iter().filter(|node| *node != leader).collect();
    let api = cluster.api(leader).await;
    api.load(1, 500).await;
    for n in 0..20 {
        write(&api, n).await;
    }
    let (next, before) = cluster.equal(SOON).await;
    let survivor = cluster.api(others[0]).await;

    let killed = Instant::now();
    cluster.kill(leader).await;
    let took = write(&survivor, 20).await - killed;
    println!("kill -9 of the leader: the next command is done after {took:?}");
    assert!(took <= DONE_AFTER_KILL, "done after {took:?}");

    let successor = cluster.all_ready(SOON).await;
    assert_ne!(successor, leader);
    for node in &others {
        all_there(&cluster.api(*node).await, 20).await.unwrap();
    }
    let session = cluster.node(successor).cluster().await.unwrap()["session"].clone();

    let took = cluster.start(leader).ready(SOON).await;
    println!("the old leader is ready {took:?} after its start");
    assert_eq!(cluster.all_ready(SOON).await, successor, "the old leader follows");
    assert_eq!(cluster.node(leader).cluster().await.unwrap()["session"], session, "nobody campaigned for it");
    let (_, after) = cluster.equal(SOON).await;
    assert_eq!(entries_before(&after, next), entries_before(&before, next), "what was there is there");
    all_there(&cluster.api(leader).await, 21).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_ctrl_c_on_the_leader_the_next_write_is_done_within_300_ms() {
    let mut cluster = Cluster::founded_by(3).await;
    let leader = cluster.all_ready(SOON).await;
    let other = cluster.running().into_iter().find(|node| *node != leader).expect("there are three");
    let api = cluster.api(other).await;
    for n in 0..20 {
        write(&api, n).await;
    }

    let mut leaving = cluster.take(leader);
    let interrupted = Instant::now();
    leaving.signal(Signal::INT);
    let took = write(&api, 20).await - interrupted;
    println!("Ctrl-C on the leader: the next command is done after {took:?}");
    assert!(took <= DONE_AFTER_INTERRUPT, "done after {took:?}");
    assert!(leaving.ended(SOON).await.success(), "it leaves in good order");

    let successor = cluster.all_ready(SOON).await;
    cluster.start(leader).ready(SOON).await;
    assert_eq!(cluster.all_ready(SOON).await, successor, "the old leader follows");
    cluster.equal(SOON).await;
    all_there(&cluster.api(leader).await, 21).await.unwrap();
}
