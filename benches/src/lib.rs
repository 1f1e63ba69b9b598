//! What is measured, on whom, and how: the parts of the programs and of the criterion benchmarks in this folder.
//!
//! ```text
//! contestants    module (a PKCS #11 module by path)    library (AWS-LC, nothing around it)    link (one request, one reply)
//!                      \            |            /           bare (TLS alone, for much data)
//! work                  one operation, proven right once for each worker
//!                                   |
//! window                so many threads for so long: rate, quantiles, processor time here and in other processes
//!                                   |
//! bin/load              windows as a pipe asks for them, so that contestants are measured in turn  <-  child (for criterion)
//!
//! null, counting        the module over a link that answers at once; allocations counted  ->  bin/dispatch, bin/count
//! ```
//! `cargo xtask bench` runs all of it and writes docs/performance.md. No time is asserted anywhere.

pub mod bare;
pub mod caller;
pub mod child;
pub mod counting;
pub mod histogram;
pub mod library;
pub mod link;
pub mod module;
pub mod null;
pub mod processor;
pub mod window;
pub mod work;
