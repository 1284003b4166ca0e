//! Lost disks: a node whose word may not count sees that, says so, and is whole again when it holds what it may have promised.

use std::collections::BTreeMap;

use super::{Node, Part, Turn};
use crate::app::App;
use crate::id::NodeId;
use crate::io::{Notice, Output};
use crate::message::{Purpose, Standing};

/// What a damaged node learns from those whom it asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Healing {
    /// How often this start was damaged.
    losses: u64,
    /// What those say who were asked since.
    pub(super) answers: BTreeMap<NodeId, Standing>,
}

impl Healing {
    /// This node is damaged from now on: what was asked before counts no more, however late the answer comes.
    pub(super) fn lost(&mut self) {
        *self = Healing { losses: self.losses + 1, ..Healing::default() };
    }
}

impl<A: App> Node<A> {
    /// What this node asks others with, and their answers name.
    pub(super) fn question(&self) -> Purpose {
        Purpose::Ask { losses: self.healing.losses }
    }

    /// Whether this is an answer to what this start asked after what it lost.
    pub(super) fn is_answered_by(&self, purpose: Purpose) -> bool {
        purpose == Purpose::Answer { boot: self.boot, losses: self.healing.losses }
    }

    /// Whether this node's word counts for no majority.
    pub(super) fn is_damaged(&self) -> bool {
        self.kept.damaged || self.lost_its_disk()
    }

    /// Whether others know this node by a disk that it does not have any more.
    pub(super) fn lost_its_disk(&self) -> bool {
        !mutant!(WipedDiskCounts)
            && self.kept.fresh
            && self.replica.known().contains(&self.me)
            && self.replica.disk(self.me) != Some(self.kept.disk)
    }

    /// An entry may show by which disk this node is known. By its present one: it need not catch up to know that it lost
    /// nothing. By another: its word does not count, whether that entry names it (`named`) or one before did.
    pub(super) fn recognise(&mut self, t: &mut Turn<'_, A>, named: bool) {
        let disk = self.replica.disk(self.me);
        if self.kept.fresh && disk == Some(self.kept.disk) {
            probe!("an empty node finds its disk named");
            self.settle(t);
        } else if self.lost_its_disk()
            || named && disk.is_some_and(|disk| disk != self.kept.disk) && !mutant!(WipedDiskCounts)
        {
            self.lost_entries(t, None);
        }
    }

    /// An empty node has caught up: if others know it by another disk, that one was lost, and its word may not count yet.
    pub(super) fn settle_in(&mut self, t: &mut Turn<'_, A>) {
        if !self.kept.fresh {
            return;
        }
        if self.lost_its_disk() {
            probe!("a wiped node is known by another disk");
            self.lost_entries(t, None);
            self.settle(t);
            self.say_to_all(t, self.question());
        } else {
            self.settle(t);
        }
    }

    /// It is known how this node stands with the log: it is fresh no more, and may confirm.
    fn settle(&mut self, t: &mut Turn<'_, A>) {
        self.kept.fresh = false;
        let settled = self.kept;
        self.confirm(t);
        if self.kept == settled {
            self.keep(t);
        }
    }

    /// A damaged node asks those who did not answer it yet, or whose answer may have changed. Its leader need not be known.
    pub(super) fn ask_to_heal(&mut self, t: &mut Turn<'_, A>) {
        if !self.kept.damaged {
            return;
        }
        let mine = self.replica.lineage();
        let open = |node: &NodeId| {
            let answer = self.healing.answers.get(node);
            answer.is_none_or(|standing| !self.is_whole(*node, standing) || !mine.contains(&standing.lineage))
        };
        let mut asked = self.replica.known().clone();
        asked.extend(self.leader());
        for node in asked.iter().filter(|node| **node != self.me && open(node)).copied().collect::<Vec<_>>() {
            self.ask(t, node);
        }
    }

    /// A damaged node is whole again when more than half of the known nodes, without it, answered, its leader among them,
    /// and it holds all that they hold and the mark of the session that it follows. Each majority that it was ever part of
    /// has one of them in it, also one of the known nodes as a change made them that this log does not show: so no newer
    /// session was backed. What was done in older ones is below the mark; what it stored for this one, its leader had
    /// ordered before it answered. Others may store later what they did not hold when they answered, and the leader may
    /// count this node's earlier word for that: so their answers alone do not suffice. (Viewstamped Replication waits for
    /// the primary's answer for the same reason: Liskov and Cowling 2012, section 4.3.) Or it is known what it lost, and it
    /// holds that again.
    pub(super) fn heal(&mut self, t: &mut Turn<'_, A>) {
        if !self.kept.damaged || self.kept.fresh || self.disk.rewinding {
            return;
        }
        let known = self.replica.known();
        let answered = || self.healing.answers.iter();
        let answers = || answered().filter(|(node, standing)| known.contains(*node) && self.is_whole(**node, standing));
        let confirmed = answers().filter_map(|(_, standing)| standing.confirmed).max();
        let clock = confirmed.map_or(0, |session| session.clock);
        // The same log, not only as long a one.
        let mine = self.replica.lineage();
        let held = self.disk.is_level() && answers().all(|(_, standing)| mine.contains(&standing.lineage));
        let heard = match &self.part {
            Part::Following(following) => {
                let session = following.session;
                let leaders = self.healing.answers.get(&session.leader);
                let marked = mine.terms.last().is_some_and(|term| term.session == session && term.backed);
                let answered = leaders.is_some_and(|standing| mine.contains(&standing.lineage));
                (marked && answered || mutant!(HealsWithoutLeader)) && self.behind() == 0 && clock <= session.clock
            }
            Part::Seeking(_) => mutant!(HealsWithoutLeader),
            Part::Leading(_) => false,
        };
        let enough = held && heard && answers().count() * 2 > known.len();
        if enough || self.holds_again() {
            probe!("a damaged node is whole again");
            (self.kept.damaged, self.kept.lacks) = (false, None);
            // What it confirmed before it was wiped is forgotten: it takes the newest that these know of for its own.
            if self.kept.confirmed.is_none_or(|mine| mine.clock < clock) {
                self.kept.confirmed = confirmed;
            }
            self.kept.clock = self.kept.clock.max(clock);
            self.healing.answers.clear();
            self.keep(t);
            t.put(Output::Notice(Notice::Whole));
            self.confirm(t);
        }
    }

    /// Whether it is known what this node lost, and that is on its disk again.
    fn holds_again(&self) -> bool {
        let holds_again = self.kept.lacks.is_some_and(|(session, next)| {
            let last = next.previous().and_then(|last| self.replica.lineage().session_at(last));
            self.disk.synced >= next && last == Some(session)
        });
        if holds_again {
            probe!("a node holds again what its cut took along");
        }
        holds_again
    }
}
