//! Background work within calls (HA 2.5, 4.6): in a process without a thread for it (threads are forbidden, or the system
//! gives none) the application's calls do a little of it on their way.
//!
//! ```text
//! call --a second since the last time, nobody else at it, something to do--> look -> pay debts -> a slice of repair --> call
//!   '--else-------------------------------------------------------------------------------------------------------> call
//! ```
//! It is done before the call sends anything, so that nothing waits for it but this one call, which spends no more than a
//! quarter of its time on it. A member that hangs costs one look or one step, and is left alone then: its link is given up
//! when probes stay unanswered (HA 4.4), and a repair that failed at it rests.
use std::sync::atomic::{AtomicU64, Ordering};

use spec::platform::Moment;
use spec::seam::Standing;

use crate::desk::Desk;
use crate::group::Group;
use crate::member::Phase;

/// Between two times, in milliseconds.
const AGAIN_MS: u64 = 1_000;
/// A look at all members, whether or not something is known to be amiss, in milliseconds after the last one: contents that
/// have come to differ are told by nobody.
const LOOK_MS: u64 = 60_000;
/// How long one look waits for answers at least, in milliseconds; twice what the last one took, and twice as long each time
/// that somebody does not answer so soon.
const PATIENCE_MS: u64 = 20;
/// The same at most: the farthest member answers so soon.
const PATIENCE_MS_MAX: u64 = 320;
/// How long debts are paid, in milliseconds.
const PAYMENT_MS: u64 = 100;
/// A repair begins nothing more after so many milliseconds.
const SLICE_MS: u64 = 50;
/// How long one request of a repair may take, in milliseconds.
const STEP_MS: u64 = 500;
/// How long everything may take, in milliseconds.
const ALL_MS_MAX: u64 = 1_000;

/// What one group's calls know of their background work.
pub(crate) struct InCalls {
    /// When the next time is; `NEVER` where a thread does it.
    due: AtomicU64,
    /// When all members are looked at whatever is known.
    look_at: AtomicU64,
    patience_ms: AtomicU64,
    /// When the steps of a repair end that a call takes now; `NEVER` when none does.
    end: AtomicU64,
}

impl Default for InCalls {
    fn default() -> Self {
        let never = || AtomicU64::new(Moment::NEVER.0);
        Self { due: never(), look_at: never(), patience_ms: AtomicU64::new(PATIENCE_MS), end: never() }
    }
}

impl InCalls {
    /// When a step of a repair ends that begins now and might go on until the moment.
    pub(crate) fn step_ends(&self, now: Moment, until: Moment) -> Moment {
        match Moment(self.end.load(Ordering::Acquire)) {
            Moment::NEVER => until,
            end => until.min(end).min(now.after_ms(STEP_MS)),
        }
    }
}

/// Steps end by themselves again when it is dropped.
struct Bounded<'a>(&'a InCalls);

impl Drop for Bounded<'_> {
    fn drop(&mut self) {
        self.0.end.store(Moment::NEVER.0, Ordering::Release);
    }
}

impl Group {
    /// From now on the application's calls do the background work, a little about once a second: for a process in which
    /// nobody calls [`Group::tend`].
    pub fn tend_in_calls(&self) {
        let now = self.platform.now();
        self.in_calls.look_at.store(now.after_ms(LOOK_MS).0, Ordering::Relaxed);
        self.in_calls.due.store(now.after_ms(AGAIN_MS).0, Ordering::Release);
    }

    /// The background work of a call that must have ended by the deadline, if it is due and nobody else is at it. Nothing
    /// of the call may be on its way. Whether time has passed with it.
    pub(crate) fn tend_in_call(&self, deadline: Moment) -> bool {
        let due = Moment(self.in_calls.due.load(Ordering::Relaxed));
        if due == Moment::NEVER {
            return false;
        }
        let now = self.platform.now();
        if now < due || now >= deadline || self.is_closed() {
            return false;
        }
        let Some(_turn) = self.turn() else { return false };
        self.in_calls.due.store(now.after_ms(AGAIN_MS).0, Ordering::Relaxed);
        self.watch();
        if now < Moment(self.in_calls.look_at.load(Ordering::Relaxed)) && !self.has_work() {
            return true;
        }
        let end = now.after_ms(ALL_MS_MAX).min(now.after(deadline.since(now) / 4));
        self.in_calls.look_at.store(now.after_ms(LOOK_MS).0, Ordering::Relaxed);
        self.look_shortly(end);
        self.pay_debts(end.min(self.platform.now().after_ms(PAYMENT_MS)));
        self.in_calls.end.store(end.0, Ordering::Release);
        let _bounded = Bounded(&self.in_calls);
        if self.platform.now() < end {
            self.repair_round(SLICE_MS);
        }
        true
    }

    /// Whether something is known to be amiss: a member that can be reached is not admitted or owes something, contents
    /// differ or seemed to, an object is suspected, a repair has begun.
    fn has_work(&self) -> bool {
        let is_amiss = |phase| phase != Phase::Admitted;
        self.is_divergent()
            || self.is_under_way()
            || self.has_suspects()
            || self.last_difference.lock().is_some()
            || self.view().seats.iter().any(|seat| {
                let phase = seat.member.phase(&*self.seam);
                phase.is_some_and(is_amiss) || phase.is_some() && seat.member.debts() > 0
            })
    }

    /// Asks all members how they stand, and waits a short time for the answers.
    fn look_shortly(&self, end: Moment) {
        let patience_ms = self.in_calls.patience_ms.load(Ordering::Relaxed);
        let begun = self.platform.now();
        let until = end.min(begun.after_ms(patience_ms));
        self.look(&mut Desk::until(self, until), true);
        let took_ms = u64::try_from(self.platform.now().since(begun).as_millis()).unwrap_or(u64::MAX);
        let is_late = self.view().seats.iter().any(
            |seat| matches!(self.seam.standing(seat.member.id), Standing::Up { heard, .. } if heard < begun),
        );
        let ms = if is_late { patience_ms } else { took_ms }.saturating_mul(2);
        self.in_calls.patience_ms.store(ms.clamp(PATIENCE_MS, PATIENCE_MS_MAX), Ordering::Relaxed);
    }
}
