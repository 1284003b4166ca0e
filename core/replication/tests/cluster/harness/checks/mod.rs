//! The checks of the laws. Each is told what happened and answers with a sentence when a law is broken.

pub(crate) mod converged;
pub(crate) mod ledger;
pub(crate) mod promises;
pub(crate) mod spoken;

#[cfg(test)]
mod forged;
