//! A bound in bytes on what is held for clients: bodies that wait, replies that are not yet sent (HA 4.5).
//!
//! ```text
//! Memory of the process <- Memory of each client <- Memory of each link <- Held: one body, then the reply to it; gives its
//!    at most its bound        its fair share           at most its bound         bytes back when dropped
//! ```
//! A body is taken in only if it fits; the rest of a long frame is read only when there is room for it. A reply's size is
//! known when it is there, so it is counted even above the bound, and nothing else starts until the peer has read enough:
//! at most one reply for each running thread is above it.
//!
//! A client's fair share is what it leaves free for the others: one alone holds half of the bound at most, two a third each.
//! So none can make another hear Busy. One request of the greatest size is everybody's right while there is room for it.
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use spec::messages::BODY_BYTES_MAX;

/// How much may be held.
enum Bound {
    /// So many bytes.
    Bytes(usize),
    /// As much as is left free above, and one request in any case.
    FairShare,
}

/// A bound and what is held under it, in bytes.
pub struct Memory {
    held: AtomicUsize,
    bound: Bound,
    above: Option<Arc<Memory>>,
    /// The shares of the clients that have links.
    shares: Mutex<HashMap<[u8; 32], Weak<Memory>>>,
}

impl Memory {
    /// Nothing held yet, at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Arc<Memory> {
        Self::under(Bound::Bytes(bytes_max), None)
    }

    fn under(bound: Bound, above: Option<Arc<Memory>>) -> Arc<Memory> {
        Arc::new(Memory { held: AtomicUsize::new(0), bound, above, shares: Mutex::default() })
    }

    /// The share of a client, which all its links have together; what it holds counts here too.
    pub fn share(self: &Arc<Self>, client: [u8; 32]) -> Arc<Memory> {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(&client).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Self::under(Bound::FairShare, Some(self.clone()));
        shares.insert(client, Arc::downgrade(&share));
        share
    }

    /// A part of this one with a bound of its own; what it holds counts in both.
    pub fn part(self: &Arc<Self>, bytes_max: usize) -> Arc<Memory> {
        Self::under(Bound::Bytes(bytes_max), Some(self.clone()))
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether more is held than the bound allows, here or above.
    pub fn is_over(&self) -> bool {
        self.held() > self.bytes_max() || self.above.as_ref().is_some_and(|above| above.is_over())
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max_with(0)
    }

    /// The bound as it would be with so many bytes more above.
    fn bytes_max_with(&self, more: usize) -> usize {
        match self.bound {
            Bound::Bytes(bytes_max) => bytes_max,
            Bound::FairShare => {
                let free = self.above.as_ref().map_or(0, |above| above.free());
                free.saturating_sub(more).max(BODY_BYTES_MAX)
            }
        }
    }

    fn free(&self) -> usize {
        self.bytes_max().saturating_sub(self.held())
    }

    /// Takes so many bytes; `None`, and nothing taken, when they do not fit here or above.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let held = self.hold(bytes);
        if self.is_over() { None } else { Some(held) }
    }

    /// Whether so many bytes would fit now, for what is held no longer than it takes to answer it.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.held().saturating_add(bytes) <= self.bytes_max_with(bytes)
            && self.above.as_ref().is_none_or(|above| above.has_room(bytes))
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
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => self.memory.add(more),
            None => self.memory.give_back(self.bytes - bytes),
        }
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
        assert!(first.take(1).is_none() && !first.has_room(1), "the link's bound");
        let four = second.take(4).unwrap();
        assert!(second.take(1).is_none() && !second.has_room(1), "the process's bound");
        assert!(second.has_room(0) && !second.has_room(usize::MAX));
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
    fn ha_4_5_a_client_leaves_as_much_free_as_it_holds_and_one_request_is_everybodys_right() {
        let mib = 1 << 20;
        let process = Memory::new(100 * mib);
        let (greedy, modest) = (process.share([1; 32]), process.share([2; 32]));
        let links = [greedy.part(64 * mib), process.share([1; 32]).part(64 * mib)];
        let mut held = Vec::new();
        while let Some(more) = links[held.len() % 2].take(mib) {
            held.push(more);
        }
        assert_eq!((held.len(), greedy.held()), (50, 50 * mib), "over both its links");
        assert!(!links[0].has_room(mib) && modest.has_room(mib));
        assert!(!greedy.is_over());
        let of_modest = modest.part(64 * mib).take(20 * mib).unwrap();
        assert!(greedy.is_over(), "what is left has become less: 30 MiB");
        assert!(!modest.is_over());
        drop(held.split_off(30));
        assert!(!greedy.is_over());
        drop((of_modest, held));
        // A bound that is hardly above one request still lets one in, and not a second one of the same client.
        let small = Memory::new(20 * mib);
        let share = small.share([1; 32]);
        let whole = share.take(BODY_BYTES_MAX).unwrap();
        assert!(share.take(mib).is_none());
        assert!(small.share([2; 32]).take(mib).is_some());
        drop(whole);
        assert_eq!(small.held(), 0);
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
