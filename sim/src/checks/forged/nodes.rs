//! Forged behaviour of one node: L2 to L5, L10, L13, L14, and what it says.

use bytes::Bytes;
use lockstep_replication::io::{Kept, Stop, Why, Work};
use lockstep_replication::message::{Beat, DoneMark, Entries, EntriesKind, Lead, Message, Range};
use lockstep_replication::time::Span;
use lockstep_replication::{
    Boot, Config, Hash, Index, Moment, Node, NodeId, Output, Replica, Restored, Seed, Wake, Wall, WorkId,
};

use super::{Forged, asked, breaks, now, opened, session, step, stranger};
use crate::checks::effects_in_order::{Asked, Kind};
use crate::checks::ledger::Place;
use crate::checks::one_content::{States, replaced, stands};
use crate::checks::spoken::Speaker;
use crate::checks::{Given, agreement, limits, no_panic, wakes};
use crate::kv::{Kv, NEWEST_SCHEMA};
use crate::plan::node_id;
use crate::world::disk::Disk;
use crate::world::node::AnyNode;

fn wake(at: u64) -> Option<Wake> {
    Some(Wake { at: Moment(at), why: Why::Beat })
}

#[test]
fn a_wake_up_that_is_over_or_moves_breaks_the_laws_of_wakes() {
    wakes::stepped(&step(Given::Wake, &[Output::Left]), wake(1001)).expect("it is ahead");
    breaks("wakes", wakes::stepped(&step(Given::Wake, &[]), wake(1000)));
    wakes::stepped(&step(Given::Unasked(wake(2000)), &[]), wake(2000)).expect("nothing changes");
    breaks("wakes", wakes::stepped(&step(Given::Unasked(wake(2000)), &[]), wake(2001)));
    breaks("wakes", wakes::stepped(&step(Given::Unasked(wake(2000)), &[Output::Left]), wake(2000)));
}

/// A log of three entries, its records, and the log up to each.
fn written() -> (Forged, Vec<Bytes>) {
    let mut log = Forged::default();
    let bodies = [opened(1, Some(7)), asked(1, 1), asked(2, 2)];
    let mut records = Vec::new();
    for body in bodies {
        records.push(log.entry(0, body.clone()).seal(NEWEST_SCHEMA).bytes);
        log.add(0, body).expect("each is next");
    }
    (log, records)
}

fn append(first: u64, records: &[Bytes]) -> Work<Kv> {
    Work::Append { first: Index(first), records: records.to_vec() }
}

#[test]
fn work_out_of_order_breaks_l5() {
    let (mut log, records) = written();
    let mut asked = Asked::started(0);
    let mut asks = |asked: &mut Asked, id, work: &Work<Kv>| asked.asks(&mut log.ledger, log.at, WorkId(id), work);
    asks(&mut asked, 1, &append(0, &records[..2])).expect("the first two");
    breaks("effects_in_order", asks(&mut asked.clone(), 1, &append(2, &records[2..])));
    breaks("effects_in_order", asks(&mut asked.clone(), 2, &append(1, &records[1..])));
    breaks("effects_in_order", asks(&mut asked.clone(), 2, &append(3, &records[2..])));
    asks(&mut asked, 2, &append(2, &records[2..])).expect("the third");
    breaks("effects_in_order", asks(&mut asked.clone(), 3, &append(3, &records[2..])));
    let cut = |to| Work::Rewind { to: Index(to), winner: session(2) };
    breaks("effects_in_order", asks(&mut asked.clone(), 3, &cut(4)));
    asks(&mut asked, 3, &cut(1)).expect("it is cut");
    breaks("effects_in_order", asks(&mut asked.clone(), 4, &append(1, &records[1..])));
    asked.replaced(1);
    asks(&mut asked, 4, &append(1, &records[1..])).expect("it is there again");
}

#[test]
fn writing_something_else_than_was_applied_breaks_l5() {
    let (mut log, records) = written();
    let forged = log.entry(1, super::asked(3, 3)).seal(NEWEST_SCHEMA).bytes;
    let mut found = 0;
    for each in 0..16 {
        let mut asked = Asked::started(0);
        for id in 1..=each {
            asked.asks(&mut log.ledger, log.at, WorkId(id), &append(0, &[])).expect("nothing is written");
        }
        let wrong = [records[0].clone(), records[1].clone(), forged.clone()];
        found += usize::from(asked.asks(&mut log.ledger, log.at, WorkId(99), &append(0, &wrong)).is_err());
    }
    assert!(found > 0, "some appends are read");
}

#[test]
fn going_on_after_a_failed_write_breaks_l5() {
    let mut log = Forged::founded();
    let mut asked = Asked::started(1);
    asked.asks(&mut log.ledger, log.at, WorkId(1), &Work::Keep(Box::default())).expect("the first");
    assert_eq!((asked.kind(WorkId(1)), asked.waiting()), (Some(Kind::Keep), 1));
    let failed = || Given::Worked { id: WorkId(1), well: false };
    breaks("effects_in_order", asked.clone().stepped(&step(failed(), &[])));
    asked.clone().stepped(&step(failed(), &[Output::Stop(Stop::Disk("full".into()))])).expect("it stops");
    asked.stepped(&step(Given::Worked { id: WorkId(1), well: true }, &[])).expect("it went well");
    breaks("effects_in_order", asked.stepped(&step(failed(), &[])));
}

#[test]
fn what_is_larger_than_its_limit_breaks_l10() {
    let config = Config::default();
    limits::stepped(10, 10).expect("little");
    breaks("limits", limits::stepped(100_000, 10));
    breaks("limits", limits::stepped(10, 1_000));
    let entries = |count: usize, bytes| {
        let (session, kind) = (session(1), EntriesKind::Fresh);
        Message::Entries(Entries { session, first: Index(0), records: vec![Bytes::from(vec![0; bytes]); count], kind })
    };
    let chunk = |bytes| Message::Chunk { snapshot: Hash::default(), chunk: 0, bytes: Some(vec![0; bytes].into()) };
    let nack = |until| Message::Nack(Range { session: session(1), from: Index(3), until: Index(until) });
    let says = |message: &Message<Kv>, bytes| limits::sent(&config, message, bytes);
    says(&entries(4, 1000), 4100).expect("a batch");
    says(&chunk(1000), 1100).expect("a chunk");
    says(&nack(4), 20).expect("one entry");
    breaks("limits", says(&entries(4, 1000), 2 << 20));
    breaks("limits", says(&entries(20_000, 1), 40_000));
    breaks("limits", says(&entries(600, 1000), 610_000));
    breaks("limits", says(&entries(1, 40_000), 41_000));
    breaks("limits", says(&chunk(600 << 10), 600 << 10));
    breaks("limits", says(&nack(3), 20));
    let view = node(Replica::default()).view(Moment(1));
    limits::seen(&config, &view).expect("nothing waits");
    breaks("limits", limits::seen(&config, &lockstep_replication::View { outbox: 20_000, ..view }));
}

#[test]
fn a_panic_breaks_l14() {
    assert_eq!(no_panic::guarded(|| 3), Ok(3));
    breaks("no_panic", no_panic::guarded(|| assert_eq!(Some(1), None, "forged")));
}

/// A node that starts from this state.
fn node(replica: Replica<Kv>) -> AnyNode {
    let restored = Restored::new(Boot::default(), Kept::default(), replica);
    AnyNode::New(Box::new(Node::new(node_id(1), Config::default(), Seed::from_number(1), restored, now(1))))
}

/// The state after these entries.
fn state(records: &[Bytes]) -> Replica<Kv> {
    let mut replica = Replica::default();
    for (bytes, index) in records.iter().zip(0..) {
        let record = lockstep_replication::entry::Record { index: Index(index), bytes: bytes.clone() };
        replica.take(&record).expect("each is next");
    }
    replica
}

#[test]
fn two_states_after_one_log_or_one_that_nobody_built_break_l6() {
    let (log, records) = written();
    let (whole, part) = (node(state(&records)), node(state(&records[..2])));
    let mut states = States::default();
    states.looks(log.at, &whole).expect("the first");
    states.looks(log.at, &whole).expect("the same");
    breaks("one_content", states.looks(log.at, &part));
    stands(log.at, &whole).expect("it stands there");
    breaks("one_content", stands(log.at, &part));
    assert_eq!(replaced(&log.ledger, &whole, Index(3)), Ok(log.at));
    breaks("one_content", replaced(&Forged::founded().ledger, &whole, Index(3)));
}

#[test]
fn states_are_hashed_when_entries_have_paid_for_it() {
    let (log, records) = written();
    let (whole, part) = (node(state(&records)), node(state(&records[..2])));
    let mut ledger = log.ledger.clone();
    let mut states = States::default();
    states.changed(&mut ledger, log.at, &whole, 1).expect("nothing is hashed yet");
    states.changed(&mut ledger, log.at, &whole, 10_000).expect("it is hashed now, by the second who comes");
    let mut forged = log.ledger.clone();
    breaks("one_content", states.changed(&mut forged, log.at, &part, 1));
}

#[test]
fn words_that_the_disk_does_not_bear_out_are_rejected() {
    let (log, records) = written();
    let mut disk = Disk::default();
    let says = |disk: &Disk, stored: Place, message: &Message<Kv>| {
        Speaker { node: node_id(1), disk, stored, applied: log.at }.may_say(&log.ledger, message)
    };
    let stored = |next| Message::Stored { session: session(1), boot: Boot::default(), disk: 1, next: Index(next) };
    breaks("spoken", says(&disk, Place::EMPTY, &stored(0)));
    disk.kept = Kept { confirmed: Some(session(1)), ..Kept::default() };
    says(&disk, Place::EMPTY, &stored(0)).expect("it is kept");
    breaks("spoken", says(&disk, Place::EMPTY, &stored(1)));
    let mark = |held, of| DoneMark { session: session(1), index: Index(0), held, of };
    let lead = |session, done| {
        let (next, hash, wall, all, heard) = (Index(3), Hash::default(), Wall(0), Index(0), Vec::new());
        Message::Lead(Box::new(Lead { session, next, hash, wall, all, heard, done }))
    };
    breaks("spoken", says(&disk, Place::EMPTY, &lead(session(1), None)));
    disk.ask(WorkId(1), append(0, &records));
    breaks("spoken", says(&disk, Place::EMPTY, &stored(1)));
    assert!(disk.do_next(Boot::default(), NEWEST_SCHEMA, None).is_ok());
    says(&disk, log.at, &stored(3)).expect("it is written");
    says(&disk, log.at, &lead(session(1), Some(mark(2, 2)))).expect("its opening is written");
    breaks("spoken", says(&disk, log.at, &lead(session(1), Some(mark(3, 2)))));
    breaks("spoken", says(&disk, log.at, &lead(session(2), None)));
    breaks("spoken", says(&disk, log.at, &Message::Done(mark(0, 2))));
    let beat = |applied| {
        let (boot, busy) = (Boot::default(), Span::ZERO);
        Message::Beat(Beat { boot, schema: 1, applied: Index(applied), busy, damaged: false, telemetry: 0 })
    };
    says(&disk, log.at, &beat(3)).expect("so far it came");
    breaks("spoken", says(&disk, log.at, &beat(4)));
    let fresh = |leader: NodeId| {
        let session = lockstep_replication::Session { leader, ..session(1) };
        Message::Entries(Entries { session, first: Index(0), records: Vec::new(), kind: EntriesKind::Fresh })
    };
    says(&disk, log.at, &fresh(node_id(1))).expect("it leads");
    breaks("spoken", says(&disk, log.at, &fresh(stranger())));
}

#[test]
fn nodes_that_do_not_agree_say_why() {
    use lockstep_replication::{Role, View};
    let seeking = node(Replica::default()).view(Moment(1));
    let (role, confirmed) = (Role::Following(session(1)), Some(session(1)));
    let follower = View { role, confirmed, ready: true, ..seeking.clone() };
    let agree = |views: Vec<Option<View>>| agreement::disagreement(&(1..).zip(views).collect::<Vec<_>>());
    assert_eq!(agree(vec![Some(follower.clone()), Some(follower.clone())]), None);
    let says = |view: Option<View>, word: &str| {
        let why = agree(vec![Some(follower.clone()), view]).expect("they do not agree");
        assert!(why.starts_with("node 2 ") && why.contains(word), "{why}");
    };
    says(None, "down");
    says(Some(seeking.clone()), "seeks");
    says(Some(View { confirmed: None, ..follower.clone() }), "did not confirm");
    says(Some(View { ready: false, not_ready: Some("catching up".into()), ..follower.clone() }), "catching up");
    let later = Role::Following(session(2));
    says(Some(View { role: later, confirmed: Some(session(2)), ..follower.clone() }), "is in session 2");
    says(Some(View { next: Index(4), synced: Index(4), ..follower.clone() }), "stands before 4");
    says(Some(View { outbox: 2, ..follower.clone() }), "2 proposals");
    assert!(agreement::reasons(&[(1, Some(seeking)), (2, None)]).contains("node 2: down"));
}
