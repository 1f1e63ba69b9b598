//! Routing, make-then-store, repair: no I/O, clock or chance of its own (HA 1 to 4).
//!
//! [`Group`] is the public face. Everything that touches the world goes through [`spec::platform::Platform`] and
//! [`spec::seam::Seam`], so the same code runs over links, over partitions in the process and under simulation.
#![forbid(unsafe_code)]

mod abilities;
mod admission;
mod atoms;
mod attempts;
mod avoid;
mod body;
mod change;
mod compare;
mod cost;
mod create;
mod debt;
mod desk;
mod errand;
mod error;
mod find;
mod group;
mod hedge;
mod histogram;
mod in_call;
mod kit;
mod known;
mod lease;
mod line;
mod load;
mod meaning;
mod member;
mod membership;
mod minimum;
#[cfg(test)]
mod models;
mod moves;
mod open;
mod output;
mod ready;
mod repair;
mod reply;
mod role;
mod route;
mod settings;
mod snapshot;
mod spread;
mod status;
mod tend;
#[cfg(test)]
mod testing;
mod verdict;
mod view;

pub use body::SentUse;
pub use compare::{Compared, Comparison, Summary};
pub use error::Error;
pub use group::Group;
pub use kit::{give_back, spare_output};
pub use membership::{Change, Changed};
pub use minimum::Minimum;
pub use output::{Output, Used};
pub use ready::Answered;
pub use route::Policy;
pub use settings::GroupSettings;
pub use status::{GroupStatus, MemberState, MemberStatus};
