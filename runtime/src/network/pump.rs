//! Moves frames between the streams of a connection and the queues: one task a lane and direction.

use std::sync::Arc;

use futures::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use libp2p::swarm::ConnectionId;
use lockstep_replication::NodeId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Lane;
use super::addresses::{self, Introductions};
use super::counters::{Cause, Counters};
use super::events::Inbox;
use super::frame::{self, FrameReader, Kind};
use super::queue::LaneQueue;

/// Frames are taken from a queue, and written and flushed together, until they come to so many bytes.
const BATCH_BYTES: usize = 128 << 10;

/// What a pump tells the network's task.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) node: NodeId,
    pub(super) connection: ConnectionId,
    pub(super) news: News,
}

/// What happened on a lane.
#[derive(Debug)]
pub(super) enum News {
    /// The peer told addresses.
    Addresses(Introductions),
    /// The connection is of no use any more.
    Broken {
        cause: Cause,
        /// For the log: the end of a sentence that begins with the node.
        reason: String,
    },
}

/// One lane of one connection, and what its pumps need.
#[derive(Clone, Debug)]
pub(super) struct LaneEnd {
    pub(super) node: NodeId,
    pub(super) connection: ConnectionId,
    pub(super) lane: Lane,
    pub(super) counters: Counters,
    pub(super) notices: mpsc::Sender<Notice>,
}

impl LaneEnd {
    /// Reads the lane until it ends. While the node does not keep up with this lane, it is not read, and the peer has
    /// to wait.
    pub(super) async fn read(self, source: impl AsyncRead + Unpin, inbox: Inbox) {
        let mut frames = FrameReader::new(source);
        loop {
            match frames.next().await {
                Ok(Some(frame)) => match frame.kind {
                    Kind::Message => {
                        self.counters.received(self.lane, frame.payload.len());
                        if inbox.deliver(self.lane, self.node, frame.payload).await.is_err() {
                            return;
                        }
                    }
                    Kind::Addresses => match addresses::decode(&frame.payload) {
                        Some(introductions) => self.tell(News::Addresses(introductions)).await,
                        None => {
                            let reason = "it sent addresses that cannot be read".to_string();
                            return self.tell(News::Broken { cause: Cause::Garbage, reason }).await;
                        }
                    },
                },
                Ok(None) => return,
                Err(bad) => {
                    let (cause, reason) = (Cause::from(&bad), bad.to_string());
                    return self.tell(News::Broken { cause, reason }).await;
                }
            }
        }
    }

    /// Writes what the queue holds, until the queue is finished or it is told to stop; then closes this direction. What
    /// still waits at a stop is left in the queue, for another connection.
    pub(super) async fn write(self, mut sink: impl AsyncWrite + Unpin, queue: Arc<LaneQueue>, stop: CancellationToken) {
        let mut scratch = Vec::new();
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                batch = queue.batch(BATCH_BYTES) => batch,
            };
            if batch.is_empty() {
                break;
            }
            let sizes: Vec<(Kind, usize)> = batch.iter().map(|frame| (frame.kind, frame.payload.len())).collect();
            if let Err(error) = frame::write(&mut sink, &mut scratch, batch).await {
                self.counters.drop_many(Cause::ConnectionEnded, sizes.len());
                let reason = format!("its stream broke: {error}");
                return self.tell(News::Broken { cause: Cause::StreamBroke, reason }).await;
            }
            for (kind, bytes) in sizes {
                match kind {
                    Kind::Message => self.counters.sent(self.lane, bytes),
                    Kind::Addresses => {}
                }
            }
        }
        // The connection may be gone by now; then there is nothing to close.
        let _ = sink.close().await;
    }

    async fn tell(&self, news: News) {
        // If the task is gone, so is the connection.
        let _ = self.notices.send(Notice { node: self.node, connection: self.connection, news }).await;
    }
}
