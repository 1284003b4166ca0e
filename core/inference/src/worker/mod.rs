//! The worker: what should this node's runners do next? A pure machine that makes them what the state says.
//!
//! It holds one process for each rank that the state puts on its node, brings it up in step with the other ranks
//! (`ranks`), gives it tasks in the order of their creation, sends the answers to the gateways, and has the leader told
//! what came of it. Nothing depends on having seen an event: each step compares the state with the one before it, at the
//! cost of what changed. As with a replication node, time and randomness are handed in and all effects come out of
//! [`Worker::step`].

mod answers;
mod config;
mod feeding;
mod inputs;
pub mod io;
mod lives;
mod outcomes;
mod ranks;
mod seat;
mod status;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;
mod view;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use lockstep_replication::{Index, Moment, NodeId, Now, Seed};

use self::answers::Answers;
use self::inputs::Inputs;
use self::seat::{Place, Process, Seat};
use self::tasks::Work;
use self::timers::{Timer, Timers};
use self::wishes::Wishes;
use crate::id::{InstanceId, ModelId, RunnerId, TaskId};
use crate::keyed_backoff::KeyedBackoff;
use crate::state::{Instance, NodeStatus, State};

pub use config::WorkerConfig;
pub use io::{RunnerSaid, WorkerInput, WorkerOutput};
pub use view::{Counts, RunnerView, WorkerView};

/// The worker of one node.
pub struct Worker {
    me: NodeId,
    config: WorkerConfig,
    /// The state as of the last step.
    seen: State,
    next: Index,
    /// Whether all custom cards were mirrored once.
    mirrored: bool,
    stopping: bool,
    /// How many processes were started.
    lives: u64,
    seats: BTreeMap<RunnerId, Seat>,
    tasks: BTreeMap<TaskId, Work>,
    inputs: Inputs,
    answers: Answers,
    wishes: Wishes,
    instances: KeyedBackoff<InstanceId>,
    models: KeyedBackoff<ModelId>,
    timers: Timers,
    counts: Counts,
}

/// What one step has at hand.
struct Turn<'a> {
    now: Moment,
    state: &'a State,
    out: &'a mut Vec<WorkerOutput>,
}

impl Worker {
    /// A worker that has seen nothing yet.
    pub fn new(me: NodeId, config: WorkerConfig, seed: Seed) -> Worker {
        let (first, longest) = (config.first_wait, config.longest_wait);
        Worker {
            me,
            seen: State::default(),
            next: Index::default(),
            mirrored: false,
            stopping: false,
            lives: 0,
            seats: BTreeMap::new(),
            tasks: BTreeMap::new(),
            inputs: Inputs::default(),
            answers: Answers::new(seed.fork("answers")),
            wishes: Wishes::default(),
            instances: KeyedBackoff::new(first, longest, seed.fork("instances")),
            models: KeyedBackoff::new(first, longest, seed.fork("models")),
            timers: Timers::default(),
            counts: Counts::default(),
            config,
        }
    }

    /// The only way in and out. The state is that of a node that has caught up; `next` is one past its last entry.
    pub fn step(&mut self, now: Now, state: &State, next: Index, input: WorkerInput, out: &mut Vec<WorkerOutput>) {
        let turn = &mut Turn { now: now.at, state, out };
        self.next = next;
        self.stopping |= input == WorkerInput::Stop;
        self.follow(turn);
        match input {
            WorkerInput::Wake | WorkerInput::Changed => {}
            WorkerInput::Transient { from, transient } => self.signal(from, transient, turn),
            WorkerInput::Runner { runner, life, said } => self.said(runner, life, said, turn),
            WorkerInput::Stop => self.stop(turn),
        }
        for timer in self.timers.due(now.at) {
            match timer {
                Timer::Runner(runner) => self.tick(runner, turn),
                Timer::Wish(task) => self.wish_again(task, turn),
                Timer::EarlyInputs => self.counts.inputs_expired += self.inputs.expire(now.at),
                Timer::HeldAnswers => {
                    let pieces = self.answers.release(now.at, &self.config);
                    self.send(pieces, turn);
                }
                Timer::OldAnswers => self.answers.expire(now.at),
            }
        }
        self.timers.set(Timer::EarlyInputs, self.inputs.next_expiry());
        self.timers.set(Timer::HeldAnswers, self.answers.next_release());
        self.timers.set(Timer::OldAnswers, self.answers.next_expiry());
    }

    /// When it wants to be woken.
    pub fn next_wake(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// Facts for checks, metrics and people.
    pub fn view(&self) -> WorkerView {
        let runner = |(runner, seat): (&RunnerId, &Seat)| RunnerView {
            runner: *runner,
            instance: seat.place.as_ref().map(|place| place.instance),
            life: (seat.process != Process::Absent).then_some(seat.life),
            status: seat.status.clone(),
            failures: seat.place.as_ref().map_or(0, |place| self.instances.failures(&place.instance)),
            given_up: seat.given_up,
            waiting: seat.waiting.len(),
            working: seat.told.len(),
        };
        WorkerView {
            next: self.next,
            runners: self.seats.iter().map(runner).collect(),
            tasks: self.tasks.len(),
            input_bytes: self.inputs.bytes(),
            answer_bytes: self.answers.bytes(),
            wishes: self.wishes.len(),
            failed_instances: self.instances.tracked_keys().copied().collect(),
            failed_models: self.models.tracked_keys().cloned().collect(),
            counts: self.counts,
        }
    }

    /// Compares the state with the one before, and does what follows from the difference.
    fn follow(&mut self, turn: &mut Turn<'_>) {
        let (seen, state) = (std::mem::replace(&mut self.seen, turn.state.clone()), turn.state);
        self.mirror(&seen, turn);
        for change in seen.nodes.diff(&state.nodes) {
            match change {
                DiffItem::Add(..) => {}
                DiffItem::Update { new: (node, now), .. } => {
                    if matches!(now.status, NodeStatus::Lost { .. }) {
                        self.orphan(*node, turn);
                    }
                }
                DiffItem::Remove(node, _) => self.orphan(*node, turn),
            }
        }
        let mut touched = BTreeSet::new();
        for change in seen.instances.diff(&state.instances) {
            match change {
                DiffItem::Add(id, made) => touched.extend(self.place(*id, made)),
                DiffItem::Update { old: (_, old), new: (id, made) } => {
                    // The counts of its tasks change all the time.
                    if (&old.model, old.created, &old.ranks) != (&made.model, made.created, &made.ranks) {
                        touched.extend(self.retire(*id, old, turn));
                        touched.extend(self.place(*id, made));
                    }
                }
                DiffItem::Remove(id, old) => touched.extend(self.retire(*id, old, turn)),
            }
        }
        for change in seen.runners.diff(&state.runners) {
            let instance = match change {
                DiffItem::Add(_, runner) | DiffItem::Update { new: (_, runner), .. } | DiffItem::Remove(_, runner) => {
                    runner.instance
                }
            };
            touched
                .extend(state.instances.get(&instance).and_then(|made| self.my_rank(made)).map(|(_, runner)| runner));
        }
        let mut new = vec![];
        for change in seen.tasks.diff(&state.tasks) {
            match change {
                DiffItem::Add(id, task) => new.push((*id, task)),
                DiffItem::Update { old: (_, old), new: (id, task) } => {
                    if (old.instance, old.created, old.input) == (task.instance, task.created, task.input) {
                        touched.extend(self.begun(*id, task.status, turn));
                    } else {
                        touched.extend(self.gone(*id, turn));
                        new.push((*id, task));
                    }
                }
                DiffItem::Remove(id, _) => touched.extend(self.gone(*id, turn)),
            }
        }
        for (id, task) in new {
            touched.extend(self.adopt(id, task, turn));
        }
        for runner in touched {
            self.settle(runner, turn);
        }
    }

    /// Tells which copies of custom cards the disk should hold.
    fn mirror(&mut self, seen: &State, turn: &mut Turn<'_>) {
        let mut cards = BTreeMap::new();
        for change in seen.cards.diff(&turn.state.cards) {
            match change {
                DiffItem::Add(model, card) => {
                    drop(card.custom.then(|| cards.insert(model.clone(), Some(card.clone()))))
                }
                DiffItem::Update { old: (_, old), new: (model, card) } => {
                    self.models.forget(model);
                    if old.custom || card.custom {
                        cards.insert(model.clone(), card.custom.then(|| card.clone()));
                    }
                }
                DiffItem::Remove(model, card) => {
                    self.models.forget(model);
                    drop(card.custom.then(|| cards.insert(model.clone(), None)));
                }
            }
        }
        let whole = !std::mem::replace(&mut self.mirrored, true);
        if whole || !cards.is_empty() {
            turn.out.push(WorkerOutput::Mirror { cards, whole });
        }
    }

    /// Which rank of an instance is this node's, and its runner.
    fn my_rank(&self, made: &Instance) -> Option<(usize, RunnerId)> {
        let rank = made.ranks.iter().position(|rank| rank.node == self.me)?;
        Some((rank, made.ranks[rank].runner))
    }

    /// A new instance: it gets a seat if a rank of it is this node's.
    fn place(&mut self, instance: InstanceId, made: &Arc<Instance>) -> Option<RunnerId> {
        let (rank, runner) = self.my_rank(made)?;
        let place = Place { instance, rank, made: made.clone() };
        self.seats.entry(runner).or_default().take(place);
        Some(runner)
    }

    /// An instance is gone: its process ends, and nothing of it is remembered.
    fn retire(&mut self, instance: InstanceId, made: &Instance, turn: &mut Turn<'_>) -> Option<RunnerId> {
        self.instances.forget(&instance);
        let (_, runner) = self.my_rank(made)?;
        let seat = self.seats.get_mut(&runner)?;
        seat.end(runner, self.config.grace, turn.out);
        seat.leave();
        Some(runner)
    }
}
