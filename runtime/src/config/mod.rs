//! What one node is told before it starts: where its data lies, whom it talks to, how it behaves.
//!
//! Values come from four layers; a later one wins: built-in, a TOML file, `LOCKSTEP_*` in the environment, flags.

pub mod layers;
pub mod near_miss;
mod runners;
pub mod setting;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use libp2p::Multiaddr;
use lockstep_replication::config::MAY_BE_NOTHING;
use lockstep_replication::{Config, NodeId, wire};

use layers::{Layers, Origin};
use setting::Setting;

/// The API's port where nothing else is said.
pub const API_PORT: u16 = 7070;

/// The port for other nodes where nothing else is said.
pub const PEER_PORT: u16 = 7170;

/// Everything that one node is told.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The data directory: identity, log, snapshots, set-aside files. Made if it is not there.
    pub data: PathBuf,
    /// A readable name for people; not an identity. The host's name if nothing is said.
    pub name: String,
    /// Where it listens for other nodes. Port 0 takes any free one.
    pub listen: Vec<Multiaddr>,
    /// What it tells other nodes of where it is found, instead of the addresses that it listens on: where a port is
    /// forwarded to it. Empty: these.
    pub announce: Vec<Multiaddr>,
    /// Other nodes' addresses, to begin with; the rest is learnt from them.
    pub peers: Vec<Multiaddr>,
    /// Whether nodes on the local network are looked for by mDNS (it skips loopback).
    pub mdns: bool,
    /// The cluster's key; `cluster.key` in the data directory if nothing is said.
    pub cluster_key_file: Option<PathBuf>,
    /// Only these nodes may connect; everybody with the cluster's key if it is empty.
    pub allow: BTreeSet<NodeId>,
    /// Where the HTTP API listens. Port 0 takes any free one.
    pub api: SocketAddr,
    /// Holds the token that API clients must send; needed where the API is not on loopback. Mode 0600.
    pub api_token_file: Option<PathBuf>,
    /// Names by which clients may call the API (its `Host`), beside its own address.
    pub api_hosts: Vec<String>,
    /// The programs that serve as runners beside those that are built in, by name: the program and its arguments.
    pub runners: BTreeMap<String, Vec<String>>,
    /// What is logged: a level, or levels by module, as in `info,libp2p=warn`.
    pub log: String,
    /// Whether the process leaves when its standard input closes. A flag only: whoever starts a child sets it.
    pub exit_with_stdin: bool,
    /// Whether the API takes the next free port where its own is taken. A flag only, as the one before.
    pub api_next_free: bool,
    /// How the replicated log behaves. All nodes of a cluster should agree. Where nothing is said of `founders`, these are
    /// this node and its listed peers.
    pub replication: Config,
}

/// What the layers gave, and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values in force.
    pub config: NodeConfig,
    /// Where each that is not built in came from, by key.
    pub origins: BTreeMap<String, Origin>,
    /// Settings that mean nothing but do no harm, as sentences: unknown `LOCKSTEP_*` names.
    pub warnings: Vec<String>,
}

/// What is wrong with a configuration, as a sentence that names the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            data: default_data_directory(),
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            listen: vec![format!("/ip4/0.0.0.0/tcp/{PEER_PORT}").parse().expect("a well-formed address")],
            announce: Vec::new(),
            peers: Vec::new(),
            mdns: true,
            cluster_key_file: None,
            allow: BTreeSet::new(),
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, API_PORT)),
            api_token_file: None,
            api_hosts: Vec::new(),
            runners: BTreeMap::new(),
            log: "info".into(),
            exit_with_stdin: false,
            api_next_free: false,
            replication: Config::default(),
        }
    }
}

impl NodeConfig {
    /// Where the cluster's key lies.
    pub fn cluster_key_path(&self) -> PathBuf {
        self.cluster_key_file.clone().unwrap_or_else(|| self.data.join("cluster.key"))
    }

    /// Every setting of a fixed key, to be read or written.
    fn settings(&mut self) -> Vec<(&'static str, &mut dyn Setting)> {
        let NodeConfig {
            data,
            name,
            listen,
            announce,
            peers,
            mdns,
            cluster_key_file,
            allow,
            api,
            api_token_file,
            api_hosts,
            runners: _,
            log,
            exit_with_stdin: _,
            api_next_free: _,
            replication,
        } = self;
        let mut all: Vec<(&'static str, &mut dyn Setting)> = vec![
            ("data", data),
            ("name", name),
            ("listen", listen),
            ("announce", announce),
            ("peers", peers),
            ("mdns", mdns),
            ("cluster_key_file", cluster_key_file),
            ("allow", allow),
            ("api", api),
            ("api_token_file", api_token_file),
            ("api_hosts", api_hosts),
            ("log", log),
        ];
        all.extend(replication_settings(replication));
        all
    }
}

impl Loaded {
    /// Lays the layers over the built-in values.
    pub fn from_layers(mut layers: Layers) -> Result<Loaded, BadConfig> {
        let mut config = NodeConfig::default();
        if layers.disable_snapshot_fetch {
            config.replication.fetch_snapshots = false;
        }
        let mut origins = BTreeMap::new();
        let mut keys = Vec::new();
        for (key, setting) in config.settings() {
            keys.push(key);
            let Some((raw, origin)) = layers.given.remove(key) else { continue };
            setting
                .set(&raw)
                .map_err(|expected| BadConfig(format!("{origin}: `{key}` must be {expected}, this is {raw}")))?;
            origins.insert(key.to_owned(), origin);
        }
        config.runners = runners::take(&mut layers, &mut origins)?;
        if !origins.contains_key("replication.founders") {
            config.replication.founders = 1 + config.peers.len();
            origins.insert("replication.founders".into(), Origin::Derived("peers"));
        }
        let mut warnings = Vec::new();
        for (key, (_, origin)) in layers.given {
            let hint = runners::hint(&key)
                .or_else(|| near_miss::nearest(&key, &keys).map(|near| format!("; did you mean `{near}`?")))
                .unwrap_or_default();
            let sentence = format!("{origin}: there is no setting `{key}`{hint}");
            // Others may own a variable that happens to begin like ours; nobody else writes into our file.
            match origin {
                Origin::Environment(_) => warnings.push(sentence),
                Origin::File { .. } | Origin::Flag(_) | Origin::Derived(_) => return Err(BadConfig(sentence)),
            }
        }
        let loaded = Loaded { config, origins, warnings };
        loaded.check()?;
        Ok(loaded)
    }

    /// The configuration in force as a TOML file, each value with where it came from.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        let mut config = self.config.clone();
        for (key, setting) in config.settings() {
            let (table, name) = key.split_once('.').unwrap_or(("", key));
            if table != section {
                section = table;
                let _ = write!(text, "\n[{section}]\n");
            }
            let origin = self.origins.get(key).map_or("built in".to_owned(), |origin| format!("from {origin}"));
            let _ = match setting.show() {
                Some(value) => writeln!(text, "{name} = {value}  # {origin}"),
                None => writeln!(text, "# {name} is not set  # {origin}"),
            };
        }
        text + &runners::show(&config.runners, &self.origins)
    }

    /// Refuses values that no node could work with.
    fn check(&self) -> Result<(), BadConfig> {
        let mut config = self.config.clone();
        for (key, setting) in config.settings() {
            let Some(name) = key.strip_prefix("replication.") else { continue };
            if setting.is_nothing() && !MAY_BE_NOTHING.contains(&name) {
                return Err(self.wrong(key, "must be more than nothing"));
            }
        }
        let replication = &self.config.replication;
        // Room for what surrounds the payload in its message.
        let payload = wire::MESSAGE_BYTES_AT_MOST - (64 << 10);
        for (key, bytes) in
            [("replication.batch_bytes", replication.batch_bytes), ("replication.chunk_bytes", replication.chunk_bytes)]
        {
            if bytes > payload {
                return Err(self.wrong(key, &format!("must be at most {payload}, or it does not fit a message")));
            }
        }
        if replication.entry_bytes > replication.batch_bytes {
            return Err(self.wrong("replication.entry_bytes", "must not be more than replication.batch_bytes"));
        }
        if self.config.listen.is_empty() {
            return Err(self.wrong("listen", "must name at least one address, such as \"/ip4/0.0.0.0/tcp/7170\""));
        }
        Ok(())
    }

    fn wrong(&self, key: &str, why: &str) -> BadConfig {
        match self.origins.get(key) {
            Some(origin) => BadConfig(format!("{origin}: `{key}` {why}")),
            None => BadConfig(format!("`{key}` {why}")),
        }
    }
}

macro_rules! replication_settings {
    ($($field:ident),+ $(,)?) => {
        /// The core's settings. A field that is new there does not compile here until it is listed.
        fn replication_settings(config: &mut Config) -> Vec<(&'static str, &mut dyn Setting)> {
            let Config { $($field),+ } = config;
            vec![$((concat!("replication.", stringify!($field)), $field)),+]
        }
    };
}

replication_settings! {
    founders, beat_every, leader_beat_every, lost_after, tick_every, broken_after, evict_after, forget_after, busy_at_most,
    probe_every, campaign_after, campaign_jitter, campaign_for, campaign_for_minority, hears_within, stalled_after,
    clock_step_at_most, gap_grace, nack_base, nack_ceiling, nack_attempts, nack_patience, repair_linger,
    repair_broadcast_from, repair_holes, repair_entries, repair_bytes, repair_broadcast_bytes, nacks_per_second, replay_window,
    batch_bytes, batch_entries, outstanding_bytes, buffer_entries, buffer_bytes, tail_bytes, entry_bytes,
    outbox_entries, outbox_bytes, propose_again, reply_within, fetch_snapshots, snapshot_every, snapshot_at_least,
    keep_behind, chunk_bytes, chunks_in_flight, chunk_within, transfer_patience, install_within, snapshot_bytes,
    snapshot_raw_bytes, serves, hold_log_for, nodes, caught_up_entries, caught_up_span,
}

/// Where this platform keeps a user's data.
fn default_data_directory() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
    let base = if cfg!(target_os = "macos") {
        home().join("Library/Application Support")
    } else {
        match std::env::var_os("XDG_DATA_HOME") {
            Some(directory) if !directory.is_empty() => PathBuf::from(directory),
            Some(_) | None => home().join(".local/share"),
        }
    };
    base.join("lockstep")
}

#[cfg(test)]
mod tests;
