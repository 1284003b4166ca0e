//! Writing a scenario: what a seed drew, or a shrinker left, as a file that people read and CI replays.

use lockstep_replication::Config;
use serde::Serialize;
use toml::{Spanned, Table, Value};

use super::{Expect, Phase, Scenario};
use crate::plan::{Load, Plan, Timing, Weather};

impl Scenario {
    /// A plan as a scenario of one phase.
    pub fn of(plan: &Plan, title: &str, why: &str) -> Scenario {
        let somewhere = |value| Spanned::new(0..0, value);
        let phase = Phase {
            title: "faults and commands".to_owned(),
            until: plan.quiet_from,
            entries: None,
            loads: plan.loads.iter().cloned().map(somewhere).collect(),
            faults: plan.faults.iter().cloned().map(|timed| Spanned::new(0..0, timed)).collect(),
        };
        Scenario {
            title: title.to_owned(),
            why: why.to_owned(),
            report: None,
            seed: plan.seed,
            nodes: 0,
            machines: plan.machines.iter().cloned().map(|machine| Spanned::new(0..0, machine)).collect(),
            config: plan.config.clone(),
            weather: plan.weather.clone(),
            timing: plan.timing.clone(),
            on_the_wire: plan.on_the_wire,
            moods: plan.moods,
            spare_copies: plan.spare_copies,
            events_at_most: plan.events_at_most,
            quiet_after_events: plan.quiet_after_events,
            mutant: None,
            only: plan.only.clone(),
            phases: vec![Spanned::new(0..0, phase)],
            expect: Expect::default(),
        }
    }

    /// The text of its file: only what differs from the defaults.
    pub fn to_toml(&self) -> String {
        let mut table = table(self);
        let mut config = table_of(&mut table, "config");
        remove_same(&mut config, &table_from(&Config::default()));
        config.insert("founders".to_owned(), Value::Integer(self.config.founders as i64));
        table.insert("config".to_owned(), Value::Table(config));
        for (key, defaults) in [("weather", table_from(&Weather::default())), ("timing", table_from(&Timing::default()))] {
            let mut part = table_of(&mut table, key);
            remove_same(&mut part, &defaults);
            if !part.is_empty() {
                table.insert(key.to_owned(), Value::Table(part));
            }
        }
        if let Some(Value::Array(phases)) = table.get_mut("phase") {
            for load in phases.iter_mut().filter_map(|phase| phase.get_mut("load")?.as_array_mut()).flatten() {
                if let Value::Table(load) = load {
                    remove_same(load, &table_from(&Load::default()));
                }
            }
        }
        toml::to_string(&table).expect("a table of plain values is TOML")
    }
}

fn table(scenario: &Scenario) -> Table {
    let mut table = table_from(scenario);
    // TOML has no numbers beyond 2^63: what is larger means "no end", as the default does.
    for (key, value) in [("quiet_after_events", scenario.quiet_after_events), ("events_at_most", scenario.events_at_most)] {
        if i64::try_from(value).is_err() {
            table.remove(key);
        }
    }
    table
}

fn table_from<T: Serialize>(value: &T) -> Table {
    let json = serde_json::to_value(value).unwrap_or_default();
    match toml_value(json) {
        Some(Value::Table(table)) => table,
        Some(
            Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_),
        )
        | None => Table::new(),
    }
}

/// TOML knows no null: what is nothing is left out.
fn toml_value(json: serde_json::Value) -> Option<Value> {
    Some(match json {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(truth) => Value::Boolean(truth),
        serde_json::Value::Number(number) => Value::Integer(number.as_i64().unwrap_or(i64::MAX)),
        serde_json::Value::String(text) => Value::String(text),
        serde_json::Value::Array(items) => Value::Array(items.into_iter().filter_map(toml_value).collect()),
        serde_json::Value::Object(fields) => {
            Value::Table(fields.into_iter().filter_map(|(key, value)| Some((key, toml_value(value)?))).collect())
        }
    })
}

fn table_of(table: &mut Table, key: &str) -> Table {
    match table.remove(key) {
        Some(Value::Table(part)) => part,
        Some(_) | None => Table::new(),
    }
}

fn remove_same(table: &mut Table, defaults: &Table) {
    table.retain(|key, value| defaults.get(key) != Some(value));
}
