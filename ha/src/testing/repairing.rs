//! Repair under the lease, comparison, repair on demand, clones (HA 1.5, 4.6, 4.7).
use std::sync::Arc;

use spec::record::State;
use spec::{Ouid, Template};

use super::{Fate, TICKET, World, one_use};
use crate::group::Group;
use crate::status::MemberState;

const COMPARE: u32 = 26;
const EXPORT: u32 = 27;
const JOIN: u32 = 28;
const LEASE: u32 = 29;

fn with_a_straggler() -> (Arc<World>, Arc<Group>, Ouid, Ouid) {
    with_straggler(3)
}

/// Three members, admitted; one of them then misses an object and holds one that is destroyed elsewhere.
fn with_straggler(straggler: u64) -> (Arc<World>, Arc<Group>, Ouid, Ouid) {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    let (new, dead) = (Ouid([6; 16]), Ouid([0x88; 16]));
    for member in (1..=3).filter(|member| *member != straggler) {
        world.model(member, |model| model.put(new, State::Committed));
        world.model(member, |model| model.put(dead, State::Deleted));
    }
    world.model(straggler, |model| model.put(dead, State::Committed));
    world.down(straggler);
    world.tend(&group, 1);
    world.up(straggler);
    world.tend(&group, 1);
    world.forget();
    (world, group, new, dead)
}

fn state(group: &Group, member: usize) -> MemberState {
    group.status().members[member - 1].state.clone()
}

#[test]
fn repair_waits_while_another_process_has_the_lease_and_gives_its_own_back() {
    let (world, group, new, _) = with_a_straggler();
    world.model(2, |model| model.lease = b"another process.".to_vec());
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 2);
    assert!(world.sent(JOIN).is_empty());
    assert_eq!(state(&group, 3), MemberState::Recovering);
    assert!(world.model(1, |model| model.lease.is_empty()), "what was granted is given back");
    let begun = world.ms();
    world.forget();
    while world.ms() - begun < 5_000 {
        world.tend(&group, 1);
    }
    let asked = world.executed(LEASE).iter().filter(|member| **member == 2).count();
    assert!((2..=8).contains(&asked), "it is asked for about once in a second: {asked} times");
    world.model(2, |model| model.lease.clear());
    world.tend(&group, 6);
    assert_eq!((state(&group, 3), world.holders(new)), (MemberState::Up, vec![true; 3]));
    assert!((1..=3).all(|member| world.model(member, |model| model.lease.is_empty())));
}

/// A lease whose holder has died runs out by the clock of its member; one that stands still holds nobody up for ever.
#[test]
fn ha_4_6_a_lease_at_a_clock_that_stands_still_is_not_waited_for() {
    let (world, group, new, _) = with_a_straggler();
    world.model(2, |model| model.lease = b"another process.".to_vec());
    group.set_repair_ticket(Some(TICKET));
    let tend_for = |ms: u64| {
        let begun = world.ms();
        while world.ms() - begun < ms {
            world.tend(&group, 1);
        }
    };
    // A repairer that goes on renews its lease.
    tend_for(40_000);
    world.model(2, |model| model.clock_stands_still = true);
    tend_for(14_000);
    assert!(world.sent(JOIN).is_empty());
    tend_for(3_000);
    assert_eq!((state(&group, 3), world.holders(new)), (MemberState::Up, vec![true; 3]));
    assert_eq!(world.model(2, |model| model.lease.clone()), b"another process.");
    assert!(world.model(1, |model| model.lease.is_empty()), "what was granted is given back");
}

#[test]
fn a_long_repair_renews_its_lease() {
    let (world, group, ..) = with_a_straggler();
    for number in 0..3_000_u32 {
        let mut ouid = [0x33; 16];
        ouid[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
        (1..=2).for_each(|member| world.model(member, |model| model.put(Ouid(ouid), State::Committed)));
    }
    (0..60).for_each(|_| world.script(1, EXPORT, Fate::Slow(1_000)));
    group.set_repair_ticket(Some(TICKET));
    let before = world.ms();
    while state(&group, 3) != MemberState::Up {
        let begun = world.ms();
        world.tend(&group, 1);
        assert!(world.ms() - begun < 2_500, "probes wait for one slice, not for the repair");
    }
    let rounds = (world.ms() - before) / 7_500;
    assert!(rounds >= 2, "the repair took {} ms", world.ms() - before);
    // Asked for, renewed, given back.
    assert!(
        world.sent(LEASE).len() as u64 >= 3 * (1 + rounds - 1 + 1),
        "{} in {rounds}",
        world.sent(LEASE).len()
    );
    assert_eq!(state(&group, 3), MemberState::Up);
}

#[test]
fn a_member_that_does_not_take_what_it_lacks_holds_up_nobody_else() {
    let (world, group, new, _) = with_a_straggler();
    world.model(2, |model| model.things.remove(&new));
    world.down(2);
    world.up(2);
    world.tend(&group, 1);
    (0..40).for_each(|_| world.script(3, JOIN, Fate::Answer(spec::messages::Outcome::FAILED)));
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 1);
    assert_eq!((state(&group, 2), state(&group, 3)), (MemberState::Up, MemberState::Recovering));
    assert!(world.model(2, |model| model.is_live(new)));
    world.unscript(3);
    world.tend(&group, 4);
    assert_eq!(state(&group, 3), MemberState::Up);
}

#[test]
fn ha_4_6_a_member_that_takes_nothing_costs_the_others_less_and_less() {
    for call in [JOIN, COMPARE] {
        let (world, group, ..) = with_a_straggler();
        for number in 0..1_000_u32 {
            let mut ouid = [0x33; 16];
            ouid[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
            (1..=2).for_each(|member| world.model(member, |model| model.put(Ouid(ouid), State::Committed)));
        }
        (0..2_000).for_each(|_| world.script(3, call, Fate::Answer(spec::messages::Outcome::FAILED)));
        group.set_repair_ticket(Some(TICKET));
        world.forget();
        let before = world.ms();
        while world.ms() - before < 60_000 {
            world.tend(&group, 1);
        }
        let (exports, compares) = (world.sent(EXPORT).len(), world.sent(COMPARE).len());
        // The comparison that looks for divergence goes on; what was moved again and again does not.
        assert!(
            exports <= 24 && compares <= if call == JOIN { 600 } else { 1_200 },
            "{exports} exports, {compares} comparisons in a minute"
        );
        world.unscript(3);
        world.down(3);
        world.up(3);
        world.tend(&group, 4);
        assert_eq!(state(&group, 3), MemberState::Up, "another link is another chance");
    }
}

#[test]
fn a_returner_whose_store_changes_under_the_repair_is_not_admitted_by_it() {
    let (world, group, ..) = with_a_straggler();
    world.script(1, EXPORT, Fate::Slow(50));
    world.later(20, |world| world.model(3, |model| model.incarnation = 77));
    group.set_repair_ticket(Some(TICKET));
    group.repair_round(200);
    assert_ne!(state(&group, 3), MemberState::Up);
    world.tend(&group, 3);
    assert_eq!(state(&group, 3), MemberState::Up);
}

#[test]
fn without_the_right_to_repair_a_returner_is_admitted_when_no_bucket_differs_for_good() {
    for returner in [1, 2, 3] {
        let (world, group, new, dead) = with_straggler(returner);
        world.tend(&group, 20);
        assert_eq!(state(&group, returner as usize), MemberState::Recovering);
        // Another process repairs it, while writes make the roots differ at every look.
        world.model(returner, |model| {
            model.put(new, State::Committed);
            model.put(dead, State::Deleted);
        });
        let admitted = (0..60_u8).any(|number| {
            let mut ouid = [0x55; 16];
            ouid[0] = number;
            let ahead = if number.is_multiple_of(2) { 1 } else { 3 };
            world.model(ahead, |model| model.put(Ouid(ouid), State::Committed));
            world.tend(&group, 1);
            (1..=3).for_each(|member| world.model(member, |model| model.put(Ouid(ouid), State::Committed)));
            let mut next = [0x56; 16];
            next[0] = number;
            world.model(ahead, |model| model.put(Ouid(next), State::Committed));
            state(&group, returner as usize) == MemberState::Up
        });
        assert!(admitted, "member {returner} is {:?}", state(&group, returner as usize));
    }
}

#[test]
fn members_are_compared_record_by_record() {
    let (world, group, ..) = with_a_straggler();
    world.forget();
    let comparison = group.compare(&mut |_, _| {}).unwrap();
    assert!(!comparison.is_equal());
    assert_eq!(comparison.records, 2);
    let of = |member: usize| &comparison.members[member - 1];
    assert_eq!((of(3).missing, of(3).different, of(3).buckets), (1, 1, 2));
    assert_eq!((of(1).missing, of(1).different), (0, 1));
    assert!(world.sent(JOIN).is_empty() && world.sent(LEASE).is_empty());
    world.down(2);
    let comparison = group.compare(&mut |_, _| {}).unwrap();
    assert!(comparison.members[1].absent.is_some());
}

#[test]
fn members_are_synchronised_on_demand_and_a_dry_run_only_counts() {
    let (world, group, new, dead) = with_a_straggler();
    let mut steps = Vec::new();
    let would = group.synchronize(TICKET, true, &mut |done, total| steps.push((done, total))).unwrap();
    assert!(world.sent(JOIN).is_empty() && world.sent(LEASE).is_empty());
    assert_eq!(steps.last(), Some(&(2, 2)));
    let done = group.synchronize(TICKET, false, &mut |_, _| {}).unwrap();
    assert_eq!((would.moved, done.moved, done.members.len()), (done.moved, would.moved, 3));
    assert!(done.moved >= 2 && done.left_out.is_empty());
    assert_eq!((world.holders(new), world.holders(dead)), (vec![true; 3], vec![false; 3]));
    assert_eq!(state(&group, 3), MemberState::Up);
    assert!(group.compare(&mut |_, _| {}).unwrap().is_equal());
    assert_eq!(group.synchronize(TICKET, false, &mut |_, _| {}).unwrap().moved, 0);
    world.model(1, |model| model.lease = b"another process.".to_vec());
    assert!(group.synchronize(TICKET, false, &mut |_, _| {}).is_err());
}

#[test]
fn ha_2_6_two_promotions_at_one_time_end_in_one_manifest_and_one_set_of_credentials() {
    let world = World::new(3);
    let group = world.group();
    world.tend(&group, 1);
    // While the old home was gone, two processes made two members the home, and each home was told another PIN.
    for (member, home, tag) in [(1, 2, b"lesser"), (2, 2, b"lesser"), (3, 3, b"toptag")] {
        world.model(member, |model| {
            model.manifest.epoch = 2;
            model.manifest.home = home;
            model.manifest.tag = tag.to_vec();
            model.credential_epoch = 2;
            model.pin = tag.to_vec();
        });
    }
    group.refresh();
    let behind: Vec<bool> =
        group.compare(&mut |_, _| {}).unwrap().members.iter().map(|one| one.manifest_behind).collect();
    assert_eq!(behind, [true, true, false]);
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 1);
    for member in 1..=3 {
        let held = world.model(member, |model| (model.manifest.home, model.manifest.tag.clone()));
        assert_eq!(held, (3, b"toptag".to_vec()), "member {member}");
        assert_eq!(world.model(member, |model| model.pin.clone()), b"toptag", "member {member}");
    }
    assert_eq!(group.manifest().unwrap().home, 3);
    world.forget();
    world.tend(&group, 3);
    assert!(world.sent(LEASE).is_empty(), "what is level is left alone");
}

#[test]
fn ha_2_9_without_replication_nothing_is_synchronised() {
    let world = World::new(2);
    let group = world.group_with(|settings| settings.synchronize = false);
    assert!(group.synchronize(TICKET, false, &mut |_, _| {}).is_err());
    world.tend(&group, 4);
    assert!(world.sent(COMPARE).is_empty());
}

#[test]
fn a_clone_is_not_used_until_it_was_compared() {
    let world = World::new(3);
    let ouid = Ouid([0x42; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group();
    world.tend(&group, 2);
    // The same incarnation and seq with another digest: the answer comes from another copy of the store.
    world.model(2, |model| model.other_root = true);
    world.tend(&group, 2);
    world.model(2, |model| model.other_root = false);
    world.tend(&group, 3);
    assert_eq!(state(&group, 2), MemberState::Up, "equal again, and compared with the others");
    world.model(2, |model| model.other_root = true);
    group.refresh();
    world.forget();
    for _ in 0..6 {
        let member = group.any(one_use(ouid), TICKET).unwrap().member.0;
        assert_ne!(member, 2);
        group.find(&Template::default(), TICKET).unwrap();
    }
    assert!(!world.sent(20).contains(&2));
    assert_eq!(state(&group, 2), MemberState::Recovering);
}
