//! Reading: whether the node lives, whether it is ready, and its state or a part of it.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use lockstep_replication::Index;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::query;
use super::errors::{ApiError, sentence};
use super::fresh::{self, index_header};
use super::shared::Shared;

/// How many of the keys that exist are named where one does not.
const NAMED_KEYS: usize = 8;

/// The start of the path of every part of the state.
const STATE: &str = "/v1/state/";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fresh {
    at_least: Option<Index>,
    timeout: Option<String>,
}

/// `GET /healthz`: the process lives, and the node's task with it.
pub(crate) async fn health(State(shared): State<Shared>) -> Result<Response, ApiError> {
    if shared.node.changes().has_changed().is_err() {
        return Err(ApiError::unavailable("stopped", "The node's task has ended."));
    }
    Ok(Json(json!({ "status": "alive" })).into_response())
}

/// `GET /readyz`: whether the node has caught up, and if not, why and how far it is.
pub(crate) async fn ready(State(shared): State<Shared>) -> Result<Response, ApiError> {
    let published = shared.node.now();
    let view = &published.view;
    if shared.shutdown.is_cancelled() {
        return Err(ApiError::stopping());
    }
    if view.ready {
        let body = Json(json!({ "ready": true, "next": view.next }));
        return Ok((index_header(&published), body).into_response());
    }
    let reason = view.not_ready.as_deref().unwrap_or("this node has not caught up yet");
    Err(ApiError::unavailable("not_ready", sentence(reason))
        .with("catch_up", &view.catch_up)
        .with("next", view.next)
        .with("head_next", view.head_next))
}

/// `GET /v1/state`: all of it.
pub(crate) async fn state(State(shared): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    part(&shared, &uri, Vec::new()).await
}

/// `GET /v1/state/{path}`: the part under these keys. A `/` within a key is written `%2F`.
pub(crate) async fn state_at(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let uri = request.uri();
    let path = uri.path().strip_prefix(STATE).unwrap_or_default();
    let keys: Option<Vec<String>> = path.split('/').map(decode).collect();
    let mut keys = keys.ok_or_else(|| ApiError::bad_request("bad_path", "The path is not percent-encoded UTF-8."))?;
    if keys.last().is_some_and(String::is_empty) {
        keys.pop();
    }
    part(&shared, uri, keys).await
}

async fn part(shared: &Shared, uri: &Uri, keys: Vec<String>) -> Result<Response, ApiError> {
    let Fresh { at_least, timeout } = query(uri)?;
    let published = fresh::published(shared, at_least, timeout.as_deref()).await?;
    let header = index_header(&published);
    // A large state takes milliseconds to write: not on a thread that others wait for.
    let written = tokio::task::spawn_blocking(move || {
        let state = published.replica.state();
        if keys.is_empty() {
            return serde_json::to_vec(state).map_err(|error| unwritable(&error));
        }
        let part = top(state, &keys[0]).map_err(|error| unwritable(&error))?;
        serde_json::to_vec(find(&part, &keys)?).map_err(|error| unwritable(&error))
    });
    let body = written.await.map_err(|error| ApiError::internal("unwritable_state", sentence(error)))??;
    Ok((header, [(CONTENT_TYPE, "application/json")], body).into_response())
}

fn unwritable(error: &serde_json::Error) -> ApiError {
    ApiError::internal("unwritable_state", sentence(error))
}

/// The state with only this part of it filled in: whoever asks for the nodes need not wait for the tasks.
fn top(state: &lockstep_inference::state::State, part: &str) -> serde_json::Result<Value> {
    let mut top = serde_json::to_value(lockstep_inference::state::State::default())?;
    let filled = match part {
        "nodes" => serde_json::to_value(&state.nodes)?,
        "links" => serde_json::to_value(&state.links)?,
        "cards" => serde_json::to_value(&state.cards)?,
        "instances" => serde_json::to_value(&state.instances)?,
        "runners" => serde_json::to_value(&state.runners)?,
        "tasks" => serde_json::to_value(&state.tasks)?,
        _ => return Ok(top),
    };
    top[part] = filled;
    Ok(top)
}

fn find<'a>(state: &'a Value, keys: &[String]) -> Result<&'a Value, ApiError> {
    let mut here = state;
    for (depth, key) in keys.iter().enumerate() {
        let below = match here {
            Value::Object(fields) => fields.get(key),
            Value::Array(items) => key.parse().ok().and_then(|at: usize| items.get(at)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        here = below.ok_or_else(|| missing(here, &keys[..depth], key))?;
    }
    Ok(here)
}

fn missing(here: &Value, above: &[String], key: &str) -> ApiError {
    let place = if above.is_empty() { "the state".to_owned() } else { format!("{:?}", above.join("/")) };
    let (exist, of): (Vec<String>, usize) = match here {
        Value::Object(fields) => (fields.keys().take(NAMED_KEYS).cloned().collect(), fields.len()),
        Value::Array(items) => ((0..items.len().min(NAMED_KEYS)).map(|at| at.to_string()).collect(), items.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (Vec::new(), 0),
    };
    let there_is = match of - exist.len() {
        _ if exist.is_empty() => "nothing".to_owned(),
        0 => exist.join(", "),
        more => format!("{} and {more} more", exist.join(", ")),
    };
    let message = format!("There is no {key:?} in {place}; there is {there_is}.");
    ApiError::not_found("no_such_key", message).with("missing", key).with("exist", exist)
}

/// Undoes percent-encoding; none if what comes out is no text.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digit = |digit: u8| char::from(digit).to_digit(16);
                u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?
            }
            (b'%', _) => return None,
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_checked() {
        assert_eq!(decode("acme%2Fsmall%208b").as_deref(), Some("acme/small 8b"));
        assert_eq!(decode("a+b").as_deref(), Some("a+b"));
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_part_is_what_the_whole_has() {
        let mut state = lockstep_inference::state::State::default();
        for command in lockstep_inference::workload::Workload::new(1).take(500) {
            let wish = lockstep_replication::Wish::Command(command);
            let events = lockstep_inference::decide::decide(&state, &Default::default(), wish);
            let place = lockstep_replication::Place { index: Index(0), stamp: lockstep_replication::Wall(0) };
            events.unwrap().iter().for_each(|event| lockstep_inference::apply::apply(&mut state, event, place));
        }
        let whole = serde_json::to_value(&state).unwrap();
        for (part, value) in whole.as_object().unwrap() {
            assert_eq!(&top(&state, part).unwrap()[part], value, "{part}");
        }
    }

    #[test]
    fn a_missing_key_is_named_with_those_that_exist() {
        let state = json!({ "tasks": { "a": 1, "b": [10, 20] } });
        let at = |path: &str| {
            let keys: Vec<String> = path.split('/').map(str::to_owned).collect();
            find(&state, &keys).cloned().map_err(|error| error.message().to_owned())
        };
        assert_eq!(at("tasks/b/1"), Ok(json!(20)));
        assert_eq!(at("nodes").unwrap_err(), r#"There is no "nodes" in the state; there is tasks."#);
        assert_eq!(at("tasks/c").unwrap_err(), r#"There is no "c" in "tasks"; there is a, b."#);
        assert_eq!(at("tasks/a/x").unwrap_err(), r#"There is no "x" in "tasks/a"; there is nothing."#);
    }
}
