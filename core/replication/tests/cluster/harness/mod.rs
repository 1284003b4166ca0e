//! The world that the tests run nodes in: an application, disks, a network, faults, clients, and the laws' checks.

pub(crate) mod checks;
pub(crate) mod disk;
mod driver;
pub(crate) mod faults;
pub(crate) mod kv;
pub(crate) mod machine;
pub(crate) mod net;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod talk;
pub(crate) mod trace;
mod trouble;
pub(crate) mod workload;
pub(crate) mod world;

use lockstep_replication::rng::Rng;

/// One microsecond of world time, which is counted in nanoseconds.
pub(crate) const MICROS: u64 = 1_000;
/// One millisecond of world time.
pub(crate) const MILLIS: u64 = 1_000 * MICROS;
/// One second of world time.
pub(crate) const SECONDS: u64 = 1_000 * MILLIS;

/// A number from `low` to `high`, both possible.
pub(crate) fn between(rng: &mut Rng, low: u64, high: u64) -> u64 {
    low + rng.below(high.saturating_sub(low) + 1)
}

/// One of these, evenly.
pub(crate) fn one_of<T: Copy>(rng: &mut Rng, these: &[T]) -> T {
    these[rng.below(these.len() as u64) as usize]
}
