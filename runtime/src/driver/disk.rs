//! The node's disk and its slow work, away from the task that owns the node: one thread writes, in order and in groups;
//! reading, encoding and decoding go to a pool.

use std::sync::mpsc;

use lockstep_inference::Inference;
use lockstep_replication::WorkId;
use lockstep_replication::io::{Work, WorkFailed, Worked};
use tokio::sync::mpsc::UnboundedSender;

use crate::store::{LogReader, Store};

/// What comes back of work.
pub(super) type Finished = (WorkId, Result<Worked<Inference>, WorkFailed>);

/// Where work goes. The queues have no limit of their own: the node has one append under way at a time, and bounds on all
/// else that it asks for.
#[derive(Debug)]
pub(super) struct Disk {
    writes: Option<mpsc::Sender<(WorkId, Work<Inference>)>>,
    writer: Option<std::thread::JoinHandle<()>>,
    reader: LogReader,
    finished: UnboundedSender<Finished>,
}

impl Disk {
    /// Takes the store over.
    pub(super) fn start(store: Store, finished: UnboundedSender<Finished>) -> std::io::Result<Disk> {
        let (writes, queue) = mpsc::channel();
        let reader = store.reader();
        let back = finished.clone();
        let writer = std::thread::Builder::new().name("disk".into()).spawn(move || write(store, &queue, &back))?;
        Ok(Disk { writes: Some(writes), writer: Some(writer), reader, finished })
    }

    /// Does this work, and sends what came of it.
    pub(super) fn perform(&self, id: WorkId, work: Work<Inference>) {
        match work {
            Work::Read { .. } | Work::Encode { .. } | Work::Decode { .. } => {
                let (reader, finished) = (self.reader.clone(), self.finished.clone());
                tokio::task::spawn_blocking(move || {
                    // The node's task may have ended: then nobody waits for it.
                    let _ = finished.send((id, reader.perform(work)));
                });
            }
            Work::Keep(_)
            | Work::Append { .. }
            | Work::Rewind { .. }
            | Work::Install(_)
            | Work::Save(_)
            | Work::Trim { .. } => {
                let gone = self.writes.as_ref().is_none_or(|writes| writes.send((id, work)).is_err());
                if gone {
                    let _ = self.finished.send((id, Err(WorkFailed("the disk's thread has ended".into()))));
                }
            }
        }
    }

    /// Waits until all that was asked for is written, and closes the store.
    pub(super) async fn close(mut self) {
        self.writes = None;
        if let Some(writer) = self.writer.take() {
            // A panic there was reported by its own hook already.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

/// Group commit: all that waits is done in one transaction.
fn write(mut store: Store, queue: &mpsc::Receiver<(WorkId, Work<Inference>)>, finished: &UnboundedSender<Finished>) {
    while let Ok(first) = queue.recv() {
        let batch = std::iter::once(first).chain(queue.try_iter()).collect();
        for done in store.perform(batch) {
            // The node's task may have ended: what was asked for is done all the same.
            let _ = finished.send(done);
        }
    }
}
