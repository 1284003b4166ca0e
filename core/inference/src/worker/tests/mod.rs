//! Conversations of workers with runners that are played.

mod lives;
mod stage;
mod tasks;
mod world;
