//! Conversations between two or three nodes, word by word: what is said, done and applied, in its order.
//!
//! Messages and disks take no time here; the clock moves as the test says, and is written down to the tenth of a second.
//! Beats and probes are left out.

mod disk;
mod kv;
mod talk;

use lockstep_replication::message::{Lead, Message, Purpose};
use lockstep_replication::{Boot, Config, Hash, Input, NodeId, Operator, Role, Session, Span, Wall};

use crate::talk::{Loses, Talk};

fn config(founders: usize) -> Config {
    Config { founders, snapshot_every: 0, ..Config::default() }
}

/// Two nodes that founded a cluster together. Node 2 leads it.
fn founded() -> Talk {
    founded_with(&config(2))
}

fn founded_with(config: &Config) -> Talk {
    let mut talk = Talk::new();
    talk.start(1, config);
    talk.start(2, config);
    talk.meet(1, 2);
    talk.pass(Span::seconds(1));
    talk
}

fn assert_said(talk: &mut Talk, expected: &str) {
    let said = talk.said();
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "this was said:\n{said}\n");
}

#[test]
fn two_nodes_found_a_cluster() {
    let mut talk = Talk::new();
    talk.start(1, &config(2));
    talk.start(2, &config(2));
    talk.meet(1, 2);
    talk.pass(Span::millis(400));
    assert_said(
        &mut talk,
        "
        0 ms, 1 to 2: hello, log before 0
        0 ms, 1 to 2: hello, log before 0, and you?
        0 ms, 2 to 1: hello, log before 0
        0 ms, 2 to 1: hello, log before 0, and you?
        0 ms, 2 applies 0: session 1@2
        0 ms, 2 leads 1@2
        0 ms, 2 to 1: entries 0..1, fresh
        0 ms, 2 writes 0..1
        0 ms, 2 to 1: hello, log before 1
        0 ms, 1 to 2: hello, log before 0
        0 ms, 2 to 1: hello, log before 1, in 1@2
        0 ms, 2 applies 1: an event
        0 ms, 2 applies 2: an event
        0 ms, 2 to 1: lead 1@2, next 1
        0 ms, 2 to 1: entries 1..3, fresh
        0 ms, 2 writes 1..3
        0 ms, 2 to 1: hello, log before 3, in 1@2
        0 ms, 1 follows 1@2
        0 ms, 1 to 2: replay from 0
        0 ms, 2 to 1: entries 0..3, replay
        0 ms, 1 applies 0: session 1@2
        0 ms, 1 applies 1: an event
        0 ms, 1 applies 2: an event
        0 ms, 1 writes 0..3
        0 ms, 1 to 2: stored before 0 of 1@2
        0 ms, 1 to 2: stored before 3 of 1@2
        0 ms, 2 applies 3: the mark
        0 ms, 2 to 1: entries 3..4, fresh
        0 ms, 2 writes 3..4
        0 ms, 1 applies 3: the mark
        0 ms, 1 writes 3..4
        0 ms, 1 to 2: stored before 4 of 1@2
        ",
    );
}

#[test]
fn a_command_is_done_when_both_hold_it() {
    let mut talk = founded();
    talk.set(1, 7, "green");
    talk.pass(Span::millis(1));
    talk.said();
    talk.set(1, 8, "blue");
    assert_said(
        &mut talk,
        "
        1000 ms, 1 to 2: propose 1
        1000 ms, 2 applies 6: command 2
        1000 ms, 2 to 1: entries 6..7, fresh
        1000 ms, 2 writes 6..7
        1000 ms, 1 applies 6: command 2
        1000 ms, 1 writes 6..7
        1000 ms, 1 to 2: stored before 7 of 1@2
        1000 ms, 2 to 1: done 6 by 2 of 2
        1000 ms, 1 answers client 2: done at 6, held by 2 of 2
        ",
    );
    assert_eq!(talk.replica(1), talk.replica(2));
}

#[test]
fn a_lost_last_entry_is_noticed_by_the_next_beat() {
    let mut talk = founded();
    talk.said();
    talk.lose(Loses { from: 2, to: 1, times: 1, what: "entries" });
    talk.set(2, 7, "green");
    talk.pass(Span::millis(700));
    assert_said(
        &mut talk,
        "
        1000 ms, 2 applies 4: a generation of 2
        1000 ms, 2 applies 5: command 1
        1000 ms, 2 to 1: entries 4..6, fresh (lost)
        1000 ms, 2 writes 4..6
        1500 ms, 2 to 1: lead 1@2, next 6
        1500 ms, 1 to 2: stored before 4 of 1@2
        1500 ms, 1 to 2: nack 4..6
        1500 ms, 2 to 1: entries 4..6, repair
        1500 ms, 1 applies 4: a generation of 2
        1500 ms, 1 applies 5: command 1
        1500 ms, 1 writes 4..6
        1500 ms, 1 to 2: stored before 6 of 1@2
        1500 ms, 2 answers client 1: done at 5, held by 2 of 2
        ",
    );
    assert_eq!(talk.replica(1), talk.replica(2));
}

#[test]
fn a_joiner_follows_without_a_campaign_and_replays_the_log() {
    let mut talk = founded();
    talk.said();
    talk.start(3, &config(2));
    talk.meet(3, 2);
    talk.meet(3, 1);
    talk.pass(Span::millis(100));
    assert_said(
        &mut talk,
        "
        1000 ms, 3 to 2: hello, log before 0
        1000 ms, 3 to 2: hello, log before 0, and you?
        1000 ms, 2 to 3: hello, log before 4, in 1@2
        1000 ms, 2 to 3: hello, log before 4, in 1@2
        1000 ms, 2 applies 4: an event
        1000 ms, 2 to 1: entries 4..5, fresh
        1000 ms, 2 to 3: entries 4..5, fresh
        1000 ms, 2 writes 4..5
        1000 ms, 2 to 3: hello, log before 5, in 1@2
        1000 ms, 3 follows 1@2
        1000 ms, 3 to 2: replay from 0
        1000 ms, 1 applies 4: an event
        1000 ms, 1 writes 4..5
        1000 ms, 2 to 3: entries 0..5, replay
        1000 ms, 1 to 2: stored before 5 of 1@2
        1000 ms, 3 applies 0: session 1@2
        1000 ms, 3 applies 1: an event
        1000 ms, 3 applies 2: an event
        1000 ms, 3 applies 3: the mark
        1000 ms, 3 applies 4: an event
        1000 ms, 3 writes 0..5
        1000 ms, 3 to 2: stored before 5 of 1@2
        1000 ms, 2 applies 5: 3 joins
        1000 ms, 2 to 1: entries 5..6, fresh
        1000 ms, 2 to 3: entries 5..6, fresh
        1000 ms, 2 writes 5..6
        1000 ms, 1 applies 5: 3 joins
        1000 ms, 1 writes 5..6
        1000 ms, 3 applies 5: 3 joins
        1000 ms, 3 writes 5..6
        1000 ms, 1 to 2: stored before 6 of 1@2
        1000 ms, 3 to 2: stored before 6 of 1@2
        1000 ms, 3 to 1: hello, log before 6, in 1@2
        1000 ms, 3 to 2: reach 1 true
        1000 ms, 1 to 3: hello, log before 6, in 1@2
        1000 ms, 1 to 2: reach 3 true
        ",
    );
    assert_eq!(talk.replica(3), talk.replica(2));
}

#[test]
fn a_joiner_far_behind_takes_a_snapshot_and_then_the_log() {
    let config = Config { repair_entries: 3, ..config(2) };
    let mut talk = founded_with(&config);
    for _ in 0..9 {
        talk.set(2, 1, &"one long value, written over and over, makes the log more than the state ".repeat(9));
    }
    talk.said();
    talk.start(3, &config);
    talk.meet(3, 2);
    talk.pass(Span::millis(100));
    assert_said(
        &mut talk,
        "
        1000 ms, 3 to 2: hello, log before 0
        1000 ms, 3 to 2: hello, log before 0, and you?
        1000 ms, 2 to 3: hello, log before 14, in 1@2
        1000 ms, 2 to 3: hello, log before 14, in 1@2
        1000 ms, 2 applies 14: an event
        1000 ms, 2 to 1: entries 14..15, fresh
        1000 ms, 2 to 3: entries 14..15, fresh
        1000 ms, 2 writes 14..15
        1000 ms, 2 to 3: hello, log before 15, in 1@2
        1000 ms, 3 follows 1@2
        1000 ms, 3 to 2: request snapshot, have all before 0
        1000 ms, 1 applies 14: an event
        1000 ms, 1 writes 14..15
        1000 ms, 2 encodes the state before 15
        1000 ms, 1 to 2: stored before 15 of 1@2
        1000 ms, 2 to 3: offer snapshot before 15
        1000 ms, 3 to 2: request chunk 0
        1000 ms, 2 to 3: chunk 0
        1000 ms, 3 decodes the snapshot before 15
        1000 ms, 3 installs the snapshot before 15
        1000 ms, 3 has another state, next is 15
        1000 ms, 3 to 2: stored before 15 of 1@2
        1000 ms, 2 applies 15: 3 joins
        1000 ms, 2 to 1: entries 15..16, fresh
        1000 ms, 2 to 3: entries 15..16, fresh
        1000 ms, 2 writes 15..16
        1000 ms, 1 applies 15: 3 joins
        1000 ms, 1 writes 15..16
        1000 ms, 3 applies 15: 3 joins
        1000 ms, 3 writes 15..16
        1000 ms, 1 to 2: stored before 16 of 1@2
        1000 ms, 3 to 2: stored before 16 of 1@2
        ",
    );
    assert_eq!(talk.replica(3), talk.replica(2));
}

#[test]
fn a_leader_that_hands_over_names_who_follows_it() {
    let mut talk = founded();
    talk.said();
    talk.tell(2, Input::Operator(Operator::HandOver));
    talk.pass(Span::millis(100));
    assert_said(
        &mut talk,
        "
        1000 ms, 2 to 1: hand over 1@2 before 4
        1000 ms, 1 applies 4: session 2@1
        1000 ms, 1 leads 2@1
        1000 ms, 1 to 2: entries 4..5, fresh
        1000 ms, 1 writes 4..5
        1000 ms, 1 to 2: hello, log before 5, in 2@1
        1000 ms, 1 to 2: lead 2@1, next 5
        1000 ms, 2 follows 2@1
        1000 ms, 2 to 1: replay from 4
        1000 ms, 2 to 1: stored before 4 of 2@1
        1000 ms, 1 to 2: entries 4..5, replay
        1000 ms, 1 applies 5: the mark
        1000 ms, 1 to 2: entries 5..6, fresh
        1000 ms, 1 writes 5..6
        1000 ms, 2 applies 4: session 2@1
        1000 ms, 2 writes 4..5
        1000 ms, 2 applies 5: the mark
        1000 ms, 2 to 1: stored before 5 of 2@1
        1000 ms, 2 writes 5..6
        1000 ms, 2 to 1: stored before 6 of 2@1
        ",
    );
    assert!(matches!(talk.role(1), Role::Leading(session) if session.leader == NodeId::example(1)));
}

#[test]
fn a_log_with_another_content_than_its_leaders_is_set_aside_and_counts_no_more() {
    let mut talk = founded();
    let Role::Leading(session) = talk.role(2) else { panic!("node 2 leads") };
    let (next, heard) = (talk.replica(1).next(), vec![NodeId::example(1)]);
    let other = Lead { session, next, hash: Hash::of(b"other"), wall: Wall(0), all: next, heard, done: None };
    talk.said();
    talk.tell(1, Input::Message { from: session.leader, message: Message::Lead(Box::new(other)) });
    assert_said(
        &mut talk,
        "
        1000 ms, 1 to 2: stored before 4 of 1@2
        1000 ms, 1 notes Conflict(Index(4))
        1000 ms, 1 notes Damaged
        1000 ms, 1 cuts its log before 0 for 1@2
        1000 ms, 1 seeks a leader
        1000 ms, 1 to 2: hello, log before 4, and you?
        1000 ms, 1 has another state, next is 0
        1000 ms, 1 sets aside 0-1@02000000
        1000 ms, 1 to 2: hello, log before 0, and you?
        1000 ms, 2 to 1: hello, log before 4, in 1@2
        1000 ms, 2 to 1: hello, log before 4, in 1@2
        1000 ms, 2 to 1: hello, log before 4, in 1@2
        1000 ms, 1 follows 1@2
        1000 ms, 1 to 2: replay from 0
        1000 ms, 2 to 1: entries 0..4, replay
        1000 ms, 1 applies 0: session 1@2
        1000 ms, 1 applies 1: an event
        1000 ms, 1 applies 2: an event
        1000 ms, 1 applies 3: the mark
        1000 ms, 1 writes 0..4
        ",
    );
    // It has the same log again, and yet says nothing of what it stored.
    assert_eq!(talk.replica(1), talk.replica(2));
}

#[test]
fn only_answers_to_what_was_asked_after_the_loss_make_a_damaged_node_whole() {
    let config = config(3);
    let mut talk = Talk::new();
    (1..=3).for_each(|n| talk.start(n, &config));
    [(1, 2), (2, 3), (1, 3)].into_iter().for_each(|(a, b)| talk.meet(a, b));
    talk.pass(Span::seconds(1));
    let Role::Leading(session) = talk.role(3) else { panic!("node 3 leads") };
    let (next, heard) = (talk.replica(1).next(), vec![NodeId::example(1)]);
    let other = Lead { session, next, hash: Hash::of(b"other"), wall: Wall(0), all: next, heard, done: None };
    talk.lose(Loses { from: 2, to: 1, times: u32::MAX, what: "hello" });
    talk.tell(1, Input::Message { from: session.leader, message: Message::Lead(Box::new(other)) });
    assert_eq!(talk.replica(1), talk.replica(3));
    let (this, earlier) = (Boot { starts: 1, nonce: 1 }, Boot { starts: 7, nonce: 1 });
    let to_earlier = [(earlier, 1), (this, 0)].map(|(boot, losses)| Purpose::Answer { boot, losses });
    for purpose in [Purpose::Tell, Purpose::Ask { losses: 1 }].into_iter().chain(to_earlier) {
        talk.late_hello(2, 1, purpose);
        assert!(!talk.said().contains("Whole"), "{purpose:?} may be older than what node 1 lost");
    }
    talk.late_hello(2, 1, Purpose::Answer { boot: this, losses: 1 });
    assert!(talk.said().contains("1 notes Whole"));
}

#[test]
fn a_damaged_node_waits_for_its_leaders_answer() {
    let config = config(5);
    let mut talk = Talk::new();
    (1..=5).for_each(|n| talk.start(n, &config));
    (1..=5).for_each(|a| (a + 1..=5).for_each(|b| talk.meet(a, b)));
    talk.pass(Span::seconds(1));
    let Role::Leading(session) = talk.role(5) else { panic!("node 5 leads") };
    let (next, heard) = (talk.replica(1).next(), vec![NodeId::example(1)]);
    let other = Lead { session, next, hash: Hash::of(b"other"), wall: Wall(0), all: next, heard, done: None };
    talk.lose(Loses { from: 5, to: 1, times: u32::MAX, what: "hello" });
    talk.tell(1, Input::Message { from: session.leader, message: Message::Lead(Box::new(other)) });
    talk.pass(Span::seconds(1));
    assert_eq!(talk.replica(1), talk.replica(5), "it has the leader's log, which nodes 2 to 4 answered for");
    assert!(!talk.said().contains("Whole"), "its leader may count what it said before");
    talk.late_hello(5, 1, Purpose::Answer { boot: Boot { starts: 1, nonce: 1 }, losses: 1 });
    assert!(talk.said().contains("1 notes Whole"));
}

#[test]
fn an_empty_node_takes_nothing_over_from_one_that_has_no_log() {
    let mut talk = Talk::new();
    talk.start(1, &config(3));
    let (leader, boot) = (NodeId::example(9), Boot { starts: 1, nonce: 9 });
    talk.forge_hand_over(Session { clock: 1, leader, boot }, 1);
    assert_eq!(talk.role(1), Role::Seeking);
}

#[test]
fn two_foundings_that_meet_become_one_and_the_other_is_set_aside() {
    let mut talk = Talk::new();
    talk.start(1, &config(1));
    talk.start(2, &config(1));
    talk.pass(Span::seconds(2));
    talk.set(1, 1, "one");
    talk.set(2, 2, "two");
    talk.set(2, 3, "three");
    talk.said();
    talk.meet(1, 2);
    talk.pass(Span::seconds(1));
    assert_said(
        &mut talk,
        "
        2000 ms, 1 to 2: hello, log before 5, in 1@1
        2000 ms, 2 to 1: hello, log before 6, in 1@2
        2000 ms, 2 meets another founding at 1 and does not yield
        2000 ms, 2 to 1: hello, log before 6, in 1@2
        2000 ms, 2 applies 6: an event
        2000 ms, 2 to 1: entries 6..7, fresh
        2000 ms, 2 writes 6..7
        2000 ms, 1 meets another founding at 2 and yields
        2000 ms, 1 cuts its log before 0 for 1@2
        2000 ms, 1 seeks a leader
        2000 ms, 1 has another state, next is 0
        2000 ms, 1 sets aside 0-1@02000000
        2000 ms, 1 to 2: hello, log before 0, and you?
        2000 ms, 2 to 1: hello, log before 7, in 1@2
        2000 ms, 2 applies 7: session 2@2
        2000 ms, 2 leads 2@2
        2000 ms, 2 to 1: entries 7..8, fresh
        2000 ms, 2 writes 7..8
        2000 ms, 1 follows 1@2
        2000 ms, 1 to 2: replay from 0
        2000 ms, 1 to 2: hello, log before 0, in 1@2, and you?
        2000 ms, 2 to 1: hello, log before 8, in 2@2
        2000 ms, 2 applies 8: the mark
        2000 ms, 2 to 1: lead 2@2, next 8
        2000 ms, 2 to 1: entries 8..9, fresh
        2000 ms, 2 writes 8..9
        2000 ms, 2 to 1: hello, log before 9, in 2@2
        2000 ms, 1 follows 2@2
        2000 ms, 1 to 2: replay from 0
        2000 ms, 2 to 1: entries 0..9, replay
        2000 ms, 1 applies 0: session 1@2
        2000 ms, 1 applies 1: an event
        2000 ms, 1 applies 2: the mark
        2000 ms, 1 applies 3: a generation of 2
        2000 ms, 1 applies 4: command 2
        2000 ms, 1 applies 5: command 3
        2000 ms, 1 applies 6: an event
        2000 ms, 1 applies 7: session 2@2
        2000 ms, 1 applies 8: the mark
        2000 ms, 1 writes 0..9
        2000 ms, 1 to 2: stored before 9 of 2@2
        2000 ms, 2 applies 9: 1 joins
        2000 ms, 2 to 1: entries 9..10, fresh
        2000 ms, 2 writes 9..10
        2000 ms, 1 applies 9: 1 joins
        2000 ms, 1 writes 9..10
        2000 ms, 1 to 2: stored before 10 of 2@2
        2500 ms, 2 to 1: lead 2@2, next 10
        2500 ms, 1 to 2: stored before 10 of 2@2
        3000 ms, 2 to 1: lead 2@2, next 10
        3000 ms, 1 to 2: stored before 10 of 2@2
        ",
    );
    assert_eq!(talk.replica(1), talk.replica(2));
}

#[test]
fn a_second_machine_with_one_identity_is_sent_away() {
    let mut talk = founded();
    talk.said();
    talk.forge_hello(1, 2);
    assert_said(
        &mut talk,
        "
        1000 ms, 2 to 1: reject SameIdentity
        1000 ms, 2 notes SameIdentity(01000000)
        ",
    );
}

#[test]
fn a_founding_names_as_many_nodes_as_an_entry_has_room_for() {
    let tight = Config { entry_bytes: 250, ..config(4) };
    let mut talk = Talk::new();
    (1..=4).for_each(|n| talk.start(n, &tight));
    (1..=4).for_each(|a| (a + 1..=4).for_each(|b| talk.meet(a, b)));
    talk.pass(Span::seconds(5));
    let said = talk.said();
    assert!(said.contains("joins"), "the founding left nobody out:\n{said}");
    assert_eq!(talk.replica(1).known().len(), 4, "those left out did not join:\n{said}");
}

#[test]
fn who_is_to_be_forgotten_waits_for_the_change_before() {
    let mut talk = Talk::new();
    (1..=3).for_each(|n| talk.start(n, &config(3)));
    (1..=3).for_each(|a| (a + 1..=3).for_each(|b| talk.meet(a, b)));
    talk.pass(Span::seconds(1));
    assert!(matches!(talk.role(3), Role::Leading(_)));
    // The first change is done when node 2 holds it, and of that nothing is heard.
    talk.lose(Loses { from: 2, to: 3, times: 2, what: "stored" });
    talk.tell(3, Input::Operator(Operator::Forget(NodeId::example(1))));
    talk.tell(3, Input::Operator(Operator::Forget(NodeId::example(2))));
    let known = |talk: &Talk, n| talk.replica(3).known().contains(&NodeId::example(n));
    assert!(!known(&talk, 1) && known(&talk, 2), "one change was ordered before the other was done");
    talk.said();
    talk.pass(Span::seconds(3));
    assert!(talk.said().contains("forgotten"), "the second wish was never granted");
}
