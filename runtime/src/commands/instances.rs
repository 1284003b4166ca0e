//! `lockstep instances`: what runs where, how far it is, and its end.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::Target;
use super::errors::WrongCall;
use super::output;

/// Show what runs where, or end an instance.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep instances
  lockstep instances --json | jq '.instances[] | select(.ready)'
  lockstep instances show 4f       the ranks of one; the first digits of its id are enough
  lockstep instances delete 4f     with its runners and tasks")]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,

    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show an instance's ranks, and what each says of itself.
    Show(One),
    /// End an instance, its runners and its tasks.
    Delete(One),
}

#[derive(Args, Debug)]
struct One {
    /// The instance's id, or how it begins.
    instance: String,

    #[command(flatten)]
    target: Target,
}

impl Arguments {
    /// Does what is asked; lists the instances if nothing is.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.what {
            None => list(&self.target).await,
            Some(What::Show(one)) => one.show().await,
            Some(What::Delete(one)) => one.delete().await,
        }
    }
}

async fn list(target: &Target) -> anyhow::Result<()> {
    let client = target.client()?;
    let answer = client.json(client.get(client.url(["v1", "instances"]))).await?;
    if target.json {
        return Ok(output::json(&answer, false)?);
    }
    let instances: Vec<&Value> = answer["instances"].as_array().into_iter().flatten().collect();
    if instances.is_empty() {
        return Ok(output::line("There is no instance: place one with `lockstep place MODEL`.")?);
    }
    let mut table = output::table(["instance", "model", "nodes", "live", "done", "failed", "cancelled", "is"]);
    for instance in instances {
        table.add_row(row(instance));
    }
    Ok(output::print_table(&table)?)
}

impl One {
    async fn show(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        let answer = client.json(client.get(client.url(["v1", "instances"]))).await?;
        let instance = find(&self.instance, &answer)?;
        if self.target.json {
            return Ok(output::json(instance, false)?);
        }
        let mut table = output::table(["rank", "node", "runner", "is"]);
        for (n, rank) in ranks(instance).enumerate() {
            let text = |name: &str| rank[name].as_str().unwrap_or("-").to_owned();
            table.add_row([n.to_string(), output::short(&text("node")).to_owned(), text("runner"), status(rank)]);
        }
        Ok(output::print_table(&table)?)
    }

    async fn delete(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        let answer = client.json(client.get(client.url(["v1", "instances"]))).await?;
        let id = find(&self.instance, &answer)?["id"].as_str().unwrap_or_default();
        let answer = client.json(client.delete(client.url(["v1", "instances", id]))).await?;
        if self.target.json {
            return Ok(output::json(&answer, false)?);
        }
        Ok(output::line(&format!("Instance {id} is gone."))?)
    }
}

/// The one instance whose id begins so.
fn find<'a>(beginning: &str, answer: &'a Value) -> Result<&'a Value, WrongCall> {
    let beginning = beginning.to_lowercase();
    let begins = |instance: &&Value| instance["id"].as_str().is_some_and(|id| id.starts_with(&beginning));
    let mut found = answer["instances"].as_array().into_iter().flatten().filter(begins);
    match (found.next(), found.next()) {
        (Some(instance), None) => Ok(instance),
        (Some(_), Some(_)) => {
            Err(WrongCall(format!("more than one instance's id begins with {beginning:?}: give more of it")))
        }
        (None, _) => Err(WrongCall(format!("no instance's id begins with {beginning:?}: see `lockstep instances`"))),
    }
}

fn ranks(instance: &Value) -> impl Iterator<Item = &Value> {
    instance["ranks"].as_array().into_iter().flatten()
}

fn row(instance: &Value) -> [String; 8] {
    let text = |name: &str| instance[name].as_str().unwrap_or("-").to_owned();
    let count = |name: &str| output::count(instance["tasks"][name].as_u64().unwrap_or_default());
    let nodes: Vec<&str> = ranks(instance).filter_map(|rank| rank["node"].as_str().map(output::short)).collect();
    // What holds it up: the first rank that is not ready.
    let is = match instance["ready"].as_bool() {
        Some(true) => "ready".into(),
        _ => ranks(instance).map(status).find(|is| is != "ready").unwrap_or_default(),
    };
    [
        output::short(&text("id")).to_owned(),
        text("model"),
        nodes.join(", "),
        count("live"),
        count("done"),
        count("failed"),
        count("cancelled"),
        is,
    ]
}

/// How far a rank's runner is, in words.
pub fn status(rank: &Value) -> String {
    if rank["lost"] == true {
        return "on a lost node".to_owned();
    }
    let status = &rank["status"];
    if let Some(percent) = status["loading"]["percent"].as_u64() {
        return format!("loading, {percent} %");
    }
    if let Some(reason) = status["failed"]["reason"].as_str() {
        return format!("failed: {reason}");
    }
    status.as_str().map_or_else(|| "gone".to_owned(), |word| word.replace('_', " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(id: &str, ready: bool, statuses: &[Value]) -> Value {
        let ranks: Vec<Value> = statuses
            .iter()
            .map(|status| json!({ "node": "aaaaaaaaaa", "lost": status == "lost", "status": status }))
            .collect();
        let tasks = json!({ "live": 1, "done": 2000, "failed": 3, "cancelled": 4 });
        json!({ "id": id, "model": "m", "ready": ready, "tasks": tasks, "ranks": ranks })
    }

    #[test]
    fn a_row_says_what_holds_an_instance_up() {
        let is = |ready, statuses: &[Value]| row(&instance("0123456789", ready, statuses))[7].clone();
        assert_eq!(is(true, &[json!("running"), json!("ready")]), "ready");
        assert_eq!(is(false, &[json!("ready"), json!({ "loading": { "percent": 35 } })]), "loading, 35 %");
        assert_eq!(is(false, &[json!({ "failed": { "reason": "no such program" } })]), "failed: no such program");
        assert_eq!(is(false, &[json!("warming_up")]), "warming up");
        assert_eq!(is(false, &[json!("ready"), json!("lost")]), "on a lost node");
        let row = row(&instance("0123456789", true, &[json!("ready"), json!("ready")]));
        let wanted = ["01234567", "m", "aaaaaaaa, aaaaaaaa", "1", "2\u{202f}000", "3", "4", "ready"];
        assert_eq!(row, wanted.map(str::to_owned));
    }

    #[test]
    fn an_instance_is_found_by_how_its_id_begins() {
        let answer = json!({ "instances": [instance("aa11", true, &[]), instance("aa22", true, &[])] });
        assert_eq!(find("AA2", &answer).unwrap()["id"], "aa22");
        assert!(find("aa", &answer).unwrap_err().to_string().starts_with("more than one"));
        assert!(find("b", &answer).unwrap_err().to_string().starts_with("no instance's"));
    }
}
