//! The token of a waiting thread, checked over the interleavings and the orders of memory by `loom`: deliveries to an owner that
//! sleeps, polls, comes or gives up. The token's code is the real one; sleep, bell and mailbox are those of the model.
//!
//! The mailbox orders nothing by itself: that a delivery is seen is the token's doing alone. What is lost shows as a deadlock.
#![allow(clippy::unwrap_used)]
// Not that of `loom`, whose counts would be one more thing to interleave, and panic after a deadlock.
use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, AtomicUsize};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::*;

/// When the owner's time is over, once it is.
const UNTIL: Moment = Moment(1);

/// What the kernel knows.
#[derive(Default)]
struct Kernel {
    has_rung: bool,
    is_late: bool,
    /// So many sleeps end by themselves.
    short_sleeps: usize,
}

/// A token and a mailbox.
struct Owned {
    word: AtomicU32,
    /// Tokens are left in this order.
    order: Ordering,
    kernel: Mutex<Kernel>,
    changed: Condvar,
    mail: AtomicUsize,
}

impl Spot for Owned {
    fn load(&self, order: Ordering) -> u32 {
        self.word.load(order)
    }

    fn swap(&self, new: u32, order: Ordering) -> u32 {
        let order = if new == TOKEN && self.order == Relaxed { Relaxed } else { order };
        self.word.swap(new, order)
    }

    fn exchange(&self, old: u32, new: u32, order: Ordering) -> bool {
        self.word.compare_exchange(old, new, order, Relaxed).is_ok()
    }

    fn left(&self, _: Moment) -> Duration {
        Duration::from_nanos(u64::from(!self.kernel.lock().unwrap().is_late))
    }

    /// As a futex: the word is looked at under the lock that a wake takes.
    fn sleep(&self, _: Duration) {
        let mut kernel = self.kernel.lock().unwrap();
        if let Some(left) = kernel.short_sleeps.checked_sub(1) {
            kernel.short_sleeps = left;
            return;
        }
        while self.word.load(Relaxed) == PARKED && !kernel.is_late {
            kernel = self.changed.wait(kernel).unwrap();
        }
    }

    fn wake(&self) {
        drop(self.kernel.lock().unwrap());
        self.changed.notify_all();
    }

    fn ring(&self) {
        self.kernel.lock().unwrap().has_rung = true;
        self.changed.notify_all();
    }
}

/// Where the owner waits.
#[derive(Clone, Copy)]
enum Wait {
    Sleeping,
    Polling,
}
use Wait::{Polling, Sleeping};

impl Owned {
    fn new(order: Ordering, short_sleeps: usize) -> Arc<Self> {
        Arc::new(Self {
            word: AtomicU32::new(EMPTY),
            order,
            kernel: Mutex::new(Kernel { short_sleeps, ..Kernel::default() }),
            changed: Condvar::new(),
            mail: AtomicUsize::new(0),
        })
    }

    fn deliver(&self) {
        self.mail.fetch_add(1, Relaxed);
        unpark(self);
    }

    fn take(&self) -> bool {
        let is_there = self.mail.load(Relaxed) > 0;
        is_there && self.mail.fetch_sub(1, Relaxed) > 0
    }

    fn set_late(&self, is_late: bool) {
        self.kernel.lock().unwrap().is_late = is_late;
        self.changed.notify_all();
    }

    /// Waits for a delivery; false when the time is over first.
    fn hear(&self, wait: Wait) -> bool {
        forget(self);
        loop {
            if self.take() {
                return true;
            }
            if self.left(UNTIL).is_zero() {
                return false;
            }
            self.wait(wait);
        }
    }

    fn wait(&self, wait: Wait) {
        match wait {
            Sleeping => park(self, UNTIL),
            Polling => {
                let has_rung = poll(self, || {
                    let mut kernel = self.kernel.lock().unwrap();
                    while !kernel.has_rung && !kernel.is_late {
                        kernel = self.changed.wait(kernel).unwrap();
                    }
                    kernel.has_rung
                });
                if has_rung == Some(true) {
                    self.kernel.lock().unwrap().has_rung = false;
                }
            }
        }
    }
}

/// Every run of the threads of a model that are interrupted at most so often.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Two threads deliver; the owner hears both, waiting first so, then so.
fn two_deliveries(waits: [Wait; 2], short_sleeps: usize) {
    check(2, move || {
        let owned = Owned::new(AcqRel, short_sleeps);
        let deliverers = [(); 2].map(|()| {
            let owned = owned.clone();
            thread::spawn(move || owned.deliver())
        });
        waits.into_iter().for_each(|wait| assert!(owned.hear(wait)));
        deliverers.into_iter().for_each(|deliverer| deliverer.join().unwrap());
    });
}

#[test]
fn deliveries_wake_an_owner_that_sleeps() {
    two_deliveries([Sleeping; 2], 0);
}

#[test]
fn deliveries_wake_an_owner_whose_sleep_has_ended_by_itself() {
    two_deliveries([Sleeping; 2], 1);
}

#[test]
fn deliveries_wake_an_owner_that_polls() {
    two_deliveries([Polling; 2], 0);
}

#[test]
fn deliveries_wake_an_owner_that_polls_and_then_sleeps_or_the_other_way_round() {
    two_deliveries([Polling, Sleeping], 0);
    two_deliveries([Sleeping, Polling], 0);
}

/// Two deliveries of one thread, while the owner's time ends: each is heard then or at a later wait, whether the bell that was
/// rung for a poll that is over rings in the next one or not.
#[test]
fn deliveries_beside_the_end_of_the_owners_time_are_heard_then_or_at_its_next_waits() {
    for waits in [[Sleeping; 3], [Polling; 3], [Polling, Sleeping, Polling]] {
        check(2, move || {
            let owned = Owned::new(AcqRel, 0);
            let (other, clock) = (owned.clone(), owned.clone());
            let deliverer = thread::spawn(move || {
                other.deliver();
                other.deliver();
            });
            let clock = thread::spawn(move || clock.set_late(true));
            let mut heard = usize::from(owned.hear(waits[0]));
            clock.join().unwrap();
            owned.set_late(false);
            for wait in waits.into_iter().skip(1) {
                if heard < 2 {
                    assert!(owned.hear(wait));
                    heard += 1;
                }
            }
            deliverer.join().unwrap();
            assert_eq!(heard, 2);
        });
    }
}

/// What the model is for: where the owner looks into its mailbox before it forgets a token, a delivery between the two is lost.
#[test]
#[should_panic(expected = "deadlock")]
fn a_delivery_whose_token_is_forgotten_after_the_look_is_lost() {
    check(3, || {
        let owned = Owned::new(AcqRel, 0);
        let other = owned.clone();
        let deliverer = thread::spawn(move || other.deliver());
        while !owned.take() {
            forget(&*owned);
            owned.wait(Sleeping);
        }
        deliverer.join().unwrap();
    });
}

/// The same of an owner that goes to sleep without a look at what lies there.
#[test]
#[should_panic(expected = "deadlock")]
fn a_delivery_whose_token_is_slept_over_is_lost() {
    check(3, || {
        let owned = Owned::new(AcqRel, 0);
        let other = owned.clone();
        let deliverer = thread::spawn(move || other.deliver());
        while !owned.take() {
            owned.swap(PARKED, AcqRel);
            owned.sleep(Duration::MAX);
            owned.swap(EMPTY, AcqRel);
        }
        deliverer.join().unwrap();
    });
}

/// And of a token that is left in no order: its owner takes it and does not see what it tells of.
#[test]
#[should_panic(expected = "deadlock")]
fn a_delivery_whose_token_orders_nothing_is_lost() {
    check(3, || {
        let owned = Owned::new(Relaxed, 0);
        let other = owned.clone();
        let deliverer = thread::spawn(move || other.deliver());
        assert!(owned.hear(Sleeping));
        deliverer.join().unwrap();
    });
}
