//! The layers, what they say when something is wrong, and that what is printed reads back as the same.

use std::path::Path;

use lockstep_replication::Span;

use super::*;
use crate::config::setting::Raw;

fn file(text: &str) -> Result<Loaded, BadConfig> {
    let mut layers = Layers::default();
    layers.text(Path::new("node.toml"), text)?;
    Loaded::from_layers(layers)
}

fn error(text: &str) -> String {
    file(text).expect_err("it should be refused").to_string()
}

fn environment(layers: &mut Layers, variables: &[(&str, &str)]) {
    layers.environment(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
}

#[test]
fn a_later_layer_wins() {
    let mut layers = Layers::default();
    layers.text(Path::new("node.toml"), "name = 'a'\nlog = 'warn'\nmdns = false").unwrap();
    environment(&mut layers, &[("LOCKSTEP_NAME", "b"), ("LOCKSTEP_LOG", "debug"), ("HOME", "/x")]);
    layers.flag("--name", "name", Raw::Text("c".into()));
    let loaded = Loaded::from_layers(layers).unwrap();
    assert_eq!(
        (loaded.config.name.as_str(), loaded.config.log.as_str(), loaded.config.mdns),
        ("c", "debug", false),
        "flag over environment over file over built-in"
    );
    assert_eq!(loaded.origins["name"].to_string(), "--name");
    assert_eq!(loaded.origins["log"].to_string(), "LOCKSTEP_LOG in the environment");
    assert_eq!(loaded.origins["mdns"].to_string(), "node.toml:3:1");
}

#[test]
fn an_unknown_key_is_an_error_with_its_place_and_a_near_miss() {
    assert_eq!(error("name = 'a'\n\n  peer = []"), "node.toml:3:3: there is no setting `peer`; did you mean `peers`?");
    assert_eq!(
        error("[replication]\nsnapshot_evry = 5"),
        "node.toml:2:1: there is no setting `replication.snapshot_evry`; did you mean `replication.snapshot_every`?"
    );
    assert_eq!(error("colour = 1"), "node.toml:1:1: there is no setting `colour`");
}

#[test]
fn a_wrong_type_names_its_line_and_what_it_should_be() {
    assert_eq!(
        error("\napi = 7070"),
        "node.toml:2:1: `api` must be an address and a port, such as \"127.0.0.1:7070\", this is 7070"
    );
    assert_eq!(
        error("[replication]\nbeat_every = 5"),
        "node.toml:2:1: `replication.beat_every` must be a length of time with its unit, such as \"250ms\", \"5s\", \
         \"2m\" or \"24h\", this is 5"
    );
    assert_eq!(error("mdns = 'maybe'"), "node.toml:1:1: `mdns` must be true or false, this is \"maybe\"");
    assert!(error("[replication]\nserves = -1").contains("a whole number, not below 0"));
    assert!(error("listen = ['nonsense']").starts_with("node.toml:1:1: `listen` must be addresses such as"));
}

#[test]
fn text_that_is_no_toml_names_its_line_and_column() {
    let error = error("name = 'a'\nlog == 'x'");
    assert!(error.starts_with("node.toml:2:"), "{error}");
}

#[test]
fn values_no_node_could_work_with_are_refused() {
    assert_eq!(
        error("[replication]\nbeat_every = \"0s\""),
        "node.toml:2:1: `replication.beat_every` must be more than nothing"
    );
    assert!(error("[replication]\nchunk_bytes = 10_000_000").contains("does not fit a message"));
    assert!(error("listen = []").contains("at least one address"));
    assert!(file("[replication]\nsnapshot_every = 0").is_ok(), "0 means none here");
}

#[test]
fn unknown_names_in_the_environment_are_only_warned_of() {
    let mut layers = Layers::default();
    environment(&mut layers, &[("LOCKSTEP_SERVICE_HOST", "10.0.0.1"), ("LOCKSTEP_TOKEN_FILE", "t")]);
    let loaded = Loaded::from_layers(layers).unwrap();
    assert_eq!(loaded.warnings, ["LOCKSTEP_SERVICE_HOST in the environment: there is no setting `service_host`"]);
}

#[test]
fn snapshot_fetching_can_be_disabled_by_its_variable() {
    for (value, fetches) in [("1", false), ("0", true), ("", true)] {
        let mut layers = Layers::default();
        environment(&mut layers, &[("LOCKSTEP_DISABLE_SNAPSHOT_FETCH", value)]);
        let loaded = Loaded::from_layers(layers).unwrap();
        assert_eq!(loaded.config.replication.fetch_snapshots, fetches, "set to {value:?}");
    }
}

#[test]
fn the_api_may_be_named_by_its_url_as_clients_name_it() {
    let mut layers = Layers::default();
    environment(&mut layers, &[("LOCKSTEP_API", "http://localhost:7099/")]);
    assert_eq!(Loaded::from_layers(layers).unwrap().config.api.to_string(), "127.0.0.1:7099");
}

#[test]
fn any_setting_can_be_given_by_the_environment_or_an_assignment() {
    let mut layers = Layers::default();
    environment(
        &mut layers,
        &[
            ("LOCKSTEP_REPLICATION_LOST_AFTER", "1.5s"),
            ("LOCKSTEP_PEERS", "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2"),
        ],
    );
    layers.assignment("replication.snapshot_every=0").unwrap();
    let config = Loaded::from_layers(layers).unwrap().config;
    assert_eq!(config.replication.lost_after, Span::millis(1500));
    assert_eq!(config.replication.snapshot_every, 0);
    assert_eq!(config.peers.len(), 2);
}

#[test]
fn the_listed_peers_are_the_founders_unless_something_else_is_said() {
    let founders = |text: &str| file(text).unwrap().config.replication.founders;
    assert_eq!(founders(""), 1);
    assert_eq!(founders("peers = ['/ip4/127.0.0.1/tcp/1', '/ip4/127.0.0.1/tcp/2']"), 3);
    assert_eq!(founders("peers = ['/ip4/127.0.0.1/tcp/1']\n[replication]\nfounders = 5"), 5);
}

#[test]
fn runners_are_named_with_their_commands() {
    let loaded = file("[runners.mine]\ncommand = ['python3', 'a b.py']\n[runners.other]\ncommand = ['x']").unwrap();
    assert_eq!(loaded.config.runners["mine"], ["python3", "a b.py"]);
    let printed = loaded.to_toml();
    let line = "[runners.mine]\ncommand = [\"python3\", \"a b.py\"]  # from node.toml:2:1\n";
    assert!(printed.contains(line), "{printed}");
    assert_eq!(file(&printed).unwrap().config.runners, loaded.config.runners);
}

#[test]
fn a_runner_that_cannot_be_is_refused_with_its_line() {
    for (text, expected) in [
        (
            "[runners.a]\ncomand = ['x']",
            "2:1: there is no setting `runners.a.comand`; did you mean `runners.a.command`?",
        ),
        ("[runners]\na = ['x']", "2:1: there is no setting `runners.a`; did you mean `runners.a.command`?"),
        ("[runners.echo]\ncommand = ['x']", "2:1: a runner cannot be called `echo`: that one is built in"),
        (
            "[runners.'../a']\ncommand = ['x']",
            "2:1: a runner cannot be called `../a`: take letters, digits, `-` and `_`",
        ),
    ] {
        assert_eq!(error(text), format!("node.toml:{expected}"));
    }
    for command in ["[]", "['']", "5", "[5]"] {
        let error = error(&format!("[runners.a]\ncommand = {command}"));
        assert!(error.starts_with("node.toml:2:1: `runners.a.command` must be"), "{error}");
    }
}

#[test]
fn the_log_variable_of_all_rust_programs_counts_where_ours_is_not_set() {
    for (variables, log) in [
        (&[("RUST_LOG", "debug")][..], "debug"),
        (&[("RUST_LOG", "debug"), ("LOCKSTEP_LOG", "trace")][..], "trace"),
        (&[("LOCKSTEP_LOG", "trace"), ("RUST_LOG", "debug")][..], "trace"),
    ] {
        let mut layers = Layers::default();
        layers.text(Path::new("node.toml"), "log = 'warn'").unwrap();
        environment(&mut layers, variables);
        assert_eq!(Loaded::from_layers(layers).unwrap().config.log, log, "{variables:?}");
    }
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let node = "01".repeat(32);
    let loaded = file(&format!(
        "name = \"a \\\"quoted\\\" name\"\npeers = ['/ip4/127.0.0.1/tcp/1']\nallow = ['{node}']\n\
         api_token_file = '/x/y'\n[replication]\nlost_after = '1500ms'\nsnapshot_at_least = '0s'\nserves = 9"
    ))
    .unwrap();
    let printed = loaded.to_toml();
    assert!(printed.contains("lost_after = \"1500ms\"  # from node.toml:6:1"), "{printed}");
    assert!(printed.contains("mdns = true  # built in"), "{printed}");
    assert!(printed.contains("founders = 2  # from peers"), "{printed}");
    let again = file(&printed).unwrap();
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
}
