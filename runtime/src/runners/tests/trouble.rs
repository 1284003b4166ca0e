//! Programs that do what no runner should.

use super::*;

/// A process that stays, and a child of it that stays: both write their numbers.
const STUBBORN: &str = "trap '' TERM INT HUP; cd \"$LOCKSTEP_RUNNER_DATA\"; echo $$ > parent; \
                        (trap '' TERM INT HUP; sh -c 'echo $PPID' > child; while :; do sleep 1; done) & \
                        while :; do sleep 1; done";

#[tokio::test]
async fn an_unknown_runner_ends_with_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, mut events) = mpsc::channel(8);
    let mut runners = Runners::new(
        Programs::unminded(BTreeMap::from([("mine".to_owned(), vec!["x".to_owned()])])),
        directory.path().to_owned(),
        sender,
    );
    runners.start(RUNNER, 3, &card("other", &[]));
    let expected = "this node has no runner `other`, only echo, openai, mine: name its program by `[runners.other]` and \
                    `command = [\"…\"]` in the node's configuration";
    assert_eq!(events.recv().await.unwrap(), (RUNNER, 3, RunnerSaid::Ended { reason: expected.into() }));
}

#[tokio::test]
async fn a_program_that_is_not_there_says_so() {
    let mut stage = Stage::start(&["/no/such/program"]);
    let (said, reason) = stage.until_the_end().await;
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(reason, "`/no/such/program` cannot be started: No such file or directory (os error 2)");
}

#[tokio::test]
async fn a_crash_is_reported_with_the_end_of_standard_error() {
    let mut stage =
        Stage::script("for n in $(seq 100); do echo \"line $n\" >&2; done; echo 'out of memory' >&2; exit 3");
    let (_, reason) = stage.until_the_end().await;
    assert!(reason.starts_with("it ended on its own, with exit code 3: out of memory (the end of its"), "{reason}");
    assert!(reason.contains("line 82 | line 83") && !reason.contains("line 81 "), "20 lines: {reason}");
}

#[tokio::test]
async fn a_signal_is_named() {
    let mut stage = Stage::script("kill -9 $$");
    assert_eq!(stage.until_the_end().await.1, "it ended on its own, by signal 9");
}

#[tokio::test]
async fn what_was_said_before_a_crash_comes_before_its_report() {
    let mut stage = Stage::script("for n in $(seq 500); do echo '{\"type\": \"alive\"}'; done; exit 1");
    let (said, reason) = stage.until_the_end().await;
    assert_eq!((said.len(), reason.as_str()), (500, "it ended on its own, with exit code 1"));
}

#[tokio::test]
async fn garbage_is_reported_once_and_ends_the_runner() {
    for (printed, expected) in [
        ("Loading model…", "line 2 of its standard output is no JSON object: \"Loading model…\""),
        ("", "line 2 of its standard output is no JSON object: \"\""),
        ("{\"type\": \"dance\"}", "line 2 of its standard output is none of the protocol's: unknown variant `dance`"),
        ("{\"type\": \"token\"}", "line 2 of its standard output is none of the protocol's: missing field `task`"),
    ] {
        let script = format!("echo '{{\"type\": \"alive\"}}'; echo '{printed}'; echo more garbage; exec sleep 1000");
        let mut stage = Stage::script(&script);
        let (said, reason) = stage.until_the_end().await;
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].starts_with(expected), "{said:?}");
        assert_eq!(reason, format!("it was killed: {}", said[1]));
        assert!(stage.started.elapsed() < PATIENCE / 2, "it was not waited for");
    }
}

#[tokio::test]
async fn a_line_that_is_too_long_is_not_held() {
    let mut stage = Stage::script("tr '\\0' x < /dev/zero");
    let (said, _) = stage.until_the_end().await;
    assert_eq!(said, ["line 1 of its standard output has over 16777216 bytes"]);
}

#[tokio::test]
async fn half_a_line_is_garbage_and_no_message() {
    let mut stage = Stage::script("printf '{\"type\": \"alive\"}'");
    let (said, reason) = stage.until_the_end().await;
    let expected =
        "line 1 of its standard output is cut short: the stream ended after 17 bytes of a line that has no end";
    assert_eq!(said, [expected]);
    assert!(reason.starts_with("it ended on its own") || reason.starts_with("it was killed: line 1"), "{reason}");
}

#[tokio::test]
async fn one_that_never_ends_is_killed_after_its_grace_with_its_children() {
    let mut stage = Stage::script(STUBBORN);
    let (parent, child) = (stage.file("parent").await, stage.file("child").await);
    assert!(is_there(&parent) && is_there(&child));
    let told = Instant::now();
    stage.end(Span::millis(300));
    let (_, reason) = stage.until_the_end().await;
    assert_eq!(reason, "it was killed: told to end, it had not after 300ms");
    assert!(told.elapsed() >= Duration::from_millis(300), "it had its grace");
    assert!(!is_there(&parent), "it was waited for: no zombie");
    is_gone(&child).await;
}

#[tokio::test]
async fn children_of_one_that_crashed_are_killed() {
    let mut stage = Stage::script("sleep 1000 & echo $! > \"$LOCKSTEP_RUNNER_DATA/child\"; exit 1");
    let child = stage.file("child").await;
    assert_eq!(stage.until_the_end().await.1, "it ended on its own, with exit code 1");
    is_gone(&child).await;
}

#[tokio::test]
async fn one_that_leaves_its_group_holds_up_nothing() {
    // It holds the streams open, which must not be waited for for ever.
    let mut stage = Stage::script("setsid sleep 15 & exit 1");
    assert_eq!(stage.until_the_end().await.1, "it ended on its own, with exit code 1");
    assert!(stage.started.elapsed() < Duration::from_secs(10), "{:?}", stage.started.elapsed());
}

#[tokio::test]
async fn one_that_ends_as_told_is_told_by_the_end_of_its_input() {
    let mut stage = Stage::script("cat > /dev/null; echo '{\"type\": \"alive\"}'; exit 0");
    stage.end(Span::seconds(20));
    let (said, reason) = stage.until_the_end().await;
    assert_eq!((said.len(), reason.as_str()), (1, "it ended as it was told to, with exit code 0"));
}

#[tokio::test]
async fn lines_that_wait_are_written_before_the_input_ends() {
    let mut stage = Stage::script("sleep 0.2; wc -l > \"$LOCKSTEP_RUNNER_DATA/lines\"");
    (0..100).for_each(|_| stage.tell(&ToRunner::Connect));
    stage.end(Span::seconds(20));
    assert_eq!(stage.until_the_end().await.1, "it ended as it was told to, with exit code 0");
    assert_eq!(stage.file("lines").await.trim(), "100");
}

#[tokio::test]
async fn one_that_reads_nothing_hangs_and_is_killed() {
    let mut stage = Stage::script("exec sleep 1000");
    let task = chat(TASK, &"word ".repeat(100), 10);
    let began = Instant::now();
    for _ in 0..10_000 {
        stage.tell(&task);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "telling waits for nobody");
    let (_, reason) = stage.until_the_end().await;
    assert_eq!(reason, "it was killed: it hangs: 4096 lines wait for it to read them");
}

#[tokio::test]
async fn one_that_closes_its_streams_is_ended() {
    let mut stage = Stage::script("exec >&-; exec sleep 1000");
    assert_eq!(stage.until_the_end().await.1, "it was killed: it closed its standard output");
    let mut stage = Stage::script("exec <&-; echo > \"$LOCKSTEP_RUNNER_DATA/closed\"; exec sleep 1000");
    stage.file("closed").await;
    stage.tell(&ToRunner::Connect);
    assert_eq!(stage.until_the_end().await.1, "it was killed: it closed its standard input");
}

#[tokio::test]
async fn a_task_that_fits_no_line_fails_and_the_runner_goes_on() {
    let mut stage = Stage::script("read line; echo '{\"type\": \"alive\"}'; exec sleep 1000");
    stage.tell(&chat(TASK, &"x".repeat(17 << 20), 10));
    let FromRunner::Failed { task, reason, .. } = stage.message().await else { panic!("no failure") };
    assert_eq!(task, TASK);
    assert!(reason.starts_with("the task did not reach its runner: its line would have 17"), "{reason}");
    stage.tell(&ToRunner::Connect);
    assert_eq!(stage.message().await, FromRunner::Alive);
}

#[tokio::test]
async fn one_that_talks_too_much_waits_for_its_listener() {
    // Long messages fill the pipe at once.
    let script = "text=$(head -c 8000 /dev/zero | tr '\\0' x); n=0; while :; do \
                  echo \"{\\\"type\\\": \\\"alive\\\", \\\"text\\\": \\\"$text\\\"}\"; \
                  n=$((n + 1)); echo $n > \"$LOCKSTEP_RUNNER_DATA/said\"; done";
    let mut stage = Stage::with_events(&["sh", "-c", script], 1);
    let path = stage.directory.path().join("runners/it/said");
    let (mut last, mut before) = (0, None);
    // It comes to rest with pipe and channel full.
    while last == 0 || before != Some(last) {
        before = Some(last);
        tokio::time::sleep(Duration::from_millis(200)).await;
        last = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(last);
        assert!(last < 1000, "{last} lines were said and none was heard");
    }
    assert_eq!(stage.message().await, FromRunner::Alive, "nothing is lost of it");
    // And its end is not held up by what nobody hears.
    stage.end(Span::ZERO);
    let (_, reason) = stage.until_the_end().await;
    assert_eq!(reason, "it was killed: told to end, it had not after 0ns");
}

#[tokio::test]
async fn a_hang_at_its_start_is_the_workers_to_end() {
    let mut stage = Stage::script("exec sleep 1000");
    stage.tell(&hello(card("it", &[]), 0, 1));
    assert!(tokio::time::timeout(Duration::from_millis(300), stage.events.recv()).await.is_err(), "it says nothing");
    stage.end(Span::ZERO);
    assert!(stage.until_the_end().await.1.starts_with("it was killed"));
}

#[tokio::test]
async fn what_belongs_to_an_earlier_life_is_passed_over() {
    let mut stage = Stage::script("read line; exit 1");
    stage.runners.tell(RUNNER, 0, &ToRunner::Connect);
    stage.runners.end(RUNNER, 0, Span::ZERO);
    stage.tell(&ToRunner::Connect);
    assert_eq!(stage.until_the_end().await.1, "it ended on its own, with exit code 1");
    // To one that is gone nothing happens either.
    stage.tell(&ToRunner::Connect);
    stage.end(Span::ZERO);
    stage.runners.close().await;
}

#[tokio::test]
async fn closing_waits_until_nothing_is_left() {
    let mut stage = Stage::script(STUBBORN);
    let (parent, child) = (stage.file("parent").await, stage.file("child").await);
    stage.runners.start(RUNNER, 2, &card("it", &[]));
    stage.end(Span::millis(100));
    stage.runners.close().await;
    assert!(!is_there(&parent));
    is_gone(&child).await;
}

#[tokio::test]
async fn closing_is_not_held_up_by_a_listener_that_is_gone_or_silent() {
    let Stage { runners, events, .. } =
        Stage::with_events(&["sh", "-c", "while :; do echo '{\"type\": \"alive\"}'; done"], 1);
    let full = async {
        while events.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, full).await.expect("it talks");
    tokio::time::timeout(PATIENCE, runners.close()).await.expect("it closes");
    drop(events);
}

#[tokio::test]
async fn a_supervisor_that_is_dropped_kills_all() {
    let stage = Stage::script(STUBBORN);
    let (parent, child) = (stage.file("parent").await, stage.file("child").await);
    drop(stage);
    is_gone(&parent).await;
    is_gone(&child).await;
}

#[test]
fn a_runtime_that_is_dropped_takes_them_along() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (stage, parent, child) = runtime.block_on(async {
        let stage = Stage::script(STUBBORN);
        let (parent, child) = (stage.file("parent").await, stage.file("child").await);
        (stage, parent, child)
    });
    runtime.shutdown_background();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        is_gone(&parent).await;
        is_gone(&child).await;
    });
    drop(stage);
}
