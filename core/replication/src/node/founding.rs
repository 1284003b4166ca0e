//! Foundings: beginning a log, beginning anew on what is left, and meeting another founding of the same cluster.

use std::collections::BTreeMap;

use super::electing::outranks;
use super::{Node, Part, Turn};
use crate::app::App;
use crate::config::OPENING_BYTES;
use crate::entry::Founding;
use crate::id::{Index, NodeId, Session};
use crate::io::{Notice, Output};
use crate::message::Standing;
use crate::replica::Founded;

impl<A: App> Node<A> {
    /// A founding of these nodes and this one: of as many as an entry has room for. The others join one by one.
    pub(super) fn founding(&mut self, mut known: BTreeMap<NodeId, Option<u64>>) -> Founding {
        known.remove(&self.me);
        let mut room = self.config.entry_limit() - OPENING_BYTES;
        let mine = (self.me, Some(self.kept.disk));
        let fits = |member: &(NodeId, Option<u64>)| {
            let bytes = postcard::experimental::serialized_size(member).unwrap_or(usize::MAX);
            room = room.saturating_sub(bytes);
            room > 0
        };
        let mut known: Vec<_> = [mine].into_iter().chain(known.into_iter().take_while(fits)).collect();
        known.sort_unstable();
        let mine = self.replica.founding();
        let heard = self.peers.iter().filter_map(|(_, peer)| peer.standing.as_ref()?.founding);
        let same = heard.chain(mine).filter(|founded| mine.is_some_and(|mine| mine.id == founded.id));
        let widest = same.map(|founded| founded.widest).max().unwrap_or_default();
        Founding { id: self.rng.number(), widest, known }
    }

    /// The operator's last resort: a new founding of this node and those connected to it.
    pub(super) fn lead_anyway(&mut self, t: &mut Turn<'_, A>) {
        self.found_anew(t, None);
    }

    pub(super) fn found_anew(&mut self, t: &mut Turn<'_, A>, without: Option<NodeId>) {
        if self.disk.rewinding || self.stuck.is_some() {
            return;
        }
        (self.kept.damaged, self.kept.lacks) = (false, None);
        self.healing.answers.clear();
        let connected = self.peers.iter().filter(|(node, peer)| peer.connected.is_some() && Some(*node) != without);
        let peers = connected.map(|(node, peer)| (node, peer.disk)).collect();
        let founding = self.founding(peers);
        self.open(t, Some(founding));
    }

    /// Judges a leader of another founding. A founding speaks by its leader, who has seen what its nodes hold: so a node
    /// yields as the leader of its own, or where that can have none.
    pub(super) fn meets_founding(
        &mut self,
        t: &mut Turn<'_, A>,
        session: Session,
        standing: &Standing,
        mine: Standing,
    ) {
        probe!("two foundings meet");
        if let Part::Seeking(seeking) = &mut self.part {
            seeking.hears.retain(|_, heard| *heard != session);
        }
        let led = match &self.part {
            Part::Leading(leading) => !leading.ready,
            Part::Following(following) => following.hears(t.at(), &self.config),
            Part::Seeking(seeking) => !seeking.given_up && !self.seeks_in_vain(seeking),
        };
        let we_yield = !led && outranks((session.leader, standing), (self.me, &mine));
        t.put(Output::Notice(Notice::OtherFounding { peer: session.leader, we_yield }));
        if we_yield {
            probe!("a founding yields, and is set aside whole");
            // Whoever is left of that founding knows this node by what it held, and it does not any more.
            self.kept.disk = self.rng.number().max(1);
            self.keep(t);
            self.rewind(t, Index(0), session);
        } else {
            self.tell(t, session.leader, mine);
        }
    }

    /// The leader of this node may have given their founding up: then nobody need try to lead it first.
    pub(super) fn hear_given_up(&mut self, t: &mut Turn<'_, A>, from: NodeId, standing: &Standing) {
        // What it said before it led may come late.
        if let Part::Following(following) = &self.part
            && following.session.leader == from
            && standing.confirmed >= Some(following.session)
            && let Some(Founded { id, .. }) = self.replica.founding()
            && standing.founding.is_none_or(|theirs| theirs.id != id)
        {
            probe!("a leader gave its founding up");
            self.enter_seeking(t);
            if let Part::Seeking(seeking) = &mut self.part {
                seeking.given_up = true;
            }
        }
    }

    /// Whether a standing is of another founding than this node's log.
    pub(super) fn is_foreign(&self, standing: &Standing) -> bool {
        standing.is_foreign_to(self.replica.founding(), self.replica.lineage())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Boot, Session};
    use crate::lineage::{Lineage, Term};

    /// A standing of this founding whose log ends before `next`, and began with a session of this clock.
    fn standing(founding: (u32, u32, u64), clock: u64, next: u64) -> Standing {
        let (widest, anew, id) = founding;
        let session = Session { clock, leader: NodeId::example(1), boot: Boot::default() };
        let terms = vec![Term { session, began: Index(0), ended: Index(next), backed: true }];
        Standing {
            boot: Boot::default(),
            disk: 1,
            schema: 1,
            clock,
            confirmed: None,
            founding: Some(Founded { widest, anew, id }),
            lineage: Lineage { terms, ..Lineage::default() },
            seniority: 0,
            damaged: false,
            session: None,
        }
    }

    #[test]
    fn foundings_are_in_one_order_whatever_their_nodes_hold_or_lost() {
        let (small, large) = (standing((1, 7, 1), 9, 900), standing((3, 0, 2), 1, 5));
        let (anew, higher) = (standing((3, 1, 3), 2, 2), standing((3, 1, 4), 3, 2));
        let ascending = [small, large, anew, higher];
        let (id, other) = (NodeId::example(1), NodeId::example(2));
        for (at, lower) in ascending.iter().enumerate() {
            for higher in &ascending[at + 1..] {
                for damaged in [false, true] {
                    let higher = Standing { damaged, ..higher.clone() };
                    assert!(outranks((id, &higher), (other, lower)) && !outranks((other, lower), (id, &higher)));
                }
            }
        }
    }

    #[test]
    fn a_log_that_was_founded_anew_on_is_not_of_another_founding() {
        let old = standing((3, 0, 1), 1, 5);
        let mut new = Standing { founding: Some(Founded { widest: 3, anew: 1, id: 2 }), ..standing((3, 0, 1), 1, 5) };
        new.lineage.terms.push(Term {
            session: Session { clock: 2, ..new.lineage.terms[0].session },
            began: Index(5),
            ended: Index(7),
            backed: false,
        });
        let foreign = |one: &Standing, other: &Standing| one.is_foreign_to(other.founding, &other.lineage);
        assert!(!foreign(&new, &old) && !foreign(&old, &new));
        let went_on = standing((3, 0, 1), 1, 6);
        assert!(
            foreign(&new, &went_on) && foreign(&went_on, &new),
            "its log has an entry that the new founding left out"
        );
        assert!(
            outranks((NodeId::example(1), &new), (NodeId::example(2), &went_on)),
            "an operator said that the rest is gone"
        );
    }
}
