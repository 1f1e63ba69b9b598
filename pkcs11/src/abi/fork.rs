//! Forks (HA 6): the child handler moves a counter and does nothing else; the first call in the child notices.
//!
//! ```text
//! settled(n) --fork--> stale (the counter says n + 1) --first call--> busy(n + 1) --forked() done--> settled(n + 1)
//! ```
//! No lock: one that another thread held at the fork would stay held in the child for ever.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spec::Rv;

/// How often this process is a child of one that had registered the handler.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The gate of the module.
pub(super) static GATE: Gate = Gate { forks: &FORKS, state: AtomicU64::new(0) };

/// Lets one caller clean up after a fork and makes the others wait for it.
pub(super) struct Gate {
    forks: &'static AtomicU64,
    /// Twice the number of forks seen, plus one while the cleaning runs.
    state: AtomicU64,
}

impl Gate {
    /// Runs `clean` if this is the first call since a fork; returns when the process is clean.
    pub(super) fn settle(&self, clean: impl FnOnce()) {
        let settled = self.forks.load(Ordering::Acquire) << 1;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state == settled {
                return;
            }
            if state == settled | 1 {
                std::thread::yield_now();
                continue;
            }
            // Older than the last fork, finished or not: whoever was cleaning then is not in this process.
            if self.state.compare_exchange(state, settled | 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                let _done = Done { state: &self.state, settled };
                clean();
                return;
            }
        }
    }
}

/// Opens the gate again, also when the cleaning panics.
struct Done<'a> {
    state: &'a AtomicU64,
    settled: u64,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.state.store(self.settled, Ordering::Release);
    }
}

/// Runs in the child of a fork, where almost nothing is allowed.
#[cfg(unix)]
extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Release);
}

/// Closes by number what the parent had open, in the first call in a child: nothing is written to it and the parent's
/// connections live on (HA 6). A number that stands for another file by now is the application's: it has closed what it
/// inherited and opened files of its own before it came here.
#[cfg(unix)]
pub(super) fn close_inherited(sockets: impl Iterator<Item = client::Inherited>) {
    for socket in sockets.filter(still_stands) {
        // SAFETY: the registry of `ntls` promises that the number was a socket's which this process inherited, and it
        // still is that one's; what owned it is leaked with the parent's world and never touched again.
        unsafe { libc::close(socket.descriptor) };
    }
}

/// Whether the number still stands for the file that was inherited.
#[cfg(unix)]
fn still_stands(socket: &client::Inherited) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is a local that outlives the call; a number that is not open is refused by the system.
    if unsafe { libc::fstat(socket.descriptor, stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the system has filled it, as its answer of 0 says.
    let stat = unsafe { stat.assume_init() };
    (stat.st_dev, stat.st_ino) == (socket.device, socket.inode)
}

/// Registers the child handler, once for the life of the process and its children.
///
/// # Errors
/// `CKR_HOST_MEMORY` when the system has no room for it.
pub(super) fn register() -> Result<(), Rv> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if REGISTERED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    #[cfg(unix)]
    {
        // SAFETY: the handler is async-signal-safe (one atomic addition) and the library is never unloaded
        // (`-z nodelete`), so it may be called at any later fork.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if refused != 0 {
            REGISTERED.store(false, Ordering::Release);
            return Err(Rv::HOST_MEMORY);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    #[cfg(unix)]
    fn a_number_is_closed_while_it_stands_for_the_inherited_file_and_not_afterwards() {
        use std::os::fd::{AsRawFd, IntoRawFd};
        use std::os::unix::fs::MetadataExt;
        let own = std::fs::File::open("/proc/self/stat").unwrap();
        let other = std::fs::File::open("/dev/null").unwrap();
        let meta = own.metadata().unwrap();
        let mut told =
            client::Inherited { descriptor: other.as_raw_fd(), device: meta.dev(), inode: meta.ino() };
        close_inherited(std::iter::once(told));
        assert!(other.metadata().is_ok(), "another file has the number");
        told.descriptor = own.into_raw_fd();
        assert!(still_stands(&told));
        close_inherited(std::iter::once(told));
        assert!(!still_stands(&told));
        told.descriptor = -1;
        close_inherited(std::iter::once(told));
    }

    #[test]
    fn one_caller_cleans_after_each_fork_and_the_others_wait() {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let gate = Gate { forks: &COUNTER, state: AtomicU64::new(0) };
        let cleaned = AtomicUsize::new(0);
        let clean = || {
            std::thread::sleep(std::time::Duration::from_millis(5));
            cleaned.fetch_add(1, Ordering::SeqCst);
        };
        gate.settle(clean);
        assert_eq!(cleaned.load(Ordering::SeqCst), 0);
        for fork in 1..=3 {
            COUNTER.fetch_add(1, Ordering::SeqCst);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        gate.settle(clean);
                        assert_eq!(cleaned.load(Ordering::SeqCst), fork);
                    });
                }
            });
        }
    }

    #[test]
    fn a_fork_during_the_cleaning_is_cleaned_again_in_the_child() {
        static COUNTER: AtomicU64 = AtomicU64::new(2);
        let gate = Gate { forks: &COUNTER, state: AtomicU64::new(3) };
        let mut cleaned = false;
        gate.settle(|| cleaned = true);
        assert!(cleaned);
        assert_eq!(gate.state.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn a_panic_while_cleaning_leaves_the_gate_open() {
        static COUNTER: AtomicU64 = AtomicU64::new(1);
        let gate = Gate { forks: &COUNTER, state: AtomicU64::new(0) };
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gate.settle(|| panic!("planted"))));
        assert!(outcome.is_err());
        gate.settle(|| unreachable!("the gate is settled"));
    }
}
