//! The runner against a server of the test's own: answers, and all the ways not to answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use lockstep_inference::runner::{FromRunner, ToRunner};
use lockstep_inference::transient::{StopReason, Usage};
use serde_json::Value;

use super::OpenAi;
use crate::runners::builtin::tests::{Talk, names};
use crate::runners::tests::{TASK, card, chat, hello};

/// What a server answers to a chat.
#[derive(Clone, Debug)]
enum Behaviour {
    /// These pieces, a moment apart, as a stream of events.
    Pieces(Vec<String>),
    /// These pieces, then the connection breaks.
    Cut(Vec<String>),
    /// These pieces, then nothing more comes, and it does not end.
    Stuck(Vec<String>),
    /// This status and body.
    Status(u16, &'static str),
}

/// What it was asked.
type Asked = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

fn token(text: &str) -> String {
    event(&format!(r#"{{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}, "finish_reason": null}}]}}"#))
}

fn finish(reason: &str) -> String {
    event(&format!(r#"{{"choices": [{{"index": 0, "delta": {{}}, "finish_reason": "{reason}"}}]}}"#))
}

fn usage() -> String {
    event(r#"{"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}}"#)
}

async fn serve_as(behaviour: Behaviour) -> (SocketAddr, Asked) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let chat = move |request: Request| {
        let (behaviour, seen) = (behaviour.clone(), Arc::clone(&seen));
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            seen.lock().unwrap().push((head.headers, serde_json::from_slice(&body).unwrap()));
            answer(behaviour)
        }
    };
    let models = || async { axum::Json(serde_json::json!({"object": "list", "data": []})) };
    let routes = Router::new().route("/v1/models", get(models)).route("/v1/chat/completions", post(chat));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, asked)
}

fn answer(behaviour: Behaviour) -> Response {
    let paced = |pieces: Vec<String>| {
        stream::iter(pieces).then(|piece| async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Ok::<_, std::io::Error>(Bytes::from(piece))
        })
    };
    let body = match behaviour {
        Behaviour::Status(status, body) => return (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Behaviour::Pieces(pieces) => Body::from_stream(paced(pieces)),
        Behaviour::Cut(pieces) => Body::from_stream(paced(pieces).chain(stream::once(async {
            // The pieces are on their way by then.
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(std::io::Error::other("cut"))
        }))),
        Behaviour::Stuck(pieces) => Body::from_stream(paced(pieces).chain(stream::pending())),
    };
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response()
}

/// A runner of this server that takes tasks.
async fn ready(address: SocketAddr, more: &[(&str, &str)]) -> Talk {
    let url = format!("http://{address}/v1/");
    let mut settings = vec![("url", url.as_str())];
    settings.extend(more);
    Talk::ready::<OpenAi>(card("openai", &settings)).await
}

async fn failure(talk: &mut Talk) -> (String, String) {
    let (text, reason, request) = fault(talk).await;
    assert!(!request, "the request is not at fault: {reason}");
    (text, reason)
}

/// What came of the answer, why it failed, and whether the request is at fault.
async fn fault(talk: &mut Talk) -> (String, String, bool) {
    talk.tell(&chat(TASK, "hello", 10)).await;
    let (text, said) = talk.answer().await;
    let Some(FromRunner::Failed { reason, request, .. }) = said.last() else { panic!("it did not fail: {said:?}") };
    (text, reason.clone(), *request)
}

#[tokio::test]
async fn an_answer_is_streamed_with_usage_and_traces() {
    let pieces = vec![": ping\n\n".into(), token("Hel"), token("lo"), finish("stop"), usage(), event("[DONE]")];
    let (address, asked) = serve_as(Behaviour::Pieces(pieces)).await;
    let mut talk = ready(address, &[("model", "theirs")]).await;
    talk.tell(&chat(TASK, "hello", 10)).await;
    let (text, said) = talk.answer().await;
    assert_eq!(text, "Hello");
    assert_eq!(said[0], FromRunner::Started { task: TASK });
    let mut traced = Vec::new();
    for message in &said {
        if let FromRunner::Trace { spans, .. } = message {
            traced.extend(names(spans));
        }
    }
    assert_eq!(traced, ["prefill", "decode"]);
    let usage = Usage { prompt_tokens: 11, completion_tokens: 2 };
    assert_eq!(said.last(), Some(&FromRunner::Done { task: TASK, stop: StopReason::Stop, usage }));
    let asked = asked.lock().unwrap();
    let (headers, body) = &asked[0];
    assert!(headers.get(header::AUTHORIZATION).is_none(), "no key was named");
    assert_eq!((&body["model"], &body["stream"]), (&"theirs".into(), &true.into()));
    assert_eq!(body["stream_options"]["include_usage"], true);
    assert_eq!(body["messages"][0]["content"], "hello", "what the client wrote is handed on");
}

#[tokio::test]
async fn pieces_that_end_within_events_and_servers_that_do_not_count_are_understood() {
    let whole = format!("{}{}{}", token("ä"), token("b"), finish("length")).replace('\n', "\r\n");
    let bytes = whole.len();
    let pieces = (0..bytes).filter(|at| whole.is_char_boundary(*at)).map(|at| {
        let end = (at + 1..=bytes).find(|end| whole.is_char_boundary(*end)).unwrap();
        whole[at..end].to_owned()
    });
    let (address, asked) = serve_as(Behaviour::Pieces(pieces.collect())).await;
    let mut talk = ready(address, &[]).await;
    talk.tell(&chat(TASK, "hello", 2)).await;
    let (text, said) = talk.answer().await;
    assert_eq!(text, "äb");
    let usage = Usage { prompt_tokens: 0, completion_tokens: 2 };
    assert_eq!(said.last(), Some(&FromRunner::Done { task: TASK, stop: StopReason::Length, usage }));
    assert_eq!(asked.lock().unwrap()[0].1["model"], "acme/small", "the model's own id, where the card names no other");
}

#[tokio::test]
async fn http_errors_are_told_with_what_the_server_says() {
    let body = r#"{"error": {"message": "the model `x` does not exist", "type": "invalid_request_error"}}"#;
    for (behaviour, expected) in [
        (Behaviour::Status(404, body), "answered 404 Not Found: the model `x` does not exist"),
        (Behaviour::Status(500, "it\nburns"), "answered 500 Internal Server Error: it burns"),
        (Behaviour::Status(503, ""), "answered 503 Service Unavailable"),
        (Behaviour::Status(307, ""), "answered 307 Temporary Redirect"),
        (Behaviour::Status(200, "{}"), "did not answer with a stream of events, but with text/plain; charset=utf-8"),
    ] {
        let (address, _) = serve_as(behaviour).await;
        let mut talk = ready(address, &[]).await;
        let expected = format!("the server at http://{address}/v1 {expected}");
        assert_eq!(failure(&mut talk).await, (String::new(), expected));
        assert_eq!(talk.end().await, Ok(()), "the runner goes on");
    }
}

#[tokio::test]
async fn a_request_that_the_server_will_not_have_is_at_fault() {
    let body = r#"{"error": {"message": "the prompt has too many tokens"}}"#;
    for status in [400, 413, 415, 422] {
        let (address, _) = serve_as(Behaviour::Status(status, body)).await;
        let mut talk = ready(address, &[]).await;
        let (_, reason, request) = fault(&mut talk).await;
        assert!(request && reason.ends_with(": the prompt has too many tokens"), "{status}: {reason}");
        assert_eq!(talk.end().await, Ok(()), "the runner goes on");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_keeps_what_came_and_fails() {
    let cut = "broke off in the middle of its answer";
    for (behaviour, expected) in [
        (Behaviour::Cut(vec![token("Hel")]), cut),
        (Behaviour::Pieces(vec![token("Hel")]), "broke off in the middle of its answer: it just ended"),
        (
            Behaviour::Pieces(vec![token("Hel"), event(r#"{"error": {"message": "out of memory"}}"#)]),
            "broke off in the middle of its answer: out of memory",
        ),
        (Behaviour::Pieces(vec![token("Hel"), event("{nonsense")]), "sent an event that is no JSON"),
    ] {
        let (address, _) = serve_as(behaviour).await;
        let mut talk = ready(address, &[]).await;
        let (text, reason) = failure(&mut talk).await;
        assert_eq!(text, "Hel");
        assert!(reason.starts_with(&format!("the server at http://{address}/v1 {expected}")), "{reason}");
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_fails_the_task() {
    for (pieces, text) in [(vec![], ""), (vec![token("Hel")], "Hel")] {
        let (address, _) = serve_as(Behaviour::Stuck(pieces)).await;
        let mut talk = ready(address, &[("timeout_s", "1")]).await;
        let expected = format!("the server at http://{address}/v1 said nothing for 1 s");
        assert_eq!(failure(&mut talk).await, (text.into(), expected));
    }
}

#[tokio::test]
async fn a_server_that_goes_away_refuses_the_next_task() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let models = Router::new().route("/v1/models", get(|| async { Ok::<_, Infallible>("{}") }));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        axum::serve(listener, models).with_graceful_shutdown(async { drop(stopped.await) }).await
    });
    let mut talk = ready(address, &[]).await;
    drop(stop);
    // It lingers on the runner's connection, which waits for more to ask.
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.abort();
    let (_, reason) = failure(&mut talk).await;
    assert!(reason.starts_with(&format!("the server at http://{address}/v1 cannot be reached: ")), "{reason}");
    assert!(reason.contains("refused") || reason.contains("closed"), "{reason}");
}

#[tokio::test]
async fn a_cancelled_task_hangs_up_on_the_server() {
    let (gone, mut told) = tokio::sync::mpsc::unbounded_channel::<()>();
    let chat_route = move || {
        let gone = gone.clone();
        async move {
            let body = stream::unfold(gone, |gone| async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Some((Ok::<_, Infallible>(Bytes::from(token("x"))), gone))
            });
            ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(body))
        }
    };
    let routes =
        Router::new().route("/v1/models", get(|| async { "{}" })).route("/v1/chat/completions", post(chat_route));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    let mut talk = ready(address, &[]).await;
    talk.tell(&chat(TASK, "hello", 10)).await;
    while !matches!(talk.next().await, FromRunner::Token { .. }) {}
    talk.tell(&ToRunner::Cancel { task: TASK }).await;
    server.abort();
    // The route goes with its server; the answer's own sender when the connection is closed.
    let closed = tokio::time::timeout(Duration::from_secs(10), told.recv()).await.expect("it hangs up");
    assert_eq!(closed, None);
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let routes = Router::new().route("/v1/models", get(|| async { "{}" }));
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        axum::serve(listener, routes).await
    });
    ready(address, &[]).await;
    late.abort();
}

#[tokio::test]
async fn a_server_that_cannot_be_had_ends_the_runner() {
    let (address, _) = serve_as(Behaviour::Status(200, "")).await;
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, expected) in [
        (format!("http://{unused}/v1"), format!("the server at http://{unused}/v1 cannot be reached: ")),
        (format!("http://{address}/v2"), format!("the server at http://{address}/v2 answered 404 Not Found")),
    ] {
        let mut talk = Talk::with::<OpenAi>();
        talk.tell(&hello(card("openai", &[("url", &url), ("timeout_s", "1")]), 0, 1)).await;
        talk.tell(&ToRunner::Load).await;
        assert!(matches!(talk.next().await, FromRunner::Hello { .. }));
        assert!(matches!(talk.next().await, FromRunner::Loading { percent: 0 }));
        let ended = talk.ended().await.expect_err("there is no such server");
        assert!(ended.starts_with(&expected), "{ended}");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_once() {
    let url = ("url", "http://127.0.0.1:8080/v1");
    let wrong = "the card's setting `url` must be such as http://127.0.0.1:8080/v1;";
    for (settings, ranks, expected) in [
        (vec![], 1, "the card lacks the setting `url`, such as http://127.0.0.1:8080/v1".to_owned()),
        (vec![("url", "https://example.org/v1")], 1, format!("{wrong} \"https://example.org/v1\" asks for TLS,")),
        (vec![("url", "127.0.0.1:8080")], 1, format!("{wrong} \"127.0.0.1:8080\" is")),
        (
            vec![("url", "file:///etc/passwd")],
            1,
            format!("{wrong} \"file:///etc/passwd\" is none that this runner speaks"),
        ),
        (vec![url], 2, "one server serves one rank, and this instance has 2".into()),
        (vec![url, ("ur", "x")], 1, "this runner has no setting `ur`; did you mean `url`?".into()),
        (
            vec![url, ("api_key_env", "HOME")],
            1,
            "the card's setting `api_key_env` must name a variable that ends with".into(),
        ),
        (
            vec![url, ("api_key_env", "NO_SUCH_API_KEY")],
            1,
            "the variable NO_SUCH_API_KEY is not set in this node's environment".into(),
        ),
        (vec![url, ("timeout_s", "-1")], 1, "the card's setting `timeout_s` must be a whole number of seconds".into()),
    ] {
        let mut talk = Talk::with::<OpenAi>();
        talk.tell(&hello(card("openai", &settings), 0, ranks)).await;
        let ended = talk.ended().await.expect_err("it is refused");
        assert!(ended.starts_with(&expected), "{ended}");
    }
}
