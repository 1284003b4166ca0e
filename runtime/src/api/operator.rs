//! `/v1/operator/…`: the operator's hand. The node is told; what comes of it shows in `/v1/cluster`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lockstep_replication::{NodeId, Operator, Role};
use serde_json::json;

use super::body::{PathText, json_bytes};
use super::errors::{ApiError, sentence};
use super::shared::Shared;

/// `POST /v1/operator/handover`: another node leads from now on.
pub(crate) async fn hand_over(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    empty(request).await?;
    let view = &shared.node.now().view;
    match (view.role, view.leader) {
        (Role::Leading(_), _) => tell(&shared, Operator::HandOver).await,
        (Role::Following(_) | Role::Seeking, leader) => {
            let message = match leader {
                Some(leader) => format!("This node does not lead, {leader} does: ask that one."),
                None => "This node does not lead, and knows of no leader.".to_owned(),
            };
            Err(ApiError::new(StatusCode::CONFLICT, "not_leading", message).with("leader", leader))
        }
    }
}

/// `POST /v1/operator/forget/{node}`: a node that will not come back counts for majorities no more.
pub(crate) async fn forget(
    State(shared): State<Shared>,
    PathText(node): PathText,
    request: Request,
) -> Result<Response, ApiError> {
    empty(request).await?;
    let node: NodeId = node.parse().map_err(|error| ApiError::bad_request("bad_node", sentence(error)))?;
    let published = shared.node.now();
    if !published.replica.known().contains(&node) {
        return Err(ApiError::not_found("unknown_node", format!("The cluster knows no node {node}.")));
    }
    if node == published.view.me {
        let message = "A node cannot forget itself: ask another one, or stop this one first.";
        return Err(ApiError::new(StatusCode::CONFLICT, "forgets_itself", message));
    }
    tell(&shared, Operator::Forget(node)).await
}

/// `POST /v1/operator/lead-anyway`: lead although damaged or without a majority, as a new founding.
pub(crate) async fn lead_anyway(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    empty(request).await?;
    tell(&shared, Operator::LeadAnyway).await
}

/// `POST /v1/operator/leave`: hand over what there is, and stop.
pub(crate) async fn leave(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    empty(request).await?;
    tell(&shared, Operator::Leave).await
}

/// These requests have nothing to say beyond their path; they are JSON, so that no page of another site can send them.
pub(crate) async fn empty(request: Request) -> Result<(), ApiError> {
    let bytes = json_bytes(request).await?;
    if matches!(bytes.trim_ascii(), b"" | b"{}") {
        return Ok(());
    }
    Err(ApiError::bad_request("body_not_empty", "This request takes no body, or {}."))
}

async fn tell(shared: &Shared, operator: Operator) -> Result<Response, ApiError> {
    shared.node.operator(operator).await?;
    let body = json!({ "result": "accepted", "see": "/v1/cluster" });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}
