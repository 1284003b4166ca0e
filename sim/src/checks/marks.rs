//! What L12 leans on: a session's mark is ordered when more than half of the known nodes have confirmed the session, on their
//! disks, and "by majority" is said only from the mark on.

use std::collections::BTreeSet;

use lockstep_replication::message::DoneMark;
use lockstep_replication::{NodeId, Session};

use super::Broken;

/// Who confirmed which session, on its disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    confirmed: BTreeSet<(Session, NodeId)>,
}

fn broken(reason: String) -> Broken {
    Broken::new("marks", format!("L12: {reason}"))
}

impl Marks {
    /// A node's confirmation is on its disk.
    pub(super) fn confirmed(&mut self, node: NodeId, session: Option<Session>) {
        self.confirmed.extend(session.map(|session| (session, node)));
    }

    /// A leader ordered its session's mark.
    pub(super) fn ordered(&self, session: Session, known: &[NodeId]) -> Result<(), Broken> {
        let confirmed = known.iter().filter(|node| self.confirmed.contains(&(session, **node))).count();
        if confirmed * 2 > known.len() {
            return Ok(());
        }
        let reason =
            format!("session {session} is backed, and {confirmed} of {} known nodes confirmed it", known.len());
        Err(broken(reason))
    }
}

/// A leader says that all up to here is done; `mark` is where it ordered its session's mark.
pub(super) fn said(done: &DoneMark, mark: Option<(Session, u64)>) -> Result<(), Broken> {
    let since_mark = mark.is_some_and(|(session, index)| session == done.session && done.index.0 >= index);
    if done.held * 2 <= done.of || since_mark {
        return Ok(());
    }
    let reason =
        format!("entry {} is done by majority in {}, before that session's own mark", done.index, done.session);
    Err(broken(reason))
}

#[cfg(test)]
mod tests {
    use lockstep_replication::{Boot, Index};

    use super::*;
    use crate::plan::node_id;

    fn session(clock: u64) -> Session {
        Session { clock, leader: node_id(1), boot: Boot::default() }
    }

    #[test]
    fn a_mark_that_half_of_the_nodes_confirmed_breaks_l12() {
        let known = [1, 2, 3, 4].map(node_id);
        let mut marks = Marks::default();
        for number in [1, 2, 9] {
            marks.confirmed(node_id(number), Some(session(3)));
        }
        marks.confirmed(node_id(3), Some(session(2)));
        marks.confirmed(node_id(4), None);
        assert_eq!(marks.ordered(session(3), &known).map_err(|broken| broken.check), Err("marks"));
        marks.confirmed(node_id(4), Some(session(3)));
        assert_eq!(marks.ordered(session(3), &known), Ok(()));
    }

    #[test]
    fn what_is_done_by_majority_before_the_mark_breaks_l12() {
        let done = |index, held| DoneMark { session: session(3), index: Index(index), held, of: 3 };
        assert_eq!(said(&done(7, 2), Some((session(3), 7))), Ok(()));
        assert_eq!(said(&done(7, 1), None), Ok(()), "half and fewer are promised at any time");
        for (index, mark) in [(6, Some((session(3), 7))), (9, Some((session(2), 7))), (9, None)] {
            assert_eq!(said(&done(index, 2), mark).map_err(|broken| broken.check), Err("marks"));
        }
    }
}
