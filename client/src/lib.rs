//! Slots, sessions, operations, driver and Chrystoki.conf: the safe face of PKCS #11.
//!
//! ```text
//! Module -> Process (what a fork keeps: slots, sessions, handles, tickets)
//!              |--> operations: sign, encrypt, digest, find ... as their plans say
//!              '--> World (what a fork replaces: links, groups, threads, locks) -> ha::Group -> Seam
//! ```
#![forbid(unsafe_code)]

mod asking;
mod atoms;
mod buffer;
mod calendar;
pub mod conf;
mod crypto;
mod digest;
mod drive;
mod encrypt;
mod error;
mod events;
mod expiry;
mod face;
mod halog;
mod handles;
mod head;
mod host;
mod lengths;
mod local;
mod log;
mod login;
mod meter;
#[cfg(test)]
mod models;
mod module;
mod objects;
mod operation;
mod outlet;
mod page;
mod parameters;
mod parts;
mod plans;
mod process;
mod random;
mod reload;
mod sessions;
mod sign;
mod slab;
mod slots;
mod tender;
mod world;

pub use error::{Error, Result};
pub use face::{
    AttributeResult, HaState, InitializeOptions, LIBRARY_DESCRIPTION, LIBRARY_VERSION, MANUFACTURER,
    Produced, Room, SessionInfo, SlotInfo, TokenInfo, Version,
};
pub use ha::Output;
pub use host::{Around, Host, enter};
pub use module::{Entered, Life, Module, Root};
#[cfg(unix)]
pub use ntls::platform::Inherited;
pub use page::{Mapper, Mapping};
pub use parameters::parameter_bytes;
pub use process::Through;
pub use spec::messages::MechanismFacts;

/// The sockets of the links that a forked child has inherited, each told once: to be closed by number, unless another file has
/// that number by now, in the child's first call and before [`Module::forked`] (HA 6). Called anywhere else it only makes a
/// later child forget them.
#[cfg(unix)]
pub fn inherited() -> impl Iterator<Item = Inherited> {
    ntls::platform::take_inherited()
}

/// Takes back the memory of an output that has been read, and wipes it: the thread's next output may be written into it.
pub fn give_back(output: Output) {
    ha::give_back(output);
}
