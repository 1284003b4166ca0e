//! What all routes share.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ReadLog;
use super::Surroundings;
use super::guard::Guard;
use super::names::Names;
use super::recent::Recent;
use crate::handle::NodeHandle;
use crate::work::WorkHandle;

/// A handle that every request gets.
pub(crate) type Shared = Arc<Context>;

/// The parts that routes use.
pub(crate) struct Context {
    /// The node.
    pub(crate) node: NodeHandle,
    /// Its log.
    pub(crate) log: Arc<dyn ReadLog>,
    /// The rest of the process.
    pub(crate) surroundings: Arc<dyn Surroundings>,
    /// Who may ask.
    pub(crate) guard: Guard,
    /// Names for commands that come without.
    pub(crate) names: Names,
    /// What became of the newest commands that came to this node.
    pub(crate) recent: Recent,
    /// What `/metrics` shows of this node.
    pub(crate) registry: Registry,
    /// Places for clients that follow the log.
    pub(crate) followers: Arc<Semaphore>,
    /// Places for clients that send commands in a stream.
    pub(crate) streams: Arc<Semaphore>,
    /// The models that answer.
    pub(crate) models: WorkHandle,
    /// Places for answers of models.
    pub(crate) answers: Arc<Semaphore>,
    /// Room for requests to models while they are read, in KiB.
    pub(crate) questions: Arc<Semaphore>,
    /// Places for backups that run.
    pub(crate) backups: Arc<Semaphore>,
    /// Set when the process ends.
    pub(crate) shutdown: CancellationToken,
    /// Tasks that outlive their request, to be waited for at the end.
    pub(crate) tasks: TaskTracker,
}
