//! Slow, silent, stuck, busy and returning members (HA 4.3, 4.4, 4.5).
use std::sync::Arc;

use spec::messages::{Make, MakeKind, Outcome};
use spec::record::State;
use spec::{MechanismType, Ouid, Template};

use super::members::with_mechanism;
use super::{Fate, TICKET, World, one_use};
use crate::error::Error;
use crate::group::Group;
use crate::route::Policy;
use crate::settings::GroupSettings;

const STATUS: u32 = 10;
const USE: u32 = 14;
const MAKE: u32 = 16;
const FIND: u32 = 20;

fn used(group: &Group, ouid: Ouid) -> Result<u64, Error> {
    group.any(one_use(ouid), TICKET).map(|answered| answered.member.0)
}

/// A group with an object that has used every member 150 times by turns, a millisecond each, and goes on to prefer
/// member 1.
fn warm_with(change: impl FnOnce(&mut GroupSettings)) -> (Arc<World>, Arc<Group>, Ouid) {
    let world = World::new(3);
    let ouid = Ouid([0x42; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group_with(|settings| {
        settings.policy = Policy::RoundRobin;
        change(settings);
    });
    world.tend(&group, 1);
    (0..450).for_each(|_| assert!(used(&group, ouid).is_ok()));
    let first = GroupSettings { policy: Policy::PrimaryFirst, ..GroupSettings::clone(&group.settings()) };
    group.configure(first);
    world.forget();
    (world, group, ouid)
}

fn warm() -> (Arc<World>, Arc<Group>, Ouid) {
    warm_with(|_| {})
}

#[test]
fn a_slow_request_is_hedged_and_the_loser_cancelled() {
    let (world, group, ouid) = warm();
    world.script(1, USE, Fate::Slow(20));
    let before = world.ms();
    assert_eq!(used(&group, ouid), Ok(2));
    assert!(world.ms() - before <= 7, "took {} ms", world.ms() - before);
    assert_eq!((world.sent(USE), world.cancelled()), (vec![1, 2], vec![1]));
    assert_eq!(group.status().members[0].outstanding, 0);
}

#[test]
fn the_first_answer_counts_whoever_gives_it() {
    let (world, group, ouid) = warm();
    world.script(1, USE, Fate::Slow(8));
    world.script(2, USE, Fate::Slow(16));
    assert_eq!(used(&group, ouid), Ok(1));
    assert_eq!((world.sent(USE), world.cancelled()), (vec![1, 2], vec![2]));
}

#[test]
fn ha_4_3_a_slow_or_silent_request_is_not_sent_to_members_that_lack_its_mechanism_too() {
    let world = World::new(3);
    let (ouid, ecdsa, gcm) = (Ouid([0x42; 16]), MechanismType::ECDSA.0, MechanismType::AES_GCM.0);
    for member in 1..=3 {
        world.model(member, |model| {
            model.put(ouid, State::Committed);
            model.mechanisms = if member == 1 { vec![ecdsa, gcm] } else { vec![ecdsa] };
        });
    }
    let group = world.group();
    world.tend(&group, 2);
    let by = |mechanism| group.any(with_mechanism(ouid, mechanism), TICKET).map(|done| done.member.0);
    (0..450).for_each(|_| assert!(by(ecdsa).is_ok() && by(gcm) == Ok(1)));
    for slow_ms in [20, 200] {
        world.forget();
        world.script(1, USE, Fate::Slow(slow_ms));
        assert_eq!((by(gcm), world.sent(USE)), (Ok(1), vec![1]), "{slow_ms} ms");
        let probes = world.sent(STATUS).iter().filter(|member| **member != 1).count();
        assert!(
            probes <= 2,
            "who was just heard is not asked whether it is there: {probes} times in {slow_ms} ms"
        );
    }
}

#[test]
fn hedges_stay_within_their_budget() {
    let (world, group, ouid) = warm();
    (0..400).for_each(|_| world.script(1, USE, Fate::Slow(12)));
    (0..400).for_each(|_| assert!(used(&group, ouid).is_ok()));
    let second = world.sent(USE).iter().filter(|member| **member != 1).count();
    assert!((8..=16).contains(&second), "{second} hedges of 400 requests");
}

#[test]
fn nothing_is_hedged_without_a_hundred_samples_nor_above_fifty_milliseconds_nor_when_it_makes_something() {
    // A process that has just begun.
    let world = World::new(3);
    let ouid = Ouid([0x42; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group();
    world.script(1, USE, Fate::Slow(200));
    assert_eq!(used(&group, ouid), Ok(1));
    assert_eq!(world.sent(USE), [1]);
    // Work that takes 60 ms everywhere.
    (1..=3).for_each(|member| (0..400).for_each(|_| world.script(member, USE, Fate::Slow(60))));
    (0..450).for_each(|_| assert!(used(&group, ouid).is_ok()));
    world.forget();
    (1..=3).for_each(|member| world.unscript(member));
    (1..=3).for_each(|member| world.script(member, USE, Fate::Slow(200)));
    used(&group, ouid).unwrap();
    assert_eq!(world.sent(USE).len(), 1);
    // A Make.
    let (world, group, _) = warm();
    let make =
        || Make { kind: MakeKind::GENERATE.0, templates: vec![Template::default()], ..Make::default() };
    (0..110).for_each(|_| drop(group.create(make(), TICKET).unwrap()));
    world.forget();
    world.script(1, 16, Fate::Slow(200));
    group.create(make(), TICKET).unwrap();
    assert_eq!(world.sent(16), [1]);
}

#[test]
fn a_silent_members_request_moves_at_once_and_new_ones_avoid_it() {
    let (world, group, ouid) = warm();
    world.freeze(1);
    // The hedges are used up, so that only the evacuation is left.
    while group.budget.take(1) {}
    let before = world.ms();
    assert_eq!(used(&group, ouid), Ok(2));
    assert!((25..=35).contains(&(world.ms() - before)), "took {} ms", world.ms() - before);
    assert!(group.status().members[0].suspect);
    assert!(world.sent(STATUS).contains(&1), "a probe decides");
    world.forget();
    for _ in 0..5 {
        assert_eq!(used(&group, ouid), Ok(2));
    }
    assert_eq!(world.sent(USE), [2; 5]);
    world.tend(&group, 3);
    assert_eq!(world.abandoned(), [1]);
    world.up(1);
    world.tend(&group, 2);
    world.pass_ms(6_000);
    assert_eq!(used(&group, ouid), Ok(1));
    assert!(!group.status().members[0].suspect);
}

#[test]
fn a_search_leaves_a_silent_member_too() {
    let (world, group, ouid) = warm();
    let find = || group.find(&Template::default(), TICKET).unwrap().len();
    (0..120).for_each(|_| assert_eq!(find(), 1));
    used(&group, ouid).unwrap();
    let searcher = world.sent(FIND)[0];
    world.freeze(searcher);
    world.tend(&group, 1);
    let before = world.ms();
    assert_eq!(find(), 1);
    assert!(world.ms() - before <= 40, "took {} ms", world.ms() - before);
}

/// As `warm`, with so many objects, after 120 searches; who is searched.
fn searched(objects: u32) -> (Arc<World>, Arc<Group>, u64) {
    let (world, group, _) = warm();
    for number in 1..objects {
        let mut ouid = [0x50; 16];
        ouid[..4].copy_from_slice(&number.to_be_bytes());
        (1..=3).for_each(|member| world.model(member, |model| model.put(Ouid(ouid), State::Committed)));
    }
    (0..120).for_each(|_| assert_eq!(found(&group), objects as usize));
    let searcher = *world.sent(FIND).last().unwrap();
    world.forget();
    (world, group, searcher)
}

fn found(group: &Group) -> usize {
    let found = group.find(&Template::default(), TICKET).unwrap();
    assert!(found.windows(2).all(|pair| pair[0].ouid < pair[1].ouid), "each once, in order");
    found.len()
}

#[test]
fn ha_4_3_a_slow_search_is_hedged() {
    let (world, group, searcher) = searched(1);
    world.script(searcher, FIND, Fate::Slow(20));
    let before = world.ms();
    assert_eq!(found(&group), 1);
    assert!(world.ms() - before <= 7, "took {} ms", world.ms() - before);
    let sent = world.sent(FIND);
    assert_eq!((sent.len(), sent[0], world.cancelled()), (2, searcher, vec![searcher]));
    assert_ne!(sent[1], searcher);
    let bodies = world.bodies(FIND);
    assert_eq!(bodies[0], bodies[1], "RULES 1.5");
    assert!(group.status().members.iter().all(|member| member.outstanding == 0));
    // The first answer counts, whoever gives it.
    world.forget();
    world.script(searcher, FIND, Fate::Slow(8));
    world.script(sent[1], FIND, Fate::Slow(16));
    assert_eq!((found(&group), world.sent(FIND), world.cancelled()), (1, sent.clone(), vec![sent[1]]));
    // One that fails is not the end while the other one works.
    world.forget();
    world.script(searcher, FIND, Fate::Slow(16));
    world.script(sent[1], FIND, Fate::Answer(Outcome::FAILED));
    assert_eq!((found(&group), world.sent(FIND)), (1, sent));
}

#[test]
fn ha_4_3_a_search_is_hedged_with_a_member_that_owes_nothing_and_within_the_budget() {
    let (world, group, searcher) = searched(1);
    let others: Vec<u64> = (1..=3).filter(|member| *member != searcher).collect();
    let view = group.view().clone();
    let member = |id: u64| view.member(spec::seam::MemberId(id)).unwrap();
    group.owe(member(others[0]), &[Ouid([9; 16])], &[], &[], true);
    world.script(searcher, FIND, Fate::Slow(20));
    assert_eq!((found(&group), world.sent(FIND)), (1, vec![searcher, others[1]]));
    world.forget();
    while group.budget.take(1) {}
    world.script(searcher, FIND, Fate::Slow(20));
    assert_eq!((found(&group), world.sent(FIND)), (1, vec![searcher]));
}

#[test]
fn ha_3_2_searches_stay_with_their_member_until_hedges_are_won_again_and_again() {
    let (world, group, searcher) = searched(1);
    let next = |fate: Fate| {
        world.forget();
        world.script(searcher, FIND, fate);
        assert_eq!(found(&group), 1);
        world.unscript(searcher);
        world.sent(FIND)[0]
    };
    for fate in [Fate::Slow(20), Fate::Slow(20), Fate::Fine, Fate::Slow(20), Fate::Slow(20), Fate::Slow(20)] {
        assert_eq!(next(fate), searcher);
    }
    assert_ne!(next(Fate::Fine), searcher);
}

#[test]
fn ha_4_3_after_a_hedge_paging_goes_on_where_the_page_came_from() {
    let (world, group, searcher) = searched(2_500);
    world.script(searcher, FIND, Fate::Fine);
    world.script(searcher, FIND, Fate::Slow(20));
    assert_eq!(found(&group), 2_500);
    let sent = world.sent(FIND);
    assert_eq!((&sent[..2], sent[2] == sent[3], sent.len()), (&[searcher, searcher][..], true, 4));
    assert_ne!(sent[2], searcher);
}

#[test]
fn ha_4_3_merged_searches_are_not_hedged_and_hear_every_member() {
    let (world, group, searcher) = searched(1);
    world.model(searcher, |model| model.put(Ouid([0x99; 16]), State::Committed));
    group.set_divergent(true);
    world.script(searcher, FIND, Fate::Slow(20));
    assert_eq!((found(&group), world.sent(FIND)), (2, vec![1, 2, 3]));
    world.forget();
    world.script(searcher, FIND, Fate::Busy(5));
    world.script(searcher, FIND, Fate::Slow(20));
    assert_eq!((found(&group), world.sent(FIND)), (2, vec![1, 2, 3, searcher]));
}

#[test]
fn rules_1_5_hedges_and_evacuations_carry_the_bytes_of_the_first_send() {
    for silent in [false, true] {
        let (world, group, ouid) = warm();
        if silent {
            while group.budget.take(1) {}
            world.freeze(1);
        } else {
            world.script(1, USE, Fate::Slow(20));
        }
        assert_eq!(used(&group, ouid), Ok(2));
        let bodies = world.bodies(USE);
        assert_eq!((world.sent(USE), bodies.len()), (vec![1, 2], 2), "silent: {silent}");
        assert_eq!(bodies[0], bodies[1], "silent: {silent}");
    }
}

#[test]
fn rules_1_5_a_make_that_is_sent_again_carries_the_bytes_of_the_first_send() {
    for fate in
        [Fate::LostBefore, Fate::LostAfter, Fate::NotSent, Fate::Busy(5), Fate::Answer(Outcome::FAILED)]
    {
        let (world, group, _) = warm();
        world.script(1, MAKE, fate);
        group
            .create(
                Make { kind: MakeKind::GENERATE.0, templates: vec![Template::default()], ..Make::default() },
                TICKET,
            )
            .unwrap();
        let bodies = world.bodies(MAKE);
        assert_eq!(bodies.len(), 2, "{fate:?}");
        assert_eq!(bodies[0], bodies[1], "{fate:?}");
    }
}

#[test]
fn ha_8_after_a_pause_of_a_member_a_call_costs_one_message_again() {
    let (world, group, ouid) = warm();
    let find = || group.find(&Template::default(), TICKET).unwrap().len();
    (0..120).for_each(|_| assert_eq!(find(), 1));
    used(&group, ouid).unwrap();
    // The pause catches a search, and searches go elsewhere from then on: that work of the member is not tried again.
    let searcher = *world.sent(FIND).last().unwrap();
    world.freeze(searcher);
    world.tend(&group, 1);
    assert_eq!(find(), 1);
    world.thaw(searcher);
    world.tend(&group, 1);
    world.forget();
    for _ in 0..50 {
        used(&group, ouid).unwrap();
        find();
    }
    assert!(world.sent_in_all() <= 102, "{} messages for 100 calls", world.sent_in_all());
    world.pass_ms(10_000);
    assert!(!group.status().members[searcher as usize - 1].suspect);
}

#[test]
fn requests_move_only_to_a_member_heard_within_the_last_second() {
    let (world, group, ouid) = warm();
    while group.budget.take(1) {}
    world.pass_ms(5_000);
    world.freeze(1);
    world.freeze(2);
    let before = world.ms();
    // Nobody was heard lately: the others are asked first, and the one that answers gets the request.
    assert_eq!(used(&group, ouid), Ok(3));
    assert_eq!(world.sent(USE), [1, 3]);
    assert!(world.ms() - before <= 40, "took {} ms", world.ms() - before);
}

#[test]
fn while_nobody_is_heard_the_call_waits_for_the_receive_timeout() {
    let (world, group, ouid) = warm();
    while group.budget.take(1) {}
    world.pass_ms(5_000);
    (1..=3).for_each(|member| world.freeze(member));
    world.later(19_000, |world| {
        assert_eq!(world.sent(USE), [1]);
        assert!(world.abandoned().is_empty(), "the fault may be ours");
        (1..=3).for_each(|member| world.up(member));
    });
    used(&group, ouid).unwrap();
    assert!(world.ms() > 19_000);
}

#[test]
fn bytes_that_lie_unread_here_are_no_silence_of_the_member() {
    let (world, group, ouid) = warm();
    while group.budget.take(1) {}
    world.unread(1, true);
    world.script(1, USE, Fate::Slow(300));
    assert_eq!(used(&group, ouid), Ok(1));
    assert_eq!(world.sent(USE), [1]);
    assert!(!group.status().members[0].suspect);
}

#[test]
fn a_member_that_answers_probes_while_its_work_is_stuck_is_left() {
    let (world, group, ouid) = warm();
    while group.budget.take(1) {}
    world.stick(1, true);
    let before = world.ms();
    assert_eq!(used(&group, ouid), Ok(2));
    assert!(world.ms() - before <= 40, "took {} ms", world.ms() - before);
    // The link is heard: a process whose tender works does not call it silent.
    world.tend(&group, 1);
    assert_eq!(used(&group, ouid), Ok(2));
    world.forget();
    // One trial a second, no more.
    let begun = world.ms();
    while world.ms() - begun < 3_000 {
        assert_eq!(used(&group, ouid), Ok(2));
        group.refresh();
        world.pass_ms(10);
    }
    let trials = world.sent(USE).iter().filter(|member| **member == 1).count();
    assert!((2..=4).contains(&trials), "{trials} trials in three seconds");
    assert!(world.abandoned().is_empty());
    assert!(group.status().members[0].suspect);
    world.stick(1, false);
    world.pass_ms(1_000);
    assert_eq!(used(&group, ouid), Ok(1));
    assert!(!group.status().members[0].suspect);
}

#[test]
fn members_plus_one_bounds_evacuations_too() {
    let (world, group, ouid) = warm();
    while group.budget.take(1) {}
    (1..=3).for_each(|member| world.stick(member, true));
    let probing = group.clone();
    world.later(30, move |_| probing.refresh());
    assert!(used(&group, ouid).is_err());
    assert!(world.sent(USE).len() <= 4, "{:?}", world.sent(USE));
}

#[test]
fn a_call_that_everybody_is_busy_for_stands_in_line_and_ends_at_its_deadline() {
    let (world, group, ouid) = warm_with(|settings| settings.call_ms_max = 10_000);
    (1..=3).for_each(|member| (0..500).for_each(|_| world.script(member, USE, Fate::Busy(500))));
    let before = world.ms();
    assert_eq!(used(&group, ouid), Err(Error::Deadline));
    assert!((10_000..10_600).contains(&(world.ms() - before)), "took {} ms", world.ms() - before);
    assert!(world.sent(USE).len() <= 80, "{} sends in ten seconds", world.sent(USE).len());
    assert!(!group.line.is_occupied());
}

#[test]
fn the_line_is_first_come_first_served() {
    let world = World::new(1);
    let group = world.group();
    let waiter = || spec::seam::Waiter::new(&group.platform);
    let (first, second, third) =
        (group.line.join(&waiter()), group.line.join(&waiter()), group.line.join(&waiter()));
    assert!(first.is_first() && !second.is_first() && !third.is_first());
    drop(second);
    assert!(first.is_first() && !third.is_first());
    drop(first);
    assert!(third.is_first());
    drop(third);
    assert!(!group.line.is_occupied());
}

#[test]
fn a_full_window_sends_the_call_elsewhere_and_all_full_ones_let_it_wait() {
    let (world, group, ouid) = warm();
    (1..=3).for_each(|member| world.model(member, |model| model.window = 1));
    group.refresh();
    let member = |id: u64| group.view().member(spec::seam::MemberId(id)).unwrap().clone();
    member(1).load.begin();
    assert_eq!(used(&group, ouid), Ok(2));
    (2..=3).for_each(|id| member(id).load.begin());
    let freed = member(3);
    world.later(700, move |_| freed.load.end());
    let before = world.ms();
    assert_eq!(used(&group, ouid), Ok(3));
    assert!((700..720).contains(&(world.ms() - before)), "took {} ms", world.ms() - before);
}

#[test]
fn ha_4_5_a_call_that_cannot_be_answered_in_time_any_more_gives_its_turn_up() {
    let (world, group, ouid) = warm_with(|settings| settings.call_ms_max = 2_000);
    let member = |id: u64| group.view().member(spec::seam::MemberId(id)).unwrap().clone();
    (0..100).for_each(|_| world.script(1, USE, Fate::Slow(20)));
    while group.budget.take(1) {}
    (0..100).for_each(|_| assert_eq!(used(&group, ouid), Ok(1)));
    world.unscript(1);
    (1..=3).for_each(|id| world.model(id, |model| model.window = 2));
    group.refresh();
    (1..=3).for_each(|id| [1, 2].iter().for_each(|_| member(id).load.begin()));
    // Room comes when an answer would take longer than the call still has; the member has other work.
    let freed = member(1);
    world.later(1_985, move |_| freed.load.end());
    world.forget();
    let before = world.ms();
    assert_eq!(used(&group, ouid), Err(Error::Deadline));
    assert!((1_985..2_000).contains(&(world.ms() - before)), "took {} ms", world.ms() - before);
    assert!(world.sent(USE).is_empty() && !group.line.is_occupied());
    // A member without other work is tried whatever is expected of it, and so is any in the first half of a call's time.
    member(1).load.end();
    [1, 2].iter().for_each(|_| member(1).load.begin());
    let freed = member(1);
    world.later(1_985, move |_| [1, 2].iter().for_each(|_| freed.load.end()));
    assert_eq!(used(&group, ouid), Ok(1));
}

#[test]
fn a_returning_member_ramps_up() {
    let (world, group, ouid) = warm();
    let round_robin = GroupSettings { policy: Policy::RoundRobin, ..GroupSettings::clone(&group.settings()) };
    group.configure(round_robin);
    world.down(3);
    world.tend(&group, 1);
    world.up(3);
    world.tend(&group, 1);
    let share = |rounds: usize| {
        world.forget();
        (0..rounds).for_each(|_| assert!(used(&group, ouid).is_ok()));
        world.sent(USE).iter().filter(|member| **member == 3).count()
    };
    let at_first = share(300);
    assert!((5..=60).contains(&at_first), "{at_first} of 300 right after its return");
    world.pass_ms(6_000);
    let later = share(300);
    assert_eq!(later, 100, "of 300 when it has returned");
}
