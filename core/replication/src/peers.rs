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
    pub(crate) connected: bool,
    pub(crate) heard: Option<Moment>,
    pub(crate) boot: Option<Boot>,
    /// The newest schema that it reads, once it said so.
    pub(crate) schema: Option<u32>,
    pub(crate) standing: Option<Standing>,
    /// When it was last asked for its standing, so that asking has a limit.
    pub(crate) asked: Option<Moment>,
}

impl Peers {
    pub(crate) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    /// The peer's record, made if there is room. At the limit one that is not connected makes way.
    pub(crate) fn entry(&mut self, node: NodeId, limit: usize) -> Option<&mut Peer> {
        if !self.peers.contains_key(&node) && self.peers.len() >= limit {
            let gone = self.peers.iter().find(|(_, peer)| !peer.connected).map(|(node, _)| *node)?;
            self.peers.remove(&gone);
        }
        Some(self.peers.entry(node).or_default())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.peers.iter().map(|(node, peer)| (*node, peer))
    }

    pub(crate) fn connected(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.connected).map(|(node, _)| *node)
    }

    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.connected)
    }

    pub(crate) fn is_damaged(&self, node: NodeId) -> bool {
        self.get(node).and_then(|peer| peer.standing.as_ref()).is_some_and(|standing| standing.damaged)
    }
}

impl Peer {
    /// Judges the start under which the peer speaks. A later one replaces what is known; an earlier one, and another of
    /// the same number, is another machine with the same identity.
    pub(crate) fn admit(&mut self, boot: Boot) -> Result<(), Reject> {
        match self.boot {
            Some(known) if boot.starts < known.starts => Err(Reject::OldStart),
            Some(known) if boot.starts == known.starts && boot.nonce != known.nonce => Err(Reject::SameIdentity),
            Some(known) if boot == known => Ok(()),
            Some(_) | None => {
                *self = Peer { connected: self.connected, asked: self.asked, boot: Some(boot), ..Peer::default() };
                Ok(())
            }
        }
    }
}
