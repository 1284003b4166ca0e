//! Where an instance would go: on nodes with its runner and room for its weights, connected to each other, as few as can hold them.
//!
//! Only weights are reckoned with: what a runner needs beside them (its cache of contexts, its own code) differs by
//! runner, so a card's `weights_bytes` should include it where it matters.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use lockstep_replication::NodeId;

use crate::id::ModelId;
use crate::limits;
use crate::refusal::{Refusal, size};
use crate::state::{ModelCard, NodeStatus, RunnerStatus, State};
use crate::telemetry::Telemetry;

/// What the nodes said last of themselves.
pub type Measured = BTreeMap<NodeId, Telemetry>;

/// With how many of the roomiest nodes a placement is tried to begin; the best connected one is taken.
const BEGINNINGS: usize = 16;

/// The most nodes that a refusal names.
const NAMED: usize = 3;

/// The nodes, rank by rank, on which an instance of a model would be placed now: as many as asked for, or else as few as
/// have room. The same arguments give the same nodes.
///
/// # Errors
/// There is no such model, no runner or no room for it: the sentence says what is missing.
pub fn plan(state: &State, measured: &Measured, model: &ModelId, ranks: Option<u32>) -> Result<Vec<NodeId>, Refusal> {
    limits::check_model(model)?;
    let Some(card) = state.cards.get(model) else { return Err(Refusal::UnknownModel { model: model.clone() }) };
    if let Some(ranks) = ranks {
        check_ranks(model, card, ranks)?;
    }
    let mut rooms = rooms(state, measured);
    let unmeasured = nodes_up(state).count() - rooms.len();
    let most = limits::RANKS.min(card.layers as usize).min(rooms.len());
    let tried = match ranks {
        Some(ranks) if ranks as usize > rooms.len() => {
            let (model, nodes, unmeasured) = (model.clone(), rooms.len() as u64, unmeasured as u64);
            return Err(Refusal::TooFewNodes { model, ranks, nodes, unmeasured });
        }
        Some(ranks) => ranks as usize..=ranks as usize,
        None if rooms.is_empty() => {
            return Err(Refusal::NoneMeasured { model: model.clone(), nodes: unmeasured as u64 });
        }
        None => 1..=most,
    };
    let all = rooms.len();
    rooms.retain(|(node, _)| measured.get(node).is_some_and(|telemetry| telemetry.runners.contains(&card.runner)));
    if rooms.len() < *tried.start() {
        let (model, runner, needed) = (model.clone(), card.runner.clone(), *tried.start() as u64);
        let (nodes, without) = (rooms.len() as u64, (all - rooms.len()) as u64);
        return Err(Refusal::NoRunner { model, runner, needed, nodes, without });
    }
    let tried = *tried.start()..=(*tried.end()).min(rooms.len());
    let found = tried.clone().map(|ranks| shares(card, ranks)).find_map(|shares| choose(state, &rooms, &shares));
    found.ok_or_else(|| {
        let on = |ranks: usize| match ranks {
            1 => format!("{} of memory on one node", size(shares(card, 1)[0])),
            _ => format!("{} on each of {ranks}", size(shares(card, ranks)[0])),
        };
        let (fewest, most) = (*tried.start(), *tried.end());
        let needs = if fewest == most { on(fewest) } else { format!("{}, or {}", on(fewest), on(most)) };
        let named: Vec<String> =
            rooms.iter().take(NAMED).map(|(node, room)| format!("{} on node {node}", size(*room))).collect();
        Refusal::NoRoom { model: model.clone(), needs, free: named.join(", "), unmeasured: unmeasured as u64 }
    })
}

/// How many bytes of a model each of so many ranks holds: its layers are spread evenly, the first ranks take one more
/// where they do not come out even.
pub fn shares(card: &ModelCard, ranks: usize) -> Vec<u64> {
    let (layers, ranks) = (u128::from(card.layers), ranks as u128);
    let share = |rank| {
        let own = layers / ranks + u128::from(rank < layers % ranks);
        (u128::from(card.weights_bytes) * own).div_ceil(layers) as u64
    };
    (0..ranks).map(share).collect()
}

/// The memory of each node that is up and measured, less what instances placed there will still take; most first.
pub fn rooms(state: &State, measured: &Measured) -> Vec<(NodeId, u64)> {
    let mut promised: BTreeMap<NodeId, u64> = BTreeMap::new();
    for instance in state.instances.values() {
        let Some(card) = state.cards.get(&instance.model) else { continue };
        for (rank, share) in instance.ranks.iter().zip(shares(card, instance.ranks.len())) {
            let status = state.runners.get(&rank.runner).map(|runner| &runner.status);
            let still = status.map_or(0, |status| still_to_load(status, share));
            let sum = promised.entry(rank.node).or_default();
            *sum = sum.saturating_add(still);
        }
    }
    let free = |node: NodeId| {
        let telemetry = measured.get(&node).filter(|telemetry| telemetry.memory_total_bytes > 0)?;
        let promised = promised.get(&node).copied().unwrap_or_default();
        Some((node, telemetry.memory_free_bytes.saturating_sub(promised)))
    };
    let mut rooms: Vec<(NodeId, u64)> = nodes_up(state).filter_map(free).collect();
    rooms.sort_by_key(|(node, room)| (Reverse(*room), *node));
    rooms
}

/// How much of its share a runner will still take beside what its node's telemetry shows as taken.
fn still_to_load(status: &RunnerStatus, share: u64) -> u64 {
    match status {
        // One that failed or was shut down comes back as long as its instance is there.
        RunnerStatus::Idle
        | RunnerStatus::Connecting
        | RunnerStatus::Connected
        | RunnerStatus::Failed { .. }
        | RunnerStatus::ShutDown => share,
        RunnerStatus::Loading { percent } => (u128::from(share) * u128::from(100 - percent.min(&100)) / 100) as u64,
        RunnerStatus::Loaded
        | RunnerStatus::WarmingUp
        | RunnerStatus::Ready
        | RunnerStatus::Running
        | RunnerStatus::ShuttingDown => 0,
    }
}

fn nodes_up(state: &State) -> impl Iterator<Item = NodeId> {
    state.nodes.iter().filter(|(_, node)| node.status == NodeStatus::Up).map(|(node, _)| *node)
}

fn check_ranks(model: &ModelId, card: &ModelCard, ranks: u32) -> Result<(), Refusal> {
    if ranks == 0 {
        return Err(Refusal::Zero { what: "ranks".into() });
    }
    limits::check_list("ranks", ranks as usize, limits::RANKS)?;
    if ranks > card.layers {
        return Err(Refusal::TooFewLayers { model: model.clone(), layers: card.layers, ranks: ranks.into() });
    }
    Ok(())
}

/// Nodes for these shares, which fall: of those with room the best connected, and among equals the roomiest.
fn choose(state: &State, rooms: &[(NodeId, u64)], shares: &[u64]) -> Option<Vec<NodeId>> {
    // Shares and rooms both fall: if the largest share fits into the largest room, and so on, they all fit.
    if shares.len() > rooms.len() || shares.iter().zip(rooms).any(|(share, (_, room))| share > room) {
        return None;
    }
    let beginnings = if shares.len() == 1 { 1 } else { BEGINNINGS.min(rooms.len()) };
    let grown = (0..beginnings).filter_map(|first| grow(state, rooms, shares, first));
    // The first of those that are best connected: it begins with the roomiest node.
    let (mut chosen, _) = grown.reduce(|best, other| if other.1 > best.1 { other } else { best })?;
    chosen.sort_unstable();
    Some(chosen.into_iter().map(|at| rooms[at].0).collect())
}

/// Adds to the node at `first`, one by one, that which is connected to most of those chosen. Returns where they are
/// among `rooms`, and how many connections they have among them.
fn grow(state: &State, rooms: &[(NodeId, u64)], shares: &[u64], first: usize) -> Option<(Vec<usize>, usize)> {
    let fits = |at: usize, share: u64| rooms[at].1 >= share;
    if !fits(first, shares[0]) {
        return None;
    }
    let mut chosen = vec![first];
    let mut links = vec![0_usize; rooms.len()];
    let mut all = 0;
    for share in &shares[1..] {
        let newest = rooms[*chosen.last()?].0;
        (0..rooms.len()).filter(|at| connected(state, newest, rooms[*at].0)).for_each(|at| links[at] += 1);
        let next = (0..rooms.len())
            .filter(|at| !chosen.contains(at) && fits(*at, *share))
            .min_by_key(|at| (Reverse(links[*at]), *at))?;
        all += links[next];
        chosen.push(next);
    }
    Some((chosen, all))
}

/// Whether one of two nodes reaches the other.
fn connected(state: &State, one: NodeId, other: NodeId) -> bool {
    let reaches = |from, to| state.links.get(&from).is_some_and(|reached| reached.contains(&to));
    reaches(one, other) || reaches(other, one)
}

#[cfg(test)]
mod tests;
