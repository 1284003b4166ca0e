//! The model that `lockstep up` places, so that its cluster answers at once.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;

use super::client::{Client, Denied};
use super::instances::status;

/// What it is called.
pub const MODEL: &str = "echo";

/// Its pace: slow enough to be seen as a stream.
const TOKENS_PER_SECOND: &str = "20";

/// How often something is tried that the cluster may not be ready for.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// Makes the model known and places it, unless that was done when the data was made; waits until it answers at this node.
pub async fn place(client: &Client, within: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let why = match step(client).await {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => why,
            // No node has said yet how much room it has, say.
            Err(error) if error.is::<Denied>() => error.to_string(),
            Err(error) => return Err(error),
        };
        if began.elapsed() > within {
            bail!("{why}");
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Does what is to be done next; why the model does not answer yet, if so.
async fn step(client: &Client) -> anyhow::Result<Option<String>> {
    let all = client.json(client.get(client.url(["v1", "instances"]))).await?;
    let mut its = all["instances"].as_array().into_iter().flatten().filter(|instance| instance["model"] == MODEL);
    if let Some(instance) = its.next() {
        let ready = instance["ready"] == true || its.any(|other| other["ready"] == true);
        return Ok((!ready).then(|| format!("its runner is {}", status(&instance["ranks"][0]))));
    }
    let card = json!({
        "name": "Echo", "weights_bytes": 1, "layers": 1, "context_tokens": 8192,
        "runner": "echo", "settings": { "tokens_per_second": TOKENS_PER_SECOND },
    });
    let added = client.post(client.url(["v1", "models"])).json(&json!({ "model": MODEL, "card": card }));
    match client.json(added).await {
        Err(error) if !is_there(&error) => return Err(error),
        // Whoever gave this name to a card of another kind gets that one.
        Ok(_) | Err(_) => {}
    }
    let placed = client.post(client.url(["v1", "instances", "place"])).json(&json!({ "model": MODEL }));
    let placed = client.json(placed).await?;
    // The next look is not to miss it and place another one.
    let mut look = client.url(["v1", "instances"]);
    look.query_pairs_mut().append_pair("at_least", &placed["index"].to_string());
    client.json(client.get(look)).await?;
    Ok(Some("its runner has not started".into()))
}

fn is_there(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Denied>().is_some_and(|denied| denied.code == "card_exists")
}

/// What a person can type to be answered by this node, part by part.
pub fn curl(api: &str) -> String {
    format!("curl -N {api}/v1/chat/completions -H 'content-type: application/json' -d '{QUESTION}'")
}

const QUESTION: &str =
    r#"{"model": "echo", "stream": true, "messages": [{"role": "user", "content": "Any node answers, word by word"}]}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_for_the_model_and_a_shell_reads_it_as_it_is() {
        assert_eq!(serde_json::from_str::<serde_json::Value>(QUESTION).unwrap()["model"], MODEL);
        assert!(!QUESTION.contains('\''));
    }
}
