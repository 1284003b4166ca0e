//! `GET /v1/cluster`: what this node knows of itself and of the others, as one document.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use lockstep_replication::{Index, Role};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::query;
use super::errors::{ApiError, sentence};
use super::fresh::{self, index_header};
use super::shared::{Context, Shared};
use crate::handle::Published;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Whether to hash the state, which takes as long as writing it.
    #[serde(default)]
    hash: bool,
    at_least: Option<Index>,
    timeout: Option<String>,
}

/// The node's facts, as [`lockstep_replication::View`] names them (units are in the names), and beside them:
///
/// - `session`: the one that it leads or follows; `lag`: entries between what is applied and the head, and the same for
///   each of `nodes` whose log is known; `telemetry` of each that said how loaded it is;
/// - `reach`: how many of the known nodes it reaches now, itself included: what is ordered now is held by no more;
/// - `set_aside`: what losing branches left;
/// - `state_hash` with `?hash=true`: equal on two nodes that have the same `next` if and only if their states are.
pub(crate) async fn cluster(State(shared): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let Asked { hash, at_least, timeout } = query(&uri)?;
    let published = fresh::published(&shared, at_least, timeout.as_deref()).await?;
    let header = index_header(&published);
    // Hashing and listing files take their time: not on a thread that others wait for.
    let document = tokio::task::spawn_blocking(move || document(&shared, &published, hash));
    let failed = |error: String| ApiError::internal("unwritable", sentence(error));
    let document = document.await.map_err(|error| failed(error.to_string()))?;
    Ok((header, Json(document.map_err(|error| failed(error.to_string()))?)).into_response())
}

fn document(context: &Context, published: &Published, hash: bool) -> serde_json::Result<Value> {
    let Published { replica, view, reach, measured } = published;
    let mut document = serde_json::to_value(view)?;
    // Of the state itself: it goes with the hash.
    document["next"] = json!(replica.next());
    document["lag"] = json!(view.head_next.since(replica.next()));
    document["session"] = match view.role {
        Role::Seeking => Value::Null,
        Role::Following(session) | Role::Leading(session) => json!(session),
    };
    for (id, node) in &view.nodes {
        let shown = &mut document["nodes"][id.to_string()];
        shown["lag"] = json!(node.stored.map(|stored| view.head_next.since(stored)));
        shown["telemetry"] = json!(measured.get(id));
    }
    document["reach"] = json!(reach);
    document["set_aside"] = context.surroundings.set_aside();
    if hash {
        document["state_hash"] = json!(replica.digest());
    }
    Ok(document)
}
