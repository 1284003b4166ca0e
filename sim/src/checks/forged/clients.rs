//! Forged answers and promises: L9, L12.

use lockstep_replication::entry::Body;
use lockstep_replication::io::{NotTaken, Notice, Unknown};
use lockstep_replication::message::{DoneMark, Refused};
use lockstep_replication::{Index, Moment, Outcome, Output, Span, Ticket, WorkId};

use super::{Forged, asked, breaks, opened, session, step};
use crate::checks::Given;
use crate::checks::done_stays::{Promises, announced};
use crate::checks::one_reply::{Clients, Done};
use crate::kv::Kv;

/// Clients of one machine who wait for these commands, under tickets of the same numbers.
fn waiting(uids: &[u64]) -> Clients {
    let mut clients = Clients::new(1, Span(1000));
    uids.iter().for_each(|uid| clients.asked(0, Moment(5), Ticket(*uid), *uid).expect("a new ticket"));
    clients
}

fn done(index: u64, held: u32) -> Outcome<Kv> {
    Outcome::Done { index: Index(index), held, of: 3 }
}

#[test]
fn an_answer_that_the_log_does_not_show_breaks_l9() {
    let mut log = Forged::founded();
    log.add(0, asked(1, 1)).expect("it is next");
    let clients = waiting(&[1, 2]);
    let says = |ticket, outcome: Outcome<Kv>| clients.clone().replied(&log.ledger, 0, log.at, Ticket(ticket), &outcome);
    says(1, done(1, 2)).expect("it stands there");
    breaks("one_reply", says(2, done(1, 2)));
    breaks("one_reply", says(1, done(0, 2)));
    breaks("one_reply", says(1, done(2, 2)));
    breaks("one_reply", says(1, done(1, 4)));
    breaks("one_reply", says(1, done(1, 0)));
    breaks("one_reply", says(2, Outcome::Refused(Refused::DoneBefore(Index(1)))));
    breaks("one_reply", says(1, Outcome::Refused(Refused::Nothing(Index(1)))));
    says(1, Outcome::Refused(Refused::DoneBefore(Index(1)))).expect("it was");
}

#[test]
fn two_answers_or_none_break_l9() {
    let log = Forged::founded();
    let mut clients = waiting(&[1, 2]);
    let unknown = Outcome::Unknown(Unknown::TimedOut);
    clients.replied(&log.ledger, 0, log.at, Ticket(1), &unknown).expect("one");
    breaks("one_reply", clients.replied(&log.ledger, 0, log.at, Ticket(1), &unknown));
    clients.stepped(0, Moment(1005)).expect("it is not late yet");
    breaks("one_reply", clients.clone().stepped(0, Moment(1006)));
    breaks("one_reply", clients.stopped(0));
    breaks("one_reply", clients.ended());
    clients.replied(&log.ledger, 0, log.at, Ticket(2), &unknown).expect("the other");
    clients.stepped(0, Moment(5000)).and_then(|()| clients.stopped(0)).and_then(|()| clients.ended()).expect("all");
}

#[test]
fn what_was_refused_and_comes_all_the_same_breaks_l9() {
    let log = Forged::founded();
    let mut clients = waiting(&[1, 2, 3]);
    let mut says = |uid, outcome| clients.replied(&log.ledger, 0, log.at, Ticket(uid), &outcome).expect("one answer");
    says(1, Outcome::Refused(Refused::Before));
    says(2, Outcome::NotTaken(NotTaken::Full));
    says(3, Outcome::Unknown(Unknown::TimedOut));
    breaks("one_reply", clients.ordered(1));
    breaks("one_reply", clients.ordered(2));
    clients.ordered(3).expect("nobody knew");
    clients.asked(0, Moment(6), Ticket(10), 1).expect("its client tries again");
    clients.ordered(1).expect("it may come now");
    clients.replied(&log.ledger, 0, log.at, Ticket(10), &Outcome::NotTaken(NotTaken::Full)).expect("an answer");
    clients.ordered(1).expect("the first attempt may have been taken, for all its client knows");
}

/// A promise of the log's last entry, in this session.
fn promised(log: &Forged, by_majority: bool) -> Done {
    Done { uid: 1, with: log.at, by_majority }
}

#[test]
fn a_backed_session_without_what_was_promised_breaks_l12() {
    let mut log = Forged::founded();
    let before = log.at;
    log.add(0, asked(1, 1)).expect("it is next");
    let mut with = log.clone();
    log.at = before;
    log.add(0, opened(2, None)).expect("a higher session on another branch");
    log.add(0, Body::Backed).expect("its mark");
    with.ledger = log.ledger.clone();

    let mut first = Promises::default();
    first.done(&with.ledger, session(1), promised(&with, true)).expect("nothing else is there yet");
    breaks("done_stays", first.backed(&log.ledger, log.at));
    breaks("done_stays", first.ended(&log.ledger, log.at, &[1].into()));
    first.ended(&log.ledger, with.at, &[].into()).expect("it is in this one");

    let mut last = Promises::default();
    last.backed(&log.ledger, log.at).expect("nothing was promised yet");
    breaks("done_stays", last.done(&with.ledger, session(1), promised(&with, true)));

    let mut few = Promises::default();
    few.done(&with.ledger, session(1), promised(&with, false)).expect("few hold it");
    few.backed(&log.ledger, log.at).expect("few held it");
    breaks("done_alone_is_set_aside", few.ended(&log.ledger, log.at, &[].into()));
    few.ended(&log.ledger, log.at, &[1].into()).expect("it was set aside");
}

#[test]
fn who_founds_anew_is_not_bound_and_sets_aside_all_the_same() {
    let mut log = Forged::founded();
    let before = log.at;
    log.add(0, asked(1, 1)).expect("it is next");
    let mut promises = Promises::default();
    promises.done(&log.ledger, session(1), promised(&log, true)).expect("it is there");
    log.at = before;
    log.add(0, opened(2, Some(8))).expect("another founding of the same log");
    promises.founded_anew(&log.ledger, before);
    log.at = before;
    log.add(0, opened(3, None)).expect("the first founding goes on");
    log.add(0, Body::Backed).expect("its mark");
    promises.backed(&log.ledger, log.at).expect("it is left");
    breaks("done_alone_is_set_aside", promises.ended(&log.ledger, log.at, &[].into()));
    promises.ended(&log.ledger, log.at, &[1].into()).expect("it was set aside");
}

#[test]
fn two_branches_done_by_majority_break_l12() {
    let mut log = Forged::founded();
    let before = log.at;
    log.add(0, asked(1, 1)).expect("it is next");
    let one = promised(&log, true);
    log.at = before;
    log.add(0, opened(2, None)).expect("another branch");
    let other = promised(&log, true);
    let mut promises = Promises::default();
    promises.done(&log.ledger, session(1), one).expect("the first");
    breaks("done_stays", promises.done(&log.ledger, session(2), other));
}

#[test]
fn an_old_entry_that_a_later_session_gets_done_is_promised_from_then_on() {
    let mut log = Forged::founded();
    let founding = log.at;
    log.add(0, asked(1, 1)).expect("it is next");
    let entry = log.at;
    log.add(0, opened(3, None)).expect("a higher session");
    log.add(0, Body::Backed).expect("its mark");
    let mut without = |clock| {
        log.at = founding;
        log.add(0, opened(clock, None)).expect("a higher session");
        log.add(0, Body::Backed).expect("its mark").place
    };
    let (before, after) = (without(2), without(4));
    let mut promises = Promises::default();
    promises.backed(&log.ledger, before).expect("nothing was promised yet");
    log.at = entry;
    promises.done(&log.ledger, session(3), promised(&log, true)).expect("session 2 came before");
    breaks("done_stays", promises.backed(&log.ledger, after));
}

#[test]
fn done_before_enough_disks_hold_it_breaks_l12() {
    let mut log = Forged::founded();
    let before = log.at;
    log.add(0, asked(1, 1)).expect("it is next");
    let mark = |held| DoneMark { session: session(1), index: Index(1), held, of: 3 };
    let says = |held, disks: &[_]| Promises::default().marked(&log.ledger, log.at, &mark(held), Some(disks));
    says(2, &[log.at, log.at, before]).expect("two disks hold it");
    breaks("done_stays", says(3, &[log.at, log.at, before]));
    breaks("done_stays", says(2, &[log.at, before, before]));
    says(1, &[before, before, before]).expect("no majority is claimed, and whoever held it may have yielded since");
    breaks("done_stays", Promises::default().marked(&log.ledger, before, &mark(2), None));
}

#[test]
fn what_is_set_aside_without_a_word_breaks_l12() {
    let given = || Given::Rewound { id: WorkId(1), aside: Some("branch".into()) };
    let other = [Output::Notice(Notice::SetAside("another".into()))];
    breaks("done_alone_is_set_aside", announced(&step(given(), &[])));
    breaks("done_alone_is_set_aside", announced(&step(given(), &other)));
    announced(&step(given(), &[Output::Notice(Notice::SetAside("branch".into()))])).expect("it is said");
}
