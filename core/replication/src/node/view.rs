//! The node's facts, read off.

use std::collections::BTreeMap;

use super::catching_up::{Stage, needs_upgrade};
use super::{Node, Part};
use crate::app::App;
use crate::id::NodeId;
use crate::lineage::Lineage;
use crate::time::{Moment, Span};
use crate::view::{CatchUp, NodeView, View};

impl<A: App> Node<A> {
    /// Facts for checks, metrics and the API, as of `now`.
    pub fn view(&self, now: Moment) -> View {
        let not_ready = self.not_ready(now);
        let lineage: Lineage = self.replica.lineage().clone();
        let (head_next, done, backed) = match &self.part {
            Part::Seeking(_) => (self.replica.next(), None, false),
            Part::Following(following) => {
                let marked = lineage.terms.last().is_some_and(|term| term.session == following.session && term.backed);
                (following.head_next.max(self.replica.next()), following.done, marked)
            }
            Part::Leading(leading) => (self.replica.next(), leading.done, leading.is_backed()),
        };
        View {
            me: self.me,
            role: self.role(),
            leader: self.leader(),
            confirmed: self.kept.confirmed,
            backed,
            position: lineage.position(),
            lineage,
            next: self.replica.next(),
            synced: self.disk.synced,
            log_first: self.disk.first,
            head_next,
            done,
            ready: not_ready.is_none(),
            not_ready,
            catch_up: self.catch_up_view(),
            catch_ups: self.caught_up.clone(),
            founding: self.replica.founding(),
            nodes: self.nodes_view(now),
            damaged: self.kept.damaged,
            outbox: self.outbox.len(),
            counters: self.counters,
        }
    }

    /// Whether a node beats that is not connected: what is meant for all must reach it by gossip.
    pub fn hears_absent(&self, now: Moment, within: Span) -> bool {
        let beats = |heard: Option<Moment>| heard.is_some_and(|heard| now.since(heard) <= within);
        self.peers.iter().any(|(_, peer)| peer.connected.is_none() && beats(peer.heard))
    }

    /// Why this node takes no work yet, as a sentence; none if it does.
    fn not_ready(&self, now: Moment) -> Option<String> {
        if let Some(stuck) = &self.stuck {
            return Some(stuck.clone());
        }
        if self.leaving.is_some() {
            return Some("this node is handing over".into());
        }
        if self.disk.rewinding {
            return Some("a branch of the log lost, and is being set aside".into());
        }
        if let Some(schema) = self.catching_up.needs.filter(|_| self.is_far_behind()) {
            return Some(needs_upgrade::<A>(schema));
        }
        let behind = self.behind();
        match &self.part {
            Part::Seeking(_) if self.peers.connected().next().is_none() => {
                Some("no other node is connected, and no leader is known yet".into())
            }
            Part::Seeking(seeking) if self.replica.founding().is_some() && self.seeks_in_vain(seeking) => Some(
                "no known node that holds all it stored can be reached: start one, or let an operator say that this one \
                 leads anyway"
                    .into(),
            ),
            Part::Seeking(_) => Some("no leader is known yet".into()),
            Part::Following(_) if self.is_far_behind() => {
                Some(format!("catching up: {behind} entries behind, {} applied", self.replica.next()))
            }
            Part::Following(following) if following.is_unheard(now, &self.config) => {
                Some("the leader does not hear this node".into())
            }
            Part::Following(_) if self.replica.founding().is_none() => Some("nothing is known of the state yet".into()),
            Part::Following(_) => None,
            Part::Leading(leading) if !leading.ready => Some("opening a session".into()),
            Part::Leading(_) => None,
        }
    }

    fn catch_up_view(&self) -> Option<CatchUp> {
        let path = self.catching_up.path()?;
        let (bytes, bytes_of) = match &self.catching_up.stage {
            Stage::Fetching(fetch) => fetch.progress(),
            Stage::Idle | Stage::Asking { .. } | Stage::Decoding { .. } | Stage::Replaying { .. } => (0, 0),
        };
        Some(CatchUp { path, bytes, bytes_of, entries_behind: self.behind() })
    }

    fn nodes_view(&self, now: Moment) -> BTreeMap<NodeId, NodeView> {
        let known = self.replica.known();
        let mut nodes: BTreeMap<NodeId, NodeView> = BTreeMap::new();
        for node in known.iter().copied().chain(self.peers.iter().map(|(node, _)| node)).chain([self.me]) {
            nodes.entry(node).or_default().known = known.contains(&node);
        }
        for (node, view) in &mut nodes {
            let peer = self.peers.get(*node);
            view.connected = *node == self.me || peer.is_some_and(|peer| peer.connected.is_some());
            view.heard_ago_ms = peer.and_then(|peer| peer.heard).map(|heard| now.since(heard).as_millis());
            view.round_trip_us = self.probes.round_trip(*node).map(|span| span.0 / 1000);
            if let Part::Leading(leading) = &self.part {
                view.stored = leading.tally.next(*node);
                view.lost = leading.liveness.is_lost(*node);
            }
        }
        nodes
    }
}
