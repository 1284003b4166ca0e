//! Tasks, inputs and answers, line by line.

use lockstep_replication::{Liveness, NodeId, Seed, Span, Wall};

use super::stage::{ME, Stage, create};
use crate::command::Command;
use crate::runner::{FromRunner, VERSION};
use crate::state::RunnerStatus;
use crate::testing::{instance, task};
use crate::transient::{StopReason, TraceSpan, Transient, Usage};
use crate::worker::{RunnerSaid, Worker, WorkerConfig, WorkerInput};

const TOLD: &str = r#"tell 1: task 1 {"messages":[]}"#;

fn token(n: u8, text: &str) -> FromRunner {
    FromRunner::Token { task: task(n), text: text.into() }
}

fn done(n: u8) -> FromRunner {
    let usage = Usage { prompt_tokens: 3, completion_tokens: 2 };
    FromRunner::Done { task: task(n), stop: StopReason::Stop, usage }
}

fn none() -> Vec<String> {
    vec![]
}

/// Node 1's runner is at work on these tasks, and the state shows it.
fn at_work(tasks: &[u8]) -> Stage {
    let mut stage = Stage::ready();
    for n in tasks {
        stage.create(*n);
        stage.input(*n);
    }
    stage.order();
    stage
}

#[test]
fn a_task_is_begun_answered_and_finished() {
    let mut stage = Stage::ready();
    assert_eq!(stage.create(1), none());
    assert_eq!(stage.input(1), ["to node 2: has 1", TOLD, "begin 1", "observe Running"]);
    assert_eq!(stage.input(1), ["to node 2: has 1"], "the acknowledgement was lost");
    assert_eq!(stage.says(1, token(1, "a")), none(), "the state does not show yet that it has begun");
    assert_eq!(stage.order(), [r#"to node 2: 1.0 "a""#]);
    assert_eq!(stage.says(1, token(1, "b")), [r#"to node 2: 1.1 "b""#]);
    let end = ["to node 2: 1.2 Stop after 2", "finish 1 Done { tokens: 2 }"];
    assert_eq!(stage.says(1, done(1)), end);
    assert_eq!(stage.order(), none());
    let span = TraceSpan { name: "decode".into(), began: Wall(1), micros: 2 };
    let trace = FromRunner::Trace { task: task(1), spans: vec![span] };
    assert_eq!(stage.says(1, trace), ["to node 2: trace 1 of 1"]);
    assert_eq!(stage.wait(Span::seconds(2)), ["observe Ready"]);
    stage.order();
    let missing = Transient::TokensMissing { task: task(1), from: 1 };
    let again = [r#"to node 2: 1.1 "b""#, "to node 2: 1.2 Stop after 2"];
    assert_eq!(stage.signal(missing.clone()), again, "answers are kept for a while");
    stage.wait(Span::seconds(15));
    assert_eq!((stage.signal(missing), stage.worker.next_wake()), (none(), None));
    let view = stage.worker.view();
    assert_eq!((view.tasks, view.wishes, view.input_bytes, view.answer_bytes), (0, 0, 0, 0));
    assert_eq!((view.counts.pieces_again, view.counts.signals_refused), (2, 1));
}

#[test]
fn an_input_may_come_before_its_task() {
    let mut stage = Stage::ready();
    assert_eq!(stage.input(1), none());
    assert_eq!(stage.create(1), ["to node 2: has 1", TOLD, "begin 1", "observe Running"]);
    stage.input(2);
    stage.wait(Span::seconds(10));
    assert_eq!((stage.worker.view().input_bytes, stage.worker.view().counts.inputs_expired), (0, 1));
}

#[test]
fn a_runner_has_as_many_tasks_as_it_can() {
    let mut stage = at_work(&[1, 2, 3]);
    assert_eq!((stage.worker.view().runners[0].working, stage.worker.view().runners[0].waiting), (2, 1));
    let out = stage.says(1, done(2));
    assert_eq!(out[2..], [r#"tell 1: task 3 {"messages":[]}"#, "begin 3"]);
}

#[test]
fn tasks_wait_for_their_runner_to_be_ready() {
    let (mut stage, _) = Stage::with(&[&[1]]);
    stage.create(1);
    assert_eq!(stage.input(1), ["to node 2: has 1"]);
    for line in [FromRunner::Hello { version: VERSION, tasks: 1 }, FromRunner::Connected, FromRunner::Loaded] {
        assert!(!stage.says(1, line).contains(&TOLD.to_owned()));
    }
    assert_eq!(stage.says(1, FromRunner::Ready), [TOLD, "begin 1", "observe Running"]);
}

#[test]
fn a_task_that_is_called_off_is_called_off_at_its_runner() {
    let mut stage = at_work(&[1]);
    assert_eq!(stage.ask(Command::CancelTask { task: task(1) }), ["tell 1: cancel 1"]);
    assert_eq!(stage.says(1, token(1, "late")), none());
    assert_eq!(stage.worker.view().counts.stray_messages, 1);
    stage.create(2);
    assert_eq!(stage.ask(Command::CancelTask { task: task(2) }), none());
    assert_eq!(stage.worker.view().runners[0].waiting, 0);
}

#[test]
fn a_crash_fails_the_tasks_at_work_and_keeps_those_that_wait() {
    let mut stage = at_work(&[1, 2, 3]);
    stage.says(1, token(1, "a"));
    let reason = "its runner failed: killed by signal 9";
    let finish = |n: u8| format!("finish {n} Failed {{ reason: {reason:?} }}");
    let out = stage.does(1, RunnerSaid::Ended { reason: "killed by signal 9".into() });
    let errors =
        [format!("to node 2: 1.1 error: {reason}"), finish(1), format!("to node 2: 2.0 error: {reason}"), finish(2)];
    assert_eq!(out[..4], errors);
    stage.order();
    assert_eq!(stage.worker.view().tasks, 1);
    stage.wait(Span::seconds(2));
    stage.bring_up(2);
    assert_eq!(stage.worker.view().runners[0].working, 1);
}

#[test]
fn an_instance_that_is_given_up_fails_all_its_tasks() {
    let (mut stage, _) = Stage::with(&[&[1]]);
    stage.create(1);
    for life in 1..=5 {
        stage.does(life, RunnerSaid::Ended { reason: "oh".into() });
        stage.order();
        stage.wait(Span::seconds(20));
    }
    assert_eq!((stage.worker.view().tasks, stage.cluster.live(0)), (0, 0));
}

#[test]
fn one_task_may_fail_without_the_others() {
    let mut stage = at_work(&[1, 2]);
    let out = stage.says(1, FromRunner::Failed { task: task(1), reason: "no memory".into(), request: false });
    assert_eq!(out, ["to node 2: 1.0 error: no memory", r#"finish 1 Failed { reason: "no memory" }"#]);
    assert_eq!(stage.says(1, token(2, "b")), [r#"to node 2: 2.0 "b""#]);
    let out = stage.says(1, FromRunner::Failed { task: task(2), reason: "too long".into(), request: true });
    assert_eq!(out, ["to node 2: 2.1 refused: too long", r#"finish 2 Failed { reason: "too long" }"#]);
}

#[test]
fn a_runner_that_goes_on_with_what_was_called_off_is_hung() {
    let mut stage = at_work(&[1, 2]);
    stage.says(1, token(1, "a"));
    stage.ask(Command::CancelTask { task: task(1) });
    // What it said before it heard of that may still come.
    stage.wait(Span::seconds(9));
    assert_eq!(stage.says(1, token(1, "late")), none());
    stage.wait(Span::seconds(1));
    let out = stage.says(1, token(1, "later"));
    let reason = "it went on with a task for 10 s after it was told not to";
    let error = format!("to node 2: 2.0 error: its runner failed: {reason}");
    assert_eq!(out[..2], ["end 1 within 0 µs".to_owned(), error]);
    stage.does(1, RunnerSaid::Ended { reason: "killed".into() });
    assert!(stage.wait(Span::seconds(2)).iter().any(|said| said == "start 2"));
}

#[test]
fn a_runner_that_is_silent_on_what_was_called_off_is_not() {
    let mut stage = at_work(&[1]);
    stage.ask(Command::CancelTask { task: task(1) });
    stage.wait(Span::seconds(60));
    assert_eq!(stage.says(1, done(1)), none());
    assert_eq!((stage.worker.view().counts.stray_messages, stage.worker.view().counts.failures), (1, 0));
}

#[test]
fn a_runner_that_forgets_a_task_is_ended() {
    let mut stage = at_work(&[1]);
    stage.wait(Span::seconds(299));
    stage.says(1, FromRunner::Alive);
    assert_eq!(stage.wait(Span::seconds(299)), none());
    let out = stage.wait(Span::seconds(2));
    assert_eq!(out[0], "end 1 within 0 µs");
    assert!(out[1].ends_with("it said nothing for 300 s while it was at work on a task"), "{out:?}");
}

#[test]
fn an_input_that_does_not_come_is_asked_for_and_then_the_task_fails() {
    let mut stage = Stage::ready();
    stage.create(1);
    assert_eq!(stage.wait(Span::millis(500)), ["to node 2: input 1 lacks []"]);
    let out = stage.wait(Span::seconds(60));
    assert_eq!(out[..9], vec!["to node 2: input 1 lacks []"; 9]);
    let reason = "its input did not come, though its gateway was asked 10 times";
    assert_eq!(out[9], format!("to node 2: 1.0 error: {reason}"));
    assert_eq!(out[10..12], vec![format!("finish 1 Failed {{ reason: {reason:?} }}"); 2], "the state does not show it");
    stage.order();
    assert_eq!(stage.worker.view().wishes, 0);
    let out = stage.ask(create(2, None));
    assert_eq!(out, [r#"finish 2 Failed { reason: "it names no gateway that has its input" }"#]);
}

#[test]
fn a_task_whose_gateway_is_lost_is_called_off() {
    let mut stage = at_work(&[1]);
    stage.cluster.hear(2, Liveness::Lost);
    assert_eq!(stage.step(WorkerInput::Changed), ["tell 1: cancel 1", "call off 1"]);
    assert_eq!(stage.wait(Span::millis(2500)), ["observe Ready", "call off 1"], "the state does not show it");
    stage.order();
    assert_eq!((stage.worker.view().tasks, stage.worker.view().counts.tasks_orphaned), (0, 1));
    assert_eq!(stage.create(2), ["call off 2"]);
}

#[test]
fn a_task_that_an_earlier_life_of_the_node_began_is_not_begun_again() {
    let mut stage = at_work(&[1]);
    stage.create(2);
    let (mut later, _) = Stage::with(&[]);
    later.cluster = stage.cluster.clone();
    let out = later.step(WorkerInput::Changed);
    let reason = "the node that worked on it started again";
    assert!(out.contains(&format!("finish 1 Failed {{ reason: {reason:?} }}")), "{out:?}");
    later.order();
    assert_eq!(later.worker.view().tasks, 1, "the one that had not begun waits");
}

#[test]
fn other_ranks_take_what_rank_0_has_begun() {
    let (mut stage, _) = Stage::with(&[&[2, 1]]);
    stage.says(1, FromRunner::Hello { version: VERSION, tasks: 1 });
    stage.other(2, 0, RunnerStatus::Connecting);
    stage.says(1, FromRunner::Connected);
    stage.other(2, 0, RunnerStatus::Loading { percent: 0 });
    stage.says(1, FromRunner::Loaded);
    stage.other(2, 0, RunnerStatus::WarmingUp);
    stage.says(1, FromRunner::Ready);
    stage.order();
    (1..=2).for_each(|n| drop(stage.create(n)));
    assert_eq!([stage.input(1), stage.input(2)], [["to node 2: has 1"], ["to node 2: has 2"]]);
    let out = stage.ask(Command::StartTask { task: task(2) });
    assert_eq!(out, [r#"tell 1: task 2 {"messages":[]}"#, "observe Running"]);
    assert_eq!(stage.says(1, token(2, "a")), none(), "rank 0 answers");
    stage.ask(Command::StartTask { task: task(1) });
    assert_eq!(stage.says(1, done(2)), [TOLD]);
    // What rank 0 had begun with this process is rank 0's to fail.
    let out = stage.does(1, RunnerSaid::Ended { reason: "oh".into() });
    assert_eq!(out, [r#"observe Failed { reason: "oh" }"#]);
}

#[test]
fn an_instance_that_goes_takes_its_tasks_along() {
    let mut stage = at_work(&[1, 2, 3]);
    let out = stage.ask(Command::DeleteInstance { instance: instance(0) });
    assert_eq!(out, ["tell 1: cancel 1", "tell 1: cancel 2", "tell 1: shut down", "end 1 within 10 s"]);
    let view = stage.worker.view();
    assert_eq!((view.tasks, view.wishes, view.input_bytes), (0, 0, 0));
}

#[test]
fn at_its_limits_a_worker_refuses() {
    let mut stage = Stage::ready();
    let config = WorkerConfig { waiting: 1, answer_bytes: 100, ..WorkerConfig::default() };
    stage.worker = Worker::new(ME, config, Seed::from_number(1));
    stage.step(WorkerInput::Changed);
    stage.create(1);
    assert!(stage.create(2)[0].contains("1 tasks wait for its instance already"));
    stage.input(1);
    stage.bring_up(1);
    stage.create(3);
    stage.input(3);
    let out = stage.says(1, token(3, &"x".repeat(101)));
    assert_eq!(out[0], "tell 1: cancel 3");
    assert!(out[1].contains("grew faster"), "{out:?}");
    stage.order();
    assert_eq!(stage.worker.view().counts.tasks_refused, 1);
    let strange = Transient::TokensMissing { task: task(1), from: 0 };
    let from = NodeId::example(4);
    assert_eq!(stage.step(WorkerInput::Transient { from, transient: strange }), none());
}
