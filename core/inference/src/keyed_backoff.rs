//! How long to wait before something that failed is tried again: apart for each key, longer after each failure.

use std::collections::BTreeMap;

use lockstep_replication::rng::Rng;
use lockstep_replication::{Moment, Seed, Span};

/// Waits by key. It knows only the keys that failed and were not forgotten since.
#[derive(Clone, Debug)]
pub struct KeyedBackoff<K> {
    first: Span,
    most: Span,
    rng: Rng,
    failures: BTreeMap<K, Failures>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    again: Moment,
}

impl<K: Ord + Clone> KeyedBackoff<K> {
    /// The first wait is `first`, each further one twice as long, none longer than `most`; up to a quarter is added by
    /// chance, so that nodes do not try in step.
    pub fn new(first: Span, most: Span, seed: Seed) -> KeyedBackoff<K> {
        KeyedBackoff { first, most, rng: seed.rng(), failures: BTreeMap::new() }
    }

    /// It failed: how often it has, this time included.
    pub fn failed(&mut self, now: Moment, key: &K) -> u32 {
        let count = self.failures(key).saturating_add(1);
        let wait = self.first.times(1 << (count - 1).min(62)).min(self.most);
        let again = now + wait + Span(self.rng.below(wait.0 / 4));
        self.failures.insert(key.clone(), Failures { count, again });
        count
    }

    /// How often it failed since it was last forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.failures.get(key).map_or(0, |failures| failures.count)
    }

    /// When it may be tried again; none: at any time.
    pub fn again(&self, key: &K) -> Option<Moment> {
        self.failures.get(key).map(|failures| failures.again)
    }

    /// It works, or it is gone: its next failure is its first.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// The keys that failed and were not forgotten, in order.
    pub fn tracked_keys(&self) -> impl Iterator<Item = &K> {
        self.failures.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> KeyedBackoff<&'static str> {
        KeyedBackoff::new(Span::seconds(1), Span::seconds(60), Seed::from_number(1))
    }

    #[test]
    fn each_failure_of_a_key_doubles_its_wait_up_to_the_longest() {
        let mut backoff = backoff();
        let now = Moment(5_000_000_000);
        for (failure, wait) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            assert_eq!(backoff.failed(now, &"a"), failure);
            let again = backoff.again(&"a").unwrap().since(now);
            assert!((Span::seconds(wait)..Span::millis(wait * 1250)).contains(&again), "{failure}: {again}");
        }
        assert_eq!((0..200).map(|_| backoff.failed(now, &"a")).last(), Some(208));
        assert!(backoff.again(&"a").unwrap().since(now) < Span::seconds(75));
    }

    #[test]
    fn keys_are_apart_and_leave_nothing_when_forgotten() {
        let mut backoff = backoff();
        backoff.failed(Moment(0), &"b");
        backoff.failed(Moment(0), &"a");
        assert_eq!(backoff.tracked_keys().collect::<Vec<_>>(), [&"a", &"b"]);
        backoff.forget(&"a");
        assert_eq!((backoff.failures(&"a"), backoff.again(&"a"), backoff.failures(&"b")), (0, None, 1));
        assert_eq!(backoff.tracked_keys().collect::<Vec<_>>(), [&"b"]);
    }
}
