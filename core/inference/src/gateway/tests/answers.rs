//! Answers on their way to the clients.

use super::stage::{END, Stage};
use crate::command::Command;
use crate::gateway::{Failure, GatewayConfig, GatewayInput, GatewayOutput, StreamId, StreamPart};
use crate::id::RunnerId;
use crate::testing::{instance, task};
use crate::transient::{Attempt, TokenChunk, TokenPart, Trace, TraceSpan, Transient};
use lockstep_replication::{Index, NodeId, Now, Span, Wall};

const GONE: &str =
    "1: the task is gone before its answer came whole: it was called off, or its end was lost; ask again";

#[test]
fn the_answer_comes_in_order_and_ends() {
    let mut stage = Stage::streaming();
    assert_eq!(stage.text(0, "Hello"), ["1: Hello"]);
    assert!(stage.text(2, "there").is_empty());
    assert!(stage.text(0, "Hello").is_empty());
    assert_eq!(stage.text(1, " you "), ["1:  you ", "1: there"]);
    assert_eq!(stage.part(1, 3, END), ["1: Stop 2"]);
    assert!(stage.text(4, "late").is_empty());
    assert!(stage.finish(1).is_empty());
    stage.check_empty();
    let counts = stage.gateway.view().counts;
    assert_eq!((counts.ended, counts.tokens_doubled, counts.signals_late, counts.orphans), (1, 1, 1, 0));
}

#[test]
fn a_hole_is_asked_for_and_filled() {
    let mut stage = Stage::streaming();
    stage.text(1, "b");
    assert_eq!(stage.wait(Span::millis(120)), ["50: to 1: task 1 from 0", "100: to 1: task 1 from 0"]);
    assert_eq!(stage.text(0, "a"), ["1: a", "1: b"]);
    assert!(stage.wait(Span::seconds(10)).is_empty());
}

#[test]
fn a_hole_that_is_not_filled_ends_the_stream() {
    let mut stage = Stage::streaming();
    stage.text(1, "b");
    let said = stage.wait(Span::seconds(4));
    let node = NodeId::example(1);
    let lost = format!("a part of the answer was lost between node {node} and this one, and could not be had again");
    assert_eq!(said[6..], ["3000: cancel 1".to_owned(), format!("3000: 1: {lost}: ask again")]);
}

#[test]
fn the_end_that_was_lost_is_asked_for_when_the_task_is_gone() {
    let mut stage = Stage::streaming();
    stage.text(0, "a");
    assert!(stage.finish(1).is_empty());
    assert_eq!(stage.wait(Span::millis(60)), ["50: to 1: task 1 from 1"]);
    assert_eq!(stage.part(1, 1, END), ["1: Stop 2"]);
    stage.check_empty();
}

#[test]
fn an_answer_without_its_end_is_not_whole() {
    let mut stage = Stage::streaming();
    stage.text(0, "a");
    stage.ask(Command::CancelTask { task: task(1) });
    let ask = |ms| format!("{ms}: to 1: task 1 from 1");
    assert_eq!(stage.wait(Span::seconds(9)), [ask(50), ask(100), ask(200), format!("400: {GONE}")]);
    stage.check_empty();
}

#[test]
fn a_rest_that_comes_slowly_is_waited_for() {
    let mut stage = Stage::streaming();
    stage.finish(1);
    for n in 0..9 {
        assert_eq!(stage.wait(Span::millis(300)).len(), 3);
        assert_eq!(stage.text(n, "x"), ["1: x"]);
    }
    assert_eq!(stage.part(1, 9, END), ["1: Stop 2"]);
}

#[test]
fn a_begun_task_that_is_quiet_is_asked_for_its_next_part() {
    let mut stage = Stage::streaming();
    stage.ask(Command::StartTask { task: task(1) });
    let ask = |ms, n| format!("{ms}: to 1: task 1 from {n}");
    assert_eq!(stage.wait(Span::millis(2100)), [ask(2000, 0)]);
    stage.text(0, "a");
    assert_eq!(stage.wait(Span::seconds(7)), [ask(2000, 1), ask(6000, 1)]);
}

#[test]
fn nothing_at_all_for_long_ends_the_stream() {
    let mut stage = Stage::streaming();
    stage.now = stage.now + Span::seconds(300);
    stage.text(0, "a");
    assert!(stage.wait(Span::seconds(599)).is_empty());
    let error = "1000: 1: nothing was heard of the task for 600 s: ask again";
    assert_eq!(stage.wait(Span::seconds(1)), ["1000: cancel 1", error]);
}

#[test]
fn an_error_of_the_runner_reaches_the_client() {
    let mut stage = Stage::streaming();
    stage.text(0, "a");
    let error = TokenPart::Error("the runner ended: killed by signal 9".into());
    assert_eq!(stage.part(1, 1, error), ["1: the runner ended: killed by signal 9"]);
    // Its worker finishes the task; only if it does not, it is called off.
    assert!(stage.wait(Span::seconds(1)).is_empty());
    assert_eq!(stage.wait(Span::seconds(2)).len(), 1);
    stage.ask(Command::CancelTask { task: task(1) });
    stage.check_empty();
}

#[test]
fn a_request_that_is_at_fault_is_told_apart() {
    let mut stage = Stage::streaming();
    let now = Now { at: stage.now, wall: Wall(0) };
    let refused = TokenPart::Refused("it has too many tokens".into());
    let chunk = TokenChunk { task: task(1), n: 0, part: refused, attempt: Attempt(1) };
    let input = GatewayInput::Transient { from: NodeId::example(1), transient: Transient::Token(chunk) };
    let mut out = vec![];
    stage.gateway.step(now, &stage.cluster.state, Index(stage.cluster.events), input, &mut out);
    let part = StreamPart::Failed(Failure::Request("it has too many tokens".into()));
    assert_eq!(out, [GatewayOutput::Deliver { stream: StreamId(1), part }]);
}

#[test]
fn half_of_an_answer_and_half_of_another_end_the_stream() {
    let anew = format!("node {} lost its work on the task and began it again: ask again", NodeId::example(1));
    for (n, part) in [(0, TokenPart::Text("A".into())), (1, TokenPart::Text("B".into())), (0, END)] {
        let mut stage = Stage::streaming();
        stage.text(0, "a");
        assert_eq!(stage.part_of(1, Attempt(2), n, part), ["cancel 1".to_owned(), format!("1: {anew}")]);
        assert!(stage.text(1, "b").is_empty());
        stage.ask(Command::CancelTask { task: task(1) });
        stage.check_empty();
    }
    let mut stage = Stage::streaming();
    stage.text(0, "a");
    let error = TokenPart::Error("the node that worked on it started again".into());
    assert_eq!(stage.part_of(1, Attempt(2), 0, error), ["1: the node that worked on it started again"]);
    // Of what nobody heard of, either answer will do; but not both.
    let mut stage = Stage::streaming();
    stage.text(1, "b");
    let said = stage.part_of(1, Attempt(2), 0, TokenPart::Text("A".into()));
    assert_eq!(said, ["1: A".to_owned(), "cancel 1".to_owned(), format!("1: {anew}")]);
}

#[test]
fn only_the_first_rank_answers() {
    let mut stage = Stage::with(&[1, 2]);
    stage.open(1);
    // Before the state shows who answers, nobody is believed and nobody refused.
    assert!(stage.part(2, 0, TokenPart::Text("lie".into())).is_empty());
    assert!(stage.text(1, "b").is_empty());
    stage.create(1);
    assert!(stage.part(2, 0, TokenPart::Text("lie".into())).is_empty());
    assert_eq!(stage.text(0, "a"), ["1: a", "1: b"]);
    assert!(stage.part(3, 0, TokenPart::Error("of a stranger".into())).is_empty());
    assert_eq!(stage.gateway.view().counts.tokens_refused, 3);
    assert_eq!(stage.part(2, 0, TokenPart::Error("rank 1 gave up".into())), ["1: rank 1 gave up"]);
}

#[test]
fn what_is_early_comes_out_with_the_state() {
    let mut stage = Stage::with(&[1]);
    stage.open(1);
    stage.text(0, "a");
    assert_eq!(stage.create(1)[0], "1: a");
}

#[test]
fn a_task_that_came_and_went_between_two_states_still_says_why() {
    let mut stage = Stage::with(&[1]);
    stage.open(1);
    let index = stage.decide(1).unwrap();
    stage.cluster.ask(Command::CancelTask { task: task(1) }).unwrap();
    assert!(stage.part(1, 0, TokenPart::Error("its input is no JSON".into())).is_empty(), "it may not be there yet");
    assert!(stage.part(3, 1, TokenPart::Error("of a stranger".into())).is_empty());
    assert_eq!(stage.submitted(1, Ok(index)), ["1: its input is no JSON"]);
    stage.check_empty();
}

#[test]
fn a_client_that_does_not_read_is_too_slow() {
    let config = GatewayConfig { untaken_bytes: 2 * 65, ..GatewayConfig::default() };
    let mut stage = Stage::configured(&[1], config);
    stage.open(1);
    stage.create(1);
    stage.text(0, "a");
    stage.text(1, "b");
    stage.step(GatewayInput::Taken { stream: StreamId(1), chunks: 1 });
    assert_eq!(stage.text(2, "c"), ["1: c"]);
    let slow = "1: the answer was not read in time: 3 parts that take 195 bytes wait for their reader";
    assert_eq!(stage.text(3, "d"), ["1: d", "cancel 1", slow]);
    assert_eq!(stage.gateway.view().counts.too_slow, 1);
}

#[test]
fn traces_of_all_ranks_are_kept_after_the_end() {
    let mut stage = Stage::with(&[1, 2]);
    stage.open(1);
    stage.create(1);
    stage.part(1, 0, END);
    stage.finish(1);
    let span = |name: &str| TraceSpan { name: name.into(), began: Wall(5), micros: 10 };
    let trace = |rank, name| {
        Transient::Trace(Trace { task: task(1), runner: RunnerId::of(instance(0), rank), spans: vec![span(name)] })
    };
    stage.says(1, trace(0, "prefill"));
    stage.says(2, trace(1, "prefill"));
    stage.says(2, trace(0, "lie"));
    assert_eq!(stage.gateway.traces().tasks().collect::<Vec<_>>(), [task(1)]);
    let document = stage.gateway.traces().chrome().to_string();
    assert_eq!((document.matches("prefill").count(), document.matches("lie").count()), (2, 0));
    assert_eq!(stage.gateway.view().counts.signals_refused, 1);
}
