//! Going, or only handing over: the leader finishes what it took, names a successor who has it all, and lets go.

use super::electing::Seeking;
use super::{Node, Part, Turn};
use crate::app::App;
use crate::id::{Index, NodeId, Session};
use crate::io::Output;
use crate::message::Message;
use crate::time::{Moment, Span};

/// How long a leader waits for a successor to have everything.
const AT_MOST: Span = Span::millis(300);

/// How long one that stays waits for its successor before it goes on itself.
const THEN_GO_ON: Span = Span::seconds(2);

/// A leader that lets go.
#[derive(Clone, Debug)]
pub(super) struct Leaving {
    /// Whether the process ends after it.
    stop: bool,
    until: Moment,
    /// Whether the successor was named; until when it is waited for.
    handed: Option<Moment>,
}

impl Leaving {
    pub(super) fn due(&self) -> Option<Moment> {
        Some(self.handed.unwrap_or(self.until))
    }
}

impl<A: App> Node<A> {
    pub(super) fn begin_leaving(&mut self, t: &mut Turn<'_, A>, stop: bool) {
        let hands_over = self.leaving.as_ref().is_some_and(|leaving| !leaving.stop);
        if stop && hands_over || self.leaving.is_none() && (stop || matches!(self.part, Part::Leading(_))) {
            self.leaving = Some(Leaving { stop, until: t.at() + AT_MOST, handed: None });
        }
    }

    /// A node that handed over and stays takes part again when another leads, or nobody came to.
    pub(super) fn go_on(&mut self, t: &mut Turn<'_, A>) {
        let leads = matches!(self.part, Part::Leading(_));
        let over = |leaving: &Leaving| !leaving.stop && (!leads || leaving.handed.is_some_and(|go_on| t.at() >= go_on));
        if self.leaving.as_ref().is_some_and(over) {
            probe!("a node that handed over goes on");
            self.leaving = None;
            if let Part::Seeking(seeking) = &mut self.part {
                *seeking = Seeking::begin(t.at());
            }
        }
    }

    /// One pass: hands over as soon as a successor holds everything, or nothing is gained by waiting.
    pub(super) fn leave(&mut self, t: &mut Turn<'_, A>) {
        let Some(leaving) = &self.leaving else { return };
        let (stop, over) = (leaving.stop, t.at() >= leaving.until);
        if leaving.handed.is_some() {
            return;
        }
        let Part::Leading(leading) = &self.part else {
            if self.disk.is_level() || over {
                self.left(t, stop);
            }
            return;
        };
        let (session, next) = (leading.session, self.replica.next());
        let all_done = leading.done.map(|done| done.index) == next.previous();
        let holds = |node: &NodeId| leading.tally.next(*node).is_some_and(|held| held >= next);
        let successors = self.peers.connected().filter(|node| !self.peers.is_damaged(*node));
        let successor = successors.filter(holds).max_by_key(|node| self.replica.known().contains(node));
        let nobody = self.peers.connected().next().is_none();
        if !(self.disk.is_level() && all_done && (successor.is_some() || nobody)) && !over {
            return;
        }
        if successor.is_none() {
            probe!("a leader leaves without a successor");
        }
        if let Some(successor) = successor {
            t.send(successor, Message::HandOver { session, next });
        }
        self.left(t, stop);
    }

    fn left(&mut self, t: &mut Turn<'_, A>, stop: bool) {
        if stop {
            let replies = self.outbox.stop();
            self.reply(t, replies);
            self.stopped = true;
            t.put(Output::Left);
        } else if let Some(leaving) = &mut self.leaving {
            leaving.handed = Some(t.at() + THEN_GO_ON);
        }
    }

    /// The leader names this node as its successor.
    pub(super) fn hand_over_from(&mut self, t: &mut Turn<'_, A>, from: NodeId, session: Session, next: Index) {
        let holds_all = self.disk.synced >= next && self.replica.next() >= next;
        if self.is_following() && self.session() == Some(session) && session.leader == from {
            // Who was never told of a founding cannot go on with one, whatever it is told of its end.
            let founded = self.replica.founding().is_some();
            if founded && holds_all && !self.kept.damaged && !self.kept.fresh && self.leaving.is_none() {
                probe!("leadership is taken over");
                self.open(t, None);
            } else {
                probe!("leadership is handed to one that cannot take it");
            }
        } else {
            self.counters.rejected_origin += 1;
        }
    }
}
