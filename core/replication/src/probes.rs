//! Probes of the neighbours: how long the way to each takes, and to whom there is one in truth. These are the topology's
//! edges.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::id::NodeId;
use crate::time::{Moment, Span};

/// Without an echo for so many intervals there is no edge: one lost echo does not redraw the topology.
const EDGE_INTERVALS: u64 = 2;

/// The connected peers, each with its probes.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    peers: BTreeMap<NodeId, Peer>,
    /// Numbers the probes of this node.
    n: u64,
    /// The edges as they were reported last.
    reported: BTreeSet<NodeId>,
    /// Whether an edge may have come or gone since.
    redrawn: bool,
    /// The earliest probe that is due.
    due: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    due: Moment,
    /// The last two probes: an echo may come after the next probe has left.
    sent: [Option<(u64, Moment)>; 2],
    echoed: Option<Moment>,
    round_trip: Option<Span>,
    edge: bool,
}

impl Probes {
    /// A connection stands: the peer is probed at once, and then every `probe_every`.
    pub fn connected(&mut self, now: Moment, peer: NodeId) {
        let fresh = Peer { due: now, sent: [None; 2], echoed: None, round_trip: None, edge: false };
        self.peers.entry(peer).or_insert(fresh);
        self.plan();
    }

    /// No connection stands any more: neither does the edge.
    pub fn disconnected(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
        self.redrawn = true;
        self.plan();
    }

    /// The probes to send now, as (peer, number). Also lets edges go whose echoes stay away.
    pub fn fire(&mut self, now: Moment, config: &Config) -> Vec<(NodeId, u64)> {
        let mut probes = Vec::new();
        if self.due.is_none_or(|due| due > now) {
            return probes;
        }
        let edge_for = config.probe_every.times(EDGE_INTERVALS);
        for (node, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.due <= now) {
            self.n += 1;
            peer.sent = [Some((self.n, now)), peer.sent[0]];
            peer.due = now + config.probe_every.max(Span(1));
            let edge = peer.echoed.is_some_and(|at| now.since(at) <= edge_for);
            self.redrawn |= edge != peer.edge;
            peer.edge = edge;
            probes.push((*node, self.n));
        }
        self.plan();
        probes
    }

    /// An echo came. It counts only if it answers one of the last two probes to this peer, and once.
    pub fn echo(&mut self, now: Moment, peer: NodeId, n: u64) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        let answered = peer.sent.iter_mut().find(|sent| sent.is_some_and(|(number, _)| number == n));
        let Some((_, at)) = answered.and_then(Option::take) else { return };
        let sample = now.since(at);
        peer.echoed = Some(now);
        self.redrawn |= !peer.edge;
        peer.edge = true;
        // The usual smoothing, an eighth of each new sample (RFC 6298), in whole nanoseconds.
        peer.round_trip =
            Some(peer.round_trip.map_or(sample, |before| Span((before.0 * 7).saturating_add(sample.0) / 8)));
    }

    /// How long a probe of this peer takes, there and back, smoothed; none before its first echo.
    pub fn round_trip(&self, peer: NodeId) -> Option<Span> {
        self.peers.get(&peer)?.round_trip
    }

    /// The peers whose echo came within two intervals, if they are not those of the last call.
    pub fn edges_changed(&mut self) -> Option<BTreeSet<NodeId>> {
        if !std::mem::take(&mut self.redrawn) {
            return None;
        }
        let edges: BTreeSet<NodeId> = self.peers.iter().filter(|(_, peer)| peer.edge).map(|(node, _)| *node).collect();
        if edges == self.reported {
            return None;
        }
        self.reported.clone_from(&edges);
        Some(edges)
    }

    /// When to call [`Probes::fire`] next.
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    fn plan(&mut self) {
        self.due = self.peers.values().map(|peer| peer.due).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::example(1);
    const B: NodeId = NodeId::example(2);

    fn at(millis: u64) -> Moment {
        Moment(0) + Span::millis(millis)
    }

    fn fire(probes: &mut Probes, millis: u64) -> Vec<(NodeId, u64)> {
        let sent = probes.fire(at(millis), &Config::default());
        assert!(probes.due().is_none_or(|due| due > at(millis)), "it would spin");
        sent
    }

    #[test]
    fn each_connected_peer_is_probed_at_once_and_then_every_two_seconds() {
        let mut probes = Probes::default();
        assert_eq!(probes.due(), None);
        probes.connected(at(100), A);
        assert_eq!(probes.due(), Some(at(100)));
        assert_eq!(fire(&mut probes, 100), [(A, 1)]);
        probes.connected(at(500), B);
        probes.connected(at(500), A);
        assert_eq!(fire(&mut probes, 500), [(B, 2)]);
        assert_eq!(fire(&mut probes, 2099), []);
        assert_eq!(fire(&mut probes, 2100), [(A, 3)]);
        probes.disconnected(A);
        assert_eq!(probes.due(), Some(at(2500)));
    }

    #[test]
    fn an_echo_tells_the_round_trip_once_and_only_to_the_right_peer_and_probe() {
        let mut probes = Probes::default();
        probes.connected(at(0), A);
        probes.connected(at(0), B);
        assert_eq!(fire(&mut probes, 0), [(A, 1), (B, 2)]);
        for (peer, n) in [(A, 2), (A, 0), (A, u64::MAX), (NodeId::example(3), 1)] {
            probes.echo(at(1), peer, n);
        }
        assert_eq!((probes.round_trip(A), probes.edges_changed()), (None, None));
        probes.echo(at(8), A, 1);
        assert_eq!(probes.round_trip(A), Some(Span::millis(8)));
        probes.echo(at(900), A, 1);
        assert_eq!(probes.round_trip(A), Some(Span::millis(8)), "a doubled echo says nothing");
        assert_eq!(fire(&mut probes, 2000)[0], (A, 3));
        probes.echo(at(2016), A, 3);
        assert_eq!(probes.round_trip(A), Some(Span::millis(9)), "an eighth of the way from 8 to 16");
    }

    #[test]
    fn an_echo_that_is_slower_than_the_interval_still_counts() {
        let mut probes = Probes::default();
        probes.connected(at(0), A);
        (0..2).for_each(|n| drop(fire(&mut probes, n * 2000)));
        probes.echo(at(3000), A, 1);
        assert_eq!(probes.round_trip(A), Some(Span::seconds(3)));
        (2..4).for_each(|n| drop(fire(&mut probes, n * 2000)));
        probes.echo(at(7000), A, 2);
        assert_eq!(probes.round_trip(A), Some(Span::seconds(3)), "two probes later it is forgotten");
    }

    #[test]
    fn edges_are_those_whose_echoes_come_and_are_told_when_they_change() {
        let mut probes = Probes::default();
        let edges = |nodes: &[NodeId]| Some(nodes.iter().copied().collect::<BTreeSet<_>>());
        probes.connected(at(0), A);
        probes.connected(at(0), B);
        fire(&mut probes, 0);
        assert_eq!(probes.edges_changed(), None, "a connection is no edge yet");
        probes.echo(at(5), A, 1);
        probes.echo(at(6), B, 2);
        assert_eq!(probes.edges_changed(), edges(&[A, B]));
        assert_eq!(probes.edges_changed(), None);
        for (now, n) in [(2000, 3), (4000, 5)] {
            fire(&mut probes, now);
            probes.echo(at(now + 1), A, n);
            assert_eq!(probes.edges_changed(), None, "one or two lost echoes");
        }
        fire(&mut probes, 6000);
        assert_eq!(probes.edges_changed(), edges(&[A]));
        probes.echo(at(6001), B, 8);
        assert_eq!(probes.edges_changed(), edges(&[A, B]));
        probes.disconnected(A);
        assert_eq!(probes.edges_changed(), edges(&[B]));
    }
}
