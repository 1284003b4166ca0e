//! The inputs of tasks: asked for, taken in, acknowledged; a task whose input is whole can have its turn.

use lockstep_replication::NodeId;

use super::inputs::Taken;
use super::io::WorkerOutput;
use super::seat::Ask;
use super::tasks::{Phase, Work};
use super::{Turn, Worker};
use crate::id::{RunnerId, TaskId};
use crate::transient::{InputChunk, Transient};

impl Worker {
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

    pub(super) fn input(&mut self, from: NodeId, chunk: InputChunk, turn: &mut Turn<'_>) {
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

    pub(super) fn input_is_whole(&mut self, id: TaskId, turn: &mut Turn<'_>) {
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
    pub(super) fn make_fit(&mut self, id: TaskId) {
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
}
