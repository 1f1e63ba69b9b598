//! A generation slab: keys to shared values, looked up without a lock, never moved (DESIGN 3, HA 6).
//!
//! ```text
//! key = generation / 2 << 24 | index + 1    so first keys are 1, 2, 3 ... and a slot used again gives another key
//! chunk k holds 64 << k slots; chunks are made when first needed and never freed
//! slot: entry (one atomic publish: key and value together), generation (raised when it is filled and when it is emptied),
//!       link of the free list
//! free list: a stack of indices, its head tagged against reuse in between
//! ```
//! All of it is atomics, so a forked child finds it whole; a thread that the fork cut off in mid-insert costs one slot.
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use once_cell::race::OnceBox;
use spec::planted::{self, Bug};

use crate::atoms::{Shelf, Word};

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

struct Slot<W, S> {
    entry: S,
    generation: W,
    /// index + 1 of the next one in the free list.
    next_free: W,
}

impl<W: Word, S> Slot<W, S> {
    /// Begins another generation; the one before.
    fn raise(&self) -> u64 {
        self.generation.fetch_add(u64::from(!planted::is(Bug::SlotWithoutGeneration)), Ordering::AcqRel)
    }
}

/// Slots that never move.
type Chunk<W, S> = Box<[Slot<W, S>]>;

/// The slab.
pub(crate) struct Slab<T, W = AtomicU64, S = ArcSwapOption<Entry<T>>> {
    /// Published by one atomic; of two threads that make the same chunk one throws its own away. Nobody waits for
    /// another, who may be a thread that the fork cut off.
    chunks: [OnceBox<Chunk<W, S>>; CHUNKS],
    /// Slots ever handed out.
    used: W,
    /// `tag << 32 | index + 1`; index + 1 = 0 when the list is empty.
    free: W,
    of: PhantomData<T>,
}

impl<T, W: Word, S: Shelf<Entry<T>>> Default for Slab<T, W, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, W: Word, S: Shelf<Entry<T>>> Slab<T, W, S> {
    /// An empty slab; no memory but its head.
    pub(crate) fn new() -> Self {
        let chunks = [const { OnceBox::new() }; CHUNKS];
        Self { chunks, used: W::new(0), free: W::new(0), of: PhantomData }
    }

    /// Stores a value; `make` is given the key. `None` when the slab is full.
    pub(crate) fn insert(&self, make: impl FnOnce(u64) -> T) -> Option<Arc<Entry<T>>> {
        let index = self.take_free().or_else(|| self.take_fresh())?;
        let slot = self.slot(index)?;
        let generation = slot.raise();
        let key = ((generation / 2) << INDEX_BITS) | (u64::from(index) + 1);
        let entry = Arc::new(Entry { key, value: make(key) });
        slot.entry.put(entry.clone());
        Some(entry)
    }

    /// The value under a key; `None` for a key never issued or removed since.
    pub(crate) fn look_up(&self, key: u64) -> Option<Arc<Entry<T>>> {
        self.slot(index_of(key)?)?.entry.get().filter(|entry| entry.key == key)
    }

    /// Looks at the value under a key without counting who has it; `None` as for [`Slab::look_up`].
    pub(crate) fn look<R>(&self, key: u64, look: impl FnOnce(&T) -> R) -> Option<R> {
        let own = |entry: &Entry<T>| (entry.key == key).then(|| look(&entry.value));
        self.slot(index_of(key)?)?.entry.look(own)?
    }

    /// Whether a value is under a key: one look at its slot's generation. A moment before it is there, and a moment after it
    /// was taken out, either answer may be heard.
    pub(crate) fn holds(&self, key: u64) -> bool {
        let filled = 2 * (key >> INDEX_BITS) + 1;
        let slot = index_of(key).and_then(|index| self.slot(index));
        slot.is_some_and(|slot| slot.generation.load(Ordering::Acquire) == filled)
    }

    /// Takes the value under a key out; exactly one of several callers gets it.
    pub(crate) fn remove(&self, key: u64) -> Option<Arc<Entry<T>>> {
        let index = index_of(key)?;
        let slot = self.slot(index)?;
        let entry = slot.entry.get().filter(|entry| entry.key == key)?;
        if !slot.entry.clear(&entry) {
            return None;
        }
        slot.raise();
        self.give_free(index, slot);
        Some(entry)
    }

    /// Every value that is in the slab while the iterator passes it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Arc<Entry<T>>> + '_ {
        (0..low(self.used.load(Ordering::Acquire))).filter_map(|index| self.slot(index)?.entry.get())
    }

    fn slot(&self, index: u32) -> Option<&Slot<W, S>> {
        let (chunk, offset) = place(index);
        self.chunks.get(chunk)?.get()?.get(offset)
    }

    fn take_fresh(&self) -> Option<u32> {
        let next = |used: u64| (usize::try_from(used).ok()? < SLOTS_MAX).then_some(used.wrapping_add(1));
        let index = low(self.used.update(next).ok()?);
        let (chunk, _) = place(index);
        self.chunks[chunk].get_or_init(|| {
            let empty = || Slot { entry: S::empty(), generation: W::new(0), next_free: W::new(0) };
            Box::new((0..FIRST_CHUNK_SLOTS << chunk).map(|_| empty()).collect())
        });
        Some(index)
    }

    fn take_free(&self) -> Option<u32> {
        let first = |head: u64| low(head).checked_sub(1);
        let next = |head: u64| Some(low(self.slot(first(head)?)?.next_free.load(Ordering::Acquire)));
        first(self.free.update(|head| Some(tagged(head, next(head)?))).ok()?)
    }

    fn give_free(&self, index: u32, slot: &Slot<W, S>) {
        let put = |head: u64| {
            slot.next_free.store(u64::from(low(head)), Ordering::Release);
            Some(tagged(head, index.wrapping_add(1)))
        };
        // It makes something of every head.
        let _ = self.free.update(put);
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
        let slab: Slab<_> = Slab::new();
        let first = slab.insert(|_| 'a').unwrap().key;
        assert_eq!(first, 1);
        assert!(slab.holds(first));
        assert!(slab.remove(first).is_some());
        assert!(slab.remove(first).is_none() && !slab.holds(first));
        let second = slab.insert(|_| 'b').unwrap().key;
        assert_ne!(first, second);
        assert!(slab.look_up(first).is_none() && !slab.holds(first));
        assert_eq!(slab.look_up(second).unwrap().value, 'b');
        assert!(slab.holds(second));
        assert!(slab.look_up(0).is_none() && !slab.holds(0) && !slab.holds(u64::MAX));
    }

    #[test]
    fn threads_never_share_a_key_and_lose_none() {
        let slab: Slab<_> = Slab::new();
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
            let slab: Slab<_> = Slab::new();
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
