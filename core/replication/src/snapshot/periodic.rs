//! When a periodic snapshot is due. Indexes are round ones, so that nodes that make one at the same index hold equal bytes.

use crate::config::Config;
use crate::id::Index;
use crate::time::Moment;

/// Watches the log grow.
#[derive(Clone, Debug, Default)]
pub struct Periodic {
    /// When the last one was due, or came; none before the first.
    last_at: Option<Moment>,
    /// The size of the last one.
    last_bytes: u64,
    /// Bytes of log since then.
    log_bytes: u64,
    /// Whether one is being made.
    under_way: bool,
}

impl Periodic {
    /// An entry of so many bytes was applied, `next` is one past it. Whether a snapshot of the state *as it is now* is due:
    /// on multiples of `snapshot_every`, when enough time went by and enough log came since the last.
    pub fn applied(&mut self, now: Moment, next: Index, entry_bytes: usize, config: &Config) -> bool {
        self.log_bytes = self.log_bytes.saturating_add(entry_bytes as u64);
        let round = next.0.checked_rem(config.snapshot_every) == Some(0);
        let early = self.last_at.is_some_and(|last| now.since(last) < config.snapshot_at_least);
        if !round || early || self.under_way || self.log_bytes < self.last_bytes {
            return false;
        }
        self.last_at = Some(now);
        self.log_bytes = 0;
        self.under_way = true;
        true
    }

    /// The snapshot that was due has this size (compressed).
    pub fn made(&mut self, bytes: u64) {
        self.last_bytes = bytes;
        self.under_way = false;
    }

    /// One of this size came from elsewhere: it is as good as one that was due now.
    pub fn came(&mut self, now: Moment, bytes: u64) {
        *self = Periodic { last_at: Some(now), last_bytes: bytes, ..Periodic::default() };
    }

    /// It could not be made: the next round index will do.
    pub fn failed(&mut self) {
        self.last_bytes = 0;
        self.under_way = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;

    /// At which indexes snapshots are due, of entries that come each millisecond and have so many bytes.
    fn due(until: u64, entry_bytes: usize, size: u64, config: &Config) -> Vec<u64> {
        let mut periodic = Periodic::default();
        let mut due = Vec::new();
        for next in 1..=until {
            if periodic.applied(Moment(0) + Span::millis(next), Index(next), entry_bytes, config) {
                due.push(next);
                periodic.made(size);
            }
        }
        due
    }

    #[test]
    fn they_fall_on_round_indexes_at_least_a_second_apart() {
        let every = |snapshot_every| Config { snapshot_every, ..Config::default() };
        assert_eq!(due(3000, 100, 1, &every(1000)), [1000, 2000, 3000]);
        assert_eq!(due(3000, 100, 1, &every(400)), [400, 1600, 2800]);
        assert_eq!(due(3000, 100, 1, &every(0)), []);
    }

    #[test]
    fn the_log_since_the_last_is_as_large_as_it() {
        let config = Config { snapshot_every: 1000, ..Config::default() };
        assert_eq!(due(9000, 100, 250_000, &config), [1000, 4000, 7000]);
    }

    #[test]
    fn one_that_came_from_elsewhere_stands_for_the_one_that_was_due() {
        let config = Config { snapshot_every: 100, ..Config::default() };
        let mut periodic = Periodic::default();
        periodic.came(Moment(0) + Span::millis(5000), 1);
        let mut applied = |next| periodic.applied(Moment(0) + Span::millis(next), Index(next), 100, &config);
        assert!(!applied(5100) && !applied(5900), "its second is not over");
        assert!(applied(6000));
    }

    #[test]
    fn there_is_one_at_a_time_and_a_failed_one_is_made_up_for() {
        let config = Config { snapshot_every: 2000, ..Config::default() };
        let mut periodic = Periodic::default();
        let applied = |next: u64, periodic: &mut Periodic| {
            periodic.applied(Moment(0) + Span::millis(next), Index(next), 100, &config)
        };
        assert!(applied(2000, &mut periodic));
        assert!(!applied(4000, &mut periodic), "the first is still being made");
        periodic.made(1_000_000);
        assert!(!applied(6000, &mut periodic));
        periodic.failed();
        assert!(applied(8000, &mut periodic));
    }
}
