//! Forks of a process with busy threads, and a process without any (HA 5, HA 6).
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
