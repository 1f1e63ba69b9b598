//! The verbs of `vtl` over appliances that run, while an application signs with eight threads.
#![allow(clippy::unwrap_used)]

use std::process::Output;
use std::time::Duration;

use tests::lab::{Lab, Scene, expect_ok, programs};

/// `vtl` with the laboratory's configuration and the Crypto Officer's password.
fn vtl(lab: &Lab, words: &[&str]) -> Output {
    let mut command = lab.command(programs().join("vtl"));
    command.env("VTL_PASSWORD", lab.value("P11_PIN")).args(words).output().unwrap()
}

fn done(lab: &Lab, words: &[&str]) -> String {
    expect_ok(&vtl(lab, words), &format!("vtl {}", words.join(" ")))
}

/// One field of the group in `vtl haAdmin show --json`.
fn field(lab: &Lab, name: &str) -> String {
    let shown: serde_json::Value = serde_json::from_str(&lab.show()).unwrap();
    shown["groups"][0][name].to_string()
}

/// The serial numbers of the members, in the order of the configuration.
fn members(lab: &Lab) -> Vec<String> {
    let file = std::path::Path::new(lab.value("ChrystokiConfigurationPath")).join("Chrystoki.conf");
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.contains("VirtualToken00Members")).unwrap();
    line.split(['=', ';']).nth(1).unwrap().split(',').map(|serial| serial.trim().to_owned()).collect()
}

fn signatures_go_on(scene: &mut Scene) {
    let before = scene.count();
    for _ in 0..150 {
        std::thread::sleep(Duration::from_millis(100));
        if scene.count() > before + 1 {
            return;
        }
    }
    panic!("a thread signs nothing");
}

#[test]
fn members_are_drained_weighed_promoted_removed_and_added_while_an_application_signs() {
    let lab = Lab::up(3);
    let serials = members(&lab);
    let group = lab.value("P11_TOKEN_LABEL").to_owned();
    let at = |verb: &'static str, member: usize| {
        vec!["haAdmin", verb, "-group", group.as_str(), "-serialNum", serials[member].as_str()]
    };
    let number = field(&lab, "number");
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    done(&lab, &at("drain", 1));
    signatures_go_on(&mut scene);
    done(&lab, &[&at("drain", 1)[..], &["-end"]].concat());
    done(&lab, &[&at("weight", 2)[..], &["-weight", "50"]].concat());
    signatures_go_on(&mut scene);
    assert_eq!(vtl(&lab, &["haAdmin", "compare", "-group", &group]).status.code(), Some(0));
    // The home and founder goes for good: without it another one becomes the home, and the group goes on without it.
    lab.kill_now(1);
    let dead = vtl(&lab, &["haAdmin", "compare", "-group", &group]);
    assert_eq!(dead.status.code(), Some(1), "a member that cannot be compared is no success");
    done(&lab, &at("promote", 1));
    done(&lab, &at("removeMember", 0));
    signatures_go_on(&mut scene);
    assert_eq!(members(&lab), [serials[1].clone(), serials[2].clone()]);
    assert_eq!((field(&lab, "number"), field(&lab, "slot")), (number, "0".to_owned()));
    assert_eq!(field(&lab, "home"), serials[1]);
    // It comes back with changes of nobody, learns that it has been removed, and is added again.
    lab.lab("start", Some(1));
    done(&lab, &at("addMember", 0));
    lab.wait_until_equal(3);
    assert_eq!(field(&lab, "home"), serials[1], "the old home does not take its place back");
    done(&lab, &["haAdmin", "synchronize", "-group", &group, "-dry-run"]);
    signatures_go_on(&mut scene);
    scene.go();
    let result = scene.expect("RESULT");
    assert_eq!(result.split_whitespace().nth(1), Some("0"), "errors reached the application: {result}");
    scene.finish();
}

#[test]
fn stats_shows_the_page_of_a_signing_application_until_it_ends() {
    let lab = Lab::up(2);
    let mut scene = lab.scene("sign-loop", &["2"]);
    scene.expect("READY");
    signatures_go_on(&mut scene);
    let process = scene.pid().to_string();
    let shown: serde_json::Value =
        serde_json::from_str(&done(&lab, &["stats", "--json", "-pid", &process])).unwrap();
    let page = &shown["processes"][0];
    assert_eq!(
        (page["pid"].to_string(), page["all_lost"].as_bool()),
        (process.clone(), Some(false)),
        "{shown}"
    );
    assert_eq!(page["group_serial"].to_string(), field(&lab, "number"));
    let text = done(&lab, &["stats", "-prometheus", "-pid", &process]);
    assert!(text.contains("hatoki_group_all_lost{"), "{text}");
    scene.go();
    scene.expect("RESULT");
    scene.finish();
    let gone = vtl(&lab, &["stats", "-once", "-pid", &process]);
    assert_eq!(gone.status.code(), Some(1), "{}", String::from_utf8_lossy(&gone.stdout));
}
