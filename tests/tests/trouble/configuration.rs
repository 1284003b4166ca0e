//! A configuration, a directory, a port or a key that cannot be used: what is said, and with which exit code.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use lockstep_tests::binary::lockstep;
use lockstep_tests::node::{Plan, quiet};
use tokio::process::Command;

/// A node that cannot start says so within this time.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(10);

const FAILED: Option<i32> = Some(1);
const WRONG_CALL: Option<i32> = Some(2);

/// A `lockstep node` with this data directory, on free ports of loopback unless `arguments` say otherwise.
fn node(data: &Path, arguments: &[&dyn AsRef<OsStr>]) -> Command {
    let mut command = quiet(lockstep());
    command.args(["node", "--no-mdns"]).arg("--data").arg(data);
    for (flag, free) in [("--listen", "/ip4/127.0.0.1/tcp/0"), ("--api", "127.0.0.1:0")] {
        if !arguments.iter().any(|argument| argument.as_ref() == flag) {
            command.args([flag, free]);
        }
    }
    command.args(arguments.iter().map(|argument| argument.as_ref()));
    command
}

/// Runs it to its end, which must be of its own doing: the exit code, and the last line that it said.
async fn fails(mut command: Command) -> (Option<i32>, String) {
    let output = tokio::time::timeout(GIVES_UP_WITHIN, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{command:?} goes on")).expect("lockstep can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.lines().last().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_wrong_setting_in_the_file_is_an_error_that_names_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let (file, data) = (directory.path().join("node.toml"), directory.path().join("data"));
    for (text, place, says) in [
        ("mdns = false\nlisten_on = []\n", "2:1", "there is no setting `listen_on`"),
        ("mdns = false\n\npeers = 17\n", "3:1", "`peers` must be "),
        ("name = = \"a\"\n", "1:8", "extra `=`"),
        ("[replication]\nlost_aftr = \"5s\"\n", "2:1", "did you mean `replication.lost_after`?"),
        ("[replication]\nlost_after = \"5 apples\"\n", "2:1", "must be a length of time with its unit"),
        ("[replication]\n\n\nbeat_every = \"0s\"\n", "4:1", "`replication.beat_every` must be more than nothing"),
        ("[replication]\nchunk_bytes = 99999999\n", "2:1", "or it does not fit a message"),
    ] {
        fs::write(&file, text).unwrap();
        let (code, said) = fails(node(&data, &[&"--config", &file])).await;
        assert_eq!(code, WRONG_CALL, "{text:?}: {said}");
        let begins = format!("lockstep: {}:{place}: ", file.display());
        assert!(said.starts_with(&begins) && said.contains(says), "{text:?}: {said}");
    }
    assert!(!data.exists(), "nothing is made before the configuration is known to be sound");
}

#[tokio::test]
async fn a_wrong_flag_variable_or_file_name_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let missing = directory.path().join("missing.toml");
    let with_environment = |name: &str, value: &str| {
        let mut command = node(&data, &[]);
        command.env(name, value);
        command
    };
    let calls = [
        (node(&data, &[&"--config", &missing]), "missing.toml cannot be read: No such file"),
        (node(&data, &[&"--set", &"replication.lost_aftr=5s"]), "--set: there is no setting `replication.lost_aftr`"),
        (node(&data, &[&"--set", &"lost"]), "--set takes KEY=VALUE"),
        (node(&data, &[&"--listen", &"localhost:7170"]), "--listen: `listen` must be"),
        (node(&data, &[&"--announce", &"example.com:7170"]), "--announce: `announce` must be addresses such as"),
        (with_environment("LOCKSTEP_PEERS", "nowhere"), "LOCKSTEP_PEERS in the environment: `peers` must be"),
    ];
    for (call, says) in calls {
        let (code, said) = fails(call).await;
        assert_eq!(code, WRONG_CALL, "{said}");
        assert!(said.contains(says), "{said}");
    }
    assert!(!data.exists());
}

#[tokio::test]
async fn a_directory_in_use_is_named_with_the_process_that_has_it_and_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new("a", directory.path());
    let mut running = plan.start();
    running.ready(GIVES_UP_WITHIN).await;
    let (code, said) = fails(node(&plan.data, &[])).await;
    assert_eq!(code, FAILED, "{said}");
    let pid = running.pid().expect("it runs");
    let holder = format!("{} is in use by process {pid}: stop that node first", plan.data.display());
    assert!(said.contains(&holder), "{said}");
    running.ready(GIVES_UP_WITHIN).await;
}

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_is_announced() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let peer_port = format!("/ip4/127.0.0.1/tcp/{}", taken.port());
    let (code, said) = fails(node(&data, &[&"--listen", &peer_port])).await;
    assert_eq!(code, FAILED, "{said}");
    assert!(said.contains(&format!("cannot listen on {peer_port}: another program does already")), "{said}");
    let (code, said) = fails(node(&data, &[&"--api", &taken.to_string()])).await;
    assert_eq!(code, FAILED, "{said}");
    assert!(said.contains(&format!("the API cannot listen on {taken}, another process does")), "{said}");
    assert!(!data.join("api.addr").exists() && !data.join("p2p.addr").exists());
    drop(listener);
    let mut running = Plan { data, ..Plan::new("a", directory.path()) }.start();
    running.ready(GIVES_UP_WITHIN).await;
}

#[tokio::test]
async fn an_open_api_needs_a_token_and_keys_need_their_form_and_mode() {
    let directory = tempfile::tempdir().unwrap();
    let (data, key) = (directory.path().join("data"), directory.path().join("a.key"));
    let (code, said) = fails(node(&data, &[&"--api", &"0.0.0.0:0"])).await;
    assert_eq!(code, FAILED, "{said}");
    assert!(said.contains("may not listen on 0.0.0.0:0 without a token"), "{said}");

    let with_key = async |text: &str, mode| {
        fs::write(&key, text).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = fails(node(&data, &[&"--cluster-key-file", &key])).await;
        assert_eq!(code, FAILED, "{said}");
        said
    };
    let secret = "ab".repeat(32);
    assert_eq!(with_key("zz", 0o600).await, format!("lockstep: {}: a key is 64 hexadecimal digits", key.display()));
    let readable = with_key(&secret, 0o644).await;
    assert!(readable.contains("can be read by others (mode 644): run `chmod 600 "), "{readable}");
    assert!(!readable.contains(&secret), "a key is never shown");
    fs::remove_file(&key).unwrap();
    let (code, said) = fails(node(&data, &[&"--cluster-key-file", &key])).await;
    assert_eq!((code, said.contains("a.key")), (FAILED, true), "{said}");
}
