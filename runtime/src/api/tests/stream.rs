//! Many commands over one connection.

use futures::StreamExt as _;
use reqwest::Body;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::fake::Order;
use super::*;

impl Api {
    fn stream(&self, body: impl Into<Body>) -> RequestBuilder {
        self.post("/v1/commands").header("content-type", "application/x-ndjson").body(body)
    }
}

async fn lines(request: RequestBuilder) -> Vec<Value> {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), "application/x-ndjson");
    response.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_line_gets_a_line_in_order_and_mistakes_do_not_end_the_stream() {
    let api = Api::start().await;
    let named = json!({ "id": "key", "command": card("b") });
    let bad_key = json!({ "id": "", "command": card("b") });
    let text = format!("{}\n\nno json\n{}\r\n{}\n{named}\n{bad_key}\n{}", card("a"), refused(), named, card("c"));
    let replies = lines(api.stream(text)).await;
    let results: Vec<&str> = replies.iter().map(|reply| reply["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["done", "error", "refused", "done", "done", "error", "done"]);
    assert_eq!((&replies[1]["line"], &replies[1]["code"]), (&json!(3), &json!("malformed_json")));
    assert!(replies[1]["reason"].as_str().unwrap().ends_with("at column 1."), "{}", replies[1]);
    assert_eq!(replies[4]["because"], "done_before");
    assert_eq!((&replies[5]["line"], &replies[5]["code"]), (&json!(7), &json!("bad_key")));
    let indexes: Vec<u64> = replies.iter().filter_map(|reply| reply["index"].as_u64()).collect();
    assert_eq!(indexes, [2, 3, 3, 4]);
    let ids = replies.iter().filter(|reply| reply["result"] != "error");
    assert!(ids.into_iter().all(|reply| reply["id"].as_str().is_some_and(|id| id.len() == 32)));
    assert_eq!(lines(api.stream("")).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_line_over_the_limit_gets_an_error_and_the_next_one_is_done() {
    let api = Api::start().await;
    let text = format!("{}\n{}\n", "x".repeat((1 << 20) + 1), card("a"));
    let replies = lines(api.stream(text)).await;
    assert_eq!((&replies[0]["code"], &replies[0]["line"]), (&json!("too_large"), &json!(1)));
    assert_eq!(replies[1]["result"], "done");
}

#[tokio::test]
async fn replies_come_while_the_client_still_sends() {
    let api = Api::start().await;
    let (sender, body) = mpsc::channel::<Result<String, std::io::Error>>(4);
    let request = api.stream(Body::wrap_stream(ReceiverStream::new(body)));
    let mut replies = request.send().await.unwrap().bytes_stream();
    for model in ["a", "b", "c"] {
        // In two parts, neither of which is a line.
        let text = format!("{}\n", card(model));
        let (first, second) = text.split_at(10);
        sender.send(Ok(first.into())).await.unwrap();
        sender.send(Ok(second.into())).await.unwrap();
        let reply: Value = serde_json::from_slice(&replies.next().await.unwrap().unwrap()).unwrap();
        assert_eq!(reply["result"], "done");
    }
    drop(sender);
    assert!(replies.next().await.is_none());
}

#[tokio::test]
async fn no_more_than_a_window_of_commands_waits_and_all_are_answered() {
    let api = Api::start().await;
    api.node.tell(Order::Hold(true));
    let line = |n: usize| format!("{{\"id\":\"{n}\",\"command\":{}}}\n", card(&(n % 100).to_string()));
    let text: String = (0..10_000).map(line).collect();
    let exchange = tokio::spawn(lines(api.stream(text)));
    while api.read("/v1/commands?key=4095").await.0 != 200 {}
    assert_eq!(api.read("/v1/commands?key=4096").await.0, 404, "it is not handed in yet");
    api.node.tell(Order::Hold(false));
    let replies = exchange.await.unwrap();
    let indexes: Vec<u64> = replies.iter().map(|reply| reply["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, (2..10_002).collect::<Vec<_>>());
}

#[tokio::test]
async fn commands_of_a_client_that_hung_up_are_still_accounted_for() {
    let api = Api::start().await;
    api.node.tell(Order::Hold(true));
    let text = format!("{{\"id\":\"k\",\"command\":{}}}\n", card("a"));
    let (sender, body) = mpsc::channel::<Result<String, std::io::Error>>(4);
    sender.send(Ok(text)).await.unwrap();
    let replies = api.stream(Body::wrap_stream(ReceiverStream::new(body))).send().await.unwrap();
    while api.read("/v1/commands?key=k").await.1["result"] != "pending" {}
    drop((sender, replies));
    api.node.tell(Order::Answer(lockstep_replication::Outcome::NotTaken(lockstep_replication::io::NotTaken::Full)));
    api.node.tell(Order::Hold(false));
    while api.read("/v1/commands?key=k").await.1["result"] != "not_taken" {}
}

#[tokio::test]
async fn a_stream_that_only_waits_for_its_client_ends_with_the_process() {
    let mut api = Api::start().await;
    let (sender, body) = mpsc::channel::<Result<String, std::io::Error>>(4);
    sender.send(Ok(format!("{}\n", card("a")))).await.unwrap();
    let response = api.stream(Body::wrap_stream(ReceiverStream::new(body))).send().await.unwrap();
    let mut replies = response.bytes_stream();
    assert!(replies.next().await.unwrap().is_ok());
    api.shutdown.cancel();
    assert!(replies.next().await.is_none());
    tokio::time::timeout(std::time::Duration::from_secs(5), &mut api.served.task).await.unwrap().unwrap();
    drop(sender);
}

#[tokio::test]
async fn streams_and_followers_have_their_share_of_places_and_others_get_through() {
    let api = Api::start().await;
    let mut streams = Vec::new();
    for _ in 0..128 {
        let (sender, body) = mpsc::channel::<Result<String, std::io::Error>>(4);
        let response = api.stream(Body::wrap_stream(ReceiverStream::new(body))).send().await.unwrap();
        assert_eq!(response.status(), 200);
        streams.push((sender, response));
    }
    let (status, code, _) = error(api.stream("")).await;
    assert_eq!((status, code.as_str()), (503, "too_many_streams"));
    let mut followers = Vec::new();
    for _ in 0..256 {
        followers.push(api.get("/v1/events?follow=true").send().await.unwrap());
    }
    let (status, code, _) = error(api.get("/v1/events?follow=true")).await;
    assert_eq!((status, code.as_str()), (503, "too_many_followers"));
    assert_eq!(api.command(&card("a")).await.0, 200);
    // What ends makes place.
    streams.clear();
    while api.stream("").send().await.unwrap().status() != 200 {}
}

#[tokio::test]
async fn a_key_header_cannot_name_a_stream() {
    let api = Api::start().await;
    let (status, code, _) = error(api.stream("").header("idempotency-key", "k")).await;
    assert_eq!((status, code.as_str()), (400, "key_for_many"));
}

/// Prints how fast it was: against this node, which decides and applies in memory, that is the API's own cost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_is_answered_whole() {
    const COMMANDS: usize = 50_000;
    let api = Api::start().await;
    let mut text = String::new();
    for command in lockstep_inference::workload::Workload::new(1).take(COMMANDS) {
        text.push_str(&serde_json::to_string(&command).unwrap());
        text.push('\n');
    }
    let begun = std::time::Instant::now();
    let replies = api.stream(text).send().await.unwrap().text().await.unwrap();
    println!("{:.0} commands/s", COMMANDS as f64 / begun.elapsed().as_secs_f64());
    assert_eq!(replies.lines().count(), COMMANDS);
    assert!(replies.lines().all(|reply| reply.starts_with("{\"result\":\"done\"")));
}
