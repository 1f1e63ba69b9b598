//! Keeps the library away from the application's signals: none of its handlers runs on a thread of ours, and no write of
//! ours to a log ends the process. And whether the process has more rights than its user.
//!
//! A thread inherits the mask of the one that starts it, so signals are blocked around the start. SIGPIPE and SIGXFSZ
//! come to the thread that writes: they are blocked around the write, and one that came of it is taken away before the
//! mask is as it was; one that was pending before is the application's and stays.

use client::Host;

/// What this process is for the library.
pub(super) fn host() -> Host {
    #[cfg(unix)]
    return Host {
        start_threads: unix::within_blocked_signals,
        write_log: unix::without_signals_of_writing,
        is_privileged: unix::is_privileged(),
    };
    #[cfg(not(unix))]
    Host { start_threads: |start| start(), write_log: |write| write(), is_privileged: false }
}

#[cfg(unix)]
mod unix {
    use std::mem::MaybeUninit;
    use std::os::raw::c_int;

    /// Signals of a fault in the thread itself: blocked, they would end the process past a handler that was to report it.
    const OF_FAULTS: [c_int; 6] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

    /// Signals that a write may bring to the thread that writes.
    const OF_WRITES: [c_int; 2] = [libc::SIGPIPE, libc::SIGXFSZ];

    /// Runs something with all signals of this thread blocked but those of faults.
    pub(super) fn within_blocked_signals(start: &mut dyn FnMut()) {
        let mut all = empty();
        // SAFETY: `all` is a set that `empty` has made.
        unsafe { libc::sigfillset(&raw mut all) };
        for signal in OF_FAULTS {
            // SAFETY: as above, and the signal is one.
            unsafe { libc::sigdelset(&raw mut all, signal) };
        }
        let _blocked = Blocked::new(&all);
        start();
    }

    /// Runs something that writes; what it may bring upon the process is taken away.
    pub(super) fn without_signals_of_writing(write: &mut dyn FnMut()) {
        let mut ours = empty();
        let before = pending();
        for signal in OF_WRITES.into_iter().filter(|signal| !holds(&before, *signal)) {
            // SAFETY: `ours` is a set that `empty` has made, and the signal is one.
            unsafe { libc::sigaddset(&raw mut ours, signal) };
        }
        let _blocked = Blocked::new(&ours);
        let _taken = Taken(ours);
        write();
    }

    /// Whether the system has set the process apart from the user who started it (`AT_SECURE`).
    pub(super) fn is_privileged() -> bool {
        #[cfg(target_os = "linux")]
        // SAFETY: looks up a number that the system gave the process at its start.
        return unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
        #[cfg(not(target_os = "linux"))]
        // SAFETY: looks up whether identities have been changed.
        return unsafe { libc::issetugid() } != 0;
    }

    fn empty() -> libc::sigset_t {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is a local that outlives the call, which fills all of it and has no way to fail.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        }
    }

    fn pending() -> libc::sigset_t {
        let mut set = empty();
        // SAFETY: `set` is a local that outlives the call.
        unsafe { libc::sigpending(&raw mut set) };
        set
    }

    fn holds(set: &libc::sigset_t, signal: c_int) -> bool {
        // SAFETY: the set is one that the system has filled, and the signal is one.
        unsafe { libc::sigismember(set, signal) == 1 }
    }

    /// The mask of this thread with more signals in it; dropping gives back the mask of before.
    struct Blocked(libc::sigset_t);

    impl Blocked {
        fn new(more: &libc::sigset_t) -> Self {
            let mut before = empty();
            // SAFETY: both sets are locals that outlive the call; the way is one that the system knows.
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, more, &raw mut before) };
            Self(before)
        }
    }

    impl Drop for Blocked {
        fn drop(&mut self) {
            // SAFETY: the set is the mask that the system gave in `new`; no old mask is asked for.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
        }
    }

    /// Signals that are blocked; dropping takes away those that have come.
    struct Taken(libc::sigset_t);

    impl Drop for Taken {
        fn drop(&mut self) {
            #[cfg(target_os = "linux")]
            loop {
                let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                // SAFETY: set and time are values that outlive the call; nobody asks for more than the signal's number.
                let came = unsafe {
                    libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const at_once)
                };
                if came <= 0 {
                    return;
                }
            }
        }
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    mod tests {
        use super::*;
        use std::io::Write as _;

        fn mask() -> libc::sigset_t {
            let mut mask = empty();
            // SAFETY: no new mask is given; the old one goes to a local that outlives the call.
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask) };
            mask
        }

        #[test]
        fn a_thread_started_within_has_every_signal_blocked_but_those_of_faults_and_ours_has_its_mask_again()
        {
            let before: Vec<bool> = (1..32).map(|signal| holds(&mask(), signal)).collect();
            let mut inside = None;
            within_blocked_signals(&mut || inside = Some(std::thread::spawn(mask).join().unwrap()));
            for signal in 1..32 {
                let is_free = [libc::SIGKILL, libc::SIGSTOP].contains(&signal) || OF_FAULTS.contains(&signal);
                assert_eq!(holds(&inside.unwrap(), signal), !is_free, "signal {signal}");
            }
            assert_eq!(before, (1..32).map(|signal| holds(&mask(), signal)).collect::<Vec<_>>());
        }

        #[test]
        fn a_write_to_a_pipe_without_a_reader_leaves_no_signal_behind() {
            let (reader, mut writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut found = None;
            without_signals_of_writing(&mut || {
                found = writer.write(b"x").err();
                assert!(holds(&mask(), libc::SIGPIPE));
            });
            assert_eq!(found.unwrap().kind(), std::io::ErrorKind::BrokenPipe);
            assert!(!holds(&pending(), libc::SIGPIPE));
        }

        #[test]
        fn a_signal_that_was_pending_before_stays() {
            std::thread::spawn(|| {
                let mut pipe = empty();
                // SAFETY: a set of ours and a signal.
                unsafe { libc::sigaddset(&raw mut pipe, libc::SIGPIPE) };
                let _blocked = Blocked::new(&pipe);
                // SAFETY: sends this thread a signal that it has blocked.
                unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGPIPE) };
                let (reader, mut writer) = std::io::pipe().unwrap();
                drop(reader);
                without_signals_of_writing(&mut || assert!(writer.write(b"x").is_err()));
                assert!(holds(&pending(), libc::SIGPIPE));
                drop(Taken(pipe));
            })
            .join()
            .unwrap();
        }

        #[test]
        fn a_test_has_no_more_rights_than_its_user() {
            assert!(!is_privileged());
        }
    }
}
