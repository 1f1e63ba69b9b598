//! Life cycle, slots and sessions.
use std::path::Path;
use std::sync::Arc;

use client::conf::Configuration;
use client::{InitializeOptions, Module};
use ntls::platform::System;
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::flags::{mechanism, slot, token};
use spec::numbers::SessionState;
use spec::{HandleSession, Mechanism, MechanismType as M, Rv, SlotId, Template, UserType};

use crate::lab::{CO_PIN, Lab, SLOT, rv};

#[test]
fn outside_a_life_every_call_is_not_initialized_and_a_second_initialize_is_refused() {
    let module = Module::new();
    assert!(!module.is_initialized());
    assert_eq!(rv(module.slots(true)), Rv::CRYPTOKI_NOT_INITIALIZED);
    assert_eq!(rv(module.finalize()), Rv::CRYPTOKI_NOT_INITIALIZED);
    let lab = Lab::new();
    assert!(lab.module.is_initialized());
    let options = InitializeOptions { may_create_threads: true };
    assert_eq!(rv(lab.module.initialize(options)), Rv::CRYPTOKI_ALREADY_INITIALIZED);
    lab.module.finalize().unwrap();
    assert_eq!(rv(lab.module.finalize()), Rv::CRYPTOKI_NOT_INITIALIZED);
    lab.initialize(false);
    lab.user();
}

#[test]
fn finalize_joins_the_threads_and_a_new_life_has_no_old_handles() {
    let lab = Lab::with(2, true, true);
    let session = lab.user();
    lab.module.finalize().unwrap();
    lab.initialize(true);
    assert_eq!(rv(lab.module.session_info(session)), Rv::SESSION_HANDLE_INVALID);
    let session = lab.user();
    assert_eq!(lab.module.session_info(session).unwrap().state, SessionState::RW_USER_FUNCTIONS);
}

#[test]
fn with_every_member_down_slots_tokens_and_sessions_answer_at_once() {
    let lab = Lab::new();
    lab.all_down(true);
    lab.module.finalize().unwrap();
    lab.initialize(false);
    assert_eq!(lab.module.slots(true).unwrap(), [SLOT]);
    assert_eq!(lab.module.slot_info(SLOT).unwrap().flags, slot::TOKEN_PRESENT);
    let info = lab.module.token_info(SLOT).unwrap();
    assert_eq!((info.label.as_str(), info.serial.as_str()), ("lab", "11001"));
    assert_eq!((info.sessions_max, info.rw_sessions_max), (0, 0));
    assert_ne!(info.flags & token::LOGIN_REQUIRED, 0);
    let session = lab.session();
    assert_eq!(lab.module.session_info(session).unwrap().state, SessionState::RW_PUBLIC_SESSION);
    assert_eq!(rv(lab.module.login(session, UserType::USER, Some(CO_PIN))), Rv::DEVICE_ERROR);
    lab.all_down(false);
    lab.module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
}

#[test]
fn without_configuration_there_are_no_slots() {
    let conf = Configuration::from_bytes(b"", Path::new("/lab/Chrystoki.conf")).unwrap();
    let lab = Lab::new();
    let module = Module::new();
    let options = InitializeOptions { may_create_threads: false };
    module.initialize_over(lab.seam.clone(), Arc::new(System), conf, options).unwrap();
    assert_eq!(module.slots(false).unwrap(), []);
    assert_eq!(rv(module.token_info(SLOT)), Rv::SLOT_ID_INVALID);
    module.finalize().unwrap();
}

#[test]
fn member_slots_follow_the_groups_when_ha_only_is_off() {
    let lab = Lab::with(2, false, false);
    assert_eq!(lab.module.slots(false).unwrap(), [SlotId(0), SlotId(1), SlotId(2)]);
    lab.seam.set_down(lab.members[0], true);
    assert_eq!(lab.module.slots(true).unwrap(), [SlotId(0), SlotId(2)]);
    assert_eq!(rv(lab.module.token_info(SlotId(1))), Rv::TOKEN_NOT_PRESENT);
    assert_eq!(lab.module.token_info(SlotId(2)).unwrap().serial, "1002");
    let session = lab.module.open_session(SlotId(2), SERIAL_SESSION | RW_SESSION).unwrap();
    lab.module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
    assert_eq!(lab.module.session_info(session).unwrap().slot, SlotId(2));
    assert_eq!(lab.module.token_info(SlotId(2)).unwrap().label, "member1002");
    let session = lab.session();
    lab.module.login(session, UserType::USER, Some(CO_PIN)).unwrap();
    assert_eq!(lab.module.token_info(SLOT).unwrap().label, "lab");
}

#[test]
fn mechanisms_are_asked_once_and_then_stay() {
    let lab = Lab::new();
    let first = lab.module.mechanisms(SLOT).unwrap();
    assert!(first.contains(&M::RSA_PKCS));
    let asked = lab.seam.count_all();
    lab.all_down(true);
    assert_eq!(lab.module.mechanisms(SLOT).unwrap(), first);
    assert_eq!(lab.seam.count_all(), asked);
    let facts = lab.module.mechanism_info(SLOT, M::RSA_PKCS).unwrap();
    assert_eq!(facts.flags & (mechanism::SIGN | mechanism::HW), mechanism::SIGN | mechanism::HW);
    let digest = lab.module.mechanism_info(SLOT, M::SHA256).unwrap();
    assert_eq!(digest.flags, mechanism::DIGEST, "digests run in the process");
    assert_eq!(rv(lab.module.mechanism_info(SLOT, M::DES3_CBC)), Rv::MECHANISM_INVALID);
}

#[test]
fn a_hundred_thousand_sessions_send_nothing() {
    let lab = Lab::new();
    lab.user();
    let before = lab.seam.count_all();
    let sessions: Vec<HandleSession> = (0..100_000).map(|_| lab.session()).collect();
    assert_eq!(lab.module.token_info(SLOT).unwrap().sessions, 100_001);
    for session in &sessions {
        lab.module.close_session(*session).unwrap();
    }
    assert_eq!(lab.seam.count_all(), before);
    assert_eq!(rv(lab.module.close_session(sessions[0])), Rv::SESSION_HANDLE_INVALID);
}

#[test]
fn sessions_need_the_serial_flag_and_a_slot() {
    let lab = Lab::new();
    assert_eq!(rv(lab.module.open_session(SLOT, RW_SESSION)), Rv::SESSION_PARALLEL_NOT_SUPPORTED);
    assert_eq!(rv(lab.module.open_session(SlotId(9), SERIAL_SESSION)), Rv::SLOT_ID_INVALID);
}

#[test]
fn session_cancel_ends_the_named_operations_alone() {
    let lab = Lab::new();
    let session = lab.session();
    lab.module.digest_init(session, Some(Mechanism::plain(M::SHA256))).unwrap();
    lab.module.find_init(session, Template::default()).unwrap();
    lab.module.session_cancel(session, mechanism::DIGEST | mechanism::SIGN).unwrap();
    assert_eq!(rv(lab.module.digest_update(session, b"a")), Rv::OPERATION_NOT_INITIALIZED);
    lab.module.find(session, 1).unwrap();
    lab.module.session_cancel(session, mechanism::FIND_OBJECTS).unwrap();
    assert_eq!(rv(lab.module.find(session, 1)), Rv::OPERATION_NOT_INITIALIZED);
}

#[test]
fn a_blocking_wait_for_slot_events_ends_with_finalize() {
    let lab = Lab::new();
    assert_eq!(rv(lab.module.wait_for_slot_event(false)), Rv::NO_EVENT);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rv(lab.module.wait_for_slot_event(true)));
        std::thread::yield_now();
        lab.module.finalize().unwrap();
        assert_eq!(waiting.join().unwrap(), Rv::CRYPTOKI_NOT_INITIALIZED);
    });
}

/// What each member holds: how many objects, and their digest (HA 1.6).
fn contents(lab: &Lab) -> Vec<(u64, Vec<u8>)> {
    let held = lab.members.iter().map(|member| lab.status(*member));
    held.map(|status| (status.objects, status.root)).collect()
}

#[test]
fn ha_2_5_finalize_right_after_a_create_pays_what_a_reachable_member_owes() {
    let lab = Lab::new();
    let session = lab.user();
    lab.seam.set_down(lab.members[2], true);
    lab.p256(session, true);
    let doomed = lab.data(session, true, "doomed").unwrap();
    lab.module.destroy_object(session, doomed).unwrap();
    lab.seam.set_down(lab.members[2], false);
    assert_ne!(contents(&lab)[2], contents(&lab)[0], "the third member owes all of it");
    lab.module.finalize().unwrap();
    let held = contents(&lab);
    assert_eq!(held[0].0, 2);
    assert!(held.iter().all(|one| *one == held[0]), "{held:?}");
}

#[test]
fn ha_2_5_finalize_does_not_wait_for_a_dead_member_that_owes() {
    let lab = Lab::new();
    let session = lab.user();
    lab.seam.set_down(lab.members[2], true);
    lab.p256(session, true);
    // To wait for it would take the second that payments are given.
    let begun = std::time::Instant::now();
    lab.module.finalize().unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_millis(900), "{:?}", begun.elapsed());
}
