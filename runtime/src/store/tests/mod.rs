//! The store seen from outside: what was stored is there again, whatever happens to the files meanwhile.

mod corruption;
mod life;
mod setting_aside;

use std::path::Path;

use lockstep_replication::app::{App, Observed, Place, Wish};
use lockstep_replication::entry::{Body, Decided, Entry, Founding, Opened, Record};
use lockstep_replication::id::{NodeId, Session};
use lockstep_replication::io::{Kept, Work, WorkFailed, Worked};
use lockstep_replication::snapshot::Snapshot;
use lockstep_replication::{Boot, Hash, Index, Replica, Restored, Wall, WorkId};

use super::{Store, StoreError};

/// An application that remembers its last few events and how many there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diary;

impl App for Diary {
    type State = (u64, Vec<String>);
    type Event = String;
    type Command = ();
    type Observation = ();
    type Transient = ();
    type Telemetry = ();
    type Refusal = String;
    const SCHEMA: u32 = 1;

    fn decide(_: &Self::State, _: &Observed<Self>, _: Wish<Self>) -> Result<Vec<String>, String> {
        Err("the diary is only written by tests".to_owned())
    }

    fn apply(state: &mut Self::State, event: &String, _: Place) {
        state.0 += 1;
        state.1.push(event.clone());
        if state.1.len() > 5 {
            state.1.remove(0);
        }
    }

    fn key(&(): &()) -> u64 {
        0
    }
}

/// A log as a leader would write it, with its state after each entry.
#[derive(Clone)]
pub(super) struct Log {
    records: Vec<Record>,
    states: Vec<Replica<Diary>>,
}

impl Log {
    /// So many entries: an opening, its mark, then decisions.
    fn new(entries: u64) -> Log {
        let mut log = Log { records: Vec::new(), states: vec![Replica::default()] };
        log.open_session(1);
        log.push(Body::Backed);
        (2..entries).for_each(|n| log.decide(n));
        log
    }

    fn push(&mut self, body: Body<Diary>) {
        let entry = Entry { index: self.next(), stamp: Wall(1_000 + self.next().0), body };
        let record = entry.seal(Diary::SCHEMA);
        let mut state = self.states[self.states.len() - 1].clone();
        state.take(&record).unwrap();
        self.records.push(record);
        self.states.push(state);
    }

    fn open_session(&mut self, clock: u64) {
        let known = vec![(NodeId::example(1), None)];
        let founding = (self.next() == Index(0)).then_some(Founding { id: 7, widest: 0, known });
        self.push(Body::Opened(Opened { session: session(clock), founding }));
    }

    fn decide(&mut self, n: u64) {
        let events = vec![format!("event {n} {}", "x".repeat(150))];
        self.push(Body::Decided(Decided { proposal: None, command: None, events }));
    }

    fn next(&self) -> Index {
        Index(self.records.len() as u64)
    }

    /// The work that appends this part of it.
    fn append(&self, from: u64, until: u64) -> Work<Diary> {
        let records = self.records[from as usize..until as usize].iter().map(|record| record.bytes.clone()).collect();
        Work::Append { first: Index(from), records }
    }

    fn snapshot(&self, next: u64) -> Snapshot {
        Snapshot::encode(&self.states[next as usize], 1 << 16).unwrap()
    }

    /// Asserts that this is the state after some entries of this log, and says after how many.
    fn assert_prefix(&self, replica: &Replica<Diary>) -> u64 {
        let next = replica.next().0;
        assert_eq!(replica, &self.states[next as usize], "the state before entry {next} is a wrong one");
        next
    }

    fn hash(&self, next: u64) -> Hash {
        self.states[next as usize].hash()
    }
}

fn session(clock: u64) -> Session {
    Session { clock, leader: NodeId::example(1), boot: Boot { starts: 1, nonce: 1 } }
}

fn open(dir: &Path) -> (Store, Restored<Diary>) {
    Store::open::<Diary>(dir, 11).unwrap()
}

/// Opens the store and closes it again.
fn reopen(dir: &Path) -> Restored<Diary> {
    open(dir).1
}

fn perform(store: &mut Store, works: Vec<Work<Diary>>) -> Vec<Result<Worked<Diary>, WorkFailed>> {
    let batch = works.into_iter().zip(1..).map(|(work, id)| (WorkId(id), work)).collect();
    let results = store.perform(batch);
    assert!(results.iter().map(|(id, _)| id.0).eq(1..=results.len() as u64), "one answer each, in order");
    results.into_iter().map(|(_, result)| result).collect()
}

/// Performs works that must all succeed.
fn done(store: &mut Store, works: Vec<Work<Diary>>) {
    for result in perform(store, works) {
        result.unwrap();
    }
}

fn rewind(store: &mut Store, to: u64) -> (Restored<Diary>, Option<String>) {
    let mut results = perform(store, vec![Work::Rewind { to: Index(to), winner: session(9) }]);
    let worked = results.remove(0).unwrap();
    let Worked::Rewound(restored, name) = worked else { panic!("a rewind does not end as {worked:?}") };
    (*restored, name)
}

fn kept(clock: u64) -> Kept {
    Kept { disk: 7, clock, confirmed: Some(session(clock)), led: 2, fresh: false, damaged: false, lacks: None }
}

/// The files of a directory, in a new one.
fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

#[test]
fn stored_forms_are_pinned() {
    let ledger = super::database::Ledger {
        commits: 3,
        starts: 2,
        kept: kept(5),
        first: Index(1),
        next: Index(9),
        snapshots: vec![super::database::StoredSnapshot { next: Index(4), hash: Hash([1; 32]) }],
        asides: 6,
    };
    let sum = Hash::of(&postcard::to_stdvec(&ledger).unwrap());
    assert_eq!(format!("{sum:?}"), "631ce328", "the ledger's form has changed: it needs a new version");
}
