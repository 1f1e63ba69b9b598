//! A running application notices by itself what operators change: members of its group, and the certificates of both sides.
//! The two seconds of docs/vtl.md are printed, not asserted.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Instant;

use tests::authority::Authority;
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
    let token = scene.token();
    // Any but the home, then the home and founder itself.
    for member in [2, 0] {
        let is_there = |list: &[String]| list.contains(&serials[member]);
        let since = change("removeMember", member);
        sees(&mut scene, since, "a member that has left", |used, others| {
            !is_there(used) && !is_there(others)
        });
        assert!(page_tells(&lab, &scene, &serials[member], "left"), "the metrics page tells it too");
        scene.signatures_go_on();
        assert_eq!(scene.token(), token, "slot and serial number stay, also without the founder");
        let since = change("addMember", member);
        sees(&mut scene, since, "a member that has joined", |used, _| is_there(used));
        assert!(page_tells(&lab, &scene, &serials[member], "up"));
        scene.signatures_go_on();
    }
    scene.finish_without_error();
}

/// How often an appliance has been asked to sign, and to store.
fn uses_and_stores(lab: &Lab, member: usize) -> (u64, u64) {
    let requests = lab.requests(member);
    let count = |name: &str| requests.get(name).copied().unwrap_or(0);
    (count("Use"), count("Store"))
}

/// Waits until an appliance is asked for no signature any more while every thread of the application goes on to sign, and
/// sees that it takes what another application creates meanwhile.
fn only_stores(lab: &Lab, scene: &mut Scene, creator: &mut Scene, member: usize, since: Instant, what: &str) {
    let (begun, mut seen, mut seen_ms, mut quiet) = (Instant::now(), (0, 0), 0, 0);
    while quiet < 5 {
        let (uses, stores) = uses_and_stores(lab, member);
        quiet += 1;
        if uses != seen.0 {
            (seen, seen_ms, quiet) = ((uses, stores), since.elapsed().as_millis(), 0);
        }
        scene.signatures_go_on();
        creator.done(&format!("pair {what}"), 2);
        assert!(begun.elapsed().as_secs() < 60, "{what}: appliance {member} is still asked for signatures");
    }
    while uses_and_stores(lab, member).1 < seen.1 + 5 {
        assert!(begun.elapsed().as_secs() < 60, "{what}: appliance {member} is not asked to store");
    }
    println!("{what}: the last signature of appliance {member} was seen after {seen_ms} ms");
}

/// Waits until an appliance is asked for signatures.
fn gets_work(lab: &Lab, member: usize, since: Instant, what: &str) {
    let (begun, before) = (Instant::now(), uses_and_stores(lab, member).0);
    while uses_and_stores(lab, member).0 == before {
        assert!(begun.elapsed().as_secs() < 60, "{what}: appliance {member} is asked for no signature");
    }
    println!("{what}: appliance {member} signs after {} ms", since.elapsed().as_millis());
}

#[test]
fn a_drained_member_takes_writes_and_no_work_and_a_standby_works_while_no_active_member_lives() {
    let lab = Lab::up(3);
    let (serial, group) = (lab.serials()[2].clone(), lab.value("P11_TOKEN_LABEL").to_owned());
    let change = |words: &[&str]| -> Instant {
        lab.vtl_done(&[&["haAdmin"], words, &["-group", &group, "-serialNum", &serial]].concat());
        Instant::now()
    };
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    gets_work(&lab, 3, Instant::now(), "an active member");
    let mut creator = lab.scene("steps", &[]);
    creator.expect("READY");
    creator.done(&format!("login {}", lab.value("P11_PIN")), 0);
    for (role, other) in [(&["drain"][..], &["drain", "-end"][..]), (&["addStandby", "-everywhere"], &[])] {
        let since = change(role);
        only_stores(&lab, &mut scene, &mut creator, 3, since, role[0]);
        if !other.is_empty() {
            gets_work(&lab, 3, change(other), "drain -end");
        }
    }
    for member in [1, 2] {
        lab.kill_now(member);
    }
    gets_work(&lab, 3, Instant::now(), "a standby, all active members dead");
    scene.signatures_go_on();
    for member in [1, 2] {
        lab.lab("start", Some(member));
    }
    // A create wants the minimum of members (HA 2.2), and each process makes its links anew in its own time.
    let serials = lab.serials();
    for member in [0, 1] {
        while !page_tells(&lab, &creator, &serials[member], "up") {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    only_stores(&lab, &mut scene, &mut creator, 3, Instant::now(), "standby-at-rest");
    creator.write(b"end\n");
    creator.finish();
    scene.finish_without_error();
    lab.wait_until_equal(3);
}

/// In turn, a member of weight 300 gets three signatures while one of weight 100 gets one; the application hears of it by itself.
#[test]
fn members_share_the_signatures_of_a_running_application_by_their_weights() {
    let lab = Lab::up(2);
    let file = PathBuf::from(lab.value("ChrystokiConfigurationPath")).join("Chrystoki.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\nHatoki = {{\n   Policy = round-robin;\n}}\n")).unwrap();
    let (serial, group) = (lab.serials()[1].clone(), lab.value("P11_TOKEN_LABEL").to_owned());
    let mut scene = lab.scene("sign-loop", &["4"]);
    scene.expect("READY");
    for (weight, percent) in [("100", 50), ("300", 75), ("25", 20)] {
        lab.vtl_done(&["haAdmin", "weight", "-group", &group, "-serialNum", &serial, "-weight", weight]);
        // The shares of before count until the application has heard of it.
        let shares = std::iter::repeat_with(|| share_of_second(&lab, &mut scene));
        let (mut near, mut last) = (0, Vec::new());
        for share in shares.take(200) {
            last.push(share);
            near = if (percent - 4..=percent + 4).contains(&share) { near + 1 } else { 0 };
            if near == 3 {
                break;
            }
        }
        assert_eq!(near, 3, "weight {weight}: of a hundred signatures the second member made {last:?}");
        println!("weight {weight}: {:?} of a hundred signatures", &last[last.len() - 3..]);
    }
    scene.finish_without_error();
}

/// How many of a hundred signatures the second of two appliances makes, of some hundred that are made now.
fn share_of_second(lab: &Lab, scene: &mut Scene) -> u64 {
    let uses = || [1, 2].map(|member| uses_and_stores(lab, member).0);
    let (before, mut after) = (uses(), uses());
    let made = |after: [u64; 2]| [after[0] - before[0], after[1] - before[1]];
    while made(after).iter().sum::<u64>() < 800 {
        scene.signatures_go_on();
        after = uses();
    }
    let [first, second] = made(after);
    (100 * second + (first + second) / 2) / (first + second)
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
    let servers = lab.servers();
    assert_eq!(servers.len(), 2, "{servers:?}");
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

/// The authority's certificate for the request that `vtl createCSR` makes under this name of files; in use at its end.
fn use_issued(lab: &Lab, authority: &Authority, files: &str, name: &str) {
    lab.vtl_done(&["createCSR", "-n", files, "-commonName", name]);
    let folder = PathBuf::from(lab.value("ChrystokiConfigurationPath")).join("cert/client");
    let issued = authority.issue(&folder.join(format!("{files}CSR.pem")), 20);
    lab.vtl_done(&["useCert", "-n", files, "-cert", &issued]);
}

/// A certificate of the authority for an appliance, put into service.
fn activate_issued(lab: &Lab, authority: &Authority, member: usize) {
    let asked = lab.hsm_done(member, &["sysconf", "regenCert", "-csr", "--json"]);
    let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
    let issued = authority.issue(&PathBuf::from(asked["request"].as_str().unwrap()), 20);
    let active = lab.hsm_done(member, &["sysconf", "activateCert", "-cert", &issued, "--json"]);
    let active: serde_json::Value = serde_json::from_str(&active).unwrap();
    assert_ne!(active["server"]["fingerprint"], asked["server"]["fingerprint"], "{active}");
    assert_eq!(active["request"], serde_json::Value::Null);
}

#[test]
fn certificates_of_an_authority_are_changed_on_both_sides_under_signing_threads_without_an_error() {
    let lab = Lab::up(2);
    let authority = Authority::new(lab.path(), 20);
    // A client that the appliances know by its authority and its name.
    for (member, serial) in (1..).zip(lab.serials()) {
        lab.hsm_done(member, &["client", "register", "-client", "signer", "-ca", &authority.certificate()]);
        lab.hsm_done(member, &["client", "assignPartition", "-client", "signer", "-partition", &serial]);
    }
    use_issued(&lab, &authority, "signer", "signer");
    let mut scene = lab.scene("sign-loop", &["8"]);
    scene.expect("READY");
    scene.signatures_go_on();
    // Its next certificate needs nothing at the appliances.
    use_issued(&lab, &authority, "signer-next", "signer");
    scene.signatures_go_on();
    for (member, (host, port)) in (1..).zip(&lab.servers()) {
        let server = ["-n", host, "-p", port, "-c", &authority.certificate()];
        lab.vtl_done(&[&["addServer"][..], &server].concat());
        activate_issued(&lab, &authority, member);
        scene.signatures_go_on();
        lab.vtl_done(&[&["replaceServer"][..], &server].concat());
        scene.signatures_go_on();
        // And once more, of which no client hears.
        activate_issued(&lab, &authority, member);
        scene.signatures_go_on();
    }
    let trusted = PathBuf::from(lab.value("ChrystokiConfigurationPath")).join("cert/server/CAFile.pem");
    let trusted = std::fs::read_to_string(trusted).unwrap();
    assert_eq!(trusted.matches("BEGIN CERTIFICATE").count(), 1, "the authority alone: {trusted}");
    reconnect_to_all(&lab, &mut scene);
    scene.finish_without_error();
}
