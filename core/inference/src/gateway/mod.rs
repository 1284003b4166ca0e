//! The gateway: which client's stream gets which part of an answer? A pure machine between clients and workers.
//!
//! For each stream it has a task created, hands the request to all ranks of the instance that the leader chose, and puts
//! the parts of the answer in order. A stream ends with the last part of its answer, or with an error once what it waits
//! for cannot come any more: a task that the state does not show *yet* is waited for, one that the state shows *no more*
//! is gone. Nothing depends on having seen an event: each step compares the state with the one before it, at the cost of
//! what changed, and looks at its own tasks alone.
//!
//! A task that names this node as its gateway and has no stream is called off until it has left the state: its client has
//! left, or waited at an earlier life of this node. As with a replication node, time and randomness are handed in and all
//! effects come out of [`Gateway::step`].

mod answer;
mod config;
mod creation;
mod deadlines;
mod ending;
mod feed;
pub mod io;
mod stream;
#[cfg(test)]
mod tests;
mod view;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use imbl::ordmap::DiffItem;
use lockstep_replication::{Hash, Index, Moment, NodeId, Now, Seed, Span};

use self::deadlines::Deadlines;
use self::feed::Request;
use self::stream::{Stream, is_lost};
use crate::id::{ModelId, TaskId};
use crate::keyed_backoff::KeyedBackoff;
use crate::refusal::Refusal;
use crate::state::{State, Task, TaskKind};
use crate::traces::Traces;
use crate::transient::Transient;

pub use config::GatewayConfig;
pub use io::{Failure, GatewayInput, GatewayOutput, StreamId, StreamPart};
pub use view::{Counts, GatewayView};

/// The gateway of one node.
pub struct Gateway {
    me: NodeId,
    config: GatewayConfig,
    /// The state as of the last step.
    seen: State,
    next: Index,
    streams: BTreeMap<TaskId, Stream>,
    tasks: BTreeMap<StreamId, TaskId>,
    /// Where tasks were created, as far as the state does not contain it.
    created: BTreeSet<(Index, TaskId)>,
    /// Of all streams.
    input_bytes: u64,
    /// Tasks that no client waits for, and that the state still has.
    cancels: KeyedBackoff<TaskId>,
    deadlines: Deadlines,
    traces: Traces,
    counts: Counts,
}

/// What one step has at hand.
struct Turn<'a> {
    me: NodeId,
    now: Moment,
    state: &'a State,
    next: Index,
    counts: &'a mut Counts,
    out: &'a mut Vec<GatewayOutput>,
}

impl Gateway {
    /// A gateway that has seen nothing yet.
    pub fn new(me: NodeId, config: GatewayConfig, seed: Seed) -> Gateway {
        Gateway {
            me,
            seen: State::default(),
            next: Index::default(),
            streams: BTreeMap::new(),
            tasks: BTreeMap::new(),
            created: BTreeSet::new(),
            input_bytes: 0,
            cancels: KeyedBackoff::new(config.cancel_first, config.cancel_longest, seed.fork("cancels")),
            deadlines: Deadlines::default(),
            traces: Traces::default(),
            counts: Counts::default(),
            config,
        }
    }

    /// The only way in and out. The state is that of a node that has caught up; `next` is one past its last entry.
    pub fn step(&mut self, now: Now, state: &State, next: Index, input: GatewayInput, out: &mut Vec<GatewayOutput>) {
        self.next = next;
        let mut counts = self.counts;
        let turn = &mut Turn { me: self.me, now: now.at, state, next, counts: &mut counts, out };
        let mut touched = self.follow(turn);
        touched.extend(self.take(input, turn));
        touched.extend(self.deadlines.due(now.at));
        for task in touched {
            self.advance(task, turn);
        }
        self.counts = counts;
    }

    /// When it wants to be woken.
    pub fn next_wake(&self) -> Option<Moment> {
        self.deadlines.next()
    }

    /// What the ranks of its newest tasks did.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Facts for checks, metrics and people.
    pub fn view(&self) -> GatewayView {
        GatewayView {
            next: self.next,
            streams: self.streams.len(),
            input_bytes: self.input_bytes,
            calling_off: self.cancels.tracked_keys().count(),
            counts: self.counts,
        }
    }

    /// Compares the state with the one before: the tasks that something follows for.
    fn follow(&mut self, turn: &mut Turn<'_>) -> BTreeSet<TaskId> {
        let (seen, state) = (std::mem::replace(&mut self.seen, turn.state.clone()), turn.state);
        let mut touched = BTreeSet::new();
        for change in seen.tasks.diff(&state.tasks) {
            let (id, changed) = match change {
                DiffItem::Add(id, task) => (*id, self.appeared(*id, task, turn)),
                DiffItem::Update { new: (id, task), .. } => (*id, self.show(*id, task, turn)),
                DiffItem::Remove(id, _) => (*id, self.disappeared(*id)),
            };
            if changed {
                touched.insert(id);
            }
        }
        for change in seen.nodes.diff(&state.nodes) {
            let lost = match change {
                DiffItem::Add(..) => None,
                DiffItem::Update { new: (node, _), .. } => Some(*node).filter(|node| is_lost(state, *node)),
                DiffItem::Remove(node, _) => Some(*node),
            };
            if let Some(node) = lost {
                touched.extend(self.streams.iter_mut().filter_map(|(id, stream)| stream.lose(node).then_some(*id)));
            }
        }
        // These are looked at whether the state shows them or not.
        while let Some((_, id)) = self.created.first().copied().filter(|(index, _)| *index < turn.next) {
            self.created.pop_first();
            touched.insert(id);
        }
        touched
    }

    fn appeared(&mut self, id: TaskId, task: &Task, turn: &mut Turn<'_>) -> bool {
        if self.streams.contains_key(&id) {
            return self.show(id, task, turn);
        }
        if task.gateway == Some(self.me) {
            turn.counts.orphans += 1;
            self.call_off(id, turn);
        }
        false
    }

    fn show(&mut self, id: TaskId, task: &Task, turn: &mut Turn<'_>) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let Some(made) = turn.state.instances.get(&task.instance) else { return false };
        if stream.show(task, made, turn, &self.config) {
            self.traces.expect(id, &made.ranks);
        }
        true
    }

    fn disappeared(&mut self, id: TaskId) -> bool {
        match self.streams.get_mut(&id) {
            Some(stream) => stream.leave(),
            None => self.forget(id),
        }
        true
    }

    /// The task that an input is about, if something follows from it.
    fn take(&mut self, input: GatewayInput, turn: &mut Turn<'_>) -> Option<TaskId> {
        match input {
            GatewayInput::Wake | GatewayInput::Changed => None,
            GatewayInput::Open { stream, model, kind, input, task } => {
                self.open(stream, task, (model, kind), input, turn)
            }
            GatewayInput::Submitted { stream, result } => {
                let id = *self.tasks.get(&stream)?;
                let created = self.streams.get_mut(&id)?;
                match created.creation.submitted(turn.now, id, result, &self.config) {
                    Ok(index) => self.created.extend(index.map(|index| (index, id))),
                    Err(failure) => self.end(id, StreamPart::Failed(failure), turn),
                }
                Some(id)
            }
            GatewayInput::Transient { from, transient } => self.signal(from, transient, turn),
            GatewayInput::Taken { stream, chunks } => {
                let id = self.tasks.get(&stream)?;
                self.streams.get_mut(id)?.taken(chunks);
                None
            }
            GatewayInput::Closed { stream } => {
                let id = *self.tasks.get(&stream)?;
                turn.counts.closed += 1;
                self.close(id);
                self.call_off(id, turn);
                None
            }
        }
    }

    fn open(
        &mut self,
        id: StreamId,
        task: TaskId,
        work: (ModelId, TaskKind),
        input: Bytes,
        turn: &mut Turn<'_>,
    ) -> Option<TaskId> {
        turn.counts.opened += 1;
        let (bytes, limit) = (input.len() as u64, self.config.input_bytes);
        let all = self.config.inputs_bytes;
        let failure = if self.streams.contains_key(&task) || turn.state.tasks.contains_key(&task) {
            Failure::Refused(Refusal::TaskExists { task })
        } else if bytes > limit {
            Failure::TooLarge { bytes, limit }
        } else if self.streams.len() >= self.config.streams {
            Failure::Full(format!("{} streams", self.config.streams))
        } else if self.input_bytes + bytes > all {
            Failure::Full(format!("{all} bytes of requests"))
        } else {
            let request = Request { hash: Hash::of(&input), bytes: input };
            self.streams.insert(task, Stream::new(turn.now, id, task, work, request, &self.config));
            self.tasks.insert(id, task);
            self.input_bytes += bytes;
            return Some(task);
        };
        turn.counts.full += u64::from(matches!(failure, Failure::Full(_)));
        turn.counts.failed += 1;
        turn.out.push(GatewayOutput::Deliver { stream: id, part: StreamPart::Failed(failure) });
        None
    }

    fn signal(&mut self, from: NodeId, transient: Transient, turn: &mut Turn<'_>) -> Option<TaskId> {
        let id = match &transient {
            Transient::Token(chunk) => chunk.task,
            Transient::InputMissing { task, .. } | Transient::Acknowledged { task, .. } => *task,
            Transient::Trace(_) => {
                let Transient::Trace(trace) = transient else { return None };
                turn.counts.signals_refused += u64::from(!self.traces.take(from, trace));
                return None;
            }
            // These are a worker's.
            Transient::TokensMissing { .. } | Transient::Input(_) => return None,
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            turn.counts.signals_late += 1;
            return None;
        };
        let config = &self.config;
        let its = match transient {
            Transient::Token(chunk) => stream.token(from, chunk, turn, config),
            Transient::InputMissing { parts, .. } => stream.feed(from, Some(&parts), turn, config),
            Transient::Acknowledged { .. } => stream.feed(from, None, turn, config),
            Transient::Trace(_) | Transient::TokensMissing { .. } | Transient::Input(_) => false,
        };
        its.then_some(id)
    }

    /// Does for a task what is to be done now.
    fn advance(&mut self, id: TaskId, turn: &mut Turn<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            if self.cancels.again(&id).is_some_and(|again| again <= turn.now) {
                self.call_off(id, turn);
            }
            return;
        };
        match stream.advance(turn, &self.config) {
            Some(last) => self.end(id, last, turn),
            None => {
                let deadline = stream.deadline(&self.config).max(turn.now + Span(1));
                self.deadlines.set(id, Some(deadline));
            }
        }
    }
}
