//! `/v1/instances` and the writing half of `/v1/models`: what runs where, what would, and the cards it is made of.
//!
//! What changes something is a command like any other: an `Idempotency-Key` makes it safe to repeat, and the answer is a
//! command's reply. One that creates an instance says besides which, and on which nodes.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use lockstep_inference::command::Command;
use lockstep_inference::id::{InstanceId, ModelId, RunnerId};
use lockstep_inference::placement;
use lockstep_inference::state::{Instance, NodeStatus, Rank, RunnerStatus, State as Cluster, TaskCounts};
use lockstep_replication::{CommandId, Index, NodeId, Wall};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body::{PathText, json_bytes, query};
use super::commands::key;
use super::errors::{ApiError, sentence};
use super::fresh::{self, index_header};
use super::reply::Reply;
use super::shared::Shared;
use super::submit::Asked;

/// An instance as it is shown: what the state has under several keys, in one place.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: InstanceId,
    model: &'a ModelId,
    /// Whether all its runners wait for tasks or work on some, and none of its nodes is lost.
    ready: bool,
    created: Wall,
    tasks: TaskCounts,
    ranks: Vec<ShownRank<'a>>,
}

#[derive(Debug, Serialize)]
struct ShownRank<'a> {
    node: NodeId,
    runner: RunnerId,
    /// Whether its node is: what the runner said last of itself counts for nothing then.
    lost: bool,
    /// None if the state has no such runner.
    status: Option<&'a RunnerStatus>,
}

impl<'a> Shown<'a> {
    fn of(state: &'a Cluster, id: InstanceId, instance: &'a Instance) -> Shown<'a> {
        let rank = |rank: &Rank| {
            let status = state.runners.get(&rank.runner).map(|runner| &runner.status);
            let lost = state.nodes.get(&rank.node).is_none_or(|node| matches!(node.status, NodeStatus::Lost { .. }));
            ShownRank { node: rank.node, runner: rank.runner, lost, status }
        };
        Shown {
            id,
            model: &instance.model,
            ready: state.is_available(instance) && state.is_ready(instance),
            created: instance.created,
            tasks: instance.tasks,
            ranks: instance.ranks.iter().map(rank).collect(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fresh {
    at_least: Option<Index>,
    timeout: Option<String>,
}

/// `GET /v1/instances`: all of them.
pub(crate) async fn list(State(shared): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let Fresh { at_least, timeout } = query(&uri)?;
    let published = fresh::published(&shared, at_least, timeout.as_deref()).await?;
    let state = published.replica.state();
    let all: Vec<Shown<'_>> = state.instances.iter().map(|(id, instance)| Shown::of(state, *id, instance)).collect();
    Ok((index_header(&published), Json(json!({ "instances": all }))).into_response())
}

/// `GET /v1/instances/{id}`: one of them.
pub(crate) async fn one(State(shared): State<Shared>, PathText(id): PathText, uri: Uri) -> Result<Response, ApiError> {
    let id = parse_id(&id)?;
    let Fresh { at_least, timeout } = query(&uri)?;
    let published = fresh::published(&shared, at_least, timeout.as_deref()).await?;
    let state = published.replica.state();
    let Some(instance) = state.instances.get(&id) else {
        return Err(ApiError::not_found("unknown_instance", format!("There is no instance {id}.")));
    };
    Ok((index_header(&published), Json(Shown::of(state, id, instance))).into_response())
}

/// `POST /v1/instances`: `{"model": …, "nodes": [ID, …]}`, and an id as `instance` if the client draws one.
pub(crate) async fn create(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let (key, command) = read(request, "create_instance").await?;
    creating(shared, key, command).await
}

/// `POST /v1/instances/place`: `{"model": …}`, with `ranks` if it is to be so many, on nodes that the leader chooses.
pub(crate) async fn place(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let (key, command) = read(request, "place_instance").await?;
    creating(shared, key, command).await
}

/// `DELETE /v1/instances/{id}`: with its runners and tasks.
pub(crate) async fn delete(
    State(shared): State<Shared>,
    PathText(id): PathText,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let command = Command::DeleteInstance { instance: parse_id(&id)? };
    Ok(order(shared, key(&headers)?, command).await?.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preview {
    model: String,
    ranks: Option<u32>,
    at_least: Option<Index>,
    timeout: Option<String>,
}

/// `GET /v1/instances/preview?model=ID&ranks=N`: where an instance would be placed, as this node sees the cluster now.
pub(crate) async fn preview(State(shared): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let Preview { model, ranks, at_least, timeout } = query(&uri)?;
    let published = fresh::published(&shared, at_least, timeout.as_deref()).await?;
    let (state, measured, model) = (published.replica.state(), &published.measured, ModelId::new(&model));
    let nodes = placement::plan(state, measured, &model, ranks)
        .map_err(|refusal| ApiError::new(StatusCode::CONFLICT, refusal.code(), sentence(&refusal)))?;
    let shares = state.cards.get(&model).map(|card| placement::shares(card, nodes.len())).unwrap_or_default();
    let rooms = placement::rooms(state, measured);
    let room = |node| rooms.iter().find(|(other, _)| *other == node).map(|(_, room)| *room);
    let ranks: Vec<Value> = nodes
        .into_iter()
        .zip(shares)
        .map(|(node, share)| json!({ "node": node, "needs_bytes": share, "free_bytes": room(node) }))
        .collect();
    Ok((index_header(&published), Json(json!({ "model": model, "ranks": ranks }))).into_response())
}

/// `POST /v1/models`: `{"model": ID, "card": {…}}`, a custom card, of which each node keeps a copy on its disk.
pub(crate) async fn add_card(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let (key, mut command) = read(request, "add_card").await?;
    if let Command::AddCard { card, .. } = &mut command {
        card.custom = true;
    }
    Ok(order(shared, key, command).await?.into_response())
}

/// `DELETE /v1/models/{id}`: the card of a model without instances.
pub(crate) async fn delete_card(
    State(shared): State<Shared>,
    PathText(id): PathText,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let command = Command::DeleteCard { model: ModelId::new(&id) };
    Ok(order(shared, key(&headers)?, command).await?.into_response())
}

fn parse_id(id: &str) -> Result<InstanceId, ApiError> {
    id.parse().map_err(|error| ApiError::bad_request("bad_id", sentence(error)))
}

/// The command of this kind whose fields the body gives.
async fn read(request: Request, kind: &str) -> Result<(Option<CommandId>, Command), ApiError> {
    let key = key(request.headers())?;
    let malformed = |error: serde_json::Error| ApiError::bad_request("malformed_json", sentence(error));
    let fields: Value = serde_json::from_slice(&json_bytes(request).await?).map_err(malformed)?;
    let command = serde_json::from_value(json!({ kind: fields })).map_err(malformed)?;
    Ok((key, command))
}

/// Orders it, in a task of its own: what becomes of the command is noted also if its client hangs up.
async fn order(shared: Shared, name: Option<CommandId>, command: Command) -> Result<Reply, ApiError> {
    let tasks = shared.tasks.clone();
    let asked = Asked { name, command };
    let reply = tasks.spawn(async move { shared.hand_in(asked).await.reply(&shared).await });
    reply.await.map_err(|error| ApiError::internal("reply_lost", sentence(error)))
}

/// Orders a command that creates an instance, and shows it.
async fn creating(shared: Shared, name: Option<CommandId>, command: Command) -> Result<Response, ApiError> {
    let given = match &command {
        Command::CreateInstance { instance, .. } | Command::PlaceInstance { instance, .. } => *instance,
        Command::SetNodeInfo { .. }
        | Command::EvictNode { .. }
        | Command::AddCard { .. }
        | Command::DeleteCard { .. }
        | Command::DeleteInstance { .. }
        | Command::CreateTask { .. }
        | Command::StartTask { .. }
        | Command::FinishTask { .. }
        | Command::CancelTask { .. }
        | Command::DeleteTask { .. } => None,
    };
    let reply = order(Shared::clone(&shared), name, command).await?;
    let Reply::Done { id, index, .. } = reply else { return Ok(reply.into_response()) };
    // What a command creates is named after it.
    let id = given.unwrap_or(InstanceId(id.0));
    // It is done: that this node applies it late, or that it is gone already, is no failure.
    let published = fresh::published(&shared, Some(index), None).await.unwrap_or_else(|_| shared.node.now());
    let state = published.replica.state();
    let shown = state.instances.get(&id).map(|instance| json!(Shown::of(state, id, instance)));
    Ok(reply.with("instance", shown.unwrap_or_else(|| json!({ "id": id }))))
}
