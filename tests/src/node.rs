//! One `lockstep node` process: started, signalled, watched, and killed when it is dropped.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

pub use rustix::process::Signal;

use crate::api::{Api, Failure};
use crate::binary::lockstep;
use crate::wait::until;

/// How long a process may take to say where it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);

/// How much of a log is shown in a failure.
const TAIL_LINES: usize = 30;

/// What a node process is started with. Start it as often as you like: it goes on with its data directory.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What people call it.
    pub name: String,
    /// Its data directory; its log goes to `log.txt` in there.
    pub data: PathBuf,
    /// The cluster's key, in a file `cluster.key`. Made by whoever starts first, if it is not there.
    pub key: PathBuf,
    /// Other nodes' addresses.
    pub peers: Vec<SocketAddr>,
    /// Settings beside these, as `KEY=VALUE`.
    pub settings: Vec<String>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
    /// So many files it may have open until it asks for more; as many as this process if nothing is said.
    pub open_files: Option<u64>,
}

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub struct Node {
    plan: Plan,
    child: Child,
    started: Instant,
}

impl Plan {
    /// A node of this name with its data in this directory, and the cluster's key beside that.
    pub fn new(name: &str, directory: &Path) -> Plan {
        Plan {
            name: name.to_owned(),
            data: directory.join(name),
            key: directory.join("cluster.key"),
            peers: Vec::new(),
            settings: Vec::new(),
            environment: Vec::new(),
            open_files: None,
        }
    }

    /// With another node to dial.
    #[must_use]
    pub fn peer(mut self, address: SocketAddr) -> Plan {
        self.peers.push(address);
        self
    }

    /// With a setting, as `KEY=VALUE`.
    #[must_use]
    pub fn set(mut self, assignment: &str) -> Plan {
        self.settings.push(assignment.to_owned());
        self
    }

    /// Starts the process.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(&self) -> Node {
        std::fs::create_dir_all(&self.data).expect("the data directory can be made");
        if !self.key.exists() {
            make_key(self.key.parent().expect("a file is in a directory"));
        }
        // What an earlier process said of itself must not be taken for this one's.
        for name in ["api.addr", "p2p.addr"] {
            let _ = std::fs::remove_file(self.data.join(name));
        }
        let log = OpenOptions::new().create(true).append(true).open(self.data.join("log.txt")).expect("it has a log");
        let mut command = match self.open_files {
            None => quiet(lockstep()),
            Some(files) => {
                let mut shell = quiet(Path::new("sh"));
                shell.arg("-c").arg(format!("ulimit -Sn {files} && exec \"$0\" \"$@\"")).arg(lockstep());
                shell
            }
        };
        command.args(["node", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0"]);
        command.args(["--name", &self.name, "--log", "info,libp2p=warn"]);
        command.arg("--data").arg(&self.data).arg("--cluster-key-file").arg(&self.key);
        for peer in &self.peers {
            command.args(["--peer", &format!("/ip4/{}/tcp/{}", peer.ip(), peer.port())]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let started = Instant::now();
        let child = command.spawn().expect("lockstep can be started");
        Node { plan: self.clone(), child, started }
    }
}

impl Node {
    /// What it was started with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its API, once it says where that is.
    ///
    /// # Panics
    /// It ends first, or says nothing for too long.
    pub async fn api(&mut self) -> Api {
        until(&format!("{} listens", self.plan.name), LISTENS_WITHIN, async || {
            self.must_live();
            self.address("api.addr").and_then(|line| line.parse().ok()).map(Api::at).ok_or("it says nothing")
        })
        .await
    }

    /// Where other nodes reach it, once it says so.
    ///
    /// # Panics
    /// It ends first, or says nothing for too long.
    pub async fn peer_address(&mut self) -> SocketAddr {
        until(&format!("{} listens for nodes", self.plan.name), LISTENS_WITHIN, async || {
            self.must_live();
            peer_address(&self.plan.data).ok_or("it says nothing")
        })
        .await
    }

    /// Waits until it is ready; how long that took from its start.
    ///
    /// # Panics
    /// It ends first, or is not ready in time.
    pub async fn ready(&mut self, within: Duration) -> Duration {
        let api = self.api().await;
        until(&format!("{} is ready", self.plan.name), within, async || {
            self.must_live();
            let answer = api.ready().await?;
            if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.body.to_string()) }
        })
        .await;
        self.started.elapsed()
    }

    /// What `/v1/cluster` says.
    pub async fn cluster(&mut self) -> Result<Value, Failure> {
        self.api().await.cluster().await
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// It has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("it runs"), signal).expect("one's own child can be signalled");
    }

    /// Its process id; none once it has ended and was waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end; how it ended.
    ///
    /// # Panics
    /// It does not end in time.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => status.expect("a child can be waited for"),
            Err(_) => panic!("{} has not ended within {within:?}\n{}", self.plan.name, self.log_tail()),
        }
    }

    /// `kill -9`, and waits until it is gone. Its data directory stays.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("one's own child can be killed");
    }

    /// Ctrl-C, and waits until it has left.
    ///
    /// # Panics
    /// It does not leave in good order within ten seconds.
    pub async fn interrupt(mut self) {
        self.signal(Signal::INT);
        let status = self.ended(Duration::from_secs(10)).await;
        assert!(status.success(), "{} ended with {status}\n{}", self.plan.name, self.log_tail());
    }

    /// All that it logged, over all its starts.
    pub fn log(&self) -> String {
        log(&self.plan.data)
    }

    fn must_live(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child can be watched") {
            panic!("{} has ended ({status})\n{}", self.plan.name, self.log_tail());
        }
    }

    fn address(&self, file: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.plan.data.join(file)).ok()?.trim().to_owned())
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// A command of this executable that hears nothing of the environment's settings, says nothing on the terminal, and is
/// killed when it is dropped.
pub fn quiet(executable: &Path) -> Command {
    let mut command = Command::new(executable);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOCKSTEP_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Where other nodes reach the node of this data directory; none while it does not say so.
pub fn peer_address(data: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(data.join("p2p.addr")).ok()?;
    let mut parts = text.lines().next()?.split('/').skip(1);
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()?) {
        ("ip4", ip, "tcp", port) => Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?)),
        _ => None,
    }
}

/// All that the node of this data directory logged, over all its starts.
pub fn log(data: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(data.join("log.txt")).unwrap_or_default()).into_owned()
}

/// Makes `cluster.key` in this directory.
fn make_key(directory: &Path) {
    let made = std::process::Command::new(lockstep()).args(["key", "new", "--data"]).arg(directory).output();
    let made = made.expect("lockstep can be started");
    assert!(made.status.success(), "no cluster key: {}", String::from_utf8_lossy(&made.stderr));
}
