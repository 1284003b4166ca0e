//! `lockstep models`: the cards that instances are made of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, Target};
use super::errors::WrongCall;
use super::output;

/// Show the models that can be placed, add one, or forget one.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep models
  lockstep models add demo/echo --set tokens_per_second=20
  lockstep models add acme/small-8b --runner openai --set url=http://127.0.0.1:8080/v1
  lockstep models add acme/large-70b --runner mlx --weights 38GiB --layers 80
  lockstep models add acme/small-8b --file card.json
  lockstep models delete acme/small-8b")]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,

    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Add a custom model card, of which each node keeps a copy.
    Add(Box<Add>),
    /// Forget the card of a model that has no instance.
    Delete(Delete),
}

#[derive(Args, Debug)]
struct Add {
    /// The model's id, as its publisher writes it.
    model: String,

    /// Read the whole card from a file of JSON.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "runner", "weights", "layers", "context", "settings"])]
    file: Option<PathBuf>,

    /// The name for people; the id if none is given.
    #[arg(long)]
    name: Option<String>,

    /// Which runner serves it: `echo`, `openai`, or one that the nodes' configuration names.
    #[arg(long, default_value = "echo")]
    runner: String,

    /// How much memory it takes on its nodes: bytes, or with MiB or GiB; next to none if another server holds it.
    #[arg(long, value_name = "SIZE", default_value = "1", value_parser = size)]
    weights: u64,

    /// How many layers it has: the most nodes that it can be spread over.
    #[arg(long, value_name = "N", default_value_t = 1)]
    layers: u32,

    /// The longest context, in tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 8192)]
    context: u32,

    /// What its runners are told, once for each setting.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,

    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Delete {
    /// The model's id.
    model: String,

    #[command(flatten)]
    target: Target,
}

impl Arguments {
    /// Does what is asked; lists the models if nothing is.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.what {
            None => list(&self.target).await,
            Some(What::Add(add)) => add.run().await,
            Some(What::Delete(delete)) => delete.run().await,
        }
    }
}

async fn list(target: &Target) -> anyhow::Result<()> {
    let client = target.client()?;
    let cards = part(&client, "cards").await?;
    if target.json {
        return Ok(output::json(&cards, false)?);
    }
    let instances = part(&client, "instances").await?;
    let Some(cards) = cards.as_object().filter(|cards| !cards.is_empty()) else {
        return Ok(output::line("No model has a card: add one with `lockstep models add MODEL`.")?);
    };
    let mut table = output::table(["model", "runner", "weights", "layers", "context", "instances"]);
    for (model, card) in cards {
        table.add_row(row(model, card, &instances));
    }
    Ok(output::print_table(&table)?)
}

async fn part(client: &Client, part: &str) -> anyhow::Result<Value> {
    client.json(client.get(client.url(["v1", "state", part]))).await
}

fn row(model: &str, card: &Value, instances: &Value) -> [String; 6] {
    let number = |name: &str| card[name].as_u64().unwrap_or_default();
    let its = instances.as_object().into_iter().flatten().filter(|(_, instance)| instance["model"] == model).count();
    [
        model.to_owned(),
        card["runner"].as_str().unwrap_or("-").to_owned(),
        output::bytes(number("weights_bytes")),
        output::count(number("layers")),
        output::count(number("context_tokens")),
        its.to_string(),
    ]
}

impl Add {
    async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        let body = json!({ "model": self.model, "card": self.card()? });
        let answer = client.json(client.post(client.url(["v1", "models"])).json(&body)).await?;
        if self.target.json {
            return Ok(output::json(&answer, false)?);
        }
        Ok(output::line(&format!("{0} is known: run it with `lockstep place {0}`.", self.model))?)
    }

    fn card(&self) -> anyhow::Result<Value> {
        if let Some(file) = &self.file {
            let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
            let malformed = |error| WrongCall(format!("{} is no JSON: {error}", file.display()));
            return Ok(serde_json::from_str(&text).map_err(malformed)?);
        }
        let settings: BTreeMap<&str, &str> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Ok(json!({
            "name": self.name.as_ref().unwrap_or(&self.model),
            "runner": self.runner,
            "weights_bytes": self.weights,
            "layers": self.layers,
            "context_tokens": self.context,
            "settings": settings,
        }))
    }
}

impl Delete {
    async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        // Its slashes are its own, not the path's.
        let url = client.url(["v1", "models", &self.model]);
        let answer = client.json(client.delete(url)).await?;
        if self.target.json {
            return Ok(output::json(&answer, false)?);
        }
        Ok(output::line(&format!("{} is forgotten.", self.model))?)
    }
}

/// `8GiB`, `500 MiB`, `1024`.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "kib" => Some(10),
        "mib" => Some(20),
        "gib" => Some(30),
        "tib" => Some(40),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "a size is a whole number of bytes, or with KiB, MiB, GiB or TiB: 8GiB".to_owned())
}

/// `name=value`.
fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE: url=http://127.0.0.1:8080/v1")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!((size("1024"), size("8GiB"), size("500 mib")), (Ok(1024), Ok(8 << 30), Ok(500 << 20)));
        for bad in ["", "GiB", "1.5GiB", "8GB", "-1", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_setting_is_cut_at_its_first_equals_sign() {
        assert_eq!(setting("url=http://x/?a=b"), Ok(("url".into(), "http://x/?a=b".into())));
        assert!(setting("url").is_err());
    }

    #[test]
    fn a_row_counts_a_models_instances() {
        let card = json!({ "runner": "echo", "weights_bytes": 8_u64 << 30, "layers": 32, "context_tokens": 8192 });
        let instances = json!({ "1": { "model": "m" }, "2": { "model": "n" }, "3": { "model": "m" } });
        let wanted = ["m", "echo", "8.0 GiB", "32", "8\u{202f}192", "2"];
        assert_eq!(row("m", &card, &instances), wanted.map(str::to_owned));
    }
}
