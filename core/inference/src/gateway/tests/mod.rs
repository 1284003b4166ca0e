//! Conversations of gateways with workers and clients that are played.

mod answers;
mod inputs;
mod lossy;
mod stage;
mod tasks;
