//! Modelled runners: they answer what their workers tell them, in their time, until they crash, hang or print garbage.

use std::collections::BTreeMap;

use lockstep_inference::id::{InstanceId, RunnerId, TaskId};
use lockstep_inference::runner::{FromRunner, ToRunner, VERSION};
use lockstep_inference::state::ModelCard;
use lockstep_inference::transient::{StopReason, Usage};
use lockstep_inference::worker::{RunnerSaid, WorkerInput};
use lockstep_replication::Span;

use super::plan::Model;
use super::world::{Event, World};
use crate::checks::Broken;

/// A runner's process.
pub(super) struct Runner {
    pub(super) runner: RunnerId,
    /// Unlike that of any other process.
    process: u64,
    behaviour: Model,
    pub(super) instance: InstanceId,
    rank: u16,
    ranks: u16,
    /// Whether it looks for the other ranks, or has found them.
    connects: bool,
    /// The processes of the other ranks that it found.
    peers: Vec<(RunnerId, u64)>,
    tasks: BTreeMap<TaskId, Task>,
    pub(super) is_warm: bool,
    pub(super) hangs: bool,
}

/// A task that a runner works on.
#[derive(Clone, Copy)]
struct Task {
    /// Unlike that of any other beginning.
    attempt: u64,
    /// How many tokens it said,
    said: u64,
    /// of how many.
    of: u64,
}

/// What a runner's process does at a moment.
pub(super) enum Act {
    Say(FromRunner),
    /// It looks for the other ranks.
    Look,
    /// It says more of a task.
    GoOn(TaskId, u64),
    /// It prints something that is not of the protocol.
    Garbage,
    Hang,
    /// It ends, for this reason.
    End(&'static str),
}

impl World {
    pub(super) fn runner_starts(
        &mut self,
        at: usize,
        runner: RunnerId,
        start: u64,
        card: &ModelCard,
    ) -> Result<(), Broken> {
        self.processes += 1;
        let Some(behaviour) = self.plan.model(&card.name).cloned() else { return Ok(()) };
        let process = self.processes;
        let new = Runner {
            runner,
            process,
            behaviour,
            instance: InstanceId([0; 16]),
            rank: 0,
            ranks: 1,
            connects: false,
            peers: Vec::new(),
            tasks: BTreeMap::new(),
            is_warm: false,
            hangs: false,
        };
        self.process(at).runners.insert((runner, start), new);
        self.checks.growth.runner_started(runner);
        self.checks.runners.started(at, runner)
    }

    /// A runner acts so much later.
    fn runner_later(&mut self, span: Span, at: usize, runner: RunnerId, start: u64, act: Act) {
        let life = self.machines[at].life;
        self.after(span, Event::Runner { at, life, runner, start, act });
    }

    pub(super) fn runner_told(
        &mut self,
        at: usize,
        runner: RunnerId,
        start: u64,
        message: ToRunner,
    ) -> Result<(), Broken> {
        self.attempts += 1;
        let attempt = self.attempts;
        let Some(it) = self.process(at).runners.get_mut(&(runner, start)).filter(|it| !it.hangs) else {
            return Ok(());
        };
        let (soon, behaviour) = (Span::millis(30), it.behaviour.clone());
        let mut acts = Vec::new();
        match message {
            ToRunner::Hello { instance, rank, ranks, .. } => {
                (it.instance, it.rank, it.ranks) = (instance, rank, ranks);
                acts.push((soon, Act::Say(FromRunner::Hello { version: VERSION, tasks: behaviour.at_once })));
            }
            ToRunner::Connect => {
                it.connects = true;
                acts.push((soon, Act::Look));
            }
            ToRunner::Load => {
                for percent in (10..100_u8).step_by(10) {
                    let when = Span(behaviour.loads.0 / 100 * u64::from(percent));
                    acts.push((when, Act::Say(FromRunner::Loading { percent })));
                }
                let end = if behaviour.dies_loading {
                    Act::End("killed by signal 9: out of memory")
                } else {
                    Act::Say(FromRunner::Loaded)
                };
                acts.push((behaviour.loads, end));
            }
            ToRunner::WarmUp => {
                it.is_warm = true;
                acts.push((soon, Act::Say(FromRunner::Ready)));
                if let Some(dies) = behaviour.dies_after {
                    acts.push((soon + dies, Act::End("killed by signal 11")));
                }
            }
            ToRunner::Task { task, input, .. } => {
                let tokens = input.get("tokens").and_then(serde_json::Value::as_u64).unwrap_or_default();
                if it.tasks.len() >= behaviour.at_once as usize {
                    return Err(Broken::new("tasks_at_once", format!("{runner} has as many tasks as it takes")));
                }
                it.tasks.insert(task, Task { attempt, said: 0, of: tokens });
                self.checks.growth.told_task(runner);
                self.checks.answers.begun(task, attempt);
                acts.push((Span::millis(1), Act::Say(FromRunner::Started { task })));
                acts.push((behaviour.token_every, Act::GoOn(task, attempt)));
            }
            ToRunner::Cancel { task } => drop(it.tasks.remove(&task)),
            ToRunner::ShutDown => acts.push((soon, Act::End("exit status 0"))),
        }
        acts.into_iter().for_each(|(span, act)| self.runner_later(span, at, runner, start, act));
        Ok(())
    }

    /// Its worker wants it to end: it does so at once, or only when it is killed.
    pub(super) fn runner_to_end(&mut self, at: usize, runner: RunnerId, start: u64, grace: Span) {
        let Some(it) = self.process(at).runners.get(&(runner, start)) else { return };
        let span = if it.hangs { grace } else { grace.min(Span::millis(40)) };
        self.runner_later(span, at, runner, start, Act::End("exit status 0"));
    }

    pub(super) fn runner_acts(&mut self, at: usize, runner: RunnerId, start: u64, act: Act) -> Result<(), Broken> {
        let Some(it) = self.process(at).runners.get_mut(&(runner, start)) else { return Ok(()) };
        let said = match act {
            Act::End(reason) => {
                let (instance, tasks) = (it.instance, it.tasks.keys().copied().collect::<Vec<_>>());
                self.process(at).runners.remove(&(runner, start));
                self.checks.runners.ended(at, runner);
                self.checks.streams.runner_fell(instance, self.time);
                let time = self.time;
                self.streams.values_mut().filter(|stream| tasks.contains(&stream.task)).for_each(|stream| {
                    stream.runner_fell.get_or_insert(time);
                });
                RunnerSaid::Ended { reason: reason.to_owned() }
            }
            _ if it.hangs => return Ok(()),
            Act::Hang => {
                it.hangs = true;
                let instance = it.instance;
                self.checks.streams.runner_fell(instance, self.time);
                return Ok(());
            }
            Act::Garbage => {
                it.hangs = true;
                let instance = it.instance;
                self.checks.streams.runner_fell(instance, self.time);
                RunnerSaid::Garbage("its line 7 is no JSON".to_owned())
            }
            Act::Look => match self.others_of(at, runner, start) {
                None => {
                    self.runner_later(Span::millis(100), at, runner, start, Act::Look);
                    return Ok(());
                }
                Some(peers) => {
                    if let Some(it) = self.process(at).runners.get_mut(&(runner, start)) {
                        it.peers = peers;
                    }
                    RunnerSaid::Message(FromRunner::Connected)
                }
            },
            Act::GoOn(task, attempt) => return self.runner_goes_on(at, runner, start, task, attempt),
            Act::Say(message) => RunnerSaid::Message(message),
        };
        self.worker(at, WorkerInput::Runner { runner, life: start, said })
    }

    /// The processes of all other ranks, if each looks for the others too.
    fn others_of(&self, at: usize, runner: RunnerId, start: u64) -> Option<Vec<(RunnerId, u64)>> {
        let it = self.machines[at].process.as_ref()?.runners.get(&(runner, start))?;
        let others = (0..it.ranks).filter(|rank| *rank != it.rank).map(|rank| RunnerId::of(it.instance, rank));
        others.map(|other| Some((other, self.process_of(other)?))).collect()
    }

    /// The process of a runner that others can reach.
    fn process_of(&self, runner: RunnerId) -> Option<u64> {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let mut its = processes.flat_map(|process| process.runners.values()).filter(|it| it.runner == runner);
        its.find(|it| it.connects && !it.hangs).map(|it| it.process)
    }

    /// One token more, if all ranks are there to compute it.
    fn runner_goes_on(
        &mut self,
        at: usize,
        runner: RunnerId,
        start: u64,
        task: TaskId,
        attempt: u64,
    ) -> Result<(), Broken> {
        let Some(it) = self.machines[at].process.as_ref().and_then(|process| process.runners.get(&(runner, start)))
        else {
            return Ok(());
        };
        let Some(work) = it.tasks.get(&task).copied().filter(|work| work.attempt == attempt) else { return Ok(()) };
        let (rank, every, Task { said, of, .. }) = (it.rank, it.behaviour.token_every, work);
        let whole = it.peers.iter().all(|(peer, process)| self.process_of(*peer) == Some(*process));
        if !whole {
            self.runner_later(Span::millis(200), at, runner, start, Act::GoOn(task, attempt));
            return Ok(());
        }
        let done = said == of;
        if let Some(it) = self.process(at).runners.get_mut(&(runner, start)) {
            if done {
                it.tasks.remove(&task);
            } else {
                it.tasks.insert(task, Task { said: said + 1, ..work });
            }
        }
        let message = if done {
            let usage = Usage { prompt_tokens: 1, completion_tokens: of };
            if rank == 0 {
                self.checks.answers.done(task, attempt, usage);
            }
            FromRunner::Done { task, stop: StopReason::Stop, usage }
        } else {
            self.runner_later(every, at, runner, start, Act::GoOn(task, attempt));
            if rank != 0 {
                return Ok(());
            }
            let text = format!("{said}/{attempt} ");
            self.checks.answers.said(task, attempt, &text);
            FromRunner::Token { task, text }
        };
        self.worker(at, WorkerInput::Runner { runner, life: start, said: RunnerSaid::Message(message) })
    }

    /// What hangs without anything to do is noticed by nobody: before the last questions it is killed.
    pub(super) fn kill_idle_hung(&mut self) {
        for at in 0..self.machines.len() {
            let Some(process) = self.machines[at].process.as_ref() else { continue };
            let hung = process.runners.iter().filter(|(_, it)| it.hangs && it.is_warm && it.tasks.is_empty());
            let keys: Vec<_> = hung.map(|(key, _)| *key).collect();
            for (runner, start) in keys {
                self.runner_later(Span::ZERO, at, runner, start, Act::End("killed by signal 9"));
            }
        }
    }

    /// All processes of a machine do this now.
    pub(super) fn runners_of(&mut self, at: usize, act: impl Fn() -> Act) {
        let Some(process) = self.machines[at].process.as_ref() else { return };
        let keys: Vec<_> = process.runners.keys().copied().collect();
        for (runner, start) in keys {
            self.runner_later(Span::ZERO, at, runner, start, act());
        }
    }
}
