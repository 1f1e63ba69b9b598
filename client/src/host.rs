//! What the library, a guest in an application's process, asks of the C boundary because safe code cannot do it: to keep
//! away from the application's signals, and to know whether the environment is an attacker's.

use crate::{conf, outlet};

/// Runs something with some of the calling thread's signals held back.
pub type Around = fn(&mut dyn FnMut());

/// The process that the library is a guest in. All of it holds for the process and not for one life of the module.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Threads are started within: whatever is blocked there stays blocked in the new thread, so that the application's
    /// handlers run on threads of its own.
    pub start_threads: Around,
    /// Logs and metrics pages are written within: no signal of a write (SIGPIPE, SIGXFSZ) reaches the application.
    pub write_log: Around,
    /// The process has more rights than the user who started it (set-uid and its like): the environment is that user's and
    /// says nothing.
    pub is_privileged: bool,
}

/// The library behaves as such a guest from now on; what was said first stays.
pub fn enter(host: Host) {
    ntls::platform::start_threads_within(host.start_threads);
    outlet::write_within(host.write_log);
    if host.is_privileged {
        conf::distrust_environment();
    }
}
