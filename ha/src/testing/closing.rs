//! Closing a group: every call ends soon and nothing is sent any more (C_Finalize, RULES 2.14).
use std::sync::Arc;

use spec::messages::{Call, Random, SetAttributes};
use spec::platform::Moment;
use spec::record::State;
use spec::{Ouid, Rv, Template};

use super::{Fate, TICKET, World, one_use, reference};
use crate::error::Error;
use crate::group::Group;

const STORE: u32 = 17;
const CLOSED: Error = Error::Rv(Rv::CRYPTOKI_NOT_INITIALIZED);

fn closed_after(world: &Arc<World>, group: &Arc<Group>, ms: u64) {
    let group = group.clone();
    world.later(ms, move |_| group.close());
}

fn with_object() -> (Arc<World>, Arc<Group>, Ouid) {
    let world = World::new(3);
    let ouid = Ouid([0x42; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group();
    group.any(one_use(ouid), TICKET).unwrap();
    world.forget();
    (world, group, ouid)
}

#[test]
fn a_call_that_waits_for_a_reply_ends_soon_after_the_group_is_closed() {
    let (world, group, ouid) = with_object();
    (1..=3).for_each(|member| world.script(member, 14, Fate::Slow(90_000)));
    (1..=3).for_each(|member| world.script(member, 20, Fate::Slow(90_000)));
    closed_after(&world, &group, 5_000);
    let before = world.ms();
    assert_eq!(group.any(one_use(ouid), TICKET).map(|_| ()), Err(CLOSED));
    assert!((5_000..5_500).contains(&(world.ms() - before)), "took {} ms", world.ms() - before);
    let now = world.ms();
    assert_eq!(group.find(&Template::default(), TICKET).map(|_| ()), Err(CLOSED));
    assert_eq!(group.any(Call::Random(Random { bytes: 1 }), TICKET).map(|_| ()), Err(CLOSED));
    assert_eq!(world.ms(), now, "a later call ends at once");
}

#[test]
fn a_search_and_a_wait_for_members_end_too() {
    let (world, group, _) = with_object();
    (1..=3).for_each(|member| world.script(member, 20, Fate::Slow(90_000)));
    closed_after(&world, &group, 1_000);
    assert_eq!(group.find(&Template::default(), TICKET).map(|_| ()), Err(CLOSED));
    let (world, group, ouid) = with_object();
    (1..=3).for_each(|member| world.down(member));
    closed_after(&world, &group, 1_000);
    let before = world.ms();
    assert_eq!(group.any(one_use(ouid), TICKET).map(|_| ()), Err(CLOSED));
    assert!(world.ms() - before < 1_500);
}

#[test]
fn a_write_on_its_way_has_no_known_outcome() {
    let (world, group, ouid) = with_object();
    (1..=3).for_each(|member| world.script(member, 22, Fate::Slow(90_000)));
    closed_after(&world, &group, 1_000);
    let change = SetAttributes { object: Some(reference(ouid)), ..SetAttributes::default() };
    let before = world.ms();
    assert!(matches!(group.change(change, TICKET), Err(Error::OutcomeUnknown(_))));
    assert!(world.ms() - before < 1_500);
    let (world, group, ouid) = with_object();
    (1..=3).for_each(|member| world.script(member, 23, Fate::Slow(90_000)));
    closed_after(&world, &group, 1_000);
    assert!(matches!(group.destroy(reference(ouid), TICKET), Err(Error::OutcomeUnknown(_))));
}

#[test]
fn background_work_of_a_closed_group_does_nothing() {
    let (world, group, _) = with_object();
    group.close();
    assert_eq!(group.tend(), Moment::NEVER);
    group.refresh();
    assert!(world.sent(10).is_empty());
}

#[test]
fn background_work_under_way_ends_too() {
    let (world, group, _) = with_object();
    (1..=3).for_each(|member| world.script(member, 10, Fate::Silent));
    closed_after(&world, &group, 200);
    let before = world.ms();
    assert_eq!(group.tend(), Moment::NEVER);
    assert!(world.ms() - before < 600);
    assert!(world.abandoned().is_empty(), "no link is given up by a closed group");
}

/// A group whose third member has acknowledged nothing of a new object yet.
fn with_debt() -> (Arc<World>, Arc<Group>, Ouid) {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    (0..2).for_each(|_| world.script(3, STORE, Fate::Silent));
    let template = Template::from(vec![spec::Attribute::bool(spec::AttributeType::TOKEN, true)]);
    let make = spec::messages::Make { kind: 1, templates: vec![template], ..spec::messages::Make::default() };
    let made = group.create(make, TICKET).unwrap();
    let ouid = Ouid::from_bytes(&made.outputs[0].ouid).unwrap();
    assert_eq!(world.holders(ouid), [true, true, false]);
    world.unscript(3);
    (world, group, ouid)
}

fn settle(world: &Arc<World>, group: &Group) -> u64 {
    let before = world.ms();
    group.pay_last(world.clock.now().after_ms(1_000));
    world.ms() - before
}

#[test]
fn ha_2_5_what_a_member_owes_at_the_end_is_sent_once_more() {
    let (world, group, ouid) = with_debt();
    let took_ms = settle(&world, &group);
    assert_eq!(world.holders(ouid), [true; 3]);
    assert!(took_ms < 50, "took {took_ms} ms");
    world.forget();
    assert_eq!(settle(&world, &group), 0);
    assert!(world.sent(STORE).is_empty(), "nobody owes anything any more");
}

#[test]
fn ha_2_5_the_end_waits_for_no_member_that_is_gone_and_a_second_at_most_for_one_that_hangs() {
    let (world, group, _) = with_debt();
    world.down(3);
    assert_eq!(settle(&world, &group), 0);
    let (world, group, ouid) = with_debt();
    world.freeze(3);
    let took_ms = settle(&world, &group);
    assert!(took_ms <= 1_000, "took {took_ms} ms");
    assert_eq!(world.holders(ouid), [true, true, false]);
}

#[test]
fn ha_2_5_a_member_that_hangs_holds_up_no_other_one() {
    let world = World::new(4);
    let group = world.group();
    world.tend(&group, 1);
    let template = Template::from(vec![spec::Attribute::bool(spec::AttributeType::TOKEN, true)]);
    let make = spec::messages::Make { kind: 1, templates: vec![template], ..spec::messages::Make::default() };
    let mut made = Vec::new();
    for _ in 0..20 {
        (3..=4).for_each(|member| (0..2).for_each(|_| world.script(member, STORE, Fate::Silent)));
        let answer = group.create(make.clone(), TICKET).unwrap();
        made.push(Ouid::from_bytes(&answer.outputs[0].ouid).unwrap());
    }
    (3..=4).for_each(|member| world.unscript(member));
    world.freeze(3);
    let took_ms = settle(&world, &group);
    assert!(took_ms <= 1_000, "took {took_ms} ms");
    assert!(made.iter().all(|ouid| world.holders(*ouid) == [true, true, false, true]));
}
