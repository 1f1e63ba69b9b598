//! Applications at work while one of three members is killed and comes back.
#![allow(clippy::unwrap_used)]

use tests::lab::{Lab, expect_ok};

#[test]
fn eight_signing_threads_see_no_error_while_one_member_and_then_all_are_killed_and_return() {
    let lab = Lab::up(3);
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    for member in 1..=3 {
        scene.signatures_go_on();
        lab.kill_now(member);
        scene.signatures_go_on();
        lab.lab("start", Some(member));
        lab.wait_until_equal(3);
    }
    // All of them, and back in another order; the first that is back serves alone.
    let token = scene.token();
    [2, 3, 1].into_iter().for_each(|member| lab.kill_now(member));
    lab.lab("start", Some(3));
    scene.signatures_go_on();
    assert_eq!(scene.token(), token, "slot and serial number stay");
    for member in [1, 2] {
        lab.lab("start", Some(member));
        scene.signatures_go_on();
    }
    lab.wait_until_equal(3);
    scene.finish_without_error();
}

#[test]
fn eight_signing_threads_go_on_without_error_while_a_member_is_frozen() {
    let lab = Lab::up(3);
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    scene.signatures_go_on();
    lab.lab("stop", Some(2));
    // Still frozen: only a probe can have told the client to go elsewhere, long before `ReceiveTimeout` of 20 s.
    scene.signatures_go_on();
    lab.lab("cont", Some(2));
    lab.wait_until_equal(3);
    scene.signatures_go_on();
    scene.finish_without_error();
}

#[test]
fn keys_made_while_a_member_was_down_are_there_when_it_serves_alone() {
    let lab = Lab::up(3);
    lab.lab("kill", Some(3));
    expect_ok(
        &lab.pkcs11_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", "31", "--label", "late"]),
        "keypairgen",
    );
    lab.lab("start", Some(3));
    // Whoever logs in next repairs the member that was away.
    let mut scene = lab.scene("sign-loop", &["1"]);
    scene.expect("READY");
    lab.wait_until_equal(3);
    scene.go();
    scene.expect("RESULT");
    scene.finish();
    lab.lab("kill", Some(1));
    lab.lab("kill", Some(2));
    let listed = expect_ok(&lab.pkcs11_tool(&["--list-objects", "--type", "privkey"]), "list");
    assert!(listed.contains("late"), "{listed}");
}

#[test]
fn a_key_destroyed_while_a_member_was_down_does_not_come_back() {
    let lab = Lab::up(3);
    expect_ok(
        &lab.pkcs11_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", "32", "--label", "gone"]),
        "keypairgen",
    );
    lab.lab("kill", Some(1));
    expect_ok(&lab.pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", "32"]), "delete");
    expect_ok(&lab.pkcs11_tool(&["--delete-object", "--type", "pubkey", "--id", "32"]), "delete");
    lab.lab("start", Some(1));
    let mut scene = lab.scene("sign-loop", &["1"]);
    scene.expect("READY");
    lab.wait_until_equal(3);
    scene.go();
    scene.expect("RESULT");
    scene.finish();
    lab.lab("kill", Some(2));
    lab.lab("kill", Some(3));
    let listed = expect_ok(&lab.pkcs11_tool(&["--list-objects"]), "list");
    assert!(!listed.contains("gone"), "{listed}");
}

#[test]
fn a_wrong_pin_spends_one_try_over_all_members() {
    let lab = Lab::up(3);
    let mut scene = lab.scene("wrong-pin", &[]);
    scene.expect("REFUSED");
    scene.finish();
    let shown: serde_json::Value = serde_json::from_str(&lab.show()).unwrap();
    let members = shown.pointer("/groups/0/members").and_then(|members| members.as_array()).unwrap();
    let tries: u64 = members
        .iter()
        .map(|member| member["failed_tries_user"].as_u64().expect("show tells the tries"))
        .sum();
    assert_eq!(tries, 1, "{shown}");
}
