//! Everything that a session holds survives the restart of all members: their caches are empty then (DESIGN 1).
use spec::{Attribute, AttributeType as A, Mechanism, MechanismType as M, Parameters};

use crate::lab::{Lab, ROOM, bytes};

#[test]
fn a_session_key_made_before_is_used_after() {
    let lab = Lab::new();
    let session = lab.user();
    let (public, private) = lab.p256(session, false);
    lab.restart_all();
    let mechanism = || Some(Mechanism::plain(M::ECDSA_SHA256));
    lab.module.sign_init(session, mechanism(), private).unwrap();
    lab.restart_all();
    let signature = bytes(lab.module.sign(session, b"message", ROOM));
    lab.restart_all();
    lab.module.verify_init(session, mechanism(), public).unwrap();
    lab.module.verify(session, b"message", &signature).unwrap();
    lab.restart_all();
    lab.module
        .set_attributes(session, private, vec![Attribute::new(A::LABEL, b"x".to_vec())].into())
        .unwrap();
    lab.restart_all();
    let copy =
        lab.module.copy_object(session, private, vec![Attribute::bool(A::TOKEN, true)].into()).unwrap();
    lab.module.sign_init(session, mechanism(), copy).unwrap();
    bytes(lab.module.sign(session, b"message", ROOM));
}

#[test]
fn a_hash_and_sign_in_parts_goes_on() {
    let lab = Lab::new();
    let session = lab.user();
    let (public, private) = lab.rsa(session, true);
    let mechanism = || Some(Mechanism::plain(M::SHA256_RSA_PKCS));
    lab.module.sign_init(session, mechanism(), private).unwrap();
    lab.module.sign_update(session, b"the ").unwrap();
    lab.restart_all();
    lab.module.sign_update(session, b"message").unwrap();
    lab.restart_all();
    let signature = bytes(lab.module.sign_final(session, ROOM));
    lab.module.verify_init(session, mechanism(), public).unwrap();
    lab.module.verify(session, b"the message", &signature).unwrap();
}

#[test]
fn an_hmac_in_parts_goes_on_from_its_sealed_state() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.hmac_key(session, false);
    let mechanism = || Some(Mechanism::plain(M::SHA256_HMAC));
    let part = vec![5; 100_000];
    lab.module.sign_init(session, mechanism(), key).unwrap();
    for _ in 0..3 {
        lab.module.sign_update(session, &part).unwrap();
        lab.restart_all();
    }
    let mac = bytes(lab.module.sign_final(session, ROOM));
    lab.module.verify_init(session, mechanism(), key).unwrap();
    for chunk in vec![5; 300_000].chunks(70_000) {
        lab.module.verify_update(session, chunk).unwrap();
        lab.restart_all();
    }
    lab.module.verify_final(session, &mac).unwrap();
}

#[test]
fn cbc_in_parts_goes_on() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, false);
    let mechanism =
        || Some(Mechanism { mechanism_type: M::AES_CBC_PAD, parameters: Parameters::Iv(vec![1; 16]) });
    let data = [7; 100];
    lab.module.encrypt_init(session, mechanism(), key).unwrap();
    let whole = bytes(lab.module.encrypt(session, &data, ROOM));
    lab.module.encrypt_init(session, mechanism(), key).unwrap();
    let mut parts = Vec::new();
    for part in data.chunks(33) {
        parts.extend(bytes(lab.module.encrypt_update(session, part, ROOM)));
        lab.restart_all();
    }
    parts.extend(bytes(lab.module.encrypt_final(session, ROOM)));
    assert_eq!(parts, whole);
    lab.module.decrypt_init(session, mechanism(), key).unwrap();
    let mut back = Vec::new();
    for part in whole.chunks(20) {
        back.extend(bytes(lab.module.decrypt_update(session, part, ROOM)));
        lab.restart_all();
    }
    back.extend(bytes(lab.module.decrypt_final(session, ROOM)));
    assert_eq!(back, data);
}

#[test]
fn a_search_and_a_login_go_on() {
    let lab = Lab::new();
    let session = lab.user();
    for _ in 0..4 {
        lab.data(session, true, "many").unwrap();
    }
    lab.module.find_init(session, vec![Attribute::new(A::LABEL, b"many".to_vec())].into()).unwrap();
    assert_eq!(lab.module.find(session, 1).unwrap().len(), 1);
    lab.restart_all();
    assert_eq!(lab.module.find(session, 10).unwrap().len(), 3);
    lab.module.find_final(session).unwrap();
    lab.aes(session, true);
}
