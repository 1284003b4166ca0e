//! Answers by OpenAI's API through every node of a cluster, while the model runs on one of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use lockstep_tests::api::Api;
use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::inference::{Stream, ask, no_tasks, place_echo, question, ready, words};
use reqwest::Method;
use serde_json::{Value, json};

/// From when a runner says its first word to when its client has it.
const FIRST_TOKEN_WITHIN_MS: u64 = 50;

/// Streams at the same time.
const STREAMS: usize = 200;

/// Words of each.
const WORDS: usize = 100;

/// Three nodes, and an instance of `echo` with these settings on the second, known to all.
async fn with_echo(settings: &[(&str, &str)]) -> (Cluster, Vec<Api>) {
    let mut cluster = Cluster::founded_by(3).await;
    cluster.all_ready(SOON).await;
    let node = cluster.id(1).await;
    let mut apis = Vec::new();
    for node in 0..3 {
        apis.push(cluster.api(node).await);
    }
    place_echo(&apis[0], "echo", &[node], settings).await;
    for api in &apis {
        ready(api, "echo").await;
    }
    (cluster, apis)
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_answers_whole_and_in_parts() {
    let (_cluster, apis) = with_echo(&[]).await;
    for api in &apis {
        let told = Stream::open(api, &question("echo", "one two three")).await.unwrap().rest().await.unwrap();
        told.must_be("one two three");
        assert_eq!(told.pieces, ["one", " two", " three"]);
        assert_eq!(told.usage, None);

        let mut asked = question("echo", "one two three");
        asked["stream_options"] = json!({"include_usage": true});
        asked["max_tokens"] = json!(2);
        let told = Stream::open(api, &asked).await.unwrap().rest().await.unwrap();
        assert_eq!((told.text().as_str(), told.finish_reason.as_deref()), ("one two", Some("length")));
        assert_eq!(told.usage, Some(json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})));

        asked = question("echo", "one two three");
        asked["stream"] = json!(false);
        let answer = ask(api, &asked).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["choices"][0]["message"]["content"], "one two three");

        let models = api.get("/v1/models").await.unwrap();
        assert_eq!(models["data"][0]["id"], "echo");
        no_tasks(api).await;
    }
    let counts = apis[2].get("/v1/state/instances").await.unwrap();
    let counts = &counts.as_object().unwrap().values().next().unwrap()["tasks"];
    assert_eq!((&counts["done"], &counts["failed"], &counts["cancelled"]), (&json!(9), &json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_streams_at_once_come_whole_and_in_order() {
    let (_cluster, apis) = with_echo(&[]).await;
    let words = words(WORDS);
    let began = Instant::now();
    let streams = (0..STREAMS).map(|n| {
        let (api, words) = (&apis[n % apis.len()], &words);
        async move {
            let asked = Instant::now();
            let mut stream = Stream::open(api, &question("echo", words)).await.unwrap();
            let (_, first) = stream.piece().await.unwrap();
            let waited = asked.elapsed();
            let mut told = stream.rest().await.unwrap();
            told.pieces.insert(0, first);
            assert_eq!(told.pieces.len(), WORDS, "a piece for each word");
            told.must_be(words);
            waited
        }
    });
    let mut waited = join_all(streams).await;
    waited.sort();
    println!(
        "{STREAMS} streams of {WORDS} words in {:?}; the first word after {:?} in the middle, {:?} at most",
        began.elapsed(),
        waited[STREAMS / 2],
        waited[STREAMS - 1]
    );
    for api in &apis {
        no_tasks(api).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_word_comes_soon_and_the_trace_tells_when_it_was_said() {
    let (_cluster, apis) = with_echo(&[("first_token_ms", "100")]).await;
    let mut waited = Vec::new();
    for n in 0..10 {
        let api = &apis[if n % 2 == 0 { 0 } else { 2 }];
        let mut stream = Stream::open(api, &question("echo", "one")).await.unwrap();
        let (id, _) = stream.piece().await.unwrap();
        let heard = wall_ms();
        stream.rest().await.unwrap();
        let said = lockstep_tests::wait::until("the trace comes", SOON, async || {
            let trace = api.get(&format!("/v1/traces/{id}")).await?;
            let steps = trace["traceEvents"].as_array().ok_or("no events")?;
            let said = steps.iter().find(|step| step["name"] == "decode").ok_or("no such step")?;
            said["ts"].as_u64().ok_or_else(|| format!("no time in {said}"))
        })
        .await;
        waited.push(heard.saturating_sub(said / 1000));
    }
    waited.sort_unstable();
    println!("from the runner's first word to its client: {waited:?} ms");
    assert!(waited[waited.len() / 2] <= FIRST_TOKEN_WITHIN_MS, "{waited:?}");
    let all = apis[0].get("/v1/traces").await.unwrap();
    let steps = all["traceEvents"].as_array().unwrap().iter().filter(|step| step["name"] == "decode").count();
    assert_eq!(steps, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_called_off_at_another_node_or_by_going_away() {
    let (_cluster, apis) = with_echo(&[("tokens_per_second", "20")]).await;
    let long = words(1000);
    let mut stream = Stream::open(&apis[0], &question("echo", &long)).await.unwrap();
    let (id, _) = stream.piece().await.unwrap();
    let asked = Instant::now();
    let cancel = apis[2].request(Method::POST, &format!("/v1/chat/completions/{id}/cancel")).json(&json!({}));
    let answer = apis[2].send(cancel).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body["cancelled"]), (200, &json!(true)), "{}", answer.body);
    let told = stream.rest().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(told.error.expect("it ends with an error")["code"], "task_gone");
    assert!(!told.done);

    let mut stream = Stream::open(&apis[2], &question("echo", &long)).await.unwrap();
    stream.piece().await.unwrap();
    drop(stream);
    no_tasks(&apis[0]).await;
    let counts = apis[0].get("/v1/state/instances").await.unwrap();
    let counts = &counts.as_object().unwrap().values().next().unwrap()["tasks"];
    assert_eq!((&counts["cancelled"], &counts["done"], &counts["failed"]), (&json!(2), &json!(0), &json!(0)));
    let stream = Stream::open(&apis[0], &question("echo", "still here")).await.unwrap();
    stream.rest().await.unwrap().must_be("still here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_travels_with_its_message() {
    let (_cluster, apis) = with_echo(&[]).await;
    let url = format!("data:image/png;base64,{}", "A".repeat(3 << 20));
    let parts = json!([{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": url}}]);
    let asked = json!({"model": "echo", "messages": [{"role": "user", "content": parts}]});
    for api in &apis {
        let answer = ask(api, &asked).await.unwrap();
        let text = format!("What is [image:{}]", url.len());
        assert_eq!(answer.body["choices"][0]["message"]["content"], text, "{:.500}", answer.body.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_get_errors_in_openais_form_and_leave_nothing() {
    let (mut cluster, apis) = with_echo(&[]).await;
    cluster.linked(SOON).await;
    let before = apis[0].hash().await.unwrap();
    let hello = json!([{"role": "user", "content": "Hello"}]);
    let requests: Vec<(Value, u16, &str)> = vec![
        (json!([]), 400, "invalid_value"),
        (json!({"messages": hello}), 400, "missing_required_parameter"),
        (json!({"model": "echo"}), 400, "missing_required_parameter"),
        (json!({"model": "echo", "messages": []}), 400, "invalid_value"),
        (json!({"model": "echo", "messages": [{"role": "king", "content": "Hello"}]}), 400, "invalid_value"),
        (json!({"model": "echo", "messages": hello, "n": 3}), 400, "unsupported_value"),
        (json!({"model": "echo", "messages": hello, "max_tokens": 0}), 400, "invalid_value"),
        (json!({"model": "echo", "messages": hello, "stream": "yes"}), 400, "invalid_value"),
        (json!({"model": "no/such", "messages": hello}), 404, "model_not_found"),
        (json!({"model": "x".repeat(10_000), "messages": hello}), 404, "model_not_found"),
        (json!({"model": "echo", "messages": hello, "pad": "x".repeat(17 << 20)}), 413, "too_large"),
    ];
    for api in &apis {
        for (request, status, code) in &requests {
            let shown = format!("{:.200}", request.to_string());
            let answer = ask(api, request).await.unwrap();
            let error = &answer.body["error"];
            assert_eq!((answer.status.as_u16(), error["code"].as_str()), (*status, Some(*code)), "{shown}: {error}");
            assert_eq!(error["type"], "invalid_request_error");
            assert!(error["message"].is_string() && error.get("param").is_some(), "{error}");
        }
    }
    assert_eq!(apis[0].hash().await.unwrap(), before, "nothing was ordered");
    // A model that is known, and runs nowhere.
    apis[1].done("card", &lockstep_tests::api::add_card("asleep"), SOON).await;
    let answer = ask(&apis[1], &json!({"model": "asleep", "messages": hello})).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body["error"]["code"]), (404, &json!("model_not_found")));
    // The runner says that the request is at fault: what it says comes through.
    let answer =
        ask(&apis[0], &json!({"model": "echo", "messages": [{"role": "system", "content": "."}]})).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body["error"]["code"]),
        (400, &json!("request_refused")),
        "{}",
        answer.body
    );
    no_tasks(&apis[2]).await;
}
