//! Tests of `haAdmin show` against stand-in appliances.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::*;
use crate::testing::{FIRST, World, configuration};

const GROUP: &str = "VirtualToken = { VirtualToken00Label = prodha; VirtualToken00SN = 11000000000000;\n\
                     VirtualToken00Members = 1000000000000, 1000000000001; }\n";

fn world() -> World {
    let world = World::new(2, "pin");
    let second = Serial(FIRST.0 + 1);
    world.set_group(FIRST, "prodha", &[FIRST, second]);
    world.set_group(second, "prodha", &[FIRST, second]);
    world
}

#[test]
fn a_member_that_lacks_what_others_offer_is_shown() {
    let world = world();
    world.offer(FIRST, &[0x40, 0x1041]);
    world.offer(Serial(FIRST.0 + 1), &[0x40]);
    let answer = run(&world, &configuration(2, GROUP)).unwrap();
    let members = &answer.document["groups"][0]["members"];
    assert_eq!(members[0]["lacks"], serde_json::json!([]));
    assert_eq!(members[1]["lacks"], serde_json::json!(["CKM_ECDSA"]));
    assert!(
        answer.text.contains("Member 1000000000001 does not offer CKM_ECDSA: the others do it."),
        "{}",
        answer.text
    );
}

#[test]
fn members_with_the_same_digest_have_equal_contents() {
    let answer = run(&world(), &configuration(2, GROUP)).unwrap();
    assert!(answer.good() && answer.complaints.is_empty(), "{answer:?}");
    let group = &answer.document["groups"][0];
    assert_eq!(
        (&group["equal_contents"], &group["needs_sync"], &group["slot"]),
        (&true.into(), &false.into(), &0.into())
    );
    assert_eq!(group["members"][0]["status"], "alive");
    assert_eq!(group["members"][0]["home"], true);
    for field in [
        "HA Auto Recovery:",
        "HA Recovery Mode:",
        "Maximum Auto Recovery Retry:",
        "Auto Recovery Poll Interval:",
        "HA Logging:",
        "Only Show HA Slots:",
        "HA Proxy:",
        "HA Log File:",
        "Maximum HA Log File Length:",
        "HA Group Label:",
        "HA Group Number:",
        "HA Group Slot #:",
        "Synchronization:",
        "Group Members:",
        "Needs sync:",
        "Standby Members:",
        "Slot #",
        "Member S/N",
        "Member Label",
        "Status",
    ] {
        assert!(answer.text.contains(field), "{field} in {}", answer.text);
    }
}

#[test]
fn a_member_that_lacks_an_object_needs_synchronisation() {
    let world = world();
    world.put(FIRST, 3);
    let answer = run(&world, &configuration(2, GROUP)).unwrap();
    let group = &answer.document["groups"][0];
    assert_eq!((&group["equal_contents"], &group["needs_sync"]), (&false.into(), &true.into()));
    assert_eq!((&group["members"][0]["equal"], &group["members"][1]["equal"]), (&true.into(), &false.into()));
}

#[test]
fn a_dead_member_is_down_with_the_reason_and_none_alive_is_a_failure() {
    let world = world();
    world.stop("hsm1");
    let answer = run(&world, &configuration(2, GROUP)).unwrap();
    let group = &answer.document["groups"][0];
    assert!(answer.good() && group["members"][1]["status"] == "down" && group["needs_sync"].is_null());
    assert_eq!(answer.complaints, ["server hsm1 cannot be reached: connection refused"]);
    world.stop("hsm0");
    assert!(!run(&world, &configuration(2, GROUP)).unwrap().good());
}

#[test]
fn a_group_without_a_manifest_names_the_command_that_makes_it() {
    let answer = run(&World::new(2, "pin"), &configuration(2, GROUP)).unwrap();
    let wanted = "run vtl haAdmin newGroup -label prodha -serialNum 1000000000000";
    assert!(answer.complaints.iter().any(|complaint| complaint.contains(wanted)), "{answer:?}");
}

#[test]
fn a_member_that_this_host_does_not_know_is_shown_and_complained_about() {
    let world = world();
    let group = GROUP.replace(", 1000000000001", "");
    let answer = run(&world, &configuration(2, &group)).unwrap();
    assert_eq!(answer.document["groups"][0]["members"][1]["serial"], FIRST.0 + 1);
    assert!(answer.complaints[0].contains("run vtl haAdmin addMember on this host"), "{answer:?}");
}

#[test]
fn member_slots_have_numbers_when_applications_see_them() {
    let hidden = run(&world(), &configuration(2, GROUP)).unwrap();
    assert!(hidden.document["groups"][0]["members"][0]["slot"].is_null() && hidden.text.contains("------"));
    let text = format!("{GROUP}HAConfiguration = {{ HAOnly = 0; }}\n");
    let shown = run(&world(), &configuration(2, &text)).unwrap();
    assert_eq!(shown.document["groups"][0]["members"][1]["slot"], 2);
}

#[test]
fn standbys_of_the_manifest_and_of_this_host_are_shown_with_the_weights() {
    let text = format!("{GROUP}HAConfiguration = {{ prodhaStandbyMembers = 1000000000001; }}\n");
    let answer = run(&world(), &configuration(2, &text)).unwrap();
    let group = &answer.document["groups"][0];
    assert_eq!(group["standby_members"][0], FIRST.0 + 1);
    assert_eq!(
        (&group["members"][1]["standby_here"], &group["members"][0]["weight"]),
        (&true.into(), &100.into())
    );
    assert!(answer.text.contains("active, standby here") && answer.text.contains("active, home"));
}
