//! A machine's clocks against the world's time.

use lockstep_replication::{Moment, Now, Wall};

use crate::plan::MILLIS;

/// The wall clock at the world's beginning, in milliseconds.
const WALL_AT_FIRST: i64 = 1_800_000_000_000;

/// Both clocks of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What the monotonic clock said at the world's beginning.
    began: u64,
    /// How much faster than the world's it runs, in millionths.
    drift: u64,
    /// The wall clock at the world's time `wall_from`, in milliseconds.
    wall: i64,
    wall_from: u64,
    /// How much faster than the world's the wall clock runs, in millionths.
    wall_drift: i64,
}

impl Clock {
    /// Clocks as they are at first.
    pub fn new(drift: u64) -> Clock {
        Clock { began: 0, drift, wall: WALL_AT_FIRST, wall_from: 0, wall_drift: 0 }
    }

    /// The machine starts: its monotonic clock begins anywhere.
    pub fn restarted(&mut self, began: u64) {
        self.began = began;
    }

    /// Both clocks at a time of the world.
    pub fn now(&self, time: u64) -> Now {
        Now { at: Moment(self.began + time + scaled(time, self.drift)), wall: Wall(self.wall_at(time).max(0) as u64) }
    }

    /// The first time of the world at which the monotonic clock shows at least this.
    pub fn when(&self, at: Moment) -> u64 {
        let elapsed = at.0.saturating_sub(self.began);
        if self.drift == 0 {
            return elapsed;
        }
        let mut time = (u128::from(elapsed) * 1_000_000 / (1_000_000 + u128::from(self.drift))) as u64;
        while self.now(time).at < at {
            time += 1;
        }
        time
    }

    /// The wall clock jumps.
    pub fn step_wall(&mut self, millis: i64) {
        self.wall += millis;
    }

    /// The wall clock runs faster or slower from now on.
    pub fn drift_wall(&mut self, time: u64, millionths: i64) {
        (self.wall, self.wall_from) = (self.wall_at(time), time);
        self.wall_drift = millionths;
    }

    fn wall_at(&self, time: u64) -> i64 {
        let elapsed = ((time - self.wall_from) / MILLIS) as i64;
        self.wall + elapsed + elapsed * self.wall_drift / 1_000_000
    }
}

fn scaled(time: u64, millionths: u64) -> u64 {
    if millionths == 0 { 0 } else { (u128::from(time) * u128::from(millionths) / 1_000_000) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_comes_when_the_clock_shows_its_time_and_not_before() {
        for drift in [0, 1, 100, 10_000] {
            let mut clock = Clock::new(drift);
            clock.restarted(77);
            for at in [78, 1_000, 123_456_789, 3_600_000_000_000].map(Moment) {
                let when = clock.when(at);
                assert!(clock.now(when).at >= at && (when == 0 || clock.now(when - 1).at < at), "{drift} {at:?}");
            }
        }
    }

    #[test]
    fn a_wall_clock_drifts_from_where_it_stood() {
        let mut clock = Clock::new(0);
        clock.drift_wall(1_000 * MILLIS, -500_000);
        assert_eq!(clock.now(3_000 * MILLIS).wall.0 - WALL_AT_FIRST as u64, 2_000);
    }
}
