//! Membership, roles, abilities and settings at run time (HA 2.6, 2.7, 3.1; DESIGN 2).
use std::sync::Arc;

use spec::messages::{Call, MechanismMessage, SetAttributes, Use};
use spec::record::{MemberRole, State};
use spec::seam::MemberId;
use spec::{MechanismType, Ouid, Rv};

use super::{Fate, TICKET, World, one_use, reference};
use crate::error::Error;
use crate::group::Group;
use crate::membership::Change;
use crate::minimum::Minimum;
use crate::route::Policy;
use crate::settings::GroupSettings;
use crate::status::MemberState;

const STATUS: u32 = 10;
const USE: u32 = 14;
const CHANGE_MANIFEST: u32 = 24;
const ECDSA: u64 = MechanismType::ECDSA.0;
const AES_GCM: u64 = MechanismType::AES_GCM.0;

fn used(group: &Group, ouid: Ouid) -> Result<u64, Error> {
    group.any(one_use(ouid), TICKET).map(|answered| answered.member.0)
}

fn with_object(change: impl FnOnce(&mut GroupSettings)) -> (Arc<World>, Arc<Group>, Ouid) {
    let world = World::new(3);
    let ouid = Ouid([0x42; 16]);
    (1..=3).for_each(|member| world.model(member, |model| model.put(ouid, State::Committed)));
    let group = world.group_with(change);
    world.tend(&group, 1);
    world.forget();
    (world, group, ouid)
}

fn reconfigure(group: &Group, change: impl FnOnce(&mut GroupSettings)) {
    let mut settings = GroupSettings::clone(&group.settings());
    change(&mut settings);
    group.configure(settings);
}

/// The members that serve twelve uses, each once.
fn servers(world: &World, group: &Group, ouid: Ouid) -> Vec<u64> {
    world.forget();
    (0..12).for_each(|_| assert!(used(group, ouid).is_ok()));
    let mut servers = world.sent(USE);
    servers.sort_unstable();
    servers.dedup();
    servers
}

#[test]
fn round_robin_uses_all_members_and_primary_first_the_first_of_this_hosts_order() {
    let (world, group, ouid) = with_object(|settings| settings.policy = Policy::RoundRobin);
    assert_eq!(servers(&world, &group, ouid), [1, 2, 3]);
    reconfigure(&group, |settings| {
        settings.policy = Policy::PrimaryFirst;
        settings.members = vec![MemberId(3), MemberId(1), MemberId(2)];
    });
    assert_eq!(servers(&world, &group, ouid), [3]);
    world.down(3);
    assert_eq!(servers(&world, &group, ouid), [1]);
    assert_eq!(group.status().policy, Policy::PrimaryFirst);
}

#[test]
fn this_hosts_standby_members_serve_while_no_active_one_lives_and_no_longer() {
    let (world, group, ouid) = with_object(|settings| {
        settings.policy = Policy::RoundRobin;
        settings.standby = vec![MemberId(1)];
    });
    assert_eq!(servers(&world, &group, ouid), [2, 3]);
    assert!(group.status().members[0].standby && !group.status().members[1].standby);
    (2..=3).for_each(|member| world.down(member));
    assert_eq!(servers(&world, &group, ouid), [1]);
    world.up(2);
    world.tend(&group, 2);
    world.pass_ms(6_000);
    assert_eq!(servers(&world, &group, ouid), [2]);
    reconfigure(&group, |settings| settings.standby = vec![]);
    assert_eq!(servers(&world, &group, ouid), [1, 2]);
}

#[test]
fn settings_change_while_the_group_works() {
    let (world, group, ouid) = with_object(|_| {});
    (2..=3).for_each(|member| world.down(member));
    let change = || SetAttributes { object: Some(reference(ouid)), ..SetAttributes::default() };
    assert!(matches!(group.change(change(), TICKET), Err(Error::BelowMinimum { wanted: 2, .. })));
    reconfigure(&group, |settings| {
        settings.minimum = Minimum::Available;
        settings.outage_wait_ms = 100;
        settings.serial = Some(77);
    });
    group.change(change(), TICKET).unwrap();
    world.down(1);
    let before = world.ms();
    assert!(matches!(used(&group, ouid), Err(Error::Outage { .. })));
    assert!(world.ms() - before < 200);
    assert_eq!(group.settings().serial, Some(super::SERIAL), "another serial number is another group");
}

#[test]
fn members_of_the_configuration_count_while_no_manifest_is_known() {
    let world = World::new(3);
    let group = world.group_with(|settings| settings.members = vec![MemberId(1)]);
    let ids =
        |group: &Group| -> Vec<u64> { group.status().members.iter().map(|member| member.id.0).collect() };
    reconfigure(&group, |settings| settings.members = vec![MemberId(2), MemberId(3)]);
    assert_eq!(ids(&group), [2, 3]);
    world.tend(&group, 1);
    assert_eq!(ids(&group), [1, 2, 3]);
    reconfigure(&group, |settings| settings.members = vec![MemberId(2)]);
    assert_eq!(ids(&group), [1, 2, 3], "the manifest says who the members are");
}

#[test]
fn a_newer_manifest_epoch_in_a_reply_is_gone_for_with_that_call() {
    let (world, group, ouid) = with_object(|_| {});
    used(&group, ouid).unwrap();
    (1..=3).for_each(|member| {
        world.model(member, |model| {
            model.manifest.epoch = 2;
            model.manifest.members[2].role = MemberRole::Draining as i32;
        });
    });
    world.forget();
    used(&group, ouid).unwrap();
    assert_eq!(world.sent(STATUS).len(), 1);
    assert_eq!(group.manifest().unwrap().epoch, 2);
    used(&group, ouid).unwrap();
    assert_eq!(world.sent(STATUS).len(), 1, "once for each epoch");
    reconfigure(&group, |settings| settings.policy = Policy::RoundRobin);
    assert_eq!(servers(&world, &group, ouid), [1, 2], "a draining member gets no new work");
}

#[test]
fn a_change_of_members_is_made_at_the_home_and_reaches_all() {
    let (world, group, ouid) = with_object(|settings| settings.policy = Policy::RoundRobin);
    let change = Change::Role { member: MemberId(2), role: MemberRole::Standby };
    let changed = group.change_members(&change, TICKET).unwrap();
    assert_eq!((changed.manifest.epoch, changed.untold), (2, vec![]));
    assert_eq!(world.executed(CHANGE_MANIFEST), [1]);
    assert!((1..=3).all(|member| world.model(member, |model| model.manifest.epoch == 2)));
    assert_eq!(servers(&world, &group, ouid), [1, 3]);
    // The same again changes nothing.
    assert_eq!(group.change_members(&change, TICKET).unwrap().manifest.epoch, 2);
    // A member that leaves is told, and finishes what it does.
    let changed = group.change_members(&Change::Remove(MemberId(3)), TICKET).unwrap();
    assert_eq!(changed.manifest.members.len(), 2);
    assert_eq!(world.model(3, |model| model.manifest.members.len()), 2);
    assert_eq!(servers(&world, &group, ouid), [1]);
    assert_eq!(group.status().members.len(), 2);
    // One that cannot be reached is named.
    world.down(2);
    let weight = Change::Weight { member: MemberId(1), weight: 300 };
    assert_eq!(group.change_members(&weight, TICKET).unwrap().untold, [MemberId(2)]);
}

#[test]
fn somebody_elses_change_at_the_same_time_is_taken_into_account() {
    let (world, group, _) = with_object(|_| {});
    (1..=3).for_each(|member| {
        world.model(member, |model| {
            model.manifest.epoch = 2;
            model.manifest.label = "theirs".to_owned();
        });
    });
    let weight = Change::Weight { member: MemberId(1), weight: 300 };
    let changed = group.change_members(&weight, TICKET).unwrap().manifest;
    assert_eq!((changed.epoch, changed.label.as_str(), changed.members[0].weight), (3, "theirs", 300));
    assert_eq!(world.executed(CHANGE_MANIFEST).len(), 2);
}

#[test]
fn a_request_on_its_way_to_a_member_that_leaves_is_finished_there() {
    let (world, group, ouid) = with_object(|_| {});
    world.script(1, USE, Fate::Slow(800));
    let leaving = group.clone();
    world.later(100, move |world| {
        let mut manifest = leaving.manifest().unwrap();
        manifest.epoch = 2;
        manifest.home = 2;
        manifest.members.remove(0);
        (2..=3).for_each(|member| world.model(member, |model| model.manifest = manifest.clone()));
        leaving.learn(&manifest);
    });
    assert_eq!(used(&group, ouid), Ok(1));
    assert!(!servers(&world, &group, ouid).contains(&1));
}

#[test]
fn promote_asks_the_present_home_and_takes_over_when_it_is_gone() {
    let (world, group, _) = with_object(|settings| settings.outage_wait_ms = 500);
    assert_eq!(group.promote(MemberId(2), TICKET).unwrap().manifest.home, 2);
    assert_eq!(world.executed(CHANGE_MANIFEST), [1]);
    // The credentials that the third member lacks reach it before it becomes the home.
    (1..=2).for_each(|member| {
        world.model(member, |model| (model.credential_epoch, model.pin) = (2, b"7654321".to_vec()));
    });
    group.refresh();
    world.down(2);
    world.forget();
    let changed = group.promote(MemberId(3), TICKET).unwrap();
    assert_eq!((changed.manifest.home, changed.manifest.epoch), (3, 3));
    assert_eq!(changed.untold, [MemberId(2)]);
    assert!(world.model(3, |model| model.pin == b"7654321"));
    assert_eq!(world.executed(CHANGE_MANIFEST), [3]);
    // The old home learns it when it returns.
    world.up(2);
    group.set_repair_ticket(Some(TICKET));
    world.tend(&group, 4);
    assert_eq!(world.model(2, |model| model.manifest.home), 3);
}

pub(super) fn with_mechanism(ouid: Ouid, mechanism: u64) -> Call {
    let mut one = Use::default();
    one.key = Some(reference(ouid));
    one.mechanism = Some(MechanismMessage { number: mechanism, ..MechanismMessage::default() });
    Call::Use(one)
}

#[test]
fn a_mechanism_that_a_member_does_not_list_is_routed_around_it_and_shown() {
    let world = World::new(3);
    let ouid = Ouid([0x42; 16]);
    for member in 1..=3 {
        world.model(member, |model| {
            model.put(ouid, State::Committed);
            model.mechanisms = if member == 1 { vec![ECDSA] } else { vec![ECDSA, AES_GCM] };
        });
    }
    let group = world.group();
    world.tend(&group, 2);
    assert_eq!(group.status().members[0].lacks, [AES_GCM]);
    assert!(group.status().members[1].lacks.is_empty());
    for _ in 0..6 {
        assert_ne!(group.any(with_mechanism(ouid, AES_GCM), TICKET).unwrap().member, MemberId(1));
        group.any(with_mechanism(ouid, ECDSA), TICKET).unwrap();
    }
    assert!(world.sent(USE).contains(&1));
    // Nobody else is left: the member's own word is the answer.
    (2..=3).for_each(|member| world.down(member));
    let refused = group.any(with_mechanism(ouid, AES_GCM), TICKET).map(|_| ());
    assert_eq!(refused, Err(Error::Rv(Rv::MECHANISM_INVALID)));
}

#[test]
fn a_refused_mechanism_is_asked_of_the_others_and_remembered_when_one_has_it() {
    let (world, group, ouid) = with_object(|_| {});
    (1..=3).for_each(|member| world.script(member, STATUS, Fate::Fine));
    let refuse = |member| world.script(member, USE, Fate::Rv(Rv::MECHANISM_INVALID));
    (1..=2).for_each(refuse);
    let answered = group.any(with_mechanism(ouid, AES_GCM), TICKET).unwrap();
    assert_eq!(answered.member, MemberId(3));
    let status = group.status();
    assert_eq!((&status.members[0].lacks, &status.members[2].lacks), (&vec![AES_GCM], &vec![]));
    world.forget();
    (0..4).for_each(|_| drop(group.any(with_mechanism(ouid, AES_GCM), TICKET).unwrap()));
    assert_eq!(world.sent(USE), [3; 4]);
    // What every member refuses is refused.
    (1..=3).for_each(refuse);
    let all = group.any(with_mechanism(ouid, ECDSA), TICKET).map(|_| ());
    assert_eq!(all, Err(Error::Rv(Rv::MECHANISM_INVALID)));
    assert!(group.status().members[1].lacks == [AES_GCM]);
}

#[test]
fn without_recovery_a_lost_member_is_taken_back_on_demand_only() {
    let (world, group, ouid) = with_object(|settings| settings.recovery = false);
    world.down(3);
    used(&group, ouid).unwrap();
    world.up(3);
    world.tend(&group, 4);
    assert!(matches!(&group.status().members[2].state, MemberState::Down(why) if why.contains("reconnAtt")));
    (1..=2).for_each(|member| world.down(member));
    assert!(matches!(used(&group, ouid), Err(Error::Outage { .. })));
    group.recover();
    world.tend(&group, 2);
    assert_eq!(used(&group, ouid), Ok(3));
}

#[test]
fn a_member_that_was_down_at_start_is_taken_in_without_recovery_too() {
    let world = World::new(3);
    world.down(3);
    let group = world.group_with(|settings| settings.recovery = false);
    world.tend(&group, 2);
    world.up(3);
    world.tend(&group, 2);
    assert_eq!(group.status().members[2].state, MemberState::Up);
}

#[test]
fn a_read_demands_what_the_member_has_acknowledged_to_this_process() {
    let (world, group, ouid) = with_object(|_| {});
    used(&group, ouid).unwrap();
    assert_eq!(world.last_header().at_least, 0);
    let change = SetAttributes { object: Some(reference(ouid)), ..SetAttributes::default() };
    group.change(change, TICKET).unwrap();
    world.forget();
    let member = used(&group, ouid).unwrap();
    let (incarnation, seq) = world.model(member, |model| (model.incarnation, model.seq()));
    assert_eq!((world.last_header().incarnation, world.last_header().at_least), (incarnation, seq));
    // A member that has lost that write is behind, and another one is asked.
    world.model(member, |model| model.set_seq(seq - 1));
    (0..4).for_each(|_| assert_ne!(used(&group, ouid), Ok(member)));
}
