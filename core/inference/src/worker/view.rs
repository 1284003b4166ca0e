//! What a worker shows of itself: facts for checks, metrics and people.

use lockstep_replication::Index;
use serde::Serialize;

use crate::id::{InstanceId, ModelId, RunnerId};
use crate::state::RunnerStatus;

/// Facts of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorkerView {
    /// One past the last entry that it followed.
    pub next: Index,
    /// Its runners, those included that are still ending.
    pub runners: Vec<RunnerView>,
    /// The tasks of its instances that the state shows.
    pub tasks: usize,
    /// Bytes of inputs that are kept.
    pub input_bytes: usize,
    /// Bytes of answers that are kept to be sent again.
    pub answer_bytes: usize,
    /// Commands that the state does not show yet.
    pub wishes: usize,
    /// The instances that failed here.
    pub failed_instances: Vec<InstanceId>,
    /// The models that failed here.
    pub failed_models: Vec<ModelId>,
    /// What happened so far.
    pub counts: Counts,
}

/// Facts of one runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunnerView {
    /// The runner.
    pub runner: RunnerId,
    /// Whose part it is, if the state still has it.
    pub instance: Option<InstanceId>,
    /// Its newest start, if there is a process.
    pub life: Option<u64>,
    /// How far it is.
    pub status: RunnerStatus,
    /// How often it failed.
    pub failures: u32,
    /// Whether it will not be started again.
    pub given_up: bool,
    /// Tasks that wait for it.
    pub waiting: usize,
    /// Tasks that it has.
    pub working: usize,
}

/// What a worker did, dropped or refused since its node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Processes that were started.
    pub starts: u64,
    /// Processes that ended by themselves, or had to be ended.
    pub failures: u64,
    /// Processes that were ended because another rank fell back.
    pub rounds_void: u64,
    /// Messages of runners on tasks that they do not have any more, or that only rank 0 may send.
    pub stray_messages: u64,
    /// Signals that came from the wrong node, or that no worker takes.
    pub signals_refused: u64,
    /// Parts of inputs that were dropped, at a limit or as they do not fit.
    pub inputs_dropped: u64,
    /// Inputs that waited in vain for their task.
    pub inputs_expired: u64,
    /// Inputs whose hash was another than their task names.
    pub inputs_wrong: u64,
    /// Requests for lacking parts of inputs.
    pub inputs_asked: u64,
    /// Pieces of answers that were sent again.
    pub pieces_again: u64,
    /// Pieces of answers that were asked for and no longer kept.
    pub pieces_gone: u64,
    /// Tasks that failed because too many waited.
    pub tasks_refused: u64,
    /// Tasks that were called off because their gateway is lost.
    pub tasks_orphaned: u64,
}
