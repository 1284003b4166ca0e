//! The layers that a configuration is given in: a file, the environment, flags. What they mean is decided elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::BadConfig;
use super::setting::Raw;

/// What the names of our variables in the environment begin with.
const PREFIX: &str = "LOCKSTEP_";

/// Variables that are no settings of a node: a switch, and what commands other than `node` read.
const NO_SETTINGS: [&str; 3] = ["DISABLE_SNAPSHOT_FETCH", "CONFIG", "TOKEN_FILE"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File {
        /// Which.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// This variable of the environment.
    Environment(String),
    /// This flag.
    Flag(String),
    /// Not given, but it follows from the setting of this key.
    Derived(&'static str),
}

/// What was given, the last layer's word for each key.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// By key; keys of a section are `section.key`.
    pub given: BTreeMap<String, (Raw, Origin)>,
    /// Whether `LOCKSTEP_DISABLE_SNAPSHOT_FETCH` is set to something but 0.
    pub disable_snapshot_fetch: bool,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Origin::Environment(name) => write!(f, "{name} in the environment"),
            Origin::Flag(name) => write!(f, "{name}"),
            Origin::Derived(key) => write!(f, "{key}"),
        }
    }
}

impl Layers {
    /// Adds the values of a file; later layers win over them.
    pub fn file(&mut self, path: &Path) -> Result<(), BadConfig> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| BadConfig(format!("the configuration {} cannot be read: {error}", path.display())))?;
        self.text(path, &text)
    }

    /// Adds the values of a file's text.
    pub fn text(&mut self, path: &Path, text: &str) -> Result<(), BadConfig> {
        let origin = |span: Range<usize>| {
            let (line, column) = line_and_column(text, span.start);
            Origin::File { path: path.to_owned(), line, column }
        };
        let document = DeTable::parse(text).map_err(|error| {
            BadConfig(format!("{}: {}", origin(error.span().unwrap_or_default()), error.message().replace('\n', "; ")))
        })?;
        self.table("", document.get_ref(), &origin);
        Ok(())
    }

    fn table(&mut self, section: &str, table: &DeTable<'_>, origin: &impl Fn(Range<usize>) -> Origin) {
        for (name, value) in table {
            let key = format!("{section}{}", name.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.table(&format!("{key}."), inner, origin),
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => {
                    self.given.insert(key, (raw(value.get_ref()), origin(name.span())));
                }
            }
        }
    }

    /// Adds the variables that begin with `LOCKSTEP_`. Those that are empty count as not set.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let mut usual_log = None;
        for (name, value) in variables {
            if name == "RUST_LOG" && !value.is_empty() {
                usual_log = Some((Raw::Text(value), Origin::Environment(name)));
                continue;
            }
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            if value.is_empty() {
                continue;
            }
            if key == "DISABLE_SNAPSHOT_FETCH" {
                self.disable_snapshot_fetch = value != "0";
            }
            if NO_SETTINGS.contains(&key) {
                continue;
            }
            let key = key.to_lowercase();
            let key = key.strip_prefix("replication_").map(|name| format!("replication.{name}")).unwrap_or(key);
            self.given.insert(key, (Raw::Text(value), Origin::Environment(name)));
        }
        // The name that Rust programs share counts where ours is not set.
        if let Some(log) = usual_log
            && !matches!(self.given.get("log"), Some((_, Origin::Environment(_))))
        {
            self.given.insert("log".into(), log);
        }
    }

    /// Adds what a flag says.
    pub fn flag(&mut self, flag: &str, key: &str, value: Raw) {
        self.given.insert(key.to_owned(), (value, Origin::Flag(flag.to_owned())));
    }

    /// Adds a `--set KEY=VALUE`.
    pub fn assignment(&mut self, assignment: &str) -> Result<(), BadConfig> {
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| BadConfig(format!("--set takes KEY=VALUE, this is {assignment:?}")))?;
        self.flag("--set", key.trim(), Raw::Text(value.trim().to_owned()));
        Ok(())
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Number(number),
            Err(_) => Raw::Other("a number that is too large"),
        },
        DeValue::Float(_) => Raw::Other("a number with a point"),
        DeValue::Boolean(truth) => Raw::Truth(*truth),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(list) => Raw::List(list.iter().map(|member| raw(member.get_ref())).collect()),
        DeValue::Table(_) => Raw::Other("a section"),
    }
}

/// Where in the text this byte stands: line and column from 1, the column in characters.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
