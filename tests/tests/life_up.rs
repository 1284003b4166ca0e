//! `lockstep up`: a cluster on this machine within three seconds, gone without a trace at Ctrl-C, or kept where asked.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lockstep_tests::api::{Api, add_card};
use lockstep_tests::binary::lockstep;
use lockstep_tests::cluster::SOON;
use lockstep_tests::node::{Signal, quiet};
use rustix::process::{Pid, kill_process, test_kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio::sync::Mutex;

/// From the start of the process to three ready nodes.
const READY_WITHIN: Duration = Duration::from_secs(3);

/// `up` looks for free ports and lets its nodes take them: two at the same moment may find the same ones.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A running `lockstep up` and what it said of itself.
struct Up {
    child: Child,
    document: Value,
    took: Duration,
}

impl Up {
    /// Starts it with its temporary files in this directory.
    async fn start(temporary: &Path, arguments: &[&str]) -> Up {
        let began = Instant::now();
        let mut command = quiet(lockstep());
        command.args(["up", "--json"]).args(arguments).env("TMPDIR", temporary).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("lockstep can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = tokio::time::timeout(SOON, lines.next_line()).await.expect("it says where to look");
        let took = began.elapsed();
        let line = line.expect("it can be read").expect("it goes on");
        Up { child, document: serde_json::from_str(&line).expect("one JSON document"), took }
    }

    fn nodes(&self) -> &[Value] {
        self.document["nodes"].as_array().expect("a list of nodes")
    }

    fn api(&self, node: usize) -> Api {
        let url = self.nodes()[node]["api"].as_str().expect("an address");
        Api::at(url.strip_prefix("http://").expect("a URL").parse().expect("an address and a port"))
    }

    fn processes(&self) -> Vec<Pid> {
        let pid = |node: &Value| Pid::from_raw(i32::try_from(node["pid"].as_u64()?).ok()?);
        self.nodes().iter().map(|node| pid(node).expect("a process id")).collect()
    }

    /// Ctrl-C; waits until it has ended, in good order and with all its nodes.
    async fn interrupt(mut self) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).expect("it runs");
        kill_process(pid, Signal::INT).expect("one's own child can be signalled");
        let status = tokio::time::timeout(SOON, self.child.wait()).await.expect("it ends");
        assert!(status.expect("it can be waited for").success());
        for process in self.processes() {
            assert!(test_kill_process(process).is_err(), "{process:?} is left");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_are_ready_within_three_seconds_and_leave_nothing_behind() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let temporary = tempfile::tempdir().unwrap();
    let up = Up::start(temporary.path(), &[]).await;
    assert!(up.took <= READY_WITHIN, "ready after {:?}", up.took);
    println!("lockstep up: ready after {:?}", up.took);

    let pids = up.processes();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| test_kill_process(*pid).is_ok()), "each is a process");
    let mut leaders = 0;
    for node in 0..3 {
        assert!(up.api(node).ready().await.unwrap().status.is_success());
        let cluster = up.api(node).cluster().await.unwrap();
        leaders += usize::from(cluster["me"] == cluster["leader"]);
        let data = up.nodes()[node]["data"].as_str().expect("a directory");
        assert!(Path::new(data).starts_with(temporary.path()) && Path::new(data).is_dir(), "{data}");
    }
    assert_eq!(leaders, 1);
    up.api(2).done("one", &add_card("one"), SOON).await;

    up.interrupt().await;
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_is_kept_is_there_again_the_next_time() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("kept");
    let arguments = ["--data", data.to_str().expect("Unicode")];
    let ids = |up: &Up| up.nodes().iter().map(|node| node["id"].clone()).collect::<Vec<_>>();

    let up = Up::start(temporary.path(), &arguments).await;
    let first_ids = ids(&up);
    let index = up.api(1).done("kept", &add_card("kept"), SOON).await;
    up.interrupt().await;

    let up = Up::start(temporary.path(), &arguments).await;
    assert_eq!(ids(&up), first_ids, "the same nodes");
    for node in 0..3 {
        let state = up.api(node).get(&format!("/v1/state?at_least={index}")).await.unwrap();
        assert!(state["cards"]["kept"].is_object(), "node {node} has lost it");
    }
    up.interrupt().await;
}
