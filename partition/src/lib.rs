//! PKCS#11 object logic, cryptography, roles, seal: the security boundary. Pure: no network, disk or clock of its own;
//! a [`store::Store`] and the time of each request are arguments.
//!
//! ```text
//! handle(caller, header, body, now) -> dispatch -> roles (ticket) -> objects | batch | uses | manifest | repair
//!                                                   contents (index in memory) -> seal -> store
//! ```
#![forbid(unsafe_code)]

mod batch;
mod bounds;
mod canonical;
mod census;
mod contents;
mod cost;
pub mod digest_tree;
mod dispatch;
mod domain;
mod engine;
mod error;
mod fields;
mod follow;
pub mod in_process;
mod index;
mod lease;
mod left;
mod loading;
mod manifest;
pub mod mechanisms;
mod message;
mod objects;
mod partition;
mod placed;
mod quarantine;
mod random;
mod reading;
mod repair;
mod roles;
mod seal;
mod session_objects;
mod settings;
mod sightings;
pub mod store;
mod uses;

pub use cost::Cost;
pub use domain::DomainSecret;
pub use error::Error;
pub use partition::{Caller, LinkFacts, Partition};
pub use quarantine::{Found, Quarantined};
pub use random::{Random, SystemRandom};
pub use reading::Reading;
pub use settings::{PIN_BYTES_MAX, Settings};
pub use sightings::Contradiction;
