//! The budget of hedges (HA 4.3): 2 % of requests and a burst of 8, charged by expected cost.
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A token in the bucket's unit.
const TOKEN: i64 = 1_000;
/// What one request adds: 2 %.
const EARNED: i64 = TOKEN / 50;
/// The bucket holds so much.
const BURST: i64 = 8 * TOKEN;

/// The bucket. It begins full. Calls write to it, in a cache line that holds nothing else.
#[repr(align(128))]
pub(crate) struct Budget {
    tokens: AtomicI64,
    /// The moving average of what a request is expected to cost, in nanoseconds.
    usual_ns: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { tokens: AtomicI64::new(BURST), usual_ns: AtomicU64::new(0) }
    }
}

impl Budget {
    /// A request of this expected cost is sent for the first time.
    pub(crate) fn earn(&self, expected_ns: u64) {
        let usual = self.usual_ns.load(Ordering::Relaxed);
        let new = if usual == 0 { expected_ns } else { usual - usual / 64 + expected_ns / 64 };
        // All callers write here: not for what is as good as the same.
        if new.abs_diff(usual) > usual / 1_024 {
            self.usual_ns.store(new, Ordering::Relaxed);
        }
        if self.tokens.load(Ordering::Relaxed) < BURST {
            self.tokens.fetch_add(EARNED, Ordering::Relaxed);
        }
    }

    /// Takes what a hedge of this expected cost is worth: one token, or more when it costs more than is usual. False
    /// when there is not enough.
    pub(crate) fn take(&self, expected_ns: u64) -> bool {
        let usual = self.usual_ns.load(Ordering::Relaxed).max(1);
        let thousandths = (u128::from(expected_ns) * 1_000 / u128::from(usual)).max(1_000);
        let price = i64::try_from(thousandths).unwrap_or(i64::MAX);
        let taken = |tokens: i64| (tokens >= price).then(|| tokens - price);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_eight_and_then_one_in_fifty() {
        let budget = Budget::default();
        budget.earn(1_000);
        assert_eq!((0..100).filter(|_| budget.take(1_000)).count(), 8);
        let hedged = (0..10_000)
            .filter(|_| {
                budget.earn(1_000);
                budget.take(1_000)
            })
            .count();
        assert_eq!(hedged, 200);
    }

    #[test]
    fn what_costs_more_than_usual_is_charged_more_and_what_costs_less_one_token() {
        let budget = Budget::default();
        (0..1_000).for_each(|_| budget.earn(64_000));
        assert_eq!((0..100).filter(|_| budget.take(4 * 64_000)).count(), 2);
        let budget = Budget::default();
        (0..1_000).for_each(|_| budget.earn(64_000));
        assert_eq!((0..100).filter(|_| budget.take(1)).count(), 8);
    }
}
