//! The runner `openai`: hands its tasks to a server that speaks OpenAI's API, and streams the answers back.

use std::time::Duration;

use bytes::Bytes;
use lockstep_inference::id::TaskId;
use lockstep_inference::runner::FromRunner;
use lockstep_inference::state::TaskKind;
use lockstep_inference::transient::{StopReason, Usage};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, redirect};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::sse::Events;
use super::{Answered, Assignment, Began, Failed, Mouth, Service, Work};

const SETTINGS: [&str; 4] = ["url", "model", "api_key_env", "timeout_s"];

/// What `api_key_env` must end with. Who may add cards chooses the server as well: it must not get any other secret out
/// of this node's environment.
const KEY_NAME: &str = "API_KEY";

/// How long a server may say nothing, if the card does not tell. Long prompts take their time before the first token.
const TIMEOUT_S: u64 = 120;

/// How long connecting may take: servers are near.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// How long a server that does not listen yet, or answers that it is not ready, is waited for.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// So many bytes of an error are read.
const ERROR_BYTES: usize = 16 << 10;

/// So many characters of an error are shown.
const ERROR_CHARS: usize = 300;

/// The server, and how it is asked.
#[derive(Debug)]
pub struct OpenAi {
    http: Client,
    url: String,
    model: String,
    key: Option<String>,
    timeout: Duration,
}

/// Why the server did not answer.
#[derive(Debug)]
struct Unanswered {
    reason: String,
    /// Whether it may do so in a moment.
    may_come: bool,
    /// Whether it says that the request is at fault.
    request: bool,
}

/// What a server answers where the request is at fault. That a model or a key is unknown there is the card's fault.
const FAULTS_OF_REQUESTS: [StatusCode; 4] = [
    StatusCode::BAD_REQUEST,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
];

impl Service for OpenAi {
    const TASKS: u32 = 64;

    fn new(assignment: Assignment) -> Result<OpenAi, String> {
        let Assignment { model, ranks, mut settings, .. } = assignment;
        if ranks != 1 {
            return Err(format!("one server serves one rank, and this instance has {ranks}"));
        }
        let url = settings.take::<String>("url", "a URL")?;
        let url = base(&url.ok_or("the card lacks the setting `url`, such as http://127.0.0.1:8080/v1")?)?;
        let model = settings.take("model", "text")?.unwrap_or_else(|| model.to_string());
        let key = settings.take::<String>("api_key_env", "text")?.map(|name| key(&name)).transpose()?;
        let timeout_s = settings.take("timeout_s", "a whole number of seconds")?.unwrap_or(TIMEOUT_S);
        settings.finish(&SETTINGS)?;
        // A redirection would take prompts and key to who knows where; a proxy is not asked for servers that are near.
        let http = Client::builder().no_proxy().redirect(redirect::Policy::none()).connect_timeout(CONNECTS_WITHIN);
        let http = http.build().map_err(|error| format!("no HTTP client can be made: {error}"))?;
        Ok(OpenAi { http, url, model, key, timeout: Duration::from_secs(timeout_s) })
    }

    async fn load(&self, mouth: &Mouth) -> Result<(), String> {
        mouth.say(FromRunner::Loading { percent: 0 }).await;
        let until = Instant::now() + READY_WITHIN.min(self.timeout);
        loop {
            match self.send(self.http.get(format!("{}/models", self.url))).await {
                Ok(_) => return Ok(()),
                Err(unanswered) if !unanswered.may_come || Instant::now() >= until => return Err(unanswered.reason),
                Err(_) => sleep(ASK_EVERY).await,
            }
        }
    }

    async fn work(&self, work: Work, mouth: &Mouth) -> Result<Answered, Failed> {
        let Work { task, kind, mut input } = work;
        match kind {
            TaskKind::Chat { .. } => {}
            TaskKind::Embedding | TaskKind::Image { .. } => return Err(Failed::request("this runner only chats")),
        }
        let request = input.as_object_mut().ok_or_else(|| Failed::request("the request is no JSON object"))?;
        request.insert("model".into(), self.model.clone().into());
        request.insert("stream".into(), true.into());
        request.insert("stream_options".into(), json!({"include_usage": true}));
        let prefill = Began::now();
        let sent = self.send(self.http.post(format!("{}/chat/completions", self.url)).json(&input)).await;
        let mut response = sent.map_err(|Unanswered { reason, request, .. }| Failed { reason, request })?;
        self.must_stream(&response)?;
        let mut answer = Answer { task, first: None, prefill, stop: None, usage: None, pieces: 0 };
        let mut events = Events::default();
        // Some servers end an answer without its last mark, but none without saying why it stopped.
        while let Some(piece) = self.piece(&mut response).await? {
            events.add(&piece).map_err(|reason| format!("the server at {}: {reason}", self.url))?;
            while let Some(data) = events.next() {
                if data == "[DONE]" {
                    return Ok(answer.end(self, mouth).await?);
                }
                answer.go_on(&data, self, mouth).await?;
            }
        }
        Ok(answer.end(self, mouth).await?)
    }
}

/// Where the API begins, without a slash at its end.
fn base(text: &str) -> Result<String, String> {
    let wrong =
        |why: &str| format!("the card's setting `url` must be such as http://127.0.0.1:8080/v1; {text:?} {why}");
    let url = Url::parse(text.trim()).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    match url.scheme() {
        "http" => Ok(url.as_str().trim_end_matches('/').to_owned()),
        "https" => {
            Err(wrong("asks for TLS, which this runner does not speak: name a proxy's plain side on this machine"))
        }
        _ => Err(wrong("is none that this runner speaks")),
    }
}

fn key(name: &str) -> Result<String, String> {
    if !name.ends_with(KEY_NAME) {
        return Err(format!(
            "the card's setting `api_key_env` must name a variable that ends with {KEY_NAME}, this is {name:?}"
        ));
    }
    std::env::var(name).map_err(|_| format!("the variable {name} is not set in this node's environment"))
}

impl OpenAi {
    /// Asks; anything but success is an error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Unanswered> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let answered = tokio::time::timeout(self.timeout, request.send()).await;
        let mut response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let may_come = error.is_connect();
                let reason = self.broke_off("cannot be reached", error);
                return Err(Unanswered { reason, may_come, request: false });
            }
            Err(_) => return Err(Unanswered { reason: self.too_slow(), may_come: false, request: false }),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let may_come =
            matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
        let said = self.error_text(&mut response).await;
        let reason =
            format!("the server at {} answered {status}{}{said}", self.url, if said.is_empty() { "" } else { ": " });
        Err(Unanswered { reason, may_come, request: FAULTS_OF_REQUESTS.contains(&status) })
    }

    fn must_stream(&self, response: &Response) -> Result<(), String> {
        let form = response.headers().get(CONTENT_TYPE).and_then(|form| form.to_str().ok()).unwrap_or("nothing known");
        if form.starts_with("text/event-stream") {
            return Ok(());
        }
        Err(format!("the server at {} did not answer with a stream of events, but with {form}", self.url))
    }

    /// The next piece of the answer; none at its end.
    async fn piece(&self, response: &mut Response) -> Result<Option<Bytes>, String> {
        match tokio::time::timeout(self.timeout, response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(self.broke_off("broke off in the middle of its answer", error)),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// What the server says went wrong, in one line.
    async fn error_text(&self, response: &mut Response) -> String {
        let mut bytes = Vec::new();
        while let Ok(Some(piece)) = self.piece(response).await {
            bytes.extend_from_slice(&piece);
            if bytes.len() > ERROR_BYTES {
                break;
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let parsed: Value = serde_json::from_str(&text).unwrap_or_default();
        shown(said(&parsed).unwrap_or(&text))
    }

    fn too_slow(&self) -> String {
        format!("the server at {} said nothing for {} s", self.url, self.timeout.as_secs())
    }

    fn broke_off(&self, how: &str, error: reqwest::Error) -> String {
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        format!("the server at {} {how}: {cause}", self.url)
    }
}

/// The sentence in an error of OpenAI's form.
fn said(error: &Value) -> Option<&str> {
    let error = &error["error"];
    error["message"].as_str().or(error.as_str())
}

fn shown(text: &str) -> String {
    text.trim().chars().map(|char| if char.is_control() { ' ' } else { char }).take(ERROR_CHARS).collect()
}

/// An answer as far as it has come.
struct Answer {
    task: TaskId,
    prefill: Began,
    /// When it began to come.
    first: Option<Began>,
    stop: Option<StopReason>,
    usage: Option<Usage>,
    pieces: u64,
}

impl Answer {
    async fn go_on(&mut self, data: &str, server: &OpenAi, mouth: &Mouth) -> Result<(), String> {
        let url = &server.url;
        let chunk: Value =
            serde_json::from_str(data).map_err(|_| format!("the server at {url} sent an event that is no JSON"))?;
        if !chunk["error"].is_null() {
            let reason = shown(said(&chunk).unwrap_or("an error without a message"));
            return Err(format!("the server at {url} broke off in the middle of its answer: {reason}"));
        }
        if let Some(usage) = chunk["usage"].as_object() {
            let tokens = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
            self.usage =
                Some(Usage { prompt_tokens: tokens("prompt_tokens"), completion_tokens: tokens("completion_tokens") });
        }
        let choice = &chunk["choices"][0];
        if let Some(text) = choice["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
            if self.first.is_none() {
                self.first = Some(Began::now());
                mouth.say(FromRunner::Trace { task: self.task, spans: vec![self.prefill.span("prefill")] }).await;
            }
            self.pieces += 1;
            mouth.say(FromRunner::Token { task: self.task, text: text.to_owned() }).await;
        }
        match choice["finish_reason"].as_str() {
            None => {}
            Some("length") => self.stop = Some(StopReason::Length),
            Some(_) => self.stop = Some(StopReason::Stop),
        }
        Ok(())
    }

    /// No more comes.
    async fn end(self, server: &OpenAi, mouth: &Mouth) -> Result<Answered, String> {
        let Some(stop) = self.stop else {
            return Err(format!("the server at {} broke off in the middle of its answer: it just ended", server.url));
        };
        if let Some(first) = self.first {
            mouth.say(FromRunner::Trace { task: self.task, spans: vec![first.span("decode")] }).await;
        }
        // Where the server does not count, a piece is a token, as a rule.
        let usage = self.usage.unwrap_or(Usage { prompt_tokens: 0, completion_tokens: self.pieces });
        Ok(Answered { stop, usage })
    }
}

#[cfg(test)]
mod tests;
