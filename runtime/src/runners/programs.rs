//! Which program serves which runner: two of our own, and those that this node's configuration names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use lockstep_inference::limits;
use tokio::process::Command;

/// The runners that need no configuration.
pub const BUILT_IN: [&str; 2] = ["echo", "openai"];

/// Names the directory in which a runner may keep files, in its environment.
const DIRECTORY: &str = "LOCKSTEP_RUNNER_DATA";

/// The programs that this node's runners may be. A card only names one: who may add cards must not choose what runs here.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Our own executable: the built-in runners, and the process that minds the others.
    own: PathBuf,
    /// By name: the program and its arguments.
    named: BTreeMap<String, Vec<String>>,
    /// Whether the others are minded.
    minded: bool,
}

impl Programs {
    /// The built-in ones, and these.
    ///
    /// # Errors
    /// The path of our own executable is unknown.
    pub fn new(named: BTreeMap<String, Vec<String>>) -> io::Result<Programs> {
        Ok(Programs { own: std::env::current_exe()?, named, minded: true })
    }

    /// The names of all, as far as a node tells them to others.
    pub fn names(&self) -> BTreeSet<String> {
        let all: BTreeSet<String> = BUILT_IN.into_iter().map(str::to_owned).chain(self.named.keys().cloned()).collect();
        all.into_iter().take(limits::RUNNERS).collect()
    }

    /// The process to start for this runner, which may keep files below `directory`; or why there is none.
    pub(super) fn command(&self, name: &str, directory: &Path) -> Result<Command, String> {
        if BUILT_IN.contains(&name) {
            let mut command = Command::new(&self.own);
            command.args(["runner", name]);
            return Ok(command);
        }
        let Some((program, arguments)) = self.named.get(name).and_then(|command| command.split_first()) else {
            let known: Vec<&str> = BUILT_IN.into_iter().chain(self.named.keys().map(String::as_str)).collect();
            return Err(format!(
                "this node has no runner `{name}`, only {}: name its program by `[runners.{name}]` and \
                 `command = [\"…\"]` in the node's configuration",
                known.join(", ")
            ));
        };
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let mut command = if self.minded {
            let mut command = Command::new(&self.own);
            command.args(["runner", "mind", "--node"]).arg(std::process::id().to_string()).arg("--").arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments).env(DIRECTORY, directory);
        Ok(command)
    }

    /// Test programs are no `lockstep`: they cannot mind others.
    #[cfg(test)]
    pub(super) fn unminded(named: BTreeMap<String, Vec<String>>) -> Programs {
        Programs { own: "no-such-executable".into(), named, minded: false }
    }
}
