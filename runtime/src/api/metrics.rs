//! `GET /metrics`: this node's facts and counters, its process, and its network, as Prometheus reads them.

use std::fmt;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use lockstep_replication::{Role, View};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;
use serde_json::Value;

use super::errors::{ApiError, sentence};
use super::shared::Shared;
use crate::handle::{NodeHandle, Reach};
use crate::work::{Views, WorkHandle};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry that reads the node and the process when it is asked.
pub(crate) fn registry(node: NodeHandle, work: WorkHandle) -> Registry {
    let mut all = Registry::default();
    let ours = all.sub_registry_with_prefix("lockstep");
    ours.register_collector(Box::new(NodeFacts(node)));
    ours.register_collector(Box::new(WorkFacts(work)));
    all.register_collector(Box::new(ProcessFacts));
    all
}

/// All metrics in one text.
pub(crate) async fn metrics(State(shared): State<Shared>) -> Result<Response, ApiError> {
    let mut text = String::new();
    let written = encode_registry(&mut text, &shared.registry)
        .and_then(|()| shared.surroundings.network_metrics(&mut text))
        .and_then(|()| encode_eof(&mut text));
    written.map_err(|error| ApiError::internal("unwritable_metrics", sentence(error)))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

/// What the node says of itself.
#[derive(Debug)]
struct NodeFacts(NodeHandle);

impl Collector for NodeFacts {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let published = self.0.now();
        for (name, meaning, value) in gauges(&published.view, published.reach) {
            gauge(&mut encoder, name, meaning, None, value)?;
        }
        for (name, meaning, value) in published.view.counters.all() {
            let counter = ConstCounter::new(value);
            // The encoder ends each description with a full stop of its own.
            let meaning = meaning.trim_end_matches('.');
            counter.encode(encoder.encode_descriptor(name, meaning, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

fn gauges(view: &View, reach: Reach) -> Vec<(&'static str, &'static str, u64)> {
    let catch_up = view.catch_up.as_ref();
    let count = |nodes: usize| nodes as u64;
    vec![
        ("ready", "Whether the node has caught up", view.ready.into()),
        ("leading", "Whether the node leads", matches!(view.role, Role::Leading(_)).into()),
        ("backed", "Whether more than half of the known nodes confirmed the session", view.backed.into()),
        ("damaged", "Whether the node lost synced entries and is not whole again", view.damaged.into()),
        ("applied_next", "One past the last entry applied", view.next.0),
        ("synced_next", "One past the last entry synced", view.synced.0),
        ("head_next", "One past the highest entry given out, as far as the node heard", view.head_next.0),
        ("log_first", "The oldest entry in the log on disk", view.log_first.0),
        (
            "done_next",
            "One past the last entry that clients are told of",
            view.done.map_or(0, |done| done.index.next().0),
        ),
        ("lag_entries", "Entries between what is applied and the head", view.head_next.since(view.next)),
        (
            "session_clock",
            "The clock of the newest session confirmed",
            view.confirmed.map_or(0, |session| session.clock),
        ),
        ("outbox_proposals", "Proposals that wait", count(view.outbox)),
        ("nodes_known", "Nodes that count for majorities", count(reach.known)),
        ("nodes_reached", "Known nodes that are connected and not silent, this one included", count(reach.reached)),
        (
            "nodes_connected",
            "Nodes with a connection",
            count(view.nodes.values().filter(|node| node.connected).count()),
        ),
        ("catch_up_active", "Whether a catch-up is under way", catch_up.is_some().into()),
        ("catch_up_received", "Bytes of the snapshot that is coming", catch_up.map_or(0, |catch_up| catch_up.bytes)),
        ("catch_up_size", "Bytes of that snapshot in all", catch_up.map_or(0, |catch_up| catch_up.bytes_of)),
    ]
}

/// What this node's worker and gateway say of themselves; nothing before the node has caught up.
#[derive(Debug)]
struct WorkFacts(WorkHandle);

impl Collector for WorkFacts {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(Views { worker, gateway }) = self.0.views() else { return Ok(()) };
        let working: usize = worker.runners.iter().map(|runner| runner.working).sum();
        for (name, meaning, value) in [
            ("worker_runners", "Runners of this node, those included that are ending", worker.runners.len() as u64),
            ("worker_tasks", "Tasks of the instances with a rank here", worker.tasks as u64),
            ("worker_tasks_working", "Tasks that runners here have", working as u64),
            ("worker_inputs", "Bytes of inputs that are kept for runners", worker.input_bytes as u64),
            ("worker_answers", "Bytes of answers that are kept to be sent again", worker.answer_bytes as u64),
            ("gateway_streams", "Clients that wait for answers", gateway.streams as u64),
            ("gateway_inputs", "Bytes of inputs that are kept for clients", gateway.input_bytes),
        ] {
            gauge(&mut encoder, name, meaning, None, value)?;
        }
        counted(&mut encoder, "worker", &worker.counts)?;
        counted(&mut encoder, "gateway", &gateway.counts)
    }
}

/// Each of the counts, under its own name.
fn counted(encoder: &mut DescriptorEncoder<'_>, whose: &str, counts: &impl Serialize) -> Result<(), fmt::Error> {
    let Ok(Value::Object(counts)) = serde_json::to_value(counts) else { return Ok(()) };
    for (name, value) in &counts {
        let meaning = format!("What the {whose} counts as: {}", name.replace('_', " "));
        let counter = ConstCounter::new(value.as_u64().unwrap_or_default());
        let name = format!("{whose}_{name}");
        counter.encode(encoder.encode_descriptor(&name, &meaning, None, counter.metric_type())?)?;
    }
    Ok(())
}

/// What the operating system says of the process; nothing where it does not say it as Linux does.
#[derive(Debug)]
struct ProcessFacts;

impl Collector for ProcessFacts {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(()) };
        for (field, name, meaning) in [
            ("VmRSS:", "process_resident_memory", "Memory of the process that is in RAM"),
            ("VmHWM:", "process_resident_memory_peak", "The most that it was"),
        ] {
            if let Some(kibibytes) = field_of(&status, field) {
                gauge(&mut encoder, name, meaning, Some(&Unit::Bytes), kibibytes.saturating_mul(1024))?;
            }
        }
        Ok(())
    }
}

fn field_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    meaning: &str,
    unit: Option<&Unit>,
    value: u64,
) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, meaning, unit, gauge.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_status_is_read_by_field() {
        let status = "Name:\tlockstep\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(field_of(status, "VmRSS:"), Some(1024));
        assert_eq!(field_of(status, "VmSwap:"), None);
    }
}
