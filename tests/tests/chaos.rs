//! The short form of `cargo xtask chaos`: real processes under faults, eight signing threads and a creator that hear
//! nothing of them. Times are printed, not asserted.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use tests::lab::{expect_ok, run};

/// Plays these faults and shows their lines.
fn play(faults: &str) {
    let folder = tempfile::Builder::new().prefix("hk-").tempdir().unwrap();
    let dir = folder.path().display().to_string();
    let arguments = ["chaos", "--short", "--debug", "--only", faults, "--dir", &dir];
    let text = expect_ok(&run("xtask", &arguments, &BTreeMap::new()), "xtask chaos");
    let count = faults.split(',').count();
    assert!(text.contains(&format!("CHAOS: {count} faults played, 0 with")), "{text}");
    println!("{text}");
}

#[test]
fn processes_that_die_freeze_or_restart_are_no_error_to_an_application() {
    play("kill,freeze,rolling,outage");
}

#[test]
fn networks_that_fail_are_no_error_to_an_application() {
    play("blackhole,oneway-up,oneway-down,trickle,reset");
}

#[test]
fn a_clock_that_jumps_and_certificates_that_expire_are_no_error_to_an_application() {
    play("clock,expiry");
}
