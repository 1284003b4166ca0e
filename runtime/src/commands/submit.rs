//! `lockstep submit`: commands to a node, one or a stream of them, and what became of each.

use std::io::{self, BufRead as _, IsTerminal as _, Read};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use futures::StreamExt as _;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::client::{Client, Denied, Target};
use super::errors::{DidNotHold, WrongCall};
use super::output;

/// Order a command, or a stream of commands with a line of JSON each.
///
/// A command that is named by a key is done once, however often and at whatever node it is asked for.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep submit '{\"delete_card\": {\"model\": \"tiny\"}}'
  lockstep submit --idempotency-key order-17 --file command.json
  lockstep submit - < commands.ndjson          a line each, answered by a line each, in order

Exit code 1 where a command was refused, or its outcome is unknown.")]
pub struct Arguments {
    /// One command as JSON, or `-` for a stream of them on standard input.
    #[arg(value_name = "JSON", conflicts_with = "file")]
    command: Option<String>,

    /// Read from a file: one command, or a line each.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// The name of this command: asking twice does it once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    #[command(flatten)]
    target: Target,
}

/// What is to be sent.
enum Source {
    One(String),
    Lines(Box<dyn Read + Send>),
}

impl Arguments {
    /// Sends, and prints what became of it.
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        match self.source()? {
            Source::One(command) => self.one(&client, command).await,
            Source::Lines(_) if self.idempotency_key.is_some() => {
                bail!(WrongCall("a key names one command; in a stream give each line its own \"id\"".into()))
            }
            Source::Lines(lines) => stream(&client, lines).await,
        }
    }

    fn source(&self) -> anyhow::Result<Source> {
        if let Some(path) = &self.file {
            let unreadable = || format!("{} cannot be read", path.display());
            let mut file = io::BufReader::new(std::fs::File::open(path).with_context(unreadable)?);
            // One command may be written over many lines; a stream has one on each of several, so its first is a document.
            let mut start = String::new();
            file.read_line(&mut start).with_context(unreadable)?;
            let mut rest = String::new();
            if serde_json::from_str::<Value>(&start).is_err() {
                file.read_to_string(&mut rest).with_context(unreadable)?;
                return Ok(Source::One(start + &rest));
            }
            file.read_line(&mut rest).with_context(unreadable)?;
            if rest.is_empty() {
                return Ok(Source::One(start));
            }
            return Ok(Source::Lines(Box::new(io::Cursor::new(start + &rest).chain(file))));
        }
        match self.command.as_deref() {
            Some("-") => Ok(Source::Lines(Box::new(io::stdin()))),
            Some(command) => Ok(Source::One(command.to_owned())),
            None if io::stdin().is_terminal() => {
                bail!(WrongCall("say which command: as JSON, by --file, or on standard input with `-`".into()))
            }
            None => Ok(Source::Lines(Box::new(io::stdin()))),
        }
    }

    async fn one(&self, client: &Client, command: String) -> anyhow::Result<()> {
        let _: Value =
            serde_json::from_str(&command).map_err(|error| WrongCall(format!("the command is no JSON: {error}")))?;
        let mut request =
            client.post(client.url(["v1", "commands"])).header(CONTENT_TYPE, "application/json").body(command);
        if let Some(key) = &self.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let response = client.send(request).await?;
        let status = response.status();
        let text = response.text().await.context("the answer broke off")?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if self.target.json && !answer.is_null() {
            output::json(&answer, false)?;
            return if status.is_success() { Ok(()) } else { Err(DidNotHold.into()) };
        }
        if !status.is_success() {
            return Err(Denied::read(status, &text).into());
        }
        Ok(output::line(&sentence(&answer))?)
    }
}

/// Sends lines as they come, and prints the answers as they come.
pub async fn stream(client: &Client, lines: Box<dyn Read + Send>) -> anyhow::Result<()> {
    let (chunks, body) = mpsc::channel(16);
    // A thread of its own: a read of standard input cannot be called off.
    std::thread::spawn(move || pump(lines, &chunks));
    let request = client
        .post(client.url(["v1", "commands"]))
        .header(CONTENT_TYPE, "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(ReceiverStream::new(body)));
    let mut answers = client.succeed(request).await?.bytes_stream();
    let mut pending: Vec<u8> = Vec::new();
    let mut all_done = true;
    while let Some(bytes) = answers.next().await {
        pending.extend_from_slice(&bytes.context("the answers broke off: look at the state before you send again")?);
        let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
        let complete = String::from_utf8_lossy(&pending[..end]).into_owned();
        pending.drain(..=end);
        all_done &= complete.lines().all(is_done);
        output::line(&complete)?;
    }
    if all_done { Ok(()) } else { Err(DidNotHold.into()) }
}

fn pump(mut lines: Box<dyn Read + Send>, chunks: &mpsc::Sender<io::Result<Vec<u8>>>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let chunk = match lines.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => Ok(buffer[..read].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if chunks.blocking_send(chunk).is_err() || failed {
            return;
        }
    }
}

/// Whether a reply says that its command is done.
fn is_done(answer: &str) -> bool {
    serde_json::from_str::<Value>(answer).is_ok_and(|answer| answer["result"] == "done")
}

/// A reply to one command, for people.
fn sentence(answer: &Value) -> String {
    match (answer["index"].as_u64(), answer["held"].as_u64(), answer["of"].as_u64()) {
        (Some(index), Some(held), Some(of)) => {
            format!("Done at index {index}, held by {held} of {of} known nodes.")
        }
        (Some(index), _, _) => format!("Done at index {index}."),
        (None, _, _) => answer.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(file: PathBuf) -> Arguments {
        let target = Target { api: "http://127.0.0.1:1".into(), token_file: None, json: false };
        Arguments { command: None, file: Some(file), idempotency_key: None, target }
    }

    #[test]
    fn a_file_is_one_command_over_many_lines_or_a_line_each() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\n \"a\": 1\n}\n").unwrap();
        assert!(
            matches!(arguments(file.path().into()).source().unwrap(), Source::One(text) if text == "{\n \"a\": 1\n}\n")
        );
        std::fs::write(file.path(), "{\"a\": 1}\n").unwrap();
        assert!(matches!(arguments(file.path().into()).source().unwrap(), Source::One(text) if text == "{\"a\": 1}\n"));
        std::fs::write(file.path(), "{\"a\": 1}\n{\"b\": 2}\n").unwrap();
        let Source::Lines(mut lines) = arguments(file.path().into()).source().unwrap() else { panic!("lines") };
        let mut text = String::new();
        lines.read_to_string(&mut text).unwrap();
        assert_eq!(text, "{\"a\": 1}\n{\"b\": 2}\n");
    }

    #[test]
    fn replies_are_sentences_for_people() {
        let answer = serde_json::json!({"result": "done", "index": 5, "held": 2, "of": 3});
        assert_eq!(sentence(&answer), "Done at index 5, held by 2 of 3 known nodes.");
        assert!(is_done(&answer.to_string()));
        assert!(!is_done("{\"result\":\"refused\"}"));
        assert!(!is_done("nonsense"));
    }
}
