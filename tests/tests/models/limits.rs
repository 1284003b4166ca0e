//! What is long or slow: answers longer than anybody reads at once, and requests that never come whole.

use lockstep_tests::api::Api;
use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::inference::{Stream, no_tasks, place_echo, question, ready, words};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// A node answers so many clients at a time.
const PLACES: usize = 512;

/// Two nodes, and `echo` on the first.
async fn two() -> (Cluster, [Api; 2]) {
    let mut cluster = Cluster::founded_by(2).await;
    cluster.all_ready(SOON).await;
    let id = cluster.id(0).await;
    let apis = [cluster.api(0).await, cluster.api(1).await];
    place_echo(&apis[0], "echo", &[id], &[]).await;
    ready(&apis[1], "echo").await;
    (cluster, apis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_that_is_made_faster_than_it_is_read_comes_whole() {
    let (_cluster, apis) = two().await;
    let words = words(40_000);
    for api in &apis {
        let mut asked = question("echo", &words);
        asked["max_tokens"] = json!(100_000);
        let mut stream = Stream::open(api, &asked).await.unwrap();
        let (_, first) = stream.piece().await.unwrap();
        // Its runner has said all before more of it is read.
        no_tasks(api).await;
        let mut told = stream.rest().await.unwrap();
        told.pieces.insert(0, first);
        println!("{} pieces", told.pieces.len());
        told.must_be(&words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_come_whole_keep_nobody_from_an_answer() {
    let (_cluster, apis) = two().await;
    let mut halves = Vec::new();
    for _ in 0..PLACES + 8 {
        let mut half = TcpStream::connect(apis[0].address()).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: 16000000\r\n\r\n{{\"model\":",
            apis[0].address()
        );
        half.write_all(head.as_bytes()).await.unwrap();
        halves.push(half);
    }
    let stream = Stream::open(&apis[0], &question("echo", "still here")).await.unwrap();
    stream.rest().await.unwrap().must_be("still here");
}
