//! What the benches share: a made-up past, and two nodes in memory of which one catches up. The same on every run.

pub mod pair;
pub mod past;
