//! Forks of a process with busy threads, and a process without any (HA 5, HA 6).
//!
//! `HATOKI_RANDOM_FORKS` sets how many children draw random bytes, each over connections of its own: 1000 is HA 6's number and takes
//! minutes; a test run takes fewer.
#![allow(clippy::unwrap_used)]

use tests::lab::Lab;

#[test]
fn ten_thousand_forks_under_eight_busy_threads_harm_nobody_and_the_children_sign() {
    let lab = Lab::up(2);
    let mut scene = lab.scene("forks", &["10000", "200"]);
    assert_eq!(scene.expect("FORKED"), "failed 0 hung 0");
    scene.go();
    scene.finish();
}

#[test]
fn forks_with_full_random_buffers_share_no_window_of_eight_bytes() {
    let forks = std::env::var("HATOKI_RANDOM_FORKS").unwrap_or_else(|_| "200".into());
    let lab = Lab::up(2);
    let asked = || (1..=2).filter_map(|member| lab.requests(member).get("Random").copied()).sum::<u64>();
    let before = asked();
    let mut scene = lab.scene("random-forks", &[&forks]);
    assert_eq!(scene.expect("DRAWN"), "failed 0 shared 0");
    // The system's bytes, mixed in at each draw, would hide a buffer that a child had kept: each asks a member anew.
    let (asked, forks) = (asked() - before, forks.parse::<u64>().unwrap());
    assert!(asked >= forks, "{asked} requests for random bytes by {forks} children");
    scene.go();
    scene.finish();
}

#[test]
fn a_process_that_forbids_threads_signs_and_has_none_also_after_a_restart_of_all_members() {
    let lab = Lab::up(2);
    let mut scene = lab.scene("no-threads", &[]);
    scene.expect("READY");
    for verb in ["kill", "start"] {
        for member in 1..=2 {
            lab.lab(verb, Some(member));
        }
    }
    scene.go();
    assert_eq!(scene.expect("THREADS"), "1");
    scene.go();
    scene.finish();
}

#[test]
fn ha_4_6_a_forked_child_without_threads_brings_a_returned_member_what_it_missed() {
    let lab = Lab::up(3);
    let mut scene = lab.scene("fork-upkeep", &[]);
    scene.expect("READY");
    lab.lab("kill", Some(1));
    scene.go();
    scene.expect("MADE");
    lab.lab("start", Some(1));
    scene.go();
    assert_eq!(scene.expect("USED"), "1", "no other client was at work, and no thread");
    lab.lab("kill", Some(2));
    lab.lab("kill", Some(3));
    scene.go();
    scene.expect("SIGNED");
    scene.go();
    scene.finish();
}
