//! The slot table of sessions and handles, the cell of an operation and the places of the metrics page, checked over the
//! interleavings of their threads and the orders that the memory model allows, by `loom`.
#![allow(clippy::unwrap_used)]
use std::sync::Arc as Shared;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::atoms::modelled::{Number, check};
use crate::operation::{Cell, Held};
use crate::page::{Place, Places};
use crate::slab::{Entry, Slab};

type Slots = Slab<u64, Number, Mutex<Option<Shared<Entry<u64>>>>>;
type Operation = Cell<Vec<u32>, Number, Mutex<Option<Box<Held<Vec<u32>>>>>>;

/// Stores a value and finds it under its key.
fn stored(slots: &Slots, value: u64) -> u64 {
    let key = slots.insert(|_| value).unwrap().key;
    assert_eq!(slots.look_up(key).unwrap().value, value, "what was stored under a key is found there");
    assert!(slots.holds(key), "and known to be there");
    key
}

#[test]
fn a_slot_is_nobody_elses_while_it_is_used_and_an_old_key_names_nothing() {
    check(3, || {
        let slots = Arc::new(Slots::new());
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
            assert_eq!(slots.look_up(key).unwrap().value, value);
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
fn of_two_threads_that_remove_one_value_one_gets_it_and_its_slot_is_free_once() {
    check(3, || {
        let slots = Arc::new(Slots::new());
        let key = stored(&slots, 1);
        let other = {
            let slots = slots.clone();
            thread::spawn(move || usize::from(slots.remove(key).is_some()))
        };
        let mine = usize::from(slots.remove(key).is_some());
        assert_eq!(mine + other.join().unwrap(), 1);
        let (one, two) = (stored(&slots, 2), stored(&slots, 3));
        assert_eq!(slots.look_up(one).unwrap().value, 2);
        assert_eq!(slots.look_up(two).unwrap().value, 3);
    });
}

#[test]
fn an_operation_is_in_one_threads_hands_at_a_time_and_nothing_done_to_it_is_lost() {
    check(3, || {
        let cell = Arc::new(Operation::default());
        cell.take(1).unwrap().begin(Vec::new());
        let inside = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let part = |cell: &Operation, inside: &AtomicBool, done: &AtomicUsize, number: u32| {
            // Another thread is in it: that one hears CKR_OPERATION_ACTIVE.
            let Ok(mut taken) = cell.take(1) else { return };
            assert!(!inside.swap(true, Ordering::AcqRel), "two threads are in one operation");
            taken.operation().unwrap().push(number);
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
fn a_cancel_and_a_call_never_meet_in_one_operation() {
    check(3, || {
        let cell = Arc::new(Operation::default());
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
        assert_eq!(cell.take(1).unwrap().is_active(), !is_cancelled);
    });
}

#[test]
fn a_member_has_one_place_on_the_metrics_page_and_no_place_has_two() {
    check(4, || {
        let places: Arc<Places<Number>> = Arc::new(Places::new(2));
        let find = |places: &Places<Number>, ids: [u64; 2]| ids.map(|id| (id, places.find(id)));
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
