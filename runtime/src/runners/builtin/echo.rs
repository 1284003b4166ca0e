//! The runner `echo`: says what it was told, a word at a time. Deterministic, for demonstrations and tests.

use std::time::Duration;

use lockstep_inference::id::TaskId;
use lockstep_inference::runner::FromRunner;
use lockstep_inference::state::TaskKind;
use lockstep_inference::transient::{StopReason, Usage};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Answered, Assignment, Began, Failed, Mouth, Service, Work};

const SETTINGS: [&str; 3] = ["tokens_per_second", "first_token_ms", "load_ms"];

/// Loading is reported in so many steps.
const STEPS: u8 = 10;

/// What it was told to be like.
#[derive(Debug)]
pub struct Echo {
    rank: u16,
    /// None: as fast as it can.
    tokens_per_second: Option<f64>,
    first_token: Duration,
    load: Duration,
}

impl Service for Echo {
    const TASKS: u32 = 256;

    fn new(assignment: Assignment) -> Result<Echo, String> {
        let Assignment { rank, mut settings, .. } = assignment;
        let tokens_per_second = settings.take("tokens_per_second", "a number above 0")?;
        if tokens_per_second.is_some_and(|speed: f64| !(1e-3..=1e9).contains(&speed)) {
            return Err("the card's setting `tokens_per_second` must be from 0.001 to 1000000000".into());
        }
        let first_token = settings.take("first_token_ms", "a whole number of milliseconds")?;
        let load = settings.take("load_ms", "a whole number of milliseconds")?;
        settings.finish(&SETTINGS)?;
        let millis = |millis: Option<u64>| Duration::from_millis(millis.unwrap_or(0));
        Ok(Echo { rank, tokens_per_second, first_token: millis(first_token), load: millis(load) })
    }

    async fn load(&self, mouth: &Mouth) -> Result<(), String> {
        for step in 0..STEPS {
            mouth.say(FromRunner::Loading { percent: step * (100 / STEPS) }).await;
            sleep(self.load / u32::from(STEPS)).await;
        }
        Ok(())
    }

    async fn work(&self, work: Work, mouth: &Mouth) -> Result<Answered, Failed> {
        let Work { task, kind, input } = work;
        let most = match kind {
            TaskKind::Chat { max_tokens } => max_tokens as usize,
            TaskKind::Embedding | TaskKind::Image { .. } => return Err(Failed::request("echo only chats")),
        };
        let (words, prompt_tokens) = words(&input).map_err(Failed::request)?;
        let told = words.len().min(most);
        let prefill = Began::now();
        sleep(self.first_token).await;
        let prefill = prefill.span("prefill");
        let decode = Began::now();
        self.tell(task, &words[..told], mouth).await;
        mouth.say(FromRunner::Trace { task, spans: vec![prefill, decode.span("decode")] }).await;
        let stop = if told < words.len() { StopReason::Length } else { StopReason::Stop };
        Ok(Answered { stop, usage: Usage { prompt_tokens, completion_tokens: told as u64 } })
    }
}

impl Echo {
    /// All ranks take their time; the first one talks.
    async fn tell(&self, task: TaskId, words: &[String], mouth: &Mouth) {
        let began = Instant::now();
        for (n, word) in words.iter().enumerate() {
            if let Some(speed) = self.tokens_per_second {
                sleep_until(began + Duration::from_secs_f64(n as f64 / speed)).await;
            }
            if self.rank == 0 {
                let text = if n == 0 { word.clone() } else { format!(" {word}") };
                mouth.say(FromRunner::Token { task, text }).await;
            }
        }
    }
}

/// The words of the last message of a user, and how many all messages have. A picture counts as a word that tells the
/// length of its address.
fn words(input: &Value) -> Result<(Vec<String>, u64), String> {
    let messages = input["messages"].as_array().ok_or("the request has no `messages`")?;
    let all: Vec<Vec<String>> = messages.iter().map(|message| words_of(&message["content"])).collect();
    let prompt_tokens = all.iter().map(Vec::len).sum::<usize>() as u64;
    let last = messages.iter().rposition(|message| message["role"] == "user");
    let last = last.ok_or("the request has no message of a user")?;
    Ok((all.into_iter().nth(last).unwrap_or_default(), prompt_tokens))
}

/// A message's content is a text, or a list of parts.
fn words_of(content: &Value) -> Vec<String> {
    let split = |text: &str| text.split_whitespace().map(ToOwned::to_owned).collect();
    match content.as_array() {
        None => split(content.as_str().unwrap_or_default()),
        Some(parts) => parts
            .iter()
            .flat_map(|part| match part["image_url"]["url"].as_str() {
                Some(url) => vec![format!("[image:{}]", url.len())],
                None => split(part["text"].as_str().unwrap_or_default()),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_users_words_are_said_again() {
        let input = json!({"messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "first"},
            {"role": "user", "content": [
                {"type": "text", "text": "what is\nthis?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
            {"role": "assistant", "content": "a"},
        ]});
        let (words, prompt_tokens) = words(&input).unwrap();
        assert_eq!(words, ["what", "is", "this?", "[image:26]"]);
        assert_eq!(prompt_tokens, 2 + 1 + 4 + 1);
    }

    #[test]
    fn a_request_without_a_users_message_is_an_error() {
        assert_eq!(words(&json!({})).unwrap_err(), "the request has no `messages`");
        assert_eq!(words(&json!({"messages": []})).unwrap_err(), "the request has no message of a user");
    }
}
