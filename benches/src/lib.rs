//! What the benches share: a made-up past, a cluster with so many live tasks, and two nodes in memory of which one catches up. The same on every run.

pub mod crowd;
pub mod pair;
pub mod past;
