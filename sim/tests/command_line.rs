//! The command line: verdicts as exit codes, one JSON document, the same run in every process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn sim(arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Command::new(env!("CARGO_BIN_EXE_lockstep-sim")).args(arguments).current_dir(root).output().expect("it starts")
}

fn json(arguments: &[&str]) -> (i32, Value) {
    let output = sim(arguments);
    let text = String::from_utf8(output.stdout).expect("text");
    let document = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (output.status.code().expect("it ends by itself"), document)
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn written(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("the folder takes a file");
    path.to_string_lossy().into_owned()
}

#[test]
fn a_run_that_holds_ends_with_0_and_is_the_same_in_two_processes() {
    let arguments = ["run", "scenarios/leader-crash.toml", "--json"];
    let (code, mut one) = json(&arguments);
    let (_, mut other) = json(&arguments);
    assert_eq!((code, &one["verdict"], &one["failure"]), (0, &"held".into(), &Value::Null));
    let keys: Vec<_> = one.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = ["counters", "cpu_ms", "failure", "scenario", "seed", "trace_hash", "verdict", "virtual_ms"];
    assert_eq!(keys, expected);
    for document in [&mut one, &mut other] {
        assert!(document["cpu_ms"].take().is_number());
    }
    assert_eq!(one, other);
}

#[test]
fn a_run_that_fails_ends_with_1_and_says_how() {
    let (code, document) = json(&["run", "--swarm", "--seed", "1", "--mutant", "done-before-held", "--json"]);
    assert_eq!((code, &document["verdict"]), (1, &"failed".into()));
    let failure = document["failure"].as_object().expect("an object");
    assert_eq!(failure.keys().collect::<Vec<_>>(), ["at_ms", "check", "reason"]);
    assert_eq!(failure["check"], "marks");
}

#[test]
fn it_ends_in_peace_where_nobody_reads_any_more() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep-sim"));
    command.args(["mutants", "--list"]).current_dir(root).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), errors(&output)), (Some(0), String::new()));
}

#[test]
fn a_call_that_is_wrong_ends_with_2_and_says_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = written(
        &folder,
        "bad.toml",
        "title = \"t\"\nwhy = \"w\"\nnodes = 3\nnoise = 7\n[[phase]]\ntitle = \"p\"\nuntil = \"1s\"\n",
    );
    for arguments in [&["run", &bad][..], &["sweep", &bad, "--seeds", "0..3"], &["shrink", &bad, "--seed", "1"]] {
        let output = sim(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(errors(&output).contains("bad.toml:4: unknown key `noise`"), "{}", errors(&output));
        assert!(output.stdout.is_empty());
    }
    let whole = "title = \"t\"\nwhy = \"w\"\nnodes = 3\n[[phase]]\ntitle = \"p\"\nuntil = \"10s\"\n";
    let gone = "[[phase.fault]]\nat = \"1s\"\nfault = \"gone\"\nnode = 9\n";
    for (text, expected) in [
        (String::new(), "bad.toml:1: the file is empty, expected a scenario"),
        (whole.replace('3', "\"three\""), "bad.toml:3: invalid type: string \"three\", expected a whole number"),
        (whole.replace("10s", "10"), "bad.toml:6: expected a length of time with its unit"),
        (whole.to_owned() + gone, "bad.toml:10: `node` names machine 9, expected one of 1, 2, 3"),
    ] {
        let output = sim(&["run", &written(&folder, "bad.toml", &text)]);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(errors(&output).contains(expected) && output.stdout.is_empty(), "{}", errors(&output));
    }
    let nothing = folder.path().to_string_lossy().into_owned();
    for arguments in [
        &["run"][..],
        &["run", "no-such.toml"],
        &["sweep", "--swarm", "--seeds", "5..5"],
        &["shrink", "--swarm", "--seed", "1"],
    ] {
        assert_eq!(sim(arguments).status.code(), Some(2), "{arguments:?}");
    }
    std::fs::remove_file(&bad).expect("it is there");
    assert!(errors(&sim(&["run", &nothing])).contains("has no scenario in it"));
}

#[test]
fn several_scenarios_are_run_in_their_order_regressions_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let calm = "title = \"t\"\nwhy = \"w\"\nnodes = 2\n[[phase]]\ntitle = \"p\"\nuntil = \"1s\"\n";
    std::fs::create_dir(folder.path().join("regressions")).expect("a folder");
    for name in ["b.toml", "a.toml", "regressions/z.toml"] {
        written(&folder, name, calm);
    }
    let path = folder.path().to_string_lossy().into_owned();
    let (code, documents) = json(&["run", &path, "--json"]);
    let names: Vec<_> = documents.as_array().expect("a list").iter().map(|it| it["scenario"].clone()).collect();
    assert_eq!((code, names), (0, vec!["z".into(), "a".into(), "b".into()]));
    written(&folder, "c.toml", &(calm.to_owned() + "[expect.counters.nacks_sent]\nat_least = 1\n"));
    let output = sim(&["run", &path]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("nacks_sent: 0, expected 1 to any number") && text.ends_with("3 of 4 scenarios held\n"),
        "{text}"
    );
}

#[test]
fn a_trace_has_a_line_an_event() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace.txt");
    let (_, told) = json(&["run", "scenarios/last-entry-lost.toml", "--json", "--trace", &path.to_string_lossy()]);
    let text = std::fs::read_to_string(&path).expect("it is written");
    let events = text.lines().filter(|line| line.contains(" <- ")).count();
    assert_eq!(told["counters"]["steps"], events, "an event is an input of a node");
    assert!(told["counters"]["steps"].as_u64() > Some(1000) && text.contains("FAULT"), "{events} events");
}

#[test]
fn a_sweep_is_shared_interrupted_and_told_in_junit() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (done, junit) = (file("done"), file("sweep.xml"));
    let first = ["sweep", "--swarm", "--seeds", "0..10", "--shard", "1/2", "--resume", &done, "--json"];
    let (code, half) = json(&first);
    assert_eq!((code, &half["seeds"], &half["held"]), (0, &5.into(), &5.into()));
    let all = ["sweep", "--swarm", "--seeds", "0..10", "--resume", &done, "--junit", &junit, "--json"];
    let (code, all) = json(&all);
    assert_eq!((code, &all["seeds"], &all["failures"]), (0, &10.into(), &Value::Array(Vec::new())));
    assert!(all["probes"].as_object().expect("an object").len() > 50 && all["cpu_s"].is_number());
    assert_eq!(std::fs::read_to_string(&done).expect("it is written").lines().count(), 10);
    let xml = std::fs::read_to_string(&junit).expect("it is written");
    assert_eq!(xml.matches("<testcase").count(), 10);
}

#[test]
fn a_failing_seed_is_shrunk_to_a_file_that_fails_by_the_same_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("small.toml");
    let file = path.to_string_lossy().into_owned();
    let arguments = ["shrink", "--swarm", "--seed", "1", "--mutant", "mark-at-half", "--out", &file, "--json"];
    let (code, document) = json(&arguments);
    assert_eq!((code, &document["check"]), (0, &"marks".into()));
    assert!(document["after"]["total"].as_u64() <= Some(20), "{document}");
    let (code, again) = json(&["run", &file, "--json"]);
    assert_eq!((code, &again["failure"]["check"]), (1, &"marks".into()));
    let text = std::fs::read_to_string(&path).expect("it is written");
    let without: String =
        text.lines().filter(|line| !line.starts_with("mutant")).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(sim(&["run", &written(&folder, "without.toml", &without)]).status.code(), Some(0));
}
