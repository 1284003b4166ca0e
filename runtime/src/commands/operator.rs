//! `lockstep forget`, `handover`, `lead-anyway`: the operator's hands on a running cluster.

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use super::client::{Client, Target};
use super::errors::WrongCall;
use super::output;

/// Remove a node from the known ones, so that it counts for no majority any more.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep status               names the nodes
  lockstep forget 5f1c20aa      the first digits are enough, if they are one node's")]
pub struct Forget {
    /// The node's id, or how it begins.
    node: String,

    #[command(flatten)]
    target: Target,
}

/// Let the leader hand leadership to another node, and stay.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep handover
  lockstep handover --api http://127.0.0.1:7071")]
pub struct Handover {
    #[command(flatten)]
    target: Target,
}

/// Let a node lead although it is damaged, or without a majority: a new founding.
///
/// What other nodes hold beyond this node's log will yield to it and be set aside. Use it when they are gone for good.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep lead-anyway --yes --api http://127.0.0.1:7071")]
pub struct LeadAnyway {
    /// Yes, I know what it does.
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    target: Target,
}

impl Forget {
    /// Forgets the node.
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        let node = full_id(&self.node, &client.cluster().await?)?;
        let answer = order(&client, &["v1", "operator", "forget", &node]).await?;
        said(
            &self.target,
            &answer,
            &format!("Node {} is being forgotten: see `lockstep status`.", output::short(&node)),
        )
    }
}

impl Handover {
    /// Hands over.
    pub async fn run(self) -> anyhow::Result<()> {
        let answer = order(&self.target.client()?, &["v1", "operator", "handover"]).await?;
        said(&self.target, &answer, "The leader was asked to hand over: see `lockstep status`.")
    }
}

impl LeadAnyway {
    /// Leads.
    pub async fn run(self) -> anyhow::Result<()> {
        if !self.yes {
            bail!(WrongCall(
                "this founds the cluster anew from this node's log; say --yes if that is what you want".into()
            ));
        }
        let answer = order(&self.target.client()?, &["v1", "operator", "lead-anyway"]).await?;
        said(&self.target, &answer, "The node was asked to lead: see `lockstep status`.")
    }
}

async fn order(client: &Client, segments: &[&str]) -> anyhow::Result<Value> {
    let request = client.post(client.url(segments.iter().copied())).json(&serde_json::json!({}));
    let text = client.succeed(request).await?.text().await?;
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn said(target: &Target, answer: &Value, sentence: &str) -> anyhow::Result<()> {
    if target.json {
        output::json(answer, false)?
    } else {
        output::line(sentence)?
    }
    Ok(())
}

/// The one node of the cluster whose id begins so.
pub fn full_id(beginning: &str, cluster: &Value) -> Result<String, WrongCall> {
    let ids: Vec<&String> = cluster["nodes"].as_object().into_iter().flat_map(|nodes| nodes.keys()).collect();
    let beginning = beginning.to_lowercase();
    let mut found = ids.iter().filter(|id| id.starts_with(&beginning));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok((*id).clone()),
        (Some(_), Some(_)) => {
            Err(WrongCall(format!("more than one node's id begins with {beginning:?}: give more of it")))
        }
        (None, _) => {
            let known: Vec<&str> = ids.iter().map(|id| output::short(id)).collect();
            Err(WrongCall(format!("no node's id begins with {beginning:?}; the nodes are {}", known.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_how_its_id_begins() {
        let cluster = serde_json::json!({"nodes": {"aa11": {}, "aa22": {}, "bb33": {}}});
        assert_eq!(full_id("B", &cluster).unwrap(), "bb33");
        assert!(full_id("aa", &cluster).unwrap_err().to_string().contains("more than one"));
        assert!(full_id("cc", &cluster).unwrap_err().to_string().ends_with("the nodes are aa11, aa22, bb33"));
    }
}
