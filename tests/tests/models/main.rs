//! Models that run on nodes: their cards, their programs, their answers, and their ends.

mod cards;
mod limits;
mod programs;
mod python;
mod streams;
mod trouble;
