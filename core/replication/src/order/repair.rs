//! Getting what is missing: a hole is asked for without a storm ([`GapRepair`]), and answered once for all ([`Repairer`]).

mod answering;
mod asking;
#[cfg(test)]
mod simulation;

pub use answering::{Asked, Repair, RepairTo, Repairer};
pub use asking::{Ask, GapChange, GapRepair};
