//! One command in, one reply out; and what became of it.

use lockstep_replication::io::{NotTaken, Unknown};
use lockstep_replication::message::Refused;
use lockstep_replication::{Index, Outcome};

use super::fake::Order;
use super::*;

#[tokio::test]
async fn each_outcome_has_its_status_and_its_form() {
    let api = Api::start().await;
    let (status, done) = api.command(&card("m")).await;
    assert_eq!(status, 200);
    let id = done["id"].as_str().unwrap().to_owned();
    assert_eq!(done, json!({ "result": "done", "id": id, "index": 2, "held": 2, "of": 3 }));

    let (status, body) = api.command(&refused()).await;
    assert_eq!((status.as_u16(), &body["result"]), (409, &json!("refused")));
    let kind = "invalid_request_error";
    assert_eq!(body["error"], json!({ "code": body["code"], "message": body["reason"], "type": kind, "param": null }));

    let answered = async |outcome| {
        api.node.tell(Order::Answer(outcome));
        let (status, body) = api.command(&card("m")).await;
        (status.as_u16(), body["result"].as_str().unwrap().to_owned(), body["code"].clone())
    };
    let full = answered(Outcome::NotTaken(NotTaken::Full)).await;
    assert_eq!(full, (503, "not_taken".into(), json!("full")));
    let unknown = answered(Outcome::Unknown(Unknown::TimedOut)).await;
    assert_eq!(unknown, (504, "unknown".into(), json!("timed_out")));
    let long = answered(Outcome::Refused(Refused::TooLong { bytes: 9, limit: 8 })).await;
    assert_eq!(long, (409, "refused".into(), json!("too_long")));
    let nothing = answered(Outcome::Refused(Refused::Nothing(Index(2)))).await;
    assert_eq!(nothing, (200, "done".into(), Value::Null));
}

#[tokio::test]
async fn a_node_that_ends_leaves_its_clients_with_an_answer() {
    let api = Api::start().await;
    api.node.tell(Order::Hold(true));
    let waiting = tokio::spawn(answer(api.post("/v1/commands").header("idempotency-key", "k").json(&card("m"))));
    while api.read("/v1/commands?key=k").await.0 != 200 {}
    api.node.tell(Order::Stop);
    let (status, body) = waiting.await.unwrap();
    assert!((status == 504 && body["code"] == "stopped") || (status == 503 && body["code"] == "leaving"), "{body}");
    let (status, body) = api.command(&card("m")).await;
    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("leaving")));
}

#[tokio::test]
async fn a_key_makes_a_command_safe_to_repeat() {
    let api = Api::start().await;
    let send = |key: &str| answer(api.post("/v1/commands").header("idempotency-key", key).json(&card("m")));
    let (status, first) = send("key").await;
    assert_eq!((status.as_u16(), &first["id"]), (200, &json!("2c70e12b7a0646f92279f427c7b38e73")));
    let (status, again) = send("key").await;
    assert_eq!(status, 200);
    assert_eq!((&again["index"], &again["because"]), (&first["index"], &json!("done_before")));
    assert_eq!(api.node.handle().now().replica.next(), Index(3), "it was done once");
    let wrapped = json!({ "id": "key", "command": card("m") });
    assert_eq!(api.command(&wrapped).await.1["because"], "done_before", "the key may stand in the body");

    for bad in ["", "two words", "schl\u{fc}ssel", &"k".repeat(256)] {
        let request = api.post("/v1/commands").header("idempotency-key", bad).json(&card("m"));
        assert_eq!(error(request).await.1, "bad_key", "{bad:?}");
    }
    let both = api.post("/v1/commands").header("idempotency-key", "other").json(&wrapped);
    assert_eq!(error(both).await.1, "two_keys");
}

#[tokio::test]
async fn what_became_of_a_command_can_be_asked_by_id_and_by_key() {
    let api = Api::start().await;
    let fate = async |path: &str| {
        let (status, body) = api.read(path).await;
        (status.as_u16(), body["result"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(fate("/v1/commands/000102030405060708090a0b0c0d0e0f").await.0, 404);
    assert_eq!(fate("/v1/commands/xyz").await.0, 400);
    assert_eq!(fate("/v1/commands").await.0, 400);

    let (_, done) = api.command(&card("m")).await;
    let by_id = format!("/v1/commands/{}", done["id"].as_str().unwrap());
    assert_eq!(api.read(&by_id).await.1, done);
    let (_, no) = api.command(&refused()).await;
    assert_eq!(fate(&format!("/v1/commands/{}", no["id"].as_str().unwrap())).await, (200, "refused".into()));

    api.node.tell(Order::Hold(true));
    let waiting = tokio::spawn(answer(api.post("/v1/commands").header("idempotency-key", "k").json(&card("n"))));
    while fate("/v1/commands?key=k").await != (200, "pending".into()) {}
    // Its client hangs up; what becomes of it is known all the same.
    waiting.abort();
    api.node.tell(Order::Hold(false));
    assert_eq!(fate("/v1/commands?key=k&at_least=3").await.0, 200);
    while fate("/v1/commands?key=k").await != (200, "done".into()) {}
}

#[tokio::test]
async fn a_command_in_the_log_is_pending_until_promises_reach_it() {
    let api = Api::start().await;
    // Ordered by another node's API: this one learns of it from the log alone.
    let handle = api.node.handle();
    let id = crate::api::names::from_key(b"elsewhere").unwrap();
    let command = serde_json::from_value(card("m")).unwrap();
    handle.command(Some(id), command).await.unwrap().await.unwrap();
    let wanted = json!({ "result": "done", "id": id.to_string(), "index": 2, "held": 2, "of": 3 });
    assert_eq!(api.read("/v1/commands?key=elsewhere&at_least=2").await.1, wanted);
    api.node.view(|view| view.done = None).await;
    let wanted = json!({ "result": "pending", "id": id.to_string(), "index": 2 });
    assert_eq!(api.read("/v1/commands?key=elsewhere").await.1, wanted);
}

#[tokio::test]
async fn what_a_command_creates_is_named_after_it() {
    let api = Api::start().await;
    api.command(&card("m")).await;
    let create = json!({ "create_instance": { "model": "m", "nodes": [fake::ME] } });
    let named = json!({ "set_node_info": { "node": fake::ME, "info": { "name": "one", "memory_bytes": 1 << 30 } } });
    assert_eq!(api.command(&named).await.0, 200);
    let (status, done) = api.command(&create).await;
    assert_eq!(status, 200, "{done}");
    let instances = api.read("/v1/state/instances").await.1;
    assert!(instances.get(done["id"].as_str().unwrap()).is_some(), "{instances}");
}

#[tokio::test]
async fn what_is_no_command_is_refused_with_the_place() {
    let api = Api::start().await;
    let post =
        |media: &'static str, body: &str| api.post("/v1/commands").header("content-type", media).body(body.to_owned());
    let (status, code, message) = error(post("application/json", "{\n  \"add_card\": 7}")).await;
    assert_eq!((status, code.as_str()), (400, "malformed_json"));
    assert!(message.contains("line 2 column"), "{message}");
    assert_eq!(error(post("application/json", "")).await.1, "malformed_json");
    for media in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let (status, code, _) = error(post(media, &card("m").to_string())).await;
        assert_eq!((status, code.as_str()), (415, "unsupported_media_type"), "{media}");
    }
    assert_eq!(error(api.post("/v1/commands")).await.0, 415);
    let (status, code, _) = error(post("application/json", &" ".repeat((1 << 20) + 1))).await;
    assert_eq!((status, code.as_str()), (413, "too_large"));
    let deep = "[".repeat(100_000);
    assert_eq!(error(post("application/json", &deep)).await.0, 400, "deep nesting is an error, not a crash");
}
