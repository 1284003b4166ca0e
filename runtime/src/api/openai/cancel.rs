//! `POST /v1/chat/completions/{id}/cancel`: an answer is not needed any more. Any node takes it.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use lockstep_inference::command::Command;
use serde_json::json;

use super::forms::task_of;
use crate::api::body::PathText;
use crate::api::errors::ApiError;
use crate::api::operator::empty;
use crate::api::reply::Reply;
use crate::api::shared::Shared;
use crate::api::submit::Asked;

/// `POST /v1/chat/completions/{id}/cancel`, by the id that the answer has in all its parts.
pub(crate) async fn cancel(
    State(shared): State<Shared>,
    PathText(id): PathText,
    request: Request,
) -> Result<Response, ApiError> {
    empty(request).await?;
    let task = task_of(&id)?;
    let asked = Asked { name: None, command: Command::CancelTask { task } };
    match shared.hand_in(asked).await.reply(&shared).await {
        Reply::Done { .. } => {
            Ok(Json(json!({ "id": id, "object": "chat.completion.cancelled", "cancelled": true })).into_response())
        }
        Reply::Refused(_) => {
            let message = format!("No answer {id} is under way: it has ended, or never was.");
            Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_task", message).of("id"))
        }
        other @ (Reply::NotTaken(_) | Reply::Unknown(_) | Reply::Pending { .. } | Reply::Error { .. }) => {
            Ok(other.into_response())
        }
    }
}
