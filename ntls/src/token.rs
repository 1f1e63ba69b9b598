//! The token of a place where one thread waits, without any system call, so that it can be checked over the interleavings of a
//! few threads with a few interruptions (`tests` below and those of `wait`, by `loom`).
//!
//! ```text
//! nothing --the owner goes to sleep--> parked  --unpark, which wakes--> token --the owner takes it--> nothing
//!         --the owner goes to poll---> polling --unpark, which rings--> token
//!         --unpark: the owner is elsewhere, and finds it later--------> token
//! ```
//! All of it is one word. Only the owner takes the token; whoever leaves one sees by the same step where the owner was.
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use spec::platform::Moment;

/// No token, and the owner is elsewhere.
pub(crate) const EMPTY: u32 = 0;
/// A token lies there.
const TOKEN: u32 = 1;
/// The owner sleeps until this changes.
pub(crate) const PARKED: u32 = 2;
/// The owner is in a poll, which the bell ends.
const POLLING: u32 = 3;

/// A 32-bit word; each function is the one of the same name of [`AtomicU32`]. The models of the tests have their own.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u32;
    fn swap(&self, value: u32, order: Ordering) -> u32;
    fn compare_exchange(&self, current: u32, new: u32, ok: Ordering, no: Ordering) -> Result<u32, u32>;
}

impl Word for AtomicU32 {
    #[inline]
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    #[inline]
    fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.swap(value, order)
    }

    #[inline]
    fn compare_exchange(&self, current: u32, new: u32, ok: Ordering, no: Ordering) -> Result<u32, u32> {
        self.compare_exchange(current, new, ok, no)
    }
}

/// What a token needs of the world around it.
pub(crate) trait Ground {
    /// See there.
    type Word: Word;

    /// The word.
    fn word(&self) -> &Self::Word;
    /// The clock.
    fn now(&self) -> Moment;
    /// Sleeps for so long unless the word is not [`PARKED`]; returns early when woken, and without reason at times.
    fn sleep(&self, span: Duration);
    /// Wakes the owner out of its sleep.
    fn wake(&self);
    /// Ends the owner's poll, or its next one.
    fn ring(&self);
    /// Takes away that a poll was ended.
    fn silence(&self);
}

/// The owner waits for a token until the moment comes, and takes it.
pub(crate) fn park<G: Ground>(ground: &G, until: Moment) {
    loop {
        let span = until.since(ground.now());
        if !leave(ground, PARKED) || span.is_zero() {
            break;
        }
        // Whatever ends it, the word tells.
        ground.sleep(span);
        if ground.word().swap(EMPTY, Ordering::AcqRel) == TOKEN {
            return;
        }
    }
    ground.word().swap(EMPTY, Ordering::AcqRel);
}

/// The owner polls, which answers whether the bell has rung, unless a token lies there; it takes the token in any case.
pub(crate) fn poll<G: Ground>(ground: &G, look: impl FnOnce() -> bool) {
    let has_rung = leave(ground, POLLING) && look();
    ground.word().swap(EMPTY, Ordering::AcqRel);
    // A ring may come after its token was taken: then the next poll ends early, once.
    if has_rung {
        ground.silence();
    }
}

/// The owner takes away a token that was left, if there is one.
pub(crate) fn forget<G: Ground>(ground: &G) {
    if ground.word().load(Ordering::Relaxed) == TOKEN {
        let _ = ground.word().compare_exchange(TOKEN, EMPTY, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Leaves a token.
pub(crate) fn unpark<G: Ground>(ground: &G) {
    match ground.word().swap(TOKEN, Ordering::AcqRel) {
        PARKED => ground.wake(),
        POLLING => ground.ring(),
        _ => {}
    }
}

/// The owner goes where this says; it stays when a token lies there.
fn leave<G: Ground>(ground: &G, place: u32) -> bool {
    ground.word().compare_exchange(EMPTY, place, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

#[cfg(test)]
#[path = "token_tests.rs"]
pub(crate) mod tests;
