//! Files that are no scenarios: each is refused with its line, and with what was expected there.

use super::Scenario;

/// A scenario that is whole, with this in its one phase.
fn with_phase(more: &str) -> String {
    format!("title = \"t\"\nwhy = \"w\"\nnodes = 3\n[[phase]]\ntitle = \"p\"\nuntil = \"10s\"\n{more}")
}

/// The error that this text is refused with, as people see it.
fn refused(text: &str) -> String {
    Scenario::parse("it.toml", text).map(|_| format!("it is taken:\n{text}")).unwrap_or_else(|error| error.to_string())
}

#[test]
fn what_is_whole_is_taken() {
    assert!(Scenario::parse("it.toml", &with_phase("")).is_ok());
}

#[test]
fn an_empty_file_is_no_scenario() {
    let expected =
        "it.toml:1: the file is empty, expected a scenario: `title`, `why`, `nodes` and at least one `[[phase]]`";
    assert_eq!(refused(""), expected);
    assert_eq!(refused("# nothing but words\n"), expected);
    assert_eq!(
        refused("title = \"t\"\nwhy = \"w\"\n"),
        "it.toml:1: missing key `phase`, expected it in the table that begins here"
    );
}

#[test]
fn unknown_words_are_named_with_what_was_meant() {
    let text = with_phase("").replace("nodes = 3", "nodes = 3\ncolour = \"red\"");
    assert!(
        refused(&text).starts_with("it.toml:4: unknown key `colour`, expected one of `title`, `why`"),
        "{}",
        refused(&text)
    );
    let text = with_phase("[config]\n\nchunk_byte = 3\n");
    let error = refused(&text);
    assert!(
        error.starts_with("it.toml:9: unknown key `chunk_byte`: did you mean `chunk_bytes`? Expected one of"),
        "{error}"
    );
    let error = refused(&with_phase("[[phase.fault]]\nat = \"1s\"\nfault = \"explode\"\nnode = 1\n"));
    assert!(error.starts_with("it.toml:9: unknown word `explode`, expected one of `crash`, `gone`"), "{error}");
    let error = refused(&with_phase("[[phase.fault]]\nat = \"1s\"\nfault = \"gone\"\nnode = 1\nloud = true\n"));
    assert_eq!(error, "it.toml:11: unknown key `loud`, expected `node`");
    let error = refused(&with_phase("[expect.counters]\nnack_sent = { at_most = 3 }\n"));
    assert!(error.starts_with("it.toml:8: unknown counter `nack_sent`: did you mean `nacks_sent`?"), "{error}");
    let error = refused(&with_phase("").replace("nodes = 3", "nodes = 3\nmutant = \"none\""));
    assert_eq!(error, "it.toml:4: there is no mutant \"none\", expected one that `cargo sim mutants --list` names");
}

#[test]
fn values_of_another_type_are_refused() {
    let error = refused(&with_phase("").replace("nodes = 3", "nodes = \"three\""));
    assert_eq!(error, "it.toml:3: invalid type: string \"three\", expected a whole number");
    let error = refused(&with_phase("").replace("\"10s\"", "10"));
    assert!(
        error.starts_with("it.toml:6: invalid type: integer `10`, expected a string, such as a length of time"),
        "{error}"
    );
    let error = refused(&with_phase("[[phase.fault]]\nat = \"1s\"\nfault = \"gone\"\nnode = \"boss\"\n"));
    assert_eq!(
        error,
        "it.toml:10: invalid value: string \"boss\", expected a machine's number, \"leader\", \"follower\" or \"everybody\""
    );
}

#[test]
fn times_that_cannot_be_are_refused() {
    for bad in ["10 parsecs", "-5s", "99999999999999999999s"] {
        let error = refused(&with_phase("").replace("10s", bad));
        assert_eq!(
            error,
            format!(
                "it.toml:6: expected a length of time with its unit, such as \"250ms\", \"5s\", \"2m\" or \"24h\", found \"{bad}\""
            )
        );
    }
    let error = refused(&with_phase("").replace("10s", "5124095h"));
    assert_eq!(error, "it.toml:6: `until` is 18446742000 s, expected at most 31536000 s, a year");
    let error = refused(&with_phase("").replace("10s", "0s"));
    assert!(error.starts_with("it.toml:6: `until` is 0"), "{error}");
    let error = refused(&with_phase("[[phase.fault]]\nat = \"11s\"\nfault = \"gone\"\nnode = 1\n"));
    assert_eq!(error, "it.toml:8: `at` is 11 s, expected at most the 10 s that the phase lasts");
    let error = refused(&with_phase("[[machine]]\nnumber = 2\nstarts = \"30s\"\n"));
    assert_eq!(error, "it.toml:9: `starts` is 30 s, expected at most 10 s, when the last phase ends");
    let error = refused(&with_phase("[[phase.load]]\nfrom = \"10s\"\n"));
    assert_eq!(error, "it.toml:8: `from` is 10 s, expected less than the 10 s that the phase lasts");
}

#[test]
fn machines_that_are_not_there_are_refused() {
    let error = refused(&with_phase("[[phase.fault]]\nat = \"1s\"\nfault = \"gone\"\nnode = 9\n"));
    assert_eq!(error, "it.toml:10: `node` names machine 9, expected one of 1, 2, 3");
    let error = refused(&with_phase("[[phase.load]]\nnodes = [1, 7]\n"));
    assert_eq!(error, "it.toml:8: `nodes` names machine 7, expected one of 1, 2, 3");
    let error = refused(&with_phase("[[expect.lost]]\nnode = 8\nsilent_from = \"1s\"\nwithin = \"6s\"\n"));
    assert_eq!(error, "it.toml:7: `expect` names machine 8, expected one of 1, 2, 3");
    let error = refused(&with_phase("").replace("nodes = 3", "nodes = 0"));
    assert_eq!(error, "it.toml:3: `nodes` is 0, expected 1 to 200");
    let error = refused(&with_phase("[[machine]]\nnumber = 4\ntwin_of = 5\n"));
    assert_eq!(error, "it.toml:9: `twin_of` is 5, expected the number of another machine: 1, 2, 3, 4");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let error = refused(&with_phase("[weather]\nloss = 2000\n"));
    assert_eq!(error, "it.toml:8: `loss` is 2000, expected 0 to 1000: so many messages in a thousand");
    let error = refused(&with_phase("[[phase.load]]\nevery = \"0s\"\n"));
    assert_eq!(error, "it.toml:8: `every` is 0, expected more than that");
    for (name, nothing) in [("founders", "0"), ("nodes", "0"), ("lost_after", "\"0s\"")] {
        let error = refused(&with_phase(&format!("[config]\n{name} = {nothing}\n")));
        assert_eq!(error, format!("it.toml:8: `{name}` is {nothing}, expected more than nothing"));
    }
    assert_eq!(refused(&with_phase("[config]\nsnapshot_every = 0\n")).lines().next(), Some("it is taken:"));
    let error = refused(&with_phase("[expect.counters.nacks_sent]\nat_most = 3\nat_least = 7\n"));
    assert_eq!(error, "it.toml:7: `nacks_sent` is to be at least 7 and at most 3, which nothing is");
}
