use super::*;
use crate::command::Command;
use crate::event::Event;
use crate::id::RunnerId;
use crate::observation::Observation;
use crate::testing::{Cluster, card, instance, model};
use lockstep_replication::Liveness;

const GIB: u64 = 1 << 30;

/// Nodes 1 to 4 with so much free memory, all connected, and a model `m` of so many GiB in so many layers.
fn cluster(free_gib: &[u64], weights_gib: u64, layers: u32) -> Cluster {
    let mut cluster = Cluster::new();
    for (node, free) in (1..).zip(free_gib) {
        cluster.measure(node, *free);
        link(&mut cluster, node, &(1..=free_gib.len() as u8).collect::<Vec<_>>());
    }
    let card = ModelCard { weights_bytes: weights_gib * GIB, ..card(layers) };
    cluster.ask(Command::AddCard { model: model("m"), card }).unwrap();
    cluster
}

fn link(cluster: &mut Cluster, node: u8, reaches: &[u8]) {
    let reaches = reaches.iter().map(|other| NodeId::example(*other)).collect();
    cluster.see(node, Observation::Links(reaches));
}

/// On which nodes `m` would go.
fn planned(cluster: &Cluster, ranks: Option<u32>) -> Result<Vec<u8>, Refusal> {
    let nodes = plan(&cluster.state, &cluster.measured, &model("m"), ranks)?;
    Ok(nodes.into_iter().map(|node| (1..=4).find(|n| NodeId::example(*n) == node).unwrap()).collect())
}

fn place(n: u8, ranks: Option<u32>) -> Command {
    Command::PlaceInstance { instance: Some(instance(n)), model: model("m"), ranks }
}

fn set_status(cluster: &mut Cluster, node: u8, rank: u16, status: RunnerStatus) {
    cluster.see(node, Observation::Runner { runner: RunnerId::of(instance(0), rank), status });
}

#[test]
fn a_model_goes_to_the_roomiest_node_if_it_fits_there() {
    assert_eq!(planned(&cluster(&[20, 40, 30, 10], 34, 48), None), Ok(vec![2]));
    assert_eq!(planned(&cluster(&[40, 40, 40, 40], 34, 48), None), planned(&cluster(&[40, 40, 40, 40], 34, 48), None));
}

#[test]
fn a_model_too_large_for_one_node_goes_to_as_few_as_can_hold_it() {
    assert_eq!(planned(&cluster(&[20, 18, 30, 10], 34, 48), None), Ok(vec![3, 1]));
    assert_eq!(planned(&cluster(&[12, 13, 14, 15], 34, 48), None), Ok(vec![4, 3, 2]));
    assert_eq!(planned(&cluster(&[50, 40, 30, 20], 34, 48), Some(3)), Ok(vec![1, 2, 3]));
}

#[test]
fn the_layers_that_are_left_over_go_to_the_first_ranks_and_the_roomiest_nodes() {
    let uneven = ModelCard { weights_bytes: 30, ..card(3) };
    assert_eq!(shares(&uneven, 2), [20, 10]);
    assert_eq!(shares(&ModelCard { weights_bytes: 10, ..card(3) }, 3), [4, 4, 4]);
    assert_eq!(planned(&cluster(&[10, 20, 5, 5], 30, 3), None), Ok(vec![2, 1]));
    assert_eq!(planned(&cluster(&[10, 19, 5, 5], 30, 3), Some(2)).unwrap_err().code(), "no_room");
}

#[test]
fn ranks_go_where_nodes_reach_each_other() {
    let mut cluster = cluster(&[40, 30, 20, 20], 34, 48);
    for (node, reaches) in [(1, vec![]), (2, vec![4]), (3, vec![]), (4, vec![])] {
        link(&mut cluster, node, &reaches);
    }
    assert_eq!(planned(&cluster, Some(2)), Ok(vec![2, 4]));
    // Nobody is connected to two others: some placement is better than none.
    assert_eq!(planned(&cluster, Some(3)).unwrap().len(), 3);
    link(&mut cluster, 3, &[4]);
    assert_eq!(planned(&cluster, Some(3)), Ok(vec![2, 3, 4]), "a chain of three");
}

#[test]
fn what_was_placed_and_not_loaded_yet_is_not_free_any_more() {
    let mut cluster = cluster(&[40, 39, 10, 10], 34, 48);
    cluster.ask(place(0, None)).unwrap();
    assert_eq!(cluster.state.instances[&instance(0)].ranks[0].node, NodeId::example(1));
    assert_eq!(planned(&cluster, None), Ok(vec![2]));
    cluster.ask(place(1, None)).unwrap();
    assert_eq!(planned(&cluster, None).unwrap_err().code(), "no_room");
    // Half of it is loaded, and the telemetry says so.
    cluster.measure(1, 23);
    set_status(&mut cluster, 1, 0, RunnerStatus::Loading { percent: 50 });
    assert_eq!(rooms(&cluster.state, &cluster.measured)[2].1, 6 * GIB);
    cluster.measure(1, 6);
    for status in [RunnerStatus::Loaded, RunnerStatus::WarmingUp, RunnerStatus::Ready, RunnerStatus::Running] {
        set_status(&mut cluster, 1, 0, status);
        assert_eq!(rooms(&cluster.state, &cluster.measured)[2].1, 6 * GIB);
    }
    // It comes back, and needs its memory again.
    cluster.measure(1, 40);
    set_status(&mut cluster, 1, 0, RunnerStatus::Failed { reason: "killed".into() });
    assert_eq!(rooms(&cluster.state, &cluster.measured)[2].1, 6 * GIB);
    cluster.ask(Command::DeleteInstance { instance: instance(0) }).unwrap();
    assert_eq!(planned(&cluster, None), Ok(vec![1]));
}

#[test]
fn nodes_that_are_gone_or_were_not_measured_take_no_part() {
    let mut cluster = cluster(&[40, 50], 34, 48);
    cluster.hear(2, Liveness::Lost);
    assert_eq!(planned(&cluster, None), Ok(vec![1]));
    cluster.measured.insert(NodeId::example(1), Telemetry { memory_free_bytes: 40 * GIB, ..Telemetry::default() });
    let said = cluster.refusal(place(0, None));
    let wanted = "model m cannot be placed: none of the 3 nodes that are up has told yet how much memory it has; \
                  try again in some seconds";
    assert_eq!(said, wanted);
}

#[test]
fn a_refusal_says_what_is_missing() {
    let mut cluster = cluster(&[8, 6], 34, 48);
    let [one, two] = [1, 2].map(NodeId::example);
    let wanted = format!(
        "model m needs 34.0 GiB of memory on one node, or 17.0 GiB on each of 2; the most free is 8.0 GiB on node \
         {one}, 6.0 GiB on node {two} (2 more have not told yet how much memory they have): delete instances, add a \
         node, or choose a smaller model"
    );
    assert_eq!(cluster.refusal(place(0, None)), wanted);
    let wanted = "model m as 3 ranks needs a node for each: 2 can be placed on (2 more have not told yet how much \
                  memory they have); ask for fewer ranks, or add nodes";
    assert_eq!(cluster.refusal(place(0, Some(3))), wanted);
    assert!(cluster.refusal(place(0, Some(2))).starts_with("model m needs 17.0 GiB on each of 2; the most free is"));
    assert_eq!(cluster.refusal(place(0, Some(0))), "ranks is 0: it must be at least 1");
    assert_eq!(cluster.ask(place(0, Some(49))).unwrap_err().code(), "too_few_layers");
    assert_eq!(cluster.ask(place(0, Some(65))).unwrap_err().code(), "too_many");
    let unknown = |model| Command::PlaceInstance { instance: Some(instance(0)), model, ranks: None };
    assert_eq!(cluster.ask(unknown(model("z"))).unwrap_err().code(), "unknown_model");
    assert_eq!(cluster.ask(unknown(model(""))).unwrap_err().code(), "empty");
}

#[test]
fn a_model_goes_only_to_nodes_that_have_its_runner() {
    let mut cluster = cluster(&[80, 60, 50, 40], 34, 48);
    let card = ModelCard { weights_bytes: 34 * GIB, runner: "vllm".into(), ..card(48) };
    cluster.ask(Command::AddCard { model: model("v"), card }).unwrap();
    let place_v = |ranks| Command::PlaceInstance { instance: Some(instance(9)), model: model("v"), ranks };
    let wanted = |needed, nodes, without| {
        let (model, runner) = (model("v"), "vllm".to_owned());
        Err(Refusal::NoRunner { model, runner, needed, nodes, without })
    };
    assert_eq!(cluster.ask(place_v(None)), wanted(1, 0, 4));
    let give = |cluster: &mut Cluster, node: u8| {
        cluster.measured.get_mut(&NodeId::example(node)).unwrap().runners.insert("vllm".into());
    };
    give(&mut cluster, 3);
    assert_eq!(plan(&cluster.state, &cluster.measured, &model("v"), None), Ok(vec![NodeId::example(3)]));
    assert_eq!(cluster.ask(place_v(Some(2))), wanted(2, 1, 3));
    assert_eq!(cluster.ask(place_v(Some(5))).unwrap_err().code(), "too_few_nodes");
    give(&mut cluster, 4);
    assert_eq!(plan(&cluster.state, &cluster.measured, &model("v"), Some(2)).unwrap().len(), 2);
    cluster.measure(3, 10);
    assert_eq!(planned(&cluster, None), Ok(vec![1]));
    // It was named by hand: a node that told what it has must have it, one that told nothing may.
    let named = |node| Command::CreateInstance {
        instance: Some(instance(8)),
        model: model("v"),
        nodes: vec![NodeId::example(node)],
    };
    let wanted = format!(
        "node {} has no runner `vllm`, only echo: name its program in the node's configuration, or choose another node",
        NodeId::example(1)
    );
    assert_eq!(cluster.refusal(named(1)), wanted);
    cluster.measured.remove(&NodeId::example(1));
    assert!(cluster.ask(named(1)).is_ok());
}

#[test]
fn a_placed_instance_is_created_as_planned_and_under_its_id() {
    let mut cluster = cluster(&[20, 18, 30, 10], 34, 48);
    let events = cluster.ask(place(5, None)).unwrap();
    let [Event::InstanceCreated { instance: created, ranks, .. }] = &events[..] else { panic!("{events:?}") };
    let nodes: Vec<NodeId> = ranks.iter().map(|rank| rank.node).collect();
    assert_eq!((*created, nodes), (instance(5), vec![NodeId::example(3), NodeId::example(1)]));
    assert_eq!(cluster.ask(place(5, Some(1))).unwrap_err().code(), "no_room");
    cluster.measure(4, 100);
    assert_eq!(cluster.ask(place(5, None)), Err(Refusal::InstanceExists { instance: instance(5) }));
    let without_id = Command::PlaceInstance { instance: None, model: model("m"), ranks: None };
    assert_eq!(cluster.ask(without_id).unwrap_err().code(), "no_id");
}

#[test]
fn the_largest_cluster_is_placed_on_in_bounds() {
    let mut cluster = Cluster::new();
    let nodes: Vec<NodeId> = (0..limits::NODES as u16)
        .map(|n| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            NodeId(id)
        })
        .collect();
    for node in &nodes {
        cluster.apply(&Event::NodeJoined { node: *node });
        let (memory_total_bytes, memory_free_bytes, runners) = (1, u64::MAX, ["echo".to_owned()].into());
        let telemetry = Telemetry { memory_total_bytes, memory_free_bytes, runners, ..Telemetry::default() };
        cluster.measured.insert(*node, telemetry);
    }
    let card = ModelCard { weights_bytes: u64::MAX, ..card(1000) };
    cluster.ask(Command::AddCard { model: model("m"), card }).unwrap();
    let chosen = plan(&cluster.state, &cluster.measured, &model("m"), Some(limits::RANKS as u32)).unwrap();
    assert_eq!((chosen.len(), limits::listed_twice(&chosen)), (limits::RANKS, None));
}
