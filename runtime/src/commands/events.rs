//! `lockstep events`: the entries of the log, those that are there and, if asked, those that come.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use futures::StreamExt as _;
use serde_json::Value;

use super::client::{Client, Denied, Target};
use super::output;
use super::server_sent::{Sent, ServerSent};

/// Show entries of the log.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep events --limit 20               the first twenty that the log still holds, or from 0
  lockstep events --since 1200             from index 1200 on
  lockstep events --since 1200 --follow    and those that come, until Ctrl-C
  lockstep events --follow --json          a JSON document a line")]
pub struct Arguments {
    /// The first index to show.
    #[arg(long, value_name = "INDEX")]
    since: Option<u64>,

    /// How many entries at most.
    #[arg(long, default_value_t = 100)]
    limit: u64,

    /// Go on with those that come.
    #[arg(long, conflicts_with = "limit")]
    follow: bool,

    #[command(flatten)]
    target: Target,
}

impl Arguments {
    /// Asks and prints.
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        if self.follow {
            return self.follow(&client).await;
        }
        let mut url = client.url(["v1", "events"]);
        url.query_pairs_mut().append_pair("limit", &self.limit.to_string());
        if let Some(since) = self.since {
            url.query_pairs_mut().append_pair("since", &since.to_string());
        }
        let answer = client.json(client.get(url)).await?;
        if self.target.json {
            return Ok(output::json(&answer, false)?);
        }
        let entries =
            answer.as_array().or_else(|| answer["events"].as_array()).or_else(|| answer["entries"].as_array());
        for entry in entries.into_iter().flatten() {
            output::line(&one_line(entry))?;
        }
        Ok(())
    }

    /// Takes server-sent events, and connects again where they broke off.
    async fn follow(self, client: &Client) -> anyhow::Result<()> {
        let mut since = self.since;
        let mut reached = false;
        loop {
            match self.follow_once(client, &mut since, &mut reached).await {
                Ok(()) => {}
                // Only a node that answered before is waited for.
                Err(error) if error.is::<BrokenOff>() => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn follow_once(&self, client: &Client, since: &mut Option<u64>, reached: &mut bool) -> anyhow::Result<()> {
        let mut url = client.url(["v1", "events"]);
        url.query_pairs_mut().append_pair("follow", "true");
        if let Some(since) = since {
            url.query_pairs_mut().append_pair("since", &since.to_string());
        }
        let request = client.get(url).header("accept", "text/event-stream");
        let response = match client.succeed(request).await {
            Err(error) if *reached && !error.is::<Denied>() => return Err(error.context(BrokenOff)),
            other => other?,
        };
        *reached = true;
        let mut parser = ServerSent::default();
        let mut body = response.bytes_stream();
        while let Some(bytes) = body.next().await {
            for Sent { name, data } in parser.take(&bytes.context(BrokenOff)?)? {
                let content: Value = serde_json::from_str(&data).context("the node sent an event that is no JSON")?;
                match name.as_str() {
                    "" => {
                        *since = content["index"].as_u64().map(|index| index + 1).or(*since);
                        let text = if self.target.json { content.to_string() } else { one_line(&content) };
                        output::line(&text)?;
                    }
                    // This node's branch lost: entries from there on come again, with other contents.
                    "rewound" => {
                        *since = content["next"].as_u64().or(*since);
                        eprintln!(
                            "This node's branch of the log lost: from index {} on it is another.",
                            content["next"]
                        );
                    }
                    "gone" => bail!("the log begins with entry {} by now: follow from there", content["first"]),
                    "failed" => bail!("{}", content["message"].as_str().unwrap_or("the node cannot read its log")),
                    // Newer nodes may have more to say.
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// The connection ended in the middle.
#[derive(Debug, thiserror::Error)]
#[error("the node's events broke off")]
struct BrokenOff;

/// An entry on one line: index, when, what.
pub fn one_line(entry: &Value) -> String {
    let index = entry["index"].as_u64().map_or_else(|| "?".into(), |index| index.to_string());
    let stamp = entry["stamp"].as_u64().map_or_else(String::new, clock_time);
    format!("{index:>8}  {stamp}  {}", entry["body"])
}

/// The time of day, UTC, of milliseconds since 1970.
fn clock_time(millis: u64) -> String {
    let (seconds, millis) = (millis / 1000 % 86_400, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_line_of_index_time_and_body() {
        let entry = serde_json::json!({"index": 7, "stamp": 86_400_000 + 3_661_001, "body": "backed"});
        assert_eq!(one_line(&entry), "       7  01:01:01.001  \"backed\"");
    }
}
