//! How many requests a call costs (RULES 1.1, 1.2).
use client::{Produced, Room};
use spec::{Attribute, AttributeType as A, Mechanism, MechanismType as M, Rv, Template};

use crate::lab::{Lab, ROOM, bytes, rv};

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
