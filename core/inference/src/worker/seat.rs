//! The seat of one runner: what the state wants there, how far its process is, and which tasks it has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use lockstep_replication::{Moment, Span};

use super::inputs::Order;
use super::io::WorkerOutput;
use super::ranks::Level;
use crate::id::{InstanceId, RunnerId, TaskId};
use crate::runner::ToRunner;
use crate::state::{Instance, RunnerStatus};

/// So many cancelled tasks are remembered. A runner that ignores cancels goes on with few tasks at a time.
const CANCELLED: usize = 1024;

#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// What the state wants here. None: the seat goes when its process has ended.
    pub(super) place: Option<Place>,
    pub(super) process: Process,
    /// The newest start of the process.
    pub(super) life: u64,
    pub(super) given_up: bool,
    /// On how many tasks it can work at the same time.
    pub(super) slots: usize,
    /// How far each rank was seen in this round.
    pub(super) seen: Vec<Level>,
    /// When it last said something.
    pub(super) heard: Moment,
    /// When the step that it is at must be done.
    pub(super) step_by: Option<Moment>,
    /// Since when it is ready.
    pub(super) ready: Option<Moment>,
    /// When to say again that the node may stall.
    pub(super) busy_at: Moment,

    pub(super) status: RunnerStatus,
    /// What the cluster was told last.
    pub(super) said: Option<RunnerStatus>,
    /// When to tell it again, as the state does not show it, and after which wait then.
    pub(super) say_again: Option<(Moment, Span)>,
    /// When the last progress was told.
    pub(super) progress: Moment,
    /// Until when it still shows as running, though it has no task.
    pub(super) rests: Option<Moment>,

    /// The tasks that it has.
    pub(super) told: BTreeSet<TaskId>,
    /// The newest ones that it was told to stop, and until when it may still say something of them.
    cancelled: VecDeque<(Moment, TaskId)>,
    /// Those that wait for their turn.
    pub(super) waiting: BTreeSet<Order>,
    /// Those of them whose input is not whole.
    pub(super) lacking: BTreeSet<Order>,
    /// Those of them that it can be told.
    pub(super) fit: BTreeSet<Order>,
    /// When to ask for the inputs of those whose turn comes next.
    pub(super) asks: BTreeMap<TaskId, Ask>,
}

/// A rank of an instance.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) instance: InstanceId,
    pub(super) rank: usize,
    pub(super) made: Arc<Instance>,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Process {
    /// There is none.
    Absent,
    /// It was started, and has not answered.
    Started,
    /// It answered, and waits until it may connect.
    Greeted,
    /// It will be told to connect when all ranks have come so far.
    Gathering,
    Connecting,
    Connected,
    Loading,
    Loaded,
    WarmingUp,
    Ready,
    /// It was told to end, or is being killed.
    Ending,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) at: Moment,
    pub(super) tries: u32,
}

impl Default for Seat {
    fn default() -> Seat {
        Seat {
            place: None,
            process: Process::Absent,
            life: 0,
            given_up: false,
            slots: 1,
            seen: vec![],
            heard: Moment::default(),
            step_by: None,
            ready: None,
            busy_at: Moment::default(),
            status: RunnerStatus::Idle,
            said: None,
            say_again: None,
            progress: Moment::default(),
            rests: None,
            told: BTreeSet::new(),
            cancelled: VecDeque::new(),
            waiting: BTreeSet::new(),
            lacking: BTreeSet::new(),
            fit: BTreeSet::new(),
            asks: BTreeMap::new(),
        }
    }
}

impl Seat {
    /// The state puts a rank here. A process of an earlier one may still be ending.
    pub(super) fn take(&mut self, place: Place) {
        self.leave();
        self.place = Some(place);
    }

    /// The state has nothing here any more.
    pub(super) fn leave(&mut self) {
        let (process, life) = (self.process, self.life);
        *self = Seat { process, life, ..Seat::default() };
    }

    /// Whether a process is there that was not told to end.
    pub(super) fn lives(&self) -> bool {
        !matches!(self.process, Process::Absent | Process::Ending)
    }

    pub(super) fn level(&self) -> Level {
        match self.process {
            Process::Absent | Process::Started | Process::Greeted | Process::Ending => Level::Down,
            Process::Gathering | Process::Connecting => Level::Connecting,
            Process::Connected => Level::Connected,
            Process::Loading => Level::Loading,
            Process::Loaded => Level::Loaded,
            Process::WarmingUp => Level::WarmingUp,
            Process::Ready => Level::Ready,
        }
    }

    /// What it does now, if it has something to do and should not be silent for long.
    pub(super) fn work(&self) -> Option<&'static str> {
        match self.process {
            Process::Loading => Some("loading its model"),
            Process::WarmingUp => Some("warming up"),
            Process::Ready if !self.told.is_empty() => Some("at work on a task"),
            Process::Absent
            | Process::Started
            | Process::Greeted
            | Process::Gathering
            | Process::Connecting
            | Process::Connected
            | Process::Loaded
            | Process::Ready
            | Process::Ending => None,
        }
    }

    pub(super) fn tell(&self, runner: RunnerId, message: ToRunner, out: &mut Vec<WorkerOutput>) {
        out.push(WorkerOutput::Tell { runner, life: self.life, message });
    }

    /// Has it stop working on a task.
    pub(super) fn cancel(&mut self, runner: RunnerId, task: TaskId, until: Moment, out: &mut Vec<WorkerOutput>) {
        self.tell(runner, ToRunner::Cancel { task }, out);
        if self.cancelled.len() >= CANCELLED {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back((until, task));
    }

    /// Whether it was told to stop working on a task, and had its time to.
    pub(super) fn ignores(&self, now: Moment, task: TaskId) -> bool {
        self.cancelled.iter().any(|(until, cancelled)| *cancelled == task && *until <= now)
    }

    /// Has its process end in good order.
    pub(super) fn end(&mut self, runner: RunnerId, grace: Span, out: &mut Vec<WorkerOutput>) {
        if self.lives() {
            self.told.iter().for_each(|task| self.tell(runner, ToRunner::Cancel { task: *task }, out));
            self.tell(runner, ToRunner::ShutDown, out);
            self.kill(runner, grace, out);
        }
    }

    /// Has its process end.
    pub(super) fn kill(&mut self, runner: RunnerId, grace: Span, out: &mut Vec<WorkerOutput>) {
        if self.lives() {
            out.push(WorkerOutput::End { runner, life: self.life, grace });
            self.process = Process::Ending;
        }
        (self.step_by, self.ready, self.rests) = (None, None, None);
        self.cancelled.clear();
    }

    /// The task waits no more, for whatever reason.
    pub(super) fn unqueue(&mut self, order: &Order) {
        self.waiting.remove(order);
        self.lacking.remove(order);
        self.fit.remove(order);
        self.asks.remove(&order.1);
    }
}
