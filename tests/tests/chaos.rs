//! The short form of `cargo xtask chaos`: real processes under faults, eight signing threads and a creator that hear
//! nothing of them. Times are printed, not asserted.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tests::lab::{expect_ok, run};

/// One lab after the other: two at a time would be each other's load.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Plays these and shows what was said.
fn play(names: &str) -> String {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::Builder::new().prefix("hk-").tempdir().unwrap();
    let dir = folder.path().display().to_string();
    let arguments = ["chaos", "--short", "--debug", "--only", names, "--dir", &dir];
    let text = expect_ok(&run("xtask", &arguments, &BTreeMap::new()), "xtask chaos");
    println!("{text}");
    text
}

/// Plays these faults: no application sees an error. `absent` are those that this host may not be able to have.
fn harmless(faults: &str, absent: &[&str]) -> String {
    let text = play(faults);
    let missing = absent
        .iter()
        .filter(|name| text.lines().any(|line| line.starts_with(*name) && line.contains("not played")));
    let count = faults.split(',').count() - missing.count();
    assert!(text.contains(&format!("CHAOS: {count} faults played, 0 with")), "{text}");
    text
}

/// One number of a figure.
fn measure(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("MEASURE {name} ")));
    line.unwrap_or_else(|| panic!("{name} is told:\n{text}")).parse().unwrap()
}

#[test]
fn processes_that_die_freeze_or_restart_are_no_error_to_an_application() {
    let text = harmless("kill,freeze,rolling,outage", &[]);
    assert!(text.contains("; every thread had signed "), "the return of the first is measured: {text}");
}

#[test]
fn networks_that_are_cut_are_no_error_to_an_application() {
    // Dropped packets need a kernel's network of our own.
    harmless("blackhole,drop,oneway-up,oneway-down", &["drop"]);
}

#[test]
fn networks_that_are_slow_lose_or_reset_are_no_error_to_an_application() {
    harmless("delay,loss,trickle,reset", &[]);
}

#[test]
fn a_clock_that_jumps_and_certificates_that_expire_are_no_error_to_an_application() {
    harmless("clock,expiry", &[]);
}

#[test]
fn a_full_disk_and_stuck_workers_are_no_error_to_an_application() {
    // A small disk is mounted by root only.
    harmless("disk,stuck", &["disk"]);
}

/// HA 4.5: under three times the capacity and afterwards signatures come in time, and all are right. How many is a figure of
/// docs/ha.md, for a host of the tests has other work too.
#[test]
fn three_times_the_capacity_leaves_goodput_and_right_answers() {
    let text = play("overload");
    assert!(text.contains("FIGURE overload: 0 faults"), "{text}");
    for name in ["overload goodput-percent", "overload after-percent"] {
        assert!(measure(&text, name) >= 10, "{text}");
    }
}

/// HA 4.6: five thousand records and ten differences here, a hundred thousand in docs/ha.md.
#[test]
fn ten_differences_between_members_full_of_objects_are_repaired_under_signing_threads() {
    let text = play("repair");
    assert!(text.contains("FIGURE repair: 0 faults"), "{text}");
    assert!(measure(&text, "repair objects") >= 5_000, "{text}");
}
