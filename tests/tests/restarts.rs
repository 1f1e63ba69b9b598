//! What must survive the restart of every member, and what must not cost a member anything.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Seek, SeekFrom};

use tests::lab::Lab;

/// Restarts every appliance by SIGKILL, so that nothing cached survives: killed in one order, back in another.
fn restart_all(lab: &Lab, killed: [usize; 3], back: [usize; 3]) {
    for member in killed {
        lab.lab("kill", Some(member));
    }
    for member in back {
        lab.lab("start", Some(member));
    }
}

#[test]
fn a_session_key_is_usable_after_all_members_restarted() {
    let lab = Lab::up(3);
    let mut scene = lab.scene("session-key", &[]);
    scene.expect("READY");
    restart_all(&lab, [1, 2, 3], [1, 2, 3]);
    scene.go();
    scene.expect("OK");
    scene.finish();
}

#[test]
fn multi_part_hmac_rsa_and_cbc_go_on_after_all_members_restarted() {
    let lab = Lab::up(3);
    let mut scene = lab.scene("multi-part", &[]);
    scene.expect("READY");
    restart_all(&lab, [2, 3, 1], [3, 1, 2]);
    scene.go();
    scene.expect("OK");
    scene.finish();
}

/// Resident memory of an appliance in KiB.
fn resident_kib(lab: &Lab, member: usize) -> u64 {
    let pid = lab.process(member);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_hundred_thousand_sessions_grow_nothing_on_a_member() {
    let lab = Lab::up(1);
    let mut scene = lab.scene("sessions", &["100000"]);
    scene.expect("READY");
    let before = requests(&lab, 1);
    let memory = resident_kib(&lab, 1);
    scene.go();
    scene.expect("OPEN");
    // Not one request: what no request reaches, nothing can grow by.
    assert_eq!(requests(&lab, 1), before);
    assert!(resident_kib(&lab, 1) <= memory + 1024, "an idle appliance keeps its size");
    scene.go();
    scene.finish();
}

/// Requests other than probes that an appliance has executed since its start.
fn requests(lab: &Lab, member: usize) -> u64 {
    lab.requests(member).iter().filter(|(name, _)| *name != "Status").map(|(_, count)| count).sum()
}

#[test]
fn a_warm_signature_is_one_request_and_what_needs_no_member_none() {
    let lab = Lab::up(1);
    let mut scene = lab.scene("warm-sign", &["20"]);
    scene.expect("READY");
    let before = requests(&lab, 1);
    scene.go();
    scene.expect("ASKED");
    assert_eq!(
        requests(&lab, 1),
        before,
        "length queries, digests, calls about sessions and slots stay in the process"
    );
    scene.go();
    scene.expect("SIGNED");
    assert_eq!(requests(&lab, 1), before + 20, "C_SignInit and C_Sign together are one request");
    scene.go();
    scene.finish();
}

#[test]
fn a_new_process_signs_with_the_key_that_another_has_made() {
    let lab = Lab::up(2);
    // Each process is new to the members: connections, login, plan and all.
    let mut took: Vec<u64> = (0..9)
        .map(|_| {
            let mut scene = lab.scene("first-signature", &[]);
            let took = scene.expect("SIGNED").parse().unwrap();
            scene.finish();
            took
        })
        .collect();
    // The first one has made the key.
    took.remove(0);
    took.sort_unstable();
    println!("from the start of a process to its first signature: {} us, at most {} us", took[4], took[7]);
    let mut tool = lab.scene("steps", &[]);
    tool.expect("READY");
    tool.write(b"login ");
    tool.write(lab.value("P11_PIN").as_bytes());
    tool.write(b"\nselect first\n");
    tool.expect("DONE");
    assert_eq!(tool.expect("DONE"), "2", "one pair, made once");
    tool.write(b"end\n");
    tool.finish();
}

/// Whether any writable mapping of the process holds these bytes.
fn writable_memory_holds(pid: u32, wanted: &[u8]) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines()
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|rights| rights.starts_with("rw")))
        .any(|line| {
            let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
            let (start, end) =
                (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            let read = memory.seek(SeekFrom::Start(start)).and_then(|_| memory.read_exact(&mut bytes));
            read.is_ok() && bytes.windows(wanted.len()).any(|window| window == wanted)
        })
}

#[test]
fn after_login_no_writable_mapping_holds_the_pin() {
    let lab = Lab::up(1);
    let mut scene = lab.scene_without_pin("pin");
    let pin = lab.value("P11_PIN").as_bytes().to_vec();
    scene.write(&pin);
    scene.write(b"\n");
    scene.expect("READY");
    assert!(writable_memory_holds(scene.pid(), b"P11_TOKEN_LABEL="), "the scan finds what is there");
    assert!(!writable_memory_holds(scene.pid(), &pin), "a copy of the PIN was left behind");
    scene.write(b"\n");
    scene.finish();
}
