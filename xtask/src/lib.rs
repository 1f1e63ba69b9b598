//! Demo, lab and test: what `cargo xtask` does, as a library for the process tests.
//!
//! ```text
//! demo   chaos   bench   check (test)   docs
//!   |  \    |
//!   |   packages        what must be installed
//!  lab                  real appliances, a ready client
//!   |
//! process, cargo        other programs
//! signing, c_caller     the demo's own application: the only unsafe code here is in `c_caller`
//! ```
pub mod bench;
mod c_caller;
pub mod cargo;
pub mod chaos;
pub mod check;
pub mod demo;
pub mod docs;
pub mod lab;
pub mod packages;
pub mod problem;
pub mod process;
pub mod proxy;
pub mod signing;
