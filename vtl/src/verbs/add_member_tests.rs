//! Tests of `addMember` against stand-in appliances.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::*;
use crate::arguments::{NewGroup, RemoveMember};
use crate::testing::{FIRST, Folder, World, secret};
use crate::verbs::{membership, new_group};

const SECOND: Serial = Serial(FIRST.0 + 1);
const THIRD: Serial = Serial(FIRST.0 + 2);

fn group_of_one(servers: usize) -> (Folder, World) {
    let (folder, world) = (Folder::new(servers), World::new(servers as u64, "pin"));
    let new = NewGroup { serial: FIRST, label: "prodha".to_owned(), secret: secret("pin") };
    new_group::run(&folder.place(), &world, &folder.configuration(), new).unwrap();
    (folder, world)
}

fn add(folder: &Folder, world: &World, group: &str, serial: Serial, pin: &str) -> Result<Answer, Failure> {
    let add = AddMember { group: group.to_owned(), serial, secret: secret(pin) };
    run(&folder.place(), world, &folder.configuration(), add)
}

#[test]
fn three_members_share_group_manifest_and_configuration() {
    let (folder, world) = group_of_one(3);
    assert_eq!(add(&folder, &world, "prodha", SECOND, "pin").unwrap().complaints, Vec::<String>::new());
    let answer = add(&folder, &world, "11000000000000", THIRD, "pin").unwrap();
    assert!(answer.good() && answer.complaints.is_empty(), "{answer:?}");
    for serial in [FIRST, SECOND, THIRD] {
        let manifest = world.manifest(serial);
        assert_eq!((manifest.epoch, manifest.home, manifest.group[0]), (4, FIRST.0, 1), "{serial}");
        assert_eq!(serials(&manifest), [FIRST, SECOND, THIRD]);
    }
    assert_eq!(folder.configuration().groups[0].members, [FIRST, SECOND, THIRD]);
    assert!(folder.text().starts_with("# kept\n") && !folder.text().contains('\t'));
}

#[test]
fn what_the_home_holds_is_copied_to_the_new_member() {
    let (folder, world) = group_of_one(2);
    for name in 1..=250 {
        world.put(FIRST, name);
    }
    let answer = add(&folder, &world, "prodha", SECOND, "pin").unwrap();
    assert_eq!(answer.document["objects"], world.objects(FIRST));
    assert_eq!(world.objects(SECOND), world.objects(FIRST));
}

#[test]
fn a_member_whose_contents_cannot_be_completed_now_is_a_member_with_a_complaint() {
    let (folder, world) = group_of_one(2);
    world.put(FIRST, 9);
    world.fail_repair();
    let answer = add(&folder, &world, "prodha", SECOND, "pin").unwrap();
    assert!(answer.complaints[0].contains("found no repair today"), "{answer:?}");
    assert_eq!(folder.configuration().groups[0].members, [FIRST, SECOND]);
}

#[test]
fn adding_a_member_again_changes_nothing() {
    let (folder, world) = group_of_one(2);
    add(&folder, &world, "prodha", SECOND, "pin").unwrap();
    let (text, epoch) = (folder.text(), world.manifest(FIRST).epoch);
    let answer = add(&folder, &world, "prodha", SECOND, "pin").unwrap();
    assert_eq!(answer.document["was_member"], true);
    assert_eq!((folder.text(), world.manifest(FIRST).epoch), (text, epoch));
}

#[test]
fn a_partition_that_cannot_open_the_groups_seal_is_taken_out_of_the_manifest_again() {
    let (folder, world) = group_of_one(2);
    world.refuse_adoption(SECOND, true);
    let before = folder.text();
    let failure = add(&folder, &world, "prodha", SECOND, "pin").unwrap_err();
    assert!(failure.0.contains("hsm domain export-request, export, import"), "{failure}");
    assert_eq!(serials(&world.manifest(FIRST)), [FIRST]);
    assert_eq!(folder.text(), before);
    world.refuse_adoption(SECOND, false);
    add(&folder, &world, "prodha", SECOND, "pin").unwrap();
    assert_eq!(serials(&world.manifest(SECOND)), [FIRST, SECOND]);
}

#[test]
fn a_wrong_password_is_tried_at_the_home_alone() {
    let (folder, world) = group_of_one(2);
    let failure = add(&folder, &world, "prodha", SECOND, "wrong").unwrap_err();
    assert!(failure.0.contains("CKR_PIN_INCORRECT"), "{failure}");
    assert_eq!((world.tries(FIRST), world.tries(SECOND)), (1, 0));
}

#[test]
fn a_joining_partition_with_another_password_is_named_and_the_manifest_stays() {
    let (folder, world) = group_of_one(2);
    world.set_pin(SECOND, "other");
    let failure = add(&folder, &world, "prodha", SECOND, "pin").unwrap_err();
    assert!(failure.0.contains(&format!("wanted partition {SECOND} to agree")), "{failure}");
    assert_eq!(serials(&world.manifest(FIRST)), [FIRST]);
}

#[test]
fn partitions_that_hold_objects_or_belong_to_another_group_are_refused_before_any_login() {
    let (folder, world) = group_of_one(3);
    world.put(SECOND, 7);
    world.set_group(THIRD, "other", &[THIRD]);
    let failure = add(&folder, &world, "prodha", SECOND, "wrong").unwrap_err();
    assert!(failure.0.contains("found 1 objects in it; name an empty partition"), "{failure}");
    let failure = add(&folder, &world, "prodha", THIRD, "wrong").unwrap_err();
    assert!(failure.0.contains("found it in the group other"), "{failure}");
    assert_eq!(world.tries(FIRST), 0);
}

#[test]
fn an_unreachable_home_is_named() {
    let (folder, world) = group_of_one(3);
    add(&folder, &world, "prodha", SECOND, "pin").unwrap();
    world.stop("hsm0");
    let failure = add(&folder, &world, "prodha", THIRD, "pin").unwrap_err();
    assert!(
        failure.0.contains(&format!("wanted the partition {FIRST}")) && failure.0.contains("hsm0"),
        "{failure}"
    );
}

#[test]
fn a_member_that_cannot_be_told_now_is_a_complaint_and_no_failure() {
    let (folder, world) = group_of_one(3);
    add(&folder, &world, "prodha", SECOND, "pin").unwrap();
    world.stop("hsm1");
    let answer = add(&folder, &world, "prodha", THIRD, "pin").unwrap();
    assert!(
        answer.good() && answer.complaints[0].contains(&format!("member {SECOND} does not know")),
        "{answer:?}"
    );
    world.start("hsm1");
    add(&folder, &world, "prodha", THIRD, "pin").unwrap();
    assert_eq!(world.manifest(SECOND), world.manifest(FIRST));
}

#[test]
fn an_unknown_group_is_answered_with_those_that_there_are() {
    let (folder, world) = group_of_one(2);
    let failure = add(&folder, &world, "prod", SECOND, "pin").unwrap_err();
    assert!(failure.0.contains("found the groups prodha"), "{failure}");
}

#[test]
fn a_partition_that_left_the_group_comes_back_with_what_it_missed() {
    let (folder, world) = group_of_one(2);
    add(&folder, &world, "prodha", SECOND, "pin").unwrap();
    let gone = RemoveMember { group: "prodha".to_owned(), serial: SECOND, secret: secret("pin") };
    membership::remove(&folder.place(), &world, &folder.configuration(), gone).unwrap();
    world.put(FIRST, 5);
    let answer = add(&folder, &world, "prodha", SECOND, "pin").unwrap();
    assert!(answer.good() && answer.complaints.is_empty(), "{answer:?}");
    assert_eq!(serials(&world.manifest(SECOND)), [FIRST, SECOND]);
    assert_eq!((world.objects(SECOND), world.manifest(FIRST)), (1, world.manifest(SECOND)));
}
