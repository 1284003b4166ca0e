//! A client of one node's HTTP API that says what a test wants to know.

use std::net::SocketAddr;
use std::time::Duration;

use lockstep_inference::workload::Workload;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::wait::until;

/// No answer takes longer, streams included.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How many entries a list of events may have.
const EVENTS_AT_MOST: u64 = 10_000;

/// One node's API.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    client: Client,
}

/// A node that does not answer, or answers with an error: a sentence.
pub type Failure = String;

/// What the API answered to a request that reached it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body as JSON; a text where it is none.
    pub body: Value,
}

impl Api {
    /// The API at this address.
    pub fn at(address: SocketAddr) -> Api {
        let client = Client::builder().no_proxy().timeout(ANSWER_WITHIN).build().expect("a client needs nothing");
        Api { address, client }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request to this path (with its query), to be changed and sent with [`Api::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// Sends a request and reads its whole answer.
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let failed = |error: reqwest::Error| format!("{} does not answer: {error:?}", self.address);
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, body })
    }

    /// Gets a path whose answer is a success.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let Answer { status, body } = self.send(self.request(Method::GET, path)).await?;
        if status.is_success() { Ok(body) } else { Err(format!("{path}: {status} {body}")) }
    }

    /// `/readyz`: 200 and 503 are both answers.
    pub async fn ready(&self) -> Result<Answer, Failure> {
        self.send(self.request(Method::GET, "/readyz")).await
    }

    /// `/v1/cluster`.
    pub async fn cluster(&self) -> Result<Value, Failure> {
        self.get("/v1/cluster").await
    }

    /// `/v1/state`.
    pub async fn state(&self) -> Result<Value, Failure> {
        self.get("/v1/state").await
    }

    /// One past the last entry that the node applied, and its state's hash there.
    pub async fn hash(&self) -> Result<(u64, String), Failure> {
        let cluster = self.get("/v1/cluster?hash=true").await?;
        let next = cluster["next"].as_u64().ok_or("no index")?;
        Ok((next, cluster["state_hash"].as_str().ok_or("no hash")?.to_owned()))
    }

    /// The entries that the node's log keeps from this index on, as `/v1/events` tells them.
    pub async fn events(&self, since: u64) -> Result<Vec<Value>, Failure> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let from = events.last().and_then(|last| last["index"].as_u64()).map_or(since, |last| last + 1);
            let page = self.get(&format!("/v1/events?since={from}&limit={EVENTS_AT_MOST}")).await?;
            let Value::Array(more) = page else { return Err(format!("the events are no list: {page}")) };
            if more.is_empty() {
                return Ok(events);
            }
            events.extend(more);
        }
    }

    /// Submits one command; whatever became of it.
    pub async fn submit(&self, command: &Value) -> Result<Answer, Failure> {
        self.send(self.request(Method::POST, "/v1/commands").json(command)).await
    }

    /// Submits one command under a key, again and again, until it is done; at which index.
    ///
    /// # Panics
    /// It is refused, or not done in time.
    pub async fn done(&self, key: &str, command: &Value, within: Duration) -> u64 {
        until(&format!("{key} is done"), within, async || {
            let request = self.request(Method::POST, "/v1/commands").header("Idempotency-Key", key).json(command);
            let Answer { status, body } = self.send(request).await?;
            assert_ne!(body["result"], "refused", "{key}: {body}");
            match body["index"].as_u64() {
                Some(index) if body["result"] == "done" => Ok(index),
                Some(_) | None => Err(format!("{status} {body}")),
            }
        })
        .await
    }

    /// Submits many commands, a line each, with many in flight; the answers, in order.
    pub async fn submit_many(&self, commands: impl IntoIterator<Item = Value>) -> Result<Vec<Value>, Failure> {
        let lines: String = commands.into_iter().map(|command| format!("{command}\n")).collect();
        let request = self.request(Method::POST, "/v1/commands").header(CONTENT_TYPE, "application/x-ndjson");
        let failed = |error: reqwest::Error| format!("{} does not answer: {error:?}", self.address);
        let response = request.body(lines).send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        let answers: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        answers.map_err(|error| format!("{status}: an answer is no JSON: {error}: {text}"))
    }

    /// Puts so many commands of a realistic mix in, by their seed; each must be done.
    ///
    /// # Panics
    /// One is not.
    pub async fn load(&self, seed: u64, commands: usize) {
        let mix = Workload::new(seed).take(commands);
        let answers = self.submit_many(mix.map(|command| json!(command))).await.expect("the node takes commands");
        assert_eq!(answers.len(), commands, "a line for each command");
        let undone = answers.iter().position(|answer| answer["result"] != "done");
        assert_eq!(undone, None, "{:?}", undone.map(|at| &answers[at]));
    }
}

/// A command that is granted once for each name: it makes a model of this name known.
pub fn add_card(name: &str) -> Value {
    json!({"add_card": {"model": name, "card": {
        "name": name, "weights_bytes": 1_000_000, "layers": 4, "context_tokens": 2048, "custom": true,
    }}})
}
