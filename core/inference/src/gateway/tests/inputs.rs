//! Requests on their way to the ranks.

use super::stage::{ME, Stage, words};
use crate::gateway::{GatewayConfig, GatewayOutput};
use crate::id::RunnerId;
use crate::testing::{instance, task};
use crate::transient::Transient;
use lockstep_replication::Span;

fn acknowledged(rank: u16) -> Transient {
    Transient::Acknowledged { task: task(1), runner: RunnerId::of(instance(0), rank) }
}

#[test]
fn all_ranks_get_the_request_once_the_state_shows_the_task() {
    let mut stage = Stage::with(&[1, 2]);
    assert_eq!(stage.open(1), ["create 1 for 1"]);
    let parts = |node| [format!("to {node}: 0 of 2 of task 1, ques"), format!("to {node}: 1 of 2 of task 1, tion")];
    assert_eq!(stage.create(1), [parts(1), parts(2)].concat());
    // Whoever acknowledges it gets it no more.
    assert!(stage.says(1, acknowledged(0)).is_empty());
    let again = |ms, line: &String| format!("{ms}: {line}");
    let expected: Vec<String> =
        [1000, 3000, 7000].into_iter().flat_map(|ms| parts(2).map(|line| again(ms, &line))).collect();
    assert_eq!(stage.wait(Span::seconds(60)), expected);
    assert_eq!(stage.gateway.view().counts.inputs_again, 3);
}

#[test]
fn a_rank_gets_again_what_it_lacks() {
    let mut stage = Stage::with(&[1, 2]);
    stage.open(1);
    stage.create(1);
    stage.says(1, acknowledged(0));
    stage.says(2, acknowledged(1));
    stage.now = stage.now + Span::seconds(5);
    let lacks = |parts: &[u32]| Transient::InputMissing { task: task(1), parts: parts.to_vec() };
    assert_eq!(stage.says(2, lacks(&[1, 77])), ["to 2: 1 of 2 of task 1, tion"]);
    assert!(stage.says(2, lacks(&[77])).is_empty());
    stage.now = stage.now + Span::seconds(5);
    assert_eq!(stage.says(2, lacks(&[])).len(), 2);
    // Only a rank may read it.
    assert!(stage.says(3, lacks(&[])).is_empty());
    let counts = stage.gateway.view().counts;
    assert_eq!((counts.signals_refused, counts.inputs_asked), (1, 3));
}

#[test]
fn nobody_gets_the_request_before_the_state_shows_the_task() {
    let mut stage = Stage::with(&[1]);
    stage.open(1);
    assert!(stage.says(1, Transient::InputMissing { task: task(1), parts: vec![] }).is_empty());
}

#[test]
fn the_request_that_nobody_has_is_what_the_client_is_told() {
    let mut stage = Stage::with(&[1, 2]);
    stage.open(1);
    stage.create(1);
    stage.says(1, acknowledged(0));
    let last = stage.wait(Span::seconds(600)).split_off(6);
    let node = lockstep_replication::NodeId::example(2);
    let error = format!("600000: 1: the request could not be handed to node {node}: ask again");
    assert_eq!(last, ["600000: cancel 1".to_owned(), error]);
}

#[test]
fn requests_are_bounded() {
    let config = GatewayConfig { streams: 2, input_bytes: 9, inputs_bytes: 12, ..GatewayConfig::default() };
    let mut stage = Stage::configured(&[1], config);
    let too_large = "1: the request has 10 bytes, the most is 9: shorten it, or make its images smaller";
    assert_eq!(stage.ask_for(1, "a", b"0123456789"), [too_large]);
    stage.open(2);
    let full = "this node has as much under way as it may (12 bytes of requests): wait until some of it has ended, or ask \
                another node";
    assert_eq!(stage.ask_for(3, "a", b"01234"), [format!("3: {full}")]);
    assert_eq!(stage.ask_for(4, "a", b"0123"), ["create 4 for 4"]);
    assert!(stage.ask_for(5, "a", b"")[0].contains("(2 streams)"));
    let twice = format!("2: there is a task {} already: choose another id", task(2));
    assert_eq!(stage.ask_for(2, "a", b""), [twice]);
    for n in [2, 4] {
        stage.close(n);
    }
    assert_eq!(stage.ask_for(6, "a", b"012345678"), ["create 6 for 6"]);
    assert_eq!(stage.gateway.view().counts.full, 2);
}

#[test]
fn a_request_is_not_shown_in_logs() {
    let mut stage = Stage::with(&[1]);
    stage.open(1);
    stage.decide(1).unwrap();
    let mut out = vec![];
    let now = lockstep_replication::Now { at: stage.now, wall: lockstep_replication::Wall(0) };
    let next = lockstep_replication::Index(stage.cluster.events);
    let changed = crate::gateway::GatewayInput::Changed;
    stage.gateway.step(now, &stage.cluster.state, next, changed, &mut out);
    assert!(matches!(&out[0], GatewayOutput::Send { .. }) && words(&out[0]).contains("ques"));
    assert!(!format!("{out:?}").contains("ques"), "{out:?}");
    assert_eq!(stage.cluster.state.tasks[&task(1)].gateway, Some(ME));
}
