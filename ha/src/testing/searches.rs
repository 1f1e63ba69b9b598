//! Merged searches wait for every member that can be read (HA 3.2).
use std::sync::Arc;

use spec::messages::Outcome;
use spec::record::State;
use spec::{Ouid, Template};

use super::{Fate, TICKET, World};
use crate::error::Error;
use crate::group::Group;

const FIND: u32 = 20;

fn found(group: &Group) -> Result<usize, Error> {
    group.find(&Template::default(), TICKET).map(|found| found.len())
}

/// Three members that are read, whose contents are known to differ: the last one alone holds an object.
fn differing() -> (Arc<World>, Arc<Group>) {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    world.model(3, |model| model.put(Ouid([0x42; 16]), State::Committed));
    group.set_divergent(true);
    world.forget();
    (world, group)
}

const FAULTS: [Fate; 6] = [
    Fate::Answer(Outcome::FAILED),
    Fate::Answer(Outcome::EXPIRED),
    Fate::Answer(Outcome(9_999)),
    Fate::NotSent,
    Fate::LostBefore,
    Fate::Busy(100),
];

#[test]
fn ha_3_2_a_merged_search_asks_a_member_that_gave_no_result_again() {
    for fault in FAULTS {
        let (world, group) = differing();
        (0..3).for_each(|_| world.script(3, FIND, fault));
        assert_eq!(found(&group), Ok(1), "{fault:?}");
        assert_eq!(
            world.sent(FIND),
            [1, 2, 3, 3, 3, 3],
            "{fault:?}: those that answered are not asked again"
        );
    }
}

#[test]
fn ha_3_2_an_empty_result_soon_after_a_change_of_the_read_set_waits_for_every_member() {
    for fault in FAULTS {
        let (world, group) = differing();
        group.set_divergent(false);
        (0..2).for_each(|_| world.script(3, FIND, fault));
        assert_eq!(found(&group), Ok(1), "{fault:?}");
    }
}

#[test]
fn ha_3_2_a_member_that_goes_on_failing_fails_a_merged_search() {
    for (fault, wait_ms) in FAULTS.into_iter().zip([2_000, 2_000, 2_000, 2_000, 0, 5_000]) {
        let (world, group) = differing();
        (0..1_000).for_each(|_| world.script(3, FIND, fault));
        let before = world.ms();
        assert!(matches!(found(&group), Err(Error::Peer(_))), "{fault:?}");
        let took = world.ms() - before;
        assert!((wait_ms..wait_ms + 900).contains(&took), "{fault:?}: {took} ms");
    }
}

#[test]
fn ha_3_2_a_member_that_is_read_no_more_is_not_waited_for() {
    let (world, group) = differing();
    world.script(3, FIND, Fate::Answer(Outcome::RECOVERING));
    assert_eq!(found(&group), Ok(0));
    let (world, group) = differing();
    world.script(3, FIND, Fate::Silent);
    world.later(30, |world| world.down(3));
    let before = world.ms();
    assert_eq!(found(&group), Ok(0));
    assert!(world.ms() - before < 50);
}
