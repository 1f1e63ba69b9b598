//! NTLS: frames, mutually authenticated TLS 1.3, links.
//!
//! ```text
//! links (Seam) -- wait (lent), duty      who waits drives: leads links, connects, watches; woken by a token (platform, token)
//!    |
//! server -- link -- lead, pen            one server; one connection; who reads and who writes for all
//!             |
//!            dial     exchange (tools)   from an address to an answered Hello; one request, one answer
//!              \       /
//!               channel                  encryption and frames of one TLS connection, without its socket
//!        /    |    \
//!    frame   tls   instance              the codec; whom to trust; who the application is
//!             |
//!        certificate                     identities and pinned certificates in files
//! ```
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod certificate;
mod channel;
mod dial;
mod duty;
pub mod exchange;
pub mod frame;
mod inspect;
pub mod instance;
mod lead;
mod lent;
mod link;
pub mod links;
mod material;
mod names;
mod pen;
pub mod platform;
mod reason;
mod registry;
mod routes;
mod server;
pub mod tls;
mod token;
mod up;
mod wait;

pub use channel::ServerAddress;
pub use tls::{ClientRegistry, Refusal, RegisteredClient};

/// Fills a buffer from the cryptographic library's own generator (for keys and nonces that no simulation repeats).
fn fill_random(buffer: &mut [u8]) {
    aws_lc_rs::rand::fill(buffer).expect("the generator of aws-lc does not fail once the process runs");
}
