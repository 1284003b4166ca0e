//! Gossip: for nodes that are not connected to the sender. What is published names its lane and perhaps one addressee.

use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use libp2p::gossipsub::{
    self, Behaviour, ConfigBuilder, IdentTopic, MessageAuthenticity, MetricsConfig, PeerScoreParams,
    PeerScoreThresholds, TopicScoreParams, ValidationMode,
};
use libp2p::identity::Keypair;
use lockstep_replication::NodeId;
use prometheus_client::registry::Registry;

use super::Lane;

/// The longest gossip message with all that surrounds it. One that comes close to it is lost together with its
/// connection, so that what is published has to stay below `wire::GOSSIP_BYTES_AT_MOST`.
const TRANSMIT_BYTES_AT_MOST: usize = 64 << 10;
/// What could not be sent for so long is dropped: whoever needed it has asked again.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// From a node that passed more invalid messages on than this, nothing is taken until enough of them are forgotten: this
/// share each second, so that it is some ten seconds.
const INVALID_AT_MOST: f64 = 10.0;
const FORGIVEN_A_SECOND: f64 = 0.01;

const URGENT: u8 = 0;
const BULK: u8 = 1;
const ADDRESSED: u8 = 2;

/// Gossip that signs what it publishes, checks the signature of all that it hears, passes nothing on before this node
/// found it sound, and counts what is not against whoever passed it on.
pub(super) fn build(keypair: &Keypair, topics: &[&str], registry: &mut Registry) -> Result<Behaviour, String> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(TRANSMIT_BYTES_AT_MOST)
        .publish_queue_duration(STALE_AFTER)
        .build()
        .map_err(|error| error.to_string())?;
    let gossip = Behaviour::new(MessageAuthenticity::Signed(keypair.clone()), config)?;
    let mut gossip = gossip.with_metrics(registry.sub_registry_with_prefix("gossip"), MetricsConfig::default());
    let (score, thresholds) = scoring(topics);
    gossip.with_peer_score(score, thresholds)?;
    for topic in topics {
        gossip.subscribe(&IdentTopic::new(*topic)).map_err(|error: gossipsub::SubscriptionError| error.to_string())?;
    }
    Ok(gossip)
}

/// Only invalid messages count: what is slow, absent or behind the same address is no fault here.
fn scoring(topics: &[&str]) -> (PeerScoreParams, PeerScoreThresholds) {
    let topic = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -1.0,
        invalid_message_deliveries_decay: 1.0 - FORGIVEN_A_SECOND,
        ..TopicScoreParams::default()
    };
    let score = PeerScoreParams {
        topics: topics.iter().map(|name| (IdentTopic::new(*name).hash(), topic.clone())).collect(),
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        decay_interval: Duration::from_secs(1),
        ..PeerScoreParams::default()
    };
    // A score falls with the square of what counts.
    let worst = -INVALID_AT_MOST * INVALID_AT_MOST;
    let thresholds = PeerScoreThresholds {
        gossip_threshold: worst,
        publish_threshold: worst,
        graylist_threshold: worst,
        ..PeerScoreThresholds::default()
    };
    (score, thresholds)
}

/// What travels in a gossip message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) lane: Lane,
    /// The one node that it is for; none if it is for all.
    pub(super) to: Option<NodeId>,
    pub(super) bytes: Bytes,
}

impl Envelope {
    pub(super) fn encode(&self) -> Vec<u8> {
        let lane = match self.lane {
            Lane::Urgent => URGENT,
            Lane::Bulk => BULK,
        };
        let mut data = Vec::with_capacity(33 + self.bytes.len());
        match self.to {
            Some(to) => {
                data.put_u8(lane | ADDRESSED);
                data.put_slice(&to.0);
            }
            None => data.put_u8(lane),
        }
        data.put_slice(&self.bytes);
        data
    }

    /// None if this is no envelope.
    pub(super) fn decode(data: Vec<u8>) -> Option<Envelope> {
        let mut bytes = Bytes::from(data);
        let head = *bytes.first()?;
        let lane = match head & !ADDRESSED {
            URGENT => Lane::Urgent,
            BULK => Lane::Bulk,
            _ => return None,
        };
        let mut to = None;
        let mut payload = bytes.split_off(1);
        if head & ADDRESSED != 0 {
            to = Some(NodeId(*payload.first_chunk()?));
            payload = payload.split_off(32);
        }
        Some(Envelope { lane, to, bytes: payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_survives_its_encoding() {
        for lane in [Lane::Urgent, Lane::Bulk] {
            for to in [None, Some(NodeId::example(7))] {
                for bytes in [Bytes::new(), Bytes::from_static(b"hello")] {
                    let envelope = Envelope { lane, to, bytes };
                    assert_eq!(Envelope::decode(envelope.encode()), Some(envelope));
                }
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_of_unknown_kind_is_no_envelope() {
        let whole = Envelope { lane: Lane::Bulk, to: Some(NodeId::example(7)), bytes: Bytes::new() }.encode();
        assert_eq!(Envelope::decode(whole[..32].to_vec()), None);
        assert_eq!(Envelope::decode(vec![]), None);
        assert_eq!(Envelope::decode(vec![4, 1, 2, 3]), None);
    }

    #[test]
    fn gossip_subscribes_to_its_topics() {
        let gossip = build(&Keypair::generate_ed25519(), &["commands", "global_events"], &mut Registry::default());
        let gossip = gossip.expect("it can be built");
        assert_eq!(gossip.topics().count(), 2);
    }
}
