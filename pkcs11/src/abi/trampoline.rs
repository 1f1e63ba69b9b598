//! What happens around every C call: thread cancellation off, fork check, no panic across the border, one log line, one
//! number.

use std::panic::{AssertUnwindSafe, catch_unwind};

use client::{Entered, Error, Module};
use cryptoki_sys::CK_RV;
use spec::Rv;

use super::fork::{self, GATE};

/// The library's one state.
pub(super) static MODULE: Module = Module::new();

/// Runs the body of a function that needs `C_Initialize`, in the life that it has begun.
pub(super) fn answer(name: &'static str, body: impl FnOnce(&Module<Entered>) -> Result<(), Error>) -> CK_RV {
    answer_always(name, || body(&MODULE.enter().ok_or(Rv::CRYPTOKI_NOT_INITIALIZED)?))
}

/// Runs the body of a function that works in any state.
pub(super) fn answer_always(name: &'static str, body: impl FnOnce() -> Result<(), Error>) -> CK_RV {
    let _uncancelled = Uncancelled::new();
    let _trace = MODULE.trace();
    let settled = || {
        GATE.settle(|| {
            fork::close_inherited(client::inherited());
            MODULE.forked();
        });
        body()
    };
    let outcome = match catch_unwind(AssertUnwindSafe(settled)) {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) => Outcome::Refused(error),
        Err(payload) => {
            // A payload whose drop panics must not get another chance.
            std::mem::forget(payload);
            Outcome::Panicked
        }
    };
    let rv = outcome.rv();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| outcome.log(name, rv))) {
        std::mem::forget(payload);
    }
    CK_RV::try_from(rv.0).unwrap_or(cryptoki_sys::CKR_GENERAL_ERROR)
}

/// How the body of a function ended.
enum Outcome {
    Done,
    Refused(Error),
    Panicked,
}

impl Outcome {
    fn rv(&self) -> Rv {
        match self {
            Self::Done => Rv::OK,
            Self::Refused(error) => error.rv(),
            Self::Panicked => Rv::GENERAL_ERROR,
        }
    }

    /// One line: the function's name and its number, never an argument; errors that have something to tell an operator
    /// bring their text, and are louder unless the reason has been logged where it was met: a failed use is one fault.
    fn log(&self, name: &str, rv: Rv) {
        match self {
            Self::Done | Self::Refused(Error::Rv(_)) => {
                tracing::debug!(target: "hatoki::call", "{name}: {rv}")
            }
            Self::Refused(
                error @ (Error::Outage(_)
                | Error::Undecided(_)
                | Error::OutcomeUnknown(_)
                | Error::BelowMinimum(_)
                | Error::TicketDead
                | Error::Configuration(_)),
            ) => {
                tracing::info!(target: "hatoki::call", "{name}: {rv}: {error}")
            }
            Self::Refused(error) => tracing::warn!(target: "hatoki::call", "{name}: {rv}: {error}"),
            Self::Panicked => tracing::error!(
                target: "hatoki::call",
                "{name}: {rv}: a defect of this library; please report it with the log before this line"
            ),
        }
    }
}

/// Keeps the calling thread from being cancelled in the middle of a call, where it may lead a link (HA 5, invariant 7).
struct Uncancelled {
    #[cfg(target_os = "linux")]
    before: std::os::raw::c_int,
}

#[cfg(target_os = "linux")]
mod cancellation {
    use std::os::raw::c_int;

    /// `PTHREAD_CANCEL_DISABLE` of glibc and musl.
    pub(super) const DISABLE: c_int = 1;

    unsafe extern "C" {
        /// POSIX; the crate `libc` does not declare it for Linux.
        pub(super) fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
    }
}

#[cfg(target_os = "linux")]
impl Uncancelled {
    fn new() -> Self {
        let mut before = 0;
        // SAFETY: `before` is a local that outlives the call; a known state is set.
        unsafe { cancellation::pthread_setcancelstate(cancellation::DISABLE, &raw mut before) };
        Self { before }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut ours = 0;
        // SAFETY: `ours` is a local that outlives the call; the state set is the one that the system gave in `new`.
        unsafe { cancellation::pthread_setcancelstate(self.before, &raw mut ours) };
    }
}

#[cfg(not(target_os = "linux"))]
impl Uncancelled {
    fn new() -> Self {
        Self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_general_error() {
        assert_eq!(answer_always("C_Test", || panic!("planted")), cryptoki_sys::CKR_GENERAL_ERROR);
    }

    #[test]
    fn a_payload_whose_drop_panics_does_not_cross() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("planted in drop");
            }
        }
        assert_eq!(answer_always("C_Test", || std::panic::panic_any(Bomb)), cryptoki_sys::CKR_GENERAL_ERROR);
    }

    #[test]
    fn a_result_becomes_its_number() {
        assert_eq!(answer_always("C_Test", || Ok(())), cryptoki_sys::CKR_OK);
        let refused = answer_always("C_Test", || Err(Rv::PIN_INCORRECT.into()));
        assert_eq!(refused, cryptoki_sys::CKR_PIN_INCORRECT);
        let outage = answer_always("C_Test", || Err(Error::Outage("none".into())));
        assert_eq!(outage, cryptoki_sys::CKR_DEVICE_ERROR);
    }
}
