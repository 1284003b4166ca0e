//! Decisions on model cards and on the instances made of them.

use lockstep_replication::NodeId;

use crate::event::Event;
use crate::id::{InstanceId, ModelId, RunnerId};
use crate::limits::{self, check_model};
use crate::placement::{self, Measured};
use crate::refusal::Refusal;
use crate::state::{ModelCard, NodeStatus, Rank, State};

pub(super) fn add_card(state: &State, model: ModelId, card: ModelCard) -> Result<Vec<Event>, Refusal> {
    check_model(&model)?;
    limits::check_card(&card)?;
    match state.cards.get(&model) {
        Some(known) if **known == card => Ok(vec![]),
        Some(_) => Err(Refusal::CardExists { model }),
        None => {
            limits::check_room("model cards", state.cards.len(), limits::CARDS)?;
            Ok(vec![Event::CardAdded { model, card }])
        }
    }
}

pub(super) fn delete_card(state: &State, model: ModelId) -> Result<Vec<Event>, Refusal> {
    check_model(&model)?;
    if !state.cards.contains_key(&model) {
        return Err(Refusal::UnknownModel { model });
    }
    match state.instances.iter().find(|(_, instance)| instance.model == model) {
        Some((instance, _)) => Err(Refusal::ModelInUse { instance: *instance, model }),
        None => Ok(vec![Event::CardDeleted { model }]),
    }
}

pub(super) fn create_instance(
    state: &State,
    measured: &Measured,
    instance: Option<InstanceId>,
    model: ModelId,
    nodes: &[NodeId],
) -> Result<Vec<Event>, Refusal> {
    let instance = instance.ok_or_else(|| Refusal::NoId { what: "instance".into() })?;
    check_model(&model)?;
    let Some(card) = state.cards.get(&model) else { return Err(Refusal::UnknownModel { model }) };
    limits::check_list("nodes", nodes.len(), limits::RANKS)?;
    if nodes.is_empty() {
        return Err(Refusal::NoNodes { model });
    }
    if nodes.len() > card.layers as usize {
        return Err(Refusal::TooFewLayers { model, layers: card.layers, ranks: nodes.len() as u64 });
    }
    if let Some(node) = limits::listed_twice(nodes) {
        return Err(Refusal::NodeTwice { node });
    }
    nodes.iter().try_for_each(|node| check_present(state, *node))?;
    nodes.iter().try_for_each(|node| check_runner(measured, *node, &card.runner))?;
    if state.instances.contains_key(&instance) {
        return Err(Refusal::InstanceExists { instance });
    }
    limits::check_room("instances", state.instances.len(), limits::INSTANCES)?;
    let ranks: Vec<Rank> =
        (0..).zip(nodes).map(|(rank, node)| Rank { node: *node, runner: RunnerId::of(instance, rank) }).collect();
    if let Some(taken) = ranks.iter().find(|rank| state.runners.contains_key(&rank.runner)) {
        return Err(Refusal::RunnerExists { runner: taken.runner });
    }
    Ok(vec![Event::InstanceCreated { instance, model, ranks }])
}

pub(super) fn place_instance(
    state: &State,
    measured: &Measured,
    instance: Option<InstanceId>,
    model: ModelId,
    ranks: Option<u32>,
) -> Result<Vec<Event>, Refusal> {
    let nodes = placement::plan(state, measured, &model, ranks)?;
    create_instance(state, measured, instance, model, &nodes)
}

pub(super) fn delete_instance(state: &State, instance: InstanceId) -> Result<Vec<Event>, Refusal> {
    if !state.instances.contains_key(&instance) {
        return Err(Refusal::UnknownInstance { instance });
    }
    Ok(vec![Event::InstanceDeleted { instance }])
}

fn check_present(state: &State, node: NodeId) -> Result<(), Refusal> {
    match state.nodes.get(&node).map(|known| known.status) {
        None => Err(Refusal::UnknownNode { node }),
        Some(NodeStatus::Lost { .. }) => Err(Refusal::NodeLost { node }),
        Some(NodeStatus::Up | NodeStatus::Announced) => Ok(()),
    }
}

/// A node that was named may not be there yet, or not have told yet what it has.
fn check_runner(measured: &Measured, node: NodeId, runner: &str) -> Result<(), Refusal> {
    match measured.get(&node).map(|telemetry| &telemetry.runners) {
        Some(runners) if !runners.is_empty() && !runners.contains(runner) => {
            let has = runners.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(Refusal::NodeLacksRunner { node, runner: runner.to_owned(), has })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::state::RunnerStatus;
    use crate::testing::{Cluster, card, create_instance, create_task, instance, model};

    #[test]
    fn a_card_is_added_once_and_deleted_once() {
        let mut cluster = Cluster::new();
        let add = |layers| Command::AddCard { model: model("c"), card: card(layers) };
        let delete = Command::DeleteCard { model: model("c") };
        assert_eq!(cluster.ask(add(3)), Ok(vec![Event::CardAdded { model: model("c"), card: card(3) }]));
        assert_eq!(cluster.ask(add(3)), Ok(vec![]));
        assert_eq!(cluster.ask(add(4)), Err(Refusal::CardExists { model: model("c") }));
        assert_eq!(cluster.ask(delete.clone()), Ok(vec![Event::CardDeleted { model: model("c") }]));
        assert_eq!(cluster.ask(delete), Err(Refusal::UnknownModel { model: model("c") }));
    }

    #[test]
    fn an_impossible_card_is_refused() {
        let mut cluster = Cluster::new();
        let add = |id: &str| Command::AddCard { model: model(id), card: card(0) };
        assert_eq!(cluster.refusal(add("c")), "layers is 0: it must be at least 1");
        assert_eq!(cluster.refusal(add("")), "the model id is empty: give it at least one character");
        let long = "the model id has 201 characters: shorten it to at most 200";
        assert_eq!(cluster.refusal(add(&"m".repeat(201))), long);
        assert_eq!(cluster.refusal(Command::DeleteCard { model: model(&"m".repeat(201)) }), long);
        assert_eq!(cluster.refusal(create_instance(0, &"m".repeat(201), &[1])), long);
        assert_eq!(cluster.refusal(create_task(0, &"m".repeat(201))), long);
    }

    #[test]
    fn a_card_outlives_its_instances() {
        let mut cluster = Cluster::with_instances(&[&[1]]);
        let delete = Command::DeleteCard { model: model("a") };
        assert_eq!(cluster.ask(delete.clone()).unwrap_err().code(), "model_in_use");
        cluster.ask(Command::DeleteInstance { instance: instance(0) }).unwrap();
        cluster.ask(delete).unwrap();
    }

    #[test]
    fn an_instance_has_a_runner_on_each_of_its_nodes() {
        let mut cluster = Cluster::new();
        cluster.ask(create_instance(0, "a", &[3, 1])).unwrap();
        let created = &cluster.state.instances[&instance(0)];
        assert_eq!(created.ranks.iter().map(|rank| rank.node.0[0]).collect::<Vec<_>>(), [3, 1]);
        for rank in &created.ranks {
            let runner = &cluster.state.runners[&rank.runner];
            assert_eq!((runner.instance, runner.node), (instance(0), rank.node));
            assert_eq!(runner.status, RunnerStatus::Idle);
        }
    }

    #[test]
    fn an_instance_that_cannot_be_is_refused() {
        let mut cluster = Cluster::with_instances(&[&[1, 2]]);
        let refused = |cluster: &mut Cluster, command| cluster.ask(command).unwrap_err().code();
        let without_id = Command::CreateInstance { instance: None, model: model("a"), nodes: vec![NodeId::example(1)] };
        assert_eq!(refused(&mut cluster, without_id), "no_id");
        assert_eq!(refused(&mut cluster, create_instance(1, "z", &[1])), "unknown_model");
        assert_eq!(refused(&mut cluster, create_instance(1, "a", &[])), "no_nodes");
        assert_eq!(refused(&mut cluster, create_instance(1, "a", &[9])), "unknown_node");
        assert_eq!(refused(&mut cluster, create_instance(1, "a", &[1, 2, 1])), "node_twice");
        assert_eq!(refused(&mut cluster, create_instance(1, "b", &[1, 2, 3])), "too_few_layers");
        assert_eq!(refused(&mut cluster, create_instance(1, "a", &[1; 65])), "too_many");
        assert_eq!(refused(&mut cluster, create_instance(0, "a", &[3])), "instance_exists");
        // The second runner of instance 0 has the name that the first of this one would have.
        let close = InstanceId(RunnerId::of(instance(0), 1).0);
        let taken =
            Command::CreateInstance { instance: Some(close), model: model("a"), nodes: vec![NodeId::example(3)] };
        assert_eq!(refused(&mut cluster, taken), "runner_exists");
        assert_eq!(cluster.state.instances.len(), 1);
    }

    #[test]
    fn a_deleted_instance_takes_its_runners_and_tasks_along() {
        let mut cluster = Cluster::with_instances(&[&[1, 2], &[3]]);
        (1..=4).for_each(|task| drop(cluster.ask(create_task(task, "a")).unwrap()));
        let delete = Command::DeleteInstance { instance: instance(0) };
        assert_eq!(cluster.ask(delete.clone()), Ok(vec![Event::InstanceDeleted { instance: instance(0) }]));
        assert_eq!((cluster.state.runners.len(), cluster.state.tasks.len(), cluster.live(1)), (1, 2, 2));
        assert_eq!(cluster.ask(delete), Err(Refusal::UnknownInstance { instance: instance(0) }));
    }
}
