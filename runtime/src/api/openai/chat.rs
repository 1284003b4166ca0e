//! `POST /v1/chat/completions`: one request to a model, answered as a whole or part by part.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use lockstep_inference::gateway::StreamPart;
use lockstep_inference::id::TaskId;
use lockstep_inference::state::TaskKind;
use lockstep_replication::io::NotTaken;
use tokio::sync::OwnedSemaphorePermit;

use super::forms::Head;
use super::request::Chat;
use super::{QUESTION_BYTES_AT_MOST, failure, stream};
use crate::api::body::json_pieces;
use crate::api::errors::{ApiError, sentence};
use crate::api::shared::{Context, Shared};
use crate::work::Answer;

/// A streamed answer that fails within this time is an HTTP error. After it, the client is told to expect a stream, and
/// hears of an error in there.
const FAILS_WITHIN: Duration = Duration::from_secs(2);

/// The longest answer that is given as a whole, in bytes.
const ANSWER_BYTES_AT_MOST: usize = 16 << 20;

/// Longer requests are read on a thread that nobody else waits for.
const READ_ASIDE_FROM: usize = 64 << 10;

/// A model's answer, with its place among those under way.
pub(super) struct Placed {
    pub(super) answer: Answer,
    _place: OwnedSemaphorePermit,
}

/// `POST /v1/chat/completions`.
pub(crate) async fn chat(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let busy = |what: &str| ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", what);
    let long = || busy("Too many long requests come to this node at once: ask another node, or ask later.");
    let take = |kib: usize| shared.questions.clone().try_acquire_many_owned(kib as u32).map_err(|_| long());
    // Room is taken for what has come, and a place when it is known to be good: who sends half a request holds neither.
    let mut room = take(0)?;
    let admit = |bytes: usize| {
        room.merge(take((bytes >> 10) - room.num_permits())?);
        Ok(())
    };
    let input = json_pieces(request, QUESTION_BYTES_AT_MOST, admit).await?;
    let chat = parse(input.clone()).await?;
    let kind = TaskKind::Chat { max_tokens: limit(&shared, &chat)? };
    let Ok(place) = shared.answers.clone().try_acquire_owned() else {
        return Err(busy("As many answers are under way at this node as may: ask another node, or ask later."));
    };
    let task = TaskId(shared.names.draw().0);
    let head = Head::new(task, chat.model.clone());
    let answer = shared.models.open(chat.model, kind, input, task, room);
    let mut placed = Placed { answer, _place: place };
    if !chat.stream {
        return whole(placed, &head).await;
    }
    let first = match tokio::time::timeout(FAILS_WITHIN, placed.answer.next()).await {
        Ok(Some(StreamPart::Failed(failure))) => return Err(failure::error(&failure)),
        Ok(None) => return Err(ApiError::stopping()),
        Ok(first @ Some(StreamPart::Text(_) | StreamPart::End { .. })) => first,
        Err(_) => None,
    };
    Ok(stream::respond(head, placed, first, chat.include_usage))
}

async fn parse(input: Bytes) -> Result<Chat, ApiError> {
    if input.len() < READ_ASIDE_FROM {
        return Chat::parse(&input);
    }
    let read = tokio::task::spawn_blocking(move || Chat::parse(&input)).await;
    read.map_err(|error| ApiError::internal("not_read", sentence(error)))?
}

/// How many tokens the answer may have.
fn limit(context: &Context, chat: &Chat) -> Result<u32, ApiError> {
    let published = context.node.now();
    if !published.view.ready {
        return Err(NotTaken::NotReady.into());
    }
    match published.replica.state().cards.get(&chat.model) {
        Some(card) => Ok(chat.max_tokens.unwrap_or(card.context_tokens)),
        None => {
            Err(failure::no_model(format!("There is no model {}: GET /v1/models lists those there are.", chat.model)))
        }
    }
}

async fn whole(mut placed: Placed, head: &Head) -> Result<Response, ApiError> {
    let mut text = String::new();
    loop {
        match placed.answer.next().await {
            Some(StreamPart::Text(more)) if text.len() + more.len() <= ANSWER_BYTES_AT_MOST => text.push_str(&more),
            Some(StreamPart::Text(_)) => {
                let message =
                    format!("The answer is longer than {ANSWER_BYTES_AT_MOST} bytes: ask for a streamed one.");
                return Err(ApiError::internal("answer_too_long", message));
            }
            Some(StreamPart::End { stop, usage }) => return Ok(Json(head.whole(&text, stop, usage)).into_response()),
            Some(StreamPart::Failed(failure)) => return Err(failure::error(&failure)),
            None => return Err(ApiError::stopping()),
        }
    }
}
