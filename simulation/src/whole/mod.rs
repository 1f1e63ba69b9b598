//! The whole in one run (HA 8): the real `client` and `ha` over the real links of `ntls`, over simulated sockets, to servers
//! that open TLS and frames and hand each request to a real partition over a simulated disk. Work, faults and checks above
//! the seam are those of the simulated world, those below it those of the simulated links.
//!
//! ```text
//! Process (module) -> ha -> Tap (the seam, looked at) -> ntls::Links -> Desk (Platform) -> Wire -> Server -> Partitions -> Disk
//!    History: what was answered    Ledger, Books: what was asked, executed, heard    Nemesis x 2: what goes wrong
//! ```
mod partitions;
mod tap;
mod ways;

use crate::run::{Outcome, Wish, run_over};
use crate::world::World;
use ways::Whole;

/// Runs a seed over the whole.
pub fn run(wish: Wish) -> Outcome {
    run_over(wish, Whole::new)
}

/// How long a request takes at a member at least and at most when nothing is slow, in nanoseconds.
const WORK: (u64, u64) = (20_000, 400_000);

fn work(world: &World) -> u64 {
    world.chance(|chance| chance.between(WORK.0, WORK.1))
}
