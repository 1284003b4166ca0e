//! `GET /v1/models`: the models that answer, in OpenAI's form.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use lockstep_inference::id::ModelId;
use lockstep_inference::state;
use lockstep_replication::Wall;
use serde_json::{Value, json};

use super::failure;
use crate::api::body::PathText;
use crate::api::errors::ApiError;
use crate::api::shared::Shared;

/// `GET /v1/models`: those that have an instance.
pub(crate) async fn models(State(shared): State<Shared>) -> Json<Value> {
    let published = shared.node.now();
    let data: Vec<Value> =
        placed(published.replica.state()).into_iter().map(|(model, since)| form(&model, since)).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/{id}`: one of them.
pub(crate) async fn model(State(shared): State<Shared>, PathText(id): PathText) -> Result<Json<Value>, ApiError> {
    let published = shared.node.now();
    let model = ModelId::new(&id);
    match placed(published.replica.state()).get(&model) {
        Some(since) => Ok(Json(form(&model, *since))),
        None => {
            Err(failure::no_model(format!("No instance of {id} is placed: GET /v1/models lists the models that are.")))
        }
    }
}

/// The models that have instances, and since when.
fn placed(state: &state::State) -> BTreeMap<ModelId, Wall> {
    let mut models: BTreeMap<ModelId, Wall> = BTreeMap::new();
    for instance in state.instances.values() {
        let since = models.entry(instance.model.clone()).or_insert(instance.created);
        *since = instance.created.min(*since);
    }
    models
}

fn form(model: &ModelId, since: Wall) -> Value {
    json!({ "id": model, "object": "model", "created": since.0 / 1000, "owned_by": "lockstep" })
}
