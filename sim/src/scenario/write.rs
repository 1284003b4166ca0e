//! Writing a scenario: what a seed drew, or a shrinker left, as a file that people read and CI replays.

use lockstep_replication::{Config, Span};
use serde::Serialize;
use toml::{Spanned, Table, Value};

use super::{Expect, MANY_EVENTS, Phase, Scenario};
use crate::plan::{Load, MachinePlan, Plan, Timing, Weather};

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
        // Those before the first gap need no words of their own, if there is nothing about them but their number.
        let nodes = plan.machines.iter().zip(1..).take_while(|(machine, number)| machine.number == *number).count();
        let is_plain = |machine: &&MachinePlan| {
            usize::from(machine.number) <= nodes && **machine == MachinePlan::new(machine.number)
        };
        let others = plan.machines.iter().filter(|machine| !is_plain(machine));
        Scenario {
            title: title.to_owned(),
            why: why.to_owned(),
            report: None,
            seed: plan.seed,
            nodes: nodes as u16,
            machines: others.cloned().map(|machine| Spanned::new(0..0, machine)).collect(),
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

    fn until(&self) -> Span {
        self.phases.last().map_or(Span::ZERO, |last| last.get_ref().until)
    }

    /// The text of its file: only what differs from the defaults.
    pub fn to_toml(&self) -> String {
        let mut table = table(self);
        let config = Config { founders: usize::from(self.nodes), ..Config::default() };
        for (key, defaults) in [
            ("config", table_from(&config)),
            ("weather", table_from(&Weather::default())),
            ("timing", table_from(&Timing::default())),
        ] {
            let mut part = table_of(&mut table, key);
            remove_same(&mut part, &defaults);
            if !part.is_empty() {
                table.insert(key.to_owned(), Value::Table(part));
            }
        }
        if let Some(Value::Array(machines)) = table.get_mut("machine") {
            for machine in machines.iter_mut().filter_map(Value::as_table_mut) {
                let number = machine.remove("number");
                remove_same(machine, &table_from(&MachinePlan::new(0)));
                machine.extend(number.map(|number| ("number".to_owned(), number)));
            }
        }
        if let Some(Value::Array(phases)) = table.get_mut("phase") {
            for phase in phases.iter_mut().filter_map(Value::as_table_mut) {
                for load in phase.get_mut("load").and_then(Value::as_array_mut).into_iter().flatten() {
                    if let Value::Table(load) = load {
                        let until = load.get("until") == Some(&Value::String(self.until().exact()));
                        load.retain(|key, _| key != "number" && !(key == "until" && until));
                        remove_same(load, &table_from(&Load::default()));
                    }
                }
                for fault in phase.get_mut("fault").and_then(Value::as_array_mut).into_iter().flatten() {
                    if let Value::Table(fault) = fault
                        && fault.get("fault") == Some(&Value::String("messages".to_owned()))
                    {
                        fault.retain(|key, value| !is_usual(key, value));
                    }
                }
            }
        }
        // What people look for first stands first.
        let first = ["title", "why", "report", "mutant", "seed", "nodes"];
        let lines = first.map(|key| table.remove(key).map_or(String::new(), |value| format!("{key} = {value}\n")));
        let rest = toml::to_string(&table).expect("a table of plain values is TOML");
        let gap = if rest.starts_with('[') { "\n" } else { "" };
        lines.concat() + gap + &rest
    }
}

fn table(scenario: &Scenario) -> Table {
    let mut table = table_from(scenario);
    let usual = [
        ("quiet_after_events", scenario.quiet_after_events == u64::MAX),
        ("events_at_most", scenario.events_at_most == MANY_EVENTS),
        ("on_the_wire", scenario.on_the_wire),
        ("moods", !scenario.moods),
        ("spare_copies", scenario.spare_copies),
    ];
    for (key, _) in usual.into_iter().filter(|(_, usual)| *usual) {
        table.remove(key);
    }
    table
}

fn table_from<T: Serialize>(value: &T) -> Table {
    let json = serde_json::to_value(value).unwrap_or_default();
    match toml_value(json) {
        Some(Value::Table(table)) => table,
        Some(
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_),
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

/// What a fault that strikes messages need not say.
fn is_usual(key: &str, value: &Value) -> bool {
    match key {
        "from" | "to" => value.as_str() == Some("everybody"),
        "kinds" => value.as_array().is_some_and(Vec::is_empty),
        "skip" => value.as_integer() == Some(0),
        "share" => value.as_integer() == Some(1000),
        "lasts" => value.as_str() == Some(Span(u64::MAX).exact().as_str()),
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Fault, Only, Sent, Timed, Who};

    #[test]
    fn what_is_written_reads_back_as_the_same_plan() {
        for seed in 0..300 {
            let mut plan = Plan::drawn(seed);
            if seed % 3 == 0 {
                plan.only.commands = Some([0, 7].into());
                plan.only.lost = Some([Sent { from: 1, to: 2, n: 9 }].into());
            }
            let text = Scenario::of(&plan, "a title", "a reason").to_toml();
            let read = Scenario::parse("written", &text).map_err(|error| format!("{error}\n{text}")).unwrap();
            let mut again = read.plan(seed);
            again.loads.iter_mut().filter(|load| load.until == plan.quiet_from).for_each(|load| {
                load.until = plan.loads[0].until;
            });
            assert_eq!(again, plan, "{text}");
        }
    }

    #[test]
    fn what_is_as_usual_is_not_written() {
        let mut plan = Plan { on_the_wire: true, events_at_most: MANY_EVENTS, ..Plan::calm(7, 3) };
        plan.faults = vec![Timed { at: Span::millis(2500), fault: Fault::Gone { node: Who::LEADER } }];
        plan.loads = vec![Load { commands: 2, ..Load::default() }];
        plan.only = Only::default();
        let expected = "title = \"a title\"\nwhy = \"a reason\"\nseed = 7\nnodes = 3\n\n[[phase]]\n\
                        title = \"faults and commands\"\nuntil = \"5s\"\n\n[[phase.fault]]\nat = \"2500ms\"\n\
                        fault = \"gone\"\nnode = \"leader\"\n\n[[phase.load]]\ncommands = 2\n";
        assert_eq!(Scenario::of(&plan, "a title", "a reason").to_toml(), expected);
    }
}
