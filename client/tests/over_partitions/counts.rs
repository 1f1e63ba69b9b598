//! How many requests a call costs (RULES 1.1, 1.2).
use client::{Produced, Room};
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};
use spec::{
    Attribute, AttributeType as A, HandleSession, Mechanism, MechanismType as M, Parameters, Rv, Template,
};

use crate::lab::{Lab, ROOM, SLOT, bytes, rv};

#[test]
fn a_signature_with_a_warm_key_is_one_request_and_a_length_query_none() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, key) = lab.rsa(session, true);
    let sign = |room| {
        lab.module.sign_init(session, Some(Mechanism::plain(M::SHA256_RSA_PKCS)), key)?;
        lab.module.sign(session, b"data", room)
    };
    bytes(sign(ROOM));
    let warm = lab.seam.count_all();
    assert_eq!(sign(Room::Ask).unwrap(), Produced::Length(256));
    assert_eq!(lab.module.sign(session, b"data", Room::Bytes(255)).unwrap(), Produced::TooSmall(256));
    assert_eq!(lab.seam.count_all(), warm, "neither Init, length query nor short buffer sends");
    assert_eq!(bytes(lab.module.sign(session, b"data", ROOM)).len(), 256);
    assert_eq!(lab.seam.count_all(), warm + 1);
    bytes(sign(ROOM));
    assert_eq!(lab.seam.count_all(), warm + 2);
}

#[test]
fn an_encryption_a_decryption_and_a_verification_with_a_warm_key_are_one_request_each() {
    let lab = Lab::new();
    let session = lab.user();
    let (aes, mac) = (lab.aes(session, true), lab.hmac_key(session, true));
    let module = &lab.module;
    let cbc = || Some(Mechanism { mechanism_type: M::AES_CBC_PAD, parameters: Parameters::Iv(vec![1; 16]) });
    let hmac = || Some(Mechanism::plain(M::SHA256_HMAC));
    let encrypt = || {
        module.encrypt_init(session, cbc(), aes).unwrap();
        bytes(module.encrypt(session, b"data", ROOM))
    };
    let text = encrypt();
    module.sign_init(session, hmac(), mac).unwrap();
    let tag = bytes(module.sign(session, b"data", ROOM));
    let decrypt = || {
        module.decrypt_init(session, cbc(), aes).unwrap();
        assert_eq!(bytes(module.decrypt(session, &text, ROOM)), b"data");
    };
    let verify = || {
        module.verify_init(session, hmac(), mac).unwrap();
        module.verify(session, b"data", &tag).unwrap();
    };
    let encrypt = || drop(encrypt());
    let rows: [(&str, &dyn Fn()); 3] =
        [("encryption", &encrypt), ("decryption", &decrypt), ("verification", &verify)];
    for (what, call) in rows {
        call();
        let warm = lab.seam.count_all();
        call();
        assert_eq!(lab.seam.count_all(), warm + 1, "{what}");
    }
}

#[test]
fn what_needs_no_member_sends_nothing_once_it_is_warm() {
    let lab = Lab::new();
    let session = lab.user();
    lab.p256(session, true);
    let module = &lab.module;
    let slots = |_: HandleSession| {
        module.slots(true).unwrap();
        module.slot_info(SLOT).unwrap();
        module.token_info(SLOT).unwrap();
        module.mechanisms(SLOT).unwrap();
        module.mechanism_info(SLOT, M::ECDSA).unwrap();
        module.ha_state(SLOT).unwrap();
    };
    let sessions = |_: HandleSession| {
        let other = module.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
        module.check_session(other).unwrap();
        module.session_info(other).unwrap();
        module.close_session(other).unwrap();
    };
    let digests = |session| {
        let begin = || module.digest_init(session, Some(Mechanism::plain(M::SHA384))).unwrap();
        begin();
        assert_eq!(module.digest(session, b"data", Room::Ask).unwrap(), Produced::Length(48));
        bytes(module.digest(session, b"data", ROOM));
        begin();
        module.digest_update(session, b"data").unwrap();
        bytes(module.digest_final(session, ROOM));
        begin();
        module.digest_init(session, None).unwrap();
    };
    let found = |session| {
        // The search was done at Init; what it found is told from here.
        module.find(session, 1).unwrap();
        module.find(session, 1).unwrap();
    };
    let rows: [(&str, &dyn Fn(HandleSession)); 4] = [
        ("slots, tokens and mechanisms", &slots),
        ("sessions", &sessions),
        ("digests", &digests),
        ("results of a search", &found),
    ];
    module.find_init(session, Template::default()).unwrap();
    for (what, calls) in rows {
        calls(session);
        let warm = lab.seam.count_all();
        calls(session);
        assert_eq!(lab.seam.count_all(), warm, "{what}");
    }
    module.find_final(session).unwrap();
}

#[test]
fn length_queries_of_every_operation_send_nothing_once_they_are_warm() {
    let lab = Lab::new();
    let session = lab.user();
    let (public, private) = lab.rsa(session, true);
    let (aes, mac) = (lab.aes(session, true), lab.hmac_key(session, true));
    let module = &lab.module;
    let cbc = || Mechanism { mechanism_type: M::AES_CBC_PAD, parameters: Parameters::Iv(vec![1; 16]) };
    let pkcs = || Some(Mechanism::plain(M::RSA_PKCS));
    let ask = || {
        for (mechanism, key) in [(pkcs(), private), (Some(Mechanism::plain(M::SHA256_HMAC)), mac)] {
            module.sign_init(session, mechanism.clone(), key).unwrap();
            module.sign(session, b"data", Room::Ask).unwrap();
            module.sign(session, b"data", Room::Bytes(1)).unwrap();
            module.sign_init(session, None, key).unwrap();
            module.sign_init(session, mechanism, key).unwrap();
            module.sign_update(session, b"da").unwrap();
            module.sign_final(session, Room::Ask).unwrap();
            module.session_cancel(session, spec::flags::mechanism::SIGN).unwrap();
        }
        for (mechanism, own, other) in [(pkcs(), public, private), (Some(cbc()), aes, aes)] {
            module.encrypt_init(session, mechanism.clone(), own).unwrap();
            module.encrypt(session, b"data", Room::Ask).unwrap();
            module.encrypt(session, b"data", Room::Bytes(1)).unwrap();
            module.encrypt_update(session, b"da", Room::Ask).unwrap();
            module.encrypt_init(session, None, own).unwrap();
            module.decrypt_init(session, mechanism, other).unwrap();
            module.decrypt(session, &[1; 256], Room::Ask).unwrap();
            module.decrypt_update(session, &[1; 16], Room::Ask).unwrap();
            module.decrypt_init(session, None, other).unwrap();
        }
    };
    ask();
    let warm = lab.seam.count_all();
    ask();
    assert_eq!(lab.seam.count_all(), warm);
}

#[test]
fn a_changed_key_is_planned_again_without_the_application_noticing() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, key) = lab.p256(session, true);
    let mechanism = || Some(Mechanism::plain(M::ECDSA_SHA256));
    lab.module.sign_init(session, mechanism(), key).unwrap();
    // Another session of the application renames the key between Init and Sign.
    let other = lab.session();
    let label = Template::from(vec![Attribute::new(A::LABEL, b"renamed".to_vec())]);
    lab.module.set_attributes(other, key, label).unwrap();
    assert_eq!(bytes(lab.module.sign(session, b"data", ROOM)).len(), 64);
}

#[test]
fn a_key_that_lost_its_right_between_init_and_sign_answers_function_rejected() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, key) = lab.p256(session, true);
    lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    let no_sign = Template::from(vec![Attribute::bool(A::SIGN, false)]);
    lab.module.set_attributes(session, key, no_sign).unwrap();
    assert_eq!(rv(lab.module.sign(session, b"data", ROOM)), Rv::FUNCTION_REJECTED);
    assert_eq!(rv(lab.module.sign(session, b"data", ROOM)), Rv::OPERATION_NOT_INITIALIZED);
    assert_eq!(
        rv(lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key)),
        Rv::KEY_FUNCTION_NOT_PERMITTED
    );
}

#[test]
fn a_key_destroyed_between_init_and_sign_answers_key_handle_invalid() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, key) = lab.p256(session, true);
    lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    lab.module.destroy_object(session, key).unwrap();
    assert_eq!(rv(lab.module.sign(session, b"data", ROOM)), Rv::KEY_HANDLE_INVALID);
}

#[test]
fn a_refusal_is_remembered_for_a_moment_and_forgotten_by_a_change() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, key) = lab.p256(session, true);
    let permit = |permitted| {
        let template = Template::from(vec![Attribute::bool(A::SIGN, permitted)]);
        lab.module.set_attributes(session, key, template).unwrap();
    };
    let mechanism = || Some(Mechanism::plain(M::ECDSA_SHA256));
    permit(false);
    assert_eq!(rv(lab.module.sign_init(session, mechanism(), key)), Rv::KEY_FUNCTION_NOT_PERMITTED);
    let asked = lab.seam.count_all();
    assert_eq!(rv(lab.module.sign_init(session, mechanism(), key)), Rv::KEY_FUNCTION_NOT_PERMITTED);
    assert_eq!(lab.seam.count_all(), asked, "the refusal is remembered");
    permit(true);
    lab.module.sign_init(session, mechanism(), key).unwrap();
}
