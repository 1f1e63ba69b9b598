//! The slot table of sessions and handles, the cell of an operation and the metrics page, checked over the interleavings of their
//! threads and the orders that the memory model allows, by `loom`. The same models over words that are changed in two steps, that
//! order nothing or that forget their upper half fail: they see what they are for.
#![allow(clippy::unwrap_used)]
use std::sync::Arc as Shared;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::atoms::modelled::{Number, check};
use crate::atoms::{Shelf, Word};
use crate::operation::{Cell, Held};
use crate::page::{Place, Places};
use crate::slab::{Entry, Slab};
use flaws::{Flawed, InTwoSteps, Untagged};

mod flaws;
mod page;

type OneShelf = Mutex<Option<Shared<Entry<u64>>>>;
type Slots<W = Number, S = OneShelf> = Slab<u64, W, S>;
type Operation<W = Number> = Cell<Vec<u32>, W, Mutex<Option<Box<Held<Vec<u32>>>>>>;

/// A break: of several who take one value away each hears yes.
struct Anyones(OneShelf);

impl Shelf<Entry<u64>> for Anyones {
    fn empty() -> Self {
        Self(OneShelf::empty())
    }

    fn get(&self) -> Option<Shared<Entry<u64>>> {
        self.0.get()
    }

    fn look<R>(&self, look: impl FnOnce(&Entry<u64>) -> R) -> Option<R> {
        self.0.look(look)
    }

    fn put(&self, value: Shared<Entry<u64>>) {
        self.0.put(value);
    }

    fn clear(&self, value: &Shared<Entry<u64>>) -> bool {
        self.0.clear(value);
        true
    }
}

fn is_found<W: Word, S: Shelf<Entry<u64>>>(slots: &Slots<W, S>, key: u64, value: u64) -> bool {
    slots.look_up(key).is_some_and(|entry| entry.value == value)
}

/// Stores a value and finds it under its key.
fn stored<W: Word, S: Shelf<Entry<u64>>>(slots: &Slots<W, S>, value: u64) -> u64 {
    let key = slots.insert(|_| value).unwrap().key;
    assert!(is_found(slots, key, value), "what was stored under a key is found there");
    assert!(slots.holds(key), "what was stored under a key is known to be there");
    key
}

fn slots_used_again<W: Word + 'static>() {
    check(3, || {
        let slots = Arc::new(Slots::<W>::new());
        // Two slots that were used before lie in the free list.
        let old: Vec<u64> = (0..2).map(|value| stored(&slots, value)).collect();
        old.iter().for_each(|key| assert!(slots.remove(*key).is_some()));
        let other = {
            let slots = slots.clone();
            thread::spawn(move || {
                // The head of the free list comes back to where another thread may have seen it, with another one behind.
                let (first, second) = (stored(&slots, 10), stored(&slots, 11));
                assert!(slots.remove(first).is_some());
                assert!(slots.look_up(first).is_none() && !slots.holds(first));
                (first, second, stored(&slots, 12))
            })
        };
        let mine = stored(&slots, 20);
        let (first, second, third) = other.join().unwrap();
        for (key, value) in [(mine, 20), (second, 11), (third, 12)] {
            assert!(is_found(&slots, key, value), "what was stored under a key is found there");
        }
        assert!(![first, second, third].contains(&mine));
        for key in old.iter().chain([&first]) {
            assert!(slots.look_up(*key).is_none(), "a key that was removed names nothing for ever");
            assert!(!slots.holds(*key));
        }
        assert_eq!(slots.iter().count(), 3);
    });
}

#[test]
fn a_slot_is_nobody_elses_while_it_is_used_and_an_old_key_names_nothing() {
    slots_used_again::<Number>();
}

#[test]
#[should_panic(expected = "what was stored under a key")]
fn the_model_sees_a_free_list_whose_head_is_not_tagged() {
    slots_used_again::<Flawed<Untagged>>();
}

#[test]
#[should_panic(expected = "what was stored under a key")]
fn the_model_sees_a_slot_given_to_two() {
    slots_used_again::<Flawed<InTwoSteps>>();
}

fn a_value_removed_by_two<S: Shelf<Entry<u64>> + 'static>() {
    check(3, || {
        let slots = Arc::new(Slots::<Number, S>::new());
        let key = stored(&slots, 1);
        let other = {
            let slots = slots.clone();
            thread::spawn(move || usize::from(slots.remove(key).is_some()))
        };
        let mine = usize::from(slots.remove(key).is_some());
        assert_eq!(mine + other.join().unwrap(), 1, "one of the two gets it");
        let (one, two) = (stored(&slots, 2), stored(&slots, 3));
        assert_eq!(slots.look_up(one).unwrap().value, 2);
        assert_eq!(slots.look_up(two).unwrap().value, 3);
    });
}

#[test]
fn of_two_threads_that_remove_one_value_one_gets_it_and_its_slot_is_free_once() {
    a_value_removed_by_two::<OneShelf>();
}

#[test]
#[should_panic(expected = "one of the two gets it")]
fn the_model_sees_a_value_that_two_take_away() {
    a_value_removed_by_two::<Anyones>();
}

fn two_parts_of_an_operation<W: Word + 'static>() {
    check(3, || {
        let cell = Arc::new(Operation::<W>::default());
        cell.take(1).unwrap().begin(Vec::new());
        let inside = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let part = |cell: &Operation<W>, inside: &AtomicBool, done: &AtomicUsize, number: u32| {
            // Another thread is in it: that one hears CKR_OPERATION_ACTIVE.
            let Ok(mut taken) = cell.take(1) else { return };
            assert!(!inside.swap(true, Ordering::AcqRel), "two threads are in one operation");
            taken.operation().expect("two threads are in one operation").push(number);
            taken.settle(Ok(()), false).unwrap();
            inside.store(false, Ordering::Release);
            drop(taken);
            done.fetch_add(1, Ordering::AcqRel);
        };
        let other = {
            let (cell, inside, done) = (cell.clone(), inside.clone(), done.clone());
            thread::spawn(move || part(&cell, &inside, &done, 1))
        };
        part(&cell, &inside, &done, 2);
        other.join().unwrap();
        let mut taken = cell.take(1).unwrap();
        let parts = taken.operation().unwrap();
        assert!(!parts.is_empty(), "one of the two is let in");
        assert_eq!(parts.len(), done.load(Ordering::Acquire));
        taken.settle(Ok(()), true).unwrap();
    });
}

#[test]
fn an_operation_is_in_one_threads_hands_at_a_time_and_nothing_done_to_it_is_lost() {
    two_parts_of_an_operation::<Number>();
}

#[test]
#[should_panic(expected = "two threads are in one operation")]
fn the_model_sees_an_operation_in_the_hands_of_two() {
    two_parts_of_an_operation::<Flawed<InTwoSteps>>();
}

fn a_cancel_and_a_call<W: Word + 'static>() {
    check(3, || {
        let cell = Arc::new(Operation::<W>::default());
        cell.take(1).unwrap().begin(vec![7]);
        let other = {
            let cell = cell.clone();
            thread::spawn(move || cell.cancel(1).is_ok())
        };
        let had_it = match cell.take(1) {
            Err(_) => false,
            Ok(mut taken) => match taken.operation() {
                Err(_) => false,
                Ok(parts) => {
                    assert_eq!(*parts, [7], "an operation is whole or gone");
                    taken.settle(Ok(()), false).unwrap();
                    true
                }
            },
        };
        let is_cancelled = other.join().unwrap();
        assert!(had_it || is_cancelled, "neither was let in");
        assert_eq!(cell.take(1).unwrap().is_active(), !is_cancelled, "a cancelled operation is gone");
    });
}

#[test]
fn a_cancel_and_a_call_never_meet_in_one_operation() {
    a_cancel_and_a_call::<Number>();
}

#[test]
#[should_panic(expected = "a cancelled operation is gone")]
fn the_model_sees_a_cancel_in_the_midst_of_a_call() {
    a_cancel_and_a_call::<Flawed<InTwoSteps>>();
}

fn two_members_at_once<W: Word + 'static>() {
    check(4, || {
        let places: Arc<Places<W>> = Arc::new(Places::new(2));
        let find = |places: &Places<W>, ids: [u64; 2]| ids.map(|id| (id, places.find(id)));
        let other = {
            let places = places.clone();
            thread::spawn(move || find(&places, [5, 6]))
        };
        let mine = find(&places, [6, 5]);
        let all = [mine, other.join().unwrap()].concat();
        for id in [5, 6] {
            let of = |kind: fn(&Place) -> Option<usize>| {
                all.iter()
                    .filter(|(found, _)| *found == id)
                    .filter_map(|(_, place)| kind(place))
                    .collect::<Vec<_>>()
            };
            let new = of(|place| if let Place::New(at) = place { Some(*at) } else { None });
            let old = of(|place| if let Place::Old(at) = place { Some(*at) } else { None });
            assert_eq!(new.len(), 1, "one thread makes the place of {id}: {all:?}");
            assert_eq!(old, new, "and the other finds it");
        }
        assert_eq!(places.find(7), Place::None);
    });
}

#[test]
fn a_member_has_one_place_on_the_metrics_page_and_no_place_has_two() {
    two_members_at_once::<Number>();
}

#[test]
#[should_panic(expected = "makes the place of")]
fn the_model_sees_a_place_that_two_make() {
    two_members_at_once::<Flawed<InTwoSteps>>();
}
