//! Putting entries and proposals into their order, noticing what is missing, and getting it.

pub mod buffer;
pub mod multi_source;
pub mod repair;
pub mod replay;
