//! The log as a list and as a stream.

use std::time::Duration;

use futures::StreamExt as _;
use lockstep_replication::Index;

use super::fake::Order;
use super::*;

/// Reads server-sent events as (name, id, data).
struct Events {
    bytes: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: String,
}

impl Events {
    async fn of(request: RequestBuilder) -> Events {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "text/event-stream");
        Events { bytes: Box::pin(response.bytes_stream()), text: String::new() }
    }

    async fn next(&mut self) -> Option<(String, String, Value)> {
        let limit = Duration::from_secs(10);
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
                let parsed = (field("event: "), field("id: "), field("data: "));
                self.text = rest.to_owned();
                return Some((parsed.0, parsed.1, serde_json::from_str(&parsed.2).unwrap()));
            }
            let bytes = tokio::time::timeout(limit, self.bytes.next()).await.expect("an event comes in time")?;
            self.text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        }
    }
}

async fn with_cards(count: usize) -> Api {
    let api = Api::start().await;
    for n in 0..count {
        assert_eq!(api.command(&card(&n.to_string())).await.0, 200);
    }
    api
}

#[tokio::test]
async fn a_list_has_decoded_entries_between_bounds() {
    let api = with_cards(3).await;
    let (status, list) = api.read("/v1/events").await;
    assert_eq!(status, 200);
    assert_eq!(list.as_array().unwrap().len(), 3, "the log gave three at once");
    assert_eq!((&list[0]["index"], &list[0]["stamp"]), (&json!(0), &json!(1000)));
    assert_eq!(list[0]["body"]["opened"]["session"]["leader"], fake::ME.to_string());
    assert_eq!(list[1]["body"], "backed");
    assert!(list[2]["body"]["decided"]["events"].is_array(), "{}", list[2]);
    let (_, list) = api.read("/v1/events?since=3&limit=1").await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["index"], 3);
    assert_eq!(api.read("/v1/events?since=99").await.1, json!([]));
    assert_eq!(api.read("/v1/events?limit=0").await.1, json!([]));
    assert_eq!(error(api.get("/v1/events?limit=10001")).await.1, "limit_too_high");
    assert_eq!(error(api.get("/v1/events?since=x")).await.1, "bad_query");
}

#[tokio::test]
async fn entries_that_are_gone_are_410_with_the_first_that_is_left() {
    let api = with_cards(3).await;
    api.log.forget_below(3);
    let (status, body) = api.read("/v1/events?since=2").await;
    assert_eq!((status.as_u16(), &body["error"]["code"], &body["error"]["first"]), (410, &json!("gone"), &json!(3)));
    assert_eq!(error(api.get("/v1/events?since=2&follow=true")).await.0, 410);
    assert_eq!(api.read("/v1/events").await.1[0]["index"], 3, "without a bound the list begins with what is left");
}

#[tokio::test]
async fn a_follower_gets_what_is_there_and_what_comes() {
    let api = with_cards(5).await;
    let mut events = Events::of(api.get("/v1/events?since=1&follow=true")).await;
    for index in 1..7 {
        let (name, id, entry) = events.next().await.unwrap();
        assert_eq!((name, id, entry["index"].as_u64()), (String::new(), format!("{index}"), Some(index)));
    }
    api.command(&card("new")).await;
    assert_eq!(events.next().await.unwrap().1, "7");

    let mut newest = Events::of(api.get("/v1/events").header("accept", "text/event-stream")).await;
    api.command(&card("newer")).await;
    assert_eq!(newest.next().await.unwrap().1, "8", "without a bound it begins with what comes");

    let resumed = api.get("/v1/events?since=0&limit=2&follow=true").header("last-event-id", "3");
    let mut resumed = Events::of(resumed).await;
    assert_eq!(resumed.next().await.unwrap().1, "4", "the last event's id wins");
    assert_eq!(resumed.next().await.unwrap().1, "5");
    assert_eq!(resumed.next().await, None, "two were asked for");
    let bad = api.get("/v1/events?follow=true").header("last-event-id", "x");
    assert_eq!(error(bad).await.1, "bad_last_event_id");
}

#[tokio::test]
async fn a_follower_is_told_when_its_branch_lost_and_gets_the_other() {
    let api = with_cards(4).await;
    let mut events = Events::of(api.get("/v1/events?since=4&follow=true")).await;
    assert_eq!(events.next().await.unwrap().1, "4");
    assert_eq!(events.next().await.unwrap().1, "5");
    api.node.tell(Order::Rewind(3));
    let (name, _, data) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &data["next"]), ("rewound", &json!(3)));
    let (_, id, entry) = events.next().await.unwrap();
    assert_eq!(id, "3");
    assert_eq!(entry["body"]["opened"]["session"]["clock"], 2);
}

#[tokio::test]
async fn a_follower_whose_next_entry_is_gone_is_told_and_ended() {
    let api = with_cards(1).await;
    let mut events = Events::of(api.get("/v1/events?since=2&follow=true")).await;
    assert_eq!(events.next().await.unwrap().1, "2");
    api.log.forget_below(9);
    api.node.view(|view| view.outbox += 1).await;
    let (name, _, data) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &data["first"]), ("gone", &json!(9)));
    assert_eq!(events.next().await, None);
    assert_eq!(api.node.handle().now().replica.next(), Index(3));
}
