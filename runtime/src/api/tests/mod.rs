//! The API over real sockets, against a node that is a few lines.

mod commands;
mod events;
mod fake;
mod guard;
mod instances;
mod openai;
mod openapi;
mod operator;
mod reads;
mod stream;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ApiConfig, Served, Surroundings, serve};
use crate::work::{Ask, Desk, WorkHandle};
use fake::{FakeLog, FakeNode};

pub(crate) use fake::view;

/// A command that the fake node grants.
fn card(model: &str) -> Value {
    json!({ "add_card": { "model": model, "card": {
        "name": "Small", "weights_bytes": 1, "layers": 1, "context_tokens": 1,
    } } })
}

/// A command that it refuses.
fn refused() -> Value {
    json!({ "delete_card": { "model": "nobody/knows-it" } })
}

/// An API that listens, and the fakes behind it. Dropping it ends all.
struct Api {
    served: Served,
    node: FakeNode,
    log: FakeLog,
    around: FakeSurroundings,
    /// What models are asked; nobody answers but the test.
    asks: UnboundedReceiver<Ask>,
    client: Client,
    shutdown: CancellationToken,
    _end: DropGuard,
}

impl Api {
    async fn start() -> Api {
        Api::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ApiConfig)) -> Api {
        let mut config = config();
        change(&mut config);
        let shutdown = CancellationToken::new();
        let log = FakeLog::default();
        let node = FakeNode::start(log.clone());
        let around = FakeSurroundings::default();
        let (models, Desk { asks, .. }) = WorkHandle::new();
        let served = serve(config, node.handle(), models, log.clone(), around.clone(), shutdown.clone()).await.unwrap();
        Api { served, node, log, around, asks, client: Client::new(), _end: shutdown.clone().drop_guard(), shutdown }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.served.address)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    /// Sends one command.
    async fn command(&self, command: &Value) -> (StatusCode, Value) {
        answer(self.post("/v1/commands").json(command)).await
    }

    async fn read(&self, path: &str) -> (StatusCode, Value) {
        answer(self.get(path)).await
    }
}

/// On a free port, for everybody on this machine.
fn config() -> ApiConfig {
    ApiConfig { listen: "127.0.0.1:0".parse().unwrap(), next_free: false, token: None, hosts: Vec::new() }
}

/// Status and JSON of an answer.
async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap())
}

/// An error as it must look: its status and code, its sentence.
async fn error(request: RequestBuilder) -> (u16, String, String) {
    let (status, body) = answer(request).await;
    let text = |field: &str| body["error"][field].as_str().unwrap_or_else(|| panic!("no error in {body}")).to_owned();
    let message = text("message");
    assert!(message.ends_with('.') && message.starts_with(|first: char| !first.is_lowercase()), "{message:?}");
    (status.as_u16(), text("code"), message)
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[derive(Clone, Default)]
struct FakeSurroundings {
    backup_fails: Arc<AtomicBool>,
}

impl Surroundings for FakeSurroundings {
    fn set_aside(&self) -> Value {
        json!([{ "name": "1-7.aside" }])
    }

    fn network_metrics(&self, out: &mut String) -> std::fmt::Result {
        out.push_str("# TYPE network_bytes gauge\nnetwork_bytes 7\n");
        Ok(())
    }

    fn backup(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.backup_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        (0..1000).try_for_each(|n| writeln!(out, "{n:0>999}"))
    }
}
