//! One runner's process: the task that owns it from its start until nothing is left of it, and the handle to that task.

use std::fmt::Write as _;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{FusedFuture as _, FutureExt as _};
use lockstep_inference::id::{RunnerId, TaskId};
use lockstep_inference::runner::{FromRunner, LINE_BYTES, ToRunner};
use lockstep_inference::worker::RunnerSaid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Event;
use super::group::Group;
use super::last_words::LastWords;
use super::lines::{Lines, NoLine};

/// So many lines may wait to be written; one more, and the runner hangs. A healthy one reads them within moments, and a
/// worker gives it as many tasks as it asked for, a thousand at most.
const LINES_WAITING: usize = 4096;

/// So many bytes of lines may wait to be written: a burst of the largest inputs there are.
const BYTES_WAITING: usize = 16 * LINE_BYTES;

/// How long a runner that closed one of its streams has to end by itself: closing them is how processes begin to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// How long the streams of a process that is gone are read on, if somebody outside of its group holds them open.
const DRAIN: Duration = Duration::from_secs(2);

/// So many characters of a line that is none of ours are shown.
const SHOWN_CHARS: usize = 80;

/// What the owner of a process does with it.
#[derive(Debug)]
pub(super) struct Handle {
    lines: Option<mpsc::Sender<Line>>,
    room: Arc<Semaphore>,
    orders: mpsc::UnboundedSender<Order>,
}

/// The task's side.
#[derive(Debug)]
pub(super) struct Keeper {
    voice: Voice,
    lines: mpsc::Receiver<Line>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Orders that the task gives to itself.
    own: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Order {
    /// It was told to end, and has this long.
    End(Duration),
    /// It closed one of its streams, as this says. One that was told to end may do so while it tidies up.
    Close(String),
    /// Kill it, for this reason.
    Kill(String),
    /// It could not be told of this task, for this reason.
    Untold(TaskId, String),
}

/// Where what it says goes.
#[derive(Clone, Debug)]
struct Voice {
    runner: RunnerId,
    life: u64,
    events: mpsc::Sender<Event>,
    closing: CancellationToken,
}

impl Handle {
    pub(super) fn tell(&mut self, message: &ToRunner) {
        let Some(lines) = &self.lines else { return };
        let mut bytes = match serde_json::to_vec(message) {
            Ok(bytes) => bytes,
            Err(error) => return self.untold(message, format!("it cannot be written as JSON: {error}")),
        };
        if bytes.len() > LINE_BYTES {
            let reason = format!("its line would have {} bytes, and {LINE_BYTES} are allowed", bytes.len());
            return self.untold(message, reason);
        }
        bytes.push(b'\n');
        let permits = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(permits) else {
            return self.untold(message, format!("{BYTES_WAITING} bytes wait for its runner to read them"));
        };
        match lines.try_send(Line { bytes, _room: room }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.kill(format!("it hangs: {LINES_WAITING} lines wait for it to read them"));
            }
            // It closed its standard input: its keeper knows.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    pub(super) fn end(&mut self, grace: Duration) {
        self.lines = None;
        let _ = self.orders.send(Order::End(grace));
    }

    /// Whether nothing is left of the process.
    pub(super) fn is_gone(&self) -> bool {
        self.orders.is_closed()
    }

    /// A task that cannot be told fails; a runner that cannot be told anything else is of no use.
    fn untold(&mut self, message: &ToRunner, reason: String) {
        match message {
            ToRunner::Task { task, .. } => {
                let _ = self.orders.send(Order::Untold(*task, format!("the task did not reach its runner: {reason}")));
            }
            ToRunner::Hello { .. }
            | ToRunner::Connect
            | ToRunner::Load
            | ToRunner::WarmUp
            | ToRunner::Cancel { .. }
            | ToRunner::ShutDown => self.kill(format!("it cannot be told anything: {reason}")),
        }
    }

    fn kill(&mut self, reason: String) {
        self.lines = None;
        let _ = self.orders.send(Order::Kill(reason));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // One that was told to end keeps its grace.
        if self.lines.is_some() {
            self.kill("its node stops".into());
        }
    }
}

impl Voice {
    /// Waits while the owner has too much to hear. Nobody hears what is said while it closes.
    async fn say(&self, said: RunnerSaid) {
        tokio::select! {
            biased;
            // An owner that is gone needs to hear nothing.
            _ = self.events.send((self.runner, self.life, said)) => {}
            () = self.closing.cancelled() => {}
        }
    }
}

impl Keeper {
    pub(super) fn new(
        runner: RunnerId,
        life: u64,
        events: mpsc::Sender<Event>,
        closing: CancellationToken,
    ) -> (Keeper, Handle) {
        let (to_process, lines) = mpsc::channel(LINES_WAITING);
        let (own, orders) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(BYTES_WAITING));
        let handle = Handle { lines: Some(to_process), room, orders: own.clone() };
        (Keeper { voice: Voice { runner, life, events, closing }, lines, orders, own }, handle)
    }

    /// Starts the process and stays with it until nothing is left of it.
    pub(super) async fn run(self, command: Result<Command, String>) {
        let voice = self.voice.clone();
        let reason = match command.and_then(spawn) {
            Ok(child) => self.keep(child).await,
            Err(reason) => reason,
        };
        voice.say(RunnerSaid::Ended { reason }).await;
    }

    async fn keep(mut self, mut child: Child) -> String {
        let mut group = Group::of(&child);
        let streams = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let Some(((stdin, stdout), stderr)) = streams else { return "its standard streams are not there".into() };
        let words = Mutex::new(LastWords::default());
        let mut heard =
            pin!(async { tokio::join!(read(stdout, &self.voice, &self.own), listen(stderr, &words)) }.fuse());
        let mut told = pin!(write(stdin, self.lines, &self.own).fuse());
        let mut life = pin!(watch(&mut child, &mut group, &mut self.orders, &self.voice));
        let how = loop {
            tokio::select! {
                how = &mut life => break how,
                _ = &mut heard, if !heard.is_terminated() => {}
                () = &mut told, if !told.is_terminated() => {}
            }
        };
        if !heard.is_terminated() {
            let _ = tokio::time::timeout(DRAIN, &mut heard).await;
        }
        report(&how, &words.lock().unwrap_or_else(PoisonError::into_inner).lines())
    }
}

fn spawn(mut command: Command) -> Result<Child, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command.spawn().map_err(|error| {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        format!("`{program}` cannot be started: {error}")
    })
}

/// Waits until the process is gone, kills it when its time has come, and what is left of its group behind it. How it
/// ended, as a sentence.
async fn watch(
    child: &mut Child,
    group: &mut Group,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    voice: &Voice,
) -> String {
    let mut told = false;
    let mut due: Option<(Instant, String)> = None;
    let mut killed: Option<String> = None;
    let status = loop {
        let kill_at = due.as_ref().map_or_else(Instant::now, |(at, _)| *at);
        tokio::select! {
            // Of a reason to kill it and an end that follows from it, the reason is told.
            biased;
            Some(order) = orders.recv() => match order {
                Order::End(grace) => {
                    told = true;
                    due = Some((Instant::now() + grace, format!("told to end, it had not after {grace:?}")));
                }
                Order::Close(_) if told => {}
                Order::Close(reason) => due = Some((Instant::now() + ENDS_WITHIN, reason)),
                Order::Kill(reason) => {
                    group.kill();
                    killed = killed.or(Some(reason));
                }
                Order::Untold(task, reason) => {
                    voice.say(RunnerSaid::Message(FromRunner::Failed { task, reason, request: false })).await;
                }
            },
            status = child.wait() => break status,
            () = tokio::time::sleep_until(kill_at), if due.is_some() => {
                group.kill();
                killed = killed.or(due.take().map(|(_, reason)| reason));
            }
        }
    };
    group.kill();
    group.forget();
    match (status, killed) {
        (_, Some(reason)) => format!("it was killed: {reason}"),
        (Err(error), None) => format!("it cannot be watched: {error}"),
        (Ok(status), None) => ended(status, told),
    }
}

fn ended(status: ExitStatus, told: bool) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("with exit code {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => status.to_string(),
    };
    format!("{} {how}", if told { "it ended as it was told to," } else { "it ended on its own," })
}

/// One line, what matters first: reports are cut at their end.
fn report(how: &str, words: &[String]) -> String {
    let mut report = how.to_owned();
    if let Some(last) = words.last() {
        let _ = write!(report, ": {last}");
    }
    if words.len() > 1 {
        let _ = write!(report, " (the end of its standard error: {})", words.join(" | "));
    }
    report
}

/// Passes on what it says, until it ends or says something that is not of the protocol.
async fn read(stdout: ChildStdout, voice: &Voice, orders: &mpsc::UnboundedSender<Order>) {
    let mut lines = Lines::new(stdout, LINE_BYTES);
    let mut count = 0_u64;
    let wrong = loop {
        count += 1;
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => {
                let _ = orders.send(Order::Close("it closed its standard output".into()));
                return;
            }
            Err(NoLine::TooLong(bytes)) => break format!("line {count} of its standard output has over {bytes} bytes"),
            Err(error @ (NoLine::Half(_) | NoLine::Broke(_))) => {
                break format!("line {count} of its standard output is cut short: {error}");
            }
        };
        match serde_json::from_slice::<FromRunner>(line) {
            Ok(message) => voice.say(RunnerSaid::Message(message)).await,
            Err(error) if line.first() == Some(&b'{') => {
                break format!("line {count} of its standard output is none of the protocol's: {error}");
            }
            // A library that prints where it should not, as a rule.
            Err(_) => {
                let line = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN_CHARS)]).into_owned();
                let shown: String = line.chars().filter(|char| !char.is_control()).take(SHOWN_CHARS).collect();
                break format!("line {count} of its standard output is no JSON object: {shown:?}");
            }
        }
    };
    voice.say(RunnerSaid::Garbage(wrong.clone())).await;
    let _ = orders.send(Order::Kill(wrong));
}

/// Keeps the end of what it complains of.
async fn listen(mut stderr: ChildStderr, words: &Mutex<LastWords>) {
    let mut piece = vec![0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        words.lock().unwrap_or_else(PoisonError::into_inner).add(&piece[..read]);
    }
}

/// Writes lines until there are no more to come, then closes its standard input.
async fn write(mut stdin: ChildStdin, mut lines: mpsc::Receiver<Line>, orders: &mpsc::UnboundedSender<Order>) {
    while let Some(line) = lines.recv().await {
        if stdin.write_all(&line.bytes).await.is_err() {
            let _ = orders.send(Order::Close("it closed its standard input".into()));
            return;
        }
    }
}
