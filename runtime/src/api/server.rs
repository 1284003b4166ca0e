//! Listening: the address, the limits on connections, and a shutdown that lets answers finish.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
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

/// How many connections may stand. When more come, those that ask for nothing have to go.
const CONNECTIONS: usize = 1024;

/// How many clients may follow the log: a quarter of the connections, so that others get through.
const FOLLOWERS: usize = 256;

/// How many clients may send commands in a stream, which may last as long as they like: an eighth.
const STREAMS: usize = 128;

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

/// How often those that ask for nothing are told to go, while somebody waits for a place.
const CROWDED_EVERY: Duration = Duration::from_millis(100);

/// How long a new connection may ask for nothing though others wait for its place.
const ASKS_WITHIN: Duration = Duration::from_secs(1);

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
    let ApiConfig { listen, next_free, token, hosts } = config;
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
    let listener = bind(listen, next_free).await.map_err(failed)?;
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
        streams: Arc::new(Semaphore::new(STREAMS)),
        backups: Arc::new(Semaphore::new(1)),
        shutdown,
        tasks: TaskTracker::new(),
    });
    Ok(Served { address, task: tokio::spawn(accept(listener, shared)) })
}

/// Listens there or, if that is asked for, on the first port after it that is free.
async fn bind(mut listen: SocketAddr, next_free: bool) -> io::Result<TcpListener> {
    loop {
        match (TcpListener::bind(listen).await, listen.port().checked_add(1)) {
            (Err(error), Some(next)) if next_free && error.kind() == io::ErrorKind::AddrInUse => listen.set_port(next),
            (bound, _) => return bound,
        }
    }
}

async fn accept(listener: TcpListener, shared: Shared) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let crowded = Arc::new(Notify::new());
    let cut_off = CancellationToken::new();
    let shutdown = shared.shutdown.clone();
    let tasks = shared.tasks.clone();
    let service = TowerToHyperService::new(router(Arc::clone(&shared)));
    loop {
        let next = async {
            let accepted = listener.accept().await;
            (accepted, place(&places, &crowded).await)
        };
        let (accepted, place) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, service.clone(), Arc::clone(&crowded), shutdown.clone());
                let connection = async move {
                    connection.await;
                    drop(place);
                };
                let cut_off = cut_off.clone();
                tasks.spawn(async move { cut_off.run_until_cancelled(connection).await });
            }
            Err(error) => {
                tracing::warn!(%error, "the API could not accept a connection");
                crowded.notify_waiters();
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

/// A place for one more connection. The semaphore is never closed, so one always comes.
async fn place(places: &Arc<Semaphore>, crowded: &Notify) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(place) = tokio::time::timeout(CROWDED_EVERY, Arc::clone(places).acquire_owned()).await {
            return place.ok();
        }
        crowded.notify_waiters();
    }
}

/// One connection, until either side is done with it, or others need its place and it asks for nothing.
async fn connection(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    crowded: Arc<Notify>,
    shutdown: CancellationToken,
) {
    // Replies are small and wanted at once. Where it cannot be set, they are only slower.
    let _ = stream.set_nodelay(true);
    let since = Instant::now();
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Unread::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
            () = crowded.notified() => {
                if asked.load(Ordering::Relaxed) {
                    // It ends at once between two requests, else after its answer.
                    connection.as_mut().graceful_shutdown();
                } else if since.elapsed() >= ASKS_WITHIN {
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        // Clients hang up in the middle as they like.
        tracing::debug!(%error, "a connection to the API broke");
    }
}
