//! Read, Use and Make: failover, bounds, probes, outage (HA 3.1, 3.2, 4.2, 4.5).
use spec::messages::{Answer, Call, GetAttributes, Make, MakeKind, Outcome, Random};
use spec::record::{MemberRole, State};
use spec::{Ouid, Rv, Template};

use super::{Fate, TICKET, World, one_use, reference};
use crate::error::Error;
use crate::group::Group;

const USE: u32 = 14;
const MAKE: u32 = 16;
const FIND: u32 = 20;
const GET: u32 = 21;

fn used(group: &Group, ouid: Ouid) -> Result<u64, Error> {
    group.any(one_use(ouid), TICKET).map(|answered| answered.member.0)
}

fn with_object(members: u64) -> (std::sync::Arc<World>, Ouid) {
    let world = World::new(members);
    let ouid = Ouid([0x42; 16]);
    for member in 1..=members {
        world.model(member, |model| model.put(ouid, State::Committed));
    }
    (world, ouid)
}

/// The calls of the classes Read, Use and Make, with their numbers.
fn calls(ouid: Ouid) -> Vec<(u32, Call)> {
    vec![
        (GET, Call::GetAttributes(GetAttributes { object: Some(reference(ouid)), numbers: Vec::new() })),
        (USE, one_use(ouid)),
        (15, Call::Random(Random { bytes: 8 })),
        (
            MAKE,
            Call::Make(Make {
                kind: MakeKind::GENERATE.0,
                templates: vec![Template::default()],
                ..Make::default()
            }),
        ),
    ]
}

#[test]
fn reads_uses_and_makes_move_on_after_every_fault() {
    let faults =
        [Fate::NotSent, Fate::LostBefore, Fate::LostAfter, Fate::Busy(50), Fate::Answer(Outcome::FAILED)];
    for fault in faults {
        let (world, ouid) = with_object(3);
        for (number, call) in calls(ouid) {
            let group = world.group();
            world.forget();
            (1..=2).for_each(|member| world.script(member, number, fault));
            let answered = group.any(call, TICKET).unwrap();
            assert_eq!(answered.member.0, 3, "{fault:?} of call {number}");
            assert_eq!(world.sent(number).len(), 3, "{fault:?} of call {number}");
            let executed = if fault == Fate::LostAfter { 3 } else { 1 };
            assert_eq!(world.executed(number).len(), executed, "{fault:?} of call {number}");
        }
    }
}

#[test]
fn at_most_members_plus_one_sends_may_have_executed() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    for member in 1..=3 {
        (0..9).for_each(|_| world.script(member, USE, Fate::LostAfter));
    }
    assert!(matches!(used(&group, ouid), Err(Error::Peer(_))));
    assert_eq!(world.executed(USE).len(), 4);
}

#[test]
fn what_the_partition_decides_is_final() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    world.script(1, USE, Fate::Rv(Rv::KEY_FUNCTION_NOT_PERMITTED));
    assert_eq!(used(&group, ouid), Err(Error::Rv(Rv::KEY_FUNCTION_NOT_PERMITTED)));
    assert_eq!(world.sent(USE), [1]);
    for (outcome, error) in [
        (Outcome::PLAN_CHANGED, Error::PlanChanged),
        (Outcome::TICKET_DEAD, Error::TicketDead),
        (Outcome::NOT_OPENED, Error::NotOpened),
        (Outcome::NEED_BLOB, Error::NeedBlob(Vec::new())),
    ] {
        (1..=3).for_each(|member| world.script(member, USE, Fate::Answer(outcome)));
        assert_eq!(used(&group, ouid), Err(error));
        world.pass_ms(30_000);
        (1..=3).for_each(|member| world.unscript(member));
    }
}

#[test]
fn busy_moves_the_call_once_and_then_waits() {
    let (world, ouid) = with_object(2);
    let group = world.group();
    used(&group, ouid).unwrap();
    world.forget();
    world.script(1, USE, Fate::Busy(400));
    world.script(2, USE, Fate::Busy(400));
    let before = world.ms();
    used(&group, ouid).unwrap();
    assert_eq!(world.sent(USE).len(), 3);
    assert!(world.ms() - before >= 200, "waited {} ms", world.ms() - before);
}

#[test]
fn a_probe_unanswered_for_one_second_gives_the_link_up_and_the_call_moves_on() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    used(&group, ouid).unwrap();
    world.pass_ms(5_000);
    world.forget();
    let first = 1;
    world.freeze(first);
    let before = world.ms();
    for _ in 0..3 {
        used(&group, ouid).unwrap();
    }
    world.up(2);
    world.up(3);
    assert!(world.ms() - before < 1_500, "took {} ms", world.ms() - before);
    world.tend(&group, 3);
    assert_eq!(world.abandoned(), [first]);
}

#[test]
fn ha_4_4_the_probe_timeout_decides_when_a_link_is_given_up_and_holds_up_no_round() {
    for (probe_ms, from_ms, until_ms) in [(300, 300, 1_500), (30_000, 30_000, 33_500)] {
        let world = World::new(3);
        let group = world.group_with(|settings| settings.probe_ms = probe_ms);
        world.tend(&group, 1);
        world.freeze(3);
        let begun = world.ms();
        while world.abandoned().is_empty() {
            let before = world.ms();
            world.tend(&group, 1);
            assert!(world.ms() - before <= 2_000, "a round took {} ms", world.ms() - before);
            assert!(world.ms() - begun <= until_ms, "ProbeTimeout {probe_ms}");
        }
        assert!(world.ms() - begun >= from_ms, "ProbeTimeout {probe_ms}: given up too soon");
        assert_eq!(world.abandoned(), [3]);
    }
}

#[test]
fn slow_work_that_answers_probes_is_not_moved() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    world.script(1, USE, Fate::Slow(45_000));
    assert_eq!(used(&group, ouid), Ok(1));
    assert_eq!((world.sent(USE).len(), world.abandoned().len()), (1, 0));
    assert!(world.ms() >= 45_000);
}

#[test]
fn work_without_reply_or_progress_moves_on_long_before_the_receive_timeout() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    world.script(1, USE, Fate::Silent);
    let member = used(&group, ouid).unwrap();
    assert_ne!(member, 1);
    assert!((2_500..2_600).contains(&world.ms()), "took {} ms", world.ms());
    assert!(world.abandoned().is_empty(), "the probe was answered");
    // What may not be doubled waits for the receive timeout.
    let (number, make) = calls(ouid).pop().unwrap();
    (1..=3).for_each(|member| world.script(member, number, Fate::Silent));
    let before = world.ms();
    group.any(make, TICKET).unwrap();
    assert!((60_000..60_500).contains(&(world.ms() - before)), "took {} ms", world.ms() - before);
}

#[test]
fn unknown_of_one_member_is_not_told_to_the_application() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    world.model(1, |model| model.things.clear());
    world.script(1, 10, Fate::Fine);
    for _ in 0..6 {
        assert_ne!(used(&group, ouid).unwrap(), 1);
    }
}

#[test]
fn unknown_of_every_reachable_member_is_final_and_so_is_one_tombstone() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    let other = Ouid([7; 16]);
    assert_eq!(used(&group, other), Err(Error::Gone(other.0.to_vec())));
    assert_eq!(world.sent(USE).len(), 3);
    // One member holds the tombstone, the one asked first knows nothing, the third still has the object.
    world.model(1, |model| model.things.clear());
    world.model(2, |model| model.put(ouid, State::Deleted));
    world.model(3, |model| model.things.clear());
    assert_eq!(used(&group, ouid), Err(Error::Gone(ouid.0.to_vec())));
}

#[test]
fn with_no_member_the_call_waits_for_the_outage_bound_and_not_longer() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    used(&group, ouid).unwrap();
    (1..=3).for_each(|member| world.down(member));
    let before = world.ms();
    assert!(matches!(used(&group, ouid), Err(Error::Outage { .. })));
    assert!((5_000..5_100).contains(&(world.ms() - before)));
    world.later(3_000, |world| world.up(2));
    assert_eq!(used(&group, ouid), Ok(2));
    assert!(world.ms() - before < 8_200);
}

#[test]
fn all_members_lost_in_mid_call_and_back_within_the_bound_go_unnoticed() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    used(&group, ouid).unwrap();
    (1..=3).for_each(|member| world.script(member, USE, Fate::Slow(900)));
    world.later(500, |world| (1..=3).for_each(|member| world.down(member)));
    world.later(2_500, |world| (1..=3).for_each(|member| world.up(member)));
    used(&group, ouid).unwrap();
}

#[test]
fn standby_members_serve_when_no_active_member_lives() {
    let (world, ouid) = with_object(2);
    for member in 1..=2 {
        world.model(member, |model| model.manifest.members[1].role = MemberRole::Standby as i32);
    }
    let group = world.group();
    for _ in 0..4 {
        assert_eq!(used(&group, ouid), Ok(1));
    }
    world.down(1);
    assert_eq!(used(&group, ouid), Ok(2));
}

#[test]
fn an_empty_search_soon_after_a_change_of_the_read_set_asks_everybody() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    world.model(1, |model| model.things.clear());
    (1..=3).for_each(|member| world.script(member, 10, Fate::Fine));
    assert_eq!(group.find(&Template::default(), TICKET).unwrap().len(), 1);
    // Searches go to one and the same member while it lives.
    let (world, _) = with_object(3);
    let group = world.group();
    for _ in 0..4 {
        assert_eq!(group.find(&Template::default(), TICKET).unwrap()[0].ouid, ouid.0);
    }
    assert_eq!(world.sent(FIND), [1, 1, 1, 1]);
    // An empty result is believed once the read set has been the same for ten seconds.
    let world = World::new(3);
    let group = world.group();
    assert!(group.find(&Template::default(), TICKET).unwrap().is_empty());
    assert_eq!(world.sent(FIND).len(), 3);
    world.forget();
    world.pass_ms(10_001);
    assert!(group.find(&Template::default(), TICKET).unwrap().is_empty());
    assert_eq!(world.sent(FIND).len(), 1);
}

#[test]
fn a_search_survives_the_loss_of_its_member() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    group.find(&Template::default(), TICKET).unwrap();
    world.script(1, FIND, Fate::LostBefore);
    world.later(0, |world| world.down(1));
    assert_eq!(group.find(&Template::default(), TICKET).unwrap()[0].ouid, ouid.0);
}

#[test]
fn a_group_that_was_never_made_fails_with_the_command_that_makes_it() {
    let world = World::new(2);
    (1..=2).for_each(|member| world.model(member, |model| model.manifest.serial = 0));
    let group = world.group();
    match group.any(Call::Random(Random { bytes: 1 }), &[]) {
        Err(Error::NoGroup(text)) => assert!(text.contains("vtl haAdmin newGroup"), "{text}"),
        other => panic!("wanted NoGroup, found {:?}", other.map(|answered| answered.member)),
    }
    assert!(world.ms() < 1_200);
    // The slot of the single partition serves.
    let single = world.group_with(|settings| {
        settings.serial = None;
        settings.members.truncate(1);
    });
    let answered = single.any(Call::Random(Random { bytes: 3 }), &[]).unwrap();
    assert!(matches!(answered.answer, Answer::Random(_)));
}

#[test]
fn a_raised_generation_is_learned_and_the_request_made_again() {
    let (world, ouid) = with_object(2);
    let group = world.group();
    used(&group, ouid).unwrap();
    (1..=2).for_each(|member| world.model(member, |model| model.manifest.generation = 2));
    used(&group, ouid).unwrap();
    assert_eq!(group.manifest().unwrap().generation, 2);
}

#[test]
fn a_call_that_is_worked_on_without_end_ends_at_its_deadline() {
    let (world, ouid) = with_object(2);
    let group = world.group_with(|settings| settings.call_ms_max = 30_000);
    (1..=2).for_each(|member| world.script(member, USE, Fate::Slow(500_000)));
    assert_eq!(used(&group, ouid), Err(Error::Deadline));
    assert_eq!(world.ms(), 30_000);
}

#[test]
fn a_generation_has_a_ceiling_of_its_own() {
    let (world, ouid) = with_object(2);
    let group = world.group_with(|settings| {
        settings.call_ms_max = 30_000;
        settings.generate_ms_max = 300_000;
    });
    let (_, make) = calls(ouid).pop().unwrap();
    (1..=2).for_each(|member| world.script(member, MAKE, Fate::Slow(250_000)));
    group.any(make.clone(), TICKET).unwrap();
    (1..=2).for_each(|member| world.unscript(member));
    (1..=2).for_each(|member| world.script(member, MAKE, Fate::Slow(500_000)));
    let before = world.ms();
    assert_eq!(group.any(make, TICKET).map(|_| ()), Err(Error::Deadline));
    assert_eq!(world.ms() - before, 300_000);
    let Call::Make(copy) = calls(ouid).pop().unwrap().1 else { unreachable!("the last call is a Make") };
    let copy = Call::Make(Make { kind: MakeKind::COPY.0, ..copy });
    (1..=2).for_each(|member| world.unscript(member));
    (1..=2).for_each(|member| world.script(member, MAKE, Fate::Slow(500_000)));
    let before = world.ms();
    assert_eq!(group.any(copy, TICKET).map(|_| ()), Err(Error::Deadline));
    assert_eq!(world.ms() - before, 30_000);
}

#[test]
fn a_member_that_is_busy_has_its_say_before_an_object_is_called_gone() {
    let (world, ouid) = with_object(3);
    let group = world.group();
    used(&group, ouid).unwrap();
    (1..=2).for_each(|member| world.model(member, |model| model.things.clear()));
    (0..3).for_each(|_| world.script(3, USE, Fate::Busy(30)));
    world.pass_ms(70_000);
    (0..4).for_each(|_| assert_eq!(used(&group, ouid), Ok(3)));
}

#[test]
fn what_came_too_late_is_asked_of_another_member() {
    let (world, ouid) = with_object(2);
    let group = world.group();
    world.script(1, USE, Fate::Answer(Outcome::EXPIRED));
    assert_eq!(used(&group, ouid), Ok(2));
    // A probe that came too late says nothing about the member.
    (1..=2).for_each(|member| world.script(member, 10, Fate::Answer(Outcome::EXPIRED)));
    world.tend(&group, 1);
    assert!(group.status().members.iter().all(|member| member.state == crate::MemberState::Up));
}

#[test]
fn the_slot_of_a_partition_that_joins_a_group_goes_on() {
    let (world, ouid) = with_object(1);
    let group = world.group_with(|settings| settings.serial = None);
    used(&group, ouid).unwrap();
    world.model(1, |model| model.manifest.group = vec![7; 16]);
    used(&group, ouid).unwrap();
    assert_eq!(group.manifest().unwrap().group, [7; 16]);
}
