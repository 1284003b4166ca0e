//! `GET /v1/backup`: one file with all that another data directory can be made from, written as it is read.

use std::io::{self, Write};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::errors::{ApiError, sentence};
use super::fresh::index_header;
use super::shared::Shared;

/// The size of the pieces that are sent.
const PIECE_BYTES: usize = 64 << 10;

/// How many pieces may wait for the client.
const PIECES: usize = 8;

/// Streams a backup. One that fails half-way ends without the end that HTTP wants, so that no client takes it for whole.
pub(crate) async fn backup(State(shared): State<Shared>) -> Result<Response, ApiError> {
    let Ok(place) = shared.backups.clone().try_acquire_owned() else {
        return Err(ApiError::unavailable("backup_runs", "A backup is under way already: ask again when it is done."));
    };
    let published = shared.node.now();
    let (pieces, mut stream) = mpsc::channel(PIECES);
    let tasks = shared.tasks.clone();
    tasks.spawn_blocking(move || {
        let mut out = Pieces { pieces, written: Vec::with_capacity(PIECE_BYTES) };
        // Given back before `out` ends the stream: whoever has read one backup can have the next.
        let _place = place;
        let made = shared.surroundings.backup(&mut out).and_then(|()| out.flush());
        if let Err(error) = made {
            tracing::warn!(%error, "a backup failed");
            // Nobody is there to hear it if the client has hung up.
            let _ = out.pieces.blocking_send(Err(error));
        }
    });
    let first = match stream.recv().await {
        Some(Err(error)) => return Err(ApiError::internal("backup_failed", sentence(error))),
        Some(Ok(first)) => first,
        None => return Err(ApiError::internal("backup_failed", "The backup is empty.")),
    };
    let rest = ReceiverStream::new(stream);
    let body = Body::from_stream(futures::stream::once(async { Ok(first) }).chain(rest));
    let headers =
        [(CONTENT_TYPE, "application/octet-stream"), (CONTENT_DISPOSITION, "attachment; filename=\"lockstep.backup\"")];
    Ok((index_header(&published), headers, body).into_response())
}

/// Writes into a bounded channel, in pieces.
struct Pieces {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    written: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.written.len());
        self.written.extend_from_slice(&bytes[..taken]);
        if self.written.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.written.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.written, Vec::with_capacity(PIECE_BYTES));
        let hung_up = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client hung up");
        self.pieces.blocking_send(Ok(piece.into())).map_err(hung_up)
    }
}
