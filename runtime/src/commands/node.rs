//! `lockstep node`: one real node, until it is told to leave.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use super::errors::WrongCall;
use super::output;
use crate::config::layers::Layers;
use crate::config::setting::Raw;
use crate::config::{BadConfig, Loaded};
use crate::driver;
use crate::logging::{self, LogFormat};

/// Open files that a node may have: connections to the API and to other nodes at their limits, and as many again.
const OPEN_FILES: u64 = 4096;

/// Run one real node.
///
/// Each setting may be given in a TOML file (--config), in the environment (LOCKSTEP_ and the key in capitals) and by a
/// flag; a later one of these wins. --print-config shows what is in force and where it came from.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockstep node                                        the first node of a cluster, data in ~/.local/share/lockstep
  lockstep key show                                    the key that the cluster's other nodes need
  lockstep node --peer /ip4/192.168.1.20/tcp/7170      join through a known node
  lockstep node --config node.toml --print-config      what is in force, and from where
  lockstep node --set replication.lost_after=8s        any setting of the file, as a flag
  LOCKSTEP_DISABLE_SNAPSHOT_FETCH=1 lockstep node      catch up by the log alone

Ctrl-C hands leadership over and leaves; a second one ends the process at once.")]
pub struct Arguments {
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_CONFIG")]
    config: Option<PathBuf>,

    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,

    /// Where to listen for other nodes (may be given several times).
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,

    /// Where other nodes find this one, instead of where it listens: behind a forwarded port (may be given several
    /// times).
    #[arg(long, value_name = "MULTIADDR")]
    announce: Vec<String>,

    /// Another node's address, to begin with (may be given several times).
    #[arg(long = "peer", value_name = "MULTIADDR")]
    peers: Vec<String>,

    /// Where the HTTP API listens.
    #[arg(long, value_name = "ADDRESS:PORT")]
    api: Option<String>,

    /// A file with the token that clients of the API must send.
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<String>,

    /// A name by which clients may call the API, beside its address (may be given several times).
    #[arg(long = "api-host", value_name = "NAME")]
    api_hosts: Vec<String>,

    /// A readable name for this node.
    #[arg(long)]
    name: Option<String>,

    /// The cluster's key.
    #[arg(long, value_name = "FILE")]
    cluster_key_file: Option<String>,

    /// Let only this node connect (may be given several times).
    #[arg(long, value_name = "NODE")]
    allow: Vec<String>,

    /// Look for nodes on the local network.
    #[arg(long, overrides_with = "no_mdns")]
    mdns: bool,

    /// Do not look for nodes on the local network.
    #[arg(long)]
    no_mdns: bool,

    /// Any setting by its key in the file (may be given several times).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,

    /// Leave when standard input closes: for whoever starts this as a child and may be killed.
    #[arg(long)]
    exit_with_stdin: bool,

    /// Where the API's port is taken, take the next one that is free: for whoever starts several.
    #[arg(long, hide = true)]
    api_next_free: bool,

    /// Print the configuration in force as TOML, and where each value came from, and run nothing.
    #[arg(long)]
    print_config: bool,
}

impl Arguments {
    /// Runs the node until it has left.
    pub async fn run(self, log: Option<String>, log_format: LogFormat) -> anyhow::Result<()> {
        let print = self.print_config;
        let loaded = self.load(log).map_err(|error| WrongCall(error.to_string()))?;
        if print {
            return Ok(output::line(loaded.to_toml().trim_end())?);
        }
        let Loaded { config, warnings, .. } = loaded;
        logging::start(&config.log, log_format).map_err(WrongCall)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        if let Err(error) = allow_open_files() {
            tracing::warn!("the limit on open files is low and cannot be raised: {error}");
        }
        let shutdown = CancellationToken::new();
        leave_on_signals(shutdown.clone())?;
        if config.exit_with_stdin {
            leave_with_standard_input(shutdown.clone());
        }
        driver::run(config, shutdown).await
    }

    /// Lays file, environment and flags over each other.
    fn load(self, log: Option<String>) -> Result<Loaded, BadConfig> {
        let mut layers = Layers::default();
        if let Some(path) = &self.config {
            layers.file(path)?;
        }
        layers.environment(std::env::vars_os().filter_map(|(name, value)| {
            // What is not Unicode is none of our names; of values we take what can be read.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        }));
        for assignment in &self.assignments {
            layers.assignment(assignment)?;
        }
        let single = [
            ("--data", "data", self.data),
            ("--api", "api", self.api),
            ("--api-token-file", "api_token_file", self.api_token_file),
            ("--name", "name", self.name),
            ("--cluster-key-file", "cluster_key_file", self.cluster_key_file),
            ("--log", "log", log),
        ];
        for (flag, key, value) in single {
            if let Some(value) = value {
                layers.flag(flag, key, Raw::Text(value));
            }
        }
        let several = [
            ("--listen", "listen", self.listen),
            ("--announce", "announce", self.announce),
            ("--peer", "peers", self.peers),
            ("--api-host", "api_hosts", self.api_hosts),
            ("--allow", "allow", self.allow),
        ];
        for (flag, key, values) in several {
            if !values.is_empty() {
                layers.flag(flag, key, Raw::List(values.into_iter().map(Raw::Text).collect()));
            }
        }
        if self.mdns || self.no_mdns {
            layers.flag(if self.mdns { "--mdns" } else { "--no-mdns" }, "mdns", Raw::Truth(self.mdns));
        }
        let mut loaded = Loaded::from_layers(layers)?;
        loaded.config.exit_with_stdin = self.exit_with_stdin;
        loaded.config.api_next_free = self.api_next_free;
        Ok(loaded)
    }
}

/// Connections are open files, and many systems allow a process 1024 until it asks for more: clients of the API alone
/// could take all of these, and the node would have none left for its log and for other nodes.
fn allow_open_files() -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })?;
    }
    Ok(())
}

/// Ctrl-C and SIGTERM ask the node to leave; a second one ends the process.
fn leave_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("leaving: work under way is handed over; once more ends the process at once");
        shutdown.cancel();
        signals.next().await;
        std::process::exit(1);
    });
    Ok(())
}

/// The end of standard input asks the node to leave.
fn leave_with_standard_input(shutdown: CancellationToken) {
    // A thread of its own: a read of standard input cannot be called off.
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut ignored = [0; 1024];
        while matches!(input.read(&mut ignored), Ok(1..)) {}
        shutdown.cancel();
    });
}

/// Ctrl-C and SIGTERM.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on they are caught.
    pub fn new() -> anyhow::Result<Signals> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let caught = |kind| signal(kind).context("signals cannot be caught");
            Ok(Signals { terminate: caught(SignalKind::terminate())?, interrupt: caught(SignalKind::interrupt())? })
        }
        #[cfg(not(unix))]
        Ok(Signals {})
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
