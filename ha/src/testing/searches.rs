//! Merged searches wait for every member that can be read (HA 3.2).
use std::sync::Arc;

use spec::messages::{Make, MakeKind, Outcome};
use spec::record::State;
use spec::{Attribute, AttributeType, Ouid, Template};

use super::{Fate, TICKET, World};
use crate::body::Body;
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
fn ha_4_2_at_most_members_plus_one_sends_of_a_merged_search_may_have_executed() {
    let (world, group) = differing();
    (1..=3).for_each(|member| (0..9).for_each(|_| world.script(member, FIND, Fate::LostAfter)));
    assert!(matches!(found(&group), Err(Error::Peer(_))));
    assert_eq!(world.executed(FIND), [1, 2, 3, 1]);
    // With room for one, the members are asked one after the other.
    let (world, group) = differing();
    (1..=3).for_each(|member| world.script(member, FIND, Fate::LostAfter));
    assert_eq!((found(&group), world.sent(FIND)), (Ok(1), vec![1, 2, 3, 1, 2, 3]));
}

#[test]
fn rules_1_5_a_page_is_encoded_once_whoever_is_asked_and_however_often() {
    let (world, group) = differing();
    world.script(3, FIND, Fate::LostBefore);
    world.script(3, FIND, Fate::NotSent);
    assert_eq!(found(&group), Ok(1));
    let bodies = world.bodies(FIND);
    assert_eq!(bodies.len(), 5);
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
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

const USE: u32 = 14;
const STORE: u32 = 17;
const COMMIT: u32 = 18;
const JOIN: u32 = 28;

/// Makes a token object.
fn make() -> Make {
    let template = Template::from(vec![Attribute::bool(AttributeType::TOKEN, true)]);
    Make { kind: MakeKind::GENERATE.0, templates: vec![template], ..Make::default() }
}

/// Three members that were searched once, each of which owes one of two objects, all of which was acknowledged.
fn owing() -> (Arc<World>, Arc<Group>, [Ouid; 2]) {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    assert_eq!(found(&group), Ok(0), "there is a member that searches go to");
    let ouids = [Ouid([0x41; 16]), Ouid([0x42; 16])];
    let view = group.view().clone();
    for (seat, lacks) in view.seats.iter().zip([0, 1, 1]) {
        group.owe(&seat.member, &[ouids[lacks]], &[], &[], true);
        world.model(seat.member.id.0, |model| model.put(ouids[1 - lacks], State::Committed));
    }
    world.pass_ms(11_000);
    world.forget();
    (world, group, ouids)
}

#[test]
fn ha_2_5_members_that_all_owe_something_are_searched_together() {
    let (world, group, _) = owing();
    assert_eq!(found(&group), Ok(2));
    assert_eq!(world.sent(FIND), [1, 2, 3]);
}

#[test]
fn ha_2_5_a_member_tells_nothing_of_an_object_that_it_owes() {
    let (world, group, [first, _]) = owing();
    world.model(1, |model| model.put(first, State::Committed));
    (2..=3).for_each(|member| {
        world.model(member, |model| {
            let _ = model.things.remove(&first);
        })
    });
    assert_eq!(found(&group), Ok(1), "what the first member holds of it is older than what was acknowledged");
}

#[test]
fn ha_3_4_a_search_of_the_only_member_left_finds_what_that_one_owed() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    for call in [STORE, COMMIT] {
        (0..2).for_each(|_| world.script(1, call, Fate::Silent));
    }
    group.create(make(), TICKET).unwrap();
    assert!(group.view().seats[0].member.debts() > 0);
    (2..=3).for_each(|member| world.down(member));
    world.unscript(1);
    assert_eq!(found(&group), Ok(1));
}

#[test]
fn ha_2_5_a_member_that_goes_on_owing_is_not_searched_alone() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    let view = group.view().clone();
    let body = Body::of(&view, TICKET, super::one_use(Ouid([0x41; 16])));
    group.owe(&view.seats[0].member, &[Ouid([0x41; 16])], &[], &[body], true);
    (2..=3).for_each(|member| world.down(member));
    (0..1_000).for_each(|_| world.script(1, USE, Fate::Silent));
    world.forget();
    assert!(matches!(found(&group), Err(Error::Undecided(_))));
    let searches = world.sent(FIND).len();
    assert!(searches <= 40, "{searches} searches of one call");
}

#[test]
fn ha_2_5_what_a_member_refused_is_owed_until_it_has_been_compared() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    (0..1_000).for_each(|_| world.script(1, STORE, Fate::Answer(Outcome::FAILED)));
    (0..1_000).for_each(|_| world.script(1, JOIN, Fate::Answer(Outcome::FAILED)));
    group.create(make(), TICKET).unwrap();
    world.tend(&group, 2);
    // Nobody else is left: the member is read as it is.
    (2..=3).for_each(|member| world.down(member));
    assert!(matches!(found(&group), Err(Error::Undecided(_))));
    world.unscript(1);
    (2..=3).for_each(|member| world.up(member));
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 12);
    (2..=3).for_each(|member| world.down(member));
    assert_eq!(found(&group), Ok(1), "it was repaired");
}

/// Four members, two of which have refused an object that the other two hold; those are down.
fn refused_by_those_left() -> (Arc<World>, Arc<Group>) {
    let world = World::new(4);
    let group = world.group_with(|settings| settings.outage_wait_ms = 500);
    world.tend(&group, 1);
    for call in [STORE, JOIN] {
        (1..=2).for_each(|member| {
            (0..1_000).for_each(|_| world.script(member, call, Fate::Answer(Outcome::FAILED)));
        });
    }
    group.create(make(), TICKET).unwrap();
    world.tend(&group, 2);
    (3..=4).for_each(|member| world.down(member));
    (1..=2).for_each(|member| world.unscript(member));
    world.tend(&group, 4);
    (world, group)
}

#[test]
fn ha_2_5_members_that_agree_are_not_acquitted_of_what_none_of_them_holds() {
    let (world, group) = refused_by_those_left();
    assert!(matches!(found(&group), Err(Error::Undecided(_))), "nobody here can tell");
    // Who holds it is back: it is read at once, and what it holds is found before any repair.
    world.up(3);
    world.tend(&group, 1);
    assert_eq!(found(&group), Ok(1));
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 4);
    (3..=4).for_each(|member| world.down(member));
    assert_eq!(found(&group), Ok(1), "it was repaired");
    assert!(group.view().seats.iter().take(2).all(|seat| seat.member.debts() == 0));
}

#[test]
fn ha_2_5_who_never_acknowledged_a_write_acquits_nobody_of_it() {
    let world = World::new(4);
    world.down(4);
    let group = world.group();
    world.tend(&group, 1);
    // The fourth acknowledged it, the first refuses it; the others know nothing of it, as if they had joined later.
    let (view, ouid) = (group.view().clone(), Ouid([0x41; 16]));
    let body = Body::of(&view, TICKET, super::one_use(ouid));
    group.owe(&view.seats[0].member, &[ouid], &[view.seats[3].member.id], &[body], true);
    (0..1_000).for_each(|_| world.script(1, USE, Fate::Answer(Outcome::FAILED)));
    world.tend(&group, 6);
    assert!(view.seats[0].member.owes(ouid), "the others are equal to it and do not hold it either");
}

#[test]
fn ha_2_5_what_no_member_of_the_whole_group_holds_is_owed_by_nobody() {
    let (world, group) = refused_by_those_left();
    (3..=4).for_each(|member| {
        world.model(member, |model| (model.things.clear(), model.incarnation += 50));
        world.up(member);
    });
    world.tend(&group, 4);
    assert_eq!(found(&group), Ok(0), "two stores were lost, which is what the minimum is for");
}

#[test]
fn ha_2_5_a_refused_write_that_was_never_acknowledged_is_not_waited_for() {
    let world = World::new(3);
    let group = world.group_with(|settings| settings.outage_wait_ms = 500);
    world.tend(&group, 1);
    (1..=2).for_each(|member| {
        (0..1_000).for_each(|_| world.script(member, COMMIT, Fate::Answer(Outcome::FAILED)));
    });
    assert!(matches!(group.create(make(), TICKET), Err(Error::OutcomeUnknown(_))));
    world.tend(&group, 2);
    world.down(3);
    world.tend(&group, 2);
    assert_eq!(found(&group), Ok(0));
}
