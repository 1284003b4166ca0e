//! Runners as child processes: started, told, listened to and ended so that nothing of them remains. It decides nothing;
//! which runner should be there, and what it is told, is the worker's to say.
//!
//! What the two say to each other is in `runtime/RUNNERS.md`.

pub mod builtin;
mod group;
mod keeper;
mod last_words;
pub mod lines;
pub mod minder;
mod programs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lockstep_inference::id::RunnerId;
use lockstep_inference::runner::ToRunner;
use lockstep_inference::state::ModelCard;
use lockstep_inference::worker::RunnerSaid;
use lockstep_replication::Span;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use keeper::{Handle, Keeper};
pub use programs::{BUILT_IN, Programs};

/// What a runner said or did, and under which start of it.
pub type Event = (RunnerId, u64, RunnerSaid);

/// The processes of this node's runners. Dropped, it kills them all.
#[derive(Debug)]
pub struct Runners {
    programs: Programs,
    directory: PathBuf,
    events: mpsc::Sender<Event>,
    live: BTreeMap<(RunnerId, u64), Handle>,
    keepers: TaskTracker,
    /// Nobody listens to events any more.
    closing: CancellationToken,
    _closed_when_dropped: DropGuard,
}

impl Runners {
    /// No processes yet. Those to come run `programs`, may keep files below `node_data`, and are heard by `events`.
    ///
    /// A runner that says more than the channel holds waits, so that no answer fills this node's memory. The one who
    /// reads it must not wait for anything else.
    pub fn new(programs: Programs, node_data: PathBuf, events: mpsc::Sender<Event>) -> Runners {
        let closing = CancellationToken::new();
        Runners {
            programs,
            directory: node_data.join("runners"),
            events,
            live: BTreeMap::new(),
            keepers: TaskTracker::new(),
            _closed_when_dropped: closing.clone().drop_guard(),
            closing,
        }
    }

    /// Starts a process. Exactly one [`RunnerSaid::Ended`] will come of it, as its last event, also if it cannot start.
    /// To be called within a tokio runtime.
    pub fn start(&mut self, runner: RunnerId, life: u64, card: &ModelCard) {
        self.live.retain(|_, handle| !handle.is_gone());
        let command = self.programs.command(&card.runner, &self.directory);
        let (keeper, handle) = Keeper::new(runner, life, self.events.clone(), self.closing.clone());
        self.keepers.spawn(keeper.run(command));
        self.live.insert((runner, life), handle);
    }

    /// Queues a line for a process; one that is gone hears nothing. Never waits: a process that lets too many lines lie
    /// hangs, and is killed.
    pub fn tell(&mut self, runner: RunnerId, life: u64, message: &ToRunner) {
        if let Some(handle) = self.live.get_mut(&(runner, life)) {
            handle.tell(message);
        }
    }

    /// Lets a process end: its standard input closes behind the lines that are queued, and what is there of its group
    /// when it has ended, or after the grace, is killed.
    pub fn end(&mut self, runner: RunnerId, life: u64, grace: Span) {
        if let Some(handle) = self.live.get_mut(&(runner, life)) {
            handle.end(Duration::from_nanos(grace.0));
        }
    }

    /// Waits until all processes are gone: those that were told to end have their grace, others are killed. Their events
    /// may be lost.
    pub async fn close(mut self) {
        self.closing.cancel();
        self.live.clear();
        self.keepers.close();
        self.keepers.wait().await;
    }
}

#[cfg(test)]
mod tests;
