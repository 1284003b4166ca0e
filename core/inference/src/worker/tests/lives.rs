//! The life of a runner, line by line.

use lockstep_replication::{Seed, Span};

use super::stage::{ME, Stage};
use crate::command::Command;
use crate::id::RunnerId;
use crate::observation::Observation;
use crate::runner::{FromRunner, VERSION};
use crate::state::{ModelCard, RunnerStatus};
use crate::testing::{card, create_instance, instance, model};
use crate::worker::{RunnerSaid, Worker, WorkerConfig, WorkerInput};

const HELLO: FromRunner = FromRunner::Hello { version: VERSION, tasks: 1 };

fn ended(reason: &str) -> RunnerSaid {
    RunnerSaid::Ended { reason: reason.into() }
}

fn failed(reason: &str) -> String {
    format!("observe {:?}", RunnerStatus::Failed { reason: reason.into() })
}

fn none() -> Vec<String> {
    vec![]
}

#[test]
fn a_runner_alone_goes_through_its_life() {
    let (mut stage, said) = Stage::with(&[&[1], &[2]]);
    assert_eq!(said, ["mirror all ", "start 1", "tell 1: hello, rank 0 of 1"]);
    assert_eq!(stage.says(1, HELLO), ["tell 1: connect", "observe Connecting"]);
    let load = ["busy 60 s", "tell 1: load", "observe Loading { percent: 0 }"];
    assert_eq!(stage.says(1, FromRunner::Connected), load);
    assert_eq!(stage.says(1, FromRunner::Loading { percent: 4 }), none());
    assert_eq!(stage.says(1, FromRunner::Loading { percent: 5 }), ["observe Loading { percent: 5 }"]);
    stage.wait(Span::millis(1001));
    assert_eq!(stage.says(1, FromRunner::Loading { percent: 6 }), ["observe Loading { percent: 6 }"]);
    assert_eq!(stage.says(1, FromRunner::Loading { percent: 3 }), none());
    assert_eq!(stage.says(1, FromRunner::Loaded), ["tell 1: warm up", "observe WarmingUp"]);
    assert_eq!(stage.says(1, FromRunner::Ready), ["observe Ready"]);
    assert_eq!(stage.order(), none());
    assert_eq!(stage.worker.next_wake(), None, "an idle worker has nothing to do");
    let gone = stage.ask(Command::DeleteInstance { instance: instance(0) });
    assert_eq!(gone, ["tell 1: shut down", "end 1 within 10 s"]);
    assert_eq!(stage.worker.view().runners.len(), 1);
    let runner = RunnerId::of(instance(0), 0);
    stage.step(WorkerInput::Runner { runner, life: 1, said: ended("exit status 0") });
    assert_eq!((stage.worker.view().runners, stage.worker.next_wake()), (vec![], None));
}

#[test]
fn a_runner_that_fails_starts_again_ever_later_and_is_given_up() {
    let (mut stage, _) = Stage::with(&[&[1]]);
    stage.bring_up(1);
    assert_eq!(stage.does(1, ended("killed by signal 9")), [failed("killed by signal 9")]);
    stage.order();
    for (life, wait) in [(2, 1), (3, 2), (4, 4), (5, 8)] {
        assert_eq!(stage.wait(Span::seconds(wait) - Span(1)), none(), "{life}");
        let started = stage.wait(Span::millis(wait * 250) + Span(1));
        assert_eq!(started, [format!("start {life}"), format!("tell {life}: hello, rank 0 of 1")]);
        let reason = format!("no memory at start {life}");
        let said = if life == 5 { format!("gave up after 5 starts: {reason}") } else { reason.clone() };
        assert_eq!(stage.does(life, ended(&reason)), [failed(&said)]);
        stage.order();
    }
    assert_eq!(stage.worker.next_wake(), None, "it was given up");
    let view = stage.worker.view();
    assert_eq!((view.failed_instances, view.failed_models), (vec![instance(0)], vec![model("a")]));
    // The key of an instance goes with it; that of its model keeps the next instance from failing at once.
    stage.ask(Command::DeleteInstance { instance: instance(0) });
    assert_eq!(stage.worker.view().failed_instances, []);
    assert_eq!(stage.ask(create_instance(3, "a", &[1])), none());
    assert_eq!(stage.wait(Span::seconds(20)).len(), 2);
    stage.ask(Command::DeleteInstance { instance: instance(3) });
    stage.ask(Command::DeleteCard { model: model("a") });
    assert_eq!(stage.worker.view().failed_models, []);
}

#[test]
fn failures_before_a_long_good_time_count_no_more() {
    let (mut stage, _) = Stage::with(&[&[1]]);
    for life in 1..20 {
        stage.bring_up(life);
        stage.wait(Span::seconds(600));
        stage.does(life, ended("a bad day"));
        stage.order();
        stage.wait(Span::seconds(2));
    }
    assert!(!stage.worker.view().runners[0].given_up);
}

#[test]
fn a_crash_loop_writes_little_to_the_log() {
    let (mut stage, _) = Stage::with(&[&[1]]);
    for life in 1..=100 {
        stage.bring_up(life);
        stage.does(life, ended("again"));
        stage.order();
        stage.wait(Span::seconds(200));
    }
    assert!(stage.cluster.events < 60, "{} events", stage.cluster.events);
}

#[test]
fn a_runner_that_does_not_keep_to_the_protocol_is_ended() {
    let says = |said: &[RunnerSaid]| {
        let (mut stage, _) = Stage::with(&[&[1]]);
        let out: Vec<Vec<String>> = said.iter().map(|said| stage.does(1, said.clone())).collect();
        (out.last().unwrap().clone(), stage)
    };
    let message = RunnerSaid::Message;
    let ends = |reason: &str| vec!["end 1 within 0 µs".to_owned(), failed(reason)];
    let (out, mut stage) = says(&[RunnerSaid::Garbage("line 1 is no JSON".into())]);
    assert_eq!(out, ends("it does not keep to the protocol: line 1 is no JSON"));
    let again = ends("it does not keep to the protocol: line 1 is no JSON").split_off(1);
    assert_eq!(stage.wait(Span::seconds(5)), again, "nothing starts: the process has not ended");
    assert_eq!(stage.does(1, ended("killed")), ["start 2", "tell 2: hello, rank 0 of 1"]);
    assert_eq!(stage.does(1, message(HELLO)), none(), "that was the one before");
    let (out, _) = says(&[message(FromRunner::Hello { version: 7, tasks: 1 })]);
    assert_eq!(out, ends("it speaks version 7 of the protocol, this node speaks version 1"));
    for early in [FromRunner::Ready, FromRunner::Alive, FromRunner::Loaded] {
        let (out, _) = says(&[message(early)]);
        assert!(out[1].contains("which it was not to say then"), "{out:?}");
    }
    let (out, _) = says(&[message(HELLO), message(HELLO)]);
    assert_eq!(out, ends("it said \"hello\", which it was not to say then"));
}

#[test]
fn a_runner_that_hangs_is_ended() {
    let lines = [HELLO, FromRunner::Connected, FromRunner::Loaded];
    let reasons = [
        "it did not answer its first line within 60 s",
        "it did not find the other ranks within 60 s",
        "it said nothing for 300 s while it was loading its model",
        "it said nothing for 300 s while it was warming up",
    ];
    for (count, reason) in reasons.into_iter().enumerate() {
        let (mut stage, _) = Stage::with(&[&[1]]);
        lines[..count].iter().for_each(|line| drop(stage.says(1, line.clone())));
        stage.order();
        let said = stage.wait(Span::seconds(301));
        assert!(said.contains(&failed(reason)), "{reason}: {said:?}");
        assert!(said.contains(&"end 1 within 0 µs".into()));
    }
    let (mut stage, _) = Stage::with(&[&[1]]);
    lines[..2].iter().for_each(|line| drop(stage.says(1, line.clone())));
    stage.order();
    let mut said = vec![];
    for _ in 0..35 {
        said.extend(stage.wait(Span::seconds(100)));
        stage.says(1, FromRunner::Alive);
    }
    assert_eq!(said, vec!["busy 60 s"; 116], "a load that takes long stays busy");
    assert!(stage.wait(Span::seconds(100)).contains(&failed("it did not load its model within 3600 s")));
}

#[test]
fn ranks_go_on_together_in_their_order() {
    let (mut stage, said) = Stage::with(&[&[2, 1]]);
    assert_eq!(said, ["mirror all ", "start 1", "tell 1: hello, rank 1 of 2"]);
    assert_eq!(stage.says(1, HELLO), none());
    assert_eq!(stage.other(2, 0, RunnerStatus::Connecting), ["tell 1: connect", "observe Connecting"]);
    assert_eq!(stage.says(1, FromRunner::Connected), ["observe Connected"]);
    stage.order();
    assert_eq!(stage.other(2, 0, RunnerStatus::Connected), none(), "rank 0 loads first");
    let load = ["busy 60 s", "tell 1: load", "observe Loading { percent: 0 }"];
    assert_eq!(stage.other(2, 0, RunnerStatus::Loading { percent: 0 }), load);
    assert_eq!(stage.says(1, FromRunner::Loaded), ["observe Loaded"]);
    stage.order();
    assert_eq!(stage.other(2, 0, RunnerStatus::Loaded), none(), "rank 0 warms up first");
    assert_eq!(stage.other(2, 0, RunnerStatus::WarmingUp), ["tell 1: warm up", "observe WarmingUp"]);
    assert_eq!(stage.says(1, FromRunner::Ready), ["observe Ready"]);
    stage.order();
    // Rank 0 falls back: what this one has of it is void. It is not this one's failure.
    let void = ["end 1 within 0 µs", "observe Idle"];
    assert_eq!(stage.other(2, 0, RunnerStatus::Failed { reason: "oh".into() }), void);
    stage.order();
    assert_eq!(stage.does(1, ended("killed")), ["start 2", "tell 2: hello, rank 1 of 2"]);
    assert_eq!(stage.says(2, HELLO), none());
    assert_eq!(stage.other(2, 0, RunnerStatus::Connecting), ["tell 2: connect", "observe Connecting"]);
    assert_eq!(stage.worker.view().failed_instances, []);
}

#[test]
fn nobody_is_told_to_connect_before_all_ranks_are_there() {
    let (mut stage, _) = Stage::with(&[&[1, 2, 3]]);
    assert_eq!(stage.says(1, HELLO), ["observe Connecting"]);
    stage.order();
    assert_eq!(stage.other(2, 1, RunnerStatus::Connecting), none());
    assert_eq!(stage.other(3, 2, RunnerStatus::Connecting), ["tell 1: connect"]);
}

#[test]
fn what_an_earlier_life_of_the_node_said_is_not_believed() {
    let (mut stage, _) = Stage::with(&[&[2]]);
    stage.cluster.ask(create_instance(1, "a", &[1])).unwrap();
    let runner = RunnerId::of(instance(1), 0);
    stage.cluster.see(1, Observation::Runner { runner, status: RunnerStatus::Ready });
    let said = stage.step(WorkerInput::Changed);
    assert_eq!(said, ["start 1", "tell 1: hello, rank 0 of 1", "observe Idle"]);
}

#[test]
fn what_the_state_does_not_show_is_said_again() {
    let (mut stage, _) = Stage::with(&[&[1]]);
    stage.says(1, HELLO);
    assert_eq!(stage.wait(Span::seconds(15)), ["observe Connecting"; 3], "after 2, 4 and 8 seconds");
    stage.order();
    assert_eq!(stage.wait(Span::seconds(20)), none());
}

#[test]
fn a_node_that_stops_ends_its_runners() {
    let mut stage = Stage::ready();
    let said = stage.step(WorkerInput::Stop);
    assert_eq!(said, ["tell 1: shut down", "end 1 within 10 s", "observe ShuttingDown"]);
    assert_eq!(stage.does(1, ended("exit status 0")), ["observe ShutDown"]);
    assert_eq!(stage.ask(create_instance(5, "a", &[1])), none());
}

#[test]
fn custom_cards_are_mirrored() {
    let (mut stage, _) = Stage::with(&[]);
    let custom = |layers| ModelCard { custom: true, ..card(layers) };
    let add = |name: &str, card| Command::AddCard { model: model(name), card };
    assert_eq!(stage.ask(add("mine", custom(3))), ["mirror mine=true"]);
    assert_eq!(stage.ask(add("theirs", card(3))), none());
    stage.cluster.ask(Command::DeleteCard { model: model("mine") }).unwrap();
    assert_eq!(stage.ask(add("yours", custom(3))), ["mirror mine=false,yours=true"]);
    // One that sees the last state alone ends with the same.
    stage.worker = Worker::new(ME, WorkerConfig::default(), Seed::from_number(2));
    assert_eq!(stage.step(WorkerInput::Changed), ["mirror all yours=true"]);
}
