//! Files that changed behind the store's back. Each outcome is a clear error, an intact state, or a beginning of the log
//! with the node marked as damaged; never a wrong state, never a panic.

use std::fs;
use std::path::PathBuf;

use super::super::{aside, snapshots};
use super::*;

const ENTRIES: u64 = 400;

/// A store with a log that begins at 0 and a snapshot, closed properly.
fn closed_store() -> (tempfile::TempDir, Log) {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(ENTRIES));
    let (mut store, _) = open(dir.path());
    for from in (0..ENTRIES).step_by(50) {
        done(&mut store, vec![log.append(from, from + 50), Work::Keep(Box::new(kept(5)))]);
    }
    done(&mut store, vec![Work::Save(Box::new(log.snapshot(100)))]);
    (dir, log)
}

/// What became of a store: how far it came, and whether it says that it is damaged.
fn outcome(dir: &Path, log: &Log) -> Result<(u64, bool), String> {
    match Store::open::<Diary>(dir, 3) {
        Err(error) => Err(error.to_string()),
        Ok((mut store, restored)) => {
            let next = log.assert_prefix(&restored.replica);
            let damaged = restored.kept.damaged;
            assert_eq!(store.damage().is_some(), damaged, "damage is told and marked");
            assert!(damaged || next == ENTRIES, "{next} entries are left and nothing is said");
            assert!(damaged || restored.kept == kept(5), "what was kept has changed");
            assert!(restored.boot.starts >= 2, "a start is repeated");
            // It can be written again, and what was written is there again.
            if next + 10 <= ENTRIES {
                done(&mut store, vec![log.append(next, next + 10)]);
                drop(store);
                let restored = reopen(dir);
                assert_eq!((log.assert_prefix(&restored.replica), restored.kept.damaged), (next + 10, true));
            }
            Ok((next, damaged))
        }
    }
}

/// How many stores were intact, recovered, and refused with an error.
#[derive(Debug, Default)]
struct Outcomes {
    intact: usize,
    recovered: usize,
    refused: usize,
}

impl Outcomes {
    fn flip_and_blank(&mut self, dir: &Path, log: &Log, name: &str, at: usize) {
        self.add(dir, log, name, |bytes| bytes[at] ^= 1 << (at % 8));
        self.add(dir, log, name, |bytes| {
            let end = bytes.len().min(at + 512);
            bytes[at..end].fill(0);
        });
    }

    /// Does the damage to a copy of the file and sees what becomes of it.
    fn add(&mut self, dir: &Path, log: &Log, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let copy = copy_of(dir);
        let path = copy.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        match outcome(copy.path(), log) {
            Ok((_, false)) => self.intact += 1,
            Ok((_, true)) => self.recovered += 1,
            Err(_) => self.refused += 1,
        }
    }
}

/// Flips a bit and blanks a stretch at every `step`th byte, and cuts the file at some of them.
fn flips_and_cuts(dir: &Path, log: &Log, name: &str, step: usize) -> Outcomes {
    let size = fs::metadata(dir.join(name)).unwrap().len() as usize;
    let mut outcomes = Outcomes::default();
    for at in (0..size).step_by(step) {
        outcomes.flip_and_blank(dir, log, name, at);
        if at % (step * 8) == 0 {
            outcomes.add(dir, log, name, |bytes| bytes.truncate(at));
        }
    }
    outcomes
}

/// The database's header is short and all of it counts, so every second byte of it is tried.
fn header_flips(dir: &Path, log: &Log) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for at in (0..320).step_by(2) {
        outcomes.add(dir, log, "store.redb", |bytes| bytes[at] ^= 1 << (at / 2 % 8));
    }
    outcomes
}

/// A damaged database is always recovered from, and the damage was not all in places without meaning.
fn assert_recovered(outcomes: [Outcomes; 2]) {
    for Outcomes { recovered, refused, .. } in &outcomes {
        assert!(*refused == 0 && *recovered > 20, "{outcomes:?}");
    }
}

#[test]
fn a_flipped_torn_or_cut_database_never_gives_a_wrong_state() {
    let (dir, log) = closed_store();
    assert_recovered([header_flips(dir.path(), &log), flips_and_cuts(dir.path(), &log, "store.redb", 2039)]);
}

#[test]
fn a_database_that_cannot_even_be_closed_is_recovered_from() {
    let (dir, log) = closed_store();
    // Where redb keeps its list of free pages. Damage here once made it panic as it closed the file.
    let mut outcomes = Outcomes::default();
    (32_768..33_280).step_by(25).for_each(|at| outcomes.flip_and_blank(dir.path(), &log, "store.redb", at));
    assert_eq!(outcomes.refused, 0, "{outcomes:?}");
}

#[test]
fn a_database_that_was_damaged_in_a_crash_never_gives_a_wrong_state() {
    let (dir, log) = closed_store();
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![Work::Keep(Box::new(kept(5)))]);
    // As a process leaves it that was killed: redb has to repair it first.
    let crashed = copy_of(dir.path());
    drop(store);
    assert_eq!(outcome(copy_of(crashed.path()).path(), &log), Ok((ENTRIES, false)));
    assert_recovered([header_flips(crashed.path(), &log), flips_and_cuts(crashed.path(), &log, "store.redb", 4093)]);
}

#[test]
fn a_flipped_torn_or_cut_snapshot_is_passed_over() {
    let (dir, log) = closed_store();
    let name = snapshots::found(dir.path()).unwrap()[0].path(Path::new(""));
    let outcomes = flips_and_cuts(dir.path(), &log, name.to_str().unwrap(), 61);
    assert_eq!((outcomes.recovered, outcomes.refused), (0, 0), "the log reaches back to 0");
}

#[test]
fn a_damaged_witness_or_lock_is_no_matter() {
    let (dir, log) = closed_store();
    for name in ["witness", "lock"] {
        let outcomes = flips_and_cuts(dir.path(), &log, name, 1);
        assert_eq!((outcomes.recovered, outcomes.refused), (0, 0), "{name}");
    }
}

#[test]
fn a_flipped_record_costs_the_log_from_there_on_and_the_rest_is_set_aside() {
    let (dir, log) = closed_store();
    let path = dir.path().join("store.redb");
    let mut bytes = fs::read(&path).unwrap();
    let wanted = &log.records[300].bytes;
    let found: Vec<usize> =
        bytes.windows(wanted.len()).enumerate().filter(|(_, at)| at == wanted).map(|(at, _)| at).collect();
    assert!(!found.is_empty());
    // Older copies of a page may lie about.
    found.iter().for_each(|at| bytes[at + 20] ^= 1);
    fs::write(&path, bytes).unwrap();
    let (store, restored) = open(dir.path());
    assert_eq!((log.assert_prefix(&restored.replica), restored.kept.damaged), (300, true));
    assert_eq!(restored.kept, Kept { damaged: true, ..kept(5) }, "what was kept is not lost");
    let damage = store.damage().unwrap();
    assert!(damage.moved_to.as_ref().unwrap().exists(), "the damaged file is kept as it was");
    let rest = aside::read(dir.path(), damage.set_aside.as_ref().unwrap()).unwrap();
    assert_eq!((rest.about().fork, rest.about().winner, rest.about().entries), (Index(300), None, 99));
    assert!(rest.records().map(Result::unwrap).eq(log.records[301..].iter().cloned()));
}

#[test]
fn a_lost_newest_commit_is_noticed() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(ENTRIES));
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(0, 100)]);
    drop(store);
    let path = dir.path().join("store.redb");
    let older = fs::read(&path).unwrap();
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![log.append(100, 101)]);
    drop(store);
    fs::write(&path, older).unwrap();
    let (store, restored) = open(dir.path());
    assert_eq!((log.assert_prefix(&restored.replica), restored.kept.damaged), (100, true));
    assert_eq!(restored.boot.starts, 3, "the witness counts starts too");
    assert!(store.damage().unwrap().reasons[0].contains("was synced"));
    drop(store);
    let (store, restored) = open(dir.path());
    assert!(store.damage().is_none() && restored.kept.damaged, "damaged until the node is whole again");
}

#[test]
fn a_lost_database_leaves_the_snapshots_and_a_damaged_node() {
    for damage in [
        |path: PathBuf| fs::remove_file(path),
        |path: PathBuf| fs::write(path, ""),
        |path: PathBuf| fs::write(path, "all is lost"),
    ] {
        let (dir, log) = closed_store();
        damage(dir.path().join("store.redb")).unwrap();
        let (store, restored) = open(dir.path());
        assert_eq!((log.assert_prefix(&restored.replica), restored.kept.damaged), (100, true));
        assert_eq!((restored.boot.starts, restored.kept.clock), (2, 1), "at least the clock that its log has seen");
        assert!(store.damage().is_some());
    }
}

#[test]
fn a_recovery_that_was_interrupted_is_finished() {
    let (dir, log) = closed_store();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("store.redb.new"), "half of a database").unwrap();
    assert_eq!(outcome(dir.path(), &log), Ok((ENTRIES, false)));
    assert!(!path("store.redb.new").exists());
    fs::rename(path("store.redb"), path("store.redb.new")).unwrap();
    assert_eq!(outcome(dir.path(), &log), Ok((ENTRIES, false)));
}

#[test]
fn an_unreadable_snapshot_with_a_log_that_does_not_reach_back_leaves_an_older_state() {
    let (dir, log) = closed_store();
    let (mut store, _) = open(dir.path());
    done(&mut store, vec![Work::Save(Box::new(log.snapshot(300)))]);
    done(&mut store, vec![Work::Trim { log_below: Index(250), snapshots_but: vec![Index(100), Index(300)] }]);
    drop(store);
    let newest = snapshots::found(dir.path()).unwrap()[1].path(dir.path());
    fs::write(&newest, "gone").unwrap();
    let (store, restored) = open(dir.path());
    assert_eq!((log.assert_prefix(&restored.replica), restored.kept.damaged), (100, true));
    assert_eq!((restored.snapshots, restored.log_first), (vec![Index(100)], Index(100)));
    let rest = aside::read(dir.path(), store.damage().unwrap().set_aside.as_ref().unwrap()).unwrap();
    assert_eq!(rest.about().entries, 150, "what the log held is set aside");
}

#[test]
fn at_most_three_damaged_databases_are_kept() {
    let (dir, _) = closed_store();
    for _ in 0..5 {
        fs::write(dir.path().join("store.redb"), "all is lost").unwrap();
        reopen(dir.path());
    }
    let names = super::super::files::names(dir.path()).unwrap();
    let damaged: Vec<_> = names.iter().filter_map(|name| name.strip_prefix("store.redb.damaged-")).collect();
    assert_eq!(damaged, ["3", "4", "5"]);
}
