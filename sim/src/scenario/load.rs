//! Reading a scenario's file: what is wrong in it is said with its line, and what was expected.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use lockstep_replication::Span;

use super::Scenario;

/// The most machines of a scenario.
const MACHINES_AT_MOST: u16 = 200;

/// A file that is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct ScenarioError {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
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
        let text = std::fs::read_to_string(path)
            .map_err(|error| ScenarioError { file: file.clone(), line: 1, reason: format!("cannot be read: {error}") })?;
        Scenario::parse(&file, &text)
    }

    /// Reads a text; `file` is its name in errors.
    ///
    /// # Errors
    /// The text is no scenario: the error names the line and what was expected there.
    pub fn parse(file: &str, text: &str) -> Result<Scenario, ScenarioError> {
        parsed(text).map_err(|Wrong(at, reason)| {
            let line = text[..at.start.min(text.len())].matches('\n').count() + 1;
            ScenarioError { file: file.to_owned(), line, reason }
        })
    }
}

fn parsed(text: &str) -> Result<Scenario, Wrong> {
    if text.trim().is_empty() {
        return Err(Wrong(0..0, "the file is empty: a scenario has a title, why, nodes and phases".into()));
    }
    let at_error = |error: toml::de::Error| Wrong(error.span().unwrap_or(0..0), error.message().to_owned());
    let mut scenario: Scenario = toml::from_str(text).map_err(at_error)?;
    let raw: toml::Table = toml::from_str(text).map_err(at_error)?;
    if raw.get("config").and_then(|config| config.get("founders")).is_none() {
        scenario.config.founders = usize::from(scenario.nodes);
    }
    check(&scenario, text)?;
    Ok(scenario)
}

/// Whether it can be played.
fn check(scenario: &Scenario, text: &str) -> Result<(), Wrong> {
    let key = |name: &str| {
        let at = text.lines().position(|line| line.split('=').next().is_some_and(|key| key.trim() == name));
        let start = text.lines().take(at.unwrap_or_default()).map(|line| line.len() + 1).sum();
        start..start
    };
    if scenario.title.trim().is_empty() || scenario.why.trim().is_empty() {
        let name = if scenario.title.trim().is_empty() { "title" } else { "why" };
        return Err(Wrong(key(name), format!("`{name}` is empty: say it in a sentence")));
    }
    let machines = check_machines(scenario, key("nodes"))?;
    check_phases(scenario, &machines, key("phase"))?;
    let named = scenario.expect.machines();
    if let Some(number) = named.into_iter().find(|number| !machines.contains(number)) {
        return Err(Wrong(key("node"), format!("`expect` names machine {number}, and there is none of that number")));
    }
    let unknown = scenario.expect.counters.keys().find(|name| !crate::report::is_counter(name));
    unknown.map_or(Ok(()), |name| {
        let names = crate::report::counter_names().join(", ");
        Err(Wrong(key(name), format!("there is no counter `{name}`, expected one of {names}")))
    })
}

fn check_machines(scenario: &Scenario, nodes: Range<usize>) -> Result<BTreeSet<u16>, Wrong> {
    if scenario.nodes > MACHINES_AT_MOST || scenario.nodes == 0 && scenario.machines.is_empty() {
        return Err(Wrong(nodes, format!("`nodes` is {}, expected 1 to {MACHINES_AT_MOST}", scenario.nodes)));
    }
    let mut all: BTreeSet<u16> = (1..=scenario.nodes).collect();
    let mut listed = BTreeSet::new();
    for machine in &scenario.machines {
        let (at, machine) = (machine.span(), machine.get_ref());
        if !(1..=MACHINES_AT_MOST).contains(&machine.number) || !listed.insert(machine.number) {
            let number = machine.number;
            return Err(Wrong(at, format!("machine {number}: expected a number of 1 to {MACHINES_AT_MOST}, each once")));
        }
        all.insert(machine.number);
    }
    for machine in &scenario.machines {
        if let Some(other) = machine.get_ref().twin_of.filter(|other| !all.contains(other)) {
            return Err(Wrong(machine.span(), format!("`twin_of` is {other}, and there is no machine of that number")));
        }
    }
    Ok(all)
}

fn check_phases(scenario: &Scenario, machines: &BTreeSet<u16>, nowhere: Range<usize>) -> Result<(), Wrong> {
    if scenario.phases.is_empty() {
        return Err(Wrong(nowhere, "there is no phase, expected at least one `[[phase]]`".into()));
    }
    let mut begins = Span::ZERO;
    for spanned in &scenario.phases {
        let phase = spanned.get_ref();
        if phase.until <= begins {
            let reason = format!("`until` is {}, expected a time after {}, when the phase begins", phase.until, begins);
            return Err(Wrong(spanned.span(), reason));
        }
        let lasts = phase.until - begins;
        for load in &phase.loads {
            let (at, load) = (load.span(), load.get_ref());
            if load.every == Span::ZERO || load.burst == 0 || load.keys == 0 {
                return Err(Wrong(at, "`every`, `burst` and `keys` of a load are 0, expected more than that".into()));
            }
            if load.value_bytes_min > load.value_bytes {
                return Err(Wrong(at, "`value_bytes_min` is more than `value_bytes`".into()));
            }
            if load.from >= lasts {
                return Err(Wrong(at, format!("`from` is {}, expected less than the phase's {lasts}", load.from)));
            }
            known(&at, machines, load.nodes.iter().copied())?;
        }
        for fault in &phase.faults {
            let (at, timed) = (fault.span(), fault.get_ref());
            if timed.at > lasts {
                return Err(Wrong(at, format!("`at` is {}, expected at most the phase's {lasts}", timed.at)));
            }
            known(&at, machines, timed.fault.machines().into_iter())?;
        }
        begins = phase.until;
    }
    Ok(())
}

fn known(
    at: &Range<usize>,
    machines: &BTreeSet<u16>,
    mut numbers: impl Iterator<Item = u16>,
) -> Result<(), Wrong> {
    match numbers.find(|number| !machines.contains(number)) {
        None => Ok(()),
        Some(number) => {
            let all: Vec<String> = machines.iter().map(u16::to_string).collect();
            Err(Wrong(at.clone(), format!("there is no machine {number}, expected one of {}", all.join(", "))))
        }
    }
}
