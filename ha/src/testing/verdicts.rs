//! Who may say that there is no such object (HA 3.1, 4.6): never a member alone that was not compared with another one.
use std::sync::Arc;

use spec::messages::{Call, GetAttributes, Outcome, SetAttributes};
use spec::record::State;
use spec::{Ouid, Rv};

use super::{Fate, TICKET, World, one_use, reference};
use crate::error::Error;
use crate::group::Group;
use crate::minimum::Minimum;
use crate::status::MemberState;

const USE: u32 = 14;
const READ: u32 = 21;
const CHANGE: u32 = 22;
const DESTROY: u32 = 23;
const OUID: Ouid = Ouid([0x42; 16]);

fn used(group: &Group) -> Result<u64, Error> {
    group.any(one_use(OUID), TICKET).map(|answered| answered.member.0)
}

fn gone() -> Error {
    Error::Gone(OUID.0.to_vec())
}

/// Members of which all but the last hold the object.
fn world(members: u64) -> Arc<World> {
    let world = World::new(members);
    (1..members).for_each(|member| world.model(member, |model| model.put(OUID, State::Committed)));
    world
}

/// A process that reaches the last of three members only, which has missed the object.
fn with_the_last_one_alone() -> (Arc<World>, Arc<Group>) {
    let world = world(3);
    let group = world.group();
    (1..=2).for_each(|member| world.down(member));
    world.tend(&group, 1);
    assert_eq!(group.status().members[2].state, MemberState::Unverified);
    (world, group)
}

#[test]
fn ha_3_1_what_an_unverified_member_alone_does_not_know_is_asked_of_those_that_come_back() {
    let (world, group) = with_the_last_one_alone();
    let before = world.ms();
    world.later(2_000, |world| world.up(1));
    assert_eq!(used(&group), Ok(1));
    let waited = world.ms() - before;
    assert!((2_000..2_500).contains(&waited), "waited {waited} ms");
}

#[test]
fn ha_3_1_the_question_stays_open_until_the_outage_wait_and_ends_without_an_answer() {
    let (world, group) = with_the_last_one_alone();
    let before = world.ms();
    let error = used(&group).unwrap_err();
    assert_eq!(error.rv(), Rv::DEVICE_ERROR);
    let text = error.to_string();
    assert!(text.contains("members 1, 2 may hold it"), "{text}");
    let waited = world.ms() - before;
    assert!((4_800..5_300).contains(&waited), "waited {waited} ms");
    assert!(world.sent(USE).len() < 60, "asked {} times", world.sent(USE).len());
}

#[test]
fn ha_2_2_a_change_that_may_have_happened_on_a_lost_member_has_no_known_outcome() {
    let world = world(3);
    let group = world.group_with(|settings| {
        settings.minimum = Minimum::Available;
        settings.policy = crate::route::Policy::PrimaryFirst;
    });
    (1..=2).for_each(|member| world.model(member, |model| model.put(Ouid([1; 16]), State::Committed)));
    world.tend(&group, 1);
    // The first member takes the change and is lost with its answer; what is left has missed the object.
    world.script(1, CHANGE, Fate::LostAfter);
    world.later(0, |world| {
        world.down(1);
        world.down(2);
    });
    let change = || SetAttributes { object: Some(reference(OUID)), ..SetAttributes::default() };
    assert!(matches!(group.change(change(), TICKET), Err(Error::OutcomeUnknown(_))));
    assert!(
        matches!(group.change(change(), TICKET), Err(Error::Undecided(_))),
        "nobody can have done this one"
    );
}

#[test]
fn ha_3_1_an_open_question_ends_by_the_calls_deadline() {
    let world = world(3);
    let group = world.group_with(|settings| settings.call_ms_max = 1_500);
    (1..=2).for_each(|member| world.down(member));
    world.tend(&group, 1);
    let before = world.ms();
    assert_eq!(used(&group).unwrap_err().rv(), Rv::DEVICE_ERROR);
    assert!(world.ms() - before <= 1_500, "took {} ms", world.ms() - before);
}

#[test]
fn ha_3_1_a_tombstone_is_final_whoever_tells_it() {
    let (world, group) = with_the_last_one_alone();
    world.model(3, |model| model.put(OUID, State::Deleted));
    let before = world.ms();
    assert_eq!(used(&group), Err(gone()));
    assert!(world.ms() - before < 50);
}

#[test]
fn ha_3_1_verified_members_that_agree_need_no_word_of_a_dead_one() {
    // Of two members with two copies each, one is enough; of three, two are.
    for members in [2, 3] {
        let world = World::new(members);
        let group = world.group();
        world.tend(&group, 1);
        world.down(members);
        let before = world.ms();
        assert_eq!(used(&group), Err(gone()), "{members} members");
        assert!(world.ms() - before < 50, "{members} members");
    }
}

#[test]
fn ha_3_1_one_of_three_does_not_decide_even_when_it_was_verified() {
    let world = world(3);
    (1..=3).for_each(|member| world.model(member, |model| model.things.clear()));
    let group = world.group();
    world.tend(&group, 1);
    // Another process, which does not reach the third one, writes with two copies.
    (1..=2).for_each(|member| world.model(member, |model| model.put(OUID, State::Committed)));
    (1..=2).for_each(|member| world.down(member));
    assert_eq!(group.status().members[2].state, MemberState::Up);
    group.set_repair_ticket(Some(TICKET));
    let repairing = group.clone();
    world.later(1_000, |world| world.up(2));
    world.later(1_100, move |_| {
        repairing.tend();
    });
    let before = world.ms();
    used(&group).unwrap();
    assert!((1_000..1_500).contains(&(world.ms() - before)), "took {} ms", world.ms() - before);
}

#[test]
fn ha_3_1_all_members_of_the_manifest_decide_verified_or_not() {
    let world = World::new(3);
    // They differ, so nobody is verified.
    (1..=3).for_each(|member| {
        world.model(member, |model| model.put(Ouid([member as u8; 16]), State::Committed));
    });
    let group = world.group();
    world.tend(&group, 1);
    let before = world.ms();
    assert_eq!(used(&group), Err(gone()));
    assert!(world.ms() - before < 50);
}

#[test]
fn ha_3_1_a_group_of_one_and_what_has_left_the_manifest_are_not_waited_for() {
    let alone = World::new(1);
    let group = alone.group();
    assert_eq!(used(&group), Err(gone()));
    assert!(alone.ms() < 50);
    let (world, group) = with_the_last_one_alone();
    world.later(1_000, |world| {
        world.model(3, |model| {
            model.manifest.epoch = 2;
            model.manifest.home = 3;
            model.manifest.members.retain(|member| member.serial == 3);
        });
    });
    let before = world.ms();
    assert_eq!(used(&group), Err(gone()));
    assert!(world.ms() - before < 1_500, "took {} ms", world.ms() - before);
}

#[test]
fn ha_2_5_a_member_that_owes_the_object_has_no_say_about_it() {
    let world = World::new(2);
    world.model(2, |model| model.put(OUID, State::Committed));
    let group = world.group_with(|settings| settings.minimum = Minimum::Available);
    world.tend(&group, 1);
    let view = group.view().clone();
    let bodies: Vec<crate::body::Body> = Vec::new();
    group.owe(&view.seats[0].member, &[OUID], &[], &bodies, true);
    world.script(2, USE, Fate::Answer(Outcome::UNKNOWN));
    world.later(1, |world| world.unscript(2));
    assert_eq!(used(&group), Ok(2));
}

#[test]
fn ha_3_1_a_destroy_is_not_told_that_the_object_is_gone_by_an_unverified_member_alone() {
    let world = world(3);
    let group = world.group_with(|settings| settings.minimum = Minimum::Available);
    (1..=2).for_each(|member| world.down(member));
    world.tend(&group, 1);
    let before = world.ms();
    assert_eq!(group.destroy(reference(OUID), TICKET).unwrap_err().rv(), Rv::DEVICE_ERROR);
    assert!((4_800..5_300).contains(&(world.ms() - before)), "took {} ms", world.ms() - before);
    world.later(1_000, |world| world.up(1));
    group.destroy(reference(OUID), TICKET).unwrap();
    assert!(world.executed(DESTROY).contains(&1));
    assert_eq!(world.model(1, |model| model.state(OUID)), Some(State::Deleted));
}

#[test]
fn ha_3_1_what_a_holder_of_the_object_decides_is_not_overwritten_by_another_voice() {
    let others = [Outcome::UNKNOWN, Outcome::BEHIND, Outcome::WRONG_GROUP, Outcome::FAILED];
    for ((decides, voice), other) in
        [(2, 3), (3, 2)].into_iter().flat_map(|pair| others.map(|other| (pair, other)))
    {
        let world = world(3);
        let group = world.group_with(|settings| settings.policy = crate::route::Policy::PrimaryFirst);
        world.tend(&group, 1);
        (0..9).for_each(|_| {
            world.script(1, USE, Fate::Answer(Outcome::UNKNOWN));
            world.script(decides, USE, Fate::Rv(Rv::KEY_FUNCTION_NOT_PERMITTED));
            world.script(voice, USE, Fate::Answer(other));
        });
        assert_eq!(used(&group), Err(Error::Rv(Rv::KEY_FUNCTION_NOT_PERMITTED)), "member {voice}: {other:?}");
    }
}

#[test]
fn ha_3_1_a_member_that_is_behind_or_of_another_generation_keeps_the_question_open() {
    for outcome in [Outcome::BEHIND, Outcome::WRONG_GROUP] {
        let world = world(3);
        (1..=3).for_each(|member| world.model(member, |model| model.put(OUID, State::Committed)));
        let group = world.group_with(|settings| settings.policy = crate::route::Policy::PrimaryFirst);
        world.tend(&group, 1);
        (0..3).for_each(|_| world.script(1, USE, Fate::Answer(Outcome::UNKNOWN)));
        (0..3).for_each(|_| world.script(2, USE, Fate::Answer(Outcome::UNKNOWN)));
        (0..2).for_each(|_| world.script(3, USE, Fate::Answer(outcome)));
        assert_eq!(used(&group), Ok(3), "{outcome:?}");
    }
}

#[test]
fn ha_3_1_a_use_waits_two_seconds_for_the_state_that_was_seen_and_a_read_for_who_has_it() {
    let world = World::new(3);
    (1..=3).for_each(|member| world.model(member, |model| model.put(OUID, State::Committed)));
    let group = world.group();
    world.tend(&group, 1);
    world.down(1);
    let behind = |call: u32| {
        (0..200).for_each(|_| {
            (2..=3).for_each(|member| world.script(member, call, Fate::Answer(Outcome::BEHIND)))
        });
    };
    let (before, _) = (world.ms(), behind(USE));
    assert_eq!(used(&group), Err(Error::OnlyOlder));
    let waited = world.ms() - before;
    assert!((1_500..2_500).contains(&waited), "waited {waited} ms");
    behind(READ);
    let read = || {
        let read = GetAttributes { object: Some(reference(OUID)), numbers: Vec::new() };
        group.any(Call::GetAttributes(read), TICKET).map(|answered| answered.member.0)
    };
    let before = world.ms();
    let error = read().unwrap_err();
    assert!(
        matches!(error, Error::Undecided(_)) && error.to_string().contains("not read now: 1)"),
        "{error}"
    );
    assert!(world.ms() - before >= 4_000, "waited {} ms for who has it", world.ms() - before);
    world.later(1_000, |world| world.up(1));
    assert_eq!(read(), Ok(1));
    // With nobody else up, the one that is left decides.
    (1..=2).for_each(|member| world.down(member));
    assert_eq!(read(), Err(Error::OnlyOlder));
}

#[test]
fn ha_3_1_a_member_that_has_left_may_be_who_held_what_the_others_lack() {
    let world = World::new(3);
    let group = world.group_with(|settings| settings.outage_wait_ms = 500);
    world.tend(&group, 1);
    // Acknowledged by two of three; the second one misses it still.
    [1, 3].iter().for_each(|member| world.model(*member, |model| model.put(OUID, State::Committed)));
    let mut manifest = group.manifest().unwrap();
    (manifest.epoch, manifest.home) = (2, 2);
    manifest.members.remove(0);
    (2..=3).for_each(|member| world.model(member, |model| model.manifest = manifest.clone()));
    group.learn(&manifest);
    world.down(3);
    let answer = group.any(super::one_use(OUID), TICKET).map(|_| ());
    assert!(matches!(answer, Err(Error::Undecided(_))), "{answer:?}");
    world.up(3);
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 3);
    world.down(2);
    assert!(group.any(super::one_use(OUID), TICKET).is_ok());
}
