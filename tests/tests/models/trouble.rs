//! Runners, nodes and leaders end by `kill -9` in the middle of answers: whoever is concerned is told, others notice
//! nothing, and what can come back does.

use std::time::{Duration, Instant};

use lockstep_tests::api::Api;
use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::inference::{Stream, kill, no_tasks, place_echo, question, ready, runners_of, words};
use lockstep_tests::wait::until;

/// From `kill -9` of a runner to the error that its clients get.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// From `kill -9` of a node to the error that clients of its models get: it is lost after at most 6 s of silence.
const LOST_WITHIN: Duration = Duration::from_secs(8);

/// Words a second, so that answers last.
const SLOW: &[(&str, &str)] = &[("tokens_per_second", "50")];

/// Three nodes; which leads, and the two others.
async fn three() -> (Cluster, usize, [usize; 2]) {
    let mut cluster = Cluster::founded_by(3).await;
    let leader = cluster.all_ready(SOON).await;
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    (cluster, leader, [others[0], others[1]])
}

/// Streams under way through these nodes, each with its first word read.
async fn under_way(apis: &[&Api], words: &str) -> Vec<Stream> {
    let mut streams = Vec::new();
    for api in apis {
        let mut stream = Stream::open(api, &question("echo", words)).await.unwrap();
        assert_eq!(stream.piece().await.unwrap().1, "w0");
        streams.push(stream);
    }
    streams
}

/// Each of them ends with an error of one of these codes within this time.
async fn all_fail(streams: Vec<Stream>, since: Instant, within: Duration, codes: &[&str]) {
    for stream in streams {
        let told = stream.rest().await.unwrap();
        let took = since.elapsed();
        let error = told.error.unwrap_or_else(|| panic!("no error, but {:?}", told.pieces));
        println!("told after {took:?}: {error}");
        assert!(codes.contains(&error["code"].as_str().unwrap_or_default()), "{error}");
        assert!(took <= within, "told after {took:?}");
        assert!(!told.done);
    }
}

async fn works(api: &Api, words: &str) {
    ready(api, "echo").await;
    Stream::open(api, &question("echo", words)).await.unwrap().rest().await.unwrap().must_be(words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_runners_clients_are_told_within_a_second_and_it_comes_back() {
    let (mut cluster, leader, [at, other]) = three().await;
    let id = cluster.id(at).await;
    let apis = [cluster.api(leader).await, cluster.api(at).await, cluster.api(other).await];
    let instance = place_echo(&apis[0], "echo", &[id], SLOW).await;
    let streams = under_way(&[&apis[0], &apis[1], &apis[2]], &words(1000)).await;

    let node = cluster.node(at).pid().expect("it runs");
    let runners = runners_of(node);
    assert_eq!(runners.len(), 1, "one runner of one node");
    let killed = Instant::now();
    kill(runners[0]);
    all_fail(streams, killed, TOLD_WITHIN, &["runner_failed"]).await;
    for api in &apis {
        no_tasks(api).await;
    }
    until("another process runs it", SOON, async || match runners_of(node)[..] {
        [process] if process != runners[0] => Ok(()),
        ref others => Err(format!("{others:?}")),
    })
    .await;
    assert_eq!(ready(&apis[2], "echo").await, instance, "the same instance");
    println!("ready again after {:?}", killed.elapsed());
    for api in &apis {
        works(api, "here again").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_models_node_is_killed_its_clients_are_told_once_it_is_lost() {
    let (mut cluster, leader, [at, other]) = three().await;
    let id = cluster.id(at).await;
    let apis = [cluster.api(leader).await, cluster.api(other).await];
    place_echo(&apis[0], "echo", &[id], SLOW).await;
    let streams = under_way(&[&apis[0], &apis[1]], &words(2000)).await;
    let runners = runners_of(cluster.node(at).pid().expect("it runs"));

    let killed = Instant::now();
    cluster.kill(at).await;
    all_fail(streams, killed, LOST_WITHIN, &["node_gone"]).await;
    for api in &apis {
        no_tasks(api).await;
    }
    until("its runner is gone too", SOON, async || {
        let lives = runners.iter().any(|runner| std::path::Path::new(&format!("/proc/{runner}")).exists());
        if lives { Err("it lives") } else { Ok(()) }
    })
    .await;
    cluster.start(at).ready(SOON).await;
    let api = cluster.api(at).await;
    works(&api, "here again").await;
    works(&apis[0], "here again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_between_others_go_on_when_the_leader_is_killed() {
    let (mut cluster, leader, [at, other]) = three().await;
    let id = cluster.id(at).await;
    let apis = [cluster.api(at).await, cluster.api(other).await];
    place_echo(&apis[0], "echo", &[id], SLOW).await;
    ready(&apis[1], "echo").await;
    let all = words(400);
    let streams = under_way(&[&apis[0], &apis[1]], &all).await;
    cluster.kill(leader).await;
    for stream in streams {
        let mut told = stream.rest().await.unwrap();
        told.pieces.insert(0, "w0".into());
        told.must_be(&all);
    }
    for api in &apis {
        no_tasks(api).await;
    }
    works(&apis[1], "under another leader").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_node_that_was_asked_is_killed_its_tasks_go() {
    let (mut cluster, leader, [at, other]) = three().await;
    let id = cluster.id(at).await;
    let apis = [cluster.api(leader).await, cluster.api(other).await];
    place_echo(&apis[0], "echo", &[id], SLOW).await;
    ready(&apis[1], "echo").await;
    let streams = under_way(&[&apis[1]], &words(3000)).await;
    cluster.kill(other).await;
    for stream in streams {
        assert!(stream.rest().await.is_err(), "its connection broke");
    }
    no_tasks(&apis[0]).await;
    works(&apis[0], "for others").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_ends_its_streams_and_its_runners() {
    let (mut cluster, leader, [at, _]) = three().await;
    let id = cluster.id(at).await;
    let (api, here) = (cluster.api(leader).await, cluster.api(at).await);
    place_echo(&api, "echo", &[id], SLOW).await;
    ready(&here, "echo").await;
    let streams = under_way(&[&here, &api], &words(1000)).await;
    let runners = runners_of(cluster.node(at).pid().expect("it runs"));
    assert_eq!(runners.len(), 1);
    let node = cluster.take(at);
    let asked = Instant::now();
    let told = all_fail(streams, asked, TOLD_WITHIN, &["leaving", "runner_failed"]);
    let ((), ()) = tokio::join!(told, node.interrupt());
    println!("stopped after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(3));
    assert!(!std::path::Path::new(&format!("/proc/{}", runners[0])).exists(), "no process is left");
}
