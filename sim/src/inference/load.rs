//! Reading a scenario of this world from its file.

use std::path::Path;

use super::plan::{Fault, Plan, Who};
use crate::scenario::ScenarioError;

/// The most machines of a scenario.
const MACHINES_AT_MOST: usize = 50;

/// Whether a file says that this world plays it.
pub fn is_inference(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let table = toml::from_str::<toml::Table>(&text).unwrap_or_default();
    table.get("world").and_then(toml::Value::as_str) == Some("inference")
}

impl Plan {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or is no scenario: then the error names the line and what was expected there.
    pub fn read(path: &Path) -> Result<Plan, ScenarioError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Plan::parse(&file, &text),
            Err(error) => Err(ScenarioError { file, line: None, reason: format!("it cannot be read: {error}") }),
        }
    }

    /// Reads a text; `file` is its name in errors.
    ///
    /// # Errors
    /// The text is no scenario: the error names the line and what was expected there.
    pub fn parse(file: &str, text: &str) -> Result<Plan, ScenarioError> {
        let wrong = |line, reason| ScenarioError { file: file.to_owned(), line, reason };
        let plan: Plan = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|at| text[..at.start].matches('\n').count() + 1);
            wrong(line, error.message().to_owned())
        })?;
        check(&plan).map_err(|reason| wrong(None, reason))?;
        Ok(plan)
    }
}

/// Whether it can be played.
fn check(plan: &Plan) -> Result<(), String> {
    let machines = plan.machines();
    if plan.nodes == 0 || machines > MACHINES_AT_MOST {
        return Err(format!("`nodes` and joiners are {machines} machines, expected 1 to {MACHINES_AT_MOST}"));
    }
    let machine = |node: u16| match usize::from(node) {
        number if number >= 1 && number <= machines => Ok(()),
        number => Err(format!("there is no machine {number}, expected 1 to {machines}")),
    };
    let model = |name: &str| match plan.model(name) {
        Some(_) => Ok(()),
        None => Err(format!("there is no model {name:?}, expected the name of a `[[model]]`")),
    };
    for instance in &plan.instances {
        model(&instance.model)?;
        instance.nodes.iter().try_for_each(|node| machine(*node))?;
    }
    for load in &plan.loads {
        model(&load.model)?;
        load.nodes.iter().try_for_each(|node| machine(*node))?;
        if load.every.0 == 0 || load.tokens == 0 || load.request_bytes == 0 {
            return Err("a load's `every`, `tokens` and `request_bytes` must be more than 0".into());
        }
    }
    for timed in &plan.faults {
        if timed.at > plan.quiet_from {
            return Err(format!("a fault at {} comes after `quiet_from`, {}", timed.at, plan.quiet_from));
        }
        match &timed.fault {
            Fault::Crash { node: Who::Node(node), .. }
            | Fault::KillRunners { node }
            | Fault::HangRunners { node }
            | Fault::GarbageOfRunners { node }
            | Fault::DiskFails { node }
            | Fault::DiskSlow { node, .. } => machine(*node)?,
            Fault::Partition { nodes, .. } => nodes.iter().try_for_each(|node| machine(*node))?,
            Fault::DeleteInstance { instance } if usize::from(*instance) >= plan.instances.len() => {
                return Err(format!(
                    "there is no instance {instance}, expected one less than {}",
                    plan.instances.len()
                ));
            }
            Fault::Crash { node: Who::Part(_), .. }
            | Fault::DeleteInstance { .. }
            | Fault::AddCard { .. }
            | Fault::DeleteCard { .. } => {}
        }
    }
    Ok(())
}
