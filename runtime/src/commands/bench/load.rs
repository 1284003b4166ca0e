//! Puts a workload into a cluster through its public API, and says how fast that went.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use indicatif::ProgressBar;
use lockstep_inference::workload::Workload;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

use super::super::client::Client;

/// The workload is the same each time.
const SEED: u64 = 1;

/// How many commands go into one piece of the request's body.
const COMMANDS_A_CHUNK: usize = 256;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    result: Cow<'a, str>,
}

/// Puts so many commands in; how long it took from the first one sent to the last answer. Each must be done.
pub async fn load(client: &Client, commands: u64, bar: &ProgressBar) -> anyhow::Result<Duration> {
    // Written before the clock starts: the node is measured, not whoever makes commands up.
    let chunks = tokio::task::spawn_blocking(move || lines(commands)).await?;
    let began = Instant::now();
    let body = futures::stream::iter(chunks.into_iter().map(Ok::<Bytes, std::convert::Infallible>));
    let request = client
        .post(client.url(["v1", "commands"]))
        .header(CONTENT_TYPE, "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(body));
    let mut answers = client.succeed(request).await?.bytes_stream();
    let mut pending = Vec::new();
    let mut done = 0;
    while let Some(bytes) = answers.next().await {
        pending.extend_from_slice(&bytes.context("the answers broke off")?);
        let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
        for line in pending[..end].split(|byte| *byte == b'\n') {
            let is_done = serde_json::from_slice::<Answer>(line).is_ok_and(|answer| answer.result == "done");
            ensure!(is_done, "command {done} is not done: {}", String::from_utf8_lossy(line));
            done += 1;
        }
        pending.drain(..=end);
        bar.set_position(done);
    }
    ensure!(done == commands, "only {done} of {commands} commands were answered");
    Ok(began.elapsed())
}

/// The first so many commands of the workload, a line each.
fn lines(commands: u64) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut chunk = Vec::new();
    for (n, command) in Workload::new(SEED).take(commands as usize).enumerate() {
        serde_json::to_writer(&mut chunk, &command).expect("commands are written into memory");
        chunk.push(b'\n');
        if (n + 1).is_multiple_of(COMMANDS_A_CHUNK) {
            chunks.push(Bytes::from(std::mem::take(&mut chunk)));
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk.into());
    }
    chunks
}

#[cfg(test)]
mod tests {
    use lockstep_inference::command::Command;

    use super::*;

    #[test]
    fn every_line_is_a_command_and_none_is_missing() {
        let bytes: Vec<u8> = lines(1000).concat();
        let text = String::from_utf8(bytes).unwrap();
        let commands: Vec<Command> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(commands, Workload::new(SEED).take(1000).collect::<Vec<_>>());
    }
}
