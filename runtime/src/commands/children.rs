//! Node processes of this same executable: started, watched until they are ready, and stopped so that none remains.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::future::{join_all, select_all};
use libp2p::Multiaddr;
use tokio::process::{Child, ChildStdin, Command};

use super::client::Client;
use crate::announce;

/// How long a child has to hand over and leave before it is killed.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// How often something is looked at that cannot be awaited: often, since start-up times are measured with it.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How much of a log is shown when its node has ended.
const TAIL_LINES: usize = 15;

/// What a node process is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What people call it.
    pub name: String,
    /// Its data directory; its log goes to `log.txt` in there.
    pub data: PathBuf,
    /// The cluster's key.
    pub cluster_key: PathBuf,
    /// The port of its API, or the next one after it that is free; 0 for any.
    pub api_port: u16,
    /// Other nodes.
    pub peers: Vec<Multiaddr>,
    /// Settings beside these, as `KEY=VALUE`.
    pub settings: Vec<String>,
    /// What it logs.
    pub log: String,
}

/// A running node process. Dropped, it is killed.
#[derive(Debug)]
pub struct Node {
    /// What people call it.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// When it was started.
    pub started: Instant,
    child: Child,
    // The node leaves when this closes: also when we are killed and can tell it nothing more.
    stdin: Option<ChildStdin>,
}

impl Plan {
    /// Starts the process.
    pub fn start(&self) -> anyhow::Result<Node> {
        let unwritable = || format!("{} cannot be written", self.data.display());
        std::fs::create_dir_all(&self.data).with_context(unwritable)?;
        announce::withdraw(&self.data).with_context(unwritable)?;
        let log = OpenOptions::new().create(true).append(true).open(log_file(&self.data)).with_context(unwritable)?;
        let executable = std::env::current_exe().context("the path of this executable is unknown")?;
        let mut command = Command::new(executable);
        // Each node takes its ports itself: whoever looked for free ones for it would have to let them go before it
        // binds them.
        command.args(["node", "--exit-with-stdin", "--api-next-free", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.args(["--name", &self.name, "--log", &self.log]);
        command.arg("--data").arg(&self.data).arg("--cluster-key-file").arg(&self.cluster_key);
        command.arg("--api").arg(SocketAddr::from((Ipv4Addr::LOCALHOST, self.api_port)).to_string());
        for peer in &self.peers {
            command.arg("--peer").arg(peer.to_string());
        }
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        // What the environment says to the one who starts a cluster is not meant for each of its nodes.
        for (name, _) in std::env::vars_os() {
            if meant_for_the_parent(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone().with_context(unwritable)?).stderr(log).kill_on_drop(true);
        // Ctrl-C at the terminal reaches us alone; we then tell each child once.
        #[cfg(unix)]
        command.process_group(0);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{} cannot be started", self.name))?;
        let stdin = child.stdin.take();
        Ok(Node { name: self.name.clone(), data: self.data.clone(), started, child, stdin })
    }
}

fn meant_for_the_parent(name: &str) -> bool {
    name.strip_prefix("LOCKSTEP_")
        .is_some_and(|key| key != "DISABLE_SNAPSHOT_FETCH" && !key.starts_with("REPLICATION_"))
}

fn log_file(data: &Path) -> PathBuf {
    data.join("log.txt")
}

impl Node {
    /// Its process id; none once it has ended and was noticed.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it said where its API listens. Fails if it ends first, with the end of its log.
    pub async fn api(&mut self) -> anyhow::Result<SocketAddr> {
        loop {
            if let Some(address) = announce::read_api(&self.data) {
                return Ok(address);
            }
            self.must_live()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until it said where other nodes reach it. Fails if it ends first, with the end of its log.
    pub async fn peer_addresses(&mut self) -> anyhow::Result<Vec<Multiaddr>> {
        // The address of the API is told last.
        self.api().await?;
        Ok(announce::read_peer(&self.data))
    }

    /// Waits until it is ready; how long that took from its start. Fails if it ends first, or has not come so far by then.
    pub async fn ready(&mut self, within: Duration) -> anyhow::Result<Duration> {
        let client = Client::local(self.api().await?);
        loop {
            let answer = client.send(client.get(client.url(["readyz"]))).await;
            let took = self.started.elapsed();
            if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                return Ok(took);
            }
            self.must_live()?;
            if took > within {
                let why = match answer {
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                bail!("{} is not ready after {} s: {why}\n{}", self.name, within.as_secs(), self.log_tail());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Fails if it has ended.
    pub fn must_live(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("a child cannot be watched")? {
            None => Ok(()),
            Some(status) => bail!("{}", self.ended(status)),
        }
    }

    /// That it has ended, with the end of its log.
    pub fn ended(&self, status: ExitStatus) -> String {
        format!(
            "{} has ended ({status}). The end of {}:\n{}",
            self.name,
            log_file(&self.data).display(),
            self.log_tail()
        )
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read(log_file(&self.data)).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), TAIL_LINES)
    }

    /// The most memory it ever held, in bytes; none where the system does not tell.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        high_water_mark(&status)
    }

    /// Tells it to leave, and kills it if it does not.
    pub async fn stop(mut self) {
        #[cfg(unix)]
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
            // It may have ended meanwhile, which is as good.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        drop(self.stdin.take());
        if tokio::time::timeout(LEAVES_WITHIN, self.child.wait()).await.is_err() {
            tracing::warn!("{} did not leave in time and is killed", self.name);
            if let Err(error) = self.child.kill().await {
                tracing::warn!("{} cannot be killed: {error}", self.name);
            }
        }
    }
}

/// Stops all of them at the same time.
pub async fn stop_all(nodes: Vec<Node>) {
    join_all(nodes.into_iter().map(Node::stop)).await;
}

/// Waits until one ends; takes it out, with how it ended. Waits for ever if there is none.
pub async fn first_to_end(nodes: &mut Vec<Node>) -> (Node, ExitStatus) {
    loop {
        if nodes.is_empty() {
            return std::future::pending().await;
        }
        let (status, which, _) = select_all(nodes.iter_mut().map(|node| Box::pin(node.child.wait()))).await;
        // A child that cannot be waited for is none that can be watched.
        let node = nodes.remove(which);
        match status {
            Ok(status) => return (node, status),
            Err(error) => tracing::warn!("{} cannot be watched: {error}", node.name),
        }
    }
}

/// The last lines of a text, indented.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect::<String>()
}

/// Linux's `VmHWM`, in bytes.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "    b\n    c\n");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn peak_memory_is_read_in_bytes() {
        assert_eq!(high_water_mark("Name:\tx\nVmHWM:\t    12 kB\nVmRSS:\t 3 kB\n"), Some(12 << 10));
        assert_eq!(high_water_mark("Name:\tx\n"), None);
    }

    #[test]
    fn a_nodes_address_is_not_inherited_but_how_it_catches_up_is() {
        assert!(meant_for_the_parent("LOCKSTEP_API"));
        assert!(!meant_for_the_parent("LOCKSTEP_REPLICATION_SERVES"));
        assert!(!meant_for_the_parent("LOCKSTEP_DISABLE_SNAPSHOT_FETCH"));
        assert!(!meant_for_the_parent("PATH"));
    }
}
