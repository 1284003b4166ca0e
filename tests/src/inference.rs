//! Models that answer: instances of `echo`, questions to them, and answers part by part.

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::{Method, Response, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::api::{Answer, Api, Failure};
use crate::cluster::SOON;
use crate::wait::until;

/// Makes a model known that says what it is told, with these settings, and places it on these nodes, by their ids; returns
/// the instance once all its runners are ready.
///
/// # Panics
/// Not in time.
pub async fn place_echo(api: &Api, model: &str, nodes: &[String], settings: &[(&str, &str)]) -> String {
    let settings: BTreeMap<&str, &str> = settings.iter().copied().collect();
    let card = json!({
        "name": model, "weights_bytes": 1_000_000, "layers": 4, "context_tokens": 4096, "runner": "echo",
        "settings": settings, "custom": true,
    });
    api.done(&format!("card-{model}"), &json!({"add_card": {"model": model, "card": card}}), SOON).await;
    let key = format!("instance-{model}");
    api.done(&key, &json!({"create_instance": {"model": model, "nodes": nodes}}), SOON).await;
    ready(api, model).await
}

/// The instance of this model, once all its runners are ready, as this node sees it.
///
/// # Panics
/// Not in time.
pub async fn ready(api: &Api, model: &str) -> String {
    until(&format!("{model} is ready"), SOON, async || {
        let state = api.state().await?;
        let instances = state["instances"].as_object().ok_or("no instances")?;
        let found = instances.iter().find(|(_, instance)| instance["model"] == model);
        let (id, _) = found.ok_or_else(|| format!("no instance: {}", state["instances"]))?;
        let runners = state["runners"].as_object().ok_or("no runners")?;
        let all = runners.values().filter(|runner| runner["instance"] == *id);
        let waits = all.map(|runner| &runner["status"]).find(|status| **status != "ready" && **status != "running");
        waits.map_or_else(|| Ok(id.clone()), |status| Err(format!("a runner is {status}")))
    })
    .await
}

/// Waits until no task is left in the state.
///
/// # Panics
/// Not in time.
pub async fn no_tasks(api: &Api) {
    until("all tasks are gone", SOON, async || {
        let tasks = api.get("/v1/state/tasks").await?;
        if tasks.as_object().is_some_and(|tasks| tasks.is_empty()) { Ok(()) } else { Err(tasks.to_string()) }
    })
    .await;
}

/// A question whose answer `echo` streams: these words.
pub fn question(model: &str, words: &str) -> Value {
    json!({"model": model, "stream": true, "messages": [{"role": "user", "content": words}]})
}

/// So many different words.
pub fn words(count: usize) -> String {
    (0..count).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ")
}

/// Asks for a whole answer, or for one that is refused.
pub async fn ask(api: &Api, question: &Value) -> Result<Answer, Failure> {
    api.send(api.request(Method::POST, "/v1/chat/completions").json(question)).await
}

/// An answer that is being streamed.
#[derive(Debug)]
pub struct Stream {
    response: Response,
    bytes: Vec<u8>,
}

/// What was streamed until its end.
#[derive(Debug, Default)]
pub struct Told {
    /// The pieces of text, in order.
    pub pieces: Vec<String>,
    /// Why it ended, if it ended well.
    pub finish_reason: Option<String>,
    /// What it took, if it was asked for.
    pub usage: Option<Value>,
    /// The error that ended it.
    pub error: Option<Value>,
    /// Whether `[DONE]` came, as the last.
    pub done: bool,
}

impl Told {
    /// The whole text.
    pub fn text(&self) -> String {
        self.pieces.concat()
    }

    /// Fails unless it is these words, each once and in order, and ended well.
    ///
    /// # Panics
    /// It is not.
    pub fn must_be(&self, words: &str) {
        assert_eq!(self.error, None, "after {:?}", self.pieces.last());
        assert_eq!(self.text(), words);
        assert!(self.done && self.finish_reason.as_deref() == Some("stop"), "{self:?}");
    }
}

impl Stream {
    /// Asks for a streamed answer.
    ///
    /// # Errors
    /// It is refused, or the node does not answer.
    pub async fn open(api: &Api, question: &Value) -> Result<Stream, Failure> {
        let request = api.request(Method::POST, "/v1/chat/completions").json(question);
        let response = request.send().await.map_err(|error| format!("no answer: {error:?}"))?;
        if response.status() != StatusCode::OK {
            return Err(format!("{}: {}", response.status(), response.text().await.unwrap_or_default()));
        }
        Ok(Stream { response, bytes: Vec::new() })
    }

    /// The data of the next event; none at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.bytes.drain(..end + 2).collect();
                let event = String::from_utf8(event).map_err(|error| error.to_string())?;
                // Others are comments, which keep the connection alive.
                if let Some(data) = event.trim_end().strip_prefix("data: ") {
                    return Ok(Some(data.to_owned()));
                }
                continue;
            }
            match self.response.chunk().await.map_err(|error| format!("it broke off: {error:?}"))? {
                Some(more) => self.bytes.extend_from_slice(&more),
                None => return Ok(None),
            }
        }
    }

    /// The next piece of text, with the answer's id.
    ///
    /// # Errors
    /// It ends or fails before.
    pub async fn piece(&mut self) -> Result<(String, String), Failure> {
        loop {
            let data = self.next().await?.ok_or("it ended")?;
            let chunk: Value = serde_json::from_str(&data).map_err(|_| format!("it ended with {data}"))?;
            if chunk["error"].is_object() {
                return Err(chunk.to_string());
            }
            match (chunk["id"].as_str(), chunk["choices"][0]["delta"]["content"].as_str()) {
                (Some(id), Some(text)) if !text.is_empty() => return Ok((id.to_owned(), text.to_owned())),
                _ => {}
            }
        }
    }

    /// All that is still to come.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn rest(mut self) -> Result<Told, Failure> {
        let mut told = Told::default();
        while let Some(data) = self.next().await? {
            assert!(!told.done, "nothing follows [DONE], but {data} does");
            if data == "[DONE]" {
                told.done = true;
                continue;
            }
            let chunk: Value = serde_json::from_str(&data).map_err(|error| format!("{data}: {error}"))?;
            if chunk["error"].is_object() {
                told.error = Some(chunk["error"].clone());
                continue;
            }
            if chunk["usage"].is_object() {
                told.usage = Some(chunk["usage"].clone());
            }
            let choice = &chunk["choices"][0];
            if let Some(text) = choice["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
                told.pieces.push(text.to_owned());
            }
            told.finish_reason = choice["finish_reason"].as_str().map(str::to_owned).or(told.finish_reason);
        }
        Ok(told)
    }
}

/// The processes that this one started and that run a runner: their ids.
pub fn runners_of(node: u32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").expect("there is /proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| parent(*id) == Some(node) && arguments(*id).iter().any(|argument| argument == "runner")).collect()
}

/// `kill -9` of a process.
pub fn kill(process: i32) {
    let process = Pid::from_raw(process).expect("it has an id");
    kill_process(process, Signal::KILL).expect("one's own grandchild can be killed");
}

fn parent(process: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn arguments(process: i32) -> Vec<String> {
    let bytes = std::fs::read(Path::new("/proc").join(process.to_string()).join("cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}
