//! Following the log: entries as server-sent events, from where the client stands.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use lockstep_replication::Index;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::errors::ApiError;
use super::events::{end, gone, read};
use super::shared::Shared;
use crate::handle::Published;

/// How many entries are read at a time.
const READ_AT_ONCE: u64 = 1000;

/// How many events may wait for the client to read them. When they do, the follower waits too: nothing piles up.
const EVENTS: usize = 64;

/// Starts to send entries from `since` on, or those to come; ends after `limit` of them, if there is one.
///
/// An entry's event has its index as id and its JSON as data. Two events have names: `rewound` says that this node's
/// branch of the log lost, and that entries from `next` on are replaced by those that follow; `gone` says that the
/// log does not reach back to the next entry any more, and ends the stream.
pub(super) fn follow(
    shared: Shared,
    seen: Arc<Published>,
    since: Option<Index>,
    limit: Option<u64>,
) -> Result<Response, ApiError> {
    let Ok(place) = shared.followers.clone().try_acquire_owned() else {
        let message = "As many clients follow this node's log as may: ask another node, or ask later.";
        return Err(ApiError::unavailable("too_many_followers", message));
    };
    let from = since.unwrap_or(seen.replica.next());
    let first = shared.log.first();
    if from < first {
        return Err(gone(from, first));
    }
    let (events, stream) = mpsc::channel(EVENTS);
    let tasks = shared.tasks.clone();
    let follower = Follower { shared, seen, from, left: limit.unwrap_or(u64::MAX), events, _place: place };
    tasks.spawn(follower.run());
    Ok(Sse::new(ReceiverStream::new(stream)).keep_alive(KeepAlive::default()).into_response())
}

/// One client that follows.
struct Follower {
    shared: Shared,
    /// The state up to which the branch is known to be the one that the client saw.
    seen: Arc<Published>,
    /// The next entry to send.
    from: Index,
    /// So many are still to be sent.
    left: u64,
    events: mpsc::Sender<Result<Event, Infallible>>,
    _place: OwnedSemaphorePermit,
}

/// The client has hung up, or has all it can get.
struct Ended;

impl Follower {
    async fn run(mut self) {
        let mut changes = self.shared.node.changes();
        let shutdown = self.shared.shutdown.clone();
        while self.left > 0 {
            let now = changes.borrow_and_update().clone();
            let Ok(progress) = self.catch_up(now).await else { return };
            if progress {
                continue;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.events.closed() => return,
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Sends what is there, a bounded part of it. Says whether there was any.
    async fn catch_up(&mut self, now: Arc<Published>) -> Result<bool, Ended> {
        self.rewind(&now).await?;
        let first = self.shared.log.first();
        if self.from < first {
            self.send(Event::default().event("gone").data(json!({ "first": first }).to_string())).await?;
            return Err(Ended);
        }
        let until = end(&self.shared, now.replica.next()).min(self.from.plus(self.left.min(READ_AT_ONCE)));
        let entries = match read(self.shared.log.clone(), self.from, until).await {
            Ok(entries) => entries,
            Err(error) => {
                let event = Event::default().event("failed").data(json!({ "message": error.message() }).to_string());
                self.send(event).await?;
                return Err(Ended);
            }
        };
        let any = !entries.is_empty();
        for entry in entries {
            let data = serde_json::to_string(&entry).map_err(|_| Ended)?;
            self.send(Event::default().id(entry.index.to_string()).data(data)).await?;
            self.from = entry.index.next();
            self.left -= 1;
        }
        Ok(any)
    }

    /// Goes back to the fork if the branch that the client saw has lost.
    async fn rewind(&mut self, now: &Arc<Published>) -> Result<(), Ended> {
        let same_until = self.seen.replica.lineage().common(now.replica.lineage());
        let sent_until = self.from.min(self.seen.replica.next());
        if same_until < sent_until {
            self.from = same_until;
            let event = Event::default().event("rewound").data(json!({ "next": same_until }).to_string());
            self.send(event).await?;
        }
        self.seen = now.clone();
        Ok(())
    }

    async fn send(&self, event: Event) -> Result<(), Ended> {
        self.events.send(Ok(event)).await.map_err(|_| Ended)
    }
}
