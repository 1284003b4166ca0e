//! The tasks of this node's runners: their turn, and their end.
//!
//! Rank 0 takes tasks in the order of their creation; the other ranks take those that the state shows as begun, so that
//! two ranks never wait for each other over two tasks. A task is begun once: one that an earlier life of this node
//! had begun fails, and so does one whose runner ends. Those that only wait stay, until their instance is given up.

use lockstep_replication::NodeId;

use super::answers::Again;
use super::inputs::{Expected, Order};
use super::io::WorkerOutput;
use super::seat::{Ask, Process};
use super::timers::Timer;
use super::{Turn, Worker};
use crate::command::Command;
use crate::id::{RunnerId, TaskId};
use crate::runner::ToRunner;
use crate::state::{NodeStatus, Task, TaskKind, TaskStatus};
use crate::transient::Transient;

/// A task of one of this node's runners.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) runner: RunnerId,
    pub(super) rank: usize,
    pub(super) order: Order,
    pub(super) kind: TaskKind,
    /// What its input is; none if no gateway has it.
    pub(super) expected: Option<Expected>,
    pub(super) phase: Phase,
    /// Whether the state shows it as begun.
    pub(super) begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
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
        let pieces = self.answers.begin(turn.now, id, &self.config);
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
                let pieces = self.answers.begin(turn.now, id, &self.config);
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
                        let error = self.answers.gone(task, first);
                        self.send(error, turn);
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

    /// The state does not show yet what this node wants of a task.
    pub(super) fn wish_again(&mut self, id: TaskId, turn: &mut Turn<'_>) {
        let Some((command, at)) = self.wishes.again(turn.now, &id, &self.config) else { return };
        turn.out.push(WorkerOutput::Submit(command));
        self.timers.set(Timer::Wish(id), Some(at));
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
    pub(super) fn cancel(&mut self, work: &Work, turn: &mut Turn<'_>) {
        let Some(seat) = self.seats.get_mut(&work.runner) else { return };
        if seat.told.remove(&work.order.1) && seat.process == Process::Ready {
            seat.cancel(work.runner, work.order.1, turn.now + self.config.cancelled, turn.out);
        }
    }

    /// Nothing is left to do for a task but to have the state know.
    pub(super) fn over(&mut self, id: TaskId) {
        let Some(work) = self.tasks.get_mut(&id) else { return };
        work.phase = Phase::Over;
        if let Some(seat) = self.seats.get_mut(&work.runner) {
            seat.unqueue(&work.order);
            seat.told.remove(&id);
        }
        self.inputs.remove_all(&id);
    }

    pub(super) fn wish(&mut self, id: TaskId, command: Command, turn: &mut Turn<'_>) {
        turn.out.push(WorkerOutput::Submit(command.clone()));
        let at = self.wishes.make(turn.now, id, command, &self.config);
        self.timers.set(Timer::Wish(id), Some(at));
    }
}
