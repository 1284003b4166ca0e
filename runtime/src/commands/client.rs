//! Asks a running node over its HTTP API, and turns what can go wrong into sentences.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use reqwest::header::AUTHORIZATION;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::errors::WrongCall;

/// Which node to ask, and in which form to answer.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// The node's API.
    #[arg(long, value_name = "URL", env = "LOCKSTEP_API", default_value = "http://127.0.0.1:7070")]
    pub api: String,

    /// A file with the API's token, where the node asks for one.
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Print one JSON document, and nothing else, on standard output.
    #[arg(long)]
    pub json: bool,
}

/// A node that can be asked.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// The node answered that it will not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// The HTTP status.
    pub status: u16,
    /// The API's name for the reason.
    pub code: String,
    /// The reason, as a sentence.
    pub message: String,
}

impl Target {
    /// The node that is meant.
    pub fn client(&self) -> anyhow::Result<Client> {
        let token = match &self.token_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("the token file {} cannot be read", path.display()))?;
                Some(text.trim().to_owned())
            }
        };
        Ok(Client { http: reqwest::Client::new(), base: base(&self.api)?, token })
    }
}

/// The URL of an API that is given as a URL or as an address.
fn base(api: &str) -> Result<Url, WrongCall> {
    let wrong = |why: &str| WrongCall(format!("--api must be a URL such as http://127.0.0.1:7070; {api:?} {why}"));
    if api.starts_with("https://") {
        return Err(wrong("asks for TLS, which a node does not speak: put a proxy in front and name its plain side"));
    }
    let url = if api.contains("://") { api.to_owned() } else { format!("http://{api}") };
    let url = Url::parse(&url).map_err(|error| wrong(&format!("is none: {error}")))?;
    if url.scheme() != "http" || url.host().is_none() {
        return Err(wrong("is none"));
    }
    Ok(url)
}

impl Client {
    /// A node of this machine, by its address.
    pub fn local(address: std::net::SocketAddr) -> Client {
        let base = Url::parse(&format!("http://{address}")).expect("an address makes a URL");
        Client { http: reqwest::Client::new(), base, token: None }
    }

    /// The URL of these path segments, each escaped as it needs.
    pub fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        url
    }

    /// A GET.
    pub fn get(&self, url: Url) -> RequestBuilder {
        self.signed(self.http.get(url))
    }

    /// A POST.
    pub fn post(&self, url: Url) -> RequestBuilder {
        self.signed(self.http.post(url))
    }

    /// A DELETE.
    pub fn delete(&self, url: Url) -> RequestBuilder {
        self.signed(self.http.delete(url))
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// Sends; a node that cannot be reached is an error.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.map_err(|error| self.failed(&error))
    }

    /// Sends, and takes anything but success as [`Denied`].
    pub async fn succeed(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = self.send(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        Err(Denied::read(status, &text).into())
    }

    /// Sends, and reads the answer as JSON.
    pub async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.succeed(request).await?;
        let text = response.text().await.map_err(|error| self.failed(&error))?;
        serde_json::from_str(&text).with_context(|| format!("{} did not answer with JSON: is it a node?", self.base))
    }

    /// The cluster as the node sees it.
    pub async fn cluster(&self) -> anyhow::Result<Value> {
        self.json(self.get(self.url(["v1", "cluster"]))).await
    }

    /// The replicated state, as the node has applied it.
    pub async fn state(&self) -> anyhow::Result<Value> {
        self.json(self.get(self.url(["v1", "state"]))).await
    }

    fn failed(&self, error: &reqwest::Error) -> anyhow::Error {
        let base = self.base.as_str().trim_end_matches('/');
        if error.is_connect() {
            return anyhow::anyhow!(
                "cannot reach a node at {base}: is it running? Start one with `lockstep up`, or name another by --api"
            );
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        anyhow::anyhow!("the node at {base} broke off: {cause}")
    }
}

impl Denied {
    /// What a node's refusal says.
    pub fn read(status: StatusCode, text: &str) -> Denied {
        let parsed: Value = serde_json::from_str(text).unwrap_or_default();
        // A refused command answers in the form of command replies, all else as an error.
        let part = |name: &str, flat: &str| {
            parsed["error"][name].as_str().or_else(|| parsed[flat].as_str()).map(ToOwned::to_owned)
        };
        let message = part("message", "reason").unwrap_or_else(|| match text.trim() {
            "" => format!("the node answered {status}"),
            text => format!("the node answered {status}: {}", text.chars().take(200).collect::<String>()),
        });
        Denied { status: status.as_u16(), code: part("code", "code").unwrap_or_default(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(api: &str) -> Target {
        Target { api: api.into(), token_file: None, json: false }
    }

    #[test]
    fn an_api_may_be_named_by_url_or_address_and_segments_are_escaped() {
        for api in ["http://127.0.0.1:7070", "127.0.0.1:7070", "http://127.0.0.1:7070/"] {
            let client = target(api).client().unwrap();
            assert_eq!(client.url(["v1", "state", "a/b c"]).as_str(), "http://127.0.0.1:7070/v1/state/a%2Fb%20c");
        }
    }

    #[test]
    fn what_is_no_url_is_a_wrong_call() {
        for api in ["https://x", "ftp://x", "http://", "::::"] {
            let error = target(api).client().expect_err(api);
            assert!(error.is::<WrongCall>(), "{api}: {error}");
        }
    }

    #[test]
    fn refusals_are_read_from_errors_and_from_command_replies() {
        let read = |text| Denied::read(StatusCode::CONFLICT, text);
        assert_eq!(read(r#"{"error":{"code":"a","message":"It is so."}}"#).message, "It is so.");
        let refused = read(r#"{"result":"refused","code":"b","reason":"No."}"#);
        assert_eq!((refused.code.as_str(), refused.message.as_str()), ("b", "No."));
        assert_eq!(read("").message, "the node answered 409 Conflict");
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_named_with_what_to_do() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = Client::local(address).cluster().await.expect_err("nobody is there");
        assert!(error.to_string().starts_with(&format!("cannot reach a node at http://{address}: is it running?")));
    }
}
