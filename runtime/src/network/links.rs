//! Which connections there are to each node, and which one of them is written to. Decides; opens and closes nothing.
//!
//! Two nodes that dial each other at the same moment get two connections. Both sides read both, and both write to the
//! same one: that which the smaller id dialled. A connection that comes much later than the one in use means that the
//! other side has lost that, perhaps by a restart: it replaces it, and the node is told of the change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use lockstep_replication::NodeId;

/// Connections that become ready within this time of each other are taken for one meeting.
const ONE_MEETING: Duration = Duration::from_secs(5);
/// A connection that is not written to any more is closed after this time: what was under way on it has arrived.
const SPARE_FOR: Duration = Duration::from_secs(1);

/// A connection with both lanes open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) connection: ConnectionId,
    /// Whether the node with the smaller id dialled.
    pub(super) dialled_by_smaller: bool,
    pub(super) ready_at: Instant,
}

/// What follows from a connection that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// It is the first to this node: write to it.
    First,
    /// Write to it from now on, and no longer to this one.
    Instead(ConnectionId),
    /// As above; besides, the other side lost its end of the old one, and begins anew.
    Anew(ConnectionId),
    /// Read it, but go on writing to the one in use.
    Spare,
}

/// What follows from a connection that closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It was not in use.
    Nothing,
    /// Write to this one instead, which has been ready.
    Fallback(ConnectionId),
    /// No other is left to this node, which had been connected for so long.
    Last(Duration),
}

/// The links of all nodes.
#[derive(Debug)]
pub(super) struct Links {
    me: NodeId,
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Debug)]
struct Node {
    in_use: Link,
    /// Never written to, and ready to take over.
    spare: Vec<Link>,
    /// Written to in the past.
    retired: Vec<(ConnectionId, Instant)>,
    connected_at: Instant,
}

impl Links {
    pub(super) fn new(me: NodeId) -> Self {
        Links { me, nodes: BTreeMap::new() }
    }

    /// How many nodes are connected.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether this node is connected.
    pub(super) fn contains(&self, node: &NodeId) -> bool {
        self.nodes.contains_key(node)
    }

    /// The connected nodes, and the connection in use to each.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (NodeId, ConnectionId)> {
        self.nodes.iter().map(|(node, links)| (*node, links.in_use.connection))
    }

    /// Both lanes of a connection are open.
    pub(super) fn ready(&mut self, node: NodeId, link: Link) -> Ready {
        let Some(links) = self.nodes.get_mut(&node) else {
            let links = Node { in_use: link, spare: Vec::new(), retired: Vec::new(), connected_at: link.ready_at };
            self.nodes.insert(node, links);
            return Ready::First;
        };
        let anew = link.ready_at.duration_since(links.in_use.ready_at) > ONE_MEETING;
        if !anew && (links.in_use.dialled_by_smaller || !link.dialled_by_smaller) {
            links.spare.push(link);
            return Ready::Spare;
        }
        let before = std::mem::replace(&mut links.in_use, link).connection;
        links.retired.push((before, link.ready_at));
        if anew {
            links.connected_at = link.ready_at;
            links.retired.extend(links.spare.drain(..).map(|spare| (spare.connection, link.ready_at)));
            Ready::Anew(before)
        } else {
            Ready::Instead(before)
        }
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, node: NodeId, connection: ConnectionId, now: Instant) -> Closed {
        let Some(links) = self.nodes.get_mut(&node) else { return Closed::Nothing };
        links.retired.retain(|(retired, _)| *retired != connection);
        links.spare.retain(|spare| spare.connection != connection);
        if links.in_use.connection != connection {
            return Closed::Nothing;
        }
        match links.spare.pop() {
            Some(spare) => {
                links.in_use = spare;
                Closed::Fallback(spare.connection)
            }
            None => {
                let lasted = now.duration_since(links.connected_at);
                self.nodes.remove(&node);
                Closed::Last(lasted)
            }
        }
    }

    /// Connections to close now. Only the smaller of two ids closes a spare, so that both never close different ones.
    pub(super) fn superfluous(&mut self, now: Instant) -> Vec<ConnectionId> {
        let mut close = Vec::new();
        for (node, links) in &mut self.nodes {
            links.retired.retain(|(connection, since)| {
                let over = now.duration_since(*since) >= SPARE_FOR;
                if over {
                    close.push(*connection);
                }
                !over
            });
            if self.me < *node {
                for spare in &links.spare {
                    if now.duration_since(spare.ready_at) >= SPARE_FOR {
                        close.push(spare.connection);
                    }
                }
            }
        }
        close
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId::example(5);
    const SMALLER: NodeId = NodeId::example(1);
    const LARGER: NodeId = NodeId::example(9);

    fn link(connection: usize, dialled_by_smaller: bool, ready_at: Instant) -> Link {
        Link { connection: ConnectionId::new_unchecked(connection), dialled_by_smaller, ready_at }
    }

    fn id(connection: usize) -> ConnectionId {
        ConnectionId::new_unchecked(connection)
    }

    #[test]
    fn both_sides_of_a_simultaneous_dial_write_to_the_one_that_the_smaller_dialled() {
        let now = Instant::now();
        let mut links = Links::new(ME);
        assert_eq!(links.ready(LARGER, link(1, true, now)), Ready::First);
        assert_eq!(links.ready(LARGER, link(2, false, now)), Ready::Spare);
        assert_eq!(links.in_use().collect::<Vec<_>>(), [(LARGER, id(1))]);
        let mut links = Links::new(ME);
        assert_eq!(links.ready(LARGER, link(2, false, now)), Ready::First);
        assert_eq!(links.ready(LARGER, link(1, true, now)), Ready::Instead(id(2)));
        assert_eq!(links.in_use().collect::<Vec<_>>(), [(LARGER, id(1))]);
    }

    #[test]
    fn a_connection_that_comes_much_later_replaces_the_one_in_use_whoever_dialled_it() {
        let now = Instant::now();
        let mut links = Links::new(ME);
        links.ready(LARGER, link(1, true, now));
        let later = now + ONE_MEETING + Duration::from_millis(1);
        assert_eq!(links.ready(LARGER, link(2, false, later)), Ready::Anew(id(1)));
        assert_eq!(links.superfluous(later + SPARE_FOR), [id(1)]);
    }

    #[test]
    fn a_spare_takes_over_when_the_one_in_use_closes_and_the_last_one_says_how_long_it_was() {
        let now = Instant::now();
        let mut links = Links::new(ME);
        links.ready(LARGER, link(1, true, now));
        links.ready(LARGER, link(2, false, now));
        assert_eq!(links.closed(LARGER, id(1), now), Closed::Fallback(id(2)));
        assert_eq!(links.closed(LARGER, id(1), now), Closed::Nothing, "it is gone already");
        let lasted = Duration::from_secs(3);
        assert_eq!(links.closed(LARGER, id(2), now + lasted), Closed::Last(lasted));
        assert!(!links.contains(&LARGER));
    }

    #[test]
    fn only_the_smaller_id_closes_a_spare_and_only_after_a_while() {
        let now = Instant::now();
        for (other, closed) in [(LARGER, vec![id(2)]), (SMALLER, vec![])] {
            let mut links = Links::new(ME);
            links.ready(other, link(1, true, now));
            links.ready(other, link(2, false, now));
            assert_eq!(links.superfluous(now), []);
            assert_eq!(links.superfluous(now + SPARE_FOR), closed);
        }
    }
}
