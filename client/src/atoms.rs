//! What the lock-free structures of this crate are made of. In production it is the standard library's and its neighbours'; in
//! the models of the tests it is `loom`'s, which visits every interleaving of few interruptions (`check`) and every order that the
//! memory model allows.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use crossbeam_utils::atomic::AtomicCell;

/// A 64-bit word; each function is the one of the same name of [`AtomicU64`].
pub(crate) trait Word: Send + Sync {
    fn new(value: u64) -> Self;
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn fetch_add(&self, value: u64, order: Ordering) -> u64;
    fn fetch_max(&self, value: u64, order: Ordering) -> u64;
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64>;

    /// Replaces the value by what `change` makes of it, until nobody comes in between; errs with the value of which it makes
    /// nothing.
    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        let mut found = self.load(Ordering::Acquire);
        while let Some(new) = change(found) {
            match self.compare_exchange(found, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(before) => return Ok(before),
                Err(other) => found = other,
            }
        }
        Err(found)
    }
}

/// A place where one value is shared.
pub(crate) trait Shelf<T>: Send + Sync {
    fn empty() -> Self;
    fn get(&self) -> Option<Arc<T>>;
    /// Looks at the value without counting who has it.
    fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R>;
    fn put(&self, value: Arc<T>);
    /// Takes this value away, if it is still there: of several who ask one hears yes.
    fn clear(&self, value: &Arc<T>) -> bool;
}

/// A place where one value is left for whoever takes it.
pub(crate) trait Nook<T>: Send + Sync {
    fn empty() -> Self;
    fn take(&self) -> Option<Box<T>>;
    fn leave(&self, value: Option<Box<T>>);
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.fetch_add(value, order)
    }

    fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        self.fetch_max(value, order)
    }

    fn compare_exchange(&self, current: u64, new: u64, ok: Ordering, no: Ordering) -> Result<u64, u64> {
        self.compare_exchange(current, new, ok, no)
    }
}

impl<T: Send + Sync> Shelf<T> for ArcSwapOption<T> {
    fn empty() -> Self {
        Self::const_empty()
    }

    fn get(&self) -> Option<Arc<T>> {
        self.load_full()
    }

    fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.load().as_deref().map(look)
    }

    fn put(&self, value: Arc<T>) {
        self.store(Some(value));
    }

    fn clear(&self, value: &Arc<T>) -> bool {
        let before = self.compare_and_swap(&Some(value.clone()), None);
        before.as_ref().is_some_and(|before| Arc::ptr_eq(before, value))
    }
}

impl<T: Send> Nook<T> for AtomicCell<Option<Box<T>>> {
    fn empty() -> Self {
        Self::new(None)
    }

    fn take(&self) -> Option<Box<T>> {
        Self::take(self)
    }

    fn leave(&self, value: Option<Box<T>>) {
        self.store(value);
    }
}

/// The same under a model.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod modelled {
    use loom::sync::Mutex;
    use loom::sync::atomic::AtomicU64;

    use super::*;

    /// A word. `loom` lets another thread in where it finds that two threads want the same word, and it remembers of each word the
    /// last access alone: a writer that has read a word itself would hide all readers before it. So every access is seen at a
    /// second word, too, which orders nothing.
    pub(crate) struct Number(AtomicU64, AtomicU64);

    impl Number {
        fn seen(&self) -> &AtomicU64 {
            self.1.fetch_add(1, Ordering::Relaxed);
            &self.0
        }
    }

    impl Word for Number {
        fn new(value: u64) -> Self {
            Self(AtomicU64::new(value), AtomicU64::new(0))
        }

        fn load(&self, order: Ordering) -> u64 {
            self.seen().load(order)
        }

        fn store(&self, value: u64, order: Ordering) {
            self.seen().store(value, order);
        }

        fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            self.seen().fetch_add(value, order)
        }

        fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            self.seen().fetch_max(value, order)
        }

        fn compare_exchange(&self, current: u64, new: u64, ok: Ordering, no: Ordering) -> Result<u64, u64> {
            self.seen().compare_exchange(current, new, ok, no)
        }
    }

    impl<T: Send + Sync> Shelf<T> for Mutex<Option<Arc<T>>> {
        fn empty() -> Self {
            Self::new(None)
        }

        fn get(&self) -> Option<Arc<T>> {
            self.lock().unwrap().clone()
        }

        fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
            self.get().as_deref().map(look)
        }

        fn put(&self, value: Arc<T>) {
            *self.lock().unwrap() = Some(value);
        }

        fn clear(&self, value: &Arc<T>) -> bool {
            let mut held = self.lock().unwrap();
            let is_there = held.as_ref().is_some_and(|held| Arc::ptr_eq(held, value));
            if is_there {
                *held = None;
            }
            is_there
        }
    }

    impl<T: Send> Nook<T> for Mutex<Option<Box<T>>> {
        fn empty() -> Self {
            Self::new(None)
        }

        fn take(&self) -> Option<Box<T>> {
            self.lock().unwrap().take()
        }

        fn leave(&self, value: Option<Box<T>>) {
            *self.lock().unwrap() = value;
        }
    }

    /// Every run of two or three threads that are interrupted at most so often; more is beyond the time of a test.
    pub(crate) fn check(interruptions: usize, model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(interruptions);
        builder.check(model);
    }
}
