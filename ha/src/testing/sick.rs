//! Members that answer and cannot serve: failing, silent, gone back to an older state (HA 1.5, 3.1, 3.2, 4.2).
use std::sync::Arc;

use spec::messages::{Login, Make, MakeKind, Outcome, SetPin};
use spec::record::State;
use spec::{Attribute, AttributeType, Ouid, Rv, Template};

use super::{Fate, SERIAL, TICKET, World, one_use, reference};
use crate::MemberState;
use crate::error::Error;
use crate::group::Group;
use crate::minimum::Minimum;

const LOGIN: u32 = 11;
const USE: u32 = 14;
const MAKE: u32 = 16;
const STORE: u32 = 17;
const FIND: u32 = 20;
const DESTROY: u32 = 23;
const JOIN: u32 = 28;
const OLD: &[u8] = b"1234567";
const NEW: &[u8] = b"7654321";

fn with_object(members: u64) -> (Arc<World>, Arc<Group>, Ouid) {
    let world = World::new(members);
    let ouid = Ouid([0x42; 16]);
    (1..=members).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group();
    world.tend(&group, 1);
    world.forget();
    (world, group, ouid)
}

/// The member answers this call so until it is unscripted.
fn always(world: &World, member: u64, call: u32, fate: Fate) {
    (0..3_000).for_each(|_| world.script(member, call, fate));
}

fn used(group: &Group, ouid: Ouid) -> Result<u64, Error> {
    group.any(one_use(ouid), TICKET).map(|answered| answered.member.0)
}

fn login(group: &Group, pin: &[u8]) -> Result<Vec<u8>, Error> {
    group.login(Login { user: 1, pin: pin.to_vec(), tag: Vec::new() }, &[])
}

fn found(group: &Group) -> Result<usize, Error> {
    group.find(&Template::default(), TICKET).map(|found| found.len())
}

#[test]
fn a_call_that_every_member_fails_ends_with_that_failure_at_once() {
    for outcome in [Outcome::FAILED, Outcome::NO_PARTITION, Outcome::EXPIRED] {
        let (world, group, ouid) = with_object(3);
        (1..=3).for_each(|member| always(&world, member, USE, Fate::Answer(outcome)));
        let before = world.ms();
        assert!(matches!(used(&group, ouid), Err(Error::Peer(_))), "{outcome:?}");
        assert!(world.ms() - before < 1_000, "{outcome:?}: {} ms", world.ms() - before);
        assert_eq!(world.sent(USE).len(), 3, "{outcome:?}");
    }
}

#[test]
fn a_failing_member_is_not_asked_twice_while_another_one_is_out_of_reach() {
    let (world, group, ouid) = with_object(2);
    always(&world, 1, USE, Fate::Answer(Outcome::FAILED));
    (0..20).for_each(|_| world.script(2, USE, Fate::NotSent));
    assert_eq!(used(&group, ouid), Ok(2));
    assert_eq!(world.sent(USE).iter().filter(|member| **member == 1).count(), 1);
}

#[test]
fn a_member_whose_partition_was_taken_from_this_client_is_passed_over_at_once() {
    let (world, group, ouid) = with_object(3);
    always(&world, 1, USE, Fate::Answer(Outcome::NO_PARTITION));
    always(&world, 1, LOGIN, Fate::Answer(Outcome::NO_PARTITION));
    let before = world.ms();
    for _ in 0..4 {
        assert_ne!(used(&group, ouid), Ok(1));
        login(&group, b"1234567").unwrap();
    }
    assert!(world.ms() - before < 50, "took {} ms", world.ms() - before);
}

#[test]
fn a_login_that_members_fail_is_tried_on_two_at_most() {
    let (world, group, _) = with_object(3);
    (1..=3).for_each(|member| always(&world, member, LOGIN, Fate::Answer(Outcome::FAILED)));
    assert!(matches!(login(&group, OLD), Err(Error::Peer(_))));
    assert_eq!(world.sent(LOGIN).len(), 2);
}

#[test]
fn a_search_leaves_a_member_that_fails_is_busy_or_silent() {
    let faults = [
        Fate::Answer(Outcome::FAILED),
        Fate::Answer(Outcome::NO_PARTITION),
        Fate::Answer(Outcome::EXPIRED),
        Fate::Busy(60_000),
        Fate::Silent,
        Fate::NotSent,
    ];
    for fault in faults {
        let (world, group, _) = with_object(3);
        assert_eq!(found(&group), Ok(1));
        world.forget();
        always(&world, 1, FIND, fault);
        assert_eq!(found(&group), Ok(1), "{fault:?}");
        assert_eq!(world.sent(FIND), [1, 2], "{fault:?}");
        assert_eq!(found(&group), Ok(1), "{fault:?}");
        assert_eq!(world.sent(FIND), [1, 2, 2], "{fault:?}: the next search begins where the last one ended");
    }
}

#[test]
fn a_search_that_every_member_fails_ends_and_one_that_all_are_busy_for_waits() {
    let (world, group, _) = with_object(3);
    (1..=3).for_each(|member| always(&world, member, FIND, Fate::Answer(Outcome::FAILED)));
    let before = world.ms();
    assert!(matches!(found(&group), Err(Error::Peer(_))));
    assert!(world.ms() - before < 1_500);
    assert_eq!(world.sent(FIND).len(), 3);
    let (world, group, _) = with_object(3);
    (1..=3).for_each(|member| world.script(member, FIND, Fate::Busy(400)));
    let before = world.ms();
    assert_eq!(found(&group), Ok(1));
    assert_eq!(world.sent(FIND).len(), 4);
    assert!((200..500).contains(&(world.ms() - before)), "took {} ms", world.ms() - before);
}

#[test]
fn a_search_learns_a_raised_generation() {
    let (world, group, _) = with_object(3);
    (1..=3).for_each(|member| world.model(member, |model| model.manifest.generation = 2));
    assert_eq!(found(&group), Ok(1));
}

#[test]
fn an_object_is_not_called_gone_while_a_member_that_may_hold_it_gives_no_verdict() {
    for fault in
        [Fate::Answer(Outcome::FAILED), Fate::Answer(Outcome::EXPIRED), Fate::NotSent, Fate::LostBefore]
    {
        let (world, group, ouid) = with_object(3);
        (1..=2).for_each(|member| world.model(member, |model| model.things.clear()));
        (0..3).for_each(|_| world.script(3, USE, fault));
        assert_eq!(used(&group, ouid), Ok(3), "{fault:?}");
        world.unscript(3);
        // The averages fade, so that the members that miss it are asked first again.
        world.pass_ms(70_000);
        always(&world, 3, USE, fault);
        let before = world.ms();
        match used(&group, ouid) {
            Err(Error::Peer(_)) => {}
            other => panic!("{fault:?}: wanted a failure of the device, found {other:?}"),
        }
        assert!(world.ms() - before < 6_000, "{fault:?}: took {} ms", world.ms() - before);
    }
}

/// Member 2 goes back to the image that it had before a PIN change and the birth of an object.
fn with_member_gone_back() -> (Arc<World>, Arc<Group>, Ouid) {
    let (world, group, ouid) = with_object(3);
    let image = world.model(2, |model| model.clone());
    let set = SetPin { user: 1, old: OLD.to_vec(), new: NEW.to_vec(), tag: Vec::new() };
    group.set_pin(set, TICKET).unwrap();
    world.tend(&group, 1);
    world.model(2, |model| *model = image);
    world.forget();
    (world, group, ouid)
}

#[test]
fn the_logins_of_a_member_that_went_back_are_not_believed() {
    for (pin, wanted) in [(NEW, Ok(TICKET.to_vec())), (OLD, Err(Error::Rv(Rv::PIN_INCORRECT)))] {
        let (world, group, _) = with_member_gone_back();
        [1, 3].iter().for_each(|member| world.script(*member, LOGIN, Fate::NotSent));
        assert_eq!(login(&group, pin), wanted);
        assert_eq!(world.executed(LOGIN)[0], 2, "the member was asked before it was known");
        for _ in 0..6 {
            assert_eq!(login(&group, pin), wanted);
        }
        assert_eq!(world.executed(LOGIN).iter().filter(|member| **member == 2).count(), 1);
    }
}

#[test]
fn a_member_that_went_back_serves_nothing_until_it_is_repaired() {
    let (world, group, ouid) = with_member_gone_back();
    world.down(2);
    world.up(2);
    world.tend(&group, 5);
    let state = || group.status().members[1].state.clone();
    assert_eq!(state(), MemberState::Recovering, "equal digests do not prove its credentials");
    for _ in 0..6 {
        assert_ne!(used(&group, ouid).unwrap(), 2);
        assert_eq!(found(&group), Ok(1));
    }
    assert!(!world.sent(FIND).contains(&2));
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 3);
    assert_eq!(state(), MemberState::Up);
    assert!(world.model(2, |model| model.pin == NEW));
    world.down(1);
    world.down(3);
    assert_eq!(used(&group, ouid), Ok(2));
    assert_eq!(login(&group, NEW).unwrap(), TICKET);
}

#[test]
fn a_member_that_went_back_alone_is_not_used_and_the_only_member_of_a_group_is() {
    let (world, group, ouid) = with_member_gone_back();
    world.down(1);
    world.down(3);
    world.tend(&group, 2);
    assert!(used(&group, ouid).is_err());
    let (world, group, ouid) = with_object(1);
    let image = world.model(1, |model| model.clone());
    world.model(1, |model| model.put(Ouid([1; 16]), State::Committed));
    world.tend(&group, 1);
    world.model(1, |model| *model = image);
    world.tend(&group, 2);
    assert_eq!(used(&group, ouid), Ok(1));
    assert_eq!(group.manifest().unwrap().serial, SERIAL);
}

#[test]
fn a_link_that_comes_back_during_a_write_takes_part_in_it() {
    // A create: the second member is lost while the object is made.
    let (world, group, _) = with_object(3);
    world.down(3);
    world.script(1, MAKE, Fate::Slow(1_500));
    world.script(2, MAKE, Fate::Slow(1_500));
    world.later(1_000, |world| world.down(2));
    world.later(2_500, |world| world.up(3));
    let template = Template::from(vec![Attribute::bool(AttributeType::TOKEN, true)]);
    let make = Make { kind: MakeKind::GENERATE.0, templates: vec![template], ..Make::default() };
    let made = group.create(make, TICKET).unwrap();
    let ouid = Ouid::from_bytes(&made.outputs[0].ouid).unwrap();
    assert_eq!(world.holders(ouid), [true, false, true]);
    assert!(world.executed(STORE).contains(&3));
    // A destroy: the second member is lost with the request.
    let (world, group, ouid) = with_object(3);
    world.down(3);
    world.script(2, DESTROY, Fate::LostBefore);
    world.later(0, |world| world.down(2));
    world.later(2_500, |world| world.up(3));
    group.destroy(reference(ouid), TICKET).unwrap();
    assert_eq!(world.holders(ouid), [false, true, false]);
    // What one member has written is joined by the others.
    let (world, group, _) = with_object(3);
    world.down(3);
    always(&world, 2, JOIN, Fate::LostBefore);
    world.later(2_000, |world| world.up(3));
    let set = SetPin { user: 1, old: OLD.to_vec(), new: NEW.to_vec(), tag: Vec::new() };
    world.later(100, |world| world.down(2));
    group.set_pin(set, TICKET).unwrap();
    assert!(world.model(3, |model| model.pin == NEW));
}

#[test]
fn a_write_that_every_reachable_member_refuses_does_not_wait_for_the_others() {
    let world = World::new(3);
    let group = world.group_with(|settings| settings.minimum = Minimum::Available);
    world.tend(&group, 1);
    world.down(3);
    let before = world.ms();
    let ouid = Ouid([5; 16]);
    assert_eq!(group.destroy(reference(ouid), TICKET), Err(Error::Gone(ouid.0.to_vec())));
    world.down(2);
    world.model(1, |model| model.put(ouid, State::Committed));
    world.script(1, DESTROY, Fate::Rv(Rv::ACTION_PROHIBITED));
    assert_eq!(group.destroy(reference(ouid), TICKET), Err(Error::Rv(Rv::ACTION_PROHIBITED)));
    assert!(world.ms() - before < 1_000);
}

#[test]
fn a_call_pays_debts_for_a_second_at_most() {
    let (world, group, ouid) = with_object(3);
    world.down(3);
    group.destroy(reference(ouid), TICKET).unwrap();
    let other = Ouid([6; 16]);
    let template = Template::from(vec![Attribute::bool(AttributeType::TOKEN, true)]);
    let make = Make { kind: MakeKind::GENERATE.0, templates: vec![template], ..Make::default() };
    group.create(make, TICKET).unwrap();
    world.up(3);
    [DESTROY, STORE].iter().for_each(|call| always(&world, 3, *call, Fate::Silent));
    let before = world.ms();
    group.pay_now(group.deadline());
    assert!(world.ms() - before <= 1_400, "took {} ms", world.ms() - before);
    let before = world.ms();
    group.pay_now(group.platform.now().after_ms(300));
    assert!(world.ms() - before <= 400, "took {} ms", world.ms() - before);
    assert!(!world.model(1, |model| model.is_live(other)));
}

#[test]
fn a_repair_ends_when_a_member_gives_out_records_that_nobody_asked_for() {
    let (world, group, ouid) = with_object(2);
    world.model(2, |model| model.things.clear());
    world.down(2);
    world.up(2);
    (1..=2).for_each(|member| world.model(member, |model| model.exports_strangers = true));
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 2);
    assert_eq!(group.status().members[1].state, MemberState::Recovering);
    (1..=2).for_each(|member| world.model(member, |model| model.exports_strangers = false));
    world.tend(&group, 6);
    assert_eq!(group.status().members[1].state, MemberState::Up);
    assert!(world.model(2, |model| model.is_live(ouid)));
}

#[test]
fn an_outage_is_told_once() {
    let (world, group, ouid) = with_object(2);
    (1..=2).for_each(|member| world.down(member));
    assert!(matches!(used(&group, ouid), Err(Error::Outage { .. })));
    assert!(!group.tells_outage(), "it has been told");
    world.up(1);
    world.tend(&group, 2);
    assert!(group.tells_outage(), "the next one is another one");
}
