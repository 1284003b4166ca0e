//! Who is given up, when, and when nobody is. A small bench beats for the nodes and ticks exactly when told to.

use super::*;
use crate::app::Liveness::{Evicted, Heard, Lost};
use crate::rng::Seed;

fn node(n: u8) -> NodeId {
    NodeId::example(n)
}

fn at(millis: u64) -> Moment {
    Moment(0) + Span::millis(millis)
}

/// A leader, and nodes that each beat a second, a little after one another.
struct Bench {
    liveness: Liveness,
    config: Config,
    now: u64,
    nodes: u8,
    /// What became of whom, and when (in milliseconds).
    seen: Vec<(u64, u8, app::Liveness)>,
}

impl Bench {
    /// A leadership over nodes 1 to `nodes`, which have been heard for some seconds.
    fn new(nodes: u8) -> Bench {
        let mut bench =
            Bench { liveness: Liveness::default(), config: Config::default(), now: 0, nodes, seen: Vec::new() };
        bench.liveness.begin(at(0), (1..=nodes).map(node), &bench.config);
        bench.until(10_000, |_, _| true);
        assert_eq!(bench.changes(Lost), []);
        assert_eq!(bench.changes(Heard).len(), nodes as usize);
        bench.seen.clear();
        bench
    }

    /// Goes on until this time, in steps of 10 ms. `beats` says whether a node's beat at a time arrives.
    fn until(&mut self, until: u64, mut beats: impl FnMut(u8, u64) -> bool) {
        while self.now < until {
            self.now += 10;
            for n in 1..=self.nodes {
                if self.now % 1000 == u64::from(n) * 30 % 1000 && beats(n, self.now) {
                    self.liveness.heard(at(self.now), node(n), Span::ZERO, &self.config);
                }
            }
            self.tick();
        }
    }

    fn tick(&mut self) {
        let now = at(self.now);
        if self.liveness.due().is_some_and(|due| due <= now) {
            for (id, change) in self.liveness.tick(now, &self.config) {
                self.seen.push((self.now, id.0[0], change));
            }
            assert!(self.liveness.due().unwrap() > now, "it would spin");
        }
        assert_eq!(self.liveness.tick(now, &self.config), [], "a tick before its time changes nothing");
    }

    /// When each of these became so.
    fn changes(&self, change: app::Liveness) -> Vec<(u8, u64)> {
        self.seen.iter().filter(|seen| seen.2 == change).map(|seen| (seen.1, seen.0)).collect()
    }

    /// All connections to a node break: the leader's own and these others'.
    fn breaks(&mut self, n: u8, reporters: &[u8]) {
        self.liveness.connected(at(self.now), node(n), false);
        reporters.iter().for_each(|other| self.liveness.reach(at(self.now), node(*other), node(n), false));
    }
}

#[test]
fn who_is_heard_for_the_first_time_is_reported_at_once() {
    let mut bench = Bench::new(2);
    bench.nodes = 3;
    bench.until(12_000, |_, _| true);
    assert_eq!(bench.seen, [(10_090, 3, Heard)]);
    assert_eq!(bench.liveness.live().collect::<Vec<_>>(), [node(1), node(2), node(3)]);
}

#[test]
fn a_silent_node_is_lost_after_five_to_six_seconds_and_evicted_after_the_grace() {
    for last in [10_500, 11_000, 11_900] {
        let mut bench = Bench::new(5);
        bench.until(90_000, |n, now| n != 2 || now <= last);
        let [(2, lost)] = bench.changes(Lost)[..] else { panic!("{:?}", bench.seen) };
        let beat = (last - 60) / 1000 * 1000 + 60;
        assert!((5000..=6000).contains(&(lost - beat)), "lost {} ms after its last beat", lost - beat);
        let [(2, evicted)] = bench.changes(Evicted)[..] else { panic!("{:?}", bench.seen) };
        assert!((60_000..=61_000).contains(&(evicted - lost)));
        assert!(bench.liveness.is_lost(node(2)) && !bench.liveness.is_lost(node(1)));
        assert_eq!(bench.liveness.doubts(), 0);
    }
}

#[test]
fn a_stall_of_four_seconds_is_nothing_and_one_of_six_is_lost_and_heard_again() {
    let mut bench = Bench::new(5);
    bench.until(30_000, |n, now| n != 2 || !(11_000..15_000).contains(&now));
    assert_eq!(bench.seen, []);
    bench.until(60_000, |n, now| n != 2 || !(31_000..37_000).contains(&now));
    let changes: Vec<_> = bench.seen.iter().map(|seen| (seen.1, seen.2)).collect();
    assert_eq!(changes, [(2, Lost), (2, Heard)]);
}

#[test]
fn a_node_whose_connections_broke_is_lost_within_a_second() {
    let mut bench = Bench::new(5);
    bench.breaks(2, &[1, 3, 4]);
    bench.until(20_000, |n, _| n != 2);
    let [(2, lost)] = bench.changes(Lost)[..] else { panic!("{:?}", bench.seen) };
    assert_eq!(lost, 10_400);
}

#[test]
fn a_broken_connection_alone_is_not_enough() {
    let silent = |bench: &mut Bench| {
        bench.until(14_000, |n, _| n != 2);
        assert_eq!(bench.seen, [], "it is silent, but never lost before five seconds");
    };
    let mut bench = Bench::new(5);
    bench.breaks(2, &[1, 3]);
    silent(&mut bench);
    bench.liveness.reach(at(14_000), node(4), node(2), false);
    bench.until(14_500, |n, _| n != 2);
    assert_eq!(bench.changes(Lost), [(2, 14_400)], "the third report counts from when it came");

    let mut others_only = Bench::new(5);
    (1..=5).for_each(|other| others_only.liveness.reach(at(10_000), node(other), node(2), false));
    silent(&mut others_only);

    let mut redialled = Bench::new(5);
    redialled.breaks(2, &[1, 3, 4]);
    redialled.until(10_300, |_, _| true);
    redialled.liveness.connected(at(10_300), node(2), true);
    silent(&mut redialled);

    let mut others_redialled = Bench::new(5);
    others_redialled.breaks(2, &[1, 3, 4]);
    others_redialled.liveness.reach(at(10_000), node(3), node(2), true);
    silent(&mut others_redialled);
}

#[test]
fn strangers_and_lost_nodes_have_no_say_and_one_that_repeats_itself_has_one() {
    let mut bench = Bench::new(6);
    bench.breaks(2, &[1, 1, 1, 2, 77, 78, 79]);
    bench.until(14_000, |n, _| n != 2);
    assert_eq!(bench.seen, []);
    let mut bench = Bench::new(6);
    bench.until(20_000, |n, _| n != 5);
    bench.breaks(2, &[1, 3, 5]);
    bench.until(24_000, |n, _| n != 5 && n != 2);
    assert_eq!(bench.changes(Lost).len(), 1, "node 5 is lost, and what it says of node 2 does not count");
}

#[test]
fn fewer_than_three_others_must_all_agree_and_none_need_not() {
    let mut three = Bench::new(3);
    three.breaks(2, &[1]);
    three.until(12_000, |n, _| n != 2);
    assert_eq!(three.seen, []);
    three.liveness.reach(at(12_000), node(3), node(2), false);
    three.until(13_000, |n, _| n != 2);
    assert_eq!(three.changes(Lost), [(2, 12_400)]);

    let mut alone = Bench::new(1);
    alone.breaks(1, &[]);
    alone.until(12_000, |_, _| false);
    assert_eq!(alone.changes(Lost), [(1, 10_400)]);
}

#[test]
fn a_node_that_is_heard_another_way_is_not_lost_by_its_broken_connections() {
    let mut bench = Bench::new(5);
    bench.breaks(2, &[1, 3, 4]);
    bench.until(10_100, |_, _| true);
    bench.until(60_000, |_, _| true);
    assert_eq!(bench.seen, [], "its beats come by gossip through node 5");
    bench.until(62_600, |n, _| n != 2);
    let [(2, lost)] = bench.changes(Lost)[..] else { panic!("{:?}", bench.seen) };
    assert_eq!(lost, 59_060 + 2400, "two more beats stay away");
}

#[test]
fn a_busy_node_may_be_silent_as_long_as_it_said_and_no_longer_than_allowed() {
    let mut bench = Bench::new(5);
    bench.liveness.heard(at(10_000), node(2), Span::seconds(60), &bench.config);
    bench.until(70_000, |n, _| n != 2);
    assert_eq!(bench.seen, []);
    bench.until(80_000, |n, _| n != 2);
    let [(2, lost)] = bench.changes(Lost)[..] else { panic!("{:?}", bench.seen) };
    assert!((75_000..=76_000).contains(&lost));

    let mut greedy = Bench::new(5);
    greedy.config.busy_at_most = Span::seconds(20);
    greedy.liveness.heard(at(10_000), node(2), Span(u64::MAX), &greedy.config);
    greedy.until(40_000, |n, _| n != 2);
    assert!(matches!(greedy.changes(Lost)[..], [(2, 35_000..=36_000)]), "{:?}", greedy.seen);

    let mut done = Bench::new(5);
    done.liveness.heard(at(10_000), node(2), Span::seconds(60), &done.config);
    done.liveness.heard(at(11_000), node(2), Span::ZERO, &done.config);
    done.until(20_000, |n, _| n != 2);
    assert!(matches!(done.changes(Lost)[..], [(2, 16_000..=17_000)]), "the newest word counts: {:?}", done.seen);
}

#[test]
fn a_busy_node_whose_process_is_gone_is_lost_all_the_same() {
    let mut bench = Bench::new(5);
    bench.liveness.heard(at(10_000), node(2), Span::seconds(600), &bench.config);
    bench.breaks(2, &[1, 3, 4]);
    bench.until(11_000, |n, _| n != 2);
    assert_eq!(bench.changes(Lost), [(2, 10_400)]);
}

#[test]
fn many_that_fall_silent_together_make_the_leader_doubt_itself() {
    let mut bench = Bench::new(9);
    // Nobody is heard for seven seconds: it was the leader's link.
    bench.until(17_000, |_, _| false);
    assert_eq!((bench.seen.len(), bench.liveness.doubts()), (0, 1));
    bench.until(40_000, |_, _| true);
    assert_eq!((bench.seen.len(), bench.liveness.doubts()), (0, 1));
}

#[test]
fn the_first_of_many_is_doubted_too() {
    let mut bench = Bench::new(4);
    // At the tick of 16 s only the first one's time is over; the other two follow within a second.
    bench.until(16_500, |n, now| now < [10_500, 11_500, 11_500, u64::MAX][usize::from(n) - 1]);
    assert_eq!((bench.seen.len(), bench.liveness.doubts()), (0, 1));
    bench.until(30_000, |_, _| true);
    assert_eq!((bench.seen.len(), bench.liveness.doubts()), (0, 1));
}

#[test]
fn a_doubt_that_beats_answer_ends_and_the_silent_are_lost() {
    let mut bench = Bench::new(9);
    bench.until(30_000, |n, _| n > 4);
    let lost = bench.changes(Lost);
    assert_eq!(lost.iter().map(|lost| lost.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(lost.iter().all(|(_, at)| (15_000..=19_000).contains(at)), "{lost:?}");
    assert_eq!(bench.liveness.doubts(), 1);
}

#[test]
fn a_doubt_that_nobody_answers_ends_after_a_minute() {
    let mut bench = Bench::new(4);
    bench.until(90_000, |_, _| false);
    let lost = bench.changes(Lost);
    assert_eq!(lost.len(), 4);
    assert!(lost.iter().all(|(_, at)| (75_000..=77_000).contains(at)), "{lost:?}");
}

#[test]
fn two_that_die_together_are_lost_without_a_doubt() {
    let mut bench = Bench::new(4);
    bench.until(20_000, |n, _| n > 2);
    assert_eq!(bench.changes(Lost).len(), 2);
    assert!(bench.changes(Lost).iter().all(|(_, at)| *at <= 16_000));
    assert_eq!(bench.liveness.doubts(), 0);
}

#[test]
fn a_leader_that_slept_gives_nobody_up_before_it_has_listened() {
    for pause in [4_000, 6_000, 20_000, 8 * 3_600_000] {
        let mut bench = Bench::new(5);
        bench.now += pause;
        bench.tick();
        assert_eq!(bench.liveness.doubts(), 1);
        let woke = bench.now;
        bench.until(woke + 30_000, |n, _| n != 3);
        let [(3, lost)] = bench.changes(Lost)[..] else { panic!("{:?}", bench.seen) };
        assert!((5_000..=6_000).contains(&(lost - woke)), "node 3 died meanwhile: lost {} ms after", lost - woke);
    }
}

#[test]
fn nobody_is_evicted_in_a_doubt() {
    let mut bench = Bench::new(5);
    bench.until(20_000, |n, _| n != 3);
    assert_eq!(bench.changes(Lost).len(), 1);
    bench.now += 600_000;
    bench.tick();
    bench.until(bench.now + 20_000, |_, _| true);
    assert_eq!(bench.changes(Evicted), [], "it came back while the leader slept");
    assert_eq!(bench.changes(Heard).len(), 1);
}

/// A hundred seconds with ten nodes, of whose messages a fifth is lost. Returns how many are lost by mistake.
fn false_alarms(seed: u64, ask_the_quiet: bool) -> usize {
    let mut rng = Seed::from_number(seed).rng();
    let mut bench = Bench::new(10);
    for _ in 0..200 {
        bench.until(bench.now + 500, |_, _| !rng.chance(1, 5));
        if ask_the_quiet {
            for node in bench.liveness.quiet(at(bench.now), &bench.config) {
                if !rng.chance(1, 5) && !rng.chance(1, 5) {
                    bench.liveness.spoke(at(bench.now), node);
                }
            }
        }
    }
    bench.changes(Lost).len()
}

#[test]
fn a_fifth_of_all_messages_lost_is_no_alarm() {
    // By beats alone a node is lost by mistake once an hour: five beats on end, 0.2^5. Asking five times more, 0.36^5,
    // makes it once in a week.
    assert_ne!((0..30).map(|seed| false_alarms(seed, false)).sum::<usize>(), 0);
    assert_eq!((0..30).map(|seed| false_alarms(seed, true)).sum::<usize>(), 0);
}

#[test]
fn words_prove_that_a_node_lives_and_only_a_beat_that_it_is_back() {
    let mut bench = Bench::new(5);
    while bench.now < 20_000 {
        bench.until(bench.now + 3000, |n, _| n != 2);
        bench.liveness.spoke(at(bench.now), node(2));
    }
    assert_eq!(bench.seen, []);
    assert_eq!(bench.liveness.quiet(at(bench.now), &bench.config), []);
    bench.until(bench.now + 3000, |n, _| n != 2);
    assert_eq!(bench.liveness.quiet(at(bench.now), &bench.config), [node(2)]);
    bench.until(30_000, |n, _| n != 2);
    bench.liveness.spoke(at(bench.now), node(2));
    bench.tick();
    assert!(bench.liveness.is_lost(node(2)));
    bench.liveness.heard(at(bench.now), node(2), Span::ZERO, &bench.config);
    bench.tick();
    assert!(!bench.liveness.is_lost(node(2)));
}

#[test]
fn a_leadership_starts_fresh_and_ends_empty() {
    let mut bench = Bench::new(5);
    bench.until(30_000, |n, _| n != 2);
    bench.liveness.begin(at(30_000), (1..=5).map(node), &bench.config);
    assert!(!bench.liveness.is_lost(node(2)));
    assert_eq!(bench.liveness.heard_within(at(30_000), Span::seconds(1)), []);
    bench.seen.clear();
    bench.until(40_000, |n, _| n != 2);
    assert!(matches!(bench.changes(Lost)[..], [(2, 35_000..=36_000)]), "{:?}", bench.seen);
    bench.liveness.end();
    assert_eq!(bench.liveness.due(), None);
    bench.liveness.heard(at(40_000), node(1), Span::ZERO, &bench.config);
    assert_eq!(bench.liveness.tick(at(60_000), &bench.config), []);
    assert_eq!(bench.liveness.live().count(), 0);
}

#[test]
fn the_table_is_bounded_and_forgets() {
    let mut bench = Bench::new(3);
    bench.config.nodes = 4;
    for n in 1..100 {
        bench.liveness.heard(at(10_000), node(n), Span::ZERO, &bench.config);
    }
    assert_eq!(bench.liveness.live().count(), 4);
    bench.liveness.forget(node(4));
    assert_eq!(bench.liveness.heard_within(at(10_000), Span::ZERO), [node(1), node(2), node(3)]);
    assert_eq!(bench.liveness.heard_ago(at(10_500), node(1)), Some(Span::millis(500)));
    assert_eq!(bench.liveness.heard_ago(at(10_500), node(4)), None);
}
