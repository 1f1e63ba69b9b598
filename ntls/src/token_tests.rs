//! The token, checked over the interleavings by `loom`: an owner that sleeps or polls, threads that leave answers and tokens, a
//! clock that runs out. The token is the real one; what sleeps and rings is that of the model, and so is the mailbox, which promises
//! no more order than a mailbox must. Each break of it is found.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, AtomicU64};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::*;

/// When the owner's time has passed; before that it is 0.
pub(crate) const UNTIL: Moment = Moment(1);

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    Nothing,
    /// Who leaves a token does not wake the owner.
    WakesNobody,
    /// Who leaves a token does not end the owner's poll.
    NeverRings,
    /// The owner goes to sleep without a look at the word.
    Overwrites,
    /// The owner forgets a token after it has looked into its mailbox.
    ForgetsLate,
    /// The word orders nothing.
    Unordered,
}

/// The word. `loom` lets another thread in where it finds that two threads want the same word, and it remembers of each word the
/// last access alone; so every access is seen at a second word, too, which orders nothing.
pub(crate) struct Atom {
    word: AtomicU32,
    step: AtomicU64,
    broken: Break,
}

impl Atom {
    fn order(&self, order: Ordering) -> Ordering {
        self.step();
        if self.broken == Break::Unordered { Ordering::Relaxed } else { order }
    }

    /// Another thread may come in between.
    pub(crate) fn step(&self) {
        self.step.fetch_add(1, Ordering::Relaxed);
    }
}

impl Word for Atom {
    fn load(&self, order: Ordering) -> u32 {
        self.word.load(self.order(order))
    }

    fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.word.swap(value, self.order(order))
    }

    fn compare_exchange(&self, current: u32, new: u32, ok: Ordering, no: Ordering) -> Result<u32, u32> {
        if self.broken == Break::Overwrites && current == EMPTY {
            return Ok(self.swap(new, ok));
        }
        self.word.compare_exchange(current, new, self.order(ok), self.order(no))
    }
}

/// What the kernel does.
#[derive(Default)]
struct Kernel {
    is_asleep: bool,
    has_rung: bool,
    is_late: bool,
}

/// A place to wait and what is around it.
pub(crate) struct World {
    pub(crate) word: Atom,
    kernel: Mutex<Kernel>,
    changed: Condvar,
    pub(crate) broken: Break,
    /// Answers that have not been taken.
    mail: AtomicU32,
}

impl World {
    pub(crate) fn new(broken: Break) -> Arc<Self> {
        let word = Atom { word: AtomicU32::new(EMPTY), step: AtomicU64::new(0), broken };
        let kernel = Mutex::new(Kernel::default());
        Arc::new(Self { word, kernel, changed: Condvar::new(), broken, mail: AtomicU32::new(0) })
    }

    fn change(&self, change: impl FnOnce(&mut Kernel)) {
        change(&mut self.kernel.lock().unwrap());
        self.changed.notify_all();
    }

    /// The owner's time has passed.
    pub(crate) fn time_out(&self) {
        self.change(|kernel| kernel.is_late = true);
    }

    /// Waits in a poll; whether the bell has rung.
    pub(crate) fn look(&self) -> bool {
        let mut kernel = self.kernel.lock().unwrap();
        while !kernel.has_rung && !kernel.is_late {
            kernel = self.changed.wait(kernel).unwrap();
        }
        kernel.has_rung
    }

    /// Posts an answer and leaves a token, as `seam::Waiter::deliver` does.
    fn answer(&self) {
        self.mail.fetch_add(1, Ordering::Release);
        unpark(self);
    }

    /// Takes one answer, as `seam::Waiter::take` does with a wake.
    fn take(&self) -> bool {
        let has_come = self.mail.load(Ordering::Acquire) > 0;
        if has_come {
            self.mail.fetch_sub(1, Ordering::AcqRel);
        }
        has_come
    }

    /// The owner waits for one answer; whether it came in time. As `lent::lend` for a thread without a role, and for one with.
    fn wait(&self, polls: bool) -> bool {
        forget(self);
        loop {
            if self.take() {
                return true;
            }
            if self.now() >= UNTIL {
                return false;
            }
            if self.broken == Break::ForgetsLate {
                forget(self);
            }
            match polls {
                true => poll(self, || self.look()),
                false => park(self, UNTIL),
            }
        }
    }
}

impl Ground for World {
    type Word = Atom;

    fn word(&self) -> &Atom {
        &self.word
    }

    fn now(&self) -> Moment {
        if self.kernel.lock().unwrap().is_late { UNTIL } else { Moment(0) }
    }

    fn sleep(&self, _span: Duration) {
        let mut kernel = self.kernel.lock().unwrap();
        // One step with the wakes, as the kernel promises.
        kernel.is_asleep = self.word.load(Ordering::Acquire) == PARKED;
        while kernel.is_asleep && !kernel.is_late {
            kernel = self.changed.wait(kernel).unwrap();
        }
        kernel.is_asleep = false;
    }

    fn wake(&self) {
        if self.broken != Break::WakesNobody {
            self.change(|kernel| kernel.is_asleep = false);
        }
    }

    fn ring(&self) {
        if self.broken != Break::NeverRings {
            self.change(|kernel| kernel.has_rung = true);
        }
    }

    fn silence(&self) {
        self.change(|kernel| kernel.has_rung = false);
    }
}

/// Every run of threads that are interrupted at most so often.
pub(crate) fn check(interruptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.check(model);
}

fn spawn(world: &Arc<World>, act: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || act(&world))
}

/// One thread answers after the other, or both at once; a token of the first may be found behind its answer.
fn two_answers(broken: Break, polls: bool) {
    check(2, move || {
        let world = World::new(broken);
        let others = [(); 2].map(|()| spawn(&world, World::answer));
        assert!(world.wait(polls) && world.wait(polls));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(!world.take(), "an answer is taken twice");
    });
}

/// The same thread answers again, perhaps while the owner wakes from the first answer.
fn two_answers_in_turn(broken: Break, polls: bool) {
    check(4, move || {
        let world = World::new(broken);
        let other = spawn(&world, |world| (0..2).for_each(|_| world.answer()));
        assert!(world.wait(polls) && world.wait(polls));
        other.join().unwrap();
        assert!(!world.take(), "an answer is taken twice");
    });
}

#[test]
fn ha_5_an_owner_that_sleeps_or_polls_misses_no_answer() {
    for polls in [false, true] {
        two_answers(Break::Nothing, polls);
        two_answers_in_turn(Break::Nothing, polls);
    }
}

#[test]
fn ha_5_an_owner_that_changes_between_sleep_and_poll_misses_no_answer() {
    for first in [false, true] {
        check(2, move || {
            let world = World::new(Break::Nothing);
            let other = spawn(&world, |world| (0..3).for_each(|_| world.answer()));
            assert!(world.wait(first) && world.wait(!first) && world.wait(first));
            other.join().unwrap();
        });
    }
}

#[test]
fn ha_5_a_token_without_an_answer_costs_none() {
    for polls in [false, true] {
        check(2, move || {
            let world = World::new(Break::Nothing);
            let others = [spawn(&world, World::answer), spawn(&world, unpark)];
            assert!(world.wait(polls));
            others.into_iter().for_each(|other| other.join().unwrap());
            assert!(!world.take());
        });
    }
}

#[test]
fn an_answer_that_races_the_clock_is_taken_once_or_found_later() {
    for polls in [false, true] {
        check(2, move || {
            let world = World::new(Break::Nothing);
            let others = [spawn(&world, World::answer), spawn(&world, World::time_out)];
            let was_in_time = world.wait(polls);
            others.into_iter().for_each(|other| other.join().unwrap());
            assert!(world.take() != was_in_time);
            assert!(!world.take());
        });
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_token_that_wakes_nobody() {
    two_answers_in_turn(Break::WakesNobody, false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_token_that_does_not_ring() {
    two_answers_in_turn(Break::NeverRings, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_sleeper_that_does_not_look_for_a_token() {
    two_answers_in_turn(Break::Overwrites, false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_an_owner_that_forgets_what_it_has_not_looked_for() {
    two_answers_in_turn(Break::ForgetsLate, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_token_that_orders_nothing() {
    two_answers_in_turn(Break::Unordered, false);
}
