//! NTLS: frames, mutually authenticated TLS 1.3, links.
//!
//! ```text
//! links (Seam)   exchange (tools)        one request out, one answer back
//!        \         /
//!          channel                       handshake, Hello, frames over one TLS connection
//!        /    |    \
//!    frame   tls   instance              the codec; whom to trust; who the application is
//!             |
//!        certificate                     identities and pinned certificates in files
//! ```
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod certificate;
mod channel;
pub mod exchange;
pub mod frame;
pub mod instance;
mod link;
pub mod links;
pub mod platform;
mod reason;
pub mod tls;

pub use channel::ServerAddress;
pub use tls::{ClientRegistry, Refusal, RegisteredClient};

/// Fills a buffer from the cryptographic library's own generator (for keys and nonces that no simulation repeats).
fn fill_random(buffer: &mut [u8]) {
    aws_lc_rs::rand::fill(buffer).expect("the generator of aws-lc does not fail once the process runs");
}
