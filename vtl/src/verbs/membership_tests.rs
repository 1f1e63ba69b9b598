//! Tests of the verbs that change the manifest, against stand-in appliances.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::*;
use crate::testing::{FIRST, Folder, THREE, World, secret, three};

const SECOND: Serial = THREE[1];
const THIRD: Serial = THREE[2];

fn remove_of(folder: &Folder, world: &World, serial: Serial) -> Result<Answer, Failure> {
    let given = RemoveMember { group: "prodha".to_owned(), serial, secret: secret("pin") };
    remove(&folder.place(), world, &folder.configuration(), given)
}

fn standby_of(folder: &Folder, world: Option<&World>, serial: Serial, on: bool) -> Result<Answer, Failure> {
    let everywhere = world.is_some();
    let given = Standby { group: "prodha".to_owned(), serial, everywhere, secret: secret("pin") };
    let network = world.map(|world| world as &dyn Network);
    standby(&folder.place(), network, &folder.configuration(), given, on)
}

fn role_of(world: &World, serial: Serial) -> MemberRole {
    let manifest = world.manifest(FIRST);
    manifest.members.iter().find(|member| member.serial == serial.0).unwrap().role()
}

#[test]
fn a_member_leaves_manifest_and_configuration() {
    let (folder, world) = three();
    let answer = remove_of(&folder, &world, SECOND).unwrap();
    assert!(answer.good() && answer.complaints.is_empty(), "{answer:?}");
    for serial in THREE {
        assert_eq!(serials(&world.manifest(serial)), [FIRST, THIRD], "{serial}");
    }
    assert_eq!(folder.configuration().groups[0].members, [FIRST, THIRD]);
    let failure = remove_of(&folder, &world, SECOND).unwrap_err();
    assert!(failure.0.contains("found the members 1000000000000, 1000000000002"), "{failure}");
}

#[test]
fn ha_2_6_the_founder_leaves_and_serial_and_slot_of_the_group_stay() {
    let (folder, world) = three();
    let text = folder.text().replace("   VirtualToken00SN = 11000000000000;\n", "");
    std::fs::write(folder.place().file(), text).unwrap();
    let before = folder.configuration().groups[0].clone();
    let answer = remove_of(&folder, &world, FIRST).unwrap();
    assert_eq!(answer.document["home"], SECOND.0, "{answer:?}");
    let after = folder.configuration().groups[0].clone();
    assert_eq!(
        (after.serial, after.index, after.members),
        (before.serial, before.index, vec![SECOND, THIRD])
    );
    assert!(folder.text().contains("VirtualToken00SN = 11000000000000;"), "{}", folder.text());
    let manifest = world.manifest(SECOND);
    assert_eq!((manifest.serial, manifest.home), (11_000_000_000_000, SECOND.0));
}

#[test]
fn a_dead_home_leaves_too() {
    let (folder, world) = three();
    world.stop("hsm0");
    let answer = remove_of(&folder, &world, FIRST).unwrap();
    assert!(answer.good() && answer.complaints.is_empty(), "{answer:?}");
    assert_eq!(serials(&world.manifest(THIRD)), [SECOND, THIRD]);
    assert_eq!(world.manifest(THIRD).home, SECOND.0);
}

#[test]
fn a_removal_cut_off_before_the_configuration_is_finished_by_repeating_it() {
    let (folder, world) = three();
    let before = folder.text();
    remove_of(&folder, &world, SECOND).unwrap();
    std::fs::write(folder.place().file(), before).unwrap();
    let epoch = world.manifest(FIRST).epoch;
    remove_of(&folder, &world, SECOND).unwrap();
    assert_eq!(folder.configuration().groups[0].members, [FIRST, THIRD]);
    assert_eq!(world.manifest(FIRST).epoch, epoch);
}

#[test]
fn the_last_member_and_a_wrong_password_change_nothing() {
    let (folder, world) = three();
    let given = RemoveMember { group: "prodha".to_owned(), serial: SECOND, secret: secret("wrong") };
    let failure = remove(&folder.place(), &world, &folder.configuration(), given).unwrap_err();
    assert!(failure.0.contains("CKR_PIN_INCORRECT"), "{failure}");
    assert_eq!(
        (serials(&world.manifest(FIRST)).len(), folder.configuration().groups[0].members.len()),
        (3, 3)
    );
    remove_of(&folder, &world, SECOND).unwrap();
    remove_of(&folder, &world, THIRD).unwrap();
    let failure = remove_of(&folder, &world, FIRST).unwrap_err();
    assert!(failure.0.contains("vtl haAdmin deleteGroup"), "{failure}");
}

#[test]
fn ha_2_7_another_member_becomes_the_home_while_the_old_one_lives_and_when_it_is_gone() {
    let (folder, world) = three();
    let promote_of = |serial: Serial| {
        let given = Promote { group: "prodha".to_owned(), serial, secret: secret("pin") };
        promote(&world, &folder.configuration(), given)
    };
    let answer = promote_of(SECOND).unwrap();
    assert_eq!(
        (&answer.document["home_before"], answer.complaints.len()),
        (&FIRST.0.into(), 0),
        "{answer:?}"
    );
    assert_eq!(THREE.map(|serial| world.manifest(serial).home), [SECOND.0; 3]);
    world.stop("hsm1");
    let answer = promote_of(THIRD).unwrap();
    assert_eq!((world.manifest(FIRST).home, world.manifest(SECOND).home), (THIRD.0, SECOND.0));
    assert!(answer.complaints.iter().any(|one| one.contains("the old home 1000000000001")), "{answer:?}");
    assert!(promote_of(Serial(5)).unwrap_err().0.contains("name one of them"));
}

#[test]
fn drain_weight_and_standby_change_the_manifest_for_every_host() {
    let (folder, world) = three();
    let drain_of = |end: bool| {
        let given = Drain { group: "prodha".to_owned(), serial: SECOND, end, secret: secret("pin") };
        drain(&world, &folder.configuration(), given).unwrap()
    };
    assert_eq!(drain_of(false).document["role"], "draining");
    assert_eq!(role_of(&world, SECOND), MemberRole::Draining);
    let epoch = world.manifest(FIRST).epoch;
    drain_of(false);
    assert_eq!(world.manifest(FIRST).epoch, epoch, "what holds already is no change");
    drain_of(true);
    assert_eq!(role_of(&world, SECOND), MemberRole::Active);
    let given = Weight { group: "prodha".to_owned(), serial: THIRD, weight: 25, secret: secret("pin") };
    weight(&world, &folder.configuration(), given).unwrap();
    assert_eq!(world.manifest(SECOND).members[2].weight, 25);
    standby_of(&folder, Some(&world), THIRD, true).unwrap();
    assert_eq!((role_of(&world, THIRD), world.manifest(FIRST).members[2].weight), (MemberRole::Standby, 25));
    standby_of(&folder, Some(&world), THIRD, false).unwrap();
    assert_eq!(role_of(&world, THIRD), MemberRole::Active);
}

#[test]
fn standby_for_this_host_stands_in_its_configuration_and_needs_no_password() {
    let (folder, world) = three();
    let epoch = world.manifest(FIRST).epoch;
    standby_of(&folder, None, THIRD, true).unwrap();
    standby_of(&folder, None, SECOND, true).unwrap();
    assert_eq!(folder.configuration().groups[0].standby, [THIRD, SECOND]);
    assert!(standby_of(&folder, None, FIRST, true).unwrap_err().0.contains("leave at least one regular"));
    assert!(standby_of(&folder, None, Serial(3), true).unwrap_err().0.contains("name one of them"));
    remove_of(&folder, &world, SECOND).unwrap();
    assert_eq!(folder.configuration().groups[0].standby, [THIRD]);
    standby_of(&folder, None, THIRD, false).unwrap();
    assert!(!folder.text().contains("StandbyMembers") && folder.configuration().groups[0].standby.is_empty());
    assert_eq!(world.manifest(FIRST).epoch, epoch + 1, "the removal alone");
}

#[test]
fn a_member_that_cannot_be_told_is_named() {
    let (folder, world) = three();
    world.stop("hsm2");
    let given = Weight { group: "prodha".to_owned(), serial: SECOND, weight: 7, secret: secret("pin") };
    let answer = weight(&world, &folder.configuration(), given).unwrap();
    assert!(answer.good() && answer.complaints[0].contains("member 1000000000002 could not be told"));
}
