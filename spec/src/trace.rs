//! Trace: one number for each call of the application, in every line that the module logs meanwhile and in every request
//! that the call sends, so that a line here is found again in an appliance's log.
//!
//! The number belongs to the calling thread while the call runs. Threads take blocks of numbers, so that calls share nothing
//! that they would have to wait for.
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that a thread takes at once.
const BLOCK: u64 = 1 << 24;

thread_local! {
    /// The number of the call that runs; 0 for none.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
    /// The source of this thread's block, the next number, and how many are left.
    static BLOCK_OF_THREAD: Cell<(u64, u64, u64)> = const { Cell::new((0, 0, 0)) };
}

/// The number of the application's call that this thread is in.
pub fn current() -> Option<u64> {
    Some(CURRENT.get()).filter(|number| *number != 0)
}

/// Where the numbers of a process come from.
#[derive(Debug, Default)]
pub struct Traces {
    /// A number that no other process is likely to begin with.
    seed: AtomicU64,
    blocks: AtomicU64,
}

impl Traces {
    /// A source that begins at 0.
    pub const fn new() -> Self {
        Self { seed: AtomicU64::new(0), blocks: AtomicU64::new(0) }
    }

    /// Begins anew at a random number: at a start, and in a forked child, which would go on with its parent's numbers.
    pub fn seed(&self, random: u64) {
        self.seed.store(random, Ordering::Relaxed);
    }

    /// A call begins; it ends when what is returned is dropped. A call inside another one keeps the outer one's number.
    pub fn enter(&self) -> Entered {
        let before = CURRENT.get();
        if before == 0 {
            CURRENT.set(self.next());
        }
        Entered { before }
    }

    fn next(&self) -> u64 {
        let seed = self.seed.load(Ordering::Relaxed);
        let (source, next, left) = BLOCK_OF_THREAD.get();
        let (next, left) = if source == seed && left > 0 {
            (next, left)
        } else {
            let block = self.blocks.fetch_add(1, Ordering::Relaxed);
            (seed.wrapping_add(block.wrapping_mul(BLOCK)), BLOCK)
        };
        BLOCK_OF_THREAD.set((seed, next.wrapping_add(1), left - 1));
        next.max(1)
    }
}

/// A call that runs.
#[derive(Debug)]
pub struct Entered {
    before: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_call_has_a_number_until_it_ends_and_an_inner_one_shares_it() {
        let traces = Traces::new();
        traces.seed(1_000);
        assert_eq!(current(), None);
        let outer = traces.enter();
        let number = current();
        assert!(number.is_some());
        drop(traces.enter());
        assert_eq!(current(), number);
        drop(outer);
        assert_eq!(current(), None);
        let _next = traces.enter();
        assert_ne!(current(), number);
    }

    #[test]
    fn threads_and_new_seeds_never_give_a_number_twice() {
        let traces = Traces::new();
        traces.seed(u64::MAX - 5);
        let take = || (0..1_000).map(|_| traces.next()).collect::<Vec<_>>();
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        all.extend(take());
        traces.seed(1 << 60);
        all.extend(take());
        // Where numbers wrap around, 0 is told as 1.
        let distinct: HashSet<u64> = all.iter().copied().collect();
        assert!(all.len() - distinct.len() <= 1, "{} of {}", distinct.len(), all.len());
        assert!(!distinct.contains(&0));
    }
}
