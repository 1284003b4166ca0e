//! The programs that a node starts for its runners, by themselves: what they say, and that they end with their node.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use lockstep_tests::binary::lockstep;
use lockstep_tests::wait::until_true;
use serde_json::{Value, json};

/// Ends a hang; no test comes near.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that does not notice the end of its standard input, and a child of it that does not either. The two say
/// their numbers.
const STUBBORN: &str = "trap '' TERM INT HUP; sh -c 'trap \"\" TERM INT HUP; while :; do sleep 1; done' & \
                        echo $$ $!; while :; do sleep 1; done";

/// A runner that was started by this test, and killed with it.
struct Runner {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        // It has ended already, or is to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Runner {
    fn start(program: &str, variables: &[(&str, &str)]) -> Runner {
        let mut command = Command::new(lockstep());
        command.args(["runner", program]).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("lockstep can be started");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("its output is piped"));
        Runner { child, input, output: BufReader::new(output) }
    }

    fn tell(&mut self, message: &Value) {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{message}").expect("it reads");
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("its output can be read");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no message: {line:?}"))
    }

    /// Closes its input. Its exit code, and what it complained of.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.input.take());
        let mut said = String::new();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it is text");
        (self.child.wait().expect("it ends").code(), said)
    }
}

fn hello(runner: &str, settings: &Value) -> Value {
    let card = json!({
        "name": "Small", "weights_bytes": 1, "layers": 1, "context_tokens": 100, "runner": runner, "settings": settings,
    });
    let id = "00".repeat(16);
    json!({
        "type": "hello", "version": 1, "runner": id, "instance": id, "rank": 0, "ranks": 1, "addresses": [[]],
        "model": "acme/small", "card": card,
    })
}

fn chat(text: &str) -> Value {
    let input = json!({"messages": [{"role": "user", "content": text}]});
    json!({"type": "task", "task": "07".repeat(16), "kind": {"chat": {"max_tokens": 10}}, "input": input})
}

#[test]
fn echo_answers_and_ends_with_its_input() {
    let mut runner = Runner::start("echo", &[]);
    runner.tell(&hello("echo", &json!({})));
    assert_eq!(runner.next(), json!({"type": "hello", "version": 1, "tasks": 256}));
    runner.tell(&chat("hello there"));
    let kinds: Vec<Value> = (0..5).map(|_| runner.next()["type"].clone()).collect();
    assert_eq!(kinds, ["started", "token", "token", "trace", "done"]);
    assert_eq!(runner.end(), (Some(0), String::new()));
}

#[test]
fn what_is_wrong_stands_on_standard_error_alone() {
    let mut runner = Runner::start("echo", &[]);
    runner.tell(&hello("echo", &json!({"load_ms": "soon"})));
    let (code, said) = runner.end();
    let expected = "lockstep: the card's setting `load_ms` must be a whole number of milliseconds, this is \"soon\"\n";
    assert_eq!((code, said.as_str()), (Some(1), expected));
}

#[test]
fn openai_sends_the_key_that_its_variable_holds() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/v1", listener.local_addr().expect("it listens"));
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("somebody asks");
        let lines = BufReader::new(client.try_clone().expect("it can be shared")).lines();
        let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").expect("it listens");
        head
    });
    let mut runner = Runner::start("openai", &[("ACME_API_KEY", "sesame"), ("http_proxy", "http://127.0.0.1:1")]);
    runner.tell(&hello("openai", &json!({"url": url, "api_key_env": "ACME_API_KEY"})));
    assert_eq!(runner.next()["tasks"], 64);
    runner.tell(&json!({"type": "load"}));
    assert_eq!(runner.next()["type"], "loading");
    assert_eq!(runner.next()["type"], "loaded");
    let head = server.join().expect("the server lives");
    assert_eq!(head[0], "GET /v1/models HTTP/1.1");
    assert!(head.iter().any(|line| line.eq_ignore_ascii_case("authorization: bearer sesame")), "{head:?}");
    assert_eq!(runner.end(), (Some(0), String::new()));
}

/// Another program, minded for this test as its node.
fn minded(script: &str) -> Output {
    let mut command = Command::new(lockstep());
    command.args(["runner", "mind", "--node", &std::process::id().to_string(), "--", "sh", "-c", script]);
    command.process_group(0).output().expect("lockstep can be started")
}

#[test]
fn a_minded_program_ends_as_it_would_alone() {
    let output = minded("echo out; echo err >&2; exit 7");
    assert_eq!((output.status.code(), output.stdout, output.stderr), (Some(7), b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(minded("kill -9 $$").status.signal(), Some(9));
    let missing = Command::new(lockstep())
        .args(["runner", "mind", "--node", &std::process::id().to_string(), "--", "/no/such/program"])
        .process_group(0)
        .output()
        .expect("lockstep can be started");
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    let expected = "lockstep: `/no/such/program` cannot be started: No such file or directory (os error 2)\n";
    assert_eq!((missing.status.code(), said.as_str()), (Some(1), expected));
}

#[tokio::test]
async fn a_minded_program_ends_with_its_killed_node_and_all_that_it_started() {
    // The node: a shell that starts the runner as a node does, in a process group of its own.
    let script = "setsid \"$0\" runner mind --node $$ -- sh -c \"$1\" & wait";
    let mut node = Command::new("sh");
    node.args(["-c", script]).arg(lockstep()).arg(STUBBORN).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut node = node.spawn().expect("there is a shell");
    let mut line = String::new();
    BufReader::new(node.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says its numbers");
    let pids: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(pids.len(), 2, "{line:?}");
    assert!(pids.iter().all(|pid| lives(pid)), "they live as long as their node");
    node.kill().expect("it lives");
    node.wait().expect("it was killed");
    until_true("its runner is gone, and what that started", PATIENCE, async || !pids.iter().any(|pid| lives(pid)))
        .await;
}

/// Whether there is such a process, and it is not dead: who is dead may wait for a stranger to ask how it ended.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}
