//! What the first call in a forked child finds (HA 6, RULES 2.14). The fork itself is the C boundary's test.
use client::InitializeOptions;
use spec::numbers::SessionState;
use spec::{Attribute, AttributeType as A, Mechanism, MechanismType as M, Rv};

use crate::lab::{Lab, ROOM, bytes, rv};

#[test]
fn a_child_keeps_sessions_handles_and_login() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, token_key) = lab.p256(session, true);
    let (_, session_key) = lab.p256(session, false);
    lab.module.digest_init(session, Some(Mechanism::plain(M::SHA256))).unwrap();
    lab.module.digest_update(session, b"before the fork ").unwrap();
    lab.module.forked();
    assert_eq!(lab.module.session_info(session).unwrap().state, SessionState::RW_USER_FUNCTIONS);
    for key in [token_key, session_key] {
        lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
        bytes(lab.module.sign(session, b"m", ROOM));
    }
    lab.module.digest_update(session, b"and after").unwrap();
    let digest = bytes(lab.module.digest_final(session, ROOM));
    assert_eq!(digest, digests::digest(digests::Hash::Sha256, b"before the fork and after").to_vec());
    let class = Attribute::ulong(A::CLASS, spec::ObjectClass::PRIVATE_KEY.0);
    let mut found = lab.find(session, vec![class]);
    found.sort_unstable();
    assert_eq!(found, [token_key, session_key], "one handle for each ouid, across the fork");
}

#[test]
fn the_first_initialize_in_a_child_starts_afresh_and_the_second_is_refused() {
    let lab = Lab::new();
    let session = lab.user();
    lab.module.forked();
    lab.initialize(false);
    assert_eq!(rv(lab.module.session_info(session)), Rv::SESSION_HANDLE_INVALID);
    let options = InitializeOptions { may_create_threads: false };
    assert_eq!(rv(lab.module.initialize(options)), Rv::CRYPTOKI_ALREADY_INITIALIZED);
}

#[test]
fn finalize_in_a_child_leaves_nothing_and_joins_no_thread_of_the_parent() {
    let lab = Lab::with(2, true, true);
    lab.user();
    lab.module.forked();
    lab.module.finalize().unwrap();
    assert!(!lab.module.is_initialized());
}
