//! An answer part by part, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use lockstep_inference::gateway::StreamPart;
use serde_json::{Value, json};

use super::chat::Placed;
use super::failure;
use super::forms::Head;
use crate::api::errors::ApiError;

/// What ends a stream that did not fail.
const DONE: &str = "[DONE]";

/// An answer under way to its client.
struct Sending {
    head: Head,
    placed: Placed,
    include_usage: bool,
    /// Events to send before the next part is asked for.
    pending: VecDeque<String>,
    ended: bool,
}

/// The response that sends an answer whose first part, perhaps, has come.
pub(super) fn respond(head: Head, placed: Placed, first: Option<StreamPart>, include_usage: bool) -> Response {
    let mut sending = Sending { head, placed, include_usage, pending: VecDeque::new(), ended: false };
    sending.push(sending.head.chunk(json!({ "role": "assistant", "content": "" }), None));
    if let Some(first) = first {
        sending.part(Some(first));
    }
    let events = futures::stream::unfold(sending, async |mut sending| {
        let data = sending.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(data)), sending))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

impl Sending {
    /// The data of the next event.
    async fn next(&mut self) -> Option<String> {
        while self.pending.is_empty() && !self.ended {
            let part = self.placed.answer.next().await;
            self.part(part);
        }
        self.pending.pop_front()
    }

    fn part(&mut self, part: Option<StreamPart>) {
        match part {
            Some(StreamPart::Text(text)) => self.push(self.head.chunk(json!({ "content": text }), None)),
            Some(StreamPart::End { stop, usage }) => {
                self.push(self.head.chunk(json!({}), Some(stop)));
                if self.include_usage {
                    let chunk = self.head.usage_chunk(usage);
                    self.pending.push_back(chunk.to_string());
                }
                self.pending.push_back(DONE.to_owned());
                self.ended = true;
            }
            Some(StreamPart::Failed(failure)) => self.fail(&failure::error(&failure)),
            None => self.fail(&ApiError::stopping()),
        }
    }

    /// Who wants to know the usage finds the field in each chunk, and is told in the last one.
    fn push(&mut self, mut chunk: Value) {
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        self.pending.push_back(chunk.to_string());
    }

    fn fail(&mut self, error: &ApiError) {
        self.pending.push_back(error.document().to_string());
        self.ended = true;
    }
}
