//! Digests in the process (RULES 1.8).
use client::{Produced, Room};
use digests::Hash;
use spec::{KeyType, Mechanism, MechanismType as M, Rv};

use crate::lab::{Lab, ROOM, bytes, rv, secret_template};

#[test]
fn digests_run_in_the_process_whole_and_in_parts() {
    let lab = Lab::new();
    lab.all_down(true);
    let session = lab.session();
    for hash in Hash::ALL {
        let mechanism = || Some(Mechanism::plain(M(hash.mechanism())));
        lab.module.digest_init(session, mechanism()).unwrap();
        assert_eq!(
            lab.module.digest(session, b"abc", Room::Ask).unwrap(),
            Produced::Length(hash.len_bytes())
        );
        let short = Room::Bytes(hash.len_bytes() - 1);
        assert_eq!(lab.module.digest(session, b"abc", short).unwrap(), Produced::TooSmall(hash.len_bytes()));
        let whole = bytes(lab.module.digest(session, b"abc", ROOM));
        assert_eq!(whole, digests::digest(hash, b"abc").to_vec());
        lab.module.digest_init(session, mechanism()).unwrap();
        for part in [&b"a"[..], b"", b"bc"] {
            lab.module.digest_update(session, part).unwrap();
        }
        assert_eq!(bytes(lab.module.digest_final(session, ROOM)), whole);
        assert_eq!(rv(lab.module.digest_final(session, ROOM)), Rv::OPERATION_NOT_INITIALIZED);
    }
}

#[test]
fn a_single_call_after_a_part_is_refused_and_ends_the_digest() {
    let lab = Lab::new();
    let session = lab.session();
    for room in [Room::Ask, ROOM] {
        lab.module.digest_init(session, Some(Mechanism::plain(M::SHA256))).unwrap();
        lab.module.digest_update(session, b"a").unwrap();
        assert_eq!(rv(lab.module.digest(session, b"bc", room)), Rv::OPERATION_NOT_INITIALIZED);
        assert_eq!(rv(lab.module.digest_final(session, ROOM)), Rv::OPERATION_NOT_INITIALIZED);
    }
    lab.module.digest_init(session, Some(Mechanism::plain(M::SHA256))).unwrap();
}

#[test]
fn a_readable_key_is_digested_and_a_sensitive_one_is_not() {
    let lab = Lab::new();
    let session = lab.user();
    let open =
        lab.module.create_object(session, secret_template(KeyType::GENERIC_SECRET, b"key bytes")).unwrap();
    let sensitive = lab.aes(session, true);
    let start = || lab.module.digest_init(session, Some(Mechanism::plain(M::SHA256))).unwrap();
    start();
    lab.module.digest_update(session, b"before ").unwrap();
    lab.module.digest_key(session, open).unwrap();
    let expected = digests::digest(Hash::Sha256, b"before key bytes").to_vec();
    assert_eq!(bytes(lab.module.digest_final(session, ROOM)), expected);
    start();
    assert_eq!(rv(lab.module.digest_key(session, sensitive)), Rv::KEY_INDIGESTIBLE);
    assert_eq!(rv(lab.module.digest_final(session, ROOM)), Rv::OPERATION_NOT_INITIALIZED);
}

#[test]
fn init_without_a_mechanism_cancels() {
    let lab = Lab::new();
    let session = lab.session();
    lab.module.digest_init(session, Some(Mechanism::plain(M::SHA256))).unwrap();
    assert_eq!(rv(lab.module.digest_init(session, Some(Mechanism::plain(M::SHA256)))), Rv::OPERATION_ACTIVE);
    lab.module.digest_init(session, None).unwrap();
    assert_eq!(rv(lab.module.digest(session, b"", ROOM)), Rv::OPERATION_NOT_INITIALIZED);
    assert_eq!(
        rv(lab.module.digest_init(session, Some(Mechanism::plain(M::RSA_PKCS)))),
        Rv::MECHANISM_INVALID
    );
}
