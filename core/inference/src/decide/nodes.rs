//! Decisions on nodes: what they are, whether they are there, whom they reach, how far their runners are.

use std::collections::BTreeSet;

use lockstep_replication::{Liveness, NodeId};

use crate::event::Event;
use crate::limits;
use crate::observation::Observation;
use crate::refusal::Refusal;
use crate::state::{NodeInfo, NodeStatus, RunnerStatus, State};

pub(super) fn set_info(state: &State, node: NodeId, info: NodeInfo) -> Result<Vec<Event>, Refusal> {
    limits::check_info(&info)?;
    match state.nodes.get(&node) {
        Some(known) if known.info == info => return Ok(vec![]),
        Some(_) => {}
        None => limits::check_room("nodes", state.nodes.len(), limits::NODES)?,
    }
    Ok(vec![Event::NodeInfoChanged { node, info }])
}

pub(super) fn evict(state: &State, node: NodeId) -> Result<Vec<Event>, Refusal> {
    match state.nodes.get(&node).map(|known| known.status) {
        None => Err(Refusal::UnknownNode { node }),
        Some(NodeStatus::Up) => Err(Refusal::NodeUp { node }),
        Some(NodeStatus::Lost { .. } | NodeStatus::Announced) => Ok(evicted(state, node)),
    }
}

/// What the leader's own liveness says.
pub(super) fn heard(state: &State, node: NodeId, liveness: Liveness) -> Vec<Event> {
    let status = state.nodes.get(&node).map(|known| known.status);
    match (liveness, status) {
        (Liveness::Heard, None | Some(NodeStatus::Announced)) => vec![Event::NodeJoined { node }],
        (Liveness::Heard, Some(NodeStatus::Lost { .. })) => vec![Event::NodeReturned { node }],
        (Liveness::Heard, Some(NodeStatus::Up)) => vec![],
        (Liveness::Lost, Some(NodeStatus::Up | NodeStatus::Announced)) => vec![Event::NodeTimedOut { node }],
        (Liveness::Lost, Some(NodeStatus::Lost { .. })) => vec![],
        (Liveness::Evicted, Some(_)) => evicted(state, node),
        (Liveness::Lost | Liveness::Evicted, None) => vec![],
    }
}

/// What a node saw. Things that the state shows already are nothing new: an idle cluster writes nothing.
pub(super) fn observed(state: &State, node: NodeId, observation: Observation) -> Vec<Event> {
    let known = state.nodes.get(&node);
    // Who reports is there, even if its first beat is still on its way.
    let joined = match known.map(|known| known.status) {
        None | Some(NodeStatus::Announced) => Some(Event::NodeJoined { node }),
        Some(NodeStatus::Up | NodeStatus::Lost { .. }) => None,
    };
    let news = match observation {
        Observation::Info(info) => {
            let info = limits::cut_info(info);
            known.is_none_or(|known| known.info != info).then_some(Event::NodeInfoChanged { node, info })
        }
        Observation::Links(reaches) => {
            let reaches: BTreeSet<NodeId> =
                reaches.into_iter().filter(|other| *other != node).take(limits::NEIGHBOURS).collect();
            let same = state.links.get(&node).map_or(reaches.is_empty(), |now| **now == reaches);
            (!same).then_some(Event::LinksChanged { node, reaches })
        }
        Observation::Runner { runner, status } => {
            let status = cut_status(status);
            let now = state.runners.get(&runner).filter(|now| now.node == node);
            now.is_some_and(|now| now.status != status).then_some(Event::RunnerStatusChanged { runner, status })
        }
    };
    match news {
        Some(news) => joined.into_iter().chain([news]).collect(),
        None => joined.into_iter().collect(),
    }
}

/// Every instance that had a part there goes whole: the other parts cannot work without it.
fn evicted(state: &State, node: NodeId) -> Vec<Event> {
    let deleted = state.instances_on(node).map(|instance| Event::InstanceDeleted { instance });
    deleted.chain([Event::NodeEvicted { node }]).collect()
}

fn cut_status(status: RunnerStatus) -> RunnerStatus {
    match status {
        RunnerStatus::Loading { percent } => RunnerStatus::Loading { percent: percent.min(100) },
        RunnerStatus::Failed { reason } => {
            RunnerStatus::Failed { reason: limits::cut_text(&reason, limits::REASON_CHARS) }
        }
        RunnerStatus::Idle
        | RunnerStatus::Connecting
        | RunnerStatus::Connected
        | RunnerStatus::Loaded
        | RunnerStatus::WarmingUp
        | RunnerStatus::Ready
        | RunnerStatus::Running
        | RunnerStatus::ShuttingDown
        | RunnerStatus::ShutDown => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::id::RunnerId;
    use crate::testing::{Cluster, create_instance, create_task, instance};
    use lockstep_replication::Wall;

    fn info(name: &str) -> NodeInfo {
        NodeInfo { name: name.into(), addresses: vec!["10.0.0.1:7000".into()], memory_bytes: 1 << 36 }
    }

    fn status(cluster: &Cluster, node: u8) -> Option<NodeStatus> {
        cluster.state.nodes.get(&NodeId::example(node)).map(|node| node.status)
    }

    #[test]
    fn a_node_joins_times_out_and_returns_and_each_is_said_once() {
        let (mut cluster, node) = (Cluster::default(), NodeId::example(1));
        assert_eq!(cluster.hear(1, Liveness::Heard), [Event::NodeJoined { node }]);
        assert_eq!(cluster.hear(1, Liveness::Heard), []);
        assert_eq!(cluster.hear(1, Liveness::Lost), [Event::NodeTimedOut { node }]);
        assert_eq!(cluster.hear(1, Liveness::Lost), []);
        assert_eq!(status(&cluster, 1), Some(NodeStatus::Lost { since: Wall(1) }));
        assert_eq!(cluster.hear(1, Liveness::Heard), [Event::NodeReturned { node }]);
        assert_eq!(status(&cluster, 1), Some(NodeStatus::Up));
    }

    #[test]
    fn an_evicted_node_goes_with_all_it_held_and_nothing_else() {
        let mut cluster = Cluster::with_instances(&[&[1, 2], &[2, 3], &[3]]);
        cluster.see(1, Observation::Links([NodeId::example(2)].into()));
        (1..=6).for_each(|task| drop(cluster.ask(create_task(task, "a")).unwrap()));
        cluster.hear(1, Liveness::Lost);
        let events = cluster.hear(1, Liveness::Evicted);
        let node = NodeId::example(1);
        assert_eq!(events, [Event::InstanceDeleted { instance: instance(0) }, Event::NodeEvicted { node }]);
        assert_eq!((status(&cluster, 1), cluster.state.links.len()), (None, 0));
        assert_eq!((cluster.state.instances.len(), cluster.state.runners.len()), (2, 3));
        assert_eq!((cluster.state.tasks.len(), cluster.live(1), cluster.live(2)), (4, 2, 2));
        assert_eq!(cluster.hear(1, Liveness::Evicted), []);
        assert_eq!(cluster.hear(1, Liveness::Lost), []);
    }

    #[test]
    fn an_operator_announces_a_node_and_may_evict_it_unless_it_is_up() {
        let (mut cluster, node) = (Cluster::new(), NodeId::example(9));
        let evict = Command::EvictNode { node };
        assert_eq!(cluster.ask(evict.clone()), Err(Refusal::UnknownNode { node }));
        let set = Command::SetNodeInfo { node, info: info("nine") };
        assert_eq!(cluster.ask(set.clone()), Ok(vec![Event::NodeInfoChanged { node, info: info("nine") }]));
        assert_eq!(cluster.ask(set), Ok(vec![]));
        assert_eq!(status(&cluster, 9), Some(NodeStatus::Announced));
        assert_eq!(cluster.ask(evict.clone()), Ok(vec![Event::NodeEvicted { node }]));
        cluster.ask(Command::SetNodeInfo { node, info: info("nine") }).unwrap();
        assert_eq!(cluster.hear(9, Liveness::Heard), [Event::NodeJoined { node }]);
        assert_eq!(cluster.state.nodes[&node].info, info("nine"));
        assert_eq!(cluster.ask(evict), Err(Refusal::NodeUp { node }));
    }

    #[test]
    fn node_information_beyond_its_limits_is_refused() {
        let mut cluster = Cluster::new();
        let mut set = |info| cluster.refusal(Command::SetNodeInfo { node: NodeId::example(1), info });
        assert_eq!(set(info("")), "the node's name is empty: give it at least one character");
        assert_eq!(set(info(&"n".repeat(101))), "the node's name has 101 characters: shorten it to at most 100");
        let mut many = info("n");
        many.addresses = vec!["a".into(); 17];
        assert_eq!(set(many), "there are 17 addresses in this command: give at most 16");
    }

    #[test]
    fn the_cluster_has_room_for_so_many_nodes() {
        let mut cluster = Cluster::default();
        let mut set = |n: u16| {
            let mut node = NodeId::example(0);
            node.0[..2].copy_from_slice(&n.to_be_bytes());
            cluster.ask(Command::SetNodeInfo { node, info: info("n") })
        };
        assert!((0..limits::NODES as u16).all(|n| set(n).is_ok()));
        assert_eq!(set(2000).unwrap_err().code(), "full");
        set(5).expect("one that is there may still be described");
    }

    #[test]
    fn only_news_becomes_events() {
        let (mut cluster, node) = (Cluster::new(), NodeId::example(1));
        let links = |nodes: &[u8]| Observation::Links(nodes.iter().map(|node| NodeId::example(*node)).collect());
        assert_eq!(cluster.see(1, links(&[])), []);
        assert_eq!(cluster.see(1, Observation::Info(info("x"))).len(), 1);
        assert_eq!(cluster.see(1, Observation::Info(info("x"))), []);
        let reaches = [NodeId::example(2), NodeId::example(3)].into();
        assert_eq!(cluster.see(1, links(&[1, 2, 3])), [Event::LinksChanged { node, reaches }]);
        assert_eq!(cluster.see(1, links(&[2, 3])), []);
        assert_eq!(cluster.see(1, links(&[])).len(), 1);
        assert!(cluster.state.links.is_empty());
    }

    #[test]
    fn who_reports_has_joined() {
        let (mut cluster, node) = (Cluster::default(), NodeId::example(1));
        let events = cluster.see(1, Observation::Info(info("early")));
        assert_eq!(events, [Event::NodeJoined { node }, Event::NodeInfoChanged { node, info: info("early") }]);
        assert_eq!(cluster.hear(1, Liveness::Heard), []);
    }

    #[test]
    fn a_runner_is_as_its_own_node_says() {
        let mut cluster = Cluster::with_instances(&[&[1, 2]]);
        let runner = RunnerId::of(instance(0), 0);
        let is = |status| Observation::Runner { runner, status };
        let changed = |status| vec![Event::RunnerStatusChanged { runner, status }];
        assert_eq!(cluster.see(1, is(RunnerStatus::Idle)), []);
        assert_eq!(cluster.see(1, is(RunnerStatus::Ready)), changed(RunnerStatus::Ready));
        assert_eq!(cluster.see(2, is(RunnerStatus::Idle)), []);
        let beyond = is(RunnerStatus::Loading { percent: 255 });
        assert_eq!(cluster.see(1, beyond), changed(RunnerStatus::Loading { percent: 100 }));
        let failed = RunnerStatus::Failed { reason: "r".repeat(limits::REASON_CHARS) };
        let long = is(RunnerStatus::Failed { reason: "r".repeat(5000) });
        assert_eq!(cluster.see(1, long.clone()), changed(failed));
        assert_eq!(cluster.see(1, long), []);
        cluster.ask(Command::DeleteInstance { instance: instance(0) }).unwrap();
        assert_eq!(cluster.see(1, is(RunnerStatus::Ready)), []);
    }

    #[test]
    fn a_lost_node_gets_no_new_instance() {
        let mut cluster = Cluster::new();
        cluster.hear(2, Liveness::Lost);
        let node = NodeId::example(2);
        assert_eq!(cluster.ask(create_instance(0, "a", &[1, 2])), Err(Refusal::NodeLost { node }));
    }
}
