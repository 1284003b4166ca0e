//! Lineage and position: which sessions a log went through, and how far it stands among others.

use serde::{Deserialize, Serialize};

use crate::id::{Index, Session};

/// So many sessions are kept one by one: the newest, and the last one whose mark the log holds.
pub const KEPT_SESSIONS: usize = 512;

/// One session's part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The session.
    pub session: Session,
    /// Its first entry.
    pub began: Index,
    /// One past its last entry.
    pub ended: Index,
    /// Whether the log holds its mark.
    pub backed: bool,
}

/// The sessions that a log or snapshot went through, oldest first, and where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Entries below belong to sessions that are folded away.
    pub folded_below: Index,
    /// The last session that was folded away.
    pub folded: Option<Session>,
    /// The kept terms. After one with a mark, that was the last for long, others may be left out.
    pub terms: Vec<Term>,
    /// How many terms after the last mark are not kept.
    pub unkept: u64,
}

/// How far a log stands, compared field by field: the higher one wins where two branches meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The last session whose mark the log holds.
    pub mark: Option<Session>,
    /// One past the last index under it.
    pub under: Index,
    /// How many entries follow it unbacked, openings not counted.
    pub unbacked: u64,
}

impl Lineage {
    /// The last session.
    pub fn session(&self) -> Option<Session> {
        self.terms.last().map(|term| term.session)
    }

    /// One past the last entry.
    #[inline]
    pub fn next(&self) -> Index {
        self.terms.last().map_or(Index(0), |term| term.ended)
    }

    /// The last entry's index.
    pub fn head(&self) -> Option<Index> {
        self.next().previous()
    }

    /// A session begins at the next index. Its opening is still to be counted by [`Lineage::grow`].
    pub(crate) fn open(&mut self, session: Session) {
        let began = self.next();
        self.terms.push(Term { session, began, ended: began, backed: false });
        while self.terms.len() > KEPT_SESSIONS {
            // The term of the last mark stays, however old: the position depends on it.
            if self.marked() == Some(0) {
                self.terms.remove(1);
                self.unkept += 1;
            } else {
                let gone = self.terms.remove(0);
                (self.folded, self.folded_below) = (Some(gone.session), gone.ended);
                self.unkept += u64::from(self.marked().is_none());
            }
        }
    }

    /// The next entry is the last session's mark; still to be counted too.
    pub(crate) fn back(&mut self) {
        if let Some(term) = self.terms.last_mut() {
            term.backed = true;
            self.unkept = 0;
        }
    }

    /// The last session has one more entry.
    pub(crate) fn grow(&mut self) {
        if let Some(term) = self.terms.last_mut() {
            term.ended = term.ended.next();
        }
    }

    fn marked(&self) -> Option<usize> {
        self.terms.iter().rposition(|term| term.backed)
    }

    /// How far this log stands.
    pub fn position(&self) -> Position {
        let marked = self.marked();
        let under = marked.map_or(Index(0), |at| self.terms[at].ended);
        let later = self.terms.len() - marked.map_or(0, |at| at + 1);
        Position {
            mark: marked.map(|at| self.terms[at].session),
            under,
            unbacked: self.next().since(under).saturating_sub(later as u64 + self.unkept),
        }
    }

    /// The session that ordered `index`; none where that is not kept, or not there yet.
    pub fn session_at(&self, index: Index) -> Option<Session> {
        let holds = |term: &&Term| term.began <= index && index < term.ended;
        self.terms.iter().rev().find(holds).map(|term| term.session)
    }

    /// One past the last entry that both logs have in common.
    ///
    /// A session orders each index once, so two logs are equal up to the end of the last session that both went through.
    /// Where one of them does not keep that session any more, this is less than it could be, and never more.
    pub fn common(&self, other: &Lineage) -> Index {
        for term in self.terms.iter().rev() {
            let same = |theirs: &&Term| theirs.session == term.session && theirs.began == term.began;
            if let Some(theirs) = other.terms.iter().find(same) {
                return term.ended.min(theirs.ended);
            }
        }
        // No kept session is shared. Where one log's folded end is a session that the other keeps, they still join there.
        let joins = |folded: &Lineage, kept: &Lineage| {
            let same = kept.terms.iter().find(|term| Some(term.session) == folded.folded);
            same.map(|term| term.ended.min(folded.folded_below))
        };
        if self.folded.is_some() && self.folded == other.folded {
            return self.folded_below.min(other.folded_below);
        }
        joins(self, other).or_else(|| joins(other, self)).unwrap_or_default()
    }

    /// Whether the other log is a beginning of this one.
    pub fn contains(&self, other: &Lineage) -> bool {
        self.common(other) >= other.next()
    }

    /// Whether a log can have this lineage: sessions rise, each begins after the one before, and the log ends behind them.
    /// What comes from a peer is asked this before anything is reckoned with it.
    pub fn is_possible(&self) -> bool {
        let rises = |pair: &[Term]| pair[0].session < pair[1].session && pair[0].ended <= pair[1].began;
        self.next().0 < u64::MAX / 2
            && self.unkept <= self.next().0
            && self.folded_below <= self.terms.first().map_or(Index(0), |term| term.began)
            && self.terms.len() <= KEPT_SESSIONS
            && self.terms.iter().all(|term| term.began < term.ended)
            && self.terms.windows(2).all(rises)
    }

    /// This lineage with its last session still going on: what a leader's log is about to be.
    pub fn open_ended(&self) -> Lineage {
        let mut lineage = self.clone();
        if let Some(term) = lineage.terms.last_mut() {
            term.ended = Index(u64::MAX);
        }
        lineage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Boot, NodeId};

    fn session(clock: u64, leader: u8) -> Session {
        Session { clock, leader: NodeId::example(leader), boot: Boot { starts: 1, nonce: u64::from(leader) } }
    }

    /// Builds a lineage from (clock, leader, entries with the opening, backed).
    fn lineage(parts: &[(u64, u8, u64, bool)]) -> Lineage {
        let mut lineage = Lineage::default();
        for &(clock, leader, entries, backed) in parts {
            lineage.open(session(clock, leader));
            (0..entries).for_each(|_| lineage.grow());
            if backed {
                lineage.back();
            }
        }
        lineage
    }

    #[test]
    fn logs_share_what_their_last_common_session_ordered() {
        let trunk = lineage(&[(1, 1, 10, true), (2, 2, 5, true)]);
        let behind = lineage(&[(1, 1, 10, true), (2, 2, 3, true)]);
        let fork = lineage(&[(1, 1, 8, true), (3, 3, 4, false)]);
        let stranger = lineage(&[(1, 4, 9, true)]);
        assert!(trunk.contains(&behind) && trunk.contains(&trunk) && trunk.contains(&Lineage::default()));
        assert!(!behind.contains(&trunk) && !trunk.contains(&fork) && !fork.contains(&trunk));
        assert_eq!((trunk.common(&fork), fork.common(&trunk)), (Index(8), Index(8)));
        assert_eq!(trunk.common(&stranger), Index(0));
        assert!(trunk.contains(&lineage(&[(1, 1, 10, true)])));
    }

    #[test]
    fn a_mark_outweighs_any_number_of_unbacked_entries() {
        let backed = lineage(&[(1, 1, 3, true)]).position();
        let alone = lineage(&[(9, 2, 1000, false)]).position();
        assert_eq!(alone, Position { mark: None, under: Index(0), unbacked: 999 });
        assert!(backed > alone);
        let later = lineage(&[(1, 1, 3, true), (5, 1, 4, false), (6, 2, 2, false)]).position();
        assert_eq!(later, Position { mark: Some(session(1, 1)), under: Index(3), unbacked: 4 });
        assert!(later > backed);
        assert!(lineage(&[(1, 1, 3, true), (7, 3, 1, true)]).position() > later);
    }

    #[test]
    fn old_sessions_fold_and_still_join() {
        let many =
            |count: u64| -> Lineage { lineage(&(1..=count).map(|clock| (clock, 1, 2, true)).collect::<Vec<_>>()) };
        let (old, new) = (many(600), many(900));
        assert_eq!((old.terms.len(), new.terms.len()), (KEPT_SESSIONS, KEPT_SESSIONS));
        assert!(new.contains(&old) && !old.contains(&new));
        assert_eq!(new.session_at(Index(0)), None);
        assert_eq!(new.session_at(Index(1798)), Some(session(900, 1)));
    }

    #[test]
    fn a_mark_counts_for_what_it_did_however_many_sessions_follow_it_alone() {
        let trunk = || vec![(1, 1, 10, true)];
        let alone = |from: u64, count: u64, entries: u64| {
            let after = (from..from + count).map(move |clock| (clock, 2, entries, false));
            lineage(&trunk().into_iter().chain(after).collect::<Vec<_>>())
        };
        let (few, many) = (alone(2, 3, 1), alone(2, 2000, 1));
        assert_eq!(many.terms.len(), KEPT_SESSIONS);
        assert_eq!(few.position(), many.position(), "openings do not count");
        assert_eq!(
            alone(2, 2000, 3).position(),
            Position { mark: Some(session(1, 1)), under: Index(10), unbacked: 4000 }
        );
        let apart = alone(5000, 2000, 1);
        assert_eq!(
            (many.common(&apart), apart.common(&many)),
            (Index(10), Index(10)),
            "they part where the mark's session ends"
        );
        assert!(many.is_possible() && many.session_at(Index(10)).is_none());
        assert_eq!(many.session_at(Index(9)), Some(session(1, 1)));
        let never = lineage(&(1..=2000).map(|clock| (clock, 1, 2, false)).collect::<Vec<_>>());
        assert_eq!(never.position(), Position { mark: None, under: Index(0), unbacked: 2000 });
    }
}
