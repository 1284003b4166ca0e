//! The switches as everything but the simulator is built: nothing is counted, nothing is broken, and nothing is left of them.

macro_rules! probe {
    ($name:literal) => {
        ()
    };
}

macro_rules! buggify {
    ($name:literal) => {
        false
    };
}

macro_rules! mutant {
    ($mutant:ident) => {
        false
    };
    ($mutant:ident, $broken:block) => {};
}
