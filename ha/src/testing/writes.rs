//! Create, change, destroy: every order of outcomes (HA 2.1, 2.2, 2.3, 2.5).
use std::sync::Arc;

use spec::messages::{Make, MakeKind, Outcome, SetAttributes};
use spec::record::{Manifest, State};
use spec::seam::MemberId;
use spec::{Attribute, AttributeType, Ouid, Rv, Template};

use super::{Fate, TICKET, World, one_use, reference};
use crate::error::Error;
use crate::group::Group;
use crate::minimum::Minimum;

const USE: u32 = 14;
const MAKE: u32 = 16;
const STORE: u32 = 17;
const COMMIT: u32 = 18;
const CHANGE: u32 = 22;
const DESTROY: u32 = 23;
const JOIN: u32 = 28;

fn make(token: bool) -> Make {
    let template = Template::from(vec![Attribute::bool(AttributeType::TOKEN, token)]);
    Make { kind: MakeKind::GENERATE.0, templates: vec![template], ..Make::default() }
}

fn create(group: &Group) -> Result<Ouid, Error> {
    group.create(make(true), TICKET).map(|made| Ouid::from_bytes(&made.outputs[0].ouid).unwrap())
}

fn change(group: &Group, ouid: Ouid) -> Result<(), Error> {
    let change = SetAttributes { object: Some(reference(ouid)), ..SetAttributes::default() };
    group.change(change, TICKET).map(drop)
}

/// A world whose group has seen all its members.
fn warm(members: u64) -> (Arc<World>, Arc<Group>) {
    let world = World::new(members);
    let group = world.group();
    world.tend(&group, 1);
    world.forget();
    (world, group)
}

/// Every combination of these fates over three members.
fn orders<const N: usize>(fates: [Fate; N]) -> impl Iterator<Item = [Fate; 3]> {
    (0..N * N * N).map(move |i| [fates[i % N], fates[i / N % N], fates[i / N / N]])
}

#[test]
fn a_create_lies_on_every_member_and_is_one_make() {
    let (world, group) = warm(3);
    let ouid = create(&group).unwrap();
    assert_eq!(world.holders(ouid), [true; 3]);
    assert_eq!(
        (world.executed(MAKE).len(), world.executed(STORE).len(), world.executed(COMMIT).len()),
        (1, 3, 3)
    );
}

#[test]
fn a_session_object_is_stored_nowhere_and_needs_no_minimum() {
    let (world, group) = warm(3);
    world.down(2);
    world.down(3);
    group.create(make(false), TICKET).unwrap();
    assert!(world.executed(STORE).is_empty());
}

#[test]
fn below_the_minimum_nothing_is_made() {
    let (world, group) = warm(3);
    world.down(1);
    world.down(3);
    assert_eq!(create(&group), Err(Error::BelowMinimum { wanted: 2, reachable: 1 }));
    assert!(world.sent(MAKE).is_empty());
    let ouid = Ouid([5; 16]);
    world.model(2, |model| model.put(ouid, State::Committed));
    assert!(matches!(change(&group, ouid), Err(Error::BelowMinimum { .. })));
    assert!(matches!(group.destroy(reference(ouid), TICKET), Err(Error::BelowMinimum { .. })));
    assert!(world.model(2, |model| model.is_live(ouid)));
}

#[test]
fn a_member_back_within_two_seconds_is_waited_for() {
    let (world, group) = warm(2);
    world.down(2);
    world.later(1_000, |world| world.up(2));
    let ouid = create(&group).unwrap();
    assert_eq!(world.holders(ouid), [true; 2]);
}

#[test]
fn a_group_of_one_needs_one_copy_and_no_commit() {
    let (world, group) = warm(1);
    let ouid = create(&group).unwrap();
    assert_eq!((world.holders(ouid), world.executed(COMMIT).len()), (vec![true], 0));
    world.script(1, STORE, Fate::LostAfter);
    let ouid = create(&group).unwrap();
    assert_eq!(world.holders(ouid), [true]);
}

#[test]
fn lost_stores_and_commits_are_repeated_in_every_order() {
    for call in [STORE, COMMIT] {
        for fates in orders([Fate::Fine, Fate::NotSent, Fate::LostBefore, Fate::LostAfter, Fate::Busy(30)]) {
            let (world, group) = warm(3);
            (1..).zip(fates).for_each(|(member, fate)| world.script(member, call, fate));
            let ouid = create(&group).unwrap_or_else(|error| panic!("{fates:?} of {call}: {error}"));
            world.tend(&group, 2);
            assert_eq!(world.holders(ouid), [true; 3], "{fates:?} of {call}");
            assert_eq!(world.executed(MAKE).len(), 1, "{fates:?} of {call}");
        }
    }
}

#[test]
fn a_store_that_misses_the_minimum_leaves_no_live_copy_in_any_order() {
    for fates in orders([Fate::Fine, Fate::Rv(Rv::DEVICE_MEMORY)]) {
        let (world, group) = warm(3);
        (1..).zip(fates).for_each(|(member, fate)| world.script(member, STORE, fate));
        let fine = fates.iter().filter(|fate| **fate == Fate::Fine).count();
        let made = create(&group);
        let ouids: Vec<Ouid> = (1..=3)
            .flat_map(|member| world.model(member, |model| model.things.keys().copied().collect::<Vec<_>>()))
            .collect();
        if fine >= 2 {
            let live = world.holders(made.unwrap()).iter().filter(|live| **live).count();
            assert!(live >= 2, "{fates:?}");
        } else {
            assert_eq!(made, Err(Error::Rv(Rv::DEVICE_MEMORY)), "{fates:?}");
            assert!(world.executed(COMMIT).is_empty(), "{fates:?}");
            for ouid in ouids {
                assert_eq!(world.holders(ouid), [false; 3], "{fates:?}");
                assert!((1..=3).all(|member| {
                    world.model(member, |model| model.state(ouid) != Some(State::Provisional))
                }));
            }
        }
    }
}

#[test]
fn members_lost_between_store_and_commit_give_outcome_unknown_and_the_create_goes_on() {
    let (world, group) = warm(3);
    // Every Commit is lost with its link, and nobody comes back in time.
    (1..=3).for_each(|member| world.script(member, COMMIT, Fate::Silent));
    world.later(400, |world| (1..=3).for_each(|member| world.down(member)));
    assert!(matches!(create(&group), Err(Error::OutcomeUnknown(_))));
    assert!(world.executed(19).is_empty(), "no tombstone after a Commit was sent");
    (1..=3).for_each(|member| world.up(member));
    world.tend(&group, 4);
    let ouid = world.model(1, |model| *model.things.keys().next().unwrap());
    assert_eq!(world.holders(ouid), [true; 3]);
}

#[test]
fn a_commit_answered_unknown_stores_the_same_bytes_again() {
    let (world, group) = warm(3);
    world.script(2, COMMIT, Fate::Answer(spec::messages::Outcome::UNKNOWN));
    let ouid = create(&group).unwrap();
    assert_eq!(world.holders(ouid), [true; 3]);
    assert_eq!(world.executed(STORE).iter().filter(|member| **member == 2).count(), 2);
}

#[test]
fn a_member_that_was_down_pays_its_debt_before_it_is_read() {
    let (world, group) = warm(3);
    world.down(3);
    let ouid = create(&group).unwrap();
    change(&group, ouid).unwrap();
    let other = create(&group).unwrap();
    group.destroy(reference(other), TICKET).unwrap();
    assert_eq!(group.status().members[2].debt, 4);
    world.up(3);
    world.forget();
    (0..6).for_each(|_| assert_ne!(group.any(one_use(ouid), TICKET).unwrap().member.0, 3));
    // No ticket for repair is there: the debt alone makes the contents equal.
    world.tend(&group, 3);
    assert_eq!(group.status().members[2].debt, 0);
    assert_eq!(world.model(3, |model| model.things[&ouid]), world.model(1, |model| model.things[&ouid]));
    assert_eq!(world.holders(other), [false; 3]);
    (1..=2).for_each(|member| world.down(member));
    assert_eq!(group.any(one_use(ouid), TICKET).unwrap().member.0, 3);
}

#[test]
fn a_member_in_debt_is_not_searched_and_does_not_serve_what_it_owes() {
    let (world, group) = warm(3);
    (0..50).for_each(|_| world.script(1, STORE, Fate::LostBefore));
    let ouid = create(&group).unwrap();
    assert_eq!(world.holders(ouid), [false, true, true]);
    world.forget();
    for _ in 0..4 {
        group.any(one_use(ouid), TICKET).unwrap();
        assert_eq!(group.find(&Template::default(), TICKET).unwrap().len(), 1);
    }
    assert!(!world.sent(USE).contains(&1) && !world.sent(20).contains(&1));
    // Other objects are served by it as before.
    assert_eq!(group.status().members[0].debt, 1);
    assert_eq!(group.status().members[0].state, crate::MemberState::Up);
}

#[test]
fn a_change_reaches_every_member_after_every_fault() {
    for fate in [Fate::Fine, Fate::NotSent, Fate::LostBefore, Fate::LostAfter, Fate::Busy(40)] {
        let (world, group) = warm(3);
        let ouid = create(&group).unwrap();
        for call in [CHANGE, JOIN] {
            (1..=2).for_each(|member| world.script(member, call, fate));
        }
        change(&group, ouid).unwrap();
        let versions: Vec<u64> =
            (1..=3).map(|member| world.model(member, |model| model.things[&ouid].version)).collect();
        assert!(
            versions[0] > 1 && versions.iter().all(|version| *version == versions[0]),
            "{fate:?}: {versions:?}"
        );
        let tags: std::collections::BTreeSet<Vec<u8>> =
            (1..=3).flat_map(|member| world.model(member, |model| model.change_tags.clone())).collect();
        assert_eq!(tags.len(), 1, "{fate:?}: every send carries the same tag");
    }
}

#[test]
fn a_destroy_is_done_in_every_order_of_faults() {
    for fates in orders([Fate::Fine, Fate::NotSent, Fate::LostBefore, Fate::LostAfter]) {
        let (world, group) = warm(3);
        let ouid = create(&group).unwrap();
        (1..).zip(fates).for_each(|(member, fate)| world.script(member, DESTROY, fate));
        group.destroy(reference(ouid), TICKET).unwrap_or_else(|error| panic!("{fates:?}: {error}"));
        assert!(world.sent(DESTROY).len() <= 3 + 1 + 3, "{fates:?}");
        world.tend(&group, 2);
        assert!(
            (1..=3).all(|member| world.model(member, |model| model.state(ouid)) == Some(State::Deleted)),
            "{fates:?}"
        );
        assert_eq!(group.destroy(reference(ouid), TICKET), Err(Error::Gone(ouid.0.to_vec())), "{fates:?}");
    }
}

#[test]
fn a_member_that_misses_the_object_gets_its_tombstone() {
    let (world, group) = warm(3);
    let ouid = create(&group).unwrap();
    world.model(2, |model| model.things.clear());
    group.destroy(reference(ouid), TICKET).unwrap();
    assert_eq!(world.model(2, |model| model.state(ouid)), Some(State::Deleted));
}

/// Of two members that do not know the object one refuses its tombstone: the other has it nevertheless, and it counts.
#[test]
fn ha_2_2_a_member_that_refuses_the_tombstone_keeps_no_other_from_it() {
    for fate in [Fate::Answer(Outcome::FAILED), Fate::LostBefore] {
        let (world, group) = warm(4);
        let ouid = create(&group).unwrap();
        [3, 4].into_iter().for_each(|member| world.model(member, |model| model.things.clear()));
        (0..9).for_each(|_| world.script(2, DESTROY, Fate::Answer(Outcome::FAILED)));
        (0..9).for_each(|_| world.script(3, JOIN, fate));
        world.script(4, JOIN, Fate::Slow(50));
        group.destroy(reference(ouid), TICKET).unwrap();
        assert_eq!(world.model(4, |model| model.state(ouid)), Some(State::Deleted));
    }
}

/// The store of the one member that took the destroy is put back before those that do not know the object have it from there.
#[test]
fn ha_2_2_a_destroy_counts_the_tombstones_that_there_are() {
    let (world, group) = warm(3);
    let ouid = create(&group).unwrap();
    world.model(2, |model| model.things.clear());
    (0..9).for_each(|_| world.script(3, DESTROY, Fate::Answer(Outcome::FAILED)));
    let image = world.model(1, |model| model.things.clone());
    world.script(2, DESTROY, Fate::Slow(100));
    world.later(60, move |world| world.model(1, |model| model.things = image));
    group.destroy(reference(ouid), TICKET).unwrap();
    assert_eq!(world.model(1, |model| model.state(ouid)), Some(State::Committed));
    assert_eq!(world.model(2, |model| model.state(ouid)), Some(State::Deleted));
}

#[test]
fn ha_2_9_without_replication_an_object_lives_on_the_member_that_made_it() {
    let world = World::new(3);
    let group = world.group_with(|settings| settings.synchronize = false);
    let ouid = create(&group).unwrap();
    assert_eq!(world.holders(ouid).iter().filter(|live| **live).count(), 1);
    let elsewhere = Ouid([8; 16]);
    world.model(3, |model| model.put(elsewhere, State::Committed));
    assert_eq!(group.find(&Template::default(), TICKET).unwrap().len(), 2);
    group.any(one_use(elsewhere), TICKET).unwrap();
    change(&group, ouid).unwrap();
    group.destroy(reference(ouid), TICKET).unwrap();
    assert_eq!(world.holders(ouid), [false; 3]);
    assert_eq!(group.status().members.iter().map(|member| member.debt).sum::<usize>(), 0);
}

/// C_InitToken ends all that was written before it (RULES 2.9).
#[test]
fn rules_2_9_what_was_owed_before_another_generation_is_owed_no_more() {
    let (world, group) = warm(3);
    (0..50).for_each(|_| world.script(3, STORE, Fate::LostBefore));
    create(&group).unwrap();
    let with_all = group.manifest().unwrap();
    let mut without = with_all.clone();
    without.members.retain(|member| member.serial != 3);
    without.epoch += 1;
    assert_eq!(group.view().member(MemberId(3)).unwrap().debts(), 1);
    group.learn(&without);
    let (epoch, generation) = (without.epoch + 1, without.generation + 1);
    group.learn(&Manifest { epoch, generation, ..with_all });
    assert_eq!(group.view().seats.iter().map(|seat| seat.member.debts()).sum::<usize>(), 0);
}

/// Who does not hold it does not decide that it is gone: the one that made it may come back.
#[test]
fn ha_2_9_without_replication_an_object_is_not_gone_while_its_member_is_away() {
    let world = World::new(3);
    let group = world.group_with(|settings| settings.synchronize = false);
    let ouid = create(&group).unwrap();
    let holder = (1..=3).zip(world.holders(ouid)).find(|(_, holds)| *holds).unwrap().0;
    world.down(holder);
    assert!(matches!(group.any(one_use(ouid), TICKET), Err(Error::Undecided(_))));
    assert!(matches!(group.destroy(reference(ouid), TICKET), Err(Error::Undecided(_))));
    world.up(holder);
    world.tend(&group, 1);
    group.any(one_use(ouid), TICKET).unwrap();
    group.destroy(reference(ouid), TICKET).unwrap();
    // All have been asked.
    assert!(matches!(group.any(one_use(ouid), TICKET), Err(Error::Gone(_))));
}

#[test]
fn the_configured_minimum_decides() {
    for (minimum, down, works) in [
        (Minimum::All, 1, false),
        (Minimum::Majority, 1, true),
        (Minimum::Available, 2, true),
        (Minimum::Count(3), 0, true),
    ] {
        let world = World::new(3);
        let group = world.group_with(|settings| settings.minimum = minimum);
        world.tend(&group, 1);
        (1..=down).for_each(|member| world.down(member));
        assert_eq!(create(&group).is_ok(), works, "{minimum:?} with {down} down");
    }
}

#[test]
fn ha_4_2_what_follows_a_slow_first_half_ends_by_the_calls_deadline_too() {
    let world = World::new(3);
    let ouid = Ouid([9; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group_with(|settings| settings.call_ms_max = 30_000);
    world.tend(&group, 1);
    let silent =
        |call| (1..=3).for_each(|member| (0..9).for_each(|_| world.script(member, call, Fate::Silent)));
    silent(STORE);
    silent(JOIN);
    (1..=3).for_each(|member| world.script(member, MAKE, Fate::Slow(25_000)));
    (1..=3).for_each(|member| world.script(member, CHANGE, Fate::Slow(25_000)));
    let template = Template::from(vec![spec::Attribute::bool(spec::AttributeType::TOKEN, true)]);
    let make = Make { kind: MakeKind::CREATE.0, templates: vec![template], ..Make::default() };
    let before = world.ms();
    assert!(group.create(make, TICKET).is_err());
    // The tombstones of what may have been stored are sent for a second.
    assert!(world.ms() - before <= 31_100, "took {} ms", world.ms() - before);
    let before = world.ms();
    let change = SetAttributes { object: Some(reference(ouid)), ..SetAttributes::default() };
    assert!(matches!(group.change(change, TICKET), Err(Error::OutcomeUnknown(_))));
    assert!(world.ms() - before <= 30_100, "took {} ms", world.ms() - before);
}

#[test]
fn ha_2_2_a_change_on_its_way_at_the_deadline_has_no_known_outcome() {
    let world = World::new(3);
    let ouid = Ouid([9; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group_with(|settings| settings.call_ms_max = 5_000);
    world.tend(&group, 1);
    (1..=3).for_each(|member| world.script(member, CHANGE, Fate::Slow(60_000)));
    assert!(matches!(change(&group, ouid), Err(Error::OutcomeUnknown(_))));
}

#[test]
fn ha_2_5_a_destroy_whose_replies_were_all_lost_goes_on_in_the_background() {
    let (world, group) = warm(3);
    let ouid = create(&group).unwrap();
    world.script(1, DESTROY, Fate::LostAfter);
    (1..=3).for_each(|member| (0..9).for_each(|_| world.script(member, DESTROY, Fate::LostBefore)));
    assert!(matches!(group.destroy(reference(ouid), TICKET), Err(Error::OutcomeUnknown(_))));
    (1..=3).for_each(|member| world.unscript(member));
    world.tend(&group, 1);
    let states = (1..=3).map(|member| world.model(member, |model| model.state(ouid)));
    assert!(states.into_iter().all(|state| state == Some(State::Deleted)));
}

/// A member that has come into the group while a write was on its way was not among those that it went to.
#[test]
fn ha_2_5_who_comes_while_a_create_runs_owes_it() {
    let (world, group) = warm(3);
    let with_all = group.manifest().unwrap();
    let mut without = with_all.clone();
    without.members.pop();
    without.epoch += 1;
    group.learn(&without);
    world.script(2, STORE, Fate::Slow(800));
    let other = group.clone();
    world.later(400, move |_| {
        let epoch = without.epoch + 1;
        other.learn(&Manifest { epoch, ..with_all });
    });
    let ouid = create(&group).unwrap();
    assert_eq!(world.holders(ouid), [true, true, false]);
    let member = group.view().member(MemberId(3)).unwrap().clone();
    assert!(member.owes(ouid), "nobody may search it before it has got the object");
    group.pay_debts(world.clock.now().after_ms(1_000));
    assert_eq!(world.holders(ouid), [true; 3]);
}

/// A partition that is taken out and added again with its old store lacks what it owed when it left.
#[test]
fn ha_2_5_who_comes_again_owes_what_it_owed_when_it_left() {
    let (world, group) = warm(3);
    let ouid = create(&group).unwrap();
    world.script(3, DESTROY, Fate::LostBefore);
    (0..9).for_each(|_| world.script(3, DESTROY, Fate::Answer(Outcome::FAILED)));
    group.destroy(reference(ouid), TICKET).unwrap();
    world.unscript(3);
    assert!(group.view().member(MemberId(3)).unwrap().owes(ouid));
    let with_all = group.manifest().unwrap();
    let mut without = with_all.clone();
    without.members.retain(|member| member.serial != 3);
    without.epoch += 1;
    group.learn(&without);
    assert_eq!(group.view().seats.len(), 2);
    group.learn(&Manifest { epoch: without.epoch + 1, ..with_all });
    // The others are gone before it has been compared with them: it pays, and is read when it has been.
    (1..=2).for_each(|member| world.down(member));
    assert!(group.view().member(MemberId(3)).unwrap().owes(ouid));
    assert!(matches!(group.find(&Template::default(), TICKET), Err(Error::Outage { .. })));
    world.tend(&group, 1);
    assert_eq!(world.model(3, |model| model.state(ouid)), Some(State::Deleted));
    world.up(1);
    assert_eq!(group.find(&Template::default(), TICKET).unwrap().len(), 0);
    assert!(matches!(group.any(one_use(ouid), TICKET), Err(Error::Gone(_))));
}
