//! A running application notices by itself what operators change: members of its group, and the certificates of both sides.
//! The two seconds of docs/vtl.md are printed, not asserted.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Instant;

use tests::lab::{Lab, Scene};

/// Waits until the application sees the members so: those it uses, and those it does not.
fn sees(scene: &mut Scene, since: Instant, what: &str, wanted: impl Fn(&[String], &[String]) -> bool) {
    let mut last = Default::default();
    for _ in 0..1_200 {
        last = scene.members();
        if wanted(&last.0, &last.1) {
            println!("{what}: seen by the application after {} ms", since.elapsed().as_millis());
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{what} is never seen by the application: {last:?}");
}

/// The metrics page of the application tells these members and that state of them.
fn page_tells(lab: &Lab, scene: &Scene, serial: &str, state: &str) -> bool {
    let shown = lab.vtl_done(&["stats", "--json", "-pid", &scene.pid().to_string()]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let members = shown["processes"][0]["members"].as_array().unwrap();
    let serial: u64 = serial.parse().unwrap();
    members.iter().any(|member| member["serial"] == serial && member["state"] == state)
}

#[test]
fn members_that_leave_and_join_are_seen_by_a_running_application() {
    let lab = Lab::up(3);
    let serials = lab.serials();
    let group = lab.value("P11_TOKEN_LABEL").to_owned();
    let change = |verb: &'static str, member: usize| -> Instant {
        let words = ["haAdmin", verb, "-group", group.as_str(), "-serialNum", serials[member].as_str()];
        lab.vtl_done(&words);
        Instant::now()
    };
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    sees(&mut scene, Instant::now(), "all three", |used, _| used.len() == 3);
    // Any but the home, then the home and founder itself.
    for member in [2, 0] {
        let is_there = |list: &[String]| list.contains(&serials[member]);
        let since = change("removeMember", member);
        sees(&mut scene, since, "a member that has left", |used, others| {
            !is_there(used) && !is_there(others)
        });
        assert!(page_tells(&lab, &scene, &serials[member], "left"), "the metrics page tells it too");
        scene.signatures_go_on();
        let since = change("addMember", member);
        sees(&mut scene, since, "a member that has joined", |used, _| is_there(used));
        assert!(page_tells(&lab, &scene, &serials[member], "up"));
        scene.signatures_go_on();
    }
    scene.finish_without_error();
}

/// Restarts every appliance in turn, so that all connections are made anew, and waits until the application uses it again.
fn reconnect_to_all(lab: &Lab, scene: &mut Scene) {
    let serials = lab.serials();
    for (member, serial) in (1..).zip(&serials) {
        lab.kill_now(member);
        sees(scene, Instant::now(), "a lost member", |used, _| !used.contains(serial));
        lab.lab("start", Some(member));
        sees(scene, Instant::now(), "its return", |used, _| used.len() == serials.len());
        scene.signatures_go_on();
    }
}

#[test]
fn a_client_certificate_is_changed_under_signing_threads_without_an_error() {
    let lab = Lab::up(2);
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    scene.signatures_go_on();
    let folder = PathBuf::from(lab.value("ChrystokiConfigurationPath")).join("cert/client");
    let fingerprint = |name: &str| -> String {
        let file = folder.join(name).display().to_string();
        let shown = lab.vtl_done(&["fingerprint", "-f", &file, "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown["certificates"][0]["fingerprint_sha256"]
            .as_str()
            .unwrap_or_else(|| panic!("{shown}"))
            .to_owned()
    };
    let old = fingerprint("lab-client.pem");
    lab.vtl_done(&["createCert", "-n", "app-next"]);
    assert_ne!(fingerprint("app-next.pem"), old);
    let refused = lab.vtl(&["useCert", "-n", "app-next"]);
    assert_eq!(refused.status.code(), Some(1), "no appliance knows the new one yet");
    let new = folder.join("app-next.pem").display().to_string();
    for member in 1..=2 {
        lab.hsm_done(member, &["client", "addCertificate", "-client", "lab-client", "-cert", &new]);
    }
    lab.vtl_done(&["useCert", "-n", "app-next"]);
    scene.signatures_go_on();
    for member in 1..=2 {
        lab.hsm_done(member, &["client", "removeCertificate", "-client", "lab-client", "-fingerprint", &old]);
        scene.signatures_go_on();
    }
    sees(&mut scene, Instant::now(), "both members by the new certificate", |used, _| used.len() == 2);
    reconnect_to_all(&lab, &mut scene);
    scene.finish_without_error();
}

#[test]
fn server_certificates_are_changed_under_signing_threads_without_an_error() {
    let lab = Lab::up(2);
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    scene.signatures_go_on();
    let listed = lab.vtl_done(&["listServers"]);
    let servers: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("Server: "))
        .map(|server| server.split_once(':').unwrap_or((server, "1792")))
        .collect();
    assert_eq!(servers.len(), 2, "{listed}");
    for (member, (host, port)) in (1..).zip(&servers) {
        lab.hsm_done(member, &["sysconf", "regenCert"]);
        let next = lab.path().join(format!("hsm{member}/data/server.next.pem"));
        // A copy, as one that was brought to this host: the appliance moves its own when it puts it into service.
        let brought = lab.path().join(format!("next-{member}.pem"));
        std::fs::copy(&next, &brought).unwrap();
        let file = brought.display().to_string();
        lab.vtl_done(&["addServer", "-n", host, "-p", port, "-c", &file]);
        scene.signatures_go_on();
        lab.hsm_done(member, &["sysconf", "activateCert"]);
        scene.signatures_go_on();
        lab.vtl_done(&["replaceServer", "-n", host, "-p", port, "-c", &file]);
        scene.signatures_go_on();
    }
    reconnect_to_all(&lab, &mut scene);
    scene.finish_without_error();
}
