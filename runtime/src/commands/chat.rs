//! `lockstep chat`: questions to a model, and its answers as they come.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::client::{Client, Denied, Target};
use super::errors::WrongCall;
use super::node::Signals;
use super::output;
use super::server_sent::ServerSent;

/// Ask a model, and see its answer as it comes.
///
/// Without a message, and on a terminal, it asks for one after the other, and the model is told what was said before.
/// Elsewhere standard input is the message. Any node can be asked, wherever the model runs.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep chat                                         talk with the only model there is, until Ctrl-D
  lockstep chat acme/small-8b 'Why is the sky blue?'    ask once
  lockstep chat acme/small-8b < letter.txt              ask what a file holds
  lockstep chat acme/small-8b Hello --json | jq -r '.choices[0].message.content'")]
pub struct Arguments {
    /// The model; may be left out with the message where only one has an instance.
    model: Option<String>,

    /// What to say to it.
    #[arg(value_name = "MESSAGE")]
    message: Vec<String>,

    #[command(flatten)]
    target: Target,
}

impl Arguments {
    /// Asks once, or as long as there are questions.
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        let message = self.message()?;
        let model = choose(self.model.as_deref(), &models(&client).await?)?;
        let Some(message) = message else { return talk(&client, &model).await };
        let messages = [said("user", &message)];
        if self.target.json {
            let answer = client.json(request(&client, &model, &messages, false)).await?;
            return Ok(output::json(&answer, false)?);
        }
        answer(&client, &model, &messages).await.map(drop)
    }

    /// The one message; none if a person is to be asked for more.
    fn message(&self) -> anyhow::Result<Option<String>> {
        let message = match &self.message[..] {
            [] if io::stdin().is_terminal() && self.target.json => {
                return Err(WrongCall("--json asks once: give a message after the model".into()).into());
            }
            [] if io::stdin().is_terminal() => return Ok(None),
            [] => io::read_to_string(io::stdin()).context("standard input cannot be read as text")?,
            words => words.join(" "),
        };
        match message.trim() {
            "" => Err(WrongCall("the message is empty: give it after the model, or on standard input".into()).into()),
            message => Ok(Some(message.to_owned())),
        }
    }
}

/// The models that have instances.
async fn models(client: &Client) -> anyhow::Result<Vec<String>> {
    let answer = client.json(client.get(client.url(["v1", "models"]))).await?;
    let all = answer["data"].as_array().into_iter().flatten();
    Ok(all.filter_map(|model| model["id"].as_str().map(str::to_owned)).collect())
}

/// The model that is meant, of these that have instances.
fn choose(named: Option<&str>, models: &[String]) -> anyhow::Result<String> {
    let wrong = |why: String| Err(WrongCall(why).into());
    match (named, models) {
        (None, [only]) => Ok(only.clone()),
        (Some(name), _) if models.iter().any(|model| model == name) => Ok(name.to_owned()),
        (None, []) => bail!("no model has an instance: place one with `lockstep place MODEL`"),
        (Some(name), []) => {
            bail!("no instance of {name:?} is placed, nor of another model: see `lockstep models` and `lockstep place`")
        }
        (None, models) => wrong(format!("several models have instances, so name one: {}", models.join(", "))),
        (Some(name), models) => wrong(format!(
            "no instance of {name:?} is placed; these models have one: {}. The model comes before the message",
            models.join(", ")
        )),
    }
}

/// Asks a person at the terminal, until there are no more questions.
async fn talk(client: &Client, model: &str) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut lines = typed_lines();
    let mut messages = Vec::new();
    eprintln!("You talk with {model}. Ctrl-C stops an answer, Ctrl-D ends the talk.");
    loop {
        eprint!("> ");
        let line = tokio::select! {
            line = lines.recv() => line.transpose().context("standard input cannot be read as text")?,
            () = signals.next() => None,
        };
        let Some(line) = line else {
            eprintln!();
            return Ok(());
        };
        if line.trim().is_empty() {
            continue;
        }
        messages.push(said("user", &line));
        let answered = tokio::select! {
            answered = answer(client, model, &messages) => answered.map(Some),
            // Nobody reads on: the node cancels the task.
            () = signals.next() => Ok(None),
        };
        match answered {
            Ok(Some(text)) => messages.push(said("assistant", &text)),
            Ok(None) => {
                output::line("")?;
                messages.pop();
            }
            Err(error) if error.chain().any(|cause| cause.is::<io::Error>()) => return Err(error),
            Err(error) => {
                eprintln!("lockstep: {error:#}");
                messages.pop();
            }
        }
    }
}

/// What is typed, line by line.
fn typed_lines() -> mpsc::Receiver<io::Result<String>> {
    let (lines, typed) = mpsc::channel(1);
    // A thread of its own: a read of standard input cannot be called off.
    std::thread::spawn(move || io::stdin().lines().try_for_each(|line| lines.blocking_send(line)));
    typed
}

fn said(role: &str, text: &str) -> Value {
    json!({ "role": role, "content": text })
}

fn request(client: &Client, model: &str, messages: &[Value], stream: bool) -> reqwest::RequestBuilder {
    let body = json!({ "model": model, "messages": messages, "stream": stream });
    client.post(client.url(["v1", "chat", "completions"])).json(&body)
}

/// Asks, and prints the answer as it comes; all of it.
async fn answer(client: &Client, model: &str, messages: &[Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    let ended = stream(client, model, messages, &mut text).await;
    if !text.is_empty() && !text.ends_with('\n') {
        output::line("")?;
    }
    if ended? == Some(CutOff) {
        eprintln!("(The answer is cut off: it has as many tokens as it may.)");
    }
    Ok(text)
}

/// An answer ended because it may not be longer.
#[derive(Debug, PartialEq, Eq)]
struct CutOff;

async fn stream(client: &Client, model: &str, messages: &[Value], text: &mut String) -> anyhow::Result<Option<CutOff>> {
    let terminal = io::stdout().is_terminal();
    let response = client.succeed(request(client, model, messages, true)).await?;
    let mut parser = ServerSent::default();
    let mut body = response.bytes_stream();
    let mut cut_off = None;
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|_| BrokenOff)?;
        for event in parser.take(&bytes)? {
            match Piece::read(&event.data)? {
                Piece::More { text: more, cut_off: is_cut_off } => {
                    print(&more, terminal)?;
                    text.push_str(&more);
                    cut_off = cut_off.or(is_cut_off.then_some(CutOff));
                }
                Piece::Done => return Ok(cut_off),
            }
        }
    }
    Err(BrokenOff.into())
}

/// The connection ended before the answer did.
#[derive(Debug, thiserror::Error)]
#[error("the node broke off in the middle of the answer: ask again, or ask another node")]
struct BrokenOff;

/// What one event of an answer says.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    More { text: String, cut_off: bool },
    Done,
}

impl Piece {
    fn read(data: &str) -> anyhow::Result<Piece> {
        if data == "[DONE]" {
            return Ok(Piece::Done);
        }
        let chunk: Value = serde_json::from_str(data).context("the node sent a piece of an answer that is no JSON")?;
        if chunk["error"].is_object() {
            return Err(Denied::read(reqwest::StatusCode::OK, data).into());
        }
        let choice = &chunk["choices"][0];
        let text = choice["delta"]["content"].as_str().unwrap_or_default().to_owned();
        Ok(Piece::More { text, cut_off: choice["finish_reason"] == "length" })
    }
}

/// Prints a piece of an answer at once. A model is not to command a terminal.
fn print(text: &str, terminal: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let harmless = |character: &char| !terminal || !character.is_control() || matches!(character, '\n' | '\t');
    write!(out, "{}", text.chars().filter(harmless).collect::<String>())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_model_need_not_be_named() {
        let choose = |named, models: &[&str]| {
            let models: Vec<String> = models.iter().map(|model| (*model).to_owned()).collect();
            super::choose(named, &models).map_err(|error| (error.is::<WrongCall>(), error.to_string()))
        };
        assert_eq!(choose(None, &["a"]), Ok("a".into()));
        assert_eq!(choose(Some("b"), &["a", "b"]), Ok("b".into()));
        let several = "several models have instances, so name one: a, b";
        assert_eq!(choose(None, &["a", "b"]), Err((true, several.into())));
        assert!(choose(Some("hello"), &["a", "b"]).is_err_and(|(wrong, why)| wrong && why.contains("a, b")));
        assert!(choose(None, &[]).is_err_and(|(wrong, why)| !wrong && why.contains("lockstep place")));
    }

    #[test]
    fn pieces_are_text_an_error_or_the_end() {
        let more = |text: &str, cut_off| Piece::More { text: text.into(), cut_off };
        let read = |data: Value| Piece::read(&data.to_string());
        let chunk = |delta, reason| json!({ "choices": [{ "delta": delta, "finish_reason": reason }] });
        assert_eq!(Piece::read("[DONE]").unwrap(), Piece::Done);
        assert_eq!(read(chunk(json!({ "content": " hi" }), Value::Null)).unwrap(), more(" hi", false));
        assert_eq!(read(chunk(json!({}), json!("length"))).unwrap(), more("", true));
        assert_eq!(read(json!({ "choices": [], "usage": {} })).unwrap(), more("", false));
        let failed = read(json!({ "error": { "message": "The runner failed: it crashed." } })).unwrap_err();
        assert_eq!(failed.to_string(), "The runner failed: it crashed.");
        assert!(Piece::read("{").is_err());
    }
}
