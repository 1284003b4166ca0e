//! Many commands over one connection: a line in, a line out, in the same order, many in flight.

use std::collections::VecDeque;
use std::io::Write as _;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::{BufMut as _, BytesMut};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::body::COMMAND_BYTES_AT_MOST;
use super::errors::ApiError;
use super::lines::{Line, Lines};
use super::reply::Reply;
use super::shared::{Context, Shared};
use super::submit::{Asked, Waiting};

/// How many commands of one stream may wait for their outcomes. A quarter of the node's outbox, so that a few streams fit.
const IN_FLIGHT: usize = 4096;

/// Replies are sent on when they are so many bytes, or when there is nothing else to do.
const REPLY_BYTES: usize = 16 << 10;

/// How many such pieces may wait for the client to read them.
const REPLY_PIECES: usize = 16;

/// A client that reads nothing for so long, while it could, is given up.
const STALLED: Duration = Duration::from_secs(60);

/// Answers a stream of commands with a stream of replies.
pub(crate) fn many(shared: Shared, commands: Body) -> Result<Response, ApiError> {
    if shared.shutdown.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let Ok(place) = shared.streams.clone().try_acquire_owned() else {
        let message = "As many clients send this node commands in a stream as may: ask another node, or ask later.";
        return Err(ApiError::unavailable("too_many_streams", message));
    };
    let (pieces, replies) = mpsc::channel(REPLY_PIECES);
    // In a task of its own: what becomes of the commands is noted also if their client hangs up.
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        Exchange::new(shared, commands, pieces).run().await;
        drop(place);
    });
    let replies = Body::from_stream(ReceiverStream::new(replies).map(Ok::<Bytes, std::convert::Infallible>));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], replies).into_response())
}

/// One stream of commands under way.
struct Exchange {
    shared: Shared,
    commands: BodyDataStream,
    lines: Lines,
    /// Whether more may come from the client.
    reading: bool,
    /// In the order of their lines, which is the order of the replies.
    waiting: VecDeque<Answer>,
    replies: Replies,
}

/// What a line of the stream gets.
enum Answer {
    /// An outcome, when it is there.
    Later(Waiting),
    /// It was no command.
    Now(Reply),
}

impl Exchange {
    fn new(shared: Shared, commands: Body, pieces: mpsc::Sender<Bytes>) -> Self {
        Exchange {
            shared,
            commands: commands.into_data_stream(),
            lines: Lines::default(),
            reading: true,
            waiting: VecDeque::new(),
            replies: Replies { pieces, written: BytesMut::new(), gone: false },
        }
    }

    async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        loop {
            self.hand_in().await;
            // Each reply makes room for another command, so room is looked for again until there is nothing to write.
            if self.write_settled().await {
                continue;
            }
            self.replies.flush().await;
            self.reading &= !self.replies.gone;
            let waits = !self.waiting.is_empty();
            let reads = self.reading && self.waiting.len() < IN_FLIGHT;
            if !waits && !reads {
                return;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if self.reading => self.reading = false,
                reply = first_reply(&mut self.waiting, &self.shared), if waits => {
                    self.waiting.pop_front();
                    self.replies.write(&reply).await;
                }
                chunk = self.commands.next(), if reads => match chunk {
                    Some(Ok(chunk)) => self.lines.push(&chunk),
                    Some(Err(_)) => self.reading = false,
                    None => {
                        self.reading = false;
                        if let Some((number, line)) = self.lines.end() {
                            self.take(number, line).await;
                        }
                    }
                },
            }
        }
    }

    /// Hands in the commands that are here, as far as the window allows.
    async fn hand_in(&mut self) {
        while self.reading
            && self.waiting.len() < IN_FLIGHT
            && let Some((number, line)) = self.lines.next()
        {
            self.take(number, line).await;
        }
    }

    async fn take(&mut self, number: u64, line: Line) {
        let asked = match line {
            Line::Whole(line) => Asked::parse(&line),
            Line::TooLong => {
                let reason = format!("A line may have at most {COMMAND_BYTES_AT_MOST} bytes.");
                Err(ApiError::bad_request("too_large", reason))
            }
        };
        self.waiting.push_back(match asked {
            Ok(asked) => Answer::Later(self.shared.hand_in(asked).await),
            Err(error) => Answer::Now(error.into_line_reply(number)),
        });
    }

    /// Writes the replies that are there. Says whether there was one.
    async fn write_settled(&mut self) -> bool {
        let mut any = false;
        while let Some(reply) = self.waiting.front_mut().and_then(|answer| answer.now(&self.shared)) {
            self.waiting.pop_front();
            self.replies.write(&reply).await;
            any = true;
        }
        any
    }
}

impl Answer {
    fn now(&mut self, context: &Context) -> Option<Reply> {
        match self {
            Answer::Later(waiting) => waiting.reply_now(context),
            Answer::Now(reply) => Some(reply.clone()),
        }
    }
}

/// The reply to the command that waits longest. Waits for ever if none does.
async fn first_reply(waiting: &mut VecDeque<Answer>, context: &Context) -> Reply {
    match waiting.front_mut() {
        Some(Answer::Later(first)) => first.reply(context).await,
        Some(Answer::Now(reply)) => reply.clone(),
        None => std::future::pending().await,
    }
}

/// Replies on their way to the client, several to a piece.
struct Replies {
    pieces: mpsc::Sender<Bytes>,
    written: BytesMut,
    /// The client has hung up, or does not read.
    gone: bool,
}

impl Replies {
    async fn write(&mut self, reply: &Reply) {
        if self.gone {
            return;
        }
        let mut line = (&mut self.written).writer();
        // Writing to memory cannot fail, and a reply always has a JSON form.
        if serde_json::to_writer(&mut line, reply).is_ok() {
            let _ = line.write_all(b"\n");
        }
        if self.written.len() >= REPLY_BYTES {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        if !self.written.is_empty() {
            let piece = self.written.split().freeze();
            self.gone |= self.pieces.send_timeout(piece, STALLED).await.is_err();
        }
        self.gone |= self.pieces.is_closed();
    }
}
