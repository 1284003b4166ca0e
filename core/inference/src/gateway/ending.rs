//! How streams end, and how tasks that nobody waits for are called off.

use lockstep_replication::Span;

use super::io::{Failure, GatewayOutput, StreamId, StreamPart};
use super::{Gateway, Turn};
use crate::command::Command;
use crate::id::TaskId;

impl Gateway {
    /// A stream ends, with its last part.
    pub(super) fn end(&mut self, id: TaskId, last: StreamPart, turn: &mut Turn<'_>) {
        let Some(stream) = self.close(id) else { return };
        match &last {
            StreamPart::Text(_) | StreamPart::End { .. } => turn.counts.ended += 1,
            StreamPart::Failed(failure) => {
                turn.counts.failed += 1;
                match failure {
                    // Its worker will say so to the leader; only if it does not, this gateway does.
                    Failure::Runner(_) | Failure::Request(_) => self.call_off_later(id, turn),
                    Failure::TooSlow { .. } => {
                        turn.counts.too_slow += 1;
                        self.call_off(id, turn);
                    }
                    Failure::Refused(_)
                    | Failure::NotOrdered(_)
                    | Failure::NotTaken(_)
                    | Failure::Unknown(_)
                    | Failure::Full(_)
                    | Failure::TooLarge { .. }
                    | Failure::TaskGone
                    | Failure::InstanceGone(_)
                    | Failure::NodeGone(_)
                    | Failure::Anew(_)
                    | Failure::TokensLost(_)
                    | Failure::InputLost(_)
                    | Failure::TimedOut(_) => self.call_off(id, turn),
                }
            }
        }
        turn.out.push(GatewayOutput::Deliver { stream, part: last });
    }

    /// Nothing of a stream stays.
    pub(super) fn close(&mut self, id: TaskId) -> Option<StreamId> {
        let stream = self.streams.remove(&id)?;
        self.tasks.remove(&stream.id);
        self.input_bytes -= stream.request_bytes();
        self.created.extract_if(.., |(_, created)| *created == id).for_each(drop);
        self.deadlines.set(id, None);
        Some(stream.id)
    }

    /// Nobody waits for a task: has it leave the state, if it is there. If it comes later, it is found to have no stream.
    pub(super) fn call_off(&mut self, id: TaskId, turn: &mut Turn<'_>) {
        if turn.state.tasks.contains_key(&id) {
            turn.out.push(GatewayOutput::Submit(Command::CancelTask { task: id }));
        }
        self.call_off_later(id, turn);
    }

    fn call_off_later(&mut self, id: TaskId, turn: &mut Turn<'_>) {
        if turn.state.tasks.contains_key(&id) {
            self.cancels.failed(turn.now, &id);
            self.deadlines.set(id, self.cancels.again(&id).map(|again| again.max(turn.now + Span(1))));
        } else {
            self.forget(id);
        }
    }

    pub(super) fn forget(&mut self, id: TaskId) {
        self.cancels.forget(&id);
        self.deadlines.set(id, None);
    }
}
