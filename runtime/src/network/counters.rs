//! What the network counts, for the metrics page.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Lane;
use super::frame::BadFrame;

/// Why a message was dropped or a connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Cause {
    /// The peer's queue was full.
    QueueFull,
    /// It is longer than a message may be.
    TooLong,
    /// There is no connection, and it is too long for gossip.
    TooLongForGossip,
    /// Gossip did not take it: nobody listens, or its queues are full.
    GossipRefused,
    /// It came by gossip, and the node did not keep up.
    InboxFull,
    /// It waited in a peer's queue when the connection ended.
    ConnectionEnded,
    /// A peer announced a frame above the limit.
    Oversized,
    /// A peer sent what is no frame, no addresses or no envelope.
    Garbage,
    /// A peer's stream ended inside a frame.
    HalfFrame,
    /// A peer's stream broke.
    StreamBroke,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Direction {
    In,
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum LaneLabel {
    Urgent,
    Bulk,
    Gossip,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrafficLabels {
    lane: LaneLabel,
    direction: Direction,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: Cause,
}

/// Counters that never go down, and the number of connected nodes. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Counters {
    urgent: Ways,
    bulk: Ways,
    gossip: Ways,
    dropped: Family<CauseLabels, Counter>,
    rejected: Counter,
    connected: Gauge,
}

/// Both ways of one lane. Looked up once, because every message is counted.
#[derive(Clone, Debug)]
struct Ways {
    received: Traffic,
    sent: Traffic,
}

/// One way of one lane.
#[derive(Clone, Debug)]
struct Traffic {
    messages: Counter,
    bytes: Counter,
}

impl Traffic {
    fn count(&self, bytes: usize) {
        self.messages.inc();
        self.bytes.inc_by(bytes as u64);
    }
}

impl Counters {
    /// New counters, shown by this registry.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let messages = Family::<TrafficLabels, Counter>::default();
        let bytes = Family::<TrafficLabels, Counter>::default();
        let traffic = |lane: LaneLabel, direction: Direction| {
            let labels = TrafficLabels { lane, direction };
            Traffic { messages: messages.get_or_create_owned(&labels), bytes: bytes.get_or_create_owned(&labels) }
        };
        let ways = |lane| Ways { received: traffic(lane, Direction::In), sent: traffic(lane, Direction::Out) };
        let counters = Counters {
            urgent: ways(LaneLabel::Urgent),
            bulk: ways(LaneLabel::Bulk),
            gossip: ways(LaneLabel::Gossip),
            dropped: Family::default(),
            rejected: Counter::default(),
            connected: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("network");
        registry.register("messages", "Messages by lane and direction", messages);
        registry.register_with_unit("payload", "Bytes of messages by lane and direction", Unit::Bytes, bytes);
        registry.register("dropped", "Messages and connections given up, by cause", counters.dropped.clone());
        registry.register("rejected", "Peers that could not be worked with", counters.rejected.clone());
        registry.register("connected", "Nodes with both lanes open", counters.connected.clone());
        counters
    }

    pub(super) fn sent(&self, lane: Lane, bytes: usize) {
        self.lane(lane).sent.count(bytes);
    }

    pub(super) fn received(&self, lane: Lane, bytes: usize) {
        self.lane(lane).received.count(bytes);
    }

    pub(super) fn sent_by_gossip(&self, bytes: usize) {
        self.gossip.sent.count(bytes);
    }

    pub(super) fn received_by_gossip(&self, bytes: usize) {
        self.gossip.received.count(bytes);
    }

    pub(super) fn drop(&self, cause: Cause) {
        self.drop_many(cause, 1);
    }

    pub(super) fn drop_many(&self, cause: Cause, count: usize) {
        self.dropped.get_or_create(&CauseLabels { cause }).inc_by(count as u64);
    }

    pub(super) fn reject(&self) {
        self.rejected.inc();
    }

    pub(super) fn show_connected(&self, nodes: usize) {
        self.connected.set(nodes as i64);
    }

    /// How much was given up for this cause so far.
    pub fn dropped(&self, cause: Cause) -> u64 {
        self.dropped.get_or_create(&CauseLabels { cause }).get()
    }

    fn lane(&self, lane: Lane) -> &Ways {
        match lane {
            Lane::Urgent => &self.urgent,
            Lane::Bulk => &self.bulk,
        }
    }
}

impl From<&BadFrame> for Cause {
    fn from(bad: &BadFrame) -> Cause {
        match bad {
            BadFrame::Oversized(_) => Cause::Oversized,
            BadFrame::UnknownKind(_) => Cause::Garbage,
            BadFrame::Half => Cause::HalfFrame,
            BadFrame::Broken(_) => Cause::StreamBroke,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_shows_on_the_metrics_page() {
        let mut registry = Registry::default();
        let counters = Counters::register(&mut registry);
        counters.sent(Lane::Urgent, 20);
        counters.drop(Cause::QueueFull);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).expect("text takes all");
        assert!(page.contains(r#"network_messages_total{lane="Urgent",direction="Out"} 1"#), "{page}");
        assert!(page.contains(r#"network_payload_bytes_total{lane="Urgent",direction="Out"} 20"#), "{page}");
        assert!(page.contains(r#"network_dropped_total{cause="QueueFull"} 1"#), "{page}");
        assert_eq!(counters.dropped(Cause::QueueFull), 1);
    }
}
