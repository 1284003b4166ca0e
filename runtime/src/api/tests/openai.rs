//! The API of OpenAI, against a model that is the test.

use std::time::Duration;

use lockstep_inference::gateway::{Failure, StreamPart};
use lockstep_inference::id::TaskId;
use lockstep_inference::state::TaskKind;
use lockstep_inference::transient::{StopReason, Usage};
use tokio::sync::mpsc::UnboundedSender;

use super::openapi::fits;
use super::*;
use crate::api::openai::QUESTION_BYTES_AT_MOST;

const TOOK: Usage = Usage { prompt_tokens: 3, completion_tokens: 2 };

/// A request to a model that has a card, but no instance: what is opened the test answers.
fn question() -> Value {
    json!({ "model": "acme/small", "messages": [{ "role": "user", "content": "Hello" }] })
}

fn streamed() -> Value {
    let mut question = question();
    question["stream"] = json!(true);
    question
}

impl Api {
    async fn with_model() -> Api {
        let api = Api::start().await;
        let card = json!({ "name": "Small", "weights_bytes": 1, "layers": 1, "context_tokens": 77 });
        let command = json!({ "add_card": { "model": "acme/small", "card": card } });
        assert_eq!(api.command(&command).await.0, 200);
        api
    }

    fn ask(&self, question: &Value) -> RequestBuilder {
        fits(question, "#/components/schemas/ChatRequest", "the question");
        self.post("/v1/chat/completions").json(question)
    }

    /// What a model was asked: the kind, the input, the task, and where the answer goes.
    async fn opened(&mut self) -> (TaskKind, Value, TaskId, UnboundedSender<StreamPart>) {
        match soon(self.asks.recv()).await {
            Some(Ask::Open { model, kind, input, task, parts, .. }) => {
                assert_eq!(&*model.0, "acme/small");
                (kind, serde_json::from_slice(&input).unwrap(), task, parts)
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it comes soon")
}

fn answer_all(parts: &UnboundedSender<StreamPart>, last: StreamPart) {
    for text in ["Good ", "day"] {
        parts.send(StreamPart::Text(text.into())).unwrap();
    }
    parts.send(last).unwrap();
}

fn end() -> StreamPart {
    StreamPart::End { stop: StopReason::Stop, usage: TOOK }
}

/// The data of a stream's events.
fn data(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| line.strip_prefix("data: ").expect("events have data alone").to_owned()).collect()
}

fn chunks(text: &str) -> Vec<Value> {
    data(text).iter().filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn a_whole_answer() {
    let mut api = Api::with_model().await;
    let mut asked = question();
    asked["max_tokens"] = json!(5);
    asked["temperature"] = json!(0.5);
    let waiting = tokio::spawn(answer(api.ask(&asked).bearer_auth("any-key-is-taken")));
    let (kind, input, task, parts) = api.opened().await;
    assert_eq!((kind, input), (TaskKind::Chat { max_tokens: 5 }, asked), "the runner gets the request as it came");
    answer_all(&parts, StreamPart::End { stop: StopReason::Length, usage: TOOK });
    let (status, body) = waiting.await.unwrap();
    assert_eq!(status, 200);
    fits(&body, "#/components/schemas/ChatAnswer", "the answer");
    assert_eq!(body["id"], format!("chatcmpl-{task}"));
    assert_eq!(body["choices"][0]["message"]["content"], "Good day");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["total_tokens"], 5);
}

#[tokio::test]
async fn a_streamed_answer() {
    let mut api = Api::with_model().await;
    let waiting = tokio::spawn(api.ask(&streamed()).send());
    let (kind, _, task, parts) = api.opened().await;
    assert_eq!(kind, TaskKind::Chat { max_tokens: 77 }, "as much as the model can hold");
    answer_all(&parts, end());
    let response = waiting.await.unwrap().unwrap();
    assert_eq!(header(&response, "content-type"), "text/event-stream");
    let text = response.text().await.unwrap();
    assert_eq!(data(&text).last().unwrap(), "[DONE]");
    let chunks = chunks(&text);
    for chunk in &chunks {
        fits(chunk, "#/components/schemas/ChatChunk", "a chunk");
        assert_eq!(chunk["id"], format!("chatcmpl-{task}"));
        assert_eq!(chunk.get("usage"), None, "nobody asked for it");
    }
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let first = json!({ "role": "assistant", "content": "" });
    assert_eq!(deltas, [&first, &json!({ "content": "Good " }), &json!({ "content": "day" }), &json!({})]);
    let reasons: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    assert_eq!(reasons, [&Value::Null, &Value::Null, &Value::Null, &json!("stop")]);
}

#[tokio::test]
async fn who_asks_for_the_usage_of_a_stream_gets_it_at_the_end() {
    let mut api = Api::with_model().await;
    let mut asked = streamed();
    asked["stream_options"] = json!({ "include_usage": true });
    let waiting = tokio::spawn(api.ask(&asked).send());
    answer_all(&api.opened().await.3, end());
    let text = waiting.await.unwrap().unwrap().text().await.unwrap();
    assert_eq!(data(&text).last().unwrap(), "[DONE]");
    let chunks = chunks(&text);
    let (last, others) = chunks.split_last().unwrap();
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk["choices"].as_array().unwrap().len() == 1));
    assert_eq!((&last["choices"], &last["usage"]["prompt_tokens"]), (&json!([]), &json!(3)));
}

#[tokio::test]
async fn a_failure_is_an_http_error_before_the_first_part_and_an_event_after_it() {
    let mut api = Api::with_model().await;
    for asked in [question(), streamed()] {
        let waiting = tokio::spawn(error(api.ask(&asked)));
        api.opened().await.3.send(StreamPart::Failed(Failure::Runner("the runner crashed".into()))).unwrap();
        assert_eq!(waiting.await.unwrap(), (502, "runner_failed".into(), "The runner crashed.".into()));
    }
    let waiting = tokio::spawn(error(api.ask(&question())));
    answer_all(&api.opened().await.3, StreamPart::Failed(Failure::TaskGone));
    assert_eq!(waiting.await.unwrap().0, 410);

    let waiting = tokio::spawn(api.ask(&streamed()).send());
    answer_all(&api.opened().await.3, StreamPart::Failed(Failure::Runner("the runner crashed".into())));
    let response = waiting.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    assert!(!text.contains("[DONE]"), "{text}");
    let last = chunks(&text).pop().unwrap();
    fits(&last, "#/components/schemas/Error", "the last event");
    assert_eq!((&last["error"]["code"], &last["error"]["type"]), (&json!("runner_failed"), &json!("server_error")));
}

#[tokio::test]
async fn a_client_that_goes_away_calls_its_task_off() {
    let mut api = Api::with_model().await;
    // Before the first part, and after it.
    for first in [None, Some("Good ")] {
        let client = Client::new();
        let waiting = tokio::spawn(client.post(api.url("/v1/chat/completions")).json(&streamed()).send());
        let (.., parts) = api.opened().await;
        if let Some(first) = first {
            parts.send(StreamPart::Text(first.into())).unwrap();
            let mut response = soon(waiting).await.unwrap().unwrap();
            assert!(soon(response.chunk()).await.unwrap().is_some());
            drop(response);
        } else {
            waiting.abort();
        }
        let closed = async {
            loop {
                match api.asks.recv().await.unwrap() {
                    Ask::Closed { .. } => return,
                    Ask::Taken { .. } => {}
                    other @ (Ask::Open { .. } | Ask::Traces { .. }) => panic!("{other:?}"),
                }
            }
        };
        soon(closed).await;
        assert!(parts.is_closed());
    }
}

#[tokio::test]
async fn what_a_client_does_not_read_is_not_taken() {
    let mut api = Api::with_model().await;
    let waiting = tokio::spawn(api.ask(&streamed()).send());
    let (.., parts) = api.opened().await;
    const PARTS: u64 = 4096;
    for _ in 0..PARTS {
        parts.send(StreamPart::Text("x".repeat(16 << 10))).unwrap();
    }
    let response = waiting.await.unwrap().unwrap();
    // As much as the sockets hold, and no more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut taken = 0;
    while let Ok(ask) = api.asks.try_recv() {
        match ask {
            Ask::Taken { chunks, .. } => taken += chunks,
            other @ (Ask::Open { .. } | Ask::Closed { .. } | Ask::Traces { .. }) => panic!("{other:?}"),
        }
    }
    assert!(taken < PARTS, "{taken}");
    parts.send(end()).unwrap();
    let text = soon(response.text()).await.unwrap();
    assert_eq!(chunks(&text).len() as u64, PARTS + 2);
}

#[tokio::test]
async fn bad_requests_are_refused_before_a_model_hears_of_them() {
    let mut api = Api::with_model().await;
    let with = |name: &str, value: Value| {
        let mut question = question();
        question[name] = value;
        api.post("/v1/chat/completions").json(&question)
    };
    let (status, body) = answer(with("n", json!(2))).await;
    assert_eq!((status.as_u16(), &body["error"]["param"]), (400, &json!("n")));
    fits(&body, "#/components/schemas/Error", "the error");
    let (status, code, message) = error(with("model", json!("no/such"))).await;
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    assert!(message.contains("no/such"), "{message}");
    let post = || api.post("/v1/chat/completions");
    assert_eq!(error(post().json(&json!({}))).await.0, 400);
    assert_eq!(error(post().header("content-type", "application/json").body("{")).await.1, "malformed_json");
    assert_eq!(error(post().body("{}")).await.0, 415);
    assert_eq!(error(api.get("/v1/chat/completions")).await.0, 405);
    let long = vec![b' '; QUESTION_BYTES_AT_MOST + 1];
    let (status, _, message) = error(post().header("content-type", "application/json").body(long)).await;
    assert!(status == 413 && message.contains(&QUESTION_BYTES_AT_MOST.to_string()), "{status} {message}");
    let origin = with("n", json!(1)).header("origin", "http://evil.example");
    assert_eq!(error(origin).await.0, 403);
    api.node.view(|view| view.ready = false).await;
    assert_eq!(error(with("n", json!(1))).await.1, "not_ready");
    assert!(api.asks.try_recv().is_err());
}

#[tokio::test]
async fn a_long_request_arrives_whole() {
    let mut api = Api::with_model().await;
    let picture = format!("data:image/png;base64,{}", "A".repeat(15 << 20));
    let mut asked = question();
    asked["messages"][0]["content"] =
        json!([{ "type": "text", "text": "What is it?" }, { "type": "image_url", "image_url": { "url": picture } }]);
    let waiting = tokio::spawn(answer(api.ask(&asked)));
    let (_, input, _, parts) = api.opened().await;
    assert!(input == asked);
    answer_all(&parts, end());
    assert_eq!(waiting.await.unwrap().0, 200);
}

#[tokio::test]
async fn too_many_long_requests_at_once_are_put_off() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let api = Api::with_model().await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        api.served.address, QUESTION_BYTES_AT_MOST
    );
    let begin = async || {
        let mut stream = tokio::net::TcpStream::connect(api.served.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    // Who only announces a long body takes no room.
    let mut slow = Vec::new();
    for _ in 0..16 {
        slow.push(begin().await);
    }
    // These send theirs, but for the last byte.
    let body = vec![b' '; QUESTION_BYTES_AT_MOST - 1];
    for stream in &mut slow[..8] {
        stream.write_all(&body).await.unwrap();
    }
    let (mut last, mut start) = (begin().await, [0; 12]);
    for _ in 0..32 {
        last.write_all(&body[..64 << 10]).await.unwrap();
        if tokio::time::timeout(Duration::from_millis(50), last.read_exact(&mut start)).await.is_ok() {
            break;
        }
    }
    assert_eq!(&start, b"HTTP/1.1 429");
}

#[tokio::test]
async fn an_answer_is_called_off_by_its_name() {
    let mut api = Api::with_model().await;
    let node = api.node.handle().now().view.me;
    let commands = [
        json!({ "set_node_info": { "node": node, "info": { "name": "one" } } }),
        json!({ "create_instance": { "model": "acme/small", "nodes": [node] } }),
    ];
    for command in &commands {
        assert_eq!(api.command(command).await.0, 200, "{command}");
    }
    let waiting = tokio::spawn(answer(api.ask(&question())));
    let (_, _, task, parts) = api.opened().await;
    let hash = "00".repeat(32);
    let input = json!({ "hash": hash, "bytes": 1 });
    let create = json!({ "create_task": {
        "task": task, "model": "acme/small", "kind": { "chat": { "max_tokens": 1 } }, "input": input,
    } });
    assert_eq!(api.command(&create).await.0, 200);

    let name = format!("chatcmpl-{task}");
    let cancel = |id: &str| api.post(&format!("/v1/chat/completions/{id}/cancel")).json(&json!({}));
    let (status, body) = answer(cancel(&name)).await;
    assert_eq!(
        (status.as_u16(), body),
        (200, json!({ "id": name, "object": "chat.completion.cancelled", "cancelled": true }))
    );
    let published = api.node.handle().now();
    assert!(published.replica.state().tasks.get(&task).is_none());
    assert_eq!(error(cancel(&name)).await.1, "unknown_task");
    assert_eq!(error(cancel("chatcmpl-7")).await.1, "bad_id");
    parts.send(StreamPart::Failed(Failure::TaskGone)).unwrap();
    assert_eq!(waiting.await.unwrap().0, 410);

    let (_, models) = api.read("/v1/models").await;
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("acme/small")));
    fits(&models["data"][0], "#/components/schemas/Model", "a model");
    for path in ["/v1/models/acme/small", "/v1/models/acme%2Fsmall"] {
        assert_eq!(api.read(path).await, (StatusCode::OK, models["data"][0].clone()));
    }
    assert_eq!(error(api.get("/v1/models/acme/large")).await.1, "model_not_found");
}

#[tokio::test]
async fn when_the_work_ends_its_clients_are_told() {
    let mut api = Api::with_model().await;
    for asked in [question(), streamed()] {
        let waiting = tokio::spawn(error(api.ask(&asked)));
        drop(api.opened().await);
        assert_eq!(waiting.await.unwrap().0, 503);
    }
}
