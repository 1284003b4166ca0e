//! Reading a scenario's file: what is wrong in it is said with its line, and what was expected.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use lockstep_replication::Span;
use lockstep_replication::chaos::Mutant;
use lockstep_replication::config::MAY_BE_NOTHING;

use super::Scenario;
use super::words::{helped, line_of};
use crate::faults::Fault;

/// The most machines of a scenario.
const MACHINES_AT_MOST: u16 = 200;

/// The longest scenario: a year.
const LASTS_AT_MOST: Span = Span::seconds(365 * 24 * 3600);

/// A file that is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {reason}", line.map_or(String::new(), |line| format!(":{line}")))]
pub struct ScenarioError {
    /// The file's name.
    pub file: String,
    /// The line, from 1; none if the file cannot be read at all.
    pub line: Option<usize>,
    /// What is wrong and what was expected.
    pub reason: String,
}

/// Something wrong at a place in the text.
struct Wrong(Range<usize>, String);

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or is no scenario: then the error names the line and what was expected there.
    pub fn read(path: &Path) -> Result<Scenario, ScenarioError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Scenario::parse(&file, &text),
            Err(error) => Err(ScenarioError { file, line: None, reason: format!("it cannot be read: {error}") }),
        }
    }

    /// Reads a text; `file` is its name in errors.
    ///
    /// # Errors
    /// The text is no scenario: the error names the line and what was expected there.
    pub fn parse(file: &str, text: &str) -> Result<Scenario, ScenarioError> {
        parsed(text).map_err(|Wrong(at, reason)| {
            let line = line_of(text, at.start, &reason);
            ScenarioError { file: file.to_owned(), line: Some(line), reason: helped(reason) }
        })
    }
}

fn parsed(text: &str) -> Result<Scenario, Wrong> {
    let at_error = |error: toml::de::Error| Wrong(error.span().unwrap_or(0..0), error.message().to_owned());
    let raw: toml::Table = toml::from_str(text).map_err(at_error)?;
    if raw.is_empty() {
        let reason = "the file is empty, expected a scenario: `title`, `why`, `nodes` and at least one `[[phase]]`";
        return Err(Wrong(0..0, reason.into()));
    }
    let mut scenario: Scenario = toml::from_str(text).map_err(at_error)?;
    if raw.get("config").and_then(|config| config.get("founders")).is_none() {
        scenario.config.founders = usize::from(scenario.nodes);
    }
    check(&scenario, &raw, text)?;
    Ok(scenario)
}

/// Whether it can be played.
fn check(scenario: &Scenario, raw: &toml::Table, text: &str) -> Result<(), Wrong> {
    let key_after = |begin: usize, name: &str| {
        let is_it = |line: &str| line.split(['=', ']']).next().is_some_and(|key| key.trim_matches(['[', ' ']) == name);
        let before = text[begin..].split_inclusive('\n').take_while(|line| !is_it(line));
        let start = begin + before.map(str::len).sum::<usize>();
        let start = if start == text.len() { 0 } else { start };
        start..start
    };
    let key = |name: &str| key_after(0, name);
    if scenario.title.trim().is_empty() || scenario.why.trim().is_empty() {
        let name = if scenario.title.trim().is_empty() { "title" } else { "why" };
        return Err(Wrong(key(name), format!("`{name}` is empty, expected a sentence")));
    }
    if let Some(name) = scenario.mutant.as_ref().filter(|name| Mutant::named(name).is_none()) {
        let reason = format!("there is no mutant {name:?}, expected one that `cargo sim mutants --list` names");
        return Err(Wrong(key("mutant"), reason));
    }
    check_config(raw, &|name| key_after(key("config").start, name))?;
    check_weather(scenario, &key)?;
    let machines = check_machines(scenario, key("nodes"))?;
    check_phases(scenario, &machines)?;
    check_expectations(scenario, &machines, &key)
}

fn check_config(raw: &toml::Table, key: &dyn Fn(&str) -> Range<usize>) -> Result<(), Wrong> {
    let config = raw.get("config").and_then(toml::Value::as_table);
    let is_nothing = |value: &toml::Value| {
        value.as_integer() == Some(0) || value.as_str().and_then(|span| span.parse().ok()) == Some(Span::ZERO)
    };
    let wrong = |(name, value): (&String, &toml::Value)| is_nothing(value) && !MAY_BE_NOTHING.contains(&name.as_str());
    match config.into_iter().flatten().find(|setting| wrong(*setting)) {
        None => Ok(()),
        Some((name, value)) => Err(Wrong(key(name), format!("`{name}` is {value}, expected more than nothing"))),
    }
}

fn check_weather(scenario: &Scenario, key: &dyn Fn(&str) -> Range<usize>) -> Result<(), Wrong> {
    let weather = &scenario.weather;
    let chances = [
        ("slow", weather.slow),
        ("loss", weather.loss),
        ("gossip_loss", weather.gossip_loss),
        ("duplicates", weather.duplicates),
    ];
    match chances.into_iter().find(|(_, chance)| *chance > 1000) {
        None => Ok(()),
        Some((name, chance)) => {
            Err(Wrong(key(name), format!("`{name}` is {chance}, expected 0 to 1000: so many messages in a thousand")))
        }
    }
}

fn check_machines(scenario: &Scenario, nodes: Range<usize>) -> Result<BTreeSet<u16>, Wrong> {
    if scenario.nodes > MACHINES_AT_MOST || scenario.nodes == 0 && scenario.machines.is_empty() {
        return Err(Wrong(nodes, format!("`nodes` is {}, expected 1 to {MACHINES_AT_MOST}", scenario.nodes)));
    }
    let ends = scenario.phases.last().map_or(Span(u64::MAX), |last| last.get_ref().until);
    let mut all: BTreeSet<u16> = (1..=scenario.nodes).collect();
    let mut listed = BTreeSet::new();
    for machine in &scenario.machines {
        let (at, machine) = (machine.span(), machine.get_ref());
        let number = machine.number;
        if !(1..=MACHINES_AT_MOST).contains(&number) {
            return Err(Wrong(at, format!("`number` is {number}, expected 1 to {MACHINES_AT_MOST}")));
        }
        if !listed.insert(number) {
            return Err(Wrong(at, format!("`number` is {number} once more, expected each machine once")));
        }
        if machine.starts > ends {
            let reason = format!("`starts` is {}, expected at most {ends}, when the last phase ends", machine.starts);
            return Err(Wrong(at, reason));
        }
        all.insert(number);
    }
    for machine in &scenario.machines {
        if let Some(other) = machine.get_ref().twin_of.filter(|other| !all.contains(other)) {
            let reason = format!("`twin_of` is {other}, expected the number of another machine: {}", listing(&all));
            return Err(Wrong(machine.span(), reason));
        }
    }
    Ok(all)
}

fn check_phases(scenario: &Scenario, machines: &BTreeSet<u16>) -> Result<(), Wrong> {
    if scenario.phases.is_empty() {
        return Err(Wrong(0..0, "there is no phase, expected at least one `[[phase]]`".into()));
    }
    let mut begins = Span::ZERO;
    for spanned in &scenario.phases {
        let phase = spanned.get_ref();
        if phase.until <= begins {
            let reason = format!("`until` is {}, expected a time after {begins}, when the phase begins", phase.until);
            return Err(Wrong(spanned.span(), reason));
        }
        if phase.until > LASTS_AT_MOST {
            let reason = format!("`until` is {}, expected at most {LASTS_AT_MOST}, a year", phase.until);
            return Err(Wrong(spanned.span(), reason));
        }
        let lasts = phase.until - begins;
        for load in &phase.loads {
            let (at, load) = (load.span(), load.get_ref());
            let wrong = |reason: String| Err(Wrong(at.clone(), reason));
            let zero = [("every", load.every.0), ("burst", load.burst), ("keys", u64::from(load.keys))];
            if let Some((name, _)) = zero.into_iter().find(|(_, value)| *value == 0) {
                return wrong(format!("`{name}` is 0, expected more than that"));
            }
            let hundredths = [("named", load.named), ("additions", load.additions)];
            if let Some((name, value)) = hundredths.into_iter().find(|(_, value)| *value > 100) {
                return wrong(format!("`{name}` is {value}, expected 0 to 100: so many commands in a hundred"));
            }
            if load.value_bytes_min > load.value_bytes {
                let (least, most) = (load.value_bytes_min, load.value_bytes);
                return wrong(format!("`value_bytes_min` is {least}, expected at most `value_bytes`, which is {most}"));
            }
            if load.from >= lasts {
                return wrong(format!("`from` is {}, expected less than the {lasts} that the phase lasts", load.from));
            }
            known(&at, "nodes", machines, load.nodes.iter().copied())?;
        }
        for fault in &phase.faults {
            let (at, timed) = (fault.span(), fault.get_ref());
            if timed.at > lasts {
                let reason = format!("`at` is {}, expected at most the {lasts} that the phase lasts", timed.at);
                return Err(Wrong(at, reason));
            }
            if let Fault::Messages { share: share @ 1001.., .. } = &timed.fault {
                return Err(Wrong(at, format!("`share` is {share}, expected 0 to 1000: so many in a thousand")));
            }
            for (field, number) in timed.fault.named_machines() {
                known(&at, field, machines, [number].into_iter())?;
            }
        }
        begins = phase.until;
    }
    Ok(())
}

fn check_expectations(
    scenario: &Scenario,
    machines: &BTreeSet<u16>,
    key: &dyn Fn(&str) -> Range<usize>,
) -> Result<(), Wrong> {
    let expect = &scenario.expect;
    if let Some(number) = expect.machines().into_iter().find(|number| !machines.contains(number)) {
        let reason = format!("`expect` names machine {number}, expected one of {}", listing(machines));
        let at = ["expect.lost", "expect.caught_up", "never_lost"].into_iter().map(key).find(|at| at.start > 0);
        return Err(Wrong(at.unwrap_or(0..0), reason));
    }
    for (name, band) in &expect.counters {
        let at = [key(name), key(&format!("expect.counters.{name}")), key("expect.counters")];
        let at = at.into_iter().find(|at| at.start > 0).unwrap_or(0..0);
        if !crate::report::is_counter(name) {
            let names: Vec<String> = crate::report::counter_names().iter().map(|name| format!("`{name}`")).collect();
            return Err(Wrong(at, format!("unknown counter `{name}`, expected one of {}", names.join(", "))));
        }
        if let (Some(least), Some(most)) = (band.at_least, band.at_most)
            && least > most
        {
            let reason = format!("`{name}` is to be at least {least} and at most {most}, which nothing is");
            return Err(Wrong(at, reason));
        }
    }
    Ok(())
}

fn known(
    at: &Range<usize>,
    field: &str,
    machines: &BTreeSet<u16>,
    mut numbers: impl Iterator<Item = u16>,
) -> Result<(), Wrong> {
    numbers.find(|number| !machines.contains(number)).map_or(Ok(()), |number| {
        let reason = format!("`{field}` names machine {number}, expected one of {}", listing(machines));
        Err(Wrong(at.clone(), reason))
    })
}

fn listing(machines: &BTreeSet<u16>) -> String {
    machines.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
