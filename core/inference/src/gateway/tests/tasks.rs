//! Tasks that come, go, and are called off.

use super::stage::{END, ME, Stage};
use crate::command::Command;
use crate::gateway::{Failure, Gateway, GatewayConfig, GatewayInput};
use crate::testing::{create_instance, instance, task};
use lockstep_replication::io::{NotTaken, Unknown};
use lockstep_replication::{Index, Liveness, NodeId, Seed, Span};

#[test]
fn a_task_that_is_not_there_yet_has_not_gone() {
    let mut stage = Stage::with(&[1]);
    stage.open(1);
    // The leader has done it, this node has not: it is one entry behind, or a whole minute.
    assert!(stage.submitted(1, Ok(Index(stage.cluster.events))).is_empty());
    assert!(stage.wait(Span::seconds(29)).is_empty());
    stage.decide(1).unwrap();
    assert_eq!(stage.step(GatewayInput::Changed).len(), 2);
}

#[test]
fn a_refusal_is_what_the_client_gets() {
    let mut stage = Stage::with(&[1]);
    let refused = Failure::NotTaken(NotTaken::Leaving);
    stage.open(1);
    assert_eq!(stage.submitted(1, Err(refused)), ["1: this node is stopping: ask another one"]);
    stage.ask_for(2, "b", b"");
    let refusal = crate::refusal::Refusal::NoInstance { model: crate::testing::model("b") };
    let error = "2: model b has no instance: create one first";
    assert_eq!(stage.submitted(2, Err(Failure::Refused(refusal))), [error]);
    assert!(stage.submitted(2, Ok(Index(1))).is_empty(), "that stream has ended");
    stage.check_empty();
}

#[test]
fn an_unknown_outcome_is_asked_about_until_the_state_shows_it() {
    let mut stage = Stage::with(&[1]);
    stage.open(1);
    stage.submitted(1, Err(Failure::Unknown(Unknown::Skipped)));
    assert_eq!(stage.wait(Span::seconds(1)), ["250: create 1 for 1"]);
    stage.decide(1).unwrap();
    let exists = Failure::Refused(stage.decide(1).unwrap_err());
    let sent = stage.submitted(1, Err(exists));
    assert_eq!((sent.len(), sent[0].as_str()), (2, "to 1: 0 of 2 of task 1, ques"));
    assert_eq!(stage.gateway.view().counts.created_again, 1);
}

#[test]
fn a_task_that_comes_after_its_client_gave_up_is_called_off() {
    let mut stage = Stage::with(&[1]);
    stage.open(1);
    let error = "30000: 1: no leader confirmed it in time; it may still be done; the task is called off if it was";
    assert_eq!(stage.wait(Span::seconds(30)), [error]);
    stage.check_empty();
    stage.decide(1).unwrap();
    assert_eq!(stage.step(GatewayInput::Changed), ["cancel 1"]);
}

#[test]
fn a_client_that_leaves_has_its_task_called_off_until_it_is_gone() {
    let mut stage = Stage::streaming();
    assert_eq!(stage.close(1), ["cancel 1"]);
    assert!(stage.text(0, "late").is_empty());
    let said = stage.wait(Span::seconds(20));
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said.iter().all(|line| line.ends_with("cancel 1")), "{said:?}");
    assert!(stage.ask(Command::CancelTask { task: task(1) }).is_empty());
    stage.check_empty();
}

#[test]
fn a_client_that_leaves_before_its_task_is_there_has_it_called_off_too() {
    let mut stage = Stage::with(&[1]);
    stage.open(1);
    assert!(stage.close(1).is_empty());
    stage.check_empty();
    assert_eq!(stage.create(1), ["cancel 1"]);
}

#[test]
fn a_lost_node_ends_its_streams_and_no_others() {
    let mut stage = Stage::with(&[1, 2]);
    stage.cluster.ask(create_instance(1, "a", &[3])).unwrap();
    for n in [1, 2] {
        stage.open(n);
        stage.create(n);
    }
    stage.cluster.hear(2, Liveness::Lost);
    let lost = |n: u8| format!("node {} was lost while it worked on the task: ask again", NodeId::example(n));
    assert_eq!(stage.step(GatewayInput::Changed), ["cancel 1".to_owned(), format!("1: {}", lost(2))]);
    stage.cluster.ask(Command::EvictNode { node: NodeId::example(2) }).unwrap();
    stage.cluster.hear(3, Liveness::Lost);
    stage.cluster.ask(Command::EvictNode { node: NodeId::example(3) }).unwrap();
    // Both went between two states, and so did the instance.
    assert_eq!(stage.step(GatewayInput::Changed), [format!("2: {}", lost(3))]);
    stage.check_empty();
}

#[test]
fn a_task_on_a_node_that_was_lost_before_it_is_seen_ends_at_once() {
    let mut stage = Stage::with(&[1]);
    stage.open(1);
    stage.decide(1).unwrap();
    stage.cluster.hear(1, Liveness::Lost);
    let said = stage.step(GatewayInput::Changed);
    assert!(said[0] == "cancel 1" && said[1].contains("was lost while"), "{said:?}");
}

#[test]
fn an_instance_that_is_deleted_ends_its_streams_after_asking_for_their_rest() {
    let mut stage = Stage::streaming();
    assert!(stage.ask(Command::DeleteInstance { instance: instance(0) }).is_empty());
    let said = stage.wait(Span::seconds(1));
    let error = format!("400: 1: instance {} was deleted while it worked on the task: ask again", instance(0));
    assert_eq!((said.len(), &said[3]), (4, &error));
    stage.check_empty();
}

#[test]
fn tasks_of_an_earlier_life_are_called_off() {
    let mut stage = Stage::streaming();
    stage.gateway = Gateway::new(ME, GatewayConfig::default(), Seed::from_number(2));
    assert_eq!(stage.step(GatewayInput::Changed), ["cancel 1"]);
    assert_eq!(stage.gateway.view().counts.orphans, 1);
}

#[test]
fn a_task_whose_answer_is_whole_is_left_to_its_worker() {
    let mut stage = Stage::streaming();
    stage.part(1, 0, END);
    assert!(stage.ask(Command::StartTask { task: task(1) }).is_empty());
    assert!(stage.wait(Span::seconds(60)).is_empty());
}

#[test]
fn a_task_that_vanishes_and_returns_with_the_same_instance_goes_on() {
    let mut stage = Stage::streaming();
    stage.text(0, "a");
    let whole = stage.cluster.clone();
    stage.ask(Command::CancelTask { task: task(1) });
    stage.wait(Span::millis(200));
    stage.cluster = whole;
    assert!(stage.step(GatewayInput::Changed).is_empty());
    assert!(stage.wait(Span::seconds(5)).is_empty());
    assert_eq!(stage.text(1, "b"), ["1: b"]);
}

#[test]
fn half_an_answer_of_another_instance_is_no_answer() {
    let mut stage = Stage::with(&[1]);
    let before = stage.cluster.clone();
    stage.open(1);
    stage.create(1);
    stage.text(0, "a");
    // Another branch of the log won, in which the task went elsewhere.
    stage.cluster = before;
    stage.cluster.ask(create_instance(1, "a", &[2])).unwrap();
    stage.cluster.ask(Command::DeleteInstance { instance: instance(0) }).unwrap();
    stage.decide(1).unwrap();
    assert!(stage.step(GatewayInput::Changed).is_empty());
    assert!(stage.part(2, 1, END).is_empty());
    let said = stage.wait(Span::seconds(1));
    assert_eq!(said[3], "400: cancel 1");
    assert!(said[4].contains("was deleted"), "{said:?}");
}
