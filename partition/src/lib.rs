//! PKCS#11 object logic, cryptography, roles, seal: the security boundary.
#![forbid(unsafe_code)]

pub mod digest_tree;
pub mod mechanisms;
mod padding;
pub mod store;
