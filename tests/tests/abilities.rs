//! Members of unequal ability, as real appliances: one of two whose `hsmd.toml` switches a mechanism off.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::time::{Duration, Instant};

use tests::lab::{Lab, Scene};

/// Starts an appliance again with `CKM_ECDSA` switched off.
fn restart_without_ecdsa(lab: &Lab, member: usize) {
    lab.kill_now(member);
    let settings = lab.path().join(format!("hsm{member}/hsmd.toml"));
    let mut settings = std::fs::File::options().append(true).open(settings).unwrap();
    settings.write_all(b"\n[limits]\nmechanisms_off = [\"CKM_ECDSA\"]\n").unwrap();
    lab.lab("start", Some(member));
}

/// How many uses of keys an appliance has been asked for since its start.
fn uses(lab: &Lab, member: usize) -> u64 {
    lab.requests(member).get("Use").copied().unwrap_or(0)
}

/// Waits until the application uses both members.
fn uses_both(scene: &mut Scene) {
    let begun = Instant::now();
    while scene.members().0.len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the restarted member is not used");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `vtl haAdmin show --json` says that each member lacks.
fn lacks(lab: &Lab) -> Vec<serde_json::Value> {
    let shown: serde_json::Value = serde_json::from_str(&lab.show()).unwrap();
    let members = shown["groups"][0]["members"].as_array().unwrap();
    members.iter().map(|member| member["lacks"].clone()).collect()
}

#[test]
fn an_appliance_without_a_mechanism_is_routed_around_for_it_and_shown() {
    let lab = Lab::up(2);
    assert_eq!(lacks(&lab), [serde_json::json!([]), serde_json::json!([])]);
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    scene.signatures_go_on();
    restart_without_ecdsa(&lab, 2);
    uses_both(&mut scene);
    scene.signatures_go_on();
    // An application that knew the mechanism there, and those that begin now.
    for _ in 0..8 {
        let mut other = lab.scene("first-signature", &[]);
        other.expect("SIGNED");
        other.finish();
    }
    let before = uses(&lab, 2);
    let signed = scene.count();
    scene.signatures_go_on();
    println!("{} signatures and more of each thread meanwhile", scene.count() - signed);
    assert_eq!(uses(&lab, 2), before, "it is asked for no signature that it does not make");
    scene.finish_without_error();
    // What it offers it is asked for.
    let mut steps = lab.scene("steps", &[]);
    steps.expect("READY");
    steps.done(&format!("login {}", lab.value("P11_PIN")), 0);
    steps.done("secret mac", 1);
    steps.done("select mac", 1);
    let begun = Instant::now();
    while uses(&lab, 2) == before {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "a member that lacks one mechanism does the others"
        );
        steps.done("macs 20", 20);
    }
    steps.write(b"end\n");
    steps.finish();
    assert_eq!(lacks(&lab), [serde_json::json!([]), serde_json::json!(["CKM_ECDSA"])]);
    let serial = &lab.serials()[1];
    let told = format!("Member {serial} does not offer CKM_ECDSA: the others do it.");
    let shown = lab.vtl_done(&["haAdmin", "show"]);
    assert!(shown.contains(&told), "{shown}");
    // And it does lack it: alone it makes no such signature.
    lab.kill_now(1);
    let file = lab.path().join("digest");
    std::fs::write(&file, [9; 32]).unwrap();
    let file = file.display().to_string();
    let alone =
        lab.pkcs11_tool(&["--sign", "--mechanism", "ECDSA", "--label", "first", "--input-file", &file]);
    assert!(!alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
}
