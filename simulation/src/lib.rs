//! The proof of the rules of HA: the exhaustive model of objects and writes (HA 1, 2) in `tests/model`, and here the
//! simulated world (HA 8): the real `client` and `ha` over real partitions, with everything else decided by a seed.
//!
//! ```text
//! run(seed): World (time, threads, events) -- Network (the seam) -- Members (partitions) -- Disk
//!               '-- Process x 2 (module, threads)     Nemesis (faults)     History (what was answered) -> checks
//! ```
#![forbid(unsafe_code)]

mod attributes;
mod books;
mod breaks;
mod chance;
mod changes;
mod disk;
mod fork;
mod history;
pub mod links;
mod members;
mod nemesis;
mod network;
mod operator;
mod overload;
mod pins;
mod platform;
mod register;
mod run;
mod theme;
mod watch;
mod ways;
pub mod whole;
mod workload;
mod world;

pub use overload::{Left, Load, overload, overload_that_lasts};
pub use run::{Outcome, Wish, plant, run};
pub use spec::planted::Bug;
