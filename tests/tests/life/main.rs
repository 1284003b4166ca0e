//! The life of a cluster: it comes up, idles, loses its leader, its power, its links, and gets joiners.

mod failover;
mod idle;
mod joiner;
mod partition;
mod power_cut;
mod up;
