//! Start, return, divergence and repair (HA 2.4, 3.2, 4.6).
use std::sync::Arc;

use spec::record::{MemberRole, State};
use spec::seam::MemberId;
use spec::{Ouid, Template};

use super::{Fate, TICKET, World, one_use};
use crate::error::Error;
use crate::group::Group;
use crate::membership::Change;
use crate::status::MemberState;

const STATUS: u32 = 10;

fn used(group: &Group, ouid: Ouid) -> Result<u64, Error> {
    group.any(one_use(ouid), TICKET).map(|answered| answered.member.0)
}

fn found(group: &Group) -> Vec<Vec<u8>> {
    group.find(&Template::default(), TICKET).unwrap().into_iter().map(|found| found.ouid).collect()
}

fn states(group: &Group) -> Vec<MemberState> {
    group.status().members.into_iter().map(|member| member.state).collect()
}

#[test]
fn members_with_equal_contents_are_all_read_at_start() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    assert_eq!(states(&group), [MemberState::Up, MemberState::Up, MemberState::Up]);
    assert_eq!(world.sent(STATUS).len(), 3);
}

#[test]
fn a_member_that_is_down_at_start_holds_nobody_up_and_is_taken_in_later() {
    let world = World::new(3);
    world.down(2);
    let ouid = Ouid([3; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group();
    used(&group, ouid).unwrap();
    assert!(world.ms() < 50, "took {} ms", world.ms());
    world.up(2);
    world.tend(&group, 1);
    assert_eq!(states(&group), [MemberState::Up, MemberState::Up, MemberState::Up]);
}

#[test]
fn contents_that_differ_at_start_are_merged_and_repaired_with_a_ticket() {
    let world = World::new(3);
    let (one, two, dead) = (Ouid([1; 16]), Ouid([2; 16]), Ouid([4; 16]));
    world.model(1, |model| model.put(one, State::Committed));
    world.model(2, |model| model.put(two, State::Committed));
    world.model(1, |model| model.put(dead, State::Committed));
    world.model(3, |model| model.put(dead, State::Deleted));
    let group = world.group();
    world.tend(&group, 2);
    assert_eq!(states(&group), [MemberState::Unverified, MemberState::Unverified, MemberState::Unverified]);
    assert!(group.status().divergent);
    assert_eq!(found(&group), [one.0, two.0]);
    for _ in 0..4 {
        assert_eq!((used(&group, one), used(&group, two)), (Ok(1), Ok(2)));
    }
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 2);
    assert_eq!(states(&group), [MemberState::Up, MemberState::Up, MemberState::Up]);
    assert!(!group.status().divergent);
    assert_eq!(
        (world.holders(one), world.holders(two), world.holders(dead)),
        (vec![true; 3], vec![true; 3], vec![false; 3])
    );
}

#[test]
fn a_returning_member_that_missed_writes_is_repaired_before_it_is_read() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    world.down(3);
    world.tend(&group, 1);
    // Another process wrote meanwhile, and destroyed what the absent member still has.
    let (new, dead) = (Ouid([6; 16]), Ouid([8; 16]));
    (1..=2).for_each(|member| world.model(member, |model| model.put(new, State::Committed)));
    (1..=2).for_each(|member| world.model(member, |model| model.put(dead, State::Deleted)));
    world.model(3, |model| model.put(dead, State::Committed));
    world.up(3);
    world.tend(&group, 3);
    assert_eq!(states(&group)[2], MemberState::Recovering);
    (0..6).for_each(|_| assert_ne!(used(&group, new).unwrap(), 3));
    assert_eq!(found(&group), [new.0]);
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 1);
    assert_eq!(states(&group)[2], MemberState::Up);
    assert_eq!((world.holders(new), world.holders(dead)), (vec![true; 3], vec![false; 3]));
    (1..=2).for_each(|member| world.down(member));
    assert_eq!(used(&group, new), Ok(3));
}

#[test]
fn a_returning_member_gets_writes_before_it_is_read() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    world.down(3);
    let old = Ouid([6; 16]);
    (1..=2).for_each(|member| world.model(member, |model| model.put(old, State::Committed)));
    world.up(3);
    world.tend(&group, 1);
    assert_eq!(states(&group)[2], MemberState::Recovering);
    let template = Template::from(vec![spec::Attribute::bool(spec::AttributeType::TOKEN, true)]);
    let make = spec::messages::Make { kind: 1, templates: vec![template], ..spec::messages::Make::default() };
    let made = group.create(make, TICKET).unwrap();
    assert_eq!(world.holders(Ouid::from_bytes(&made.outputs[0].ouid).unwrap()), [true; 3]);
}

#[test]
fn a_member_whose_store_asks_for_comparison_serves_after_it() {
    let world = World::new(3);
    let group = world.group();
    world.model(2, |model| model.recovering = true);
    let ouid = Ouid([3; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    for _ in 0..4 {
        assert_ne!(used(&group, ouid).unwrap(), 2);
    }
    world.tend(&group, 2);
    assert_eq!(states(&group)[1], MemberState::Recovering);
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 2);
    assert_eq!(states(&group)[1], MemberState::Up);
    assert!(!world.model(2, |model| model.recovering));
}

/// Creates a token object, or says why not.
fn create(group: &Group) -> Result<Ouid, Error> {
    let template = Template::from(vec![spec::Attribute::bool(spec::AttributeType::TOKEN, true)]);
    let make = spec::messages::Make { kind: 1, templates: vec![template], ..spec::messages::Make::default() };
    group.create(make, TICKET).map(|made| Ouid::from_bytes(&made.outputs[0].ouid).unwrap())
}

/// Takes these members out, has the group written to and adds them again as they are.
fn taken_out_and_back(world: &World, group: &Group, members: &[u64]) -> Ouid {
    for member in members {
        group.change_members(&Change::Remove(MemberId(*member)), TICKET).unwrap();
    }
    let new = create(group).unwrap();
    for member in members {
        let change = Change::Add { member: MemberId(*member), role: MemberRole::Active };
        let changed = group.change_members(&change, TICKET).unwrap();
        for member in members {
            world.model(*member, |model| model.manifest = changed.manifest.clone());
        }
    }
    new
}

#[test]
fn ha_2_4_a_member_that_comes_to_the_group_is_not_read_before_it_was_compared() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    let new = taken_out_and_back(&world, &group, &[3]);
    // What was written without it, it lacks, and nobody in reach can tell.
    (1..=2).for_each(|member| world.down(member));
    world.tend(&group, 2);
    assert_eq!(states(&group)[2], MemberState::Recovering);
    assert!(matches!(group.find(&Template::default(), TICKET), Err(Error::Outage { .. })));
    world.up(1);
    world.tend(&group, 1);
    assert_eq!(found(&group), [new.0]);
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 2);
    assert_eq!(states(&group)[2], MemberState::Up);
    // Since then it is a member like the others.
    world.down(1);
    world.down(3);
    world.up(3);
    world.tend(&group, 1);
    assert_eq!(states(&group)[2], MemberState::Unverified);
    assert_eq!(found(&group), [new.0]);
}

#[test]
fn ha_2_4_members_that_have_both_come_late_do_not_vouch_for_each_other() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    group.set_repair_ticket(Some(TICKET));
    let new = taken_out_and_back(&world, &group, &[2, 3]);
    world.down(1);
    world.tend(&group, 4);
    assert_eq!(states(&group)[1..], [MemberState::Recovering, MemberState::Recovering]);
    // Nor once repair has made them equal.
    world.model(2, |model| model.put(Ouid([9; 16]), State::Committed));
    world.tend(&group, 12);
    assert_eq!(states(&group)[1..], [MemberState::Recovering, MemberState::Recovering]);
    assert!(matches!(used(&group, new), Err(Error::Outage { .. })));
    world.up(1);
    world.tend(&group, 12);
    assert_eq!(states(&group), [MemberState::Up, MemberState::Up, MemberState::Up]);
    assert_eq!(world.holders(new), [true; 3]);
}

#[test]
fn ha_4_6_where_every_member_has_come_late_they_serve_as_they_are() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    let new = taken_out_and_back(&world, &group, &[2, 3]);
    assert_eq!(world.holders(new), [true, false, false]);
    world.down(1);
    // The operator gives the last one up that had been a member before.
    group.promote(MemberId(2), TICKET).unwrap();
    group.change_members(&Change::Remove(MemberId(1)), TICKET).unwrap();
    let other = Ouid([9; 16]);
    world.model(2, |model| model.put(other, State::Committed));
    world.tend(&group, 1);
    assert_eq!(states(&group), [MemberState::Unverified, MemberState::Unverified]);
    assert_eq!(found(&group), [other.0]);
}

#[test]
fn ha_2_6_a_member_with_an_older_manifest_puts_out_none_of_a_newer_one() {
    let world = World::new(3);
    let object = Ouid([5; 16]);
    world.model(3, |model| model.put(object, State::Committed));
    // It was down when the third member was added, and lacks what was written since.
    (1..=3)
        .filter(|member| *member != 2)
        .for_each(|member| world.model(member, |model| model.manifest.epoch += 1));
    world.model(2, |model| model.manifest.members.retain(|member| member.serial != 3));
    world.down(1);
    let group = world.group();
    world.tend(&group, 1);
    assert_eq!(states(&group)[1..], [MemberState::Unverified, MemberState::Unverified]);
    assert_eq!(found(&group), [object.0]);
}

#[test]
fn the_last_member_is_never_put_out() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    let ouid = Ouid([6; 16]);
    world.down(3);
    world.model(3, |model| model.put(ouid, State::Committed));
    world.up(3);
    world.tend(&group, 1);
    assert_eq!(states(&group)[2], MemberState::Recovering);
    world.down(1);
    world.down(2);
    assert_eq!(used(&group, ouid), Ok(3));
    assert_eq!(states(&group)[2], MemberState::Unverified);
}

#[test]
fn a_divergence_among_admitted_members_is_found_and_repaired() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    let ouid = Ouid([6; 16]);
    world.model(2, |model| model.put(ouid, State::Committed));
    world.tend(&group, 1);
    assert!(!group.status().divergent, "unequal roots at an instant mean nothing");
    world.tend(&group, 4);
    assert!(group.status().divergent);
    assert_eq!(found(&group), [ouid.0]);
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 1);
    assert_eq!((group.status().divergent, world.holders(ouid)), (false, vec![true; 3]));
}

#[test]
fn an_object_that_one_member_misses_is_repaired_once_it_was_noticed() {
    let world = World::new(3);
    let group = world.group();
    let ouid = Ouid([6; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    world.tend(&group, 1);
    group.set_repair_ticket(Some(TICKET));
    world.model(1, |model| model.things.clear());
    for _ in 0..6 {
        used(&group, ouid).unwrap();
    }
    world.tend(&group, 1);
    assert_eq!(world.holders(ouid), [true; 3]);
}

#[test]
fn a_silent_idle_member_loses_its_link_and_recovers_without_end() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    for _ in 0..5 {
        world.freeze(2);
        world.tend(&group, 2);
        assert!(matches!(states(&group)[1], MemberState::Down(_)));
        world.up(2);
        world.tend(&group, 2);
        assert_eq!(states(&group)[1], MemberState::Up);
    }
    assert_eq!(world.abandoned(), [2; 5]);
}

#[test]
fn a_member_that_is_no_longer_in_the_manifest_is_not_used() {
    let world = World::new(3);
    let group = world.group();
    let ouid = Ouid([6; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    world.tend(&group, 1);
    (1..=2).for_each(|member| {
        world.model(member, |model| {
            model.manifest.members.truncate(2);
            model.manifest.epoch = 2;
        });
    });
    world.tend(&group, 1);
    world.forget();
    (0..6).for_each(|_| assert_ne!(used(&group, ouid).unwrap(), 3));
    assert_eq!(group.status().members.len(), 2);
}

#[test]
fn a_ticket_that_permits_no_repair_is_not_tried_again() {
    let world = World::new(2);
    world.model(1, |model| model.put(Ouid([6; 16]), State::Committed));
    let group = world.group();
    group.set_repair_ticket(Some(b"a user's"));
    world.tend(&group, 3);
    assert!(group.status().divergent);
    assert_eq!(world.executed(29).len(), 1);
    world.script(1, STATUS, Fate::Fine);
}

/// Three members: the first two are references, and the second knows that an object is gone which the first and the
/// returning third hold.
fn with_a_tombstone_at_one_reference() -> (Arc<World>, Arc<Group>, Ouid) {
    let world = World::new(3);
    let ouid = Ouid([6; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group_with(|settings| {
        (settings.probe_ms, settings.policy) = (10_000, crate::route::Policy::RoundRobin);
    });
    world.tend(&group, 1);
    world.down(3);
    world.tend(&group, 1);
    world.model(2, |model| model.put(ouid, State::Deleted));
    (world, group, ouid)
}

#[test]
fn ha_4_6_a_returner_is_not_read_before_it_holds_what_every_reference_holds() {
    let (world, group, ouid) = with_a_tombstone_at_one_reference();
    world.up(3);
    world.tend(&group, 4);
    assert_eq!(states(&group)[2], MemberState::Recovering, "it lacks the tombstone of the second");
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 2);
    assert_eq!(states(&group), [MemberState::Up, MemberState::Up, MemberState::Up]);
    assert!((1..=3).all(|member| world.model(member, |model| model.state(ouid) == Some(State::Deleted))));
}

#[test]
fn ha_4_6_a_returner_may_catch_up_with_one_reference_after_the_other() {
    let (world, group, ouid) = with_a_tombstone_at_one_reference();
    world.up(3);
    world.tend(&group, 1);
    assert_eq!(states(&group)[2], MemberState::Recovering);
    // Another process repairs it and destroys a second object, which is on its way to the first member still.
    world.model(3, |model| model.put(ouid, State::Deleted));
    world.tend(&group, 1);
    assert_eq!(states(&group)[2], MemberState::Up, "it was equal to the first, and is equal to the second");
}

#[test]
fn ha_4_6_what_a_silent_reference_holds_is_not_known_unless_it_was_told_last() {
    for told in [true, false] {
        let (world, group, ouid) = with_a_tombstone_at_one_reference();
        if told {
            world.tend(&group, 1);
            world.model(3, |model| model.put(ouid, State::Deleted));
            world.model(1, |model| model.put(ouid, State::Deleted));
        } else {
            // It has served since, and said that its store went on.
            (0..6).for_each(|_| drop(used(&group, ouid)));
            assert!(world.executed(14).contains(&2));
        }
        world.freeze(2);
        world.up(3);
        world.tend(&group, 1);
        assert!(matches!(states(&group)[1], MemberState::Up), "its link is still up");
        let wanted = if told { MemberState::Up } else { MemberState::Recovering };
        assert_eq!(states(&group)[2], wanted);
        world.down(2);
        world.tend(&group, 2);
        assert_eq!(states(&group)[2], MemberState::Up, "a reference that has gone is none");
    }
}

#[test]
fn ha_4_6_a_repair_without_one_reference_admits_nobody() {
    let (world, group, ouid) = with_a_tombstone_at_one_reference();
    let mine = Ouid([7; 16]);
    world.model(1, |model| model.put(mine, State::Committed));
    (0..1_000).for_each(|_| world.script(2, 26, Fate::Answer(spec::messages::Outcome::FAILED)));
    group.set_repair_ticket(Some(TICKET));
    world.up(3);
    world.tend(&group, 6);
    assert_eq!(world.holders(mine), [true, false, true], "the others repair among themselves");
    assert_eq!(states(&group)[2], MemberState::Recovering);
    world.forget();
    world.tend(&group, 8);
    assert!(world.sent(29).len() <= 8, "and do not repeat it: {} leases", world.sent(29).len());
    world.unscript(2);
    world.tend(&group, 400);
    assert_eq!(states(&group), [MemberState::Up, MemberState::Up, MemberState::Up]);
    assert_eq!((world.holders(mine), world.holders(ouid)), (vec![true; 3], vec![false; 3]));
}
