//! A member that lies: it holds the cluster's key, and sends garbage, forgeries, impossible claims and floods. What it
//! says is dropped and counted; states stay equal, and writes go on.

mod forged_gossip;
mod gossip;
mod hostile;
mod lanes;
mod scene;
