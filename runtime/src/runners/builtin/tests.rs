//! The built-in runners by what they say: a conversation over streams, as a node would have it.

use std::time::{Duration, Instant};

use lockstep_inference::id::TaskId;
use lockstep_inference::runner::{FromRunner, ToRunner, VERSION};
use lockstep_inference::state::ModelCard;
use lockstep_inference::transient::{StopReason, TraceSpan, Usage};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

use super::echo::Echo;
use super::{Service, serve};
use crate::runners::lines::Lines;
use crate::runners::tests::{TASK, card, chat, hello, until_ready};

/// Ends a hang; no test comes near.
const PATIENCE: Duration = Duration::from_secs(30);

/// A runner, and the node's ends of its streams.
pub(super) struct Talk {
    to: Option<DuplexStream>,
    from: Lines<DuplexStream>,
    served: JoinHandle<Result<(), String>>,
}

impl Talk {
    pub(super) fn with<S: Service>() -> Talk {
        let ((to, input), (output, from)) = (tokio::io::duplex(1 << 20), tokio::io::duplex(1 << 20));
        Talk { to: Some(to), from: Lines::new(from, 1 << 20), served: tokio::spawn(serve::<S>(input, output)) }
    }

    /// One that got as far as to take tasks.
    pub(super) async fn ready<S: Service>(card: ModelCard) -> Talk {
        let mut talk = Talk::with::<S>();
        let steps = [hello(card, 0, 1), ToRunner::Connect, ToRunner::Load, ToRunner::WarmUp];
        for (message, expected) in steps.iter().zip(until_ready(S::TASKS)) {
            talk.tell(message).await;
            let mut said = talk.next().await;
            while matches!(said, FromRunner::Loading { .. }) {
                said = talk.next().await;
            }
            assert_eq!(said, expected);
        }
        talk
    }

    pub(super) async fn tell(&mut self, message: &ToRunner) {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        self.write(&line).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.to.as_mut().expect("its input is open").write_all(bytes).await.unwrap();
    }

    pub(super) async fn next(&mut self) -> FromRunner {
        let line = tokio::time::timeout(PATIENCE, self.from.next()).await.expect("it says something").unwrap();
        serde_json::from_slice(line.expect("it has not ended")).unwrap()
    }

    /// What it says of a task, to its end; the text apart.
    pub(super) async fn answer(&mut self) -> (String, Vec<FromRunner>) {
        let (mut text, mut said) = (String::new(), Vec::new());
        loop {
            let message = self.next().await;
            if let FromRunner::Token { text: more, .. } = message {
                text += &more;
                continue;
            }
            let last = matches!(message, FromRunner::Done { .. } | FromRunner::Failed { .. });
            said.push(message);
            if last {
                return (text, said);
            }
        }
    }

    /// Closes its input; how it ended.
    pub(super) async fn end(mut self) -> Result<(), String> {
        drop(self.to.take());
        self.ended().await
    }

    /// How it ended by itself.
    pub(super) async fn ended(self) -> Result<(), String> {
        tokio::time::timeout(PATIENCE, self.served).await.expect("it ends").unwrap()
    }
}

pub(super) fn names(spans: &[TraceSpan]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn done(stop: StopReason, prompt_tokens: u64, completion_tokens: u64) -> FromRunner {
    FromRunner::Done { task: TASK, stop, usage: Usage { prompt_tokens, completion_tokens } }
}

#[tokio::test]
async fn echo_says_each_word_as_a_token_then_traces() {
    let mut talk = Talk::ready::<Echo>(card("echo", &[])).await;
    talk.tell(&chat(TASK, "to be or not to be", 4)).await;
    assert_eq!(talk.next().await, FromRunner::Started { task: TASK });
    for text in ["to", " be", " or", " not"] {
        assert_eq!(talk.next().await, FromRunner::Token { task: TASK, text: text.into() });
    }
    let FromRunner::Trace { spans, .. } = talk.next().await else { panic!("no trace") };
    assert_eq!(names(&spans), ["prefill", "decode"]);
    assert_eq!(talk.next().await, done(StopReason::Length, 6, 4));
    talk.tell(&chat(TASK, "to be", 2)).await;
    let (text, said) = talk.answer().await;
    assert_eq!((text.as_str(), said.last()), ("to be", Some(&done(StopReason::Stop, 2, 2))));
    assert_eq!(talk.end().await, Ok(()));
}

#[tokio::test]
async fn echo_keeps_its_pace_and_works_on_many_at_once() {
    let settings = [("tokens_per_second", "100"), ("first_token_ms", "50"), ("load_ms", "50")];
    let mut talk = Talk::ready::<Echo>(card("echo", &settings)).await;
    let began = Instant::now();
    for n in 0..100 {
        talk.tell(&chat(TaskId([n; 16]), "a b c d e f g h i j k", 100)).await;
    }
    let (mut tokens, mut done) = (0, 0);
    while done < 100 {
        let message = talk.next().await;
        tokens += usize::from(matches!(message, FromRunner::Token { .. }));
        done += usize::from(matches!(message, FromRunner::Done { .. }));
    }
    assert_eq!(tokens, 1100);
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(150)..Duration::from_secs(10)).contains(&took),
        "{took:?}, and not one after another"
    );
}

#[tokio::test]
async fn a_later_rank_of_echo_works_in_silence() {
    let mut talk = Talk::with::<Echo>();
    talk.tell(&hello(card("echo", &[]), 1, 2)).await;
    talk.tell(&chat(TASK, "a b", 10)).await;
    assert_eq!(talk.next().await, FromRunner::Hello { version: VERSION, tasks: 256 });
    assert_eq!(talk.next().await, FromRunner::Started { task: TASK });
    assert!(matches!(talk.next().await, FromRunner::Trace { .. }));
    assert_eq!(talk.next().await, done(StopReason::Stop, 2, 2));
}

#[tokio::test]
async fn nothing_is_said_of_a_cancelled_task_and_shutting_down_waits_for_others() {
    let mut talk = Talk::ready::<Echo>(card("echo", &[("tokens_per_second", "50")])).await;
    talk.tell(&chat(TASK, &"word ".repeat(10_000), 10_000)).await;
    assert_eq!(talk.next().await, FromRunner::Started { task: TASK });
    talk.tell(&ToRunner::Cancel { task: TASK }).await;
    talk.tell(&chat(TaskId([9; 16]), "a b c d", 10)).await;
    talk.tell(&ToRunner::ShutDown).await;
    let mut of_the_cancelled = 0;
    loop {
        let message = talk.next().await;
        of_the_cancelled += usize::from(matches!(message, FromRunner::Token { task: TASK, .. }));
        if let FromRunner::Done { task, .. } = message {
            assert_eq!(task, TaskId([9; 16]));
            break;
        }
    }
    assert!(of_the_cancelled <= 1, "{of_the_cancelled} tokens after the cancel");
    assert_eq!(talk.end().await, Ok(()));
}

#[tokio::test]
async fn the_end_of_input_ends_a_runner_in_the_middle_of_its_work() {
    let mut talk = Talk::ready::<Echo>(card("echo", &[("tokens_per_second", "10")])).await;
    talk.tell(&chat(TASK, &"word ".repeat(10_000), 10_000)).await;
    assert_eq!(talk.next().await, FromRunner::Started { task: TASK });
    assert_eq!(talk.end().await, Ok(()));
}

#[tokio::test]
async fn a_node_that_does_not_keep_to_the_protocol_is_told_so() {
    let mut version = serde_json::to_value(hello(card("echo", &[]), 0, 1)).unwrap();
    version["version"] = 99.into();
    for (line, expected) in [
        (String::new(), "it was not greeted: this program is started by a node"),
        ("{\"type\": \"load\"}\n".into(), "the first line was no greeting"),
        ("secret\n".into(), "a line is none of the protocol's, from column 1 on"),
        (version.to_string() + "\n", "it speaks version 1 of the protocol, and was greeted in version 99"),
    ] {
        let mut talk = Talk::with::<Echo>();
        talk.write(line.as_bytes()).await;
        assert_eq!(talk.end().await, Err(expected.into()));
    }
}

#[tokio::test]
async fn settings_that_echo_does_not_know_are_refused() {
    for (name, value, expected) in [
        ("tokens_per_secnd", "5", "this runner has no setting `tokens_per_secnd`; did you mean `tokens_per_second`?"),
        ("url", "5", "this runner has no setting `url`; there are tokens_per_second, first_token_ms, load_ms"),
        ("load_ms", "soon", "the card's setting `load_ms` must be a whole number of milliseconds, this is \"soon\""),
        ("tokens_per_second", "0", "the card's setting `tokens_per_second` must be from 0.001 to 1000000000"),
    ] {
        let mut talk = Talk::with::<Echo>();
        talk.tell(&hello(card("echo", &[(name, value)]), 0, 1)).await;
        assert_eq!(talk.end().await, Err(expected.into()));
    }
}
