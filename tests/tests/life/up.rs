//! `lockstep up`: a cluster on this machine within three seconds, with a model that answers at once, gone without a trace
//! at Ctrl-C, or kept where asked.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use lockstep_tests::api::{Api, add_card};
use lockstep_tests::binary::lockstep;
use lockstep_tests::cluster::SOON;
use lockstep_tests::inference::{Stream, kill, runners_of};
use lockstep_tests::node::{Signal, quiet};
use lockstep_tests::wait::until;
use rustix::process::{Pid, kill_process, test_kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

/// From the start of the process to three ready nodes.
const READY_WITHIN: Duration = Duration::from_secs(3);

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
        let mut command = up(temporary);
        command.arg("--json").args(arguments);
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

    /// The processes that run its models.
    fn runners(&self) -> Vec<Pid> {
        let of = |node: &Pid| runners_of(node.as_raw_nonzero().get().unsigned_abs());
        self.processes().iter().flat_map(of).map(|pid| Pid::from_raw(pid).expect("a process id")).collect()
    }

    /// Ctrl-C; waits until it has ended, in good order and with all its nodes and their runners.
    async fn interrupt(mut self) {
        let processes = [self.processes(), self.runners()].concat();
        interrupt(&mut self.child).await;
        for process in processes {
            assert!(test_kill_process(process).is_err(), "{process:?} is left");
        }
    }
}

/// `lockstep up` with its temporary files in this directory.
fn up(temporary: &Path) -> Command {
    let mut command = quiet(lockstep());
    command.arg("up").env("TMPDIR", temporary).stderr(Stdio::inherit());
    command
}

async fn interrupt(child: &mut Child) {
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).expect("it runs");
    kill_process(pid, Signal::INT).expect("one's own child can be signalled");
    let status = tokio::time::timeout(SOON, child.wait()).await.expect("it ends");
    assert!(status.expect("it can be waited for").success());
}

/// Runs `lockstep chat` with these arguments and this standard input.
async fn chat(arguments: &[&str], input: &str) -> Output {
    let mut command = quiet(lockstep());
    let mut child = command.arg("chat").args(arguments).stdin(Stdio::piped()).spawn().expect("lockstep can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    // Who has its message already does not read it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let ended = tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it ends");
    ended.expect("it can be waited for")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("Unicode")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_are_ready_within_three_seconds_and_leave_nothing_behind() {
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
    assert_eq!(up.document["model"], "echo");
    assert_eq!(up.runners().len(), 1, "the model's");
    up.api(2).done("one", &add_card("one"), SOON).await;

    up.interrupt().await;
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_that_start_at_the_same_moment_do_not_get_in_each_others_way() {
    let directories = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let all = join_all(directories.iter().map(|directory| Up::start(directory.path(), &[]))).await;
    let apis: BTreeSet<&str> =
        all.iter().flat_map(|up| up.nodes()).map(|node| node["api"].as_str().expect("an address")).collect();
    assert_eq!(apis.len(), 12, "{apis:?}");
    for up in &all {
        let cluster = up.api(2).cluster().await.unwrap();
        assert_eq!(cluster["nodes"].as_object().map(|nodes| nodes.len()), Some(3), "{cluster}");
    }
    join_all(all.into_iter().map(Up::interrupt)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_is_kept_is_there_again_the_next_time() {
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
    let all = up.api(0).get("/v1/instances").await.unwrap();
    assert_eq!(all["instances"].as_array().map(Vec::len), Some(1), "the model is not placed again: {all}");
    let answer = chat(&["echo", "Still here", "--api", up.nodes()[2]["api"].as_str().unwrap()], "").await;
    assert_eq!(text(&answer.stdout), "Still here\n", "{answer:?}");
    up.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_suggests_streams_tokens_at_once() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = up(temporary.path()).spawn().expect("lockstep can be started");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let curl = loop {
        let line = tokio::time::timeout(SOON, lines.next_line()).await.expect("it suggests something");
        let line = line.expect("it can be read").expect("it goes on");
        if let Some(curl) = line.trim().strip_prefix("curl -N http://") {
            break curl.to_owned();
        }
    };
    let (address, rest) = curl.split_once("/v1/chat/completions -H 'content-type: application/json' -d '").unwrap();
    let question: Value = serde_json::from_str(rest.strip_suffix('\'').unwrap()).unwrap();

    let asked = Instant::now();
    let mut stream = Stream::open(&Api::at(address.parse().unwrap()), &question).await.unwrap();
    let (_, first) = stream.piece().await.unwrap();
    let (first_after, began) = (asked.elapsed(), Instant::now());
    let told = stream.rest().await.unwrap();
    let answer = first + &told.text();
    assert!(told.done && answer == question["messages"][0]["content"], "{answer}, {told:?}");
    println!("first token after {first_after:?}, the others within {:?}", began.elapsed());
    assert!(first_after <= Duration::from_secs(1), "{first_after:?}");
    assert!(began.elapsed() >= Duration::from_millis(100), "they come one by one");
    interrupt(&mut child).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_answers_through_any_node_and_says_in_a_sentence_what_is_wrong() {
    let temporary = tempfile::tempdir().unwrap();
    let up = Up::start(temporary.path(), &[]).await;
    let nodes: Vec<&str> = up.nodes().iter().map(|node| node["api"].as_str().expect("an address")).collect();
    for node in &nodes {
        let answer = chat(&["echo", "Hello", "there", "--api", node], "").await;
        assert_eq!((answer.status.code(), text(&answer.stdout)), (Some(0), "Hello there\n"), "{answer:?}");
    }
    let answer = chat(&["--api", nodes[0]], "from a pipe\n").await;
    assert_eq!((answer.status.code(), text(&answer.stdout)), (Some(0), "from a pipe\n"), "{answer:?}");
    let answer = chat(&["echo", "Hello", "--json", "--api", nodes[1]], "").await;
    let document: Value = serde_json::from_slice(&answer.stdout).expect("one JSON document");
    assert_eq!(document["choices"][0]["message"]["content"], "Hello");

    let failed = async |arguments: &[&str], code: i32, why: &str| {
        let answer = chat(arguments, "").await;
        assert_eq!((answer.status.code(), text(&answer.stdout)), (Some(code), ""), "{answer:?}");
        assert!(text(&answer.stderr).contains(why), "{answer:?}");
    };
    failed(&["ehco", "Hello", "--api", nodes[0]], 2, "these models have one: echo").await;
    failed(&["echo", "--api", nodes[0]], 2, "the message is empty").await;
    failed(&["echo", "Hello", "--api", "http://127.0.0.1:1"], 1, "cannot reach a node").await;

    // The node that the model runs on is lost: so is its instance, whatever its runner said last.
    let all = up.api(0).get("/v1/instances").await.unwrap();
    let on = &all["instances"][0]["ranks"][0]["node"];
    let lost = up.nodes().iter().position(|node| node["id"] == *on).expect("one of them");
    let other = (lost + 1) % nodes.len();
    kill(up.processes()[lost].as_raw_nonzero().get());
    until("the instance is lost", SOON, async || {
        let all = up.api(other).get("/v1/instances").await?;
        let instance = &all["instances"][0];
        if instance["ranks"][0]["lost"] == true && instance["ready"] == false { Ok(()) } else { Err(all.to_string()) }
    })
    .await;
    failed(&["echo", "Hello", "--api", nodes[other]], 1, "No instance of echo takes tasks now").await;
    up.interrupt().await;
}
