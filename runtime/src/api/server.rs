//! Listening: the address, the limits on connections, and a shutdown that lets answers finish.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guard::Guard;
use super::names::Names;
use super::recent::Recent;
use super::shared::{Context, Shared};
use super::unread::Unread;
use super::{ApiConfig, ReadLog, Surroundings, metrics, router};
use crate::handle::NodeHandle;
use crate::work::WorkHandle;

/// How many connections may stand. More wait in the operating system's queue.
const CONNECTIONS: usize = 1024;

/// How many clients may follow the log: a quarter of the connections, so that others get through.
const FOLLOWERS: usize = 256;

/// How many answers of models may be under way: half of the connections.
const ANSWERS: usize = 512;

/// How much memory requests to models may take while they are read, in KiB: eight of the largest.
const QUESTIONS_KIB: usize = 128 << 10;

/// How long the head of a request may take to come, and how long a connection may idle between requests.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// The most bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;

/// How long answers under way may take to finish when the process ends.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// After a failed accept, most likely because the process has too many open files, it is tried again after this time.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why the API does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could reach it, and it has no token.
    #[error(
        "the API may not listen on {0} without a token, since others than this machine can reach it: set a token file, or listen on 127.0.0.1"
    )]
    NeedsToken(SocketAddr),
    /// A token that protects nothing.
    #[error("the API's token is empty or has spaces or characters that cannot be sent: use visible ASCII characters")]
    BadToken,
    /// A configured host is none.
    #[error("{0:?} is no host name of the API: write NAME or NAME:PORT")]
    Host(String),
    /// The address is taken.
    #[error("the API cannot listen on {0}, another process does: stop that one, or choose another address")]
    InUse(SocketAddr),
    /// It cannot listen for another reason.
    #[error("the API cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

/// An API that listens.
#[derive(Debug)]
pub struct Served {
    /// Where.
    pub address: SocketAddr,
    /// Ends when the shutdown was asked for and all answers have finished, or had their time.
    pub task: JoinHandle<()>,
}

/// Listens and answers until `shutdown`.
///
/// # Errors
/// The address is taken or not allowed, or the configuration is wrong.
pub async fn serve(
    config: ApiConfig,
    node: NodeHandle,
    models: WorkHandle,
    log: impl ReadLog,
    surroundings: impl Surroundings,
    shutdown: CancellationToken,
) -> Result<Served, ServeError> {
    let ApiConfig { listen, token, hosts } = config;
    match &token {
        None if !listen.ip().is_loopback() => return Err(ServeError::NeedsToken(listen)),
        Some(token) if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            return Err(ServeError::BadToken);
        }
        None | Some(_) => {}
    }
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            return ServeError::InUse(listen);
        }
        ServeError::Listen { address: listen, error }
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let shared = Arc::new(Context {
        registry: metrics::registry(node.clone(), models.clone()),
        node,
        log: Arc::new(log),
        surroundings: Arc::new(surroundings),
        guard: Guard::new(address, &hosts, token.as_deref())?,
        names: Names::new(),
        recent: Recent::default(),
        models,
        answers: Arc::new(Semaphore::new(ANSWERS)),
        questions: Arc::new(Semaphore::new(QUESTIONS_KIB)),
        followers: Arc::new(Semaphore::new(FOLLOWERS)),
        backups: Arc::new(Semaphore::new(1)),
        shutdown,
        tasks: TaskTracker::new(),
    });
    Ok(Served { address, task: tokio::spawn(accept(listener, shared)) })
}

async fn accept(listener: TcpListener, shared: Shared) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let cut_off = CancellationToken::new();
    let shutdown = shared.shutdown.clone();
    let tasks = shared.tasks.clone();
    let service = TowerToHyperService::new(router(Arc::clone(&shared)));
    loop {
        let next = async {
            // The semaphore is never closed, so a place always comes.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, service.clone(), place, shutdown.clone());
                let cut_off = cut_off.clone();
                tasks.spawn(async move { cut_off.run_until_cancelled(connection).await });
            }
            Err(error) => {
                tracing::warn!(%error, "the API could not accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(FINISH_WITHIN, tasks.wait()).await.is_err() {
        tracing::warn!("the API cut connections off that did not finish in time");
        cut_off.cancel();
    }
}

/// One connection, until either side is done with it.
async fn connection(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    _place: Option<OwnedSemaphorePermit>,
    shutdown: CancellationToken,
) {
    // Replies are small and wanted at once. Where it cannot be set, they are only slower.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Unread::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients hang up in the middle as they like.
        tracing::debug!(%error, "a connection to the API broke");
    }
}
