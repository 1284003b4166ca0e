//! The other world: whole inference clusters. Real nodes, each with its real worker and gateway; modelled runners that
//! load, answer, crash, hang and print garbage; modelled clients that read, are slow or hang up.
//!
//! It is made of the parts of the first world: its dice, network, disks and clocks. [`Plan`] says everything about a run;
//! [`run()`] plays it. What is checked, and how, says [`checks`].

pub mod checks;
mod clients;
mod draw;
mod faults;
mod links;
mod load;
mod machine;
pub mod plan;
mod runners;
mod running;
mod working;
mod world;

pub use load::is_inference;
pub use plan::Plan;
pub use running::run;
