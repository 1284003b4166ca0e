//! What waits to be sent to one peer on one lane. Bounded by count and bytes; when full, the newest is refused.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::frame::Frame;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimit {
    /// Frames.
    pub frames: usize,
    /// Bytes of their payloads.
    pub bytes: usize,
}

/// A queue between whoever sends and the one task that writes the lane.
#[derive(Debug)]
pub(super) struct LaneQueue {
    limit: QueueLimit,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
    finished: bool,
}

/// The queue is full, or ends: the frame was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl LaneQueue {
    pub(super) fn new(limit: QueueLimit) -> Self {
        LaneQueue { limit, waiting: Mutex::default(), filled: Notify::new() }
    }

    /// Appends a frame.
    pub(super) fn push(&self, frame: Frame) -> Result<(), Full> {
        self.push_within(self.limit, frame).map_err(|_| Full)
    }

    /// Appends a frame if the queue stays within a limit that is below its own; else gives it back.
    pub(super) fn push_within(&self, limit: QueueLimit, frame: Frame) -> Result<(), Frame> {
        let mut waiting = self.lock();
        if waiting.finished || waiting.frames.len() >= limit.frames || waiting.bytes + frame.payload.len() > limit.bytes
        {
            return Err(frame);
        }
        waiting.bytes += frame.payload.len();
        waiting.frames.push_back(frame);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until something is there, then takes frames from the front: at least one, and more until they come to
    /// `bytes`. Empty once the queue is finished and all was taken. Nothing is taken if the wait is cancelled.
    pub(super) async fn batch(&self, bytes: usize) -> Vec<Frame> {
        loop {
            let batch = self.take(bytes);
            if !batch.is_empty() || self.lock().finished {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// As [`Self::batch`], but empty instead of waiting.
    pub(super) fn take(&self, bytes: usize) -> Vec<Frame> {
        let mut waiting = self.lock();
        let mut batch = Vec::new();
        let mut taken = 0;
        while taken < bytes
            && let Some(frame) = waiting.frames.pop_front()
        {
            taken += frame.payload.len() + 1;
            waiting.bytes -= frame.payload.len();
            batch.push(frame);
        }
        batch
    }

    /// Takes no more; what waits can still be taken.
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The two numbers are changed together and nothing in between can panic, so a poisoned lock is still right.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::frame::Kind;

    fn frame(length: usize) -> Frame {
        Frame { kind: Kind::Message, payload: vec![0; length].into() }
    }

    #[test]
    fn a_queue_refuses_what_exceeds_its_frames_or_its_bytes_and_takes_again_once_emptied() {
        let queue = LaneQueue::new(QueueLimit { frames: 2, bytes: 10 });
        assert_eq!(queue.push(frame(4)), Ok(()));
        assert_eq!(queue.push(frame(7)), Err(Full), "11 bytes are too many");
        assert_eq!(queue.push(frame(6)), Ok(()));
        assert_eq!(queue.push(frame(0)), Err(Full), "three frames are too many");
        assert_eq!(queue.take(usize::MAX).len(), 2);
        assert_eq!(queue.push(frame(10)), Ok(()));
    }

    #[test]
    fn a_lower_limit_leaves_room_for_others() {
        let queue = LaneQueue::new(QueueLimit { frames: 9, bytes: 1000 });
        let low = QueueLimit { frames: 2, bytes: 10 };
        assert!(queue.push_within(low, frame(4)).is_ok());
        assert_eq!(queue.push_within(low, frame(7)).map_err(|back| back.payload.len()), Err(7));
        assert_eq!(queue.push(frame(7)), Ok(()));
    }

    #[test]
    fn a_batch_is_cut_at_its_bytes_but_holds_at_least_one_frame() {
        let queue = LaneQueue::new(QueueLimit { frames: 9, bytes: 1000 });
        for length in [500, 10, 10, 10] {
            queue.push(frame(length)).expect("there is room");
        }
        let lengths = |batch: Vec<Frame>| batch.iter().map(|frame| frame.payload.len()).collect::<Vec<_>>();
        assert_eq!(lengths(queue.take(20)), [500]);
        assert_eq!(lengths(queue.take(20)), [10, 10]);
        assert_eq!(lengths(queue.take(20)), [10]);
        assert_eq!(lengths(queue.take(20)), [0; 0]);
    }

    #[tokio::test]
    async fn a_finished_queue_hands_out_what_waits_and_then_nothing() {
        let queue = LaneQueue::new(QueueLimit { frames: 9, bytes: 1000 });
        queue.push(frame(3)).expect("there is room");
        queue.finish();
        assert_eq!(queue.push(frame(1)), Err(Full));
        assert_eq!(queue.batch(100).await.len(), 1);
        assert_eq!(queue.batch(100).await.len(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_a_batch_is_woken_by_the_first_frame() {
        let queue = LaneQueue::new(QueueLimit { frames: 9, bytes: 1000 });
        let (batch, pushed) = tokio::join!(queue.batch(100), async { queue.push(frame(3)) });
        assert_eq!((batch.len(), pushed), (1, Ok(())));
    }
}
