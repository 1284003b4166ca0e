//! Forged logs: L6, L7, L8, L11.

use lockstep_replication::entry::{Body, KnownChange};
use lockstep_replication::io::Kept;
use lockstep_replication::lineage::{Lineage, Term};
use lockstep_replication::{Hash, Index, Role, Wall};

use super::{Forged, asked, breaks, opened, proposed, session, stranger};
use crate::checks::ledger::Place;
use crate::checks::sessions_rise::Confirmed;
use crate::checks::{one_content, stamps};
use crate::plan::node_id;

#[test]
fn two_contents_for_one_index_break_l6() {
    let mut log = Forged::founded();
    let before = log.at;
    log.add(0, asked(1, 1)).expect("the first content");
    log.at = before;
    assert_eq!(log.add(0, asked(1, 1)).expect("the same content again").fresh_after, None);
    log.at = before;
    breaks("one_content", log.add(0, asked(2, 2)));
}

#[test]
fn two_contents_on_a_branch_break_l6_too() {
    let mut log = Forged::founded();
    let before = log.at;
    log.add(0, opened(2, None)).expect("a later session goes on");
    log.at = before;
    log.add(0, asked(1, 1)).expect("the first session goes on too, on a branch");
    log.at = before;
    assert_eq!(log.add(0, asked(1, 1)).expect("the same").fresh_after, None);
    log.at = before;
    breaks("one_content", log.add(0, asked(2, 2)));
}

#[test]
fn an_entry_out_of_its_place_or_not_from_its_leader_breaks_l6() {
    let mut log = Forged::founded();
    let entry = log.entry(0, asked(1, 1));
    breaks("one_content", log.clone().ledger.extend(Place::EMPTY, &entry));
    breaks("one_content", one_content::applied(&mut log.clone().ledger, log.at, stranger(), &entry));
    one_content::applied(&mut log.ledger, log.at, node_id(1), &entry).expect("its leader orders it");
    one_content::applied(&mut log.ledger, log.at, stranger(), &entry).expect("then all may have it");
}

#[test]
fn two_hashes_of_one_log_break_l6() {
    let mut log = Forged::founded();
    assert!(log.ledger.hash(log.at, Hash::of(b"one")).expect("the first word"));
    assert!(!log.ledger.hash(log.at, Hash::of(b"one")).expect("the same"));
    breaks("one_content", log.ledger.hash(log.at, Hash::of(b"other")));
}

#[test]
fn a_log_without_a_founding_breaks_l6() {
    breaks("one_content", Forged::default().add(0, asked(1, 1)));
    breaks("one_content", Forged::default().add(0, opened(1, None)));
}

#[test]
fn a_log_is_found_by_its_sessions_where_somebody_built_it() {
    let mut log = Forged::founded();
    log.add_commands(1..5);
    let fork = log.at;
    log.add(5, opened(2, None)).expect("a later session");
    let later = log.at;
    log.at = fork;
    log.add_commands(5..9);
    let term = |clock, began: u64, ended: u64| {
        let (began, ended) = (Index(began), Index(ended));
        Term { session: session(clock), began, ended, backed: false }
    };
    let lineage = |terms| Lineage { terms, ..Lineage::default() };
    let old = lineage(vec![term(1, 0, 9)]);
    assert_eq!(log.ledger.find(&old, Index(9)), Some(log.at));
    assert_eq!(log.ledger.find(&old, Index(5)), Some(fork));
    assert_eq!(log.ledger.find(&old, Index(10)), None, "nobody ordered so much");
    let new = lineage(vec![term(1, 0, 5), term(2, 5, 6)]);
    assert_eq!(log.ledger.find(&new, Index(6)), Some(later));
    assert_eq!(log.ledger.find(&new, Index(7)), None);
    assert_eq!(log.ledger.find(&lineage(vec![term(3, 0, 1)]), Index(1)), None, "nobody opened it");
    assert!(log.ledger.leads_to(fork, later) && log.ledger.leads_to(fork, log.at));
    assert!(!log.ledger.leads_to(later, log.at) && !log.ledger.leads_to(log.at, later));
}

#[test]
fn a_session_opened_twice_or_below_the_last_breaks_l7() {
    let mut log = Forged::founded();
    log.add(0, opened(2, None)).expect("a higher session");
    breaks("sessions_rise", log.clone().add(0, opened(2, None)));
    breaks("sessions_rise", log.clone().add(0, opened(1, None)));
    log.at = Place::EMPTY;
    breaks("sessions_rise", log.add(5, opened(2, Some(8))));
}

#[test]
fn a_confirmation_that_goes_back_breaks_l7() {
    let kept = |clock| Kept { clock, confirmed: Some(session(clock)), ..Kept::default() };
    let mut node = Confirmed::default();
    node.started(&Kept::default());
    node.asks(&kept(3)).expect("higher");
    node.wrote(&kept(3)).expect("higher");
    breaks("sessions_rise", node.clone().asks(&kept(2)));
    breaks("sessions_rise", node.clone().wrote(&kept(2)));
    let rival = lockstep_replication::Session { leader: stranger(), ..session(3) };
    breaks("sessions_rise", node.clone().asks(&Kept { confirmed: Some(rival), ..kept(3) }));
    node.started(&kept(3));
    breaks("sessions_rise", node.clone().takes(node_id(1), Role::Leading(session(3))));
    breaks("sessions_rise", node.clone().takes(stranger(), Role::Leading(session(4))));
    node.takes(node_id(1), Role::Leading(session(4))).expect("a new one of its own");
    breaks("sessions_rise", node.takes(node_id(1), Role::Leading(session(4))));
}

#[test]
fn a_stamp_that_goes_back_breaks_l8() {
    let mut log = Forged::founded();
    log.add(10, asked(1, 1)).expect("later");
    breaks("stamps", log.clone().add(9, asked(2, 2)));
    let entry = log.entry(10, asked(2, 2));
    stamps::shows(10, Wall(4), &entry).expect("the clock went back, the stamp did not");
    breaks("stamps", stamps::shows(10, Wall(11), &entry));
}

#[test]
fn a_stamp_that_goes_back_on_a_branch_breaks_l8() {
    let mut log = Forged::founded();
    log.add(1 << 40, asked(5000, 1)).expect("much later");
    (2..3000).for_each(|n| log.add(1 << 40 | n, asked(n, n)).map(|_| ()).expect("each is next"));
    for next in [2500, 1030, 1025, 1024, 900] {
        let mut branch = Forged { at: log.ledger.cut(log.at, next).expect("it is longer"), ..log.clone() };
        let last = 1 << 40 | (next - 1);
        breaks("stamps", branch.clone().add(last - 1, opened(2, None)));
        let extended = branch.add(last, opened(2, None)).expect("as late as the one before");
        assert_eq!(extended.fresh_after, Some(last));
    }
}

#[test]
fn a_command_twice_or_out_of_turn_breaks_l11() {
    let mut log = Forged::founded();
    log.add(0, asked(1, 2)).expect("once");
    breaks("once_in_order", log.clone().add(0, asked(1, 3)));
    breaks("once_in_order", log.add(0, asked(2, 1)));
}

#[test]
fn a_command_may_stand_on_two_branches_and_twice_on_none() {
    let mut log = Forged::founded();
    log.add_commands(1..3000);
    log.at = log.ledger.cut(log.at, 2500).expect("it is longer");
    log.add(2499, opened(2, None)).expect("a branch");
    breaks("once_in_order", log.clone().add(2499, asked(2400, 2999)));
    breaks("once_in_order", log.clone().add(2499, asked(5000, 2499)));
    log.add(2499, asked(2999, 2500)).expect("it is not in this branch yet");
    breaks("once_in_order", log.add(2499, asked(2999, 2501)));
}

#[test]
fn a_proposal_twice_or_before_its_generation_breaks_l11() {
    let mut log = Forged::founded();
    let generation = |generation| Body::Generation { node: node_id(2), generation };
    breaks("once_in_order", log.clone().add(0, proposed(5, 1)));
    log.add(0, generation(5)).expect("its first");
    log.add(0, proposed(5, 1)).expect("the first of it");
    log.add(0, proposed(5, 3)).expect("one was refused between");
    breaks("once_in_order", log.clone().add(0, proposed(5, 3)));
    breaks("once_in_order", log.clone().add(0, proposed(5, 2)));
    breaks("once_in_order", log.clone().add(0, generation(5)));
    breaks("once_in_order", log.clone().add(0, proposed(6, 4)));
    let fork = log.at;
    log.add(0, generation(6)).expect("a newer one");
    breaks("once_in_order", log.clone().add(0, proposed(5, 4)));
    log.at = fork;
    log.add(0, opened(2, None)).expect("a branch");
    log.add(0, proposed(5, 4)).expect("the newer generation is not in this branch");
    breaks("once_in_order", log.clone().add(0, generation(5)));
    log.add(0, Body::Known(KnownChange::Forgotten(node_id(2)))).expect("it is forgotten");
    breaks("once_in_order", log.clone().add(0, generation(1)));
    log.add(0, generation(7)).expect("its proposals go on where they were");
}
