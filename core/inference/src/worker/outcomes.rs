//! What runners say of their tasks, and how tasks end: on its way to the gateways and to the leader.

use super::io::WorkerOutput;
use super::tasks::{Phase, Work};
use super::{Turn, Worker};
use crate::command::Command;
use crate::id::{RunnerId, TaskId};
use crate::limits;
use crate::state::TaskOutcome;
use crate::transient::{StopReason, TokenChunk, TokenPart, Trace, TraceSpan, Transient, Usage};

/// What ends an answer, made of a sentence.
type Error<'a> = (fn(String) -> TokenPart, &'a str);

impl Worker {
    /// A task's answer goes on: whether the runner has to be looked at.
    pub(super) fn token(&mut self, runner: RunnerId, id: TaskId, text: String, turn: &mut Turn<'_>) -> bool {
        match self.told(runner, id) {
            None if self.seats.get(&runner).is_some_and(|seat| seat.ignores(turn.now, id)) => {
                let reason = format!("it went on with a task for {} after it was told not to", self.config.cancelled);
                self.fail(runner, &reason, turn);
                return true;
            }
            Some(work) if work.rank == 0 => {}
            None | Some(_) => {
                self.counts.stray_messages += 1;
                return false;
            }
        }
        match self.answers.push(turn.now, id, TokenPart::Text(text), &self.config) {
            Some(pieces) => {
                self.send(pieces, turn);
                false
            }
            None => {
                let work = self.tasks[&id].clone();
                self.cancel(&work, turn);
                self.fail_task(id, "its answer grew faster than it could be sent", turn);
                true
            }
        }
    }

    /// A runner is done with a task.
    pub(super) fn done(&mut self, runner: RunnerId, id: TaskId, stop: StopReason, usage: Usage, turn: &mut Turn<'_>) {
        let Some(rank) = self.told(runner, id).map(|work| work.rank) else {
            self.counts.stray_messages += 1;
            return;
        };
        self.over(id);
        if rank == 0 {
            // The end needs next to no room.
            let end = TokenPart::End { stop, usage };
            let pieces = self.answers.push(turn.now, id, end, &self.config).unwrap_or_default();
            self.send(pieces, turn);
            let outcome = TaskOutcome::Done { tokens: usage.completion_tokens };
            self.wish(id, Command::FinishTask { task: id, outcome }, turn);
        }
    }

    /// A runner could not do a task.
    pub(super) fn task_failed(&mut self, runner: RunnerId, id: TaskId, error: Error<'_>, turn: &mut Turn<'_>) {
        if self.told(runner, id).is_some() {
            self.end_task(id, error, turn);
        } else {
            self.counts.stray_messages += 1;
        }
    }

    /// What a runner did for a task goes to the task's gateway.
    pub(super) fn trace(&mut self, runner: RunnerId, id: TaskId, spans: Vec<TraceSpan>, turn: &mut Turn<'_>) {
        let Some(to) = self.answers.gateway(&id) else {
            self.counts.stray_messages += 1;
            return;
        };
        turn.out.push(WorkerOutput::Send { to, transient: Transient::Trace(Trace { task: id, runner, spans }) });
    }

    /// The process that worked on them is no more. Rank 0 speaks for all: it sees the others fall back.
    pub(super) fn fail_told(&mut self, runner: RunnerId, reason: &str, turn: &mut Turn<'_>) {
        let told = self.seats.get_mut(&runner).map(|seat| std::mem::take(&mut seat.told)).unwrap_or_default();
        for id in told {
            if self.tasks.get(&id).is_some_and(|work| work.rank == 0) {
                self.fail_task(id, reason, turn);
            } else {
                self.over(id);
            }
        }
    }

    /// Nobody will ever work on them here.
    pub(super) fn fail_waiting(&mut self, runner: RunnerId, reason: &str, turn: &mut Turn<'_>) {
        let waiting = self.seats.get(&runner).map(|seat| seat.waiting.clone()).unwrap_or_default();
        waiting.into_iter().for_each(|(_, id)| self.fail_task(id, reason, turn));
    }

    /// An error ends a task, and its request is not at fault.
    pub(super) fn fail_task(&mut self, id: TaskId, reason: &str, turn: &mut Turn<'_>) {
        self.end_task(id, (TokenPart::Error, reason), turn);
    }

    fn end_task(&mut self, id: TaskId, (error, reason): Error<'_>, turn: &mut Turn<'_>) {
        let Some(work) = self.tasks.get(&id).filter(|work| work.phase != Phase::Over) else { return };
        let gateway = work.expected.map(|expected| expected.gateway);
        self.over(id);
        let reason = match limits::cut_text(reason, limits::REASON_CHARS) {
            empty if empty.is_empty() => "its runner gave no reason".to_owned(),
            reason => reason,
        };
        if let Some(gateway) = gateway {
            self.answers.open(id, gateway, false);
            let pieces = self.answers.fail(turn.now, id, error(reason.clone()), &self.config);
            self.send(pieces, turn);
        }
        self.wish(id, Command::FinishTask { task: id, outcome: TaskOutcome::Failed { reason } }, turn);
    }

    /// The task, if this runner has it.
    fn told(&self, runner: RunnerId, id: TaskId) -> Option<&Work> {
        self.tasks.get(&id).filter(|work| work.runner == runner && work.phase == Phase::Told)
    }

    pub(super) fn send(&self, pieces: impl IntoIterator<Item = TokenChunk>, turn: &mut Turn<'_>) {
        for piece in pieces {
            if let Some(to) = self.answers.gateway(&piece.task) {
                turn.out.push(WorkerOutput::Send { to, transient: Transient::Token(piece) });
            }
        }
    }
}
