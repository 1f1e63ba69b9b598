//! libhatoki.so: PKCS#11 with high availability.
//!
//! Everything that is C stands in the private module `abi`: names, types, pointers, `unsafe`. It parses what the application gave and
//! calls the safe API of the crate `client`, which decides everything.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod over;

#[doc(hidden)]
pub use over::{Surroundings, over};
