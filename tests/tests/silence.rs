//! Nodes that fall silent: killed, stopped, or cut off without a word. When the leader counts them as lost, and how
//! they come back.

use std::time::{Duration, Instant};

use lockstep_tests::api::{Api, add_card};
use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::node::Signal;
use lockstep_tests::proxy::Way;
use lockstep_tests::wait::until;
use serde_json::Value;

/// A killed node is lost within this time.
const KILLED: Duration = Duration::from_secs(1);
/// A silent one after this time at the earliest, less what its last beat may have come before it fell silent.
const SILENT_FROM: Duration = Duration::from_secs(4);
/// And at the latest.
const SILENT_UNTIL: Duration = Duration::from_secs(6);
/// Started or continued again it is ready within this time.
const BACK_WITHIN: Duration = Duration::from_secs(1);
/// The leader looks once a second, so that it may be the last moment; and what a busy machine adds until the state is
/// read.
const ROOM: Duration = Duration::from_millis(500);

/// Three nodes, all up in the leader's state: the leader, a follower, and the leader's API.
async fn three() -> (Cluster, usize, usize, Api) {
    let mut cluster = Cluster::founded_by(3).await;
    let leader = cluster.all_ready(SOON).await;
    let api = cluster.api(leader).await;
    let follower = (leader + 1) % 3;
    for node in 0..3 {
        let id = cluster.id(node).await;
        up(&api, &id, SOON).await;
    }
    (cluster, leader, follower, api)
}

/// How the leader's state has this node: `up`, `lost`…
async fn status(api: &Api, id: &str) -> Result<String, String> {
    let node = api.get(&format!("/v1/state/nodes/{id}")).await?;
    // Plain, or with facts: {"lost": {"since": …}}.
    let plain = node["status"].as_str();
    let named = plain.or_else(|| Some(node["status"].as_object()?.keys().next()?.as_str()));
    named.map(str::to_owned).ok_or_else(|| format!("it has no status: {node}"))
}

async fn is(api: &Api, id: &str, wanted: &str, within: Duration) -> Duration {
    let began = Instant::now();
    until(&format!("the leader counts it as {wanted}"), within, async || match status(api, id).await? {
        status if status == wanted => Ok(()),
        status => Err(status),
    })
    .await;
    began.elapsed()
}

async fn lost(api: &Api, id: &str, within: Duration) -> Duration {
    is(api, id, "lost", within).await
}

async fn up(api: &Api, id: &str, within: Duration) -> Duration {
    is(api, id, "up", within).await
}

#[tokio::test]
async fn a_killed_follower_is_lost_within_a_second_and_back_within_one() {
    let (mut cluster, _, follower, leader) = three().await;
    let id = cluster.id(follower).await;
    cluster.node(follower).signal(Signal::KILL);
    let took = lost(&leader, &id, KILLED + ROOM).await;
    println!("killed: lost after {took:?}");
    cluster.kill(follower).await;
    leader.done("meanwhile", &add_card("meanwhile"), SOON).await;

    let back = cluster.start(follower).ready(BACK_WITHIN).await;
    println!("killed: ready {back:?} after its start");
    up(&leader, &id, SOON).await;
    cluster.equal(SOON).await;
}

#[tokio::test]
async fn a_stopped_follower_is_lost_after_five_to_six_seconds_and_back_within_one() {
    let (mut cluster, _, follower, leader) = three().await;
    let id = cluster.id(follower).await;
    cluster.node(follower).signal(Signal::STOP);
    let took = lost(&leader, &id, SILENT_UNTIL + ROOM).await;
    println!("stopped: lost after {took:?}");
    assert!(took >= SILENT_FROM, "after {took:?}");
    leader.done("meanwhile", &add_card("meanwhile"), SOON).await;

    cluster.node(follower).signal(Signal::CONT);
    let continued = Instant::now();
    let head = leader.hash().await.unwrap().0;
    let api = cluster.api(follower).await;
    until("it is at the head and ready", BACK_WITHIN, async || match api.cluster().await? {
        view if view["ready"] == true && view["next"].as_u64() >= Some(head) => Ok(()),
        view => Err(format!("{} of {head}: {}", view["next"], view["not_ready"])),
    })
    .await;
    println!("stopped: ready {:?} after it went on", continued.elapsed());
    up(&leader, &id, SOON).await;
    cluster.equal(SOON).await;
}

#[tokio::test]
async fn a_follower_cut_off_without_a_word_is_lost_after_five_to_six_seconds() {
    let (mut cluster, _, follower, leader) = three().await;
    let id = cluster.id(follower).await;
    cluster.around(follower, Way::Held);
    let took = lost(&leader, &id, SILENT_UNTIL + ROOM).await;
    println!("cut off: lost after {took:?}");
    assert!(took >= SILENT_FROM, "after {took:?}");
    cluster.around(follower, Way::Open);
    up(&leader, &id, SOON).await;
    cluster.all_ready(SOON).await;
    cluster.equal(SOON).await;
}

#[tokio::test]
async fn a_follower_stopped_for_four_seconds_is_never_lost() {
    let (mut cluster, leading, follower, leader) = three().await;
    let before = leader.hash().await.unwrap().0;
    cluster.node(follower).signal(Signal::STOP);
    // Nothing to wait for: that something does not happen within a time can only be seen after it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    cluster.node(follower).signal(Signal::CONT);
    let continued = Instant::now();
    cluster.all_ready(SOON).await;
    println!("stopped for 4 s: all ready {:?} after it went on", continued.elapsed());
    let counted = cluster.node(leading).cluster().await.unwrap()["counters"]["nodes_lost"].clone();
    assert_eq!(counted, 0, "the leader counted it as lost");
    let events = leader.events(before).await.unwrap();
    assert!(!Value::from(events.clone()).to_string().contains("timed_out"), "{events:?}");
    cluster.equal(SOON).await;
}

#[tokio::test]
async fn a_leader_stopped_for_four_seconds_is_replaced_and_comes_back_as_a_follower() {
    let (mut cluster, leading, follower, old) = three().await;
    let index = old.done("before", &add_card("before"), SOON).await;
    let api = cluster.api(follower).await;
    cluster.node(leading).signal(Signal::STOP);
    let stopped = Instant::now();
    let written = api.done("meanwhile", &add_card("meanwhile"), Duration::from_secs(10)).await;
    println!("leader stopped: the next write was acknowledged after {:?}", stopped.elapsed());
    assert!(written > index);
    tokio::time::sleep(Duration::from_secs(4).saturating_sub(stopped.elapsed())).await;
    cluster.node(leading).signal(Signal::CONT);
    let continued = Instant::now();
    let now_leading = cluster.all_ready(SOON).await;
    println!("leader stopped: all ready {:?} after it went on", continued.elapsed());
    old.done("after", &add_card("after"), SOON).await;
    let (_, log) = cluster.equal(SOON).await;
    for card in ["before", "meanwhile", "after"] {
        let model = format!("\"model\":\"{card}\"");
        let times = log.iter().filter(|entry| entry.to_string().contains(&model)).count();
        assert_eq!(times, 1, "{card} is in the log {times} times, and node-{now_leading} leads");
    }
}
