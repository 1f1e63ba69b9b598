//! A generation slab: keys to shared values, looked up without a lock, never moved (DESIGN 3, HA 6).
//!
//! ```text
//! key = generation << 24 | index + 1        so first keys are 1, 2, 3 ... and a slot used again gives another key
//! chunk k holds 64 << k slots; chunks are made when first needed and never freed
//! slot: entry (one atomic publish: key and value together), generation, link of the free list
//! free list: a stack of indices, its head tagged against reuse in between
//! ```
//! All of it is atomics, so a forked child finds it whole; a thread that the fork cut off in mid-insert costs one slot.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use once_cell::race::OnceBox;
use spec::planted::{self, Bug};

const INDEX_BITS: u32 = 24;
const FIRST_CHUNK_SLOTS: usize = 64;
const CHUNKS: usize = 18;
/// Most values at once: what the chunks hold, about 16.7 million.
const SLOTS_MAX: usize = FIRST_CHUNK_SLOTS * ((1 << CHUNKS) - 1);

/// A value and the key it stands under.
pub(crate) struct Entry<T> {
    /// The key: a C handle; never 0.
    pub(crate) key: u64,
    /// The value.
    pub(crate) value: T,
}

impl<T> std::ops::Deref for Entry<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

struct Slot<T> {
    entry: ArcSwapOption<Entry<T>>,
    generation: AtomicU64,
    next_free: AtomicU32,
}

/// The slab.
pub(crate) struct Slab<T> {
    /// Published by one atomic; of two threads that make the same chunk one throws its own away. Nobody waits for
    /// another, who may be a thread that the fork cut off.
    chunks: [OnceBox<Box<[Slot<T>]>>; CHUNKS],
    /// Slots ever handed out.
    used: AtomicU32,
    /// `tag << 32 | index + 1`; index + 1 = 0 when the list is empty.
    free: AtomicU64,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    /// An empty slab; no memory but its head.
    pub(crate) const fn new() -> Self {
        Self { chunks: [const { OnceBox::new() }; CHUNKS], used: AtomicU32::new(0), free: AtomicU64::new(0) }
    }

    /// Stores a value; `make` is given the key. `None` when the slab is full.
    pub(crate) fn insert(&self, make: impl FnOnce(u64) -> T) -> Option<Arc<Entry<T>>> {
        let index = self.take_free().or_else(|| self.take_fresh())?;
        let slot = self.slot(index)?;
        let again = u64::from(!planted::is(Bug::SlotWithoutGeneration));
        let generation = slot.generation.fetch_add(again, Ordering::Relaxed);
        let key = (generation << INDEX_BITS) | (u64::from(index) + 1);
        let entry = Arc::new(Entry { key, value: make(key) });
        slot.entry.store(Some(entry.clone()));
        Some(entry)
    }

    /// The value under a key; `None` for a key never issued or removed since.
    pub(crate) fn look_up(&self, key: u64) -> Option<Arc<Entry<T>>> {
        let entry = self.slot(index_of(key)?)?.entry.load();
        entry.as_ref().filter(|entry| entry.key == key).cloned()
    }

    /// Takes the value under a key out; exactly one of several callers gets it.
    pub(crate) fn remove(&self, key: u64) -> Option<Arc<Entry<T>>> {
        let index = index_of(key)?;
        let slot = self.slot(index)?;
        let entry = slot.entry.load_full().filter(|entry| entry.key == key)?;
        let previous = slot.entry.compare_and_swap(&Some(entry.clone()), None);
        if !previous.as_ref().is_some_and(|previous| Arc::ptr_eq(previous, &entry)) {
            return None;
        }
        self.give_free(index, slot);
        Some(entry)
    }

    /// Every value that is in the slab while the iterator passes it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Arc<Entry<T>>> + '_ {
        (0..self.used.load(Ordering::Acquire)).filter_map(|index| self.slot(index)?.entry.load_full())
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let (chunk, offset) = place(index);
        self.chunks.get(chunk)?.get()?.get(offset)
    }

    fn take_fresh(&self) -> Option<u32> {
        let next = |used: u32| (usize::try_from(used).ok()? < SLOTS_MAX).then_some(used.wrapping_add(1));
        let index = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        let (chunk, _) = place(index);
        self.chunks[chunk].get_or_init(|| {
            let empty = || Slot {
                entry: ArcSwapOption::const_empty(),
                generation: AtomicU64::new(0),
                next_free: AtomicU32::new(0),
            };
            Box::new((0..FIRST_CHUNK_SLOTS << chunk).map(|_| empty()).collect())
        });
        Some(index)
    }

    fn take_free(&self) -> Option<u32> {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            let index = low(head).checked_sub(1)?;
            let next = self.slot(index)?.next_free.load(Ordering::Acquire);
            let new = tagged(head, next);
            match self.free.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(seen) => head = seen,
            }
        }
    }

    fn give_free(&self, index: u32, slot: &Slot<T>) {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            slot.next_free.store(low(head), Ordering::Release);
            let new = tagged(head, index.wrapping_add(1));
            match self.free.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }
}

fn index_of(key: u64) -> Option<u32> {
    u32::try_from(key & ((1 << INDEX_BITS) - 1)).ok()?.checked_sub(1)
}

/// The chunk and the place in it of an index: chunk k begins at `64 * (2^k - 1)`.
fn place(index: u32) -> (usize, usize) {
    let shifted = u64::from(index) / 64 + 1;
    let chunk = shifted.ilog2();
    let start = 64 * ((1u64 << chunk) - 1);
    let offset = u64::from(index) - start;
    (usize::try_from(chunk).unwrap_or(usize::MAX), usize::try_from(offset).unwrap_or(usize::MAX))
}

fn low(head: u64) -> u32 {
    u32::try_from(head & u64::from(u32::MAX)).expect("masked to 32 bits")
}

fn tagged(head: u64, low: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(low)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn places_cover_the_chunks_without_gap() {
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(63), (0, 63));
        assert_eq!(place(64), (1, 0));
        assert_eq!(place(191), (1, 127));
        assert_eq!(place(192), (2, 0));
        assert_eq!(place(u32::try_from(SLOTS_MAX).unwrap() - 1).0, CHUNKS - 1);
        assert!((SLOTS_MAX as u64) < (1 << INDEX_BITS));
    }

    #[test]
    fn a_key_used_again_names_another_generation() {
        let slab = Slab::new();
        let first = slab.insert(|_| 'a').unwrap().key;
        assert_eq!(first, 1);
        assert!(slab.remove(first).is_some());
        assert!(slab.remove(first).is_none());
        let second = slab.insert(|_| 'b').unwrap().key;
        assert_ne!(first, second);
        assert!(slab.look_up(first).is_none());
        assert_eq!(slab.look_up(second).unwrap().value, 'b');
        assert!(slab.look_up(0).is_none());
    }

    #[test]
    fn threads_never_share_a_key_and_lose_none() {
        let slab = Slab::new();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let slab = &slab;
                scope.spawn(move || {
                    for round in 0..5_000u64 {
                        let value = thread << 32 | round;
                        let entry = slab.insert(|_| value).unwrap();
                        assert_eq!(slab.look_up(entry.key).unwrap().value, value);
                        if round % 3 != 0 {
                            assert_eq!(slab.remove(entry.key).unwrap().value, value);
                        }
                    }
                });
            }
        });
        assert_eq!(slab.iter().count(), 4 * 1_667);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_whose_keys_are_never_used_again(steps in prop::collection::vec((any::<bool>(), any::<u16>()), 1..400)) {
            let slab = Slab::new();
            let mut model: HashMap<u64, u16> = HashMap::new();
            let mut gone: Vec<u64> = Vec::new();
            for (insert, value) in steps {
                if insert || model.is_empty() {
                    let key = slab.insert(|_| value).unwrap().key;
                    prop_assert!(!gone.contains(&key));
                    prop_assert!(model.insert(key, value).is_none());
                } else {
                    let at = usize::from(value) % model.len();
                    let key = *model.keys().nth(at).unwrap();
                    prop_assert_eq!(slab.remove(key).map(|entry| entry.value), model.remove(&key));
                    gone.push(key);
                }
                for key in &gone {
                    prop_assert!(slab.look_up(*key).is_none());
                }
            }
            for (key, value) in &model {
                prop_assert_eq!(slab.look_up(*key).map(|entry| entry.value), Some(*value));
            }
            prop_assert_eq!(slab.iter().count(), model.len());
        }
    }
}
