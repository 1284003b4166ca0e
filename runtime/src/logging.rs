//! Where log lines go (standard error, always) and what they look like.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What log lines look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Begins to log at these levels, such as `info` or `info,libp2p=warn`; the error is a sentence.
pub fn start(levels: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(levels).map_err(|error| format!("{levels:?} does not say what to log: {error}"))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    started.map_err(|error| format!("logging cannot begin: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_for_levels_is_a_sentence() {
        let error = start("info,=,", LogFormat::Text).expect_err("nonsense");
        assert!(error.contains("does not say what to log"), "{error}");
    }
}
