//! The simulated links (HA 5, HA 8): the real links of `ntls` over simulated sockets, to servers that speak TLS and frames,
//! with everything else decided by a seed. It goes below the seam, where the other simulated world begins.
//!
//! ```text
//! run(seed): World (time, threads, events)
//!   callers, attendant, operator --seam--> ntls::Links --Desk (Platform)--> Wire (socket) --> Server (TLS, frames, service)
//!                                 Ledger (what was asked, executed, answered) -> checks        Nemesis (faults)
//! ```
//! The bytes of TLS are not seeded: they are as many for every run of a seed, since all signatures of the handshake are
//! Ed25519, and nothing else of them is looked at.
mod caller;
pub(crate) mod desk;
pub(crate) mod ledger;
pub(crate) mod nemesis;
pub(crate) mod papers;
mod process;
mod run;
pub(crate) mod server;
pub(crate) mod service;
mod theme;
pub(crate) mod wire;

pub use run::run;

/// Nanoseconds of a microsecond.
const US: u64 = 1_000;
/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;
/// Nanoseconds of a second.
const S: u64 = 1_000_000_000;
