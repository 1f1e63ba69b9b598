//! The system calls of a warm session: those of the link and nothing else (DESIGN 3), counted by strace.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use tests::lab::{Lab, Scene};

const CALLS: u64 = 1_000;
/// What may come on top: the hedges that there may be (HA 4.3: one in fifty, and eight at once), and few besides, which are probes,
/// polls that end early and the lines in and out. Some five are usual, on a busy host too.
const MORE: u64 = CALLS / 50 + 8 + 12;
/// What may be missing: a request that a thread with a probe to send writes out along with it, a reply that it reads (HA 5).
const FEWER: u64 = CALLS / 50;

/// So often a thousand calls are counted at most.
const ROUNDS: usize = 5;
/// Whatever else may be: a wait for the thread that reads for all, a turn for it, the bell that ends a poll, which is made once, and
/// the lines in and out. No clock, no memory, no file, no random bytes, no other process.
const OTHERS: &[&str] = &["futex", "sched_yield", "read", "write", "eventfd2", "getpid", "restart_syscall"];

/// The system calls of a process's first thread while something is done, by name.
fn counted(process: u32, act: impl FnOnce()) -> BTreeMap<String, u64> {
    let table = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace")
        .args(["-c", "-o"])
        .arg(table.path())
        .args(["-p", &process.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace starts (install strace)");
    let mut told = BufReader::new(strace.stderr.take().unwrap()).lines();
    let attached = told.find_map(|line| line.ok().filter(|line| line.contains("attached")));
    assert!(attached.is_some(), "strace attaches to process {process}");
    act();
    let number = i32::try_from(strace.id()).unwrap();
    // SAFETY: a plain system call on the number of a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(number, libc::SIGINT) }, 0);
    strace.wait().unwrap();
    let text = std::fs::read_to_string(table.path()).unwrap();
    // % time, seconds, usecs/call, calls, errors or nothing, name.
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (calls, name) = (words.get(3)?.parse().ok()?, *words.last()?);
        (name != "total").then(|| (name.to_owned(), calls))
    });
    rows.collect()
}

/// Counts a thousand calls; false while a member is suspected, since each call looks at that member's sockets then (HA 4.4), with a
/// poll and a place of its own to wait: that is a busy host's doing.
fn thousand(scene: &mut Scene, verb: &str) -> bool {
    let process = scene.process();
    let mut found =
        counted(process, || assert_eq!(scene.step(&format!("{verb} {CALLS}")), format!("DONE {CALLS}")));
    println!("{verb}: {found:?}");
    if found.get("getpid").is_some_and(|looks| *looks > 2) {
        return false;
    }
    for one in [&["sendto"][..], &["recvfrom"], &["ppoll", "poll"]] {
        let calls: u64 = one.iter().filter_map(|name| found.remove(*name)).sum();
        assert!((CALLS - FEWER..=CALLS + MORE).contains(&calls), "{one:?}: {calls} times for {CALLS} {verb}");
    }
    let others: u64 = found.values().sum();
    assert!(others < MORE, "others in {verb}: {found:?}");
    assert!(found.keys().all(|name| OTHERS.contains(&name.as_str())), "others in {verb}: {found:?}");
    true
}

#[test]
fn a_thousand_warm_calls_make_the_system_calls_of_the_link_and_no_others() {
    let lab = Lab::up(2);
    let mut scene = lab.scene("steps", &[]);
    scene.expect("READY");
    for (line, count) in
        [(format!("login {}", lab.value("P11_PIN")), 0), ("secret mac".into(), 1), ("aes cipher".into(), 1)]
    {
        assert_eq!(scene.step(&line), format!("DONE {count}"), "{line}");
    }
    for (key, verb) in
        [("mac", "macs"), ("mac", "verifications"), ("cipher", "encryptions"), ("cipher", "decryptions")]
    {
        assert_eq!(scene.step(&format!("select {key}")), "DONE 1");
        assert_eq!(scene.step(&format!("{verb} 200")), "DONE 200");
        assert!(
            (0..ROUNDS).any(|_| thousand(&mut scene, verb)),
            "a member is suspected in every thousand {verb}"
        );
    }
    scene.finish();
}
