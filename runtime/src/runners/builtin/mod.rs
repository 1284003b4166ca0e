//! What the built-in runners share: the protocol's side of a runner, around what each of them does with a task.

pub mod echo;
pub mod openai;
mod settings;
mod sse;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lockstep_inference::id::{ModelId, TaskId};
use lockstep_inference::runner::{FromRunner, LINE_BYTES, ToRunner, VERSION};
use lockstep_inference::state::TaskKind;
use lockstep_inference::transient::{StopReason, TraceSpan, Usage};
use lockstep_replication::Wall;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::lines::Lines;
use settings::Settings;

/// So often a runner that is busy says that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// So many lines may wait to be written; then who has more to say waits.
const LINES_WAITING: usize = 256;

/// What a runner does; how it talks is the same for all.
pub trait Service: Sized + Send + Sync + 'static {
    /// On how many tasks it works at the same time.
    const TASKS: u32;

    /// What is wrong with an assignment, as a sentence.
    fn new(assignment: Assignment) -> Result<Self, String>;

    /// Gets ready. An error, as a sentence, ends the runner.
    fn load(&self, mouth: &Mouth) -> impl Future<Output = Result<(), String>> + Send;

    /// Does a task; an error fails it.
    fn work(&self, work: Work, mouth: &Mouth) -> impl Future<Output = Result<Answered, Failed>> + Send;
}

/// Why a task failed.
#[derive(Debug)]
pub struct Failed {
    /// As a sentence.
    reason: String,
    /// Whether its request is at fault.
    request: bool,
}

impl Failed {
    /// The request is at fault.
    fn request(reason: impl Into<String>) -> Failed {
        Failed { reason: reason.into(), request: true }
    }
}

impl From<String> for Failed {
    fn from(reason: String) -> Failed {
        Failed { reason, request: false }
    }
}

/// What a runner is told of its part.
#[derive(Debug)]
pub struct Assignment {
    model: ModelId,
    rank: u16,
    ranks: u16,
    settings: Settings,
}

/// A task.
#[derive(Debug)]
pub struct Work {
    task: TaskId,
    kind: TaskKind,
    input: Value,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    stop: StopReason,
    usage: Usage,
}

/// Where a runner says what it has to say.
#[derive(Clone, Debug)]
pub struct Mouth(mpsc::Sender<FromRunner>);

/// When a step of the work began.
#[derive(Clone, Copy, Debug)]
struct Began {
    at: Instant,
    wall: Wall,
}

impl Mouth {
    /// Waits while too much lies unread.
    async fn say(&self, message: FromRunner) {
        // Where nobody reads any more, the runner is about to end.
        let _ = self.0.send(message).await;
    }
}

impl Began {
    fn now() -> Began {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Began { at: Instant::now(), wall: Wall(since.as_millis() as u64) }
    }

    /// The step from here to now.
    fn span(self, name: &str) -> TraceSpan {
        TraceSpan { name: name.into(), began: self.wall, micros: self.at.elapsed().as_micros() as u64 }
    }
}

/// Serves until it is told to end, or `input` ends: then the node is gone.
///
/// # Errors
/// What it cannot go on with, as a sentence.
pub async fn serve<S: Service>(input: impl AsyncRead + Unpin, output: impl AsyncWrite + Unpin) -> Result<(), String> {
    let (mouth, lines) = mpsc::channel(LINES_WAITING);
    let mut ears = Lines::new(input, LINE_BYTES);
    // It is the last to end: all that was said is written.
    let (served, ()) = tokio::join!(converse::<S>(&mut ears, Mouth(mouth)), write(output, lines));
    served
}

async fn converse<S: Service>(ears: &mut Lines<impl AsyncRead + Unpin>, mouth: Mouth) -> Result<(), String> {
    let service = Arc::new(S::new(greet(ears, &mouth).await?)?);
    mouth.say(FromRunner::Hello { version: VERSION, tasks: S::TASKS }).await;
    let mut loading = JoinSet::new();
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<TaskId, AbortHandle> = BTreeMap::new();
    let mut ending = false;
    let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + ALIVE_EVERY, ALIVE_EVERY);
    loop {
        if ending && tasks.is_empty() {
            return Ok(());
        }
        let message = tokio::select! {
            message = hear(ears), if !ending => message?,
            () = mouth.0.closed() => return Err("nobody reads what it says".into()),
            Some(loaded) = loading.join_next() => {
                loaded.map_err(|error| error.to_string())??;
                mouth.say(FromRunner::Loaded).await;
                continue;
            }
            Some(done) = tasks.join_next() => {
                // One that was cancelled is not there any more.
                if let Ok(task) = done {
                    running.remove(&task);
                }
                continue;
            }
            _ = alive.tick() => {
                if !(tasks.is_empty() && loading.is_empty()) {
                    mouth.say(FromRunner::Alive).await;
                }
                continue;
            }
        };
        match message {
            // The dropped sets end what is under way.
            None => return Ok(()),
            Some(ToRunner::Hello { .. }) => return Err("it was greeted twice".into()),
            Some(ToRunner::Connect) => mouth.say(FromRunner::Connected).await,
            Some(ToRunner::Load) => {
                let (service, mouth) = (Arc::clone(&service), mouth.clone());
                loading.spawn(async move { service.load(&mouth).await });
            }
            Some(ToRunner::WarmUp) => mouth.say(FromRunner::Ready).await,
            Some(ToRunner::Task { task, kind, input }) => {
                let (service, mouth) = (Arc::clone(&service), mouth.clone());
                let handle = tasks.spawn(work(service, mouth, Work { task, kind, input }));
                running.insert(task, handle);
            }
            Some(ToRunner::Cancel { task }) => {
                if let Some(handle) = running.remove(&task) {
                    handle.abort();
                }
            }
            Some(ToRunner::ShutDown) => ending = true,
        }
    }
}

async fn greet(ears: &mut Lines<impl AsyncRead + Unpin>, mouth: &Mouth) -> Result<Assignment, String> {
    match hear(ears).await? {
        Some(ToRunner::Hello { version: VERSION, model, rank, ranks, card, .. }) => {
            Ok(Assignment { model, rank, ranks, settings: Settings(card.settings) })
        }
        Some(ToRunner::Hello { version, .. }) => {
            mouth.say(FromRunner::Hello { version: VERSION, tasks: 1 }).await;
            Err(format!("it speaks version {VERSION} of the protocol, and was greeted in version {version}"))
        }
        Some(
            ToRunner::Connect
            | ToRunner::Load
            | ToRunner::WarmUp
            | ToRunner::Task { .. }
            | ToRunner::Cancel { .. }
            | ToRunner::ShutDown,
        ) => Err("the first line was no greeting".into()),
        None => Err("it was not greeted: this program is started by a node".into()),
    }
}

async fn hear(ears: &mut Lines<impl AsyncRead + Unpin>) -> Result<Option<ToRunner>, String> {
    match ears.next().await {
        // What a line says may be a person's: the error tells the place alone.
        Ok(Some(line)) => serde_json::from_slice(line)
            .map(Some)
            .map_err(|error| format!("a line is none of the protocol's, from column {} on", error.column())),
        Ok(None) => Ok(None),
        Err(error) => Err(format!("standard input cannot be read: {error}")),
    }
}

async fn work<S: Service>(service: Arc<S>, mouth: Mouth, work: Work) -> TaskId {
    let task = work.task;
    mouth.say(FromRunner::Started { task }).await;
    match service.work(work, &mouth).await {
        Ok(Answered { stop, usage }) => mouth.say(FromRunner::Done { task, stop, usage }).await,
        Err(Failed { reason, request }) => mouth.say(FromRunner::Failed { task, reason, request }).await,
    }
    task
}

/// Ends when nobody has anything to say any more, or nobody reads.
async fn write(mut output: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<FromRunner>) {
    let mut messages = Vec::new();
    let mut bytes = Vec::new();
    while lines.recv_many(&mut messages, LINES_WAITING).await > 0 {
        bytes.clear();
        for message in messages.drain(..) {
            if serde_json::to_writer(&mut bytes, &message).is_ok() {
                bytes.push(b'\n');
            }
        }
        if output.write_all(&bytes).await.is_err() || output.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
