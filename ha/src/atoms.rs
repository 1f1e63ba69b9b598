//! What the lock-free structures of this crate are made of. In production it is the standard library's and its neighbours'; in
//! the models of the tests it is `loom`'s, which visits every interleaving of few interruptions (`check`) and every order that the
//! memory model allows.
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use spec::platform::{Lock, Locked};

/// A 64-bit word; each function is the one of the same name of [`AtomicU64`].
pub(crate) trait Word: Send + Sync {
    fn new(value: u64) -> Self;
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn swap(&self, value: u64, order: Ordering) -> u64;
    fn fetch_max(&self, value: u64, order: Ordering) -> u64;
}

/// A place where one value is shown to all and replaced as a whole.
pub(crate) trait Frame<T>: Send + Sync {
    /// The value as it was when it was looked at.
    type Seen: Deref<Target = Arc<T>>;
    fn new(value: Arc<T>) -> Self;
    fn load(&self) -> Self::Seen;
    fn store(&self, value: Arc<T>);
}

/// A value that one thread at a time has.
pub(crate) trait Turn<T>: Send + Sync {
    type Held<'a>: DerefMut<Target = T>
    where
        Self: 'a;
    fn new(value: T) -> Self;
    fn take(&self) -> Self::Held<'_>;
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }

    fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        self.fetch_max(value, order)
    }
}

impl<T: Send + Sync> Frame<T> for ArcSwap<T> {
    type Seen = Guard<Arc<T>>;

    fn new(value: Arc<T>) -> Self {
        Self::new(value)
    }

    #[inline]
    fn load(&self) -> Guard<Arc<T>> {
        self.load()
    }

    fn store(&self, value: Arc<T>) {
        self.store(value);
    }
}

impl<T: Send> Turn<T> for Lock<T> {
    type Held<'a>
        = Locked<'a, T>
    where
        T: 'a;

    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn take(&self) -> Locked<'_, T> {
        self.lock()
    }
}

/// The same under a model.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod modelled {
    use loom::sync::atomic::{AtomicU64, AtomicUsize};
    use loom::sync::{Mutex, MutexGuard};

    use super::*;

    /// `loom` lets another thread in where it finds that two threads want the same word, and it remembers of each word the last
    /// access alone: a writer that has read a word itself would hide all readers before it. So every access is seen here, too,
    /// which orders nothing.
    #[derive(Default)]
    struct Step(AtomicU64);

    impl Step {
        fn take(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A word.
    pub(crate) struct Number(AtomicU64, Step);

    impl Word for Number {
        fn new(value: u64) -> Self {
            Self(AtomicU64::new(value), Step::default())
        }

        fn load(&self, order: Ordering) -> u64 {
            self.1.take();
            self.0.load(order)
        }

        fn store(&self, value: u64, order: Ordering) {
            self.1.take();
            self.0.store(value, order);
        }

        fn swap(&self, value: u64, order: Ordering) -> u64 {
            self.1.take();
            self.0.swap(value, order)
        }

        fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            self.1.take();
            self.0.fetch_max(value, order)
        }
    }

    /// As `ArcSwap`, by its promise alone: a load acquires what the store of the same value has released, and may find an older
    /// one while nothing else has told the thread of it.
    pub(crate) struct Shown<T> {
        at: AtomicUsize,
        step: Step,
        values: std::sync::Mutex<Vec<Arc<T>>>,
    }

    /// What was found there.
    pub(crate) struct Found<T>(Arc<T>);

    impl<T> Deref for Found<T> {
        type Target = Arc<T>;

        fn deref(&self) -> &Arc<T> {
            &self.0
        }
    }

    impl<T: Send + Sync> Frame<T> for Shown<T> {
        type Seen = Found<T>;

        fn new(value: Arc<T>) -> Self {
            Self {
                at: AtomicUsize::new(0),
                step: Step::default(),
                values: std::sync::Mutex::new(vec![value]),
            }
        }

        fn load(&self) -> Found<T> {
            self.step.take();
            let at = self.at.load(Ordering::Acquire);
            Found(self.values.lock().unwrap()[at].clone())
        }

        fn store(&self, value: Arc<T>) {
            let mut values = self.values.lock().unwrap();
            values.push(value);
            let at = values.len() - 1;
            // No other thread of the model runs while this one is held.
            drop(values);
            self.step.take();
            self.at.swap(at, Ordering::AcqRel);
        }
    }

    impl<T: Send> Turn<T> for Mutex<T> {
        type Held<'a>
            = MutexGuard<'a, T>
        where
            T: 'a;

        fn new(value: T) -> Self {
            Self::new(value)
        }

        fn take(&self) -> MutexGuard<'_, T> {
            self.lock().unwrap()
        }
    }

    /// Every run of two or three threads that are interrupted at most so often; more is beyond the time of a test.
    pub(crate) fn check(interruptions: usize, model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(interruptions);
        builder.check(model);
    }
}
