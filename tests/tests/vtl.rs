//! The verbs of `vtl` over appliances that run, while an application signs with eight threads.
#![allow(clippy::unwrap_used)]

use tests::lab::Lab;

/// One field of the group in `vtl haAdmin show --json`.
fn field(lab: &Lab, name: &str) -> String {
    let shown: serde_json::Value = serde_json::from_str(&lab.show()).unwrap();
    shown["groups"][0][name].to_string()
}

#[test]
fn members_are_drained_weighed_promoted_removed_and_added_while_an_application_signs() {
    let lab = Lab::up(3);
    let serials = lab.serials();
    let group = lab.value("P11_TOKEN_LABEL").to_owned();
    let at = |verb: &'static str, member: usize| {
        vec!["haAdmin", verb, "-group", group.as_str(), "-serialNum", serials[member].as_str()]
    };
    let number = field(&lab, "number");
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    lab.vtl_done(&at("drain", 1));
    scene.signatures_go_on();
    lab.vtl_done(&[&at("drain", 1)[..], &["-end"]].concat());
    lab.vtl_done(&[&at("weight", 2)[..], &["-weight", "50"]].concat());
    scene.signatures_go_on();
    assert_eq!(lab.vtl(&["haAdmin", "compare", "-group", &group]).status.code(), Some(0));
    // The home and founder goes for good: without it another one becomes the home, and the group goes on without it.
    lab.kill_now(1);
    let dead = lab.vtl(&["haAdmin", "compare", "-group", &group]);
    assert_eq!(dead.status.code(), Some(1), "a member that cannot be compared is no success");
    lab.vtl_done(&at("promote", 1));
    lab.vtl_done(&at("removeMember", 0));
    scene.signatures_go_on();
    assert_eq!(lab.serials(), [serials[1].clone(), serials[2].clone()]);
    assert_eq!((field(&lab, "number"), field(&lab, "slot")), (number, "0".to_owned()));
    assert_eq!(field(&lab, "home"), serials[1]);
    // It comes back with changes of nobody, learns that it has been removed, and is added again.
    lab.lab("start", Some(1));
    lab.vtl_done(&at("addMember", 0));
    lab.wait_until_equal(3);
    assert_eq!(field(&lab, "home"), serials[1], "the old home does not take its place back");
    lab.vtl_done(&["haAdmin", "synchronize", "-group", &group, "-dry-run"]);
    scene.signatures_go_on();
    scene.finish_without_error();
}
