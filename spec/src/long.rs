//! Memory of long bodies that a thread uses again. To ask the system for the pages of a MiB and to give them back costs a
//! client as much as the encryption of it.
//!
//! ```text
//! give: wiped, kept by the thread | short, too long, or the process keeps enough: wiped, given up
//! take: what the thread keeps and is not much too long | nothing: ask the allocator
//! ```
//! A thread keeps what it has until it ends. Threads share nothing here but the count of the bytes that are kept; a forked child goes on
//! with its parent's, and so may keep less (HA 6).
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use zeroize::Zeroizing;

use crate::wipe::{discard, wipe_memory};

/// The allocator keeps shorter memory itself.
pub const LONG_BYTES: usize = 64 << 10;
/// Longer memory is not kept.
const KEPT_BYTES_MAX: usize = 2 << 20;
/// So many are kept by a thread: a request's and its reply's.
const KEPT_MAX: usize = 2;
/// All threads of a process keep no more than this.
const ALL_KEPT_BYTES_MAX: usize = 16 << 20;
/// Memory so many times as long as what is wanted is not used for it.
const TOO_LONG: usize = 4;

static ALL_KEPT_BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local!(static KEPT: RefCell<Kept> = const { RefCell::new(Kept::new(&ALL_KEPT_BYTES)) });

/// What one thread keeps, wiped and empty.
struct Kept {
    rooms: Vec<Vec<u8>>,
    /// The bytes that all keep.
    all: &'static AtomicUsize,
}

impl Kept {
    const fn new(all: &'static AtomicUsize) -> Self {
        Self { rooms: Vec::new(), all }
    }

    /// The shortest that is long enough.
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let fits = |room: &Vec<u8>| (bytes..=bytes.saturating_mul(TOO_LONG)).contains(&room.capacity());
        let fitting = self.rooms.iter().enumerate().filter(|(_, room)| fits(room));
        let (place, _) = fitting.min_by_key(|(_, room)| room.capacity())?;
        let room = self.rooms.swap_remove(place);
        self.all.fetch_sub(room.capacity(), Ordering::Relaxed);
        Some(room)
    }

    fn give(&mut self, room: Vec<u8>) {
        if self.rooms.len() == KEPT_MAX {
            // What was wanted last is wanted next.
            self.all.fetch_sub(self.rooms.remove(0).capacity(), Ordering::Relaxed);
        }
        if self.all.fetch_add(room.capacity(), Ordering::Relaxed) + room.capacity() <= ALL_KEPT_BYTES_MAX {
            self.rooms.push(room);
        } else {
            self.all.fetch_sub(room.capacity(), Ordering::Relaxed);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let bytes = self.rooms.iter().map(Vec::capacity).sum();
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Memory for so many bytes, if this thread keeps some: empty and all zeros.
pub fn take(bytes: usize) -> Option<Zeroizing<Vec<u8>>> {
    if !(LONG_BYTES..=KEPT_BYTES_MAX).contains(&bytes) {
        return None;
    }
    KEPT.try_with(|kept| kept.borrow_mut().take(bytes)).ok().flatten().map(Zeroizing::new)
}

/// Wipes all of a buffer's memory and keeps it for this thread, or gives it up.
pub fn give(mut buffer: Zeroizing<Vec<u8>>) {
    let mut buffer = std::mem::take(&mut *buffer);
    if !(LONG_BYTES..=KEPT_BYTES_MAX).contains(&buffer.capacity()) {
        return discard(buffer);
    }
    wipe_memory(&mut buffer);
    // A thread that ends keeps nothing.
    let _ = KEPT.try_with(|kept| kept.borrow_mut().give(buffer));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn long(bytes: usize) -> Vec<u8> {
        vec![0; bytes]
    }

    #[test]
    fn long_memory_is_used_again_by_its_thread_all_of_it_wiped() {
        let mut given = Zeroizing::new(vec![7; MIB]);
        given.truncate(10);
        let place = given.as_ptr();
        give(given);
        let other = std::thread::spawn(|| take(MIB).is_none());
        assert!(other.join().unwrap(), "each thread its own");
        let mut again = take(MIB).unwrap();
        assert!(again.is_empty() && again.as_ptr() == place);
        again.resize(MIB, 1);
        give(again);
        let mut again = take(MIB / 2).unwrap();
        assert_eq!((again.len(), again.as_ptr()), (0, place));
        assert!(take(MIB / 2).is_none(), "it is in use");
        again.extend([2; 5]);
        for not_kept in [again.capacity() * 4, LONG_BYTES - 1] {
            give(Zeroizing::new(long(not_kept)));
            assert!(take(not_kept).is_none());
        }
    }

    #[test]
    fn what_fits_best_is_taken_and_nothing_that_is_much_too_long() {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        let mut kept = Kept::new(&ALL);
        let (first, second) = (long(MIB), long(MIB / 2));
        let places = [second.as_ptr(), first.as_ptr()];
        [first, second].into_iter().for_each(|room| kept.give(room));
        assert!(kept.take(MIB / 8 - 1).is_none(), "all are much too long");
        assert!(kept.take(MIB + 1).is_none(), "all are too short");
        assert_eq!(ALL.load(Ordering::Relaxed), MIB + MIB / 2);
        let rooms = [kept.take(MIB / 2).unwrap(), kept.take(MIB / 2).unwrap()];
        assert_eq!(rooms.each_ref().map(Vec::as_ptr), places);
        assert_eq!(ALL.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_thread_keeps_two_and_all_of_them_no_more_than_the_bound() {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        let mut threads: Vec<Kept> = (0..8).map(|_| Kept::new(&ALL)).collect();
        (0..5).for_each(|_| threads[0].give(long(MIB)));
        assert_eq!(ALL.load(Ordering::Relaxed), KEPT_MAX * MIB);
        for kept in &mut threads {
            (0..2).for_each(|_| kept.give(long(2 * MIB)));
        }
        assert_eq!(ALL.load(Ordering::Relaxed), ALL_KEPT_BYTES_MAX);
        assert!(threads[7].take(MIB).is_none());
        threads.truncate(1);
        assert_eq!(ALL.load(Ordering::Relaxed), 4 * MIB, "threads that have ended keep nothing");
    }
}
