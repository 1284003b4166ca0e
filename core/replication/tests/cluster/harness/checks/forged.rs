//! The checks themselves, tried: each is shown a forged history that it must reject, beside one that it must accept.

use bytes::Bytes;
use lockstep_replication::entry::{Body, Decided, Entry, Founding, Opened};
use lockstep_replication::io::{Kept, NotTaken, Work};
use lockstep_replication::message::{DoneMark, Message, Refused};
use lockstep_replication::{Boot, Hash, Index, NodeId, Outcome, Session, Wall, WorkId};

use super::ledger::Ledger;
use super::promises::Promises;
use super::spoken::may_say;
use crate::harness::disk::Disk;
use crate::harness::kv::{By, Event, Kv};

/// A log under forgery.
#[derive(Clone)]
struct Forged {
    ledger: Ledger,
    hash: Hash,
}

fn session(clock: u64) -> Session {
    Session { clock, leader: NodeId::example(1), boot: Boot::default() }
}

fn opened(clock: u64, founding: Option<u64>) -> Body<Kv> {
    let founding = founding.map(|id| Founding { id, known: Vec::new() });
    Body::Opened(Opened { session: session(clock), founding })
}

/// Command `uid`, given to node 1 as its command of this turn.
fn asked(uid: u64, turn: u64) -> Body<Kv> {
    let by = By { uid, node: NodeId::example(1), turn };
    Body::Decided(Decided { proposal: None, command: None, events: vec![Event::Asked(by)] })
}

impl Forged {
    /// A log with its founding.
    fn founded() -> Forged {
        let mut forged = Forged { ledger: Ledger::default(), hash: Hash::default() };
        forged.add(0, opened(1, Some(7))).expect("a founding begins a log");
        forged
    }

    fn add(&mut self, stamp: u64, body: Body<Kv>) -> Result<(), String> {
        let entry = Entry { index: self.ledger.next(self.hash), stamp: Wall(stamp), body };
        self.hash = self.ledger.extend(self.hash, &entry.seal(1), &entry)?.0;
        Ok(())
    }
}

fn breaks(law: &str, result: Result<(), String>) {
    let why = result.expect_err("the check let it pass");
    assert!(why.starts_with(law), "{why}");
}

#[test]
fn two_contents_for_one_index_break_l6() {
    let mut log = Forged::founded();
    let before = log.hash;
    log.add(0, asked(1, 1)).expect("the first content");
    log.hash = before;
    log.add(0, asked(1, 1)).expect("the same content again");
    log.hash = before;
    breaks("L6", log.add(0, asked(2, 1)));
}

#[test]
fn two_states_after_one_entry_break_l6() {
    let mut log = Forged::founded();
    log.ledger.state(log.hash, Hash::of(b"one")).expect("the first digest");
    log.ledger.state(log.hash, Hash::of(b"one")).expect("the same digest");
    breaks("L6", log.ledger.state(log.hash, Hash::of(b"other")));
}

#[test]
fn a_session_opened_twice_or_below_the_last_breaks_l7() {
    let mut log = Forged::founded();
    log.add(0, opened(2, None)).expect("a higher session");
    breaks("L7", log.clone().add(0, opened(2, None)));
    let mut branch = Forged { ledger: log.ledger, hash: Hash::default() };
    breaks("L7", branch.add(5, opened(2, Some(7))));
}

#[test]
fn a_stamp_that_goes_back_breaks_l8() {
    let mut log = Forged::founded();
    log.add(10, asked(1, 1)).expect("later");
    breaks("L8", log.add(9, asked(2, 2)));
}

#[test]
fn a_command_twice_or_out_of_turn_breaks_l11() {
    let mut log = Forged::founded();
    log.add(0, asked(1, 2)).expect("once");
    breaks("L11", log.clone().add(0, asked(1, 3)));
    breaks("L11", log.add(0, asked(2, 1)));
}

#[test]
fn an_answer_that_the_log_does_not_show_breaks_l9() {
    let mut log = Forged::founded();
    log.add(0, asked(1, 1)).expect("it is next");
    let mut promises = Promises::default();
    let done = |index| Outcome::Done { index: Index(index), held: 2, of: 3 };
    promises.reply(&log.ledger, (Some(session(1)), log.hash), 1, 1, &done(1)).expect("it stands there");
    breaks("L9", promises.reply(&log.ledger, (Some(session(1)), log.hash), 2, 1, &done(1)));
    breaks("L9", promises.reply(&log.ledger, (Some(session(1)), log.hash), 1, 1, &done(0)));
    breaks(
        "L9",
        promises.reply(
            &log.ledger,
            (Some(session(1)), log.hash),
            2,
            1,
            &Outcome::Refused(Refused::DoneBefore(Index(1))),
        ),
    );
}

#[test]
fn what_was_refused_and_comes_all_the_same_breaks_l9() {
    let mut log = Forged::founded();
    let mut promises = Promises::default();
    let (refused, not_taken) = (Outcome::Refused(Refused::Before), Outcome::NotTaken(NotTaken::Full));
    promises.reply(&log.ledger, (Some(session(1)), log.hash), 1, 1, &refused).expect("a refusal");
    promises.reply(&log.ledger, (Some(session(1)), log.hash), 2, 1, &not_taken).expect("another");
    for (uid, turn) in [(1, 1), (2, 2)] {
        log.add(0, asked(uid, turn)).expect("it is next");
        breaks("L9", promises.ordered(&log.ledger, log.hash));
    }
}

#[test]
fn a_backed_session_without_what_was_promised_breaks_l12() {
    let mut log = Forged::founded();
    let before = log.hash;
    log.add(0, asked(1, 1)).expect("it is next");
    let promised = log.hash;
    let majority = Outcome::Done { index: Index(1), held: 2, of: 3 };
    let few = Outcome::Done { index: Index(1), held: 1, of: 3 };

    // Another branch is backed without the entry.
    log.hash = before;
    log.add(0, opened(2, None)).expect("a higher session");
    log.add(0, Body::Backed).expect("its mark");
    let without = log.hash;

    let mut first = Promises::default();
    first.reply(&log.ledger, (Some(session(1)), promised), 1, 1, &majority).expect("nothing else is there yet");
    breaks("L12", first.ordered(&log.ledger, without));
    let mut last = Promises::default();
    last.ordered(&log.ledger, without).expect("nothing was promised yet");
    breaks("L12", last.reply(&log.ledger, (Some(session(1)), promised), 1, 1, &majority));

    let mut alone = Promises::default();
    alone.reply(&log.ledger, (Some(session(1)), promised), 1, 1, &few).expect("it is there");
    alone.ordered(&log.ledger, without).expect("few held it");
    breaks("L12", alone.end(&log.ledger, without, &[].into()));
    alone.end(&log.ledger, without, &[1].into()).expect("it was set aside");
}

#[test]
fn an_old_entry_that_a_later_session_gets_done_is_promised_from_then_on() {
    let mut log = Forged::founded();
    let founding = log.hash;
    log.add(0, asked(1, 1)).expect("it is next");
    log.add(0, opened(3, None)).expect("a higher session");
    log.add(0, Body::Backed).expect("its mark");
    let with = log.hash;
    let mut without = |clock| {
        log.hash = founding;
        log.add(0, opened(clock, None)).expect("a higher session");
        log.add(0, Body::Backed).expect("its mark");
        log.hash
    };
    let (before, after) = (without(2), without(4));
    let mut promises = Promises::default();
    promises.ordered(&log.ledger, before).expect("nothing was promised yet");
    let majority = Outcome::Done { index: Index(1), held: 2, of: 3 };
    promises.reply(&log.ledger, (Some(session(3)), with), 1, 1, &majority).expect("session 2 came before");
    breaks("L12", promises.ordered(&log.ledger, after));
}

#[test]
fn words_that_the_disk_does_not_bear_out_are_rejected() {
    let (me, boot) = (NodeId::example(1), Boot::default());
    let mut disk = Disk::default();
    let stored = |next| Message::Stored { session: session(1), boot, next: Index(next) };
    may_say(me, &disk, &stored(0), 10).expect_err("it is not kept");
    disk.kept = Kept { confirmed: Some(session(1)), ..Kept::default() };
    may_say(me, &disk, &stored(0), 10).expect("it is kept");
    may_say(me, &disk, &stored(0), 1 << 21).expect_err("it is too long");
    may_say(me, &disk, &stored(1), 10).expect_err("the log is empty");
    disk.ask(WorkId(1), Work::Append { first: Index(0), records: vec![Bytes::from_static(b"entry")] });
    may_say(me, &disk, &stored(1), 10).expect_err("the append waits");
    assert!(disk.do_next(boot, false).is_ok());
    may_say(me, &disk, &stored(1), 10).expect("it is done");
    let done = |held, of| Message::Done(DoneMark { session: session(1), index: Index(0), held, of });
    may_say(me, &disk, &done(3, 2), 10).expect_err("three of two");
    may_say(me, &disk, &done(2, 2), 10).expect("two of two");
}
