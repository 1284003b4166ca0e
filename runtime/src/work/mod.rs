//! The work of this node: its runners, made what the state says, and its clients, given what runners answer. One task
//! owns the worker, the gateway and the processes, feeds them what happens, and performs what they ask for.

mod cards;
mod clients;
mod task;

use std::path::Path;

use lockstep_inference::gateway::{Gateway, GatewayConfig};
use lockstep_inference::transient::Transient;
use lockstep_inference::worker::{Worker, WorkerConfig};
use lockstep_replication::{NodeId, Seed};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::driver::Clock;
use crate::handle::NodeHandle;
use crate::runners::{Programs, Runners};

pub use clients::{Answer, Ask, Desk, Views, WorkHandle};

/// Signals of other nodes that may wait for the work task. More are dropped: whoever misses one asks for it.
const SIGNALS: usize = 8192;

/// What runners said that may wait for the work task. More wait with their runners.
const RUNNER_EVENTS: usize = 1024;

/// Where the node's task puts signals of requests.
#[derive(Clone, Debug)]
pub struct Signals {
    waiting: mpsc::Sender<(NodeId, Transient)>,
    dropped: Counter,
}

impl Signals {
    /// A queue of signals, and the end to read it from. The registry shows how many did not fit.
    pub fn new(registry: &mut Registry) -> (Signals, mpsc::Receiver<(NodeId, Transient)>) {
        let (waiting, inbox) = mpsc::channel(SIGNALS);
        let dropped = Counter::default();
        let meaning = "Signals of requests that were dropped because too many waited";
        registry.sub_registry_with_prefix("work").register("signals_dropped", meaning, dropped.clone());
        (Signals { waiting, dropped }, inbox)
    }

    /// Hands a signal over, or drops it.
    pub fn hand_over(&self, from: NodeId, transient: Transient) {
        if self.waiting.try_send((from, transient)).is_err() {
            self.dropped.inc();
        }
    }
}

/// What the work task needs of the rest of the process.
pub(crate) struct Surroundings<'a> {
    /// The node.
    pub(crate) node: NodeHandle,
    /// What other nodes signal.
    pub(crate) signals: mpsc::Receiver<(NodeId, Transient)>,
    /// What clients ask, and where they see what is done.
    pub(crate) desk: Desk,
    /// Which programs runners are.
    pub(crate) programs: Programs,
    /// The node's data directory.
    pub(crate) data: &'a Path,
    /// Time.
    pub(crate) clock: Clock,
    /// Randomness.
    pub(crate) seed: Seed,
}

/// Starts the work task: it ends all runners and itself when `shutdown` says so. The receiver hears when it has handed
/// the node all that it has to say to others.
///
/// # Errors
/// There is no thread for the copies of cards.
pub(crate) fn start(
    around: Surroundings<'_>,
    shutdown: CancellationToken,
) -> std::io::Result<(JoinHandle<()>, oneshot::Receiver<()>)> {
    let Surroundings { node, signals, desk, programs, data, clock, seed } = around;
    let me = node.now().view.me;
    let (events, said) = mpsc::channel(RUNNER_EVENTS);
    let (farewell, said_farewell) = oneshot::channel();
    let task = task::Task {
        me,
        clock,
        worker: Worker::new(me, WorkerConfig::default(), seed.fork("worker")),
        gateway: Gateway::new(me, GatewayConfig::default(), seed.fork("gateway")),
        runners: Runners::new(programs, data.to_owned(), events),
        cards: cards::Cards::start(data)?,
        seen: node.now(),
        node,
        streams: Default::default(),
        creating: Default::default(),
        here: Default::default(),
        views: desk.views,
        stopping: false,
    };
    let inbox = task::Inbox { signals, asks: desk.asks, said };
    Ok((tokio::spawn(task.run(inbox, farewell, shutdown)), said_farewell))
}
