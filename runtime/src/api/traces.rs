//! `/v1/traces`: what the ranks of models did for the newest tasks whose clients are at this node, and when. In Chrome's
//! trace format: `chrome://tracing` and Perfetto show it.

use axum::Json;
use axum::extract::State;
use lockstep_inference::traces::chrome;
use serde_json::Value;

use super::body::PathText;
use super::errors::{ApiError, sentence};
use super::openai::task_of;
use super::shared::Shared;

/// `GET /v1/traces`: of all of them.
pub(crate) async fn traces(State(shared): State<Shared>) -> Result<Json<Value>, ApiError> {
    let traces = shared.models.traces().await;
    aside(move || Some(traces.chrome())).await.map(|document| Json(document.unwrap_or_default()))
}

/// `GET /v1/traces/{id}`: of one, by the id of its answer.
pub(crate) async fn trace(State(shared): State<Shared>, PathText(id): PathText) -> Result<Json<Value>, ApiError> {
    let task = task_of(&id)?;
    let traces = shared.models.traces().await;
    let document = aside(move || traces.of(&task).map(|trace| chrome([(&task, trace)]))).await?;
    let message =
        format!("There is no trace of {id} here: ask the node that was asked for the answer, and soon after.");
    document.map(Json).ok_or_else(|| ApiError::not_found("unknown_trace", message))
}

/// Tens of thousands of steps take their time: not on a thread that others wait for.
async fn aside(write: impl FnOnce() -> Option<Value> + Send + 'static) -> Result<Option<Value>, ApiError> {
    tokio::task::spawn_blocking(write).await.map_err(|error| ApiError::internal("unwritable_traces", sentence(error)))
}
