//! Switches for the simulator alone: branches that are counted, moods of a node that the laws allow, faults that they do not.
//!
//! They are compiled in by the feature `simulation`; without it `probe!`, `buggify!` and `mutant!` leave nothing
//! behind. What they look at belongs to the thread, since a run stays on one thread from its beginning to its end, and it
//! is handed in: nothing is drawn here but by key, so a run that is repeated meets the same moods at the same steps.

mod mutants;
mod names;
#[cfg(test)]
mod tests;

use std::cell::Cell;

pub use mutants::Mutant;
pub use names::{MOODS, PROBES};

/// Counts that this branch was taken. The name must be in [`PROBES`].
macro_rules! probe {
    ($name:literal) => {
        $crate::chaos::hit(const { $crate::chaos::place_of($name, $crate::chaos::PROBES) })
    };
}

/// Whether a node does now what it seldom does, though it may. The name must be in [`MOODS`]. Ask only where something is
/// done in any case: a wake-up that comes too early must still change nothing.
macro_rules! buggify {
    ($name:literal) => {
        $crate::chaos::fires(const { $crate::chaos::place_of($name, $crate::chaos::MOODS) })
    };
}

/// Whether this fault is planted in the nodes of this thread; with a block, that it does its harm there.
macro_rules! mutant {
    ($mutant:ident) => {
        $crate::chaos::is_planted($crate::chaos::Mutant::$mutant)
    };
    ($mutant:ident, $broken:block) => {
        if mutant!($mutant) $broken
    };
}

/// How the nodes of this thread behave. The default is: as they should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chaos {
    /// The fault that is planted in them.
    pub mutant: Option<Mutant>,
    /// From what their moods are drawn; none: they have none.
    pub moods: Option<u64>,
}

/// One mood in so many is armed in a run.
const ARMED_ONE_IN: u64 = 3;

/// An armed mood takes a node once in so many times.
const FIRES_ONE_IN: u64 = 8;

thread_local! {
    static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
    static SEED: Cell<u64> = const { Cell::new(0) };
    /// A bit for each mood that is armed.
    static ARMED: Cell<u64> = const { Cell::new(0) };
    /// Which node steps now, and which of the run's steps it is.
    static STEP: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    /// How often a mood was asked about in this step.
    static ASKED: Cell<u64> = const { Cell::new(0) };
    static HITS: [Cell<u64>; PROBES.len()] = const { [const { Cell::new(0) }; PROBES.len()] };
}

/// From here on the nodes of this thread behave so.
pub fn set(chaos: Chaos) {
    MUTANT.set(chaos.mutant);
    SEED.set(chaos.moods.unwrap_or_default());
    let armed = |seed: u64| {
        let is_armed = |place: &u64| mixed([seed, u64::MAX, *place, 0]).is_multiple_of(ARMED_ONE_IN);
        (0..MOODS.len() as u64).filter(is_armed).fold(0, |armed, place| armed | 1 << place)
    };
    ARMED.set(chaos.moods.map_or(0, armed));
}

/// The next step is this node's, and the run's `step`th: what moods are drawn by.
pub fn step(node: u64, step: u64) {
    STEP.set((node, step));
    ASKED.set(0);
}

/// How often each of [`PROBES`] was hit in this thread since the last call.
pub fn take_hits() -> [u64; PROBES.len()] {
    HITS.with(|hits| std::array::from_fn(|place| hits[place].take()))
}

pub(crate) fn hit(place: usize) {
    HITS.with(|hits| hits[place].set(hits[place].get() + 1));
}

pub(crate) fn fires(place: usize) -> bool {
    if ARMED.get() >> place & 1 == 0 {
        return false;
    }
    let (node, step) = STEP.get();
    let asked = ASKED.get() + 1;
    ASKED.set(asked);
    mixed([SEED.get(), node, step, asked << 8 | place as u64]).is_multiple_of(FIRES_ONE_IN)
}

pub(crate) fn is_planted(mutant: Mutant) -> bool {
    MUTANT.get() == Some(mutant)
}

/// Where a name stands in its list. Called only while compiling, so a name that is missing there does not compile.
pub(crate) const fn place_of(name: &str, names: &[&str]) -> usize {
    let mut place = 0;
    while place < names.len() {
        if is_same(name.as_bytes(), names[place].as_bytes()) {
            return place;
        }
        place += 1;
    }
    panic!("the name is not in its list in chaos/names.rs");
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A number that depends on all of these, and looks like no function of them.
fn mixed(words: [u64; 4]) -> u64 {
    // Multiply, rotate, fold, as splitmix64 ends: enough for dice that nobody plays against.
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |mix, word| {
        let mix = (mix ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mix = (mix ^ (mix >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mix ^ (mix >> 32)
    })
}
