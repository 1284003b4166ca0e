//! Opens the two lanes on each connection and hands over their streams. What flows on them is not its business.
//!
//! Whoever dialled opens both lanes, as two bidirectional streams. A side is told that the lanes are ready when both
//! were agreed on: from then on it can read and write. Connections are kept alive as long as the process wants them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
    StreamUpgradeError,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionId, FromSwarm, NetworkBehaviour, Stream, SubstreamProtocol, ToSwarm,
};

use super::Lane;

const BOTH: &[Lane] = &[Lane::Urgent, Lane::Bulk];

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) urgent: Stream,
    pub(super) bulk: Stream,
}

/// How it went with the lanes of a connection.
#[derive(Debug)]
pub(super) struct LaneEvent {
    pub(super) connection: ConnectionId,
    pub(super) outcome: Outcome,
}

/// Ready, or why not.
#[derive(Debug)]
pub(super) enum Outcome {
    Ready(Box<Streams>),
    /// The text is the end of a sentence that begins with the peer's address.
    Unusable(String),
}

/// The part of the swarm that opens lanes.
#[derive(Default)]
pub(super) struct Behaviour {
    events: VecDeque<LaneEvent>,
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = LaneEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::accepts())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::opens())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, connection: ConnectionId, outcome: Outcome) {
        self.events.push_back(LaneEvent { connection, outcome });
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<LaneEvent, Infallible>> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => Poll::Pending,
        }
    }
}

/// The part of one connection that opens lanes.
pub(super) struct Handler {
    /// What the other side may open.
    accepts: &'static [Lane],
    /// What this side has still to open.
    to_open: &'static [Lane],
    urgent: Option<Stream>,
    bulk: Option<Stream>,
    /// Told once.
    outcome: Option<Outcome>,
}

impl Handler {
    fn accepts() -> Self {
        Handler { accepts: BOTH, to_open: &[], urgent: None, bulk: None, outcome: None }
    }

    fn opens() -> Self {
        Handler { accepts: &[], to_open: BOTH, urgent: None, bulk: None, outcome: None }
    }

    fn opened(&mut self, lane: Lane, stream: Stream) {
        match lane {
            Lane::Urgent => self.urgent = Some(stream),
            Lane::Bulk => self.bulk = Some(stream),
        }
        match (self.urgent.take(), self.bulk.take()) {
            (Some(urgent), Some(bulk)) => {
                self.outcome = Some(Outcome::Ready(Box::new(Streams { urgent, bulk })));
                // One set of lanes a connection: who asks for more is not served.
                self.accepts = &[];
            }
            (urgent, bulk) => (self.urgent, self.bulk) = (urgent, bulk),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Outcome;
    type InboundProtocol = LaneUpgrade;
    type OutboundProtocol = LaneUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<LaneUpgrade> {
        SubstreamProtocol::new(LaneUpgrade(self.accepts), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<LaneUpgrade, (), Outcome>> {
        if let Some(outcome) = self.outcome.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(outcome));
        }
        if let Some((lane, later)) = self.to_open.split_at_checked(1) {
            self.to_open = later;
            let protocol = SubstreamProtocol::new(LaneUpgrade(lane), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is libp2p's, non-exhaustive, and mostly not ours to hear"
    )]
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, LaneUpgrade, LaneUpgrade>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, lane), info: () })
            | ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, lane),
                info: (),
            }) => {
                self.opened(lane, stream);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: () }) => {
                self.outcome = Some(Outcome::Unusable(match error {
                    StreamUpgradeError::NegotiationFailed => "it speaks another version of the protocol".to_string(),
                    StreamUpgradeError::Timeout => "it did not open its lanes in time".to_string(),
                    StreamUpgradeError::Io(error) => format!("its lanes could not be opened: {error}"),
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            _ => {}
        }
    }
}

/// Agrees on a lane by the name of its protocol; the stream is then used as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneUpgrade(&'static [Lane]);

impl AsRef<str> for Lane {
    fn as_ref(&self) -> &str {
        match self {
            Lane::Urgent => "/lockstep/urgent/1",
            Lane::Bulk => "/lockstep/bulk/1",
        }
    }
}

impl UpgradeInfo for LaneUpgrade {
    type Info = Lane;
    type InfoIter = std::iter::Copied<std::slice::Iter<'static, Lane>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().copied()
    }
}

impl InboundUpgrade<Stream> for LaneUpgrade {
    type Output = (Stream, Lane);
    type Error = Infallible;
    type Future = Ready<Result<(Stream, Lane), Infallible>>;

    fn upgrade_inbound(self, stream: Stream, lane: Lane) -> Self::Future {
        ready(Ok((stream, lane)))
    }
}

impl OutboundUpgrade<Stream> for LaneUpgrade {
    type Output = (Stream, Lane);
    type Error = Infallible;
    type Future = Ready<Result<(Stream, Lane), Infallible>>;

    fn upgrade_outbound(self, stream: Stream, lane: Lane) -> Self::Future {
        ready(Ok((stream, lane)))
    }
}
