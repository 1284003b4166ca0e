//! The answering side of gap repair: collects who misses what for a moment, then repairs for all of them at once.

use std::collections::{BTreeMap, VecDeque};

use crate::config::Config;
use crate::id::{Index, NodeId};
use crate::time::{Moment, Span};

/// How many ranges may linger at the same time. Each holds one hole of the log; more than a few at once is a flood.
const PENDING_AT_MOST: usize = 64;

/// How many past repairs are remembered.
const RECENT_AT_MOST: usize = 64;

/// A range that was just repaired is not repaired again for so long: the repair is on its way.
const REPAIRED_LATELY: Span = Span::millis(50);

/// Merges the NACKs of peers into repairs: after [`Config::repair_linger`], or as soon as
/// [`Config::repair_broadcast_from`] peers miss the same, and then for all.
#[derive(Clone, Debug, Default)]
pub struct Repairer {
    pending: Vec<Pending>,
    /// Oldest first.
    recent: VecDeque<Recent>,
    /// When each peer's token bucket is full again. A peer whose bucket is full need not be here.
    full_at: BTreeMap<NodeId, Moment>,
}

/// A range that lingers.
#[derive(Clone, Debug)]
struct Pending {
    /// All that its askers miss.
    range: (Index, Index),
    due: Moment,
    /// Who misses which part.
    askers: BTreeMap<NodeId, (Index, Index)>,
}

/// A range that was repaired.
#[derive(Clone, Debug)]
struct Recent {
    repair: Repair,
    at: Moment,
}

/// What became of a NACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It will be answered in a moment.
    Lingering,
    /// It is dropped: the peer asks too often, asks for nothing, or too much is asked for at once.
    Limited,
    /// It is dropped: the answer is on its way to this peer already.
    JustRepaired,
}

/// Entries to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The first.
    pub from: Index,
    /// One past the last; at most [`Config::repair_entries`] further.
    pub until: Index,
    /// To whom.
    pub to: RepairTo,
}

/// Whom a repair goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairTo {
    /// One node.
    One(NodeId),
    /// All nodes.
    All,
}

impl Repairer {
    /// A peer misses a range: its first index, and one past its last. What is longer than a repair may be is clipped.
    pub fn asked(&mut self, now: Moment, from: NodeId, range: (Index, Index), config: &Config) -> Asked {
        if range.0 >= range.1 || !self.take_token(now, from, config) {
            return Asked::Limited;
        }
        let mut first = range.0;
        while let Some(recent) = self.recent.iter().find(|recent| recent.reaches(from, first, now)) {
            first = recent.repair.until;
        }
        if first >= range.1 {
            probe!("a repair is on its way already");
            return Asked::JustRepaired;
        }
        self.linger(now, from, (first, range.1.min(first.plus(config.repair_entries))), config)
    }

    /// Puts an asker beside those who miss the same, or begins a range of its own.
    fn linger(&mut self, now: Moment, asker: NodeId, range: (Index, Index), config: &Config) -> Asked {
        let joins = |pending: &&mut Pending| {
            let both = union(pending.range, range);
            overlap(pending.range, range) && both.1.since(both.0) <= config.repair_entries
        };
        if let Some(pending) = self.pending.iter_mut().find(joins) {
            pending.range = union(pending.range, range);
            pending.askers.entry(asker).and_modify(|own| *own = union(*own, range)).or_insert(range);
            if pending.askers.len() >= config.repair_broadcast_from {
                // Enough to send to all: waiting longer would only let more of them ask. At once, but not in the past.
                pending.due = pending.due.min(now + Span(1));
            }
            return Asked::Lingering;
        }
        if self.pending.len() >= PENDING_AT_MOST {
            return Asked::Limited;
        }
        let askers = BTreeMap::from([(asker, range)]);
        self.pending.push(Pending { range, due: now + config.repair_linger, askers });
        Asked::Lingering
    }

    /// When to call [`Repairer::fire`].
    pub fn due(&self) -> Option<Moment> {
        self.pending.iter().map(|pending| pending.due).min()
    }

    /// The repairs whose time has come.
    pub fn fire(&mut self, now: Moment, config: &Config) -> Vec<Repair> {
        let mut repairs = Vec::new();
        if self.pending.is_empty() {
            return repairs;
        }
        for pending in self.pending.extract_if(.., |pending| pending.due <= now) {
            if pending.askers.len() >= config.repair_broadcast_from {
                repairs.push(Repair { from: pending.range.0, until: pending.range.1, to: RepairTo::All });
            } else {
                let unicast = |(peer, (from, until))| Repair { from, until, to: RepairTo::One(peer) };
                repairs.extend(pending.askers.into_iter().map(unicast));
            }
        }
        self.recent.extend(repairs.iter().map(|repair| Recent { repair: *repair, at: now }));
        let excess = self.recent.len().saturating_sub(RECENT_AT_MOST);
        self.recent.drain(..excess);
        repairs
    }

    /// The peer is gone: answers it no more. Its bucket stays as empty as it was, so that coming back fills none.
    pub fn forget(&mut self, peer: NodeId) {
        for pending in &mut self.pending {
            pending.askers.remove(&peer);
        }
        self.pending.retain(|pending| !pending.askers.is_empty());
        self.recent.retain(|recent| recent.repair.to != RepairTo::One(peer));
    }

    /// Forgets all ranges: another session. Buckets stay.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.recent.clear();
    }

    /// Takes a token from the peer's bucket: refilled at [`Config::nacks_per_second`], with room for twice as many.
    fn take_token(&mut self, now: Moment, peer: NodeId, config: &Config) -> bool {
        let Some(refill) = 1_000_000_000_u64.checked_div(u64::from(config.nacks_per_second)) else { return false };
        let empty = now + Span(refill).times(2 * u64::from(config.nacks_per_second));
        if !self.full_at.contains_key(&peer) && self.full_at.len() >= config.nodes {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= config.nodes {
                return false;
            }
        }
        let full_at = self.full_at.entry(peer).or_insert(now);
        let after = (*full_at).max(now) + Span(refill);
        if after > empty {
            return false;
        }
        *full_at = after;
        true
    }
}

impl Recent {
    /// Whether this repair brings `index` to `peer`, and is young enough to be on its way.
    fn reaches(&self, peer: NodeId, index: Index, now: Moment) -> bool {
        let sent = match self.repair.to {
            RepairTo::One(to) => to == peer,
            RepairTo::All => true,
        };
        sent && now < self.at + REPAIRED_LATELY && self.repair.from <= index && index < self.repair.until
    }
}

fn overlap(one: (Index, Index), other: (Index, Index)) -> bool {
    one.0 < other.1 && other.0 < one.1
}

fn union(one: (Index, Index), other: (Index, Index)) -> (Index, Index) {
    (one.0.min(other.0), one.1.max(other.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(1_000_000_000_000);

    fn node(n: u8) -> NodeId {
        NodeId::example(n)
    }

    fn range(from: u64, until: u64) -> (Index, Index) {
        (Index(from), Index(until))
    }

    fn repair(from: u64, until: u64, to: RepairTo) -> Repair {
        Repair { from: Index(from), until: Index(until), to }
    }

    #[test]
    fn few_askers_get_what_each_misses() {
        let (mut repairer, config) = (Repairer::default(), Config::default());
        assert_eq!(repairer.asked(START, node(1), range(5, 7), &config), Asked::Lingering);
        assert_eq!(repairer.asked(START + Span::millis(9), node(2), range(6, 30), &config), Asked::Lingering);
        assert_eq!(repairer.asked(START + Span::millis(9), node(1), range(6, 9), &config), Asked::Lingering);
        let due = START + config.repair_linger;
        assert_eq!((repairer.due(), repairer.fire(Moment(due.0 - 1), &config)), (Some(due), vec![]));
        let repairs = [repair(5, 9, RepairTo::One(node(1))), repair(6, 30, RepairTo::One(node(2)))];
        assert_eq!((repairer.fire(due, &config), repairer.due()), (repairs.to_vec(), None));
    }

    #[test]
    fn three_askers_make_one_broadcast_of_all_they_miss() {
        let (mut repairer, config) = (Repairer::default(), Config::default());
        for (n, missing) in [(1, range(5, 7)), (2, range(6, 30)), (2, range(5, 7)), (3, range(4, 6))] {
            repairer.asked(START, node(n), missing, &config);
        }
        let due = repairer.due().unwrap();
        assert!(due > START && due < START + Span::millis(1), "who else misses it shall not have to ask");
        assert_eq!(repairer.fire(due, &config), [repair(4, 30, RepairTo::All)]);
    }

    #[test]
    fn ranges_apart_and_ranges_too_long_together_stay_apart() {
        let (mut repairer, config) = (Repairer::default(), Config::default());
        repairer.asked(START, node(1), range(0, 10), &config);
        repairer.asked(START, node(2), range(10, 20), &config);
        repairer.asked(START, node(3), range(10, 20), &config);
        repairer.asked(START, node(4), range(15, u64::MAX), &config);
        let until = 15 + config.repair_entries;
        let repairs = [
            repair(0, 10, RepairTo::One(node(1))),
            repair(10, 20, RepairTo::One(node(2))),
            repair(10, 20, RepairTo::One(node(3))),
            repair(15, until, RepairTo::One(node(4))),
        ];
        assert_eq!(repairer.fire(START + config.repair_linger, &config), repairs);
    }

    #[test]
    fn what_was_just_repaired_waits() {
        let (mut repairer, config) = (Repairer::default(), Config::default());
        repairer.asked(START, node(1), range(0, 10), &config);
        (1..=3).for_each(|n| _ = repairer.asked(START, node(n), range(20, 30), &config));
        let fired = START + config.repair_linger;
        assert_eq!(repairer.fire(fired, &config).len(), 2);
        let soon = fired + Span::millis(49);
        assert_eq!(repairer.asked(soon, node(1), range(0, 10), &config), Asked::JustRepaired);
        assert_eq!(repairer.asked(soon, node(9), range(0, 10), &config), Asked::Lingering, "that went to another node");
        assert_eq!(repairer.asked(soon, node(8), range(22, 25), &config), Asked::JustRepaired, "that went to all");
        assert_eq!(repairer.asked(soon, node(8), range(22, 33), &config), Asked::Lingering);
        let later = fired + Span::millis(50);
        assert_eq!(repairer.asked(later, node(1), range(0, 10), &config), Asked::Lingering);
        let repairs = repairer.fire(later + config.repair_linger, &config);
        assert!(repairs.contains(&repair(30, 33, RepairTo::One(node(8)))), "only the rest of it: {repairs:?}");
    }

    #[test]
    fn a_peer_that_asks_too_often_is_not_heard() {
        let (mut repairer, config) = (Repairer::default(), Config::default());
        let asks = |repairer: &mut Repairer, now, n| {
            (0..100).filter(|_| repairer.asked(now, node(n), range(0, 10), &config) != Asked::Limited).count()
        };
        assert_eq!(asks(&mut repairer, START, 1), 20);
        repairer.forget(node(1));
        assert_eq!(asks(&mut repairer, START + Span::millis(500), 1), 5, "going and coming fills no bucket");
        assert_eq!(asks(&mut repairer, START, 2), 20, "each peer has its own");
        assert_eq!(asks(&mut repairer, START + Span::seconds(60), 1), 20);
        let silent = Config { nacks_per_second: 0, ..Config::default() };
        assert_eq!(repairer.asked(START, node(3), range(0, 10), &silent), Asked::Limited);
    }

    #[test]
    fn neither_peers_nor_ranges_grow_without_bound() {
        let config = Config { nodes: 3, ..Config::default() };
        let mut repairer = Repairer::default();
        assert_eq!(repairer.asked(START, node(1), range(7, 7), &config), Asked::Limited, "nothing is missing");
        let asked: Vec<Asked> = (1..=4).map(|n| repairer.asked(START, node(n), range(0, 9), &config)).collect();
        assert_eq!(asked, [Asked::Lingering, Asked::Lingering, Asked::Lingering, Asked::Limited]);
        let later = START + Span::seconds(9);
        assert_eq!(repairer.asked(later, node(4), range(0, 9), &config), Asked::Lingering, "full buckets make room");

        let config = Config { nacks_per_second: 10_000, ..Config::default() };
        let mut repairer = Repairer::default();
        let ranges = (0..1000).map(|at| range(10 * at, 10 * at + 5));
        let asked: Vec<Asked> = ranges.map(|range| repairer.asked(START, node(1), range, &config)).collect();
        assert_eq!(asked.iter().filter(|asked| **asked == Asked::Lingering).count(), PENDING_AT_MOST);
        let fired = START + config.repair_linger;
        assert_eq!(repairer.fire(fired, &config).len(), PENDING_AT_MOST);
        repairer.asked(fired, node(1), range(99_990, 99_999), &config);
        assert_eq!(repairer.fire(fired + config.repair_linger, &config).len(), 1);
        assert_eq!(repairer.recent.len(), RECENT_AT_MOST);
    }

    #[test]
    fn who_is_gone_is_not_answered() {
        let (mut repairer, config) = (Repairer::default(), Config::default());
        repairer.asked(START, node(1), range(0, 9), &config);
        repairer.asked(START, node(2), range(20, 29), &config);
        repairer.forget(node(1));
        assert_eq!(repairer.fire(START + config.repair_linger, &config), [repair(20, 29, RepairTo::One(node(2)))]);
        // Back again, it may have lost what was on its way: so may all after a change of session.
        for start_over in [|repairer: &mut Repairer| repairer.forget(node(2)), Repairer::reset] {
            let now = START + config.repair_linger;
            start_over(&mut repairer);
            assert_eq!(repairer.asked(now, node(2), range(20, 29), &config), Asked::Lingering);
            assert_eq!(repairer.fire(now + config.repair_linger, &config).len(), 1);
        }
        repairer.asked(START, node(1), range(0, 9), &config);
        repairer.reset();
        assert_eq!(repairer.due(), None);
    }
}
