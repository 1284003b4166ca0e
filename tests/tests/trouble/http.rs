//! Requests that no client should send, against a real node: each is refused with a reason, and nothing changes.

use std::time::{Duration, Instant};

use lockstep_tests::api::{Answer, Api, add_card};
use lockstep_tests::cluster::SOON;
use lockstep_tests::node::{Node, Plan};
use reqwest::header::{ALLOW, CONTENT_TYPE, HOST, ORIGIN};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The most bytes of a command, and of a line of many.
const COMMAND_BYTES_AT_MOST: usize = 1 << 20;

/// A head and a body may take half a minute.
const SLOW_HANGS_UP_WITHIN: Duration = Duration::from_secs(40);

/// So many connections that ask for nothing are more than there are places, and few enough that the system lets them wait.
const IDLE: usize = 1100;

/// Somebody who asks is answered within this time all the same. They keep their places for half a minute, were nobody to
/// ask.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What is no HTTP at all is hung up on within this time.
const HANGS_UP_WITHIN: Duration = Duration::from_secs(10);

/// A node that has founded a cluster of its own.
async fn alone() -> (Node, Api, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Plan::new("a", directory.path()).start();
    node.ready(SOON).await;
    let api = node.api().await;
    (node, api, directory)
}

/// The same under a shell that allows few open files until more are asked for, as many systems do.
async fn alone_with_few_files() -> (Node, Api, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut plan = Plan::new("a", directory.path());
    plan.open_files = Some(1024);
    let mut node = plan.start();
    node.ready(SOON).await;
    let api = node.api().await;
    (node, api, directory)
}

/// Sends each request; it must be answered with this status and this code, as JSON with a sentence.
async fn refused(api: &Api, requests: Vec<(RequestBuilder, StatusCode, &str)>) {
    for (number, (request, status, code)) in requests.into_iter().enumerate() {
        let answer = api.send(request).await.unwrap_or_else(|why| panic!("request {number}: {why}"));
        let error = &answer.body["error"];
        assert_eq!((answer.status, &error["code"]), (status, &json!(code)), "request {number}: {}", answer.body);
        assert!(error["message"].as_str().is_some_and(|message| message.ends_with('.')), "{error}");
    }
}

/// The node does as before, and took nothing in.
async fn unharmed(api: &Api, before: (u64, String)) {
    assert_eq!(api.hash().await.unwrap(), before, "what was refused changed nothing");
    let index = api.done("after", &add_card("after"), SOON).await;
    assert!(index >= before.0);
}

#[tokio::test]
async fn another_host_or_origin_is_forbidden_whatever_the_method() {
    let (_node, api, _directory) = alone().await;
    let before = api.hash().await.unwrap();
    let mut requests = Vec::new();
    for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::OPTIONS] {
        for path in [
            "/",
            "/healthz",
            "/v1/state",
            "/v1/events?follow=true",
            "/v1/commands",
            "/v1/chat/completions",
            "/v1/operator/leave",
            "/v1/nodes/00",
            "/metrics",
            "/v1/backup",
        ] {
            let request = || api.request(method.clone(), path).json(&add_card("forbidden"));
            requests.push((request().header(HOST, "evil.example"), StatusCode::FORBIDDEN, "host_not_allowed"));
            for origin in ["https://evil.example", "null", "http://localhost:1"] {
                requests.push((request().header(ORIGIN, origin), StatusCode::FORBIDDEN, "origin_not_allowed"));
            }
        }
    }
    refused(&api, requests).await;
    unharmed(&api, before).await;
    let own = format!("http://{}", api.address());
    let from_its_own_page = api.request(Method::POST, "/v1/commands").header(ORIGIN, own).json(&add_card("own"));
    assert_eq!(api.send(from_its_own_page).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn malformed_and_oversized_bodies_are_refused_with_what_is_wrong() {
    let (_node, api, _directory) = alone().await;
    let before = api.hash().await.unwrap();
    let post =
        |media: &str, body: Vec<u8>| api.request(Method::POST, "/v1/commands").header(CONTENT_TYPE, media).body(body);
    let json = |body: &str| post("application/json", body.into());
    let nested = "[".repeat(100_000);
    let too_large = vec![b' '; COMMAND_BYTES_AT_MOST + 1];
    let (bad, large) = (StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE);
    let requests = vec![
        (json(""), bad, "malformed_json"),
        (json("{"), bad, "malformed_json"),
        (json("null"), bad, "malformed_json"),
        (json(r#"{"reboot": {}}"#), bad, "malformed_json"),
        (json(r#"{"evict_node": {"node": "zz"}}"#), bad, "malformed_json"),
        (json(r#"{"evict_node": {}} {"evict_node": {}}"#), bad, "malformed_json"),
        (json(&nested), bad, "malformed_json"),
        (post("application/json", vec![0xff, 0xfe, 0x00]), bad, "malformed_json"),
        (post("application/json", too_large.clone()), large, "too_large"),
        (post("text/plain", b"{}".to_vec()), StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
        (json("{}").header("Idempotency-Key", "a").header("Idempotency-Key", "b"), bad, "two_keys"),
        (api.request(Method::GET, "/v1/events?since=-1"), bad, "bad_query"),
        (api.request(Method::GET, "/v1/events?limit=99999999999999999999"), bad, "bad_query"),
        (api.request(Method::GET, "/v1/state/%ff"), bad, "bad_path"),
        (api.request(Method::GET, "/v1/state/none"), StatusCode::NOT_FOUND, "no_such_key"),
        (api.request(Method::GET, "/v1/nothing"), StatusCode::NOT_FOUND, "no_such_route"),
        (api.request(Method::DELETE, "/v1/state"), StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
    ];
    refused(&api, requests).await;

    let mut lines = too_large;
    lines.extend_from_slice(b"\n{\"reboot\": {}}\n\xff\n");
    let Answer { status, body } = api.send(post("application/x-ndjson", lines)).await.unwrap();
    let lines: Vec<Value> =
        body.as_str().expect("many answers").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let codes: Vec<_> = lines.iter().map(|line| (line["line"].as_u64(), line["code"].as_str())).collect();
    let malformed = Some("malformed_json");
    assert_eq!(status, StatusCode::OK);
    assert_eq!(codes, [(Some(1), Some("too_large")), (Some(2), malformed), (Some(3), malformed)], "{lines:?}");
    unharmed(&api, before).await;
}

#[tokio::test]
async fn what_is_no_http_is_hung_up_on_and_harms_nobody_else() {
    let (_node, api, _directory) = alone().await;
    let before = api.hash().await.unwrap();
    let endless_head = [b"GET / HTTP/1.1\r\n".to_vec(), b"x: y\r\n".repeat(1 << 16)].concat();
    for bytes in [b"\x00\x01\x02\x03\r\n\r\n".to_vec(), b"POST /v1/commands HTTP/9.9\r\n\r\n".to_vec(), endless_head] {
        let mut socket = TcpStream::connect(api.address()).await.unwrap();
        // It may hang up before all was sent.
        let _ = socket.write_all(&bytes).await;
        let mut answer = Vec::new();
        // A reset is an end too.
        let end = tokio::time::timeout(HANGS_UP_WITHIN, socket.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "still open after {:?}", String::from_utf8_lossy(&bytes[..16]));
    }
    // A request whose body is announced and never comes holds up nobody else.
    let mut silent = TcpStream::connect(api.address()).await.unwrap();
    let head = format!(
        "POST /v1/commands HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n",
        api.address()
    );
    silent.write_all(head.as_bytes()).await.unwrap();
    unharmed(&api, before).await;
    let allowed = api.request(Method::DELETE, "/v1/state").send().await.unwrap();
    assert!(allowed.headers().contains_key(ALLOW), "a wrong method is told which are right");
}

/// Says this, then a byte now and then, until the node hangs up; what it answered.
async fn drip(api: &Api, head: String) -> String {
    let (mut read, mut write) = TcpStream::connect(api.address()).await.unwrap().into_split();
    write.write_all(head.as_bytes()).await.unwrap();
    let drips = tokio::spawn(async move {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut answer = Vec::new();
    let end = tokio::time::timeout(SLOW_HANGS_UP_WITHIN, read.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "it may drip for ever: {head}");
    drips.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_or_a_body_that_drips_is_hung_up_on() {
    let (_node, api, _directory) = alone().await;
    let before = api.hash().await.unwrap();
    let host = api.address();
    let head = format!("GET /v1/state HTTP/1.1\r\nhost: {host}\r\nx-slow: ");
    let json = "content-type: application/json";
    let body = format!("POST /v1/commands HTTP/1.1\r\nhost: {host}\r\n{json}\r\ncontent-length: 100000\r\n\r\n{{");
    let (_, answer) = tokio::join!(drip(&api, head), drip(&api, body));
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"), "{answer}");
    unharmed(&api, before).await;
}

#[tokio::test]
async fn more_connections_than_there_are_places_hold_up_nobody_if_they_ask_for_nothing() {
    let (mut node, api, _directory) = alone_with_few_files().await;
    let before = api.hash().await.unwrap();
    let mut idle = Vec::new();
    for n in 0..IDLE {
        let mut socket = TcpStream::connect(api.address()).await.unwrap();
        if n % 2 == 0 {
            // It may have been hung up on already.
            let _ = socket.write_all(b"GET / HTTP/1.1\r\nhost: ").await;
        }
        idle.push(socket);
    }
    let asked = Instant::now();
    // Not over the connection that stands: a new one has to get a place.
    let fresh = Api::at(api.address());
    fresh.done("meanwhile", &add_card("meanwhile"), ANSWERS_WITHIN).await;
    let took = asked.elapsed();
    println!("answered after {took:?} beside {IDLE} idle connections");
    assert!(took <= ANSWERS_WITHIN, "{took:?}");
    // Files are left for other nodes too.
    let address = node.peer_address().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut joiner =
        Plan { key: node.plan().key.clone(), ..Plan::new("joiner", elsewhere.path()) }.peer(address).start();
    joiner.ready(SOON).await;
    drop(idle);
    assert!(api.hash().await.unwrap().0 > before.0);
}
