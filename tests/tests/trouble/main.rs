//! What is wrong with what a node is given: its configuration, its store, its clients, its peers.

mod configuration;
mod http;
mod peers;
mod store;
mod strangers;
