//! `lockstep place`: a model onto nodes that have room for it, or onto named ones; or only where it would go.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, Target};
use super::operator::full_id;
use super::output;

/// Run a model on nodes that have room for it.
///
/// It goes to one node if it fits there, else to as few as can hold it, a rank each.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep models                              the models that have cards
  lockstep place acme/small-8b --preview       where it would go, without placing it
  lockstep place acme/small-8b --ranks 2       on two nodes
  lockstep place acme/small-8b --on 5f1c20aa   on this one; the first digits of its id are enough")]
pub struct Arguments {
    /// The model.
    model: String,

    /// On how many nodes, instead of as few as have room.
    #[arg(long, value_name = "N", conflicts_with = "on")]
    ranks: Option<u32>,

    /// On these nodes, rank by rank, whatever room they have.
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    on: Vec<String>,

    /// Only say where it would go.
    #[arg(long, conflicts_with = "on")]
    preview: bool,

    #[command(flatten)]
    target: Target,
}

impl Arguments {
    /// Places, or says where.
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        if self.preview {
            return self.preview(&client).await;
        }
        let answer = if self.on.is_empty() {
            let request = client.post(client.url(["v1", "instances", "place"]));
            client.json(request.json(&json!({ "model": self.model, "ranks": self.ranks }))).await?
        } else {
            let cluster = client.cluster().await?;
            let nodes = self.on.iter().map(|node| full_id(node, &cluster)).collect::<Result<Vec<_>, _>>()?;
            let request = client.post(client.url(["v1", "instances"]));
            client.json(request.json(&json!({ "model": self.model, "nodes": nodes }))).await?
        };
        if self.target.json {
            return Ok(output::json(&answer, false)?);
        }
        Ok(output::line(&sentence(&self.model, &answer["instance"]))?)
    }

    async fn preview(&self, client: &Client) -> anyhow::Result<()> {
        let mut url = client.url(["v1", "instances", "preview"]);
        url.query_pairs_mut().append_pair("model", &self.model);
        if let Some(ranks) = self.ranks {
            url.query_pairs_mut().append_pair("ranks", &ranks.to_string());
        }
        let answer = client.json(client.get(url)).await?;
        if self.target.json {
            return Ok(output::json(&answer, false)?);
        }
        let mut table = output::table(["rank", "node", "needs", "free"]);
        for (n, rank) in answer["ranks"].as_array().into_iter().flatten().enumerate() {
            let bytes = |name: &str| rank[name].as_u64().map_or_else(|| "-".into(), output::bytes);
            let node = rank["node"].as_str().map_or("-", output::short).to_owned();
            table.add_row([n.to_string(), node, bytes("needs_bytes"), bytes("free_bytes")]);
        }
        Ok(output::print_table(&table)?)
    }
}

/// What was placed where.
fn sentence(model: &str, instance: &Value) -> String {
    let id = instance["id"].as_str().unwrap_or("?");
    let nodes: Vec<&str> = instance["ranks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|rank| rank["node"].as_str().map(output::short))
        .collect();
    match &nodes[..] {
        [] => format!("{model} is placed as instance {id}: see `lockstep instances`."),
        [node] => format!("{model} is placed on node {node} as instance {id}: see `lockstep instances`."),
        _ => format!("{model} is placed on nodes {} as instance {id}: see `lockstep instances`.", nodes.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_placed_is_said_with_its_nodes() {
        let placed = |nodes: &[&str]| {
            let ranks: Vec<Value> = nodes.iter().map(|node| json!({ "node": node })).collect();
            sentence("m", &json!({ "id": "a1", "ranks": ranks }))
        };
        assert_eq!(placed(&["aaaaaaaaaa"]), "m is placed on node aaaaaaaa as instance a1: see `lockstep instances`.");
        assert_eq!(
            placed(&["aaaaaaaaaa", "bbbbbbbbbb"]),
            "m is placed on nodes aaaaaaaa, bbbbbbbb as instance a1: see `lockstep instances`."
        );
        assert_eq!(sentence("m", &json!({ "id": "a1" })), "m is placed as instance a1: see `lockstep instances`.");
    }
}
