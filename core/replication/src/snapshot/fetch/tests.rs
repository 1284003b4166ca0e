//! A transfer under every fault of its chunks and sources.

use super::*;
use crate::rng::Seed;
use crate::snapshot::tests::sample;

const A: NodeId = NodeId::example(1);
const B: NodeId = NodeId::example(2);
const C: NodeId = NodeId::example(3);
const CHUNKS: u32 = 10;

fn config() -> Config {
    Config { chunk_bytes: 1024, ..Config::default() }
}

fn at(millis: u64) -> Moment {
    Moment(0) + Span::millis(millis)
}

/// Ten chunks, the last one short.
fn snapshot() -> Snapshot {
    let snapshot = sample(5, 9500, 1024);
    assert_eq!(snapshot.manifest.chunks.len(), CHUNKS as usize);
    snapshot
}

fn fetch(snapshot: &Snapshot) -> Fetch {
    Fetch::new(at(0), snapshot.manifest.clone(), A, &config()).unwrap()
}

impl Fetch {
    /// The right chunk comes from this source.
    fn given(&mut self, now: Moment, from: NodeId, snapshot: &Snapshot, chunk: u32) -> Took {
        self.take(now, from, snapshot.manifest.hash, chunk, snapshot.chunk(chunk))
    }
}

/// Fetches what is left from sources that answer at once, and sees that it is the snapshot.
fn finish(fetch: &mut Fetch, now: Moment, sources: &[NodeId], snapshot: &Snapshot) {
    for _ in 0..CHUNKS {
        for (source, chunk) in fetch.ask(now, sources, &config()) {
            match fetch.given(now, source, snapshot, chunk) {
                Took::Kept => {}
                Took::Complete(whole) => return assert_eq!(*whole, *snapshot),
                other @ (Took::Rejected(_) | Took::Absent) => panic!("chunk {chunk} from {source:?}: {other:?}"),
            }
        }
    }
    panic!("it does not complete: {:?}", fetch.progress());
}

#[test]
fn chunks_are_pulled_within_the_window_from_who_offered() {
    let snapshot = snapshot();
    let mut fetch = fetch(&snapshot);
    assert_eq!(fetch.ask(at(0), &[B, A], &config()), [(A, 0), (A, 1), (A, 2), (A, 3)]);
    assert_eq!(fetch.ask(at(0), &[B, A], &config()), [], "the window is full");
    assert_eq!(fetch.given(at(5), A, &snapshot, 2), Took::Kept);
    assert_eq!(fetch.progress(), (1024, snapshot.manifest.bytes));
    assert_eq!(fetch.ask(at(5), &[B, A], &config()), [(A, 4)]);
    for chunk in [4, 0, 3, 1] {
        assert_eq!(fetch.given(at(9), A, &snapshot, chunk), Took::Kept, "the order does not matter");
    }
    finish(&mut fetch, at(10), &[A], &snapshot);
    assert_eq!(fetch.retried(), 0);
}

#[test]
fn each_lost_chunk_is_asked_for_again_alone() {
    let snapshot = snapshot();
    for lost in 0..CHUNKS {
        let mut fetch = fetch(&snapshot);
        for now in 0..CHUNKS.into() {
            for (source, chunk) in fetch.ask(at(now), &[A], &config()) {
                if chunk != lost {
                    assert_eq!(fetch.given(at(now), source, &snapshot, chunk), Took::Kept);
                }
            }
        }
        let due = fetch.due().unwrap();
        assert!(at(2000) <= due && due < at(2010), "{due:?}");
        assert_eq!(fetch.ask(Moment(due.0 - 1), &[A], &config()), []);
        assert_eq!(fetch.ask(due, &[A], &config()), [(A, lost)]);
        assert!(fetch.due().unwrap() > due);
        assert_eq!(fetch.retried(), 1);
        assert!(matches!(fetch.given(due, A, &snapshot, lost), Took::Complete(_)));
    }
}

#[test]
fn doubled_and_late_chunks_are_taken_once() {
    let snapshot = snapshot();
    let mut fetch = fetch(&snapshot);
    fetch.ask(at(0), &[A, B], &config());
    assert_eq!(fetch.given(at(1), A, &snapshot, 0), Took::Kept);
    assert_eq!(fetch.given(at(1), A, &snapshot, 0), Took::Rejected(Rejection::Twice));
    let again = fetch.ask(at(2000), &[A, B], &config());
    assert_eq!(again, [(B, 1), (B, 2), (B, 3), (B, 4)], "the late source is asked last");
    assert_eq!(fetch.given(at(2001), A, &snapshot, 1), Took::Kept, "late, but it was asked for");
    assert_eq!(fetch.given(at(2002), B, &snapshot, 1), Took::Rejected(Rejection::Twice));
    finish(&mut fetch, at(9000), &[A, B], &snapshot);
}

#[test]
fn each_corrupt_chunk_is_dropped_and_comes_from_another_source() {
    let snapshot = snapshot();
    let name = snapshot.manifest.hash;
    for bad in 0..CHUNKS {
        let good = snapshot.chunk(bad).unwrap();
        let mut flipped = good.to_vec();
        flipped[good.len() / 2] ^= 1;
        let other = snapshot.chunk((bad + 1) % CHUNKS).unwrap();
        let longer = [&good[..], &[0]].concat();
        for wrong in [Bytes::from(flipped), other, good.slice(1..), longer.into(), Bytes::new()] {
            let mut fetch = fetch(&snapshot);
            while !fetch.ask(at(0), &[A], &config()).contains(&(A, bad)) {
                let next = *fetch.wanted.keys().next().unwrap();
                fetch.given(at(0), A, &snapshot, next);
            }
            let have = fetch.progress();
            assert_eq!(fetch.take(at(1), A, name, bad, Some(wrong)), Took::Rejected(Rejection::WrongBytes));
            assert_eq!(fetch.progress(), have);
            assert!(fetch.ask(at(1), &[A, B], &config()).contains(&(B, bad)));
            finish(&mut fetch, at(20_000), &[A, B], &snapshot);
        }
    }
}

#[test]
fn a_source_of_wrong_bytes_is_not_asked_in_a_spin() {
    let snapshot = snapshot();
    let mut fetch = fetch(&snapshot);
    fetch.ask(at(0), &[A], &config());
    let wrong = Some(Bytes::from_static(b"wrong"));
    fetch.take(at(1), A, snapshot.manifest.hash, 0, wrong);
    let asked = fetch.ask(at(1), &[A], &config());
    assert_eq!(asked, [(A, 4)], "its place in the window is free, the chunk rests");
    assert!(fetch.ask(at(2000), &[A], &config()).contains(&(A, 0)));
}

#[test]
fn a_manifest_that_vouches_for_longer_chunks_than_it_says_gets_none_of_them() {
    let snapshot = snapshot();
    let longer = Bytes::from(vec![7; 100_000]);
    let manifest = Manifest { chunks: vec![Hash::of(&longer); CHUNKS as usize], ..snapshot.manifest };
    let name = manifest.hash;
    let mut fetch = Fetch::new(at(0), manifest, A, &config()).unwrap();
    fetch.ask(at(0), &[A], &config());
    assert_eq!(fetch.take(at(1), A, name, 0, Some(longer)), Took::Rejected(Rejection::WrongBytes));
    assert_eq!(fetch.progress().0, 0);
}

#[test]
fn a_source_that_was_late_is_preferred_again_when_it_delivers() {
    let snapshot = snapshot();
    let mut fetch = fetch(&snapshot);
    fetch.ask(at(0), &[A, B], &config());
    assert!(fetch.ask(at(2000), &[A, B], &config()).iter().all(|(source, _)| *source == B));
    assert_eq!(fetch.given(at(2001), A, &snapshot, 0), Took::Kept);
    assert_eq!(fetch.ask(at(2001), &[A, B], &config()), [(A, 4)]);
}

#[test]
fn foreign_and_stale_chunks_are_dropped() {
    let snapshot = snapshot();
    let older = sample(4, 9500, 1024);
    let mut fetch = fetch(&snapshot);
    fetch.ask(at(0), &[A, B], &config());
    let before = fetch.progress();
    let name = snapshot.manifest.hash;
    for (took, why) in [
        (fetch.given(at(1), B, &snapshot, 0), Rejection::NotAsked),
        (fetch.given(at(1), C, &snapshot, 0), Rejection::NotAsked),
        (fetch.given(at(1), A, &snapshot, 9), Rejection::NotAsked),
        (fetch.given(at(1), A, &older, 0), Rejection::OtherSnapshot),
        (fetch.take(at(1), A, name, u32::MAX, Some(Bytes::new())), Rejection::NotAsked),
        (fetch.take(at(1), A, name, u32::MAX, None), Rejection::NotAsked),
        (fetch.take(at(1), B, name, 0, None), Rejection::NotAsked),
        (fetch.take(at(1), A, older.manifest.hash, 0, None), Rejection::OtherSnapshot),
    ] {
        assert_eq!(took, Took::Rejected(why));
    }
    assert_eq!(fetch.progress(), before);
    assert!(!fetch.stalled(at(1)));
    finish_after_window(&mut fetch, &snapshot);
}

/// Answers the first window, then finishes.
fn finish_after_window(fetch: &mut Fetch, snapshot: &Snapshot) {
    for chunk in 0..4 {
        assert_eq!(fetch.given(at(1), A, snapshot, chunk), Took::Kept);
    }
    finish(fetch, at(2), &[A], snapshot);
}

#[test]
fn a_source_that_dies_at_any_chunk_is_replaced_at_once() {
    let snapshot = snapshot();
    for dies_at in 0..CHUNKS {
        let mut fetch = fetch(&snapshot);
        'alive: loop {
            for (source, chunk) in fetch.ask(at(0), &[A, B], &config()) {
                assert_eq!(source, A);
                if chunk == dies_at {
                    break 'alive;
                }
                fetch.given(at(0), A, &snapshot, chunk);
            }
        }
        let have = fetch.progress();
        fetch.lost(A);
        assert_eq!(fetch.progress(), have, "what came stays");
        assert_eq!(fetch.given(at(0), A, &snapshot, dies_at), Took::Rejected(Rejection::NotAsked));
        finish(&mut fetch, at(0), &[B], &snapshot);
    }
}

#[test]
fn a_transfer_resumes_when_its_only_source_comes_back() {
    let snapshot = snapshot();
    let mut fetch = fetch(&snapshot);
    fetch.ask(at(0), &[A], &config());
    fetch.given(at(1), A, &snapshot, 3);
    fetch.lost(A);
    assert_eq!(fetch.ask(at(1), &[], &config()), []);
    assert_eq!(fetch.due(), Some(at(15_001)), "nothing to wait for but the end of patience");
    assert!(!fetch.stalled(at(15_000)) && fetch.stalled(at(15_001)));
    let have = fetch.progress();
    fetch.resume(at(16_000), A);
    assert!(!fetch.stalled(at(16_000)));
    assert_eq!(fetch.progress(), have);
    finish(&mut fetch, at(16_000), &[A], &snapshot);
}

#[test]
fn who_does_not_hold_it_is_not_asked_again_and_when_nobody_does_it_ends_at_once() {
    let snapshot = snapshot();
    let name = snapshot.manifest.hash;
    let mut fetch = fetch(&snapshot);
    fetch.ask(at(0), &[A, B], &config());
    assert_eq!(fetch.take(at(1), A, name, 0, None), Took::Absent);
    assert_eq!(fetch.take(at(1), A, name, 1, None), Took::Absent, "the answers to the other requests");
    assert_eq!(fetch.ask(at(1), &[A, B], &config()), [(B, 0), (B, 1), (B, 2), (B, 3)]);
    assert!(!fetch.stalled(at(1)));
    assert_eq!(fetch.take(at(2), B, name, 0, None), Took::Absent);
    assert_eq!(fetch.ask(at(2), &[A, B], &config()), []);
    assert!(fetch.stalled(at(2)));
    assert_eq!(fetch.due(), Some(at(2) + Span(1)), "no reason to wait");
    // One that restarted may have it again.
    fetch.lost(B);
    assert!(!fetch.ask(at(3), &[A, B], &config()).is_empty());
    assert!(!fetch.stalled(at(3)));
}

#[test]
fn the_patience_is_with_progress_and_not_with_the_whole() {
    let snapshot = snapshot();
    let mut fetch = fetch(&snapshot);
    let mut now = 0;
    for chunk in 0..CHUNKS - 1 {
        let mut asked = fetch.ask(at(now), &[A], &config());
        now += 14_000;
        asked.extend(fetch.ask(at(now), &[A], &config()));
        assert!(!fetch.stalled(at(now)), "a slow link is no reason to begin again");
        assert_eq!(fetch.given(at(now), A, &snapshot, chunk), Took::Kept);
    }
    assert!(fetch.retried() <= 4 * u64::from(CHUNKS), "{} requests for ten chunks", fetch.retried());
    assert!(fetch.stalled(at(now + 15_000)));
}

#[test]
fn a_chunk_is_late_by_how_long_chunks_take() {
    let snapshot = snapshot();
    let mut fetch = fetch(&snapshot);
    fetch.ask(at(0), &[A], &config());
    fetch.given(at(1000), A, &snapshot, 0);
    assert_eq!(fetch.ask(at(1000), &[A], &config()), [(A, 4)]);
    for chunk in 1..4 {
        fetch.given(at(1000), A, &snapshot, chunk);
    }
    assert_eq!(fetch.due(), Some(at(9000)), "eight times a second");
}

#[test]
fn manifests_that_cannot_be_are_refused() {
    let good = snapshot().manifest;
    let refused: [fn(&mut Manifest); 6] = [
        |m| m.chunk_bytes = 2048,
        |m| m.bytes = 65 << 20,
        |m| m.chunks.truncate(3),
        // 2^32 chunks: the sizes fit each other, the list does not exist.
        |m| (m.bytes, m.chunk_bytes) = (1 << 32, 1),
        |m| m.lineage = m.lineage.open_ended(),
        |m| m.lineage = Default::default(),
    ];
    for (at_, change) in refused.into_iter().enumerate() {
        let mut manifest = good.clone();
        change(&mut manifest);
        assert!(Fetch::new(at(0), manifest, A, &config()).is_err(), "change {at_}");
    }
    let many = sample(2, 3000, 1).manifest;
    assert!(many.chunks.len() > 2048);
    assert_eq!(
        Fetch::new(at(0), many.clone(), A, &config()).map(drop),
        Err(Bad::TooLarge { what: "its number of chunks", found: many.bytes, limit: 2048 })
    );
}

#[test]
fn no_source_at_all_is_waited_for_without_a_spin() {
    let snapshot = snapshot();
    let mut fetch = fetch(&snapshot);
    assert_eq!(fetch.ask(at(0), &[], &config()), []);
    assert!(!fetch.stalled(at(0)));
    fetch.ask(at(0), &[A], &config());
    assert_eq!(fetch.ask(at(2000), &[], &config()), [], "late, and nobody to ask");
    assert_eq!(fetch.due(), Some(at(15_000)));
    finish(&mut fetch, at(14_000), &[B], &snapshot);
}

#[test]
fn any_mixture_of_faults_ends_in_the_right_snapshot() {
    let snapshot = snapshot();
    let name = snapshot.manifest.hash;
    let stale = sample(4, 9500, 1024);
    for seed in 0..200 {
        let mut rng = Seed::from_number(seed).rng();
        let mut fetch = fetch(&snapshot);
        let mut sources = vec![A, B, C];
        let mut now = 0;
        // What is on its way: from whom, and which chunk. Any of it may come next, or never.
        let mut way: Vec<(NodeId, u32)> = Vec::new();
        let whole = loop {
            let requests = fetch.ask(at(now), &sources, &config());
            let pending =
                fetch.wanted.values().flat_map(|wanted| wanted.asked.values()).filter(|a| a.pending()).count();
            assert!(pending <= 4, "the window");
            assert!(fetch.stalled(at(now)) || fetch.due().unwrap() > at(now), "it would spin");
            way.extend(requests);
            if fetch.stalled(at(now)) {
                fetch.resume(at(now), sources.first().copied().unwrap_or(A));
            }
            if way.is_empty() || rng.chance(1, 20) {
                now += rng.below(3000);
            }
            now += rng.below(20);
            let Some(&(from, chunk)) = way.get(rng.below(way.len() as u64) as usize) else {
                sources = vec![A, B, C];
                continue;
            };
            let keep_on_way = rng.chance(1, 10);
            if !keep_on_way {
                way.retain(|other| *other != (from, chunk));
            }
            let have = fetch.progress();
            let (took, right) = match rng.below(10) {
                0 => continue,
                1 => (fetch.take(at(now), from, name, chunk, Some(Bytes::from_static(b"wrong"))), false),
                2 => (fetch.given(at(now), from, &stale, chunk), false),
                3 => (fetch.take(at(now), from, name, chunk, None), false),
                4 => {
                    fetch.lost(from);
                    sources.retain(|source| *source != from);
                    continue;
                }
                _ => (fetch.given(at(now), from, &snapshot, chunk), true),
            };
            match took {
                Took::Complete(whole) if right => break whole,
                Took::Kept if right => assert!(fetch.progress() > have),
                Took::Rejected(_) | Took::Absent => assert_eq!(fetch.progress(), have),
                other @ (Took::Kept | Took::Complete(_)) => panic!("seed {seed}: {other:?}"),
            }
        };
        assert_eq!(*whole, snapshot, "seed {seed}");
    }
}
