//! Lineage and position: which sessions a log went through, and how far it stands among others.

use serde::{Deserialize, Serialize};

use crate::id::{Index, Session};

/// The newest sessions kept one by one; older ones are forgotten but for where the kept ones begin.
pub const KEPT_SESSIONS: usize = 512;

/// One session's part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The session.
    pub session: Session,
    /// Its first entry.
    pub began: Index,
    /// Whether the log holds its mark.
    pub backed: bool,
}

/// The sessions that a log or snapshot went through, oldest first, and where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Where the kept terms begin: entries below belong to sessions that are folded away.
    pub folded_below: Index,
    /// Session clock under which the folded part ended.
    pub folded: Option<Session>,
    /// The newest terms.
    pub terms: Vec<Term>,
    /// One past the last entry.
    pub next: Index,
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

    /// The last entry's index.
    pub fn head(&self) -> Option<Index> {
        self.next.previous()
    }

    /// A session begins at the next index. Its opening entry is still to be counted by [`Lineage::grow`].
    pub(crate) fn open(&mut self, session: Session) {
        self.terms.push(Term { session, began: self.next, backed: false });
        // The term of the last mark stays, however old: the position depends on it.
        while self.terms.len() > KEPT_SESSIONS {
            let marked = self.terms.iter().rposition(|term| term.backed);
            let oldest = usize::from(marked == Some(0));
            let gone = self.terms.remove(oldest);
            if oldest == 0 {
                self.folded = Some(gone.session);
                self.folded_below = self.terms[0].began;
            }
        }
    }

    /// The last session's mark is in the log.
    pub(crate) fn back(&mut self) {
        if let Some(term) = self.terms.last_mut() {
            term.backed = true;
        }
    }

    /// One more entry.
    pub(crate) fn grow(&mut self) {
        self.next = self.next.next();
    }

    /// How far this log stands.
    pub fn position(&self) -> Position {
        let marked = self.terms.iter().rposition(|term| term.backed);
        let later = marked.map_or(0, |at| at + 1);
        let under = match marked {
            None => Index(0),
            Some(at) => self.terms.get(at + 1).map_or(self.next, |term| term.began),
        };
        let openings = (self.terms.len() - later) as u64;
        Position {
            mark: marked.map(|at| self.terms[at].session),
            under,
            unbacked: self.next.since(under).saturating_sub(openings),
        }
    }

    /// The session that ordered `index`; none where it is folded away or not there yet.
    pub fn session_at(&self, index: Index) -> Option<Session> {
        if index >= self.next || index < self.folded_below {
            return None;
        }
        self.terms.iter().rev().find(|term| term.began <= index).map(|term| term.session)
    }

    /// One past the last entry that both logs have in common.
    ///
    /// A session orders each index once, so two logs are equal up to the end of the last session that both went through.
    pub fn common(&self, other: &Lineage) -> Index {
        let end = |lineage: &Lineage, at: usize| lineage.terms.get(at + 1).map_or(lineage.next, |term| term.began);
        for (at, term) in self.terms.iter().enumerate().rev() {
            let same = |theirs: &Term| theirs.session == term.session && theirs.began == term.began;
            if let Some(there) = other.terms.iter().position(same) {
                return end(self, at).min(end(other, there));
            }
        }
        // No kept session is shared. Where one log's folded end is a session that the other keeps, they still join there.
        let joins = |folded: &Lineage, kept: &Lineage| {
            folded.folded.filter(|session| kept.terms.iter().any(|term| term.session == *session)).map(|session| {
                let at = kept.terms.iter().position(|term| term.session == session).unwrap_or_default();
                end(kept, at).min(folded.folded_below)
            })
        };
        if self.folded.is_some() && self.folded == other.folded {
            return self.folded_below.min(other.folded_below);
        }
        joins(self, other).or_else(|| joins(other, self)).unwrap_or_default()
    }

    /// Whether the other log is a beginning of this one.
    pub fn contains(&self, other: &Lineage) -> bool {
        self.common(other) >= other.next
    }

    /// Whether a log can have this lineage: sessions rise, each begins after the one before, and the log ends behind them.
    /// What comes from a peer is asked this before anything is reckoned with it.
    pub fn is_possible(&self) -> bool {
        let rises = |pair: &[Term]| pair[0].session < pair[1].session && pair[0].began < pair[1].began;
        self.next.0 < u64::MAX / 2
            && self.folded_below <= self.next
            && self.terms.len() <= KEPT_SESSIONS
            && self.terms.windows(2).all(rises)
            && self.terms.last().map_or(self.next.0 == 0, |term| term.began < self.next)
    }

    /// This lineage with its last session still going on: what a leader's log is about to be.
    pub fn open_ended(&self) -> Lineage {
        Lineage { next: Index(u64::MAX), ..self.clone() }
    }

    /// This lineage as it was when the log ended before `next`.
    pub fn up_to(&self, next: Index) -> Lineage {
        let mut cut = self.clone();
        cut.next = cut.next.min(next);
        cut.terms.retain(|term| term.began < cut.next);
        cut
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
        assert!(trunk.contains(&trunk.up_to(Index(12))));
        assert_eq!(trunk.up_to(Index(10)), lineage(&[(1, 1, 10, true)]));
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
}
