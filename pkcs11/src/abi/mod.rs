//! The C boundary: the only place that speaks C, and one of the two that may use `unsafe`.
//!
//! ```text
//! application -> functions (one row per C function: raw signature = one safe expression)
//!                  -> trampoline (fork check, catch_unwind, one log line, CK_RV)
//!                       -> caller (arguments, outputs)  -> pointer (every raw read and write)
//!                            convert (C shapes <-> ours)
//!                       -> client::Module
//! extensions: the vendor's functions beside the standard's
//! signals: what keeps the library away from the application's signals
//! mapping: the metrics pages' shared memory
//! lists: the function lists and interfaces, made from the same rows
//! ```

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod attributes;
mod caller;
mod convert;
mod extensions;
mod fork;
mod functions;
mod general;
mod lists;
#[cfg(unix)]
mod mapping;
mod mechanism;
mod pointer;
mod signals;
mod template;
#[cfg(test)]
mod tests;
mod trampoline;
