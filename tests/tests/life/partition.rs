//! Cut in two, written on both sides, joined again: the larger side's entries stay, the other's are set aside whole.

use std::time::{Duration, Instant};

use lockstep_tests::api::{Api, add_card};
use lockstep_tests::binary::lockstep;
use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::node::quiet;
use lockstep_tests::proxy::Way;
use lockstep_tests::wait::{until, until_true};
use serde_json::{Value, json};

/// Three seconds without a beat put a node out of reach, a broken connection does at once.
const KNOWS_WITHIN: Duration = Duration::from_secs(4);

/// Five seconds of silence make a node lost, two and a half a campaign, five more a campaign of a minority.
const APART_WITHIN: Duration = Duration::from_secs(30);

/// Runs `lockstep aside …` on a node's data directory; what it printed.
async fn aside(cluster: &Cluster, node: usize, arguments: &[&str]) -> String {
    let output = quiet(lockstep()).arg("aside").args(arguments).arg("--data").arg(cluster.data(node)).output();
    let output = output.await.expect("lockstep can be started");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

async fn has_card(api: &Api, name: &str) -> bool {
    api.state().await.is_ok_and(|state| state["cards"][name].is_object())
}

/// The node on the small side says at once that most known nodes are out of its reach: also as a leader whose session is
/// backed, which is of the past.
async fn says_by_how_many_its_word_is_held(small: &Api, way: Way) {
    let (at_once, leads) = (Instant::now(), small.cluster().await.unwrap()["role"]["leading"].is_object());
    until("it reaches itself alone", KNOWS_WITHIN, async || match small.cluster().await? {
        view if view["reach"] == json!({"known": 3, "reached": 1}) => Ok(()),
        view => Err(view["reach"].to_string()),
    })
    .await;
    println!("cut {way:?}: it knows after {:?} that it is alone", at_once.elapsed());
    let view = small.cluster().await.unwrap();
    assert_eq!(view["role"]["leading"].is_object(), leads, "nothing else has changed yet");
    assert!(!leads || view["backed"] == true, "{view}");
    let url = format!("http://{}", small.address());
    let output = quiet(lockstep()).args(["status", "--api", &url]).output().await.expect("lockstep can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("It reaches 1 of 3 known nodes, which is no majority"), "{said}");
    assert!(!leads || said.contains("what is done now is held by 1 of 3"), "{said}");
}

/// Cuts this node's links to the two others in this way, writes on both sides, and joins them again.
async fn cut_write_and_join(leader_is_cut_off: bool, way: Way) {
    let mut cluster = Cluster::founded_by(3).await;
    let leader = cluster.all_ready(SOON).await;
    let others: Vec<usize> = cluster.running().into_iter().filter(|node| *node != leader).collect();
    let lone = if leader_is_cut_off { leader } else { others[0] };
    let pair: Vec<usize> = cluster.running().into_iter().filter(|node| *node != lone).collect();
    let (small, large) = (cluster.api(lone).await, cluster.api(pair[0]).await);
    small.done("before", &add_card("before"), SOON).await;
    let (next, before) = cluster.equal(SOON).await;

    cluster.between(&[lone], &pair, way);
    says_by_how_many_its_word_is_held(&small, way).await;
    let pairs_leader = cluster.agree(&pair, APART_WITHIN).await;
    large.done("large", &add_card("large"), APART_WITHIN).await;
    // What the lone node acknowledges says by how many it is held.
    for name in ["small-1", "small-2", "small-3"] {
        until(&format!("{name} is held by one of three"), APART_WITHIN, async || {
            let answer = small.submit(&add_card(name)).await?;
            if answer.body["result"] != "done" {
                return Err(answer.body.to_string());
            }
            assert_eq!((answer.body["held"].as_u64(), answer.body["of"].as_u64()), (Some(1), Some(3)));
            Ok(())
        })
        .await;
    }
    assert_eq!(cluster.agree(&[lone], SOON).await, lone, "two leaders, one on each side");
    assert!(!has_card(&small, "large").await && !has_card(&large, "small-1").await, "they are apart");

    cluster.between(&[lone], &pair, Way::Open);
    let joined = cluster.all_ready(APART_WITHIN).await;
    println!("cut {way:?}: node-{pairs_leader} led the pair, node-{joined} leads all");
    let (_, after) = cluster.equal(SOON).await;
    let kept = after.iter().filter(|entry| entry["index"].as_u64().is_some_and(|index| index < next));
    assert!(kept.eq(&before), "what was there before the cut is there");
    for node in 0..3 {
        let api = cluster.api(node).await;
        assert!(has_card(&api, "large").await, "node-{node} lacks what the larger side wrote");
        assert!(!has_card(&api, "small-1").await, "node-{node} has what the smaller side wrote");
    }

    let listed: Vec<Value> = serde_json::from_str(&aside(&cluster, lone, &["list", "--json"]).await).unwrap();
    let shown = cluster.node(lone).cluster().await.unwrap()["set_aside"].clone();
    assert_eq!(shown, Value::Array(listed.clone()), "the API says the same");
    let url = format!("http://{}", small.address());
    for file in &listed {
        let name = file["name"].as_str().expect("it has a name");
        assert!(cluster.node(lone).log().contains(name), "{name} is announced");
        aside(&cluster, lone, &["submit", name, "--api", &url]).await;
    }
    for node in 0..3 {
        let api = cluster.api(node).await;
        until_true("what was set aside is ordered again", SOON, async || has_card(&api, "small-3").await).await;
        assert!(has_card(&api, "small-1").await && has_card(&api, "small-2").await);
    }
    cluster.equal(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_by_broken_connections_yields_to_the_other_two() {
    cut_write_and_join(true, Way::Broken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_in_silence_yields_to_the_other_two() {
    cut_write_and_join(true, Way::Held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_cut_off_by_broken_connections_works_alone_and_yields() {
    cut_write_and_join(false, Way::Broken).await;
}
