//! The tasks of this node's runners: their inputs, their turn, their answers, their end.
//!
//! Rank 0 takes tasks in the order of their creation; the other ranks take those that the state shows as begun, so that
//! two ranks never wait for each other over two tasks. A task is begun once: one that an earlier life of this node
//! had begun fails, and so does one whose runner ends. Those that only wait stay, until their instance is given up.

use lockstep_replication::NodeId;

use super::answers::Again;
use super::inputs::{Expected, Order, Taken};
use super::io::WorkerOutput;
use super::seat::{Ask, Process};
use super::timers::Timer;
use super::{Turn, Worker};
use crate::command::Command;
use crate::id::{RunnerId, TaskId};
use crate::limits;
use crate::runner::ToRunner;
use crate::state::{NodeStatus, Task, TaskKind, TaskOutcome, TaskStatus};
use crate::transient::{InputChunk, StopReason, TokenChunk, TokenPart, Trace, TraceSpan, Transient, Usage};

/// A task of one of this node's runners.
#[derive(Clone, Debug)]
pub(super) struct Work {
    runner: RunnerId,
    rank: usize,
    order: Order,
    kind: TaskKind,
    /// What its input is; none if no gateway has it.
    expected: Option<Expected>,
    phase: Phase,
    /// Whether the state shows it as begun.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It waits for its turn.
    Waiting,
    /// The runner has it.
    Told,
    /// Nothing is left to do here; the state still has it.
    Over,
}

impl Worker {
    /// The state has a task that it did not have before.
    pub(super) fn adopt(&mut self, id: TaskId, task: &Task, turn: &mut Turn<'_>) -> Option<RunnerId> {
        let made = turn.state.instances.get(&task.instance)?;
        let (rank, runner) = self.my_rank(made)?;
        let order = (task.created, id);
        let begun = task.status == TaskStatus::Running;
        let expected = task.gateway.map(|gateway| Expected { order, gateway, name: task.input });
        let work = Work { runner, rank, order, kind: task.kind, expected, phase: Phase::Waiting, begun };
        self.tasks.insert(id, work);
        let seat = self.seats.get_mut(&runner)?;
        let (first, most) = (rank == 0, self.config.input_bytes);
        let lost = |gateway: NodeId| {
            let node = turn.state.nodes.get(&gateway);
            node.is_some_and(|node| matches!(node.status, NodeStatus::Lost { .. }))
        };
        let Some(expected) = expected else {
            self.fail_task(id, "it names no gateway that has its input", turn);
            return None;
        };
        if first && begun {
            self.fail_task(id, "the node that worked on it started again", turn);
        } else if self.answers.gateway(&id).is_some() {
            // A second answer would be another one, and its client has a part of the first.
            self.fail_task(id, "it was worked on before, in a branch of the log that lost", turn);
        } else if first && lost(expected.gateway) {
            self.call_off(id, turn);
        } else if task.input.bytes > most {
            let reason = format!("its input has {} bytes: a runner takes at most {most}", task.input.bytes);
            self.fail_task(id, &reason, turn);
        } else if seat.given_up {
            self.fail_task(id, "its instance was given up", turn);
        } else if seat.waiting.len() >= self.config.waiting {
            self.counts.tasks_refused += 1;
            self.fail_task(id, &format!("{} tasks wait for its instance already", self.config.waiting), turn);
        } else {
            seat.waiting.insert(order);
            seat.lacking.insert(order);
            self.inputs.expect(&expected);
            if self.inputs.is_whole(&id) {
                self.input_is_whole(id, turn);
            }
        }
        Some(runner)
    }

    /// The state shows a task as further than before.
    pub(super) fn begun(&mut self, id: TaskId, status: TaskStatus, turn: &mut Turn<'_>) -> Option<RunnerId> {
        let work = self.tasks.get_mut(&id).filter(|work| !work.begun && status == TaskStatus::Running)?;
        work.begun = true;
        if self.wishes.begun(&id) {
            self.timers.set(Timer::Wish(id), None);
        }
        let runner = work.runner;
        let pieces = self.answers.begin(id);
        self.send(pieces, turn);
        self.make_fit(id);
        Some(runner)
    }

    /// The state has a task no more: it has ended, or was called off.
    pub(super) fn gone(&mut self, id: TaskId, turn: &mut Turn<'_>) -> Option<RunnerId> {
        let work = self.tasks.remove(&id)?;
        self.wishes.granted(&id);
        self.timers.set(Timer::Wish(id), None);
        self.inputs.remove_all(&id);
        match work.phase {
            Phase::Waiting => {
                if let Some(seat) = self.seats.get_mut(&work.runner) {
                    seat.unqueue(&work.order);
                }
            }
            Phase::Told => self.cancel(&work, turn),
            // What the runner said to its end goes out now, if the state did not show its beginning.
            Phase::Over => {
                let pieces = self.answers.begin(id);
                self.send(pieces, turn);
            }
        }
        self.answers.retire(turn.now, id, &self.config);
        Some(work.runner)
    }

    /// A node is lost: nobody waits any more for the answers that went there.
    pub(super) fn orphan(&mut self, gateway: NodeId, turn: &mut Turn<'_>) {
        let its = |work: &Work| {
            work.rank == 0 && work.phase != Phase::Over && work.expected.is_some_and(|input| input.gateway == gateway)
        };
        let orphans: Vec<TaskId> = self.tasks.iter().filter(|(_, work)| its(work)).map(|(id, _)| *id).collect();
        let mut touched: Vec<RunnerId> = orphans.iter().map(|id| self.tasks[id].runner).collect();
        orphans.into_iter().for_each(|id| self.call_off(id, turn));
        touched.dedup();
        touched.into_iter().for_each(|runner| self.settle(runner, turn));
    }

    /// Tells a runner what it can work on.
    pub(super) fn feed(&mut self, runner: RunnerId, turn: &mut Turn<'_>) {
        while let Some(seat) = self.seats.get_mut(&runner)
            && seat.process == Process::Ready
            && seat.told.len() < seat.slots
            && let Some((_, id)) = seat.fit.pop_first()
        {
            self.tell_task(id, turn);
        }
        let (now, config) = (turn.now, &self.config);
        if let Some(seat) = self.seats.get_mut(&runner) {
            let next: Vec<TaskId> = seat.lacking.iter().take(config.asking).map(|(_, id)| *id).collect();
            let first = Ask { at: now + config.ask_first, tries: 0 };
            seat.asks = next.into_iter().map(|id| (id, seat.asks.get(&id).copied().unwrap_or(first))).collect();
        }
    }

    /// Asks gateways for what did not come.
    pub(super) fn ask_for_inputs(&mut self, runner: RunnerId, turn: &mut Turn<'_>) {
        let Some(seat) = self.seats.get(&runner) else { return };
        let due: Vec<TaskId> = seat.asks.iter().filter(|(_, ask)| ask.at <= turn.now).map(|(id, _)| *id).collect();
        for id in due {
            let config = &self.config;
            let Some(ask) = self.seats.get_mut(&runner).and_then(|seat| seat.asks.get_mut(&id)) else { continue };
            let Some(expected) = self.tasks.get(&id).and_then(|work| work.expected) else { continue };
            if ask.tries >= config.asks {
                let reason = format!("its input did not come, though its gateway was asked {} times", config.asks);
                self.fail_task(id, &reason, turn);
                continue;
            }
            let wait = config.ask_first.times(1 << ask.tries.min(32)).min(config.ask_longest);
            *ask = Ask { at: turn.now + wait, tries: ask.tries + 1 };
            self.counts.inputs_asked += 1;
            let transient = Transient::InputMissing { task: id, parts: self.inputs.lacking(&id) };
            turn.out.push(WorkerOutput::Send { to: expected.gateway, transient });
        }
    }

    /// A signal of one request came.
    pub(super) fn signal(&mut self, from: NodeId, transient: Transient, turn: &mut Turn<'_>) {
        match transient {
            Transient::Input(chunk) => self.input(from, chunk, turn),
            Transient::TokensMissing { task, from: first } => {
                match self.answers.again(from, &task, first, &self.config) {
                    Some(Again::Pieces(pieces)) => {
                        self.counts.pieces_again += pieces.len() as u64;
                        self.send(pieces, turn);
                    }
                    Some(Again::Gone) => {
                        self.counts.pieces_gone += 1;
                        let part = TokenPart::Error("a part of the answer was lost, and is kept no more".into());
                        self.send([TokenChunk { task, n: first, part }], turn);
                    }
                    None => self.counts.signals_refused += 1,
                }
            }
            // These are a gateway's.
            Transient::Token(_)
            | Transient::InputMissing { .. }
            | Transient::Trace(_)
            | Transient::Acknowledged { .. } => {}
        }
    }

    /// A task's answer goes on: whether the runner has to be looked at.
    pub(super) fn token(&mut self, runner: RunnerId, id: TaskId, text: String, turn: &mut Turn<'_>) -> bool {
        if self.told(runner, id).is_none_or(|work| work.rank != 0) {
            self.counts.stray_messages += 1;
            return false;
        }
        match self.answers.push(id, TokenPart::Text(text), &self.config) {
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
            let pieces = self.answers.push(id, TokenPart::End { stop, usage }, &self.config).unwrap_or_default();
            self.send(pieces, turn);
            let outcome = TaskOutcome::Done { tokens: usage.completion_tokens };
            self.wish(id, Command::FinishTask { task: id, outcome }, turn);
        }
    }

    /// A runner could not do a task.
    pub(super) fn task_failed(&mut self, runner: RunnerId, id: TaskId, reason: &str, turn: &mut Turn<'_>) {
        if self.told(runner, id).is_some() {
            self.fail_task(id, reason, turn);
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

    /// The state does not show yet what this node wants of a task.
    pub(super) fn wish_again(&mut self, id: TaskId, turn: &mut Turn<'_>) {
        let Some((command, at)) = self.wishes.again(turn.now, &id, &self.config) else { return };
        turn.out.push(WorkerOutput::Submit(command));
        self.timers.set(Timer::Wish(id), Some(at));
    }

    fn input(&mut self, from: NodeId, chunk: InputChunk, turn: &mut Turn<'_>) {
        let (id, now) = (chunk.task, turn.now);
        let expected = match self.tasks.get(&id) {
            None => None,
            Some(Work { expected: Some(expected), phase: Phase::Waiting, .. }) => Some(*expected),
            Some(work) => {
                if work.phase == Phase::Told && work.expected.is_some_and(|expected| expected.gateway == from) {
                    self.acknowledge(id, turn);
                }
                return;
            }
        };
        let mut gave_way = vec![];
        let taken = self.inputs.take(now, from, expected.as_ref(), chunk, &self.config, &mut gave_way);
        for other in gave_way {
            self.counts.inputs_dropped += 1;
            self.make_lacking(other, turn);
        }
        match taken {
            Taken::Dropped => self.counts.inputs_dropped += 1,
            Taken::Wrong => self.counts.inputs_wrong += 1,
            Taken::Known if expected.is_some() && self.inputs.is_whole(&id) => self.acknowledge(id, turn),
            Taken::Whole if expected.is_some() => self.input_is_whole(id, turn),
            Taken::Known | Taken::Whole => {}
            Taken::Kept => {
                let at = now + self.config.ask_first;
                let seat = self.tasks.get(&id).and_then(|work| self.seats.get_mut(&work.runner));
                if let Some(ask) = seat.and_then(|seat| seat.asks.get_mut(&id)) {
                    *ask = Ask { at, tries: 0 };
                }
            }
        }
        if let Some(runner) = self.tasks.get(&id).map(|work| work.runner) {
            self.settle(runner, turn);
        }
    }

    fn input_is_whole(&mut self, id: TaskId, turn: &mut Turn<'_>) {
        self.acknowledge(id, turn);
        if let Some(work) = self.tasks.get(&id)
            && let Some(seat) = self.seats.get_mut(&work.runner)
        {
            seat.lacking.remove(&work.order);
        }
        self.make_fit(id);
    }

    /// Its input is here no more.
    fn make_lacking(&mut self, id: TaskId, turn: &mut Turn<'_>) {
        let Some(work) = self.tasks.get(&id) else { return };
        let (runner, order) = (work.runner, work.order);
        if let Some(seat) = self.seats.get_mut(&runner) {
            seat.fit.remove(&order);
            seat.lacking.insert(order);
            self.settle(runner, turn);
        }
    }

    /// If nothing lacks, its turn may come.
    fn make_fit(&mut self, id: TaskId) {
        let Some(work) = self.tasks.get(&id).filter(|work| work.phase == Phase::Waiting) else { return };
        if (work.rank == 0 || work.begun)
            && self.inputs.is_whole(&id)
            && let Some(seat) = self.seats.get_mut(&work.runner)
        {
            seat.fit.insert(work.order);
        }
    }

    fn acknowledge(&self, id: TaskId, turn: &mut Turn<'_>) {
        let Some(work) = self.tasks.get(&id) else { return };
        if let Some(expected) = work.expected {
            let transient = Transient::Acknowledged { task: id, runner: work.runner };
            turn.out.push(WorkerOutput::Send { to: expected.gateway, transient });
        }
    }

    fn tell_task(&mut self, id: TaskId, turn: &mut Turn<'_>) {
        let Some(work) = self.tasks.get_mut(&id) else { return };
        let (Some(expected), Some(seat)) = (work.expected, self.seats.get_mut(&work.runner)) else { return };
        let Some(Ok(input)) = self.inputs.give(&id).map(|bytes| serde_json::from_slice(&bytes)) else {
            return self.fail_task(id, "its input is no JSON", turn);
        };
        seat.unqueue(&work.order);
        if seat.told.is_empty() {
            seat.heard = turn.now;
        }
        seat.told.insert(id);
        work.phase = Phase::Told;
        seat.tell(work.runner, ToRunner::Task { task: id, kind: work.kind, input }, turn.out);
        self.answers.open(id, expected.gateway, work.begun);
        if work.rank == 0 {
            self.wish(id, Command::StartTask { task: id }, turn);
        }
    }

    /// An error ends a task.
    fn fail_task(&mut self, id: TaskId, reason: &str, turn: &mut Turn<'_>) {
        let Some(work) = self.tasks.get(&id).filter(|work| work.phase != Phase::Over) else { return };
        let (rank, gateway) = (work.rank, work.expected.map(|expected| expected.gateway));
        self.over(id);
        let reason = match limits::cut_text(reason, limits::REASON_CHARS) {
            empty if empty.is_empty() => "its runner gave no reason".to_owned(),
            reason => reason,
        };
        if let Some(gateway) = gateway.filter(|_| rank == 0) {
            self.answers.open(id, gateway, false);
            let error = self.answers.fail(id, &reason);
            self.send(error, turn);
        }
        self.wish(id, Command::FinishTask { task: id, outcome: TaskOutcome::Failed { reason } }, turn);
    }

    /// Nobody waits for a task.
    fn call_off(&mut self, id: TaskId, turn: &mut Turn<'_>) {
        let Some(work) = self.tasks.get(&id).cloned() else { return };
        if work.phase == Phase::Told {
            self.cancel(&work, turn);
        }
        self.over(id);
        self.counts.tasks_orphaned += 1;
        self.wish(id, Command::CancelTask { task: id }, turn);
    }

    /// Has the runner stop working on a task.
    fn cancel(&mut self, work: &Work, turn: &mut Turn<'_>) {
        let Some(seat) = self.seats.get_mut(&work.runner) else { return };
        if seat.told.remove(&work.order.1) && seat.process == Process::Ready {
            seat.tell(work.runner, ToRunner::Cancel { task: work.order.1 }, turn.out);
        }
    }

    /// Nothing is left to do for a task but to have the state know.
    fn over(&mut self, id: TaskId) {
        let Some(work) = self.tasks.get_mut(&id) else { return };
        work.phase = Phase::Over;
        if let Some(seat) = self.seats.get_mut(&work.runner) {
            seat.unqueue(&work.order);
            seat.told.remove(&id);
        }
        self.inputs.remove_all(&id);
    }

    fn wish(&mut self, id: TaskId, command: Command, turn: &mut Turn<'_>) {
        turn.out.push(WorkerOutput::Submit(command.clone()));
        let at = self.wishes.make(turn.now, id, command, &self.config);
        self.timers.set(Timer::Wish(id), Some(at));
    }

    /// The task, if this runner has it.
    fn told(&self, runner: RunnerId, id: TaskId) -> Option<&Work> {
        self.tasks.get(&id).filter(|work| work.runner == runner && work.phase == Phase::Told)
    }

    fn send(&self, pieces: impl IntoIterator<Item = TokenChunk>, turn: &mut Turn<'_>) {
        for piece in pieces {
            if let Some(to) = self.answers.gateway(&piece.task) {
                turn.out.push(WorkerOutput::Send { to, transient: Transient::Token(piece) });
            }
        }
    }
}
