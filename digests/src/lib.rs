//! Hashes, RSA paddings and public-key operations that run in the application's process as well as on a member (DESIGN 1,
//! RULES 1.8, 1.10).
#![forbid(unsafe_code)]

mod ecdsa;
mod hash;
pub mod padding;
mod public;
mod running;

pub use ecdsa::{EcCurve, EcPublicKey, Number};
pub use hash::{Digest, Hash, digest};
pub use public::{
    PublicKey, Random, RsaPublicKey, Scheme, filled, modulus_bits, public_exponent, significant,
};
pub use running::{BadState, Running};
