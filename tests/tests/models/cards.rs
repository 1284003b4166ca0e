//! Custom model cards are on the disk of every node, however it came to know of them.

use std::collections::BTreeMap;
use std::path::Path;

use lockstep_tests::api::add_card;
use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::inference::{Stream, place_echo, question, ready};
use lockstep_tests::wait::until;
use serde_json::json;

/// The copies of cards in a data directory.
fn cards(data: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(data.join("cards")).into_iter().flatten().flatten();
    files
        .map(|file| {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            (file.file_name().to_string_lossy().into_owned(), text)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_by_snapshot_has_the_same_copies_and_runners_as_those_that_saw_every_entry() {
    let mut cluster = Cluster::new(3, 4).await;
    for node in 0..3 {
        cluster.start(node);
    }
    cluster.agree(&[0, 1, 2], SOON).await;
    let api = cluster.api(0).await;
    let names: Vec<String> = (0..20).map(|n| format!("acme/model-{n}")).collect();
    for name in &names {
        api.done(&format!("add-{name}"), &add_card(name), SOON).await;
    }
    for name in &names[..5] {
        api.done(&format!("delete-{name}"), &json!({"delete_card": {"model": name}}), SOON).await;
    }
    // Long enough a past that a snapshot is shorter.
    api.load(7, 5000).await;
    cluster.start(3).ready(SOON).await;
    let joined = cluster.id(3).await;
    place_echo(&api, "echo", &[joined], &[]).await;
    let state = api.state().await.unwrap();
    let custom = state["cards"].as_object().unwrap().values().filter(|card| card["custom"] == true).count();
    assert!(custom >= 16, "{custom}");
    let whole = until("the first node has all copies", SOON, async || {
        let found = cards(&cluster.data(0));
        if found.len() == custom { Ok(found) } else { Err(format!("{} of {custom}", found.len())) }
    })
    .await;
    for node in 1..4 {
        until("this node has the same", SOON, async || {
            if cards(&cluster.data(node)) == whole { Ok(()) } else { Err(cards(&cluster.data(node)).len()) }
        })
        .await;
    }
    let path = cluster.node(3).cluster().await.unwrap()["catch_ups"][0]["path"].clone();
    println!("it caught up by {path}");
    ready(&cluster.api(3).await, "echo").await;
    for node in 0..4 {
        let api = cluster.api(node).await;
        Stream::open(&api, &question("echo", "hello")).await.unwrap().rest().await.unwrap().must_be("hello");
    }
}
