//! C_GenerateRandom: buffers filled ahead by members, what empties them, and what they answer without a member (HA 6).
use spec::Rv;

use crate::lab::{Lab, rv};

#[test]
fn random_bytes_differ_and_seeding_is_not_supported() {
    let lab = Lab::new();
    let session = lab.session();
    let one = lab.module.random(session, 32).unwrap();
    assert_ne!(*one, *lab.module.random(session, 32).unwrap());
    assert!(lab.module.random(session, 0).unwrap().is_empty());
    assert_eq!(rv(lab.module.seed_random(session, b"x")), Rv::RANDOM_SEED_NOT_SUPPORTED);
}

#[test]
fn one_request_fills_ahead_for_a_hundred_draws_and_a_large_want_goes_past_the_buffer() {
    let lab = Lab::new();
    let session = lab.session();
    lab.module.random(session, 32).unwrap();
    let warm = lab.seam.count_all();
    let drawn: Vec<_> = (0..100).map(|_| lab.module.random(session, 32).unwrap()).collect();
    assert_eq!(lab.seam.count_all(), warm);
    let large = lab.module.random(session, 100_000).unwrap();
    assert_eq!(lab.seam.count_all(), warm + 1);
    lab.module.random(session, 32).unwrap();
    assert_eq!(lab.seam.count_all(), warm + 1, "the buffer is still there");
    let mut windows: Vec<&[u8]> = drawn
        .iter()
        .map(|piece| piece.as_slice())
        .chain([large.as_slice()])
        .flat_map(|piece| piece.windows(8))
        .collect();
    let all = windows.len();
    windows.sort_unstable();
    windows.dedup();
    assert_eq!(windows.len(), all, "nothing is handed out twice");
}

#[test]
fn a_member_is_asked_each_time_when_the_configuration_says_so() {
    let lab = Lab::with_options(2, true, false, "LocalRandom = 0;");
    let session = lab.session();
    lab.module.random(session, 1).unwrap();
    let before = lab.seam.count_all();
    (0..10).for_each(|_| assert_eq!(lab.module.random(session, 32).unwrap().len(), 32));
    assert_eq!(lab.seam.count_all(), before + 10);
    let bytes = lab.module.random(session, (1 << 20) + 5).unwrap();
    assert_eq!(bytes.len(), (1 << 20) + 5);
    assert!(bytes[..64].iter().any(|byte| *byte != 0));
    assert_eq!(lab.seam.count_all(), before + 12, "1 MiB a request");
    lab.all_down(true);
    assert_eq!(rv(lab.module.random(session, 1)), Rv::DEVICE_ERROR);
}

#[test]
fn without_members_the_buffer_serves_what_it_has() {
    let lab = Lab::new();
    let session = lab.session();
    lab.module.random(session, 1_000).unwrap();
    lab.all_down(true);
    (0..3).for_each(|_| assert_eq!(lab.module.random(session, 1_000).unwrap().len(), 1_000));
    assert_eq!(rv(lab.module.random(session, 1_000)), Rv::DEVICE_ERROR);
    assert_eq!(lab.module.random(session, 96).unwrap().len(), 96, "the want that failed took nothing");
    assert_eq!(rv(lab.module.random(session, 1)), Rv::DEVICE_ERROR);
    assert_eq!(rv(lab.module.random(session, 2_000)), Rv::DEVICE_ERROR);
    lab.all_down(false);
    assert_eq!(lab.module.random(session, 32).unwrap().len(), 32);
}

#[test]
fn a_child_draws_nothing_that_its_parent_had_prepared() {
    let lab = Lab::new();
    let session = lab.session();
    lab.module.random(session, 32).unwrap();
    let warm = lab.seam.count_all();
    lab.module.random(session, 32).unwrap();
    assert_eq!(lab.seam.count_all(), warm);
    lab.module.forked();
    lab.all_down(true);
    assert_eq!(rv(lab.module.random(session, 32)), Rv::DEVICE_ERROR, "nothing is left to be drawn");
    lab.all_down(false);
    assert_eq!(lab.module.random(session, 32).unwrap().len(), 32);
}
