//! What a scripted request waits for, instead of some time.
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Opened once, by the test.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    /// Waits until it is open; a test that has failed does not open it.
    pub(crate) fn wait(&self) {
        let mut open = self.open.lock();
        let _ = self.opened.wait_while_for(&mut open, |open| !*open, Duration::from_secs(120));
    }
}
