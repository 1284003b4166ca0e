//! The executable under test, built once for each test program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Names an executable to be tested instead of the one that is built here: a release build, say.
const OVERRIDE: &str = "LOCKSTEP_TEST_BINARY";

/// The path of `lockstep`, in the profile that the tests were built in.
///
/// # Panics
/// It does not build.
pub fn lockstep() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os(OVERRIDE).map_or_else(build, PathBuf::from))
}

/// Cargo gives the tests of one package no way to the executable of another but to ask for it.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    // With an example beside it, the libraries are built with the features that `cargo test --workspace` gave them, and
    // thus not once more.
    command.args(["build", "--locked", "--workspace", "--bin", "lockstep", "--example", "key_value"]);
    command.arg("--message-format=json");
    // What cargo tells this test of its own package: a library that looks at it would be built anew, here and the next time
    // outside, and all that stand on it.
    let own = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(own)) {
        command.env_remove(name);
    }
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.stderr(Stdio::inherit()).output().expect("cargo can be started");
    assert!(output.status.success(), "lockstep does not build: {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "lockstep")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo says where it put the executable")
}
