//! The other nodes: who is connected, which start of each is real, what each said of itself last.

use std::collections::BTreeMap;

use crate::id::{Boot, NodeId};
use crate::message::{Reject, Standing};
use crate::time::Moment;

#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Since when a connection stands, if one does.
    pub(crate) connected: Option<Moment>,
    /// Whether a connection broke since the known start spoke last.
    pub(crate) gone: bool,
    pub(crate) heard: Option<Moment>,
    pub(crate) boot: Option<Boot>,
    /// The start before that one. What it said may come late, and a wiped node's starts begin anew.
    replaced: Option<Boot>,
    /// The newest schema that it reads, once it said so.
    pub(crate) schema: Option<u32>,
    pub(crate) standing: Option<Standing>,
    /// The number of its disk, by its newest word.
    pub(crate) disk: Option<u64>,
    /// Whether it lost synced entries, by its newest word.
    pub(crate) damaged: bool,
    /// When it was last asked for its standing, so that asking has a limit.
    pub(crate) asked: Option<Moment>,
    /// When it was last told of this node's standing unasked, likewise.
    pub(crate) told: Option<Moment>,
}

impl Peers {
    pub(crate) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    /// The peer's record, made if there is room. At the limit one that is not connected makes way.
    pub(crate) fn entry(&mut self, node: NodeId, limit: usize) -> Option<&mut Peer> {
        if !self.peers.contains_key(&node) && self.peers.len() >= limit {
            let gone = self.peers.iter().find(|(_, peer)| peer.connected.is_none()).map(|(node, _)| *node)?;
            self.peers.remove(&gone);
        }
        Some(self.peers.entry(node).or_default())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.peers.iter().map(|(node, peer)| (*node, peer))
    }

    pub(crate) fn connected(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.connected.is_some()).map(|(node, _)| *node)
    }

    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.connected.is_some())
    }

    pub(crate) fn is_damaged(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|peer| peer.damaged)
    }
}

impl Peer {
    /// Judges the start under which the peer speaks. A later one replaces what is known; an earlier one, and another of
    /// the same number, is another machine with the same identity. `wiped` says that it speaks from an empty store: its
    /// starts began anew, and it may come back once the start that was known is gone.
    pub(crate) fn admit(&mut self, boot: Boot, wiped: bool) -> Result<(), Reject> {
        match self.boot {
            Some(known) if boot == known => {
                self.gone = false;
                return Ok(());
            }
            Some(_) if self.replaced == Some(boot) => return Err(Reject::OldStart),
            Some(known) if boot.starts > known.starts => {}
            Some(_) if wiped && self.gone => {}
            Some(known) if boot.starts == known.starts => return Err(Reject::SameIdentity),
            Some(_) => return Err(Reject::OldStart),
            None => {}
        }
        let replaced = self.boot;
        *self = Peer { connected: self.connected, asked: self.asked, boot: Some(boot), replaced, ..Peer::default() };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(starts: u64, nonce: u64) -> Boot {
        Boot { starts, nonce }
    }

    #[test]
    fn a_later_start_replaces_an_earlier_one_and_no_other_does() {
        let mut peer = Peer { connected: Some(Moment(0)), ..Peer::default() };
        assert_eq!(peer.admit(boot(3, 1), false), Ok(()));
        assert_eq!(peer.admit(boot(3, 1), false), Ok(()));
        assert_eq!(peer.admit(boot(3, 2), false), Err(Reject::SameIdentity));
        assert_eq!(peer.admit(boot(2, 1), false), Err(Reject::OldStart));
        assert_eq!(peer.admit(boot(1, 9), true), Err(Reject::OldStart), "the start that is known is still there");
        assert_eq!(peer.admit(boot(4, 9), false), Ok(()));
        assert_eq!(peer.admit(boot(3, 1), false), Err(Reject::OldStart));
    }

    #[test]
    fn a_wiped_node_may_come_back_once_its_old_start_is_gone() {
        let mut peer = Peer::default();
        assert_eq!(peer.admit(boot(3, 1), false), Ok(()));
        peer.gone = true;
        assert_eq!(peer.admit(boot(1, 7), false), Err(Reject::OldStart));
        assert_eq!(peer.admit(boot(1, 7), true), Ok(()));
        assert_eq!(peer.admit(boot(3, 1), false), Err(Reject::OldStart), "what the old start said comes late");
        assert_eq!(peer.admit(boot(2, 8), false), Ok(()));
    }
}
