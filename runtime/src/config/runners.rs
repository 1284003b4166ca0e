//! The programs that serve as runners on this node: `[runners.NAME]` with a `command` each. In a file, or by `--set`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::BadConfig;
use super::layers::{Layers, Origin};
use super::setting::Setting as _;
use crate::runners::BUILT_IN;

/// What the keys of these settings begin with.
const SECTION: &str = "runners.";

/// What they end with.
const COMMAND: &str = ".command";

/// Takes the runners out of what was given, and notes where each came from. What is left is unknown.
pub(super) fn take(
    layers: &mut Layers,
    origins: &mut BTreeMap<String, Origin>,
) -> Result<BTreeMap<String, Vec<String>>, BadConfig> {
    let mut runners = BTreeMap::new();
    let keys: Vec<String> = layers.given.keys().filter(|key| key.starts_with(SECTION)).cloned().collect();
    for key in keys {
        let Some(name) = key.strip_prefix(SECTION).and_then(|rest| rest.strip_suffix(COMMAND)) else { continue };
        let Some((raw, origin)) = layers.given.remove(&key) else { continue };
        check_name(name).map_err(|why| BadConfig(format!("{origin}: a runner cannot be called `{name}`: {why}")))?;
        let wrong = |expected: &str| BadConfig(format!("{origin}: `{key}` must be {expected}, this is {raw}"));
        let mut command: Vec<String> = Vec::new();
        command.set(&raw).map_err(|_| wrong("a list of texts, such as [\"python3\", \"runner.py\"]"))?;
        if command.first().is_none_or(String::is_empty) {
            return Err(wrong("a program and its arguments, such as [\"python3\", \"runner.py\"]"));
        }
        runners.insert(name.to_owned(), command);
        origins.insert(key, origin);
    }
    Ok(runners)
}

/// The key under which an unknown one below `[runners]` should have been; none for others.
pub(super) fn hint(key: &str) -> Option<String> {
    let name = key.strip_prefix(SECTION)?.split('.').next()?;
    Some(format!("; did you mean `{SECTION}{name}{COMMAND}`?"))
}

/// The runners as TOML, each with where it came from.
pub(super) fn show(runners: &BTreeMap<String, Vec<String>>, origins: &BTreeMap<String, Origin>) -> String {
    let mut text = String::new();
    for (name, command) in runners {
        let origin = origins.get(&format!("{SECTION}{name}{COMMAND}")).map(Origin::to_string).unwrap_or_default();
        let command = command.show().unwrap_or_default();
        let _ = write!(text, "\n[{SECTION}{name}]\ncommand = {command}  # from {origin}\n");
    }
    text
}

/// Names serve as directories, and as keys without quotes.
fn check_name(name: &str) -> Result<(), &'static str> {
    if BUILT_IN.contains(&name) {
        return Err("that one is built in");
    }
    if name.is_empty() || !name.chars().all(|char| char.is_ascii_alphanumeric() || char == '-' || char == '_') {
        return Err("take letters, digits, `-` and `_`");
    }
    Ok(())
}
