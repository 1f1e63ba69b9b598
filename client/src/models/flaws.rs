//! Broken words, over which the models must fail.
use std::marker::PhantomData;

use loom::sync::atomic::Ordering;

use crate::atoms::Word;
use crate::atoms::modelled::Number;

/// What is broken.
pub(super) trait Flaw: Send + Sync {
    /// Other threads come in between the look at a word and its change.
    const IN_TWO_STEPS: bool = false;
    /// What a word remembers.
    const KEPT: u64 = u64::MAX;
    /// What a word tells of what was done before it was written.
    fn order(order: Ordering) -> Ordering {
        order
    }
}

pub(super) struct InTwoSteps;

impl Flaw for InTwoSteps {
    const IN_TWO_STEPS: bool = true;
}

/// Forgets the tag above an index.
pub(super) struct Untagged;

impl Flaw for Untagged {
    const KEPT: u64 = u32::MAX as u64;
}

/// Tells nothing.
pub(super) struct Loose;

impl Flaw for Loose {
    fn order(_: Ordering) -> Ordering {
        Ordering::Relaxed
    }
}

/// A word with a flaw.
pub(super) struct Flawed<F>(Number, PhantomData<F>);

impl<F: Flaw> Flawed<F> {
    fn in_two_steps(&self, change: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        let found = self.load(Ordering::Acquire);
        self.store(change(found).ok_or(found)?, Ordering::Release);
        Ok(found)
    }
}

impl<F: Flaw> Word for Flawed<F> {
    fn new(value: u64) -> Self {
        Self(Number::new(value & F::KEPT), PhantomData)
    }

    fn load(&self, order: Ordering) -> u64 {
        self.0.load(F::order(order))
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value & F::KEPT, F::order(order));
    }

    fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        match F::IN_TWO_STEPS {
            true => self.in_two_steps(|found| Some(found.wrapping_add(value))).unwrap_or_default(),
            false => self.0.fetch_add(value, F::order(order)),
        }
    }

    fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        match F::IN_TWO_STEPS {
            true => self.in_two_steps(|found| Some(found.max(value))).unwrap_or_default(),
            false => self.0.fetch_max(value, F::order(order)),
        }
    }

    fn compare_exchange(&self, current: u64, new: u64, ok: Ordering, no: Ordering) -> Result<u64, u64> {
        match F::IN_TWO_STEPS {
            true => self.in_two_steps(|found| (found == current).then_some(new)),
            false => self.0.compare_exchange(current & F::KEPT, new & F::KEPT, F::order(ok), F::order(no)),
        }
    }
}
