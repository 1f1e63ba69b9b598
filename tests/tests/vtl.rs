//! The verbs of `vtl` over appliances that run, while an application signs with eight threads.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// A laboratory whose applications give up a second after the last member.
fn impatient(members: usize) -> Lab {
    let lab = Lab::up(members);
    let file = configuration(&lab);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\nHatoki = {{\n   OutageWaitMs = 1000;\n}}\n")).unwrap();
    lab
}

fn configuration(lab: &Lab) -> PathBuf {
    Path::new(lab.value("ChrystokiConfigurationPath")).join("Chrystoki.conf")
}

#[test]
fn active_basic_ends_a_slot_without_members_until_it_is_recovered_or_begun_anew() {
    const DEVICE_ERROR: &str = "0x30";
    let lab = impatient(2);
    lab.vtl_done(&["haAdmin", "autoRecovery", "-mode", "activeBasic"]);
    let group = lab.value("P11_TOKEN_LABEL").to_owned();
    let logged_in = format!("login {}", lab.value("P11_PIN"));
    let mut scene = lab.scene("steps", &[]);
    scene.expect("READY");
    scene.done(&logged_in, 0);
    scene.done("secret kept", 1);
    scene.done("select kept", 1);
    scene.done("mac", 1);
    let lose_all = || {
        (1..=2).for_each(|member| lab.kill_now(member));
    };
    let return_all = || {
        (1..=2).for_each(|member| drop(lab.lab("start", Some(member))));
        // Another application finds them well.
        let mut other = lab.scene("steps", &[]);
        other.expect("READY");
        other.done(&logged_in, 0);
        other.done("select kept", 1);
        other.done("mac", 1);
        other.write(b"end\n");
        other.finish();
    };
    let ended = |said: String| assert!(said.starts_with("FAILED") && said.ends_with(DEVICE_ERROR), "{said}");
    lose_all();
    ended(scene.step("mac"));
    return_all();
    ended(scene.step("mac"));
    ended(scene.step("select kept"));
    // The operator revives it: sessions, login and handles are as they were.
    lab.vtl_done(&["haAdmin", "recover", "-group", &group]);
    let begun = Instant::now();
    while scene.step("mac") != "DONE 1" {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the operator's word does not reach the application"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    lose_all();
    ended(scene.step("mac"));
    return_all();
    ended(scene.step("mac"));
    // Or the application begins anew.
    scene.done("anew", 0);
    scene.done(&logged_in, 0);
    scene.done("select kept", 1);
    scene.done("mac", 1);
    scene.write(b"end\n");
    scene.finish();
}

#[test]
fn what_is_amiss_in_the_configuration_is_told_beside_the_answer() {
    let lab = Lab::up(1);
    assert_eq!(complaints(&lab, &["haAdmin", "show"]), (0, String::new()));
    let file = configuration(&lab);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\nLunaSA Client = {{\n   ReceiveTimeout = twenty;\n}}\n")).unwrap();
    for words in [&["haAdmin", "show"][..], &["listServers"], &["--json", "listSlots"]] {
        let (exit, told) = complaints(&lab, words);
        assert_eq!(exit, 0, "the default is used: {told}");
        let place = format!("vtl: {}:", file.display());
        assert!(
            told.starts_with(&place) && told.contains("ReceiveTimeout") && told.contains("twenty"),
            "{told}"
        );
    }
    let trusted = file.with_file_name("cert/server/CAFile.pem");
    std::fs::rename(&trusted, trusted.with_extension("away")).unwrap();
    for (words, wanted) in [(&["listServers"][..], 0), (&["haAdmin", "show"], 1)] {
        let (exit, told) = complaints(&lab, words);
        assert_eq!(exit, wanted, "{told}");
        let names_it = |line: &str| line.contains("ServerCAFile") && line.contains("vtl addServer");
        assert!(told.lines().any(names_it) && told.contains(&trusted.display().to_string()), "{told}");
    }
}

/// The exit code of a verb, and what it says to standard error.
fn complaints(lab: &Lab, words: &[&str]) -> (i32, String) {
    let output = lab.vtl(words);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}
