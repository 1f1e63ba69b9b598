//! The token that wakes one waiting thread, without any system call, so that it can be checked (`tests` below, by `loom`).
//!
//! ```text
//!          the owner sleeps            a token: the sleeper is woken
//!        .-----------------> PARKED --------------------------.
//!        |                                                    v
//!      EMPTY -----------------a token------------------> TOKEN LIES THERE --the owner comes: takes it--> EMPTY
//!        |                                                    ^
//!        '-----------------> POLLING -------------------------'
//!          the owner polls             a token: the bell rings
//! ```
//! Only the owner takes the token; whoever leaves one sees by the same step where the owner was. What was done before a token
//! was left is seen by the owner that has taken it.
use std::sync::atomic::Ordering::{self, AcqRel, Relaxed};
use std::time::Duration;

use spec::platform::Moment;

/// No token, and the owner is elsewhere.
pub(crate) const EMPTY: u32 = 0;
/// A token lies there.
pub(crate) const TOKEN: u32 = 1;
/// The owner sleeps until this changes.
pub(crate) const PARKED: u32 = 2;
/// The owner is in a poll, which the bell ends.
pub(crate) const POLLING: u32 = 3;

/// The word of a token, which is [`EMPTY`] at first, and what the system does with it.
pub(crate) trait Spot {
    /// The word.
    fn load(&self, order: Ordering) -> u32;

    /// Changes the word; what it was.
    fn swap(&self, new: u32, order: Ordering) -> u32;

    /// Changes the word if it is this, in this order, and looks at it without one if not; whether it was.
    fn exchange(&self, old: u32, new: u32, order: Ordering) -> bool;

    /// How long it is until this moment; nothing once it has come.
    fn left(&self, until: Moment) -> Duration;

    /// Sleeps as long as the word is [`PARKED`], so long at most; may end sooner.
    fn sleep(&self, at_most: Duration);

    /// Ends a sleep.
    fn wake(&self);

    /// Ends a poll, or the next one.
    fn ring(&self);
}

/// The owner sleeps until it is given a token, which it takes, or the moment has come.
pub(crate) fn park(spot: &impl Spot, until: Moment) {
    loop {
        let left = spot.left(until);
        if left.is_zero() || !spot.exchange(EMPTY, PARKED, AcqRel) {
            break;
        }
        spot.sleep(left);
        // Whatever has ended it, the word tells.
        if spot.swap(EMPTY, AcqRel) == TOKEN {
            return;
        }
    }
    spot.swap(EMPTY, AcqRel);
}

/// The owner polls, unless a token lies there; takes the token. What the poll tells.
pub(crate) fn poll<T>(spot: &impl Spot, poll: impl FnOnce() -> T) -> Option<T> {
    let told = spot.exchange(EMPTY, POLLING, AcqRel).then(poll);
    spot.swap(EMPTY, AcqRel);
    told
}

/// The owner takes a token that lies there: what it tells of is looked for next.
pub(crate) fn forget(spot: &impl Spot) {
    // Without a step that all must see where there is none.
    if spot.load(Relaxed) == TOKEN {
        spot.exchange(TOKEN, EMPTY, AcqRel);
    }
}

/// Leaves a token, and wakes the owner where it is.
pub(crate) fn unpark(spot: &impl Spot) {
    match spot.swap(TOKEN, AcqRel) {
        PARKED => spot.wake(),
        POLLING => spot.ring(),
        _ => {}
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
