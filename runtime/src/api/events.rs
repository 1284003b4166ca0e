//! `GET /v1/events`: the log's entries, decoded, as a list. Following it live is in `follow.rs`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use lockstep_inference::Inference;
use lockstep_replication::Index;
use lockstep_replication::entry::Entry;
use serde::Deserialize;

use super::ReadLog;
use super::body::query;
use super::errors::{ApiError, sentence};
use super::follow;
use super::fresh::{self, index_header};
use super::shared::{Context, Shared};

/// How many entries a list has if the client does not say.
const LIMIT: u64 = 100;

/// How many entries a list may have.
const LIMIT_AT_MOST: u64 = 10_000;

/// A list ends early when its entries have so many bytes in the log.
const BYTES_AT_MOST: usize = 4 << 20;

/// Sent by browsers that take up a broken stream again: the last entry that they saw.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The first entry wanted.
    since: Option<Index>,
    limit: Option<u64>,
    #[serde(default)]
    follow: bool,
    at_least: Option<Index>,
    timeout: Option<String>,
}

/// Entries from `since` on: a list, or, with `follow=true` or `Accept: text/event-stream`, as they come.
///
/// Without `since` a list begins with the oldest entry that is kept, and following with the next one to come.
pub(crate) async fn events(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let Asked { since, limit, follow, at_least, timeout } = query(request.uri())?;
    let published = fresh::published(&shared, at_least, timeout.as_deref()).await?;
    if follow || accepts_stream(request.headers()) {
        let since = last_seen(request.headers())?.map(Index::next).or(since);
        return follow::follow(shared, published, since, limit);
    }
    let limit = limit.unwrap_or(LIMIT);
    if limit > LIMIT_AT_MOST {
        let message = format!("The limit is at most {LIMIT_AT_MOST}: ask again from the last entry on, or follow.");
        return Err(ApiError::bad_request("limit_too_high", message));
    }
    let first = shared.log.first();
    let from = since.unwrap_or(first);
    if from < first {
        return Err(gone(from, first));
    }
    let until = end(&shared, published.replica.next()).min(from.plus(limit));
    let entries = read(shared.log.clone(), from, until).await?;
    Ok((index_header(&published), Json(entries)).into_response())
}

/// One past the last entry that is both applied and in the log on disk.
pub(super) fn end(context: &Context, applied: Index) -> Index {
    context.log.next().min(applied)
}

/// Entries that were asked for and are not kept any more.
pub(super) fn gone(from: Index, first: Index) -> ApiError {
    let message = format!("Entry {from} is not in this node's log any more, which begins with entry {first}.");
    ApiError::new(StatusCode::GONE, "gone", message).with("first", first)
}

/// Reads and decodes entries, perhaps fewer than asked for; never none if `from` is in the log.
pub(super) async fn read(log: Arc<dyn ReadLog>, from: Index, until: Index) -> Result<Vec<Entry<Inference>>, ApiError> {
    if from >= until {
        return Ok(Vec::new());
    }
    let unreadable = |error: String| ApiError::internal("unreadable_log", sentence(error));
    // Reads the disk: not on a thread that others wait for.
    let entries = tokio::task::spawn_blocking(move || {
        let records = log.read(from, until, BYTES_AT_MOST).map_err(|error| unreadable(error.to_string()))?;
        records.iter().map(|record| record.open().map_err(|error| unreadable(error.to_string()))).collect()
    });
    entries.await.map_err(|error| unreadable(error.to_string()))?
}

fn accepts_stream(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepts.flat_map(|accept| accept.split(',')).any(|media| media.trim().starts_with("text/event-stream"))
}

fn last_seen(headers: &HeaderMap) -> Result<Option<Index>, ApiError> {
    let Some(header) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let index = header.to_str().ok().and_then(|text| text.parse().ok()).map(Index);
    let message = "The Last-Event-ID header is no index of an entry.";
    index.map(Some).ok_or_else(|| ApiError::bad_request("bad_last_event_id", message))
}
