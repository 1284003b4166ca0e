//! The store when nothing goes wrong with the files: work, starts, reading, trimming, snapshots, backups.

use std::fs;

use super::super::{backup, snapshots};
use super::*;

#[test]
fn what_was_appended_is_there_at_the_next_start() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(100));
    let (mut store, restored) = open(dir.path());
    assert_eq!((restored.boot, restored.kept), (Boot { starts: 1, nonce: 11 }, Kept::default()));
    assert_eq!(restored.replica, Replica::default());
    done(&mut store, vec![log.append(0, 40), log.append(40, 100)]);
    drop(store);
    let (store, restored) = open(dir.path());
    assert_eq!(restored.boot, Boot { starts: 2, nonce: 11 });
    assert_eq!((log.assert_prefix(&restored.replica), restored.log_first), (100, Index(0)));
    assert!(store.damage().is_none() && !restored.kept.damaged);
}

#[test]
fn a_batch_is_one_commit() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(50));
    let (mut store, _) = open(dir.path());
    let before = store.shared.ledger().commits;
    done(
        &mut store,
        vec![
            Work::Keep(Box::new(kept(3))),
            log.append(0, 20),
            log.append(20, 50),
            Work::Save(Box::new(log.snapshot(50))),
        ],
    );
    assert_eq!(store.shared.ledger().commits, before + 1);
    drop(store);
    assert_eq!(reopen(dir.path()).kept, kept(3));
}

#[test]
fn an_append_that_is_not_at_the_end_fails_with_all_that_share_its_commit() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(50));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 10)]);
    let results = perform(&mut store, vec![log.append(10, 20), log.append(21, 30), Work::Keep(Box::new(kept(3)))]);
    let failed =
        |result: &Result<Worked<Diary>, WorkFailed>| matches!(result, Err(failed) if failed.0.contains("entry 21"));
    assert!(results.iter().all(failed), "{results:?}");
    assert_eq!(store.reader().next(), Index(10));
    drop(store);
    let restored = reopen(dir.path());
    assert_eq!((log.assert_prefix(&restored.replica), restored.kept), (10, Kept::default()));
}

#[test]
fn what_the_log_does_not_need_fails_alone() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(50));
    let (mut store, _) = open(dir.path());
    let trim = Work::Trim { log_below: Index(5), snapshots_but: vec![] };
    let results =
        perform(&mut store, vec![log.append(0, 10), trim, Work::Save(Box::new(log.snapshot(20))), log.append(10, 20)]);
    let went: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(went, [true, false, false, true], "{results:?}");
    assert_eq!((store.reader().first(), store.reader().next()), (Index(0), Index(20)));
}

#[test]
fn reading_stops_at_the_asked_end_the_log_s_end_and_the_size() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(50));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 50), Work::Save(Box::new(log.snapshot(40)))]);
    done(&mut store, vec![Work::Trim { log_below: Index(10), snapshots_but: vec![Index(40)] }]);
    let reader = store.reader();
    let read = |from, until, bytes| reader.read(Index(from), Index(until), bytes).unwrap();
    assert_eq!(read(10, 30, usize::MAX), log.records[10..30]);
    assert_eq!(read(45, 99, usize::MAX), log.records[45..]);
    assert_eq!(read(20, 30, 0), log.records[20..21], "at least one");
    let two = log.records[20].bytes.len() + log.records[21].bytes.len();
    assert_eq!(read(20, 30, two), log.records[20..22]);
    assert_eq!((read(9, 30, usize::MAX), read(50, 60, usize::MAX), read(30, 30, 9)), (vec![], vec![], vec![]));
}

#[test]
fn readers_see_whole_commits_while_the_store_writes() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(2000));
    let (mut store, _) = open(dir.path());
    let reader = store.reader();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while reader.next() < Index(2000) {
                let records = reader.read(Index(0), Index(2000), usize::MAX).unwrap();
                assert_eq!(records.len() % 100, 0, "half a commit is seen");
                assert_eq!(records, log.records[..records.len()]);
            }
        });
        (0..20).for_each(|n| {
            done(&mut store, vec![log.append(n * 100, n * 100 + 50), log.append(n * 100 + 50, n * 100 + 100)])
        });
    });
}

#[test]
fn a_start_takes_the_newest_snapshot_and_the_log_after_it() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(100));
    let (mut store, _) = open(dir.path());
    done(
        &mut store,
        vec![log.append(0, 60), Work::Save(Box::new(log.snapshot(30))), Work::Save(Box::new(log.snapshot(60)))],
    );
    let both = vec![Index(30), Index(60)];
    done(&mut store, vec![log.append(60, 100), Work::Trim { log_below: Index(40), snapshots_but: both.clone() }]);
    assert_eq!(store.reader().snapshots(), both);
    assert_eq!(store.reader().snapshot(Index(60)).unwrap(), Some(log.snapshot(60)));
    assert_eq!(store.reader().snapshot(Index(61)).unwrap(), None);
    drop(store);
    let (mut store, restored) = open(dir.path());
    assert_eq!((log.assert_prefix(&restored.replica), restored.log_first, restored.snapshots), (100, Index(40), both));
    done(&mut store, vec![Work::Trim { log_below: Index(60), snapshots_but: vec![Index(60)] }]);
    assert_eq!(snapshots::found(dir.path()).unwrap().len(), 1, "the file of the other one is gone");
}

#[test]
fn a_trim_that_would_leave_a_hole_is_refused() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(100));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 100), Work::Save(Box::new(log.snapshot(50)))]);
    for (below, but) in [(51, vec![Index(50)]), (1, vec![]), (101, vec![Index(50)])] {
        let results = perform(&mut store, vec![Work::Trim { log_below: Index(below), snapshots_but: but }]);
        assert!(results[0].is_err(), "trimmed below {below}");
    }
    done(&mut store, vec![Work::Trim { log_below: Index(50), snapshots_but: vec![Index(50)] }]);
    drop(store);
    assert_eq!(log.assert_prefix(&reopen(dir.path()).replica), 100);
}

#[test]
fn an_installed_snapshot_replaces_the_log() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(100));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 10)]);
    done(&mut store, vec![Work::Install(Box::new(log.snapshot(70))), log.append(70, 80)]);
    assert_eq!((store.reader().first(), store.reader().next()), (Index(70), Index(80)));
    drop(store);
    let restored = reopen(dir.path());
    assert_eq!((log.assert_prefix(&restored.replica), restored.log_first), (80, Index(70)));
    assert_eq!((restored.snapshots, restored.kept.damaged), (vec![Index(70)], false));
}

#[test]
fn a_snapshot_file_whose_commit_never_came_is_forgotten() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(100));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 10)]);
    snapshots::write(dir.path(), &log.snapshot(70)).unwrap();
    drop(store);
    let restored = reopen(dir.path());
    assert_eq!((log.assert_prefix(&restored.replica), restored.kept.damaged), (10, false));
    assert_eq!(snapshots::found(dir.path()).unwrap(), vec![]);
}

#[test]
fn the_file_does_not_grow_with_age() {
    let (dir, mut log) = (tempfile::tempdir().unwrap(), Log::new(2));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 2)]);
    let mut sizes = Vec::new();
    for round in 0..40 {
        let from = log.next().0;
        (0..500).for_each(|n| log.decide(n));
        let next = log.next();
        done(&mut store, vec![log.append(from, next.0), Work::Save(Box::new(log.snapshot(next.0)))]);
        done(&mut store, vec![Work::Trim { log_below: Index(from), snapshots_but: vec![next] }]);
        if round % 10 == 9 {
            sizes.push(fs::metadata(dir.path().join("store.redb")).unwrap().len());
        }
    }
    assert!(sizes[3] <= sizes[1], "the file grows: {sizes:?}");
    drop(store);
    assert_eq!(reopen(dir.path()).replica.next(), log.next());
}

#[test]
fn a_directory_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let error = Store::open::<Diary>(dir.path(), 12).unwrap_err();
    assert!(matches!(&error, StoreError::Locked { holder: Some(pid), .. } if *pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()));
    drop(store);
    assert_eq!(reopen(dir.path()).boot.starts, 2, "a refused start is none");
}

#[test]
fn entries_of_a_newer_schema_are_an_error_and_stay() {
    let (dir, mut log) = (tempfile::tempdir().unwrap(), Log::new(20));
    let (mut store, _) = open(dir.path());
    let entry = log.records[19].open::<Diary>().unwrap();
    log.records[19] = entry.seal(99);
    done(&mut store, vec![log.append(0, 20)]);
    drop(store);
    for _ in 0..2 {
        let error = Store::open::<Diary>(dir.path(), 1).unwrap_err();
        assert!(matches!(&error, StoreError::Incompatible { reason, .. } if reason.contains("version 99")), "{error}");
    }
}

#[test]
fn a_backup_restores_the_state_in_another_directory() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(100));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![Work::Keep(Box::new(kept(4))), log.append(0, 100), Work::Save(Box::new(log.snapshot(60)))]);
    done(&mut store, vec![Work::Trim { log_below: Index(50), snapshots_but: vec![Index(60)] }]);
    let file = dir.path().join("backup");
    let sum = backup::backup(&store.reader(), fs::File::create(&file).unwrap()).unwrap();
    assert_eq!(sum, backup::Backup { snapshot: Index(60), next: Index(100), hash: log.hash(100) });

    let new = tempfile::tempdir().unwrap();
    assert_eq!(backup::restore::<Diary>(&file, new.path()).unwrap(), sum);
    let restored = reopen(new.path());
    assert_eq!((log.assert_prefix(&restored.replica), restored.log_first), (100, Index(60)));
    assert_eq!(restored.kept, Kept { clock: 1, ..Kept::default() }, "it confirmed nothing, and goes on above its log");
    let error = backup::restore::<Diary>(&file, new.path()).unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
}

#[test]
fn a_backup_without_a_snapshot_restores_too() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(30));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 30)]);
    let file = dir.path().join("backup");
    backup::backup(&store.reader(), fs::File::create(&file).unwrap()).unwrap();
    let new = tempfile::tempdir().unwrap();
    assert_eq!(backup::restore::<Diary>(&file, &new.path().join("data")).unwrap().next, Index(30));
    assert_eq!(log.assert_prefix(&reopen(&new.path().join("data")).replica), 30);
}

#[test]
fn a_damaged_backup_restores_nothing() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(20));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 20), Work::Save(Box::new(log.snapshot(10)))]);
    let mut bytes = Vec::new();
    backup::backup(&store.reader(), &mut bytes).unwrap();
    let file = dir.path().join("backup");
    let new = tempfile::tempdir().unwrap();
    for at in (0..bytes.len()).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        for damaged in [&flipped[..], &bytes[..at]] {
            fs::write(&file, damaged).unwrap();
            assert!(backup::restore::<Diary>(&file, new.path()).is_err(), "byte {at}");
        }
    }
    assert_eq!(fs::read_dir(new.path()).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_an_error_that_says_so() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(100));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 100)]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = backup::backup(&store.reader(), full).unwrap_err().to_string();
    assert!(error.contains("the backup") && error.contains("space"), "{error}");
}
