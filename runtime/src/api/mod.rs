//! The HTTP API of a node: its routes, and what they need of the rest of the process.
//!
//! Every answer but a stream is JSON; every error is `{"error": {"code", "message", "type", "param"}}`, as in OpenAI's API.
//! Reads carry the index that they stand at in the header `Lockstep-Index`, and wait for a newer one with
//! `?at_least=INDEX&timeout=10s`. All routes are described in `openapi.json`, which a test compares with them.

mod backup;
mod body;
mod cluster;
mod commands;
mod errors;
mod events;
mod follow;
mod fresh;
mod guard;
mod instances;
mod lines;
mod metrics;
mod names;
mod openai;
mod openapi;
mod operator;
mod page;
mod reads;
mod recent;
mod reply;
mod server;
mod shared;
mod stream;
mod submit;
#[cfg(test)]
pub(crate) mod tests;
mod traces;
mod unread;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, Router, get, post};
use lockstep_replication::Index;
use lockstep_replication::entry::Record;
use serde_json::Value;

pub use server::{ServeError, Served, serve};

use errors::ApiError;
use shared::Shared;

use crate::store::LogReader;

/// Where and for whom the API is.
#[derive(Clone)]
pub struct ApiConfig {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether to listen on the next free port where that one is taken.
    pub next_free: bool,
    /// What clients must show. Needed where others than this machine can reach the address.
    pub token: Option<String>,
    /// Names or addresses, each with a port or for any, under which it is asked, beside its address and the loopback ones.
    pub hosts: Vec<String>,
}

impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ApiConfig { listen, next_free, token, hosts } = self;
        let token = token.as_ref().map(|_| "secret");
        let mut shown = f.debug_struct("ApiConfig");
        shown
            .field("listen", listen)
            .field("next_free", next_free)
            .field("token", &token)
            .field("hosts", hosts)
            .finish()
    }
}

/// The log on disk, read while the node writes it.
pub trait ReadLog: Send + Sync + 'static {
    /// The first entry that is kept; the next one if none is.
    fn first(&self) -> Index;

    /// One past the last entry.
    fn next(&self) -> Index;

    /// The records from `from` to before `until`, as many as have at most `max_bytes`, but at least one; none if `from`
    /// is not kept. Blocks.
    ///
    /// # Errors
    /// The disk fails, or what is on it is damaged.
    fn read(&self, from: Index, until: Index, max_bytes: usize) -> Result<Vec<Record>, Box<dyn Error + Send + Sync>>;
}

impl ReadLog for LogReader {
    fn first(&self) -> Index {
        LogReader::first(self)
    }

    fn next(&self) -> Index {
        LogReader::next(self)
    }

    fn read(&self, from: Index, until: Index, max_bytes: usize) -> Result<Vec<Record>, Box<dyn Error + Send + Sync>> {
        Ok(LogReader::read(self, from, until, max_bytes)?)
    }
}

/// What the API shows or fetches of the process, beside the node and its log. All of it may block.
pub trait Surroundings: Send + Sync + 'static {
    /// The set-aside files, as a JSON list.
    fn set_aside(&self) -> Value;

    /// Adds the network's metrics in the OpenMetrics text form, without its end mark.
    ///
    /// # Errors
    /// The writer's.
    fn network_metrics(&self, out: &mut String) -> fmt::Result;

    /// Writes a backup.
    ///
    /// # Errors
    /// The store cannot be read, or the writer failed.
    fn backup(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Routes, and their paths: axum does not tell them.
#[derive(Default)]
struct Routes {
    router: Router<Shared>,
    paths: Vec<&'static str>,
}

impl Routes {
    fn route(mut self, path: &'static str, methods: MethodRouter<Shared>) -> Routes {
        self.router = self.router.route(path, methods);
        self.paths.push(path);
        self
    }
}

/// All routes.
fn routes() -> Routes {
    Routes::default()
        .route("/", get(page::page))
        .route("/openapi.json", get(openapi::document))
        .route("/healthz", get(reads::health))
        .route("/readyz", get(reads::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/chat/completions", post(openai::chat::chat))
        .route("/v1/chat/completions/{id}/cancel", post(openai::cancel::cancel))
        .route("/v1/models", get(openai::models::models).post(instances::add_card))
        .route("/v1/models/{*id}", get(openai::models::model).delete(instances::delete_card))
        .route("/v1/instances", get(instances::list).post(instances::create))
        .route("/v1/instances/place", post(instances::place))
        .route("/v1/instances/preview", get(instances::preview))
        .route("/v1/instances/{id}", get(instances::one).delete(instances::delete))
        .route("/v1/traces", get(traces::traces))
        .route("/v1/traces/{id}", get(traces::trace))
        .route("/v1/state", get(reads::state))
        .route("/v1/state/{*path}", get(reads::state_at))
        .route("/v1/events", get(events::events))
        .route("/v1/commands", post(commands::submit).get(commands::fate_by_key))
        .route("/v1/commands/{id}", get(commands::fate))
        .route("/v1/cluster", get(cluster::cluster))
        .route("/v1/backup", get(backup::backup))
        .route("/v1/operator/handover", post(operator::hand_over))
        .route("/v1/operator/forget/{node}", post(operator::forget))
        .route("/v1/operator/lead-anyway", post(operator::lead_anyway))
        .route("/v1/operator/leave", post(operator::leave))
}

fn router(shared: Shared) -> Router {
    routes()
        .router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared)
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::not_found("no_such_route", format!("There is no {}; all routes are in /openapi.json.", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}; the Allow header says what it takes.", uri.path());
    ApiError::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
