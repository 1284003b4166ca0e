//! Real processes: what they say and fail to say, how they end, and that nothing is left of them.

mod example;
mod trouble;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use lockstep_inference::id::{InstanceId, ModelId, RunnerId, TaskId};
use lockstep_inference::runner::{FromRunner, ToRunner, VERSION};
use lockstep_inference::state::{ModelCard, TaskKind};
use lockstep_inference::worker::RunnerSaid;
use lockstep_replication::Span;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Event, Programs, Runners};

/// Ends a hang; no test comes near.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const RUNNER: RunnerId = RunnerId([1; 16]);
pub(super) const TASK: TaskId = TaskId([7; 16]);

/// A card for this runner.
pub(super) fn card(runner: &str, settings: &[(&str, &str)]) -> ModelCard {
    ModelCard {
        name: "A model".into(),
        weights_bytes: 1,
        layers: 8,
        context_tokens: 4096,
        custom: true,
        runner: runner.into(),
        settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

/// The first line to a runner.
pub(super) fn hello(card: ModelCard, rank: u16, ranks: u16) -> ToRunner {
    ToRunner::Hello {
        version: VERSION,
        runner: RUNNER,
        instance: InstanceId([1; 16]),
        rank,
        ranks,
        addresses: vec![Vec::new(); usize::from(ranks)],
        model: ModelId::new("acme/small"),
        card,
    }
}

/// A chat with one message of a user.
pub(super) fn chat(task: TaskId, text: &str, max_tokens: u32) -> ToRunner {
    let input = json!({"messages": [{"role": "user", "content": text}]});
    ToRunner::Task { task, kind: TaskKind::Chat { max_tokens }, input }
}

/// What a runner says on its way to ready, but for how far it has loaded.
pub(super) fn until_ready(tasks: u32) -> Vec<FromRunner> {
    let hello = FromRunner::Hello { version: VERSION, tasks };
    vec![hello, FromRunner::Connected, FromRunner::Loaded, FromRunner::Ready]
}

/// One program under the name `it`, supervised.
struct Stage {
    runners: Runners,
    events: mpsc::Receiver<Event>,
    directory: tempfile::TempDir,
    started: Instant,
}

impl Stage {
    /// Starts it as life 1.
    fn start(command: &[&str]) -> Stage {
        Stage::with_events(command, 1024)
    }

    fn with_events(command: &[&str], events: usize) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        let programs = Programs::unminded(BTreeMap::from([("it".to_owned(), command)]));
        let (sender, events) = mpsc::channel(events);
        let mut runners = Runners::new(programs, directory.path().to_owned(), sender);
        runners.start(RUNNER, 1, &card("it", &[]));
        Stage { runners, events, directory, started: Instant::now() }
    }

    /// A script of the shell. It finds its own number as `$$`, which is that of its group as well.
    fn script(script: &str) -> Stage {
        Stage::start(&["sh", "-c", script])
    }

    fn tell(&mut self, message: &ToRunner) {
        self.runners.tell(RUNNER, 1, message);
    }

    fn end(&mut self, grace: Span) {
        self.runners.end(RUNNER, 1, grace);
    }

    async fn next(&mut self) -> RunnerSaid {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("it says something");
        let (runner, life, said) = event.expect("the supervisor is there");
        assert_eq!((runner, life), (RUNNER, 1));
        said
    }

    async fn message(&mut self) -> FromRunner {
        match self.next().await {
            RunnerSaid::Message(message) => message,
            RunnerSaid::Garbage(reason) | RunnerSaid::Ended { reason } => panic!("no message: {reason}"),
        }
    }

    /// All that it says until it has ended: each as text, and the reason.
    async fn until_the_end(&mut self) -> (Vec<String>, String) {
        let mut said = Vec::new();
        loop {
            match self.next().await {
                RunnerSaid::Message(message) => said.push(serde_json::to_string(&message).unwrap()),
                RunnerSaid::Garbage(reason) => said.push(reason),
                RunnerSaid::Ended { reason } => {
                    assert!(self.events.try_recv().is_err(), "something came after the end");
                    return (said, reason);
                }
            }
        }
    }

    /// A file that the program wrote into its directory, once it is there.
    async fn file(&self, name: &str) -> String {
        let path = self.directory.path().join("runners/it").join(name);
        until(|| std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))).await
    }
}

async fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "it does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until there is no such process, or it is dead and nobody has asked how it ended: a stranger's to do.
async fn is_gone(pid: &str) {
    let stat = Path::new("/proc").join(pid.trim()).join("stat");
    until(|| match std::fs::read_to_string(&stat) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')).then_some(()),
        Err(_) => Some(()),
    })
    .await;
}

/// Whether it is there, be it dead but unasked.
fn is_there(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

fn texts(messages: &[Value]) -> Vec<String> {
    messages.iter().map(Value::to_string).collect()
}
