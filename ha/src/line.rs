//! The line of calls that found no room on any member: first come, first served (HA 4.5).
//!
//! A call that finds all windows full, or everybody asking for patience, stands in line; while somebody stands there,
//! newcomers stand behind. Whenever a request ends the first one looks again. Only the calls in line take its lock.
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spec::platform::Lock;
use spec::seam::Waiter;

/// The line.
#[derive(Default)]
pub(crate) struct Line {
    waiting: Lock<Queue>,
    length: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    /// The number of the last call that joined.
    last: u64,
    calls: VecDeque<(u64, Arc<Waiter>)>,
}

/// A place in the line, given up when it is dropped.
pub(crate) struct InLine<'a> {
    line: &'a Line,
    number: u64,
}

impl Line {
    /// Whether somebody stands in line.
    pub(crate) fn is_occupied(&self) -> bool {
        self.length.load(Ordering::Acquire) > 0
    }

    /// Stands behind everybody who stands there.
    pub(crate) fn join(&self, waiter: &Arc<Waiter>) -> InLine<'_> {
        let mut waiting = self.waiting.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.calls.push_back((number, waiter.clone()));
        self.length.store(waiting.calls.len(), Ordering::Release);
        InLine { line: self, number }
    }

    /// There may be room: the first one looks.
    pub(crate) fn wake_first(&self) {
        if self.is_occupied() {
            let first = self.waiting.lock().calls.front().map(|(_, waiter)| waiter.clone());
            if let Some(first) = first {
                first.wake();
            }
        }
    }
}

impl InLine<'_> {
    /// Whether nobody stands in front.
    pub(crate) fn is_first(&self) -> bool {
        self.line.waiting.lock().calls.front().is_some_and(|(number, _)| *number == self.number)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting.lock();
        waiting.calls.retain(|(number, _)| *number != self.number);
        self.line.length.store(waiting.calls.len(), Ordering::Release);
        drop(waiting);
        self.line.wake_first();
    }
}
