//! What the ranks of tasks did and when: collected from all of them, and merged for Chrome's trace viewer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstep_replication::NodeId;
use serde_json::{Value, json};

use crate::id::TaskId;
use crate::limits::{NAME_CHARS, cut_text};
use crate::state::Rank;
use crate::transient::{Trace, TraceSpan};

/// The newest so many tasks have traces: some minutes of a busy node, a few megabytes at most.
pub const TASKS: usize = 200;

/// So many steps of one rank are kept, for each task: what a person could look at.
pub const SPANS: usize = 200;

/// The traces of the newest tasks of one gateway.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    tasks: BTreeMap<TaskId, TaskTrace>,
    /// The oldest first.
    in_order: VecDeque<TaskId>,
}

/// What the ranks of one task did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskTrace {
    ranks: Vec<(Rank, Vec<TraceSpan>)>,
}

impl Traces {
    /// The tasks that something is known of, the oldest first.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> {
        let known = |task: &TaskId| self.tasks.get(task).is_some_and(|trace| !trace.is_empty());
        self.in_order.iter().copied().filter(move |task| known(task))
    }

    /// What is known of one task.
    pub fn of(&self, task: &TaskId) -> Option<&TaskTrace> {
        self.tasks.get(task).filter(|trace| !trace.is_empty())
    }

    /// All of them as one document.
    pub fn chrome(&self) -> Value {
        chrome(self.in_order.iter().filter_map(|task| self.tasks.get_key_value(task)))
    }

    /// These ranks work on a task. The oldest task is forgotten for it.
    pub(crate) fn expect(&mut self, task: TaskId, ranks: &[Rank]) {
        let trace = TaskTrace { ranks: ranks.iter().map(|rank| (*rank, vec![])).collect() };
        if self.tasks.insert(task, trace).is_none() {
            self.in_order.push_back(task);
        }
        if self.in_order.len() > TASKS
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.tasks.remove(&oldest);
        }
    }

    /// A node says what its runner did: whether anything of it is new and wanted.
    pub(crate) fn take(&mut self, from: NodeId, trace: Trace) -> bool {
        let Some(task) = self.tasks.get_mut(&trace.task) else { return false };
        let is_its = |(rank, _): &&mut (Rank, Vec<TraceSpan>)| rank.node == from && rank.runner == trace.runner;
        let Some((_, spans)) = task.ranks.iter_mut().find(is_its) else { return false };
        let before = spans.len();
        for span in trace.spans.into_iter().take(SPANS) {
            let span = TraceSpan { name: cut_text(&span.name, NAME_CHARS), ..span };
            // A signal may come twice.
            if spans.len() < SPANS && !spans.contains(&span) {
                spans.push(span);
            }
        }
        spans.len() > before
    }
}

impl TaskTrace {
    fn is_empty(&self) -> bool {
        self.ranks.iter().all(|(_, spans)| spans.is_empty())
    }
}

/// Traces in the form that Chrome's viewer and Perfetto read: a process for each node, a thread for each rank, times in
/// microseconds by the nodes' own wall clocks. Sorted: equal traces give equal documents.
pub fn chrome<'a>(tasks: impl IntoIterator<Item = (&'a TaskId, &'a TaskTrace)>) -> Value {
    let mut steps = vec![];
    for (task, trace) in tasks {
        for (rank, (Rank { node, .. }, spans)) in trace.ranks.iter().enumerate() {
            steps.extend(spans.iter().map(|span| (span.began.0.saturating_mul(1000), *node, rank, *task, span)));
        }
    }
    steps.sort_by(|a, b| (a.0, a.1, a.2, a.3, &a.4.name, a.4.micros).cmp(&(b.0, b.1, b.2, b.3, &b.4.name, b.4.micros)));
    // The viewers want numbers for processes; the names say which node each is.
    let nodes: BTreeSet<NodeId> = steps.iter().map(|(_, node, ..)| *node).collect();
    let numbers: BTreeMap<NodeId, usize> = nodes.into_iter().zip(1..).collect();
    let threads: BTreeSet<(usize, usize)> = steps.iter().map(|(_, node, rank, ..)| (numbers[node], *rank)).collect();
    let processes = numbers.iter().map(
        |(node, pid)| json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": format!("node {node}")}}),
    );
    let threads = threads.into_iter().map(|(pid, tid)| {
        json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": format!("rank {tid}")}})
    });
    let steps = steps.iter().map(|(began, node, rank, task, span)| {
        let (name, pid, micros) = (&span.name, numbers[node], span.micros);
        let args = json!({"task": task.to_string()});
        json!({"ph": "X", "cat": "task", "name": name, "pid": pid, "tid": rank, "ts": began, "dur": micros, "args": args})
    });
    let events: Vec<Value> = processes.chain(threads).chain(steps).collect();
    json!({"displayTimeUnit": "ms", "traceEvents": events})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunnerId;
    use crate::testing::{instance, task};
    use lockstep_replication::Wall;

    fn ranks(nodes: [u8; 2]) -> Vec<Rank> {
        let rank = |(n, node)| Rank { node: NodeId::example(node), runner: RunnerId::of(instance(1), n) };
        (0..).zip(nodes).map(rank).collect()
    }

    fn trace(n: u8, rank: u16, spans: &[(&str, u64, u64)]) -> Trace {
        let span = |(name, began, micros): &(&str, u64, u64)| TraceSpan {
            name: (*name).to_owned(),
            began: Wall(*began),
            micros: *micros,
        };
        Trace { task: task(n), runner: RunnerId::of(instance(1), rank), spans: spans.iter().map(span).collect() }
    }

    #[test]
    fn all_ranks_come_together_in_the_order_of_time() {
        let mut traces = Traces::default();
        traces.expect(task(1), &ranks([2, 1]));
        assert_eq!(traces.tasks().count(), 0);
        assert!(traces.take(NodeId::example(2), trace(1, 0, &[("prefill", 10, 1500), ("decode", 12, 700)])));
        assert!(traces.take(NodeId::example(1), trace(1, 1, &[("prefill", 11, 1500)])));
        let document = traces.chrome();
        let events = document["traceEvents"].as_array().unwrap();
        let steps: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
        let shown = steps.iter().map(|e| format!("{} {} {} {} {}", e["name"], e["pid"], e["tid"], e["ts"], e["dur"]));
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [r#""prefill" 2 0 10000 1500"#, r#""prefill" 1 1 11000 1500"#, r#""decode" 2 0 12000 700"#]
        );
        let names: Vec<_> =
            events.iter().filter(|event| event["ph"] == "M").map(|e| e["args"]["name"].clone()).collect();
        let node = |n| format!("node {}", NodeId::example(n));
        assert_eq!(names, [node(1), node(2), "rank 1".into(), "rank 0".into()]);
        assert_eq!(chrome([(&task(1), traces.of(&task(1)).unwrap())]), document);
    }

    #[test]
    fn what_comes_twice_or_from_elsewhere_is_not_taken() {
        let mut traces = Traces::default();
        traces.expect(task(1), &ranks([1, 2]));
        let said = trace(1, 0, &[("prefill", 1, 2)]);
        assert!(!traces.take(NodeId::example(2), said.clone()), "another node's runner");
        assert!(!traces.take(NodeId::example(1), trace(2, 0, &[("prefill", 1, 2)])), "another task");
        assert!(traces.take(NodeId::example(1), said.clone()));
        assert!(!traces.take(NodeId::example(1), said), "it is there");
    }

    #[test]
    fn the_newest_are_kept_and_each_has_its_bound() {
        let mut traces = Traces::default();
        for n in 0..=TASKS {
            let id = TaskId([(n % 256) as u8; 16]);
            traces.expect(id, &ranks([1, 2]));
            let many: Vec<_> = (0..SPANS as u64 + 5).map(|at| ("step", at, 1)).collect();
            assert!(traces.take(NodeId::example(1), trace(n as u8, 0, &many)));
        }
        assert_eq!((traces.tasks().count(), traces.tasks.len()), (TASKS, TASKS));
        assert!(traces.of(&task(0)).is_none());
        assert_eq!(traces.of(&task(1)).unwrap().ranks[0].1.len(), SPANS);
    }
}
