//! Who is offered what, and what is kept for whom.

use super::*;
use crate::snapshot::tests::sample;

const JOINER: NodeId = NodeId::example(9);
const HERE: Index = Index(0);

fn config() -> Config {
    Config { chunk_bytes: 1024, ..Config::default() }
}

fn at(millis: u64) -> Moment {
    Moment(0) + Span::millis(millis)
}

fn peer(n: u8) -> NodeId {
    NodeId::example(n)
}

/// A log from `first` to `next` of entries of 100 bytes.
fn log(first: u64, next: u64) -> LogInfo {
    LogInfo { first: Index(first), next: Index(next), entry_bytes: 100 }
}

/// A snapshot after so many entries, in five chunks.
fn snapshot(entries: u64) -> Snapshot {
    sample(entries, 4500, 1024)
}

fn holding(entries: &[u64]) -> Serve {
    let mut serve = Serve::default();
    entries.iter().for_each(|entries| serve.hold(snapshot(*entries), &config()));
    serve
}

fn offered(answer: &Answer) -> Option<Index> {
    match answer {
        Answer::Offer(Offer::Snapshot(manifest)) => Some(manifest.next()),
        Answer::Offer(_) | Answer::Encode | Answer::Wait => None,
    }
}

/// Asks as somebody new, whom nothing limits.
fn ask(serve: &Serve, peer_next: u64, log: LogInfo) -> Answer {
    serve.clone().asked(at(0), JOINER, Index(peer_next), log, &config())
}

#[test]
fn an_empty_leader_says_so_at_once() {
    assert_eq!(ask(&Serve::default(), 0, log(0, 0)), Answer::Offer(Offer::NothingYet));
}

#[test]
fn the_log_is_offered_where_it_is_less() {
    let shorter = Answer::Offer(Offer::LogShorter);
    let mut small = Serve::default();
    small.hold(sample(2000, 250_000, 1024), &config());
    assert_eq!(ask(&small, 2000, log(0, 2000)), shorter, "nothing is missing");
    assert_eq!(ask(&small, 2100, log(0, 2000)), shorter, "the peer is ahead");
    assert_eq!(ask(&small, 0, log(0, 1000)), shorter, "few entries are missing");
    assert_eq!(ask(&small, 0, log(0, 2400)), shorter, "240 kB of log against 250 kB of snapshot");
    assert_eq!(offered(&ask(&small, 0, log(0, 2600))), Some(Index(2000)), "260 kB of log");
    assert_eq!(offered(&ask(&small, 0, log(1, 2001))), Some(Index(2000)), "the log does not reach back");
    assert_eq!(ask(&Serve::default(), 0, log(0, 1001)), Answer::Encode, "nothing is known of a snapshot's size");
}

#[test]
fn the_newest_fitting_snapshot_is_offered_and_else_one_is_encoded() {
    let serve = holding(&[3000, 4000]);
    assert_eq!(offered(&ask(&serve, 0, log(3500, 9000))), Some(Index(4000)));
    assert_eq!(ask(&serve, 0, log(4001, 9000)), Answer::Encode, "the log after it is gone");
    assert_eq!(ask(&serve, 0, log(2, 14_001)), Answer::Encode, "its tail is too long");
    assert_eq!(offered(&ask(&serve, 0, log(2, 14_000))), Some(Index(4000)));
    assert_eq!(ask(&serve, 4000, log(4000, 9000)), Answer::Encode, "the peer has what it would get");
}

#[test]
fn one_encoding_serves_all_who_ask_meanwhile() {
    let mut serve = Serve::default();
    let asked = |serve: &mut Serve, n, next| serve.asked(at(0), peer(n), Index(next), log(9000, 9000 + 1), &config());
    assert_eq!(asked(&mut serve, 1, 0), Answer::Encode);
    serve.encoding(WorkId(7));
    assert_eq!(asked(&mut serve, 2, 10), Answer::Wait);
    assert_eq!(asked(&mut serve, 3, 8000), Answer::Wait);
    assert_eq!(serve.encodes(), Some(WorkId(7)));
    let done = snapshot(8000);
    let offer = Offer::Snapshot(Box::new(done.manifest.clone()));
    let answers = serve.encoded(at(5), done, &config());
    assert_eq!(answers, [(peer(1), offer.clone()), (peer(2), offer), (peer(3), Offer::LogShorter)]);
    assert_eq!((serve.encodes(), serve.serving()), (None, 2));
}

#[test]
fn a_failed_encoding_names_who_waits() {
    let mut serve = Serve::default();
    assert_eq!(serve.asked(at(0), JOINER, HERE, log(5, 5000), &config()), Answer::Encode);
    serve.encoding(WorkId(1));
    assert_eq!(serve.failed(), [JOINER]);
    assert_eq!((serve.failed().len(), serve.serving()), (0, 0));
}

#[test]
fn a_peer_asks_once_a_second() {
    let mut serve = holding(&[3000]);
    let mut asked = |millis| serve.asked(at(millis), JOINER, HERE, log(5, 4000), &config());
    assert_eq!(offered(&asked(0)), Some(Index(3000)));
    assert_eq!(asked(300), Answer::Offer(Offer::Later(Span::millis(700))));
    assert_eq!(offered(&asked(1000)), Some(Index(3000)));
}

#[test]
fn eight_joiners_find_four_places_and_the_rest_come_as_soon_as_one_is_free() {
    let mut serve = holding(&[3000]);
    let asked = |serve: &mut Serve, millis, n| serve.asked(at(millis), peer(n), HERE, log(5, 4000), &config());
    for n in 0..4 {
        assert!(offered(&asked(&mut serve, 0, n)).is_some());
    }
    for n in 4..8 {
        assert_eq!(asked(&mut serve, 0, n), Answer::Offer(Offer::Later(Span::millis(200))));
    }
    let name = serve.newest().unwrap().hash;
    assert_eq!(serve.chunk(at(1), peer(4), &name, 0, &config()), Given::Absent, "no place, no chunk");
    (0..5).for_each(|chunk| assert!(matches!(serve.chunk(at(1), peer(0), &name, chunk, &config()), Given::Chunk(_))));
    serve.forget(peer(1));
    assert_eq!(serve.serving(), 2, "one was given all it needs, one is gone");
    assert!(offered(&asked(&mut serve, 200, 4)).is_some() && offered(&asked(&mut serve, 200, 5)).is_some());
    assert_eq!(asked(&mut serve, 200, 6), Answer::Offer(Offer::Later(Span::millis(200))));
}

#[test]
fn a_joiner_that_got_its_chunks_elsewhere_frees_its_place() {
    let mut serve = holding(&[3000]);
    (0..4).for_each(|n| drop(serve.asked(at(0), peer(n), HERE, log(5, 4000), &config())));
    let next = serve.newest().unwrap().next();
    serve.stored(peer(1), next.previous().unwrap());
    assert_eq!(serve.serving(), 4, "that much it had before");
    serve.stored(peer(1), next);
    assert_eq!(serve.serving(), 3);
    assert!(offered(&serve.asked(at(200), peer(4), HERE, log(5, 4000), &config())).is_some());
}

#[test]
fn a_joiner_that_died_frees_its_place_in_time() {
    let mut serve = holding(&[3000]);
    let name = serve.newest().unwrap().hash;
    (0..4).for_each(|n| drop(serve.asked(at(0), peer(n), HERE, log(5, 4000), &config())));
    serve.chunk(at(30_000), peer(0), &name, 0, &config());
    let mut asked = |millis, n| serve.asked(at(millis), peer(n), HERE, log(5, 4000), &config());
    assert_eq!(offered(&asked(59_999, 4)), None);
    assert!((5..8).all(|n| offered(&asked(60_000, n)).is_some()));
    assert_eq!(offered(&asked(60_000, 8)), None, "the one that pulled meanwhile is still there");
}

#[test]
fn chunks_are_given_to_whom_they_were_not_offered_too_but_a_doubled_request_costs_one_answer() {
    let mut serve = holding(&[3000]);
    let whole = snapshot(3000);
    let name = whole.manifest.hash;
    assert_eq!(serve.chunk(at(0), JOINER, &name, 4, &config()), Given::Chunk(whole.chunk(4).unwrap()));
    assert_eq!(serve.chunk(at(999), JOINER, &name, 4, &config()), Given::TooSoon);
    assert_eq!(serve.chunk(at(1000), JOINER, &name, 4, &config()), Given::Chunk(whole.chunk(4).unwrap()));
    for (snapshot, chunk) in [(&name, 5), (&name, u32::MAX), (&Hash::default(), 0)] {
        assert_eq!(serve.chunk(at(0), JOINER, snapshot, chunk, &config()), Given::Absent);
    }
}

#[test]
fn two_newest_snapshots_are_cached_and_one_that_is_pulled_outlives_them() {
    let mut serve = holding(&[3000]);
    let first = serve.newest().unwrap().hash;
    assert!(offered(&serve.asked(at(0), JOINER, HERE, log(5, 4000), &config())).is_some());
    [4000, 5000, 6000, 5000].iter().for_each(|entries| serve.hold(snapshot(*entries), &config()));
    assert_eq!(serve.cache.iter().map(|held| held.manifest.next().0).collect::<Vec<_>>(), [3000, 5000, 6000]);
    (0..5).for_each(|chunk| assert!(matches!(serve.chunk(at(1), JOINER, &first, chunk, &config()), Given::Chunk(_))));
    serve.hold(snapshot(7000), &config());
    assert_eq!(serve.cache.iter().map(|held| held.manifest.next().0).collect::<Vec<_>>(), [6000, 7000]);
    assert_eq!(serve.newest().unwrap().next(), Index(7000));
}

#[test]
fn the_cache_is_bounded_whatever_is_pulled() {
    let mut serve = Serve::default();
    for n in 0..20 {
        serve.hold(snapshot(3000 + n), &config());
        let name = serve.newest().unwrap().hash;
        serve.chunk(at(n), peer(n as u8), &name, 0, &config());
    }
    assert!(serve.cache.len() <= 6, "{}", serve.cache.len());
}

#[test]
fn the_log_is_held_for_who_catches_up_but_not_for_ever() {
    let mut serve = holding(&[3000]);
    let needed = |serve: &Serve, millis| serve.log_needed_from(at(millis), &config());
    assert_eq!(needed(&serve, 0), None);
    serve.asked(at(0), JOINER, HERE, log(5, 4000), &config());
    serve.asked(at(10), peer(2), Index(2500), log(5, 3000), &config());
    assert_eq!(needed(&serve, 10), Some(Index(2500)), "who replays the log needs it from where it stands");
    serve.forget(peer(2));
    let name = serve.newest().unwrap().hash;
    (0..5).for_each(|chunk| drop(serve.chunk(at(20), JOINER, &name, chunk, &config())));
    assert_eq!(needed(&serve, 60_000), Some(Index(3000)), "it has all chunks, but not yet what follows");
    assert_eq!(needed(&serve, 60_001), None);
}

#[test]
fn a_cut_log_clears_what_was_cached_and_promised() {
    let mut serve = holding(&[3000]);
    serve.asked(at(0), JOINER, HERE, log(5, 4000), &config());
    serve.encoding(WorkId(3));
    serve.clear();
    assert_eq!((serve.newest(), serve.serving(), serve.log_needed_from(at(0), &config())), (None, 0, None));
    assert_eq!(serve.encodes(), Some(WorkId(3)));
}
