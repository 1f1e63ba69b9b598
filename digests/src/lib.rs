//! Hashes and public-key checks that run in the application's process as well as on a member (DESIGN 1, RULES 1.8).
#![forbid(unsafe_code)]

mod ecdsa;
mod hash;
mod running;

pub use ecdsa::{EcCurve, Refusal, verify_ecdsa};
pub use hash::{Hash, digest};
pub use running::{BadState, Running};
