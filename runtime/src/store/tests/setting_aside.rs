//! Rewinding: what a losing branch held is set aside whole, and the store goes on from the fork.

use std::fs;

use super::super::aside;
use super::*;

/// A log that forks at `fork` from `Log::new`, with so many decisions of its own.
fn branch(fork: u64, own: u64) -> Log {
    let mut log = Log::new(fork);
    log.open_session(2);
    (0..own).for_each(|n| log.decide(1000 + n));
    log
}

#[test]
fn a_losing_branch_is_set_aside_whole() {
    let (dir, log) = (tempfile::tempdir().unwrap(), branch(50, 9));
    let (mut store, _) = open(dir.path());
    done(
        &mut store,
        vec![log.append(0, 60), Work::Save(Box::new(log.snapshot(40))), Work::Save(Box::new(log.snapshot(55)))],
    );
    let (restored, name) = rewind(&mut store, 50);
    assert_eq!((log.assert_prefix(&restored.replica), restored.boot.starts), (50, 1));
    assert_eq!((restored.snapshots, restored.kept.damaged), (vec![Index(40)], false));
    let name = name.unwrap();
    assert_eq!(name, "1-50.aside");

    let listed = aside::list(dir.path()).unwrap();
    assert_eq!(listed.len(), 1);
    let about = &listed[0];
    assert_eq!((&about.name, about.fork, about.entries, about.winner), (&name, Index(50), 10, Some(session(9))));
    assert!(about.when > Wall(1_600_000_000_000) && about.bytes > 1000);
    let entries = aside::read(dir.path(), &name).unwrap().entries::<Diary>();
    let entries: Vec<_> = entries.map(Result::unwrap).collect();
    let wanted: Vec<_> = log.records[50..].iter().map(|record| record.open::<Diary>().unwrap()).collect();
    assert_eq!(entries, wanted);

    // The other branch follows in its place.
    let other = Log::new(80);
    done(&mut store, vec![other.append(50, 80)]);
    drop(store);
    assert_eq!(other.assert_prefix(&reopen(dir.path()).replica), 80);
}

#[test]
fn openings_and_marks_alone_are_not_worth_a_file() {
    let (dir, log) = (tempfile::tempdir().unwrap(), branch(50, 0));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 51)]);
    let (restored, name) = rewind(&mut store, 50);
    assert_eq!((log.assert_prefix(&restored.replica), name), (50, None));
    assert_eq!((rewind(&mut store, 50).1, rewind(&mut store, 99).1), (None, None), "there is nothing to cut");
    assert_eq!(store.reader().next(), Index(50));
    assert_eq!(aside::list(dir.path()).unwrap(), vec![]);
}

#[test]
fn a_whole_founding_can_yield() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(50));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![Work::Install(Box::new(log.snapshot(20))), log.append(20, 50)]);
    let (restored, name) = rewind(&mut store, 0);
    assert_eq!((restored.replica, restored.log_first), (Replica::default(), Index(0)));
    assert!(!restored.kept.damaged);
    assert_eq!(aside::list(dir.path()).unwrap()[0].entries, 30);
    assert!(name.is_some());
    let other = Log::new(10);
    done(&mut store, vec![other.append(0, 10)]);
    drop(store);
    assert_eq!(other.assert_prefix(&reopen(dir.path()).replica), 10);
}

#[test]
fn a_rewind_below_what_can_be_restored_marks_the_node_as_damaged() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(50));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 10), Work::Save(Box::new(log.snapshot(10)))]);
    done(&mut store, vec![Work::Install(Box::new(log.snapshot(20))), log.append(20, 50)]);
    let (restored, _) = rewind(&mut store, 15);
    assert_eq!((log.assert_prefix(&restored.replica), restored.kept.damaged), (10, true), "entries 10 to 15 are lost");
    done(&mut store, vec![log.append(10, 30)]);
    drop(store);
    let restored = reopen(dir.path());
    assert_eq!((log.assert_prefix(&restored.replica), restored.kept.damaged), (30, true));
}

#[test]
fn work_before_a_rewind_is_done_before_it_and_work_after_it_after() {
    let (dir, log) = (tempfile::tempdir().unwrap(), branch(50, 9));
    let other = Log::new(80);
    let (mut store, _) = open(dir.path());
    let rewind = Work::Rewind { to: Index(50), winner: session(9) };
    done(&mut store, vec![log.append(0, 60), Work::Keep(Box::new(kept(8))), rewind, other.append(50, 80)]);
    drop(store);
    let restored = reopen(dir.path());
    assert_eq!((other.assert_prefix(&restored.replica), restored.kept), (80, kept(8)));
}

#[test]
fn a_branch_that_cannot_be_set_aside_is_not_cut() {
    let (dir, log) = (tempfile::tempdir().unwrap(), branch(50, 9));
    let (mut store, _) = open(dir.path());
    fs::write(dir.path().join("aside"), "in the way").unwrap();
    let rewind = Work::Rewind { to: Index(50), winner: session(9) };
    let results = perform(&mut store, vec![log.append(0, 60), rewind, Work::Keep(Box::new(kept(8)))]);
    assert!(results[0].is_ok());
    assert!(matches!(&results[1], Err(failed) if failed.0.contains("/aside: ")), "{results:?}");
    assert!(results[2].is_err());
    assert_eq!(store.reader().next(), Index(60));
    drop(store);
    fs::remove_file(dir.path().join("aside")).unwrap();
    assert_eq!(log.assert_prefix(&reopen(dir.path()).replica), 60);
}

#[test]
fn the_newest_eight_files_are_kept_and_numbers_never_come_again() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(50));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 10)]);
    for _ in 0..10 {
        done(&mut store, vec![log.append(10, 20)]);
        rewind(&mut store, 10);
    }
    let names = || -> Vec<String> { aside::list(dir.path()).unwrap().into_iter().map(|about| about.name).collect() };
    assert_eq!(names().len(), 8);
    assert_eq!((names()[0].as_str(), names()[7].as_str()), ("3-10.aside", "10-10.aside"));
    names().iter().for_each(|name| aside::remove(dir.path(), name).unwrap());
    drop(store);
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(10, 20)]);
    assert_eq!(rewind(&mut store, 10).1.as_deref(), Some("11-10.aside"));
}

#[test]
fn a_name_does_not_lead_out_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["../store.redb", "1-2.aside/../../store.redb", "/etc/passwd", "", "1-2.aside ", "1-../2.aside"] {
        assert!(matches!(aside::remove(dir.path(), name), Err(StoreError::Refused(_))), "{name:?}");
        assert!(matches!(aside::read(dir.path(), name), Err(StoreError::Refused(_))), "{name:?}");
    }
}
