//! `/v1/commands`: one command in, one reply out; and what became of a command.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Uri};
use axum::response::{IntoResponse, Response};
use lockstep_replication::{CommandId, Index, Outcome};
use serde::Deserialize;

use super::body::{Media, PathText, json_bytes, query, unsupported};
use super::errors::{ApiError, sentence};
use super::fresh::{self, index_header};
use super::names;
use super::reply::Reply;
use super::shared::Shared;
use super::stream;
use super::submit::Asked;

/// Carries the client's key for one command: sent again under it, to any node, the command is done once.
const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// `POST /v1/commands`: one command as JSON, or many, one a line.
pub(crate) async fn submit(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let key = key(request.headers())?;
    match Media::of(request.headers()) {
        Some(Media::Json) => one(shared, key, request).await,
        Some(Media::Lines) if key.is_some() => {
            let message = "A key names one command: give each line its own, as {\"id\": KEY, \"command\": COMMAND}.";
            Err(ApiError::bad_request("key_for_many", message))
        }
        Some(Media::Lines) => stream::many(shared, request.into_body()),
        None => Err(unsupported("application/json or application/x-ndjson")),
    }
}

async fn one(shared: Shared, key: Option<CommandId>, request: Request) -> Result<Response, ApiError> {
    let mut asked = Asked::parse(&json_bytes(request).await?)?;
    if key.is_some() && asked.name.is_some_and(|name| Some(name) != key) {
        let message = "The Idempotency-Key header and the command's id are different keys.";
        return Err(ApiError::bad_request("two_keys", message));
    }
    asked.name = key.or(asked.name);
    // In a task of its own: what becomes of the command is noted also if its client hangs up.
    let tasks = shared.tasks.clone();
    let reply = tasks.spawn(async move { shared.hand_in(asked).await.reply(&shared).await });
    let reply = reply.await.map_err(|error| ApiError::internal("reply_lost", sentence(error)))?;
    Ok(reply.into_response())
}

/// The client's name for its command, from the header.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<CommandId>, ApiError> {
    let mut keys = headers.get_all(KEY_HEADER).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(ApiError::bad_request("two_keys", "There is more than one Idempotency-Key header."));
    }
    names::from_key(key.as_bytes()).map(Some).map_err(|bad| ApiError::bad_request("bad_key", bad.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fate {
    key: Option<String>,
    at_least: Option<Index>,
    timeout: Option<String>,
}

/// `GET /v1/commands/{id}`: what became of the command that a reply named so.
pub(crate) async fn fate(State(shared): State<Shared>, PathText(id): PathText, uri: Uri) -> Result<Response, ApiError> {
    let id = id.parse().map_err(|error| ApiError::bad_request("bad_id", sentence(error)))?;
    let asked: Fate = query(&uri)?;
    if asked.key.is_some() {
        return Err(ApiError::bad_request("two_keys", "Ask by id or by key, not by both."));
    }
    told(shared, id, asked).await
}

/// `GET /v1/commands?key=KEY`: what became of the command that its client gave this key.
pub(crate) async fn fate_by_key(State(shared): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let asked: Fate = query(&uri)?;
    let Some(key) = &asked.key else {
        let message = "Ask for one command: /v1/commands/ID, or /v1/commands?key=KEY.";
        return Err(ApiError::bad_request("no_key", message));
    };
    let id = names::from_key(key.as_bytes()).map_err(|bad| ApiError::bad_request("bad_key", bad.to_string()))?;
    told(shared, id, asked).await
}

async fn told(shared: Shared, id: CommandId, asked: Fate) -> Result<Response, ApiError> {
    let published = fresh::published(&shared, asked.at_least, asked.timeout.as_deref()).await?;
    let mark = published.view.done;
    let reply = match (shared.recent.get(id), published.replica.command(id)) {
        (Some(Some(outcome @ Outcome::Done { .. })), _) => Reply::of(id, outcome, mark),
        // It is in the log. Whether it will stay is known from where promises reach.
        (_, Some(index)) => match mark.filter(|mark| mark.index >= index) {
            Some(mark) => Reply::of(id, Outcome::Done { index, held: mark.held, of: mark.of }, None),
            None => Reply::Pending { id, index: Some(index) },
        },
        (Some(Some(outcome)), None) => Reply::of(id, outcome, mark),
        (Some(None), None) => Reply::Pending { id, index: None },
        (None, None) => {
            let message = format!(
                "The command {id} is not known here: it never came to this node and is not in the log, or 10 000 newer ones did."
            );
            return Err(ApiError::not_found("unknown_command", message));
        }
    };
    Ok((index_header(&published), reply.told()).into_response())
}
