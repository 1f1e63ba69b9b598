//! Surroundings given by the program that links the library: partitions of its own process in the place of links, so
//! that the C functions can be tried without a network. Nothing of it is exported: an application that loads
//! `libhatoki.so` cannot reach it.
use std::sync::{Arc, OnceLock};

use client::conf::Configuration;
use spec::platform::Platform;
use spec::seam::Seam;

/// What one `C_Initialize` works over.
pub struct Surroundings {
    /// What carries requests.
    pub seam: Arc<dyn Seam>,
    /// Clock, chance and threads.
    pub platform: Arc<dyn Platform>,
    /// In the place of `Chrystoki.conf`.
    pub configuration: Configuration,
}

type Given = Box<dyn Fn() -> Surroundings + Send + Sync>;

static GIVEN: OnceLock<Given> = OnceLock::new();

/// Every later `C_Initialize` of this process works over what `make` gives instead of the configured servers. The first
/// `make` stays.
pub fn over(make: impl Fn() -> Surroundings + Send + Sync + 'static) {
    let _ = GIVEN.set(Box::new(make));
}

/// What was given, if anything was.
pub(crate) fn given() -> Option<Surroundings> {
    GIVEN.get().map(|make| make())
}
