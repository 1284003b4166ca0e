//! Many seeds: run side by side, counted, grouped by how they fail.

pub mod junit;
pub mod resume;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

/// What became of one seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The seed.
    pub seed: u64,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
    /// How often each probe was hit.
    pub probes: BTreeMap<String, u64>,
    /// How many events there were.
    pub events: u64,
    /// The processor time that it took, in microseconds.
    pub cpu_us: u64,
}

/// How a seed failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The check.
    pub check: String,
    /// What it said.
    pub reason: String,
    /// When, in milliseconds of the world's time.
    pub at_ms: u64,
}

/// A whole sweep.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Swept {
    /// How many seeds were run, those of an earlier, interrupted sweep included.
    pub seeds: u64,
    /// How many held.
    pub held: u64,
    /// Those that did not, by seed.
    pub failures: Vec<Failed>,
    /// How often each probe was hit; 0 for one that never was.
    pub probes: BTreeMap<String, u64>,
    /// How many events there were.
    pub events: u64,
    /// The processor time that it took, in seconds.
    pub cpu_s: f64,
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// The check.
    pub check: String,
    /// What it said.
    pub reason: String,
}

/// One part of a sweep that several machines share: the seeds that leave `part - 1` when divided by `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1.
    pub part: u64,
    /// Of how many.
    pub of: u64,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let numbers = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Shard { part, of }),
            Some(_) | None => Err(format!("expected K/N with K from 1 to N, such as 2/4, found {text:?}")),
        }
    }
}

/// The seeds of a range that a shard runs, without those that were run before.
pub fn seeds(range: Range<u64>, shard: Shard, before: &BTreeSet<u64>) -> Vec<u64> {
    range.filter(|seed| seed % shard.of == shard.part - 1 && !before.contains(seed)).collect()
}

/// Runs all seeds on so many threads. `judge` runs one, `tell` is told of each that ended, in any order.
pub fn sweep(
    seeds: &[u64],
    jobs: usize,
    judge: &(dyn Fn(u64) -> Judged + Sync),
    tell: &(dyn Fn(&Judged) + Sync),
) -> Vec<Judged> {
    side_by_side(seeds, jobs, &|seed| {
        let judged = judge(*seed);
        tell(&judged);
        judged
    })
}

/// What is made of each of these on so many threads, in their order.
pub fn side_by_side<T: Sync, R: Send>(items: &[T], jobs: usize, make: &(dyn Fn(&T) -> R + Sync)) -> Vec<R> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let made = make(item);
                    all.lock().expect("a thread that panics ends all").push((at, made));
                }
            });
        }
    });
    let mut all = all.into_inner().expect("a thread that panics ends all");
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, made)| made).collect()
}

impl Swept {
    /// The sum of all seeds; `probes` are the names of all probes that there are.
    pub fn of(all: &[Judged], probes: &[&str]) -> Swept {
        let mut swept = Swept { seeds: all.len() as u64, ..Swept::default() };
        swept.probes = probes.iter().map(|name| ((*name).to_owned(), 0)).collect();
        for judged in all {
            match &judged.failure {
                None => swept.held += 1,
                Some(Failure { check, reason, .. }) => {
                    swept.failures.push(Failed { seed: judged.seed, check: check.clone(), reason: reason.clone() });
                }
            }
            for (name, hits) in &judged.probes {
                *swept.probes.entry(name.clone()).or_default() += hits;
            }
            swept.events += judged.events;
            swept.cpu_s += judged.cpu_us as f64 / 1e6;
        }
        swept
    }

    /// The probes that no seed hit.
    pub fn never_hit(&self) -> Vec<&str> {
        self.probes.iter().filter(|(_, hits)| **hits == 0).map(|(name, _)| name.as_str()).collect()
    }

    /// The failures by signature: those that differ in numbers and names alone are one.
    pub fn by_signature(&self) -> BTreeMap<String, Vec<u64>> {
        let mut groups: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for Failed { seed, check, reason } in &self.failures {
            groups.entry(format!("{check}: {}", signature(reason))).or_default().push(*seed);
        }
        groups
    }
}

/// A reason without its numbers.
fn signature(reason: &str) -> String {
    let mut text = String::new();
    for letter in reason.chars() {
        match letter {
            _ if !letter.is_ascii_digit() => text.push(letter),
            _ if text.ends_with('#') => {}
            _ => text.push('#'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(seed: u64) -> Judged {
        let failure = Failure { check: "a_law".into(), reason: format!("entry {} is lost", seed * 7), at_ms: 5 };
        Judged {
            seed,
            failure: seed.is_multiple_of(10).then_some(failure),
            probes: [("hit".to_owned(), 2)].into(),
            events: 100,
            cpu_us: 500_000,
        }
    }

    #[test]
    fn every_seed_is_run_once_and_counted() {
        let told = AtomicUsize::new(0);
        let seeds: Vec<u64> = (0..100).collect();
        let all = sweep(&seeds, 4, &judged, &|_| {
            told.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(all.iter().map(|judged| judged.seed).collect::<Vec<_>>(), seeds);
        assert_eq!(told.into_inner(), 100);
        let swept = Swept::of(&all, &["hit", "missed"]);
        assert_eq!((swept.seeds, swept.held, swept.failures.len(), swept.events), (100, 90, 10, 10_000));
        assert_eq!(swept.cpu_s, 50.0);
        assert_eq!((swept.probes["hit"], swept.never_hit()), (200, vec!["missed"]));
    }

    #[test]
    fn failures_that_differ_in_numbers_are_one() {
        let swept = Swept::of(&[judged(0), judged(10), judged(20)], &[]);
        let groups = swept.by_signature();
        assert_eq!(groups, [("a_law: entry # is lost".to_owned(), vec![0, 10, 20])].into());
    }

    #[test]
    fn shards_share_all_seeds_among_them() {
        let part = |text: &str| seeds(0..10, text.parse().unwrap(), &BTreeSet::from([4]));
        assert_eq!((part("1/3"), part("2/3"), part("3/3")), (vec![0, 3, 6, 9], vec![1, 7], vec![2, 5, 8]));
        for text in ["", "0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
