//! Operations over much data in parts outlive the loss of every member in turn, in little memory (DESIGN 1).
//!
//! `HATOKI_LONG_MIB` sets how much: 1024 is the whole gibibyte, which takes minutes; a test run takes less.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tests::lab::Lab;

/// What a client may grow by, in KiB, however long the data.
const GROWTH_KIB_MAX: u64 = 16 << 10;

#[test]
fn long_operations_outlive_the_loss_of_every_member_in_turn() {
    let mib = std::env::var("HATOKI_LONG_MIB").unwrap_or_else(|_| "24".into());
    let lab = Lab::up(3);
    let mut scene = lab.scene("long", &[&mib]);
    scene.expect("READY");
    scene.go();
    // Twice, for making and for checking: each of three members is lost in the middle of a part and is back two stops on.
    for _ in 0..2 {
        for member in 1..=3 {
            scene.expect("AT");
            scene.go();
            std::thread::sleep(Duration::from_millis(20));
            lab.kill_now(member);
            scene.expect("AT");
            lab.lab("start", Some(member));
            lab.wait_until_equal(3);
            scene.go();
        }
    }
    let growth_kib: u64 = scene.expect("RESULT").parse().unwrap();
    println!("{mib} MiB through every operation: the client grew by {growth_kib} KiB");
    assert!(growth_kib <= GROWTH_KIB_MAX, "{mib} MiB took {growth_kib} KiB of the client's memory");
    scene.go();
    scene.finish();
}
