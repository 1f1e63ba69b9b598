//! Background work within calls, where no thread does it (HA 2.5, 4.6).
use std::sync::Arc;

use spec::Ouid;
use spec::messages::Outcome;
use spec::record::State;

use super::{Fate, TICKET, World, one_use};
use crate::group::Group;
use crate::settings::GroupSettings;
use crate::status::MemberState;

const STATUS: u32 = 10;
const COMPARE: u32 = 26;
const JOIN: u32 = 28;

const OLD: Ouid = Ouid([0x42; 16]);
const NEW: Ouid = Ouid([0x77; 16]);

/// A group whose calls do the background work, settled, with an object everywhere.
fn alone_with(change: impl FnOnce(&mut GroupSettings)) -> (Arc<World>, Arc<Group>) {
    let world = World::new(3);
    (1..=3).for_each(|member| world.model(member, |model| model.put(OLD, State::Committed)));
    let group = world.group_with(change);
    group.tend_in_calls();
    group.any(one_use(OLD), TICKET).unwrap();
    world.pass_ms(300);
    calls(&world, &group, 1_500);
    assert!(group.status().members.iter().all(|member| member.state == MemberState::Up));
    world.forget();
    (world, group)
}

fn alone() -> (Arc<World>, Arc<Group>) {
    alone_with(|_| {})
}

/// Uses a key every 50 ms for so long; the longest that a call took, in milliseconds.
fn calls(world: &World, group: &Group, ms: u64) -> u64 {
    let (begun, mut longest_ms) = (world.ms(), 0);
    while world.ms() < begun + ms {
        let before = world.ms();
        group.any(one_use(OLD), TICKET).unwrap();
        longest_ms = longest_ms.max(world.ms() - before);
        world.pass_ms(50);
    }
    longest_ms
}

fn state(group: &Group, member: usize) -> MemberState {
    group.status().members[member - 1].state.clone()
}

#[test]
fn ha_4_6_without_a_thread_calls_repair_and_admit_a_member_that_returned_while_two_live() {
    let (world, group) = alone();
    group.set_repair_ticket(Some(TICKET));
    world.down(3);
    // Another process makes an object meanwhile: no debt of this one brings it to the member.
    (1..=2).for_each(|member| world.model(member, |model| model.put(NEW, State::Committed)));
    calls(&world, &group, 2_000);
    world.up(3);
    let longest_ms = calls(&world, &group, 5_000);
    assert_eq!((state(&group, 3), world.holders(NEW)), (MemberState::Up, vec![true; 3]));
    assert!(longest_ms <= 170, "a call took {longest_ms} ms");
}

#[test]
fn ha_4_6_a_repair_that_is_longer_than_a_slice_goes_on_in_later_calls() {
    let (world, group) = alone();
    group.set_repair_ticket(Some(TICKET));
    world.down(3);
    for number in 0..1_000_u32 {
        let mut ouid = [0x33; 16];
        ouid[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
        (1..=2).for_each(|member| world.model(member, |model| model.put(Ouid(ouid), State::Committed)));
    }
    calls(&world, &group, 500);
    world.up(3);
    (0..200).for_each(|_| world.script(3, JOIN, Fate::Slow(30)));
    let longest_ms = calls(&world, &group, 3_000);
    assert_eq!(state(&group, 3), MemberState::Recovering, "one slice a second");
    assert!(longest_ms <= 200, "a call took {longest_ms} ms");
    world.unscript(3);
    calls(&world, &group, 20_000);
    assert_eq!(state(&group, 3), MemberState::Up);
}

#[test]
fn ha_2_5_without_a_thread_calls_pay_what_one_member_owes() {
    let (world, group) = alone();
    world.down(3);
    group.destroy(super::reference(NEW), TICKET).unwrap_err();
    (1..=3).for_each(|member| world.model(member, |model| model.put(NEW, State::Committed)));
    group.destroy(super::reference(NEW), TICKET).unwrap();
    assert_eq!(group.view().seats[2].member.debts(), 1);
    world.up(3);
    calls(&world, &group, 2_000);
    assert_eq!((group.view().seats[2].member.debts(), world.holders(NEW)), (0, vec![false; 3]));
}

#[test]
fn in_a_healthy_group_without_a_thread_a_call_is_one_message() {
    let (world, group) = alone();
    for _ in 0..200 {
        group.any(one_use(OLD), TICKET).unwrap();
        world.pass_ms(50);
    }
    assert_eq!(world.sent_in_all(), 200);
    // Contents that differ are told by nobody: all are looked at once a minute.
    world.model(2, |model| model.put(NEW, State::Committed));
    calls(&world, &group, 61_000);
    calls(&world, &group, 5_000);
    assert!(group.is_divergent());
}

#[test]
fn members_are_looked_at_once_a_second_while_one_is_not_admitted() {
    let (world, group) = alone();
    world.down(3);
    calls(&world, &group, 100);
    world.model(3, |model| model.put(NEW, State::Committed));
    world.up(3);
    calls(&world, &group, 10_000);
    assert_eq!(state(&group, 3), MemberState::Recovering, "nobody may repair it");
    let looks = world.sent(STATUS).len();
    assert!((24..=33).contains(&looks), "{looks} messages in ten seconds");
}

#[test]
fn ha_4_2_a_member_that_hangs_in_background_work_holds_no_call_for_long() {
    for (call_ms_max, fate) in [(120_000, Fate::Silent), (400, Fate::Silent), (120_000, Fate::Busy(100))] {
        let (world, group) = alone_with(|settings| settings.call_ms_max = call_ms_max);
        group.set_repair_ticket(Some(TICKET));
        world.down(3);
        (1..=2).for_each(|member| world.model(member, |model| model.put(NEW, State::Committed)));
        calls(&world, &group, 100);
        world.up(3);
        for call in [STATUS, COMPARE, JOIN] {
            (0..1_000).for_each(|_| world.script(3, call, fate));
            let longest_ms = calls(&world, &group, 5_000);
            let most_ms = (call_ms_max / 4 + 10).min(1_010);
            assert!(longest_ms <= most_ms, "{fate:?}: a call of {call_ms_max} ms took {longest_ms} ms");
            world.unscript(3);
            world.up(3);
        }
        calls(&world, &group, 70_000);
        assert_eq!(state(&group, 3), MemberState::Up, "{fate:?}");
    }
}

#[test]
fn a_far_member_is_judged_though_its_answers_take_longer_than_a_look_at_first() {
    let (world, group) = alone();
    world.down(3);
    calls(&world, &group, 100);
    world.up(3);
    (0..1_000).for_each(|_| world.script(3, STATUS, Fate::Slow(120)));
    calls(&world, &group, 8_000);
    assert_eq!(state(&group, 3), MemberState::Up);
}

#[test]
fn a_refused_member_is_judged_again() {
    let (world, group) = alone();
    world.down(3);
    calls(&world, &group, 100);
    world.script(3, STATUS, Fate::Answer(Outcome::FAILED));
    world.up(3);
    calls(&world, &group, 3_000);
    assert_eq!(state(&group, 3), MemberState::Up);
}
