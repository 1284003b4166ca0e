//! What this node asks the leader to order, and what its clients are told.

use super::{Node, Part, Turn};
use crate::app::App;
use crate::id::{CommandId, Ticket};
use crate::io::{NotTaken, Outcome};
use crate::message::Message;

impl<A: App> Node<A> {
    /// A client's command. There will be one reply.
    pub(super) fn command(&mut self, t: &mut Turn<'_, A>, ticket: Ticket, id: Option<CommandId>, command: A::Command) {
        let taken = if self.leaving.is_some() {
            Err(NotTaken::Leaving)
        } else if self.replica.founding().is_none() || self.stuck.is_some() || self.is_far_behind() {
            Err(NotTaken::NotReady)
        } else if self.outbox.is_full(&self.config) {
            Err(NotTaken::Full)
        } else if let Some(index) = id.and_then(|id| self.replica.command(id)) {
            self.outbox.done_before(t.at(), ticket, index);
            self.tell_done(t);
            return;
        } else {
            self.outbox.command(t.at(), ticket, id, command, &self.config)
        };
        if let Err(not_taken) = taken {
            self.reply(t, vec![(ticket, Outcome::NotTaken(not_taken))]);
        }
    }

    /// Something this node saw.
    pub(super) fn observe(&mut self, observation: A::Observation) {
        if !self.outbox.observe(observation, &self.config) {
            self.counters.proposals_dropped += 1;
        }
    }

    /// Sends what is new, or due again, to the leader. Only from a state that has caught up: what it shows of this node's
    /// proposals decides what is still to be ordered.
    pub(super) fn propose(&mut self, t: &mut Turn<'_, A>) {
        if self.outbox.is_idle() {
            return;
        }
        let replies = self.outbox.expire(t.at(), self.config.reply_within);
        self.reply(t, replies);
        if self.leaving.is_some() || self.is_far_behind() || self.stuck.is_some() {
            self.outbox.postpone(t.at(), &self.config);
            return;
        }
        let replies = self.outbox.give_up_passed(t.at());
        self.reply(t, replies);
        // It ends: each round sends more of what the outbox holds.
        loop {
            let to = match &self.part {
                Part::Seeking(_) => return,
                Part::Following(following) => following.session.leader,
                Part::Leading(leading) if leading.ready => self.me,
                Part::Leading(_) => return,
            };
            let origin = self.replica.origin(self.me);
            let repeated = &mut self.counters.proposals_repeated;
            let Some(propose) = self.outbox.propose(t.at(), origin, &self.config, repeated) else { return };
            if to == self.me {
                self.propose_from(t, to, propose);
            } else {
                if buggify!("proposals are sent twice") {
                    t.send(to, Message::Propose(propose.clone()));
                }
                t.send(to, Message::Propose(propose));
            }
        }
    }

    /// Whether this node's state is too old to speak from.
    pub(super) fn is_far_behind(&self) -> bool {
        match &self.part {
            Part::Seeking(_) | Part::Leading(_) => self.disk.rewinding,
            Part::Following(_) => {
                self.disk.rewinding
                    || self.behind() > self.config.caught_up_entries && !self.is_near()
                    || !matches!(self.catching_up.stage, super::catching_up::Stage::Idle)
                        && self.behind() > self.config.caught_up_entries
            }
        }
    }

    /// Whether the last entry applied is at most so much older than the leader's clock.
    fn is_near(&self) -> bool {
        match &self.part {
            Part::Following(following) => {
                following.wall.0.saturating_sub(self.replica.stamp().0) <= self.config.caught_up_span.as_millis()
            }
            Part::Seeking(_) | Part::Leading(_) => true,
        }
    }
}
