//! A bound in bytes on what is held for clients: bodies that wait, replies that are not yet sent (HA 4.5).
//!
//! ```text
//! Memory of the process <- Memory of each link <- Held: one body, then the reply to it; gives its bytes back when dropped
//! ```
//! A body is taken in only if it fits; the rest of a long frame is read only when there is room for it. A reply's size is
//! known when it is there, so it is counted even above the bound, and nothing else starts until the peer has read enough:
//! at most one reply for each running thread is above it.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound and what is held under it, in bytes.
pub struct Memory {
    held: AtomicUsize,
    bytes_max: usize,
    above: Option<Arc<Memory>>,
}

impl Memory {
    /// Nothing held yet, at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Arc<Memory> {
        Arc::new(Memory { held: AtomicUsize::new(0), bytes_max, above: None })
    }

    /// A part of this one with a bound of its own; what it holds counts in both.
    pub fn part(self: &Arc<Self>, bytes_max: usize) -> Arc<Memory> {
        Arc::new(Memory { held: AtomicUsize::new(0), bytes_max, above: Some(self.clone()) })
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether more is held than the bound allows, here or above.
    pub fn is_over(&self) -> bool {
        self.held() > self.bytes_max || self.above.as_ref().is_some_and(|above| above.is_over())
    }

    /// Takes so many bytes; `None`, and nothing taken, when they do not fit here or above.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let held = self.hold(bytes);
        if self.is_over() { None } else { Some(held) }
    }

    /// Counts so many bytes that are there already, whether they fit or not.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.add(bytes);
        Held { memory: self.clone(), bytes }
    }

    fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        if let Some(above) = &self.above {
            above.add(bytes);
        }
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(above) = &self.above {
            above.give_back(bytes);
        }
    }
}

/// So many bytes of a [`Memory`], until dropped.
pub struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Held {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether more is held than the bounds allow.
    pub fn is_over(&self) -> bool {
        self.memory.is_over()
    }

    /// Takes what is missing to so many bytes; whether it fits, and nothing taken when it does not.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.bytes);
        if missing == 0 {
            return true;
        }
        let Some(mut more) = self.memory.take(missing) else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }

    /// Other bytes have taken the place of these, fitting or not.
    pub fn resize(&mut self, bytes: usize) {
        self.memory.add(bytes);
        self.memory.give_back(self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_taken_and_what_is_dropped_is_given_back() {
        let process = Memory::new(10);
        let (first, second) = (process.part(6), process.part(6));
        let six = first.take(6).unwrap();
        assert!(first.take(1).is_none(), "the link's bound");
        let four = second.take(4).unwrap();
        assert!(second.take(1).is_none(), "the process's bound");
        assert_eq!((first.held(), second.held(), process.held()), (6, 4, 10));
        drop(six);
        let mut two = second.take(2).unwrap();
        assert!(!two.grow(3) && two.grow(2) && two.grow(1), "it has 2 and no room for more");
        assert_eq!((second.held(), two.bytes()), (6, 2));
        two.resize(9);
        assert!(second.is_over() && two.is_over(), "13 of 6 in the link");
        assert!(first.is_over(), "13 of 10 in the process");
        assert_eq!((second.held(), process.held()), (13, 13));
        drop((two, four));
        assert_eq!((first.held(), second.held(), process.held()), (0, 0, 0));
    }

    #[test]
    fn threads_together_never_take_more_than_the_bound() {
        let process = Memory::new(100);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let link = process.part(80);
                    for _ in 0..2_000 {
                        if let Some(held) = link.take(30) {
                            assert!(process.held() >= held.bytes());
                        }
                    }
                });
            }
        });
        assert_eq!(process.held(), 0);
    }
}
