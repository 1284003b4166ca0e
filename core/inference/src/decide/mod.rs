//! The leader's decisions: which events a wish becomes, or why it is refused. Pure functions of the state, of what
//! the nodes said of themselves, and of the wish.

mod models;
mod nodes;
mod tasks;

use lockstep_replication::Wish;

use crate::Inference;
use crate::command::Command;
use crate::event::Event;
use crate::placement::Measured;
use crate::refusal::Refusal;
use crate::state::State;

/// The events that grant a wish; none if the state is as wished already. `measured` is what the nodes said last of
/// themselves.
///
/// Only commands are refused: what a node saw, and what the leader hears of it, is so whether one likes it or not.
pub fn decide(state: &State, measured: &Measured, wish: Wish<Inference>) -> Result<Vec<Event>, Refusal> {
    match wish {
        Wish::Command(command) => grant(state, measured, command),
        Wish::Observation(node, observation) => Ok(nodes::observed(state, node, observation)),
        Wish::Liveness(node, liveness) => Ok(nodes::heard(state, node, liveness)),
    }
}

fn grant(state: &State, measured: &Measured, command: Command) -> Result<Vec<Event>, Refusal> {
    match command {
        Command::SetNodeInfo { node, info } => nodes::set_info(state, node, info),
        Command::EvictNode { node } => nodes::evict(state, node),
        Command::AddCard { model, card } => models::add_card(state, model, card),
        Command::DeleteCard { model } => models::delete_card(state, model),
        Command::CreateInstance { instance, model, nodes } => {
            models::create_instance(state, measured, instance, model, &nodes)
        }
        Command::DeleteInstance { instance } => models::delete_instance(state, instance),
        Command::CreateTask { task, model, kind, input, gateway } => {
            tasks::create(state, task, model, kind, input, gateway)
        }
        Command::StartTask { task } => tasks::start(state, task),
        Command::FinishTask { task, outcome } => tasks::finish(state, task, outcome),
        Command::CancelTask { task } => tasks::cancel(state, task),
        Command::DeleteTask { task } => tasks::delete(state, task),
        Command::PlaceInstance { instance, model, ranks } => {
            models::place_instance(state, measured, instance, model, ranks)
        }
    }
}
