//! Members that go away: failover, and the total outage of RULES 1.3.
use std::time::{Duration, Instant};

use client::Error;
use spec::{Attribute, AttributeType as A, Mechanism, MechanismType as M, Parameters, Rv};

use crate::lab::{Lab, ROOM, bytes, rv};

#[test]
fn a_signing_loop_does_not_notice_the_loss_of_any_one_member() {
    let lab = Lab::new();
    let session = lab.user();
    let (public, private) = lab.p256(session, true);
    let mechanism = || Some(Mechanism::plain(M::ECDSA_SHA256));
    for round in 0..90_usize {
        let victim = lab.members[round / 30];
        match round % 30 {
            10 => lab.seam.set_down(victim, true),
            20 => lab.seam.set_down(victim, false),
            15 => lab.seam.lose_reply_once(lab.members[(round / 30 + 1) % 3], 14),
            _ => {}
        }
        let message = round.to_le_bytes();
        lab.module.sign_init(session, mechanism(), private).unwrap();
        let signature = bytes(lab.module.sign(session, &message, ROOM));
        lab.module.verify_init(session, mechanism(), public).unwrap();
        lab.module.verify(session, &message, &signature).unwrap();
    }
}

#[test]
fn after_a_total_outage_the_same_call_may_be_repeated() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, true);
    let mechanism =
        || Some(Mechanism { mechanism_type: M::AES_CBC, parameters: Parameters::Iv(vec![1; 16]) });
    lab.module.encrypt_init(session, mechanism(), key).unwrap();
    let whole = bytes(lab.module.encrypt(session, &[7; 64], ROOM));
    lab.module.encrypt_init(session, mechanism(), key).unwrap();
    let mut parts = bytes(lab.module.encrypt_update(session, &[7; 20], ROOM));
    lab.all_down(true);
    let outage = lab.module.encrypt_update(session, &[7; 44], ROOM).unwrap_err();
    assert!(matches!(outage, Error::Outage(_)), "{outage}");
    assert_eq!(outage.rv(), Rv::DEVICE_ERROR);
    lab.all_down(false);
    parts.extend(bytes(lab.module.encrypt_update(session, &[7; 44], ROOM)));
    parts.extend(bytes(lab.module.encrypt_final(session, ROOM)));
    assert_eq!(parts, whole);
}

#[test]
fn after_a_total_outage_init_replaces_the_operation() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, key) = lab.p256(session, true);
    let mechanism = || Some(Mechanism::plain(M::ECDSA_SHA256));
    lab.module.sign_init(session, mechanism(), key).unwrap();
    lab.all_down(true);
    assert_eq!(rv(lab.module.sign(session, b"m", ROOM)), Rv::DEVICE_ERROR);
    lab.all_down(false);
    lab.module.sign_init(session, mechanism(), key).unwrap();
    bytes(lab.module.sign(session, b"m", ROOM));
}

#[test]
fn below_the_minimum_of_copies_nothing_is_made_and_uses_go_on() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, key) = lab.p256(session, true);
    lab.seam.set_down(lab.members[0], true);
    lab.seam.set_down(lab.members[1], true);
    let error = lab.data(session, true, "x").unwrap_err();
    assert!(matches!(error, Error::BelowMinimum(_)), "{error}");
    assert_eq!(error.rv(), Rv::DEVICE_ERROR);
    lab.data(session, false, "a session object needs one member").unwrap();
    lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    bytes(lab.module.sign(session, b"m", ROOM));
    assert_eq!(lab.find(session, vec![Attribute::new(A::LABEL, b"x".to_vec())]), []);
}

#[test]
fn with_the_background_thread_a_returned_member_is_repaired_and_serves_what_it_missed() {
    let lab = Lab::with(3, true, true);
    let session = lab.user();
    lab.seam.set_down(lab.members[2], true);
    let (_, key) = lab.p256(session, true);
    lab.seam.set_down(lab.members[2], false);
    let missed = || lab.seam.partition(lab.members[2]).unwrap().objects() < 2;
    let mut rounds = 0;
    while missed() {
        rounds += 1;
        assert!(rounds < 200, "the returned member was not repaired in ten seconds");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    lab.seam.set_down(lab.members[0], true);
    lab.seam.set_down(lab.members[1], true);
    lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    bytes(lab.module.sign(session, b"m", ROOM));
    lab.module.finalize().unwrap();
}

/// Signs until the member holds both halves of the pair that it missed; then it signs alone.
fn returns_while_two_live(lab: &Lab, session: spec::HandleSession, key: spec::HandleObject) {
    let sign = || {
        lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
        bytes(lab.module.sign(session, b"m", ROOM));
    };
    lab.seam.set_down(lab.members[2], false);
    let begun = Instant::now();
    let used = || lab.module.ha_state(crate::lab::SLOT).unwrap().members[2].1 == Rv::OK;
    while lab.seam.partition(lab.members[2]).unwrap().objects() < 2 || !used() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the returned member was not repaired by calls");
        sign();
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.seam.set_down(lab.members[0], true);
    lab.seam.set_down(lab.members[1], true);
    sign();
}

#[test]
fn without_threads_calls_repair_a_returned_member_while_two_live() {
    let lab = Lab::with(3, true, false);
    let session = lab.user();
    lab.seam.set_down(lab.members[2], true);
    let (_, key) = lab.p256(session, true);
    returns_while_two_live(&lab, session, key);
}

#[test]
fn without_threads_a_forked_child_repairs_what_its_parent_left() {
    let lab = Lab::with(3, true, false);
    let session = lab.user();
    lab.seam.set_down(lab.members[2], true);
    let (_, key) = lab.p256(session, true);
    // The child has none of its parent's debts: comparison brings the pair to the member.
    lab.module.forked();
    returns_while_two_live(&lab, session, key);
}

#[test]
fn finalize_does_not_wait_for_a_call_that_waits_for_members_and_ends_it() {
    let lab = Lab::with_options(3, true, true, "OutageWaitMs = 60000;");
    let session = lab.user();
    let (_, key) = lab.p256(session, true);
    lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    lab.all_down(true);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rv(lab.module.sign(session, b"m", ROOM)));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished(), "it waits for members");
        let begun = Instant::now();
        lab.module.finalize().unwrap();
        assert_eq!(waiting.join().unwrap(), Rv::CRYPTOKI_NOT_INITIALIZED);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    });
}
