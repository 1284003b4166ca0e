//! Clients of models: how the API asks for answers, and gets them part by part.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lockstep_inference::gateway::{GatewayView, StreamId, StreamPart};
use lockstep_inference::id::{ModelId, TaskId};
use lockstep_inference::state::TaskKind;
use lockstep_inference::traces::Traces;
use lockstep_inference::worker::WorkerView;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

/// After so many parts taken in a row the gateway is told: far below what it lets wait.
const TOLD_AFTER: u64 = 16;

/// What the work task is asked. The queue of these needs no limit of its own: there are a few for each stream, of which
/// the API admits a limited number, and one for each few parts that were delivered.
#[derive(Debug)]
pub enum Ask {
    /// Have a task done, and send its answer.
    Open {
        /// Names the stream.
        stream: StreamId,
        /// The model.
        model: ModelId,
        /// What kind of task.
        kind: TaskKind,
        /// What it is about.
        input: Bytes,
        /// The task's name.
        task: TaskId,
        /// Where the answer goes. The gateway limits what waits there.
        parts: UnboundedSender<StreamPart>,
        /// The place that the input takes in memory until the gateway counts it as its own.
        room: OwnedSemaphorePermit,
    },
    /// A client took so many parts more.
    Taken {
        /// Its stream.
        stream: StreamId,
        /// How many.
        chunks: u64,
    },
    /// A client went away before the end.
    Closed {
        /// Its stream.
        stream: StreamId,
    },
    /// What the ranks of the newest tasks did, and when.
    Traces {
        /// Where the answer goes.
        reply: oneshot::Sender<Traces>,
    },
}

/// A handle to the work task. Cloned freely.
#[derive(Clone, Debug)]
pub struct WorkHandle {
    asks: UnboundedSender<Ask>,
    streams: Arc<AtomicU64>,
    views: watch::Receiver<Option<Views>>,
}

/// The work task's end of it.
#[derive(Debug)]
pub struct Desk {
    /// What it is asked.
    pub asks: UnboundedReceiver<Ask>,
    /// Where it shows what it does.
    pub views: watch::Sender<Option<Views>>,
}

/// Facts of this node's work, not older than a second or so.
#[derive(Clone, Debug)]
pub struct Views {
    /// Of its runners.
    pub worker: WorkerView,
    /// Of its clients.
    pub gateway: GatewayView,
}

/// The answer to come. Dropped before its end, it calls the task off.
#[derive(Debug)]
pub struct Answer {
    stream: StreamId,
    asks: UnboundedSender<Ask>,
    parts: UnboundedReceiver<StreamPart>,
    /// So many parts were taken that the gateway does not know of.
    untold: u64,
    ended: bool,
}

impl WorkHandle {
    /// A handle, and the work task's end of it.
    pub fn new() -> (WorkHandle, Desk) {
        let (asks, inbox) = unbounded_channel();
        let (sender, views) = watch::channel(None);
        (WorkHandle { asks, streams: Arc::default(), views }, Desk { asks: inbox, views: sender })
    }

    /// Facts of this node's work; none before it began.
    pub fn views(&self) -> Option<Views> {
        self.views.borrow().clone()
    }

    /// Has a task done. Its input gives its room back when the work task has taken it.
    pub fn open(
        &self,
        model: ModelId,
        kind: TaskKind,
        input: Bytes,
        task: TaskId,
        room: OwnedSemaphorePermit,
    ) -> Answer {
        let stream = StreamId(self.streams.fetch_add(1, Ordering::Relaxed));
        let (sender, parts) = unbounded_channel();
        // If the work task has ended, so has the answer: its sender is gone.
        let _ = self.asks.send(Ask::Open { stream, model, kind, input, task, parts: sender, room });
        Answer { stream, asks: self.asks.clone(), parts, untold: 0, ended: false }
    }

    /// What the ranks of the newest tasks that came by this node did, and when; nothing once it stops.
    pub async fn traces(&self) -> Traces {
        let (reply, traces) = oneshot::channel();
        let _ = self.asks.send(Ask::Traces { reply });
        traces.await.unwrap_or_default()
    }
}

impl Answer {
    /// The next part, once it is there; to be asked for only when the one before was used. None if this node stops
    /// before the end.
    pub async fn next(&mut self) -> Option<StreamPart> {
        let part = match self.parts.try_recv() {
            Ok(part) => Some(part),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                self.tell();
                self.parts.recv().await
            }
        };
        match &part {
            Some(StreamPart::Text(_)) => {
                self.untold += 1;
                if self.untold >= TOLD_AFTER {
                    self.tell();
                }
            }
            Some(StreamPart::End { .. } | StreamPart::Failed(_)) | None => self.ended = true,
        }
        part
    }

    fn tell(&mut self) {
        let chunks = std::mem::take(&mut self.untold);
        if chunks > 0 {
            let _ = self.asks.send(Ask::Taken { stream: self.stream, chunks });
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.asks.send(Ask::Closed { stream: self.stream });
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_inference::transient::{StopReason, Usage};
    use tokio::sync::Semaphore;

    use super::*;

    async fn opened() -> (Answer, UnboundedSender<StreamPart>, UnboundedReceiver<Ask>) {
        let (handle, Desk { mut asks, .. }) = WorkHandle::new();
        let room = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let kind = TaskKind::Chat { max_tokens: 1 };
        let answer = handle.open(ModelId::new("m"), kind, Bytes::new(), TaskId([1; 16]), room);
        match asks.recv().await {
            Some(Ask::Open { parts, .. }) => (answer, parts, asks),
            other => panic!("{other:?}"),
        }
    }

    fn text() -> StreamPart {
        StreamPart::Text("x".into())
    }

    fn taken(asks: &mut UnboundedReceiver<Ask>) -> Vec<u64> {
        let taken = |ask| match ask {
            Ask::Taken { chunks, .. } => chunks,
            other @ (Ask::Open { .. } | Ask::Closed { .. } | Ask::Traces { .. }) => panic!("{other:?}"),
        };
        std::iter::from_fn(|| asks.try_recv().ok().map(taken)).collect()
    }

    #[tokio::test]
    async fn what_was_taken_is_told_when_nothing_waits_or_after_many() {
        let (mut answer, parts, mut asks) = opened().await;
        for _ in 0..TOLD_AFTER + 3 {
            parts.send(text()).unwrap();
        }
        for _ in 0..TOLD_AFTER + 3 {
            assert_eq!(answer.next().await, Some(text()));
        }
        assert_eq!(taken(&mut asks), [TOLD_AFTER]);
        let waits = tokio::time::timeout(std::time::Duration::from_millis(10), answer.next()).await;
        assert!(waits.is_err());
        assert_eq!(taken(&mut asks), [3]);
    }

    #[tokio::test]
    async fn a_client_that_leaves_before_the_end_is_told_of_and_one_that_saw_it_is_not() {
        let (mut answer, parts, mut asks) = opened().await;
        parts.send(StreamPart::End { stop: StopReason::Stop, usage: Usage::default() }).unwrap();
        assert!(matches!(answer.next().await, Some(StreamPart::End { .. })));
        drop(answer);
        assert!(asks.try_recv().is_err());
        let (answer, _parts, mut asks) = opened().await;
        drop(answer);
        assert!(matches!(asks.try_recv(), Ok(Ask::Closed { .. })));
    }
}
