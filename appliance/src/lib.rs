//! The appliance: `hsmd`, the partition server, and what `hsm`, its operator tool, is made of.
//!
//! ```text
//! start -> server -> listener -> greeting -> drive (link, wire) -> handler (partition)   clients, over TLS
//!             |                                      \--> workers                what must not stop a link
//!             +---> peers (ha: repair between appliances)
//!             +---> admin (socket, verbs) <- tool                              operators, over a Unix socket
//! appliance: data_dir, book, root_key, domains, partitions (store), registry, server_identity, sightings, expiry
//! ```
#![forbid(unsafe_code)]

pub mod admin;
pub mod appliance;
pub mod book;
mod clock;
pub mod config;
pub mod data_dir;
pub mod domains;
mod drive;
pub mod error;
pub mod expiry;
mod fair;
pub mod greeting;
pub mod handler;
pub mod hex;
pub mod link;
pub mod listener;
mod log;
pub mod memory;
mod outbox;
pub mod partitions;
pub mod peers;
mod pem;
pub mod registry;
pub mod root_key;
pub mod served;
pub mod server;
pub mod server_identity;
mod shared;
pub mod sightings;
pub mod start;
pub mod store;
pub mod tool;
mod wire;
pub mod workers;
