//! `lockstep status`: what a node knows of itself and its cluster.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::Target;
use super::output;

/// Show what a node knows of itself and its cluster.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep status
  lockstep status --api http://127.0.0.1:7071
  lockstep status --json | jq .ready")]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
}

impl Arguments {
    /// Asks and prints.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = self.target.client()?.cluster().await?;
        if self.target.json {
            return Ok(output::json(&cluster, false)?);
        }
        for sentence in sentences(&cluster) {
            output::line(&sentence)?;
        }
        output::line("")?;
        let mut table = output::table(["node", "", "known", "connected", "behind", "heard", "round trip"]);
        for row in nodes(&cluster) {
            table.add_row(row);
        }
        Ok(output::print_table(&table)?)
    }
}

/// The word for what a node is: leader, follower, or seeking a leader.
pub fn role(cluster: &Value) -> &'static str {
    let role = &cluster["role"];
    if role["leading"].is_object() {
        "leader"
    } else if role["following"].is_object() {
        "follower"
    } else {
        "seeking"
    }
}

/// What matters of the node itself, a sentence each.
fn sentences(cluster: &Value) -> Vec<String> {
    let id = |value: &Value| value.as_str().map(output::short).unwrap_or("nobody").to_owned();
    let number = |name: &str| cluster[name].as_u64().unwrap_or_default();
    let mut said = vec![match role(cluster) {
        "leader" => format!("Node {} leads.", id(&cluster["me"])),
        "follower" => format!("Node {} follows {}.", id(&cluster["me"]), id(&cluster["leader"])),
        _ => format!("Node {} knows no leader.", id(&cluster["me"])),
    }];
    said.push(match cluster["not_ready"].as_str() {
        Some(why) => format!("Not ready: {}.", why.trim_end_matches('.')),
        None => "Ready.".into(),
    });
    let (next, head) = (number("next"), number("head_next"));
    said.push(match (next, head.saturating_sub(next)) {
        (0, 0) => "Its log is empty.".into(),
        (next, 0) => format!("Its state stands at the head, index {}.", next.saturating_sub(1)),
        (0, behind) => format!("Its state is empty, {} entries behind the head.", output::count(behind)),
        (next, behind) => {
            format!("Its state stands at index {}, {} entries behind the head.", next - 1, output::count(behind))
        }
    });
    if let Some(catch_up) = cluster["catch_up"].as_object() {
        let amount = |name: &str| catch_up.get(name).and_then(Value::as_u64).unwrap_or_default();
        let path = catch_up.get("path").and_then(Value::as_str).unwrap_or("?");
        said.push(format!(
            "It catches up ({path}): {} of {}, {} entries to go.",
            output::bytes(amount("bytes")),
            output::bytes(amount("bytes_of")),
            output::count(amount("entries_behind"))
        ));
    }
    let part = |name: &str| cluster["reach"][name].as_u64().unwrap_or_default();
    let (reached, known) = (part("reached"), part("known"));
    if reached * 2 <= known && known > 0 {
        said.push(match role(cluster) {
            "seeking" => format!("It reaches {reached} of {known} known nodes, which is no majority."),
            _ => format!(
                "It reaches {reached} of {known} known nodes, which is no majority: what is done now is held by {reached} \
                 of {known}, and may be set aside when the others are met again."
            ),
        });
        said.push(
            "If a node is gone for good: `lockstep forget NODE`; if a majority is: `lockstep lead-anyway --yes`."
                .into(),
        );
    } else if reached < known {
        said.push(format!("It reaches {reached} of {known} known nodes."));
    }
    if role(cluster) != "seeking" && cluster["backed"] == false {
        said.push(
            "The session is not backed: fewer than most known nodes confirmed it, and what is done may be set aside."
                .into(),
        );
    }
    if cluster["damaged"] == true {
        said.push(
            "It lost synced entries: it neither leads nor confirms until it is whole, or you say `lockstep lead-anyway \
             --yes`."
                .into(),
        );
    }
    let aside = cluster["set_aside"].as_array().map_or(0, Vec::len);
    if aside > 0 {
        said.push(format!("{aside} set-aside file(s) wait for you: `lockstep aside list`."));
    }
    said
}

/// A row for each node: the leader first, then by id.
fn nodes(cluster: &Value) -> Vec<[String; 7]> {
    let head = cluster["head_next"].as_u64().unwrap_or_default();
    let yes = |value: &Value| if *value == true { "yes" } else { "no" }.to_owned();
    let span = |number: &Value, unit: fn(u64) -> Duration| {
        number.as_u64().map_or_else(|| "-".into(), |number| output::duration(unit(number)))
    };
    let mut rows = Vec::new();
    for (id, node) in cluster["nodes"].as_object().into_iter().flatten() {
        let me = cluster["me"] == **id;
        let mut part = match (cluster["leader"] == **id, me) {
            (true, true) => "leader, this one",
            (true, false) => "leader",
            (false, true) => "this one",
            (false, false) => "",
        }
        .to_owned();
        if node["lost"] == true {
            part = format!("{part} lost").trim_start().to_owned();
        }
        let stored = if me { cluster["synced"].as_u64() } else { node["stored"].as_u64() };
        let behind = stored.map_or_else(|| "-".into(), |stored| output::count(head.saturating_sub(stored)));
        let connected = if me { "-".into() } else { yes(&node["connected"]) };
        rows.push([
            output::short(id).to_owned(),
            part,
            yes(&node["known"]),
            connected,
            behind,
            span(&node["heard_ago_ms"], Duration::from_millis),
            span(&node["round_trip_us"], Duration::from_micros),
        ]);
    }
    rows.sort_by_key(|row| !row[1].starts_with("leader"));
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn follower() -> Value {
        json!({
            "me": "aaaaaaaaaa", "role": {"following": {"clock": 3}}, "leader": "bbbbbbbbbb", "backed": false,
            "reach": {"known": 2, "reached": 2}, "next": 5, "synced": 5,
            "head_next": 1205, "not_ready": "it is 1200 entries behind", "damaged": false,
            "catch_up": {"path": "snapshot", "bytes": 1024, "bytes_of": 4096, "entries_behind": 1200},
            "nodes": {
                "aaaaaaaaaa": {"known": true, "connected": false},
                "bbbbbbbbbb": {"known": true, "connected": true, "stored": 1205, "heard_ago_ms": 12, "lost": false},
            },
        })
    }

    #[test]
    fn a_node_that_catches_up_says_so_in_sentences() {
        assert_eq!(
            sentences(&follower()),
            [
                "Node aaaaaaaa follows bbbbbbbb.",
                "Not ready: it is 1200 entries behind.",
                "Its state stands at index 4, 1\u{202f}200 entries behind the head.",
                "It catches up (snapshot): 1.0 KiB of 4.0 KiB, 1\u{202f}200 entries to go.",
                "The session is not backed: fewer than most known nodes confirmed it, and what is done may be set aside.",
            ]
        );
    }

    #[test]
    fn whoever_reaches_no_majority_says_by_how_many_new_commands_are_held_though_its_session_is_backed() {
        let mut cluster = follower();
        cluster["backed"] = true.into();
        cluster["reach"] = json!({"known": 3, "reached": 3});
        assert!(!sentences(&cluster).iter().any(|sentence| sentence.contains("reaches")));
        cluster["reach"] = json!({"known": 3, "reached": 2});
        assert_eq!(sentences(&cluster).pop().unwrap(), "It reaches 2 of 3 known nodes.");
        cluster["reach"] = json!({"known": 4, "reached": 2});
        let said = sentences(&cluster).join(" ");
        assert!(
            said.contains("2 of 4 known nodes, which is no majority: what is done now is held by 2 of 4"),
            "{said}"
        );
        assert!(said.contains("`lockstep forget NODE`") && said.contains("`lockstep lead-anyway --yes`"), "{said}");
        cluster["role"] = json!("seeking");
        let said = sentences(&cluster).join(" ");
        assert!(said.contains("2 of 4 known nodes, which is no majority. If a node"), "{said}");
    }

    #[test]
    fn the_leader_comes_first_among_the_nodes() {
        let rows = nodes(&follower());
        assert_eq!(rows[0], ["bbbbbbbb", "leader", "yes", "yes", "0", "12.0 ms", "-"].map(str::to_owned));
        assert_eq!(rows[1], ["aaaaaaaa", "this one", "yes", "-", "1\u{202f}200", "-", "-"].map(str::to_owned));
    }
}
