//! Routing, make-then-store, repair: no I/O, clock or chance of its own (HA 1 to 4).
//!
//! [`Group`] is the public face. Everything that touches the world goes through [`spec::platform::Platform`] and
//! [`spec::seam::Seam`], so the same code runs over links, over partitions in the process and under simulation.
#![forbid(unsafe_code)]

mod avoid;
mod call;
mod change;
mod compare;
mod cost;
mod create;
mod debt;
mod desk;
mod error;
mod find;
mod group;
mod histogram;
mod lease;
mod load;
mod member;
mod membership;
mod minimum;
mod moves;
mod repair;
mod role;
mod route;
mod settings;
mod spread;
mod status;
mod tend;
#[cfg(test)]
mod testing;
mod view;

pub use call::Answered;
pub use compare::{Compared, Comparison, Summary};
pub use error::Error;
pub use group::Group;
pub use membership::{Change, Changed};
pub use minimum::Minimum;
pub use route::Policy;
pub use settings::GroupSettings;
pub use status::{GroupStatus, MemberState, MemberStatus};
