//! The leader's count of who confirmed its session and who holds what.

use std::collections::BTreeMap;

use imbl::OrdSet;

use crate::entry::KnownChange;
use crate::id::{Boot, Index, NodeId};

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    nodes: BTreeMap<NodeId, Held>,
    /// Up to before which index [`Tally::ahead`] was asked about last, and how many hold more.
    ahead: (Index, usize),
}

#[derive(Clone, Copy, Debug)]
struct Held {
    boot: Boot,
    /// One past the last entry that it stored, while this session was the newest that it confirmed.
    next: Index,
}

impl Tally {
    /// A node confirmed, and holds everything below `next`. What it said under an older start is void: its disk may have
    /// changed since. False if this is the older one.
    pub(crate) fn stored(&mut self, node: NodeId, boot: Boot, next: Index) -> bool {
        let is_new = !self.nodes.contains_key(&node);
        let held = self.nodes.entry(node).or_insert(Held { boot, next });
        if boot < held.boot {
            return false;
        }
        let before = if boot == held.boot { held.next } else { Index(0) };
        let (after, ahead) = &mut self.ahead;
        let was_ahead = !is_new && held.next > *after;
        *held = Held { boot, next: before.max(next) };
        *ahead = *ahead + usize::from(held.next > *after) - usize::from(was_ahead);
        true
    }

    /// A node speaks under this start now. Starts begin anew on an empty disk: what it said of the one before is void, though
    /// that start has the higher number.
    pub(crate) fn started(&mut self, node: NodeId, boot: Boot) {
        if self.nodes.get(&node).is_some_and(|held| held.boot > boot) {
            self.forget(node);
        }
    }

    /// How many nodes, known or not, hold more than what lies below this index.
    pub(crate) fn ahead(&mut self, after: Index) -> usize {
        if self.ahead.0 != after {
            self.ahead = (after, self.nodes.values().filter(|held| held.next > after).count());
        }
        self.ahead.1
    }

    pub(crate) fn has_confirmed(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// One past the last entry that a node holds; none if it did not confirm.
    pub(crate) fn next(&self, node: NodeId) -> Option<Index> {
        self.nodes.get(&node).map(|held| held.next)
    }

    pub(crate) fn forget(&mut self, node: NodeId) {
        if let Some(held) = self.nodes.remove(&node) {
            self.ahead.1 -= usize::from(held.next > self.ahead.0);
        }
    }

    /// How many of the known nodes confirmed.
    pub(crate) fn confirmations(&self, known: &OrdSet<NodeId>) -> usize {
        known.iter().filter(|node| self.has_confirmed(**node)).count()
    }

    /// How many of the known nodes hold this entry.
    pub(crate) fn holders(&self, known: &OrdSet<NodeId>, index: Index) -> usize {
        known.iter().filter(|node| self.next(**node).is_some_and(|next| next > index)).count()
    }

    /// One past the last entry that more than half of the known nodes hold.
    pub(crate) fn majority(&self, known: &OrdSet<NodeId>) -> Index {
        let mut held: Vec<Index> = known.iter().map(|node| self.next(*node).unwrap_or_default()).collect();
        held.sort_unstable_by(|one, other| other.cmp(one));
        held.get(known.len() / 2).copied().unwrap_or_default()
    }

    /// The same, but while a change of the known nodes is under way, for the nodes before and after it.
    pub(crate) fn majority_across(&self, known: &OrdSet<NodeId>, change: Option<KnownChange>) -> Index {
        let after = self.majority(known);
        let before = match change {
            None => return after,
            Some(KnownChange::Joined { node, .. }) => self.majority(&known.without(&node)),
            Some(KnownChange::Forgotten(node)) => self.majority(&known.update(node)),
        };
        after.min(before)
    }

    /// One past the last entry that every known node holds.
    pub(crate) fn all(&self, known: &OrdSet<NodeId>) -> Index {
        known.iter().map(|node| self.next(*node).unwrap_or_default()).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(count: u8) -> OrdSet<NodeId> {
        (1..=count).map(NodeId::example).collect()
    }

    fn tally(held: &[(u8, u64)]) -> Tally {
        let mut tally = Tally::default();
        for &(node, next) in held {
            assert!(tally.stored(NodeId::example(node), Boot::default(), Index(next)));
        }
        tally
    }

    #[test]
    fn a_majority_is_more_than_half_of_the_known() {
        assert_eq!(tally(&[(1, 9)]).majority(&known(1)), Index(9));
        assert_eq!(tally(&[(1, 9), (2, 5)]).majority(&known(2)), Index(5));
        assert_eq!(tally(&[(1, 9), (2, 5)]).majority(&known(3)), Index(5));
        assert_eq!(tally(&[(1, 9), (2, 5)]).majority(&known(4)), Index(0));
        assert_eq!(tally(&[(1, 9), (2, 5), (7, 9)]).majority(&known(4)), Index(0), "a guest does not count");
    }

    #[test]
    fn a_change_of_the_known_needs_both_majorities() {
        let joined = Some(KnownChange::Joined { node: NodeId::example(4), disk: None });
        assert_eq!(tally(&[(1, 9), (4, 9), (2, 3)]).majority_across(&known(4), joined), Index(3));
        let forgotten = Some(KnownChange::Forgotten(NodeId::example(2)));
        assert_eq!(tally(&[(1, 9)]).majority_across(&known(1), forgotten), Index(0));
    }

    #[test]
    fn who_is_ahead_is_counted_along() {
        let mut tally = tally(&[(1, 9), (2, 5), (3, 7)]);
        assert_eq!((tally.ahead(Index(6)), tally.ahead(Index(5)), tally.ahead(Index(9))), (2, 2, 0));
        let says = |tally: &mut Tally, node: u8, starts: u64, next: u64| {
            tally.stored(NodeId::example(node), Boot { starts, nonce: 0 }, Index(next));
            let found = tally.nodes.values().filter(|held| held.next > Index(6)).count();
            assert_eq!(tally.ahead.1, found, "after node {node} said {next}");
        };
        tally.ahead(Index(6));
        for (node, starts, next) in
            [(2, 0, 7), (2, 0, 8), (2, 1, 3), (1, 0, 2), (4, 0, 9), (5, 0, 1), (5, 0, 6), (5, 0, 7)]
        {
            says(&mut tally, node, starts, next);
        }
        tally.forget(NodeId::example(4));
        says(&mut tally, 3, 2, 0);
    }

    #[test]
    fn a_newer_start_begins_from_nothing() {
        let mut tally = tally(&[(1, 9), (2, 9)]);
        let restarted = Boot { starts: 2, nonce: 0 };
        assert!(tally.stored(NodeId::example(2), restarted, Index(0)));
        assert_eq!(tally.majority(&known(2)), Index(0));
        assert!(!tally.stored(NodeId::example(2), Boot::default(), Index(9)), "an older start's word is void");
        assert_eq!((tally.holders(&known(2), Index(3)), tally.all(&known(2))), (1, Index(0)));
        tally.started(NodeId::example(2), restarted);
        assert!(tally.has_confirmed(NodeId::example(2)));
        tally.started(NodeId::example(2), Boot { starts: 1, nonce: 0 });
        assert!(tally.stored(NodeId::example(2), Boot { starts: 1, nonce: 0 }, Index(4)), "its starts began anew");
    }
}
