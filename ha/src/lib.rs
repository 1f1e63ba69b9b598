//! Routing, make-then-store, repair: no I/O, clock or chance of its own (HA 1 to 4).
//!
//! [`Group`] is the public face. Everything that touches the world goes through [`spec::platform::Platform`] and
//! [`spec::seam::Seam`], so the same code runs over links, over partitions in the process and under simulation.
#![forbid(unsafe_code)]

mod avoid;
mod call;
mod change;
mod create;
mod debt;
mod desk;
mod error;
mod find;
mod group;
mod member;
mod minimum;
mod repair;
mod role;
mod route;
mod spread;
mod status;
mod tend;
#[cfg(test)]
mod testing;

pub use call::Answered;
pub use error::Error;
pub use group::{Group, GroupSettings};
pub use minimum::Minimum;
pub use status::{GroupStatus, MemberState, MemberStatus};
