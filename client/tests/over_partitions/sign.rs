//! Every signing mechanism, whole and in parts.
use client::{Produced, Room};
use digests::Hash;
use spec::numbers::MgfType;
use spec::{
    Attribute, AttributeType as A, HandleObject, HandleSession, KeyType, Mechanism, MechanismType as M,
    Parameters, Rv,
};

use crate::lab::{Lab, ROOM, bytes, rv, secret_template};

fn pss(mechanism_type: M, hash: M, mgf: MgfType) -> Mechanism {
    Mechanism { mechanism_type, parameters: Parameters::Pss { hash, mgf, salt_bytes: 20 } }
}

/// Signs whole and in parts, and verifies both ways; returns the signature made in parts.
fn both_ways(
    lab: &Lab,
    session: HandleSession,
    mechanism: &Mechanism,
    keys: (HandleObject, HandleObject),
    data: &[u8],
) -> Vec<u8> {
    let (public, private) = keys;
    let module = &lab.module;
    let name = mechanism.mechanism_type;
    module.sign_init(session, Some(mechanism.clone()), private).unwrap();
    let whole = bytes(module.sign(session, data, ROOM));
    module.sign_init(session, Some(mechanism.clone()), private).unwrap();
    for part in data.chunks(7) {
        module.sign_update(session, part).unwrap();
    }
    assert_eq!(module.sign_final(session, Room::Ask).unwrap(), Produced::Length(whole.len()), "{name}");
    let parts = bytes(module.sign_final(session, ROOM));
    for signature in [&whole, &parts] {
        module.verify_init(session, Some(mechanism.clone()), public).unwrap();
        module.verify(session, data, signature).unwrap();
        module.verify_init(session, Some(mechanism.clone()), public).unwrap();
        for part in data.chunks(5) {
            module.verify_update(session, part).unwrap();
        }
        module.verify_final(session, signature).unwrap();
    }
    let mut wrong = parts.clone();
    wrong[0] ^= 1;
    module.verify_init(session, Some(mechanism.clone()), public).unwrap();
    assert_eq!(rv(module.verify(session, data, &wrong)), Rv::SIGNATURE_INVALID, "{name}");
    assert_eq!(rv(module.verify(session, data, &wrong)), Rv::OPERATION_NOT_INITIALIZED, "{name}");
    parts
}

#[test]
fn a_single_call_after_a_part_is_refused_and_ends_the_operation() {
    let lab = Lab::new();
    let module = &lab.module;
    let session = lab.user();
    let (public, private) = lab.p256(session, true);
    let mechanism = || Some(Mechanism::plain(M::ECDSA_SHA256));
    module.sign_init(session, mechanism(), private).unwrap();
    module.sign_update(session, b"part").unwrap();
    assert_eq!(rv(module.sign(session, b"whole", ROOM)), Rv::OPERATION_NOT_INITIALIZED);
    assert_eq!(rv(module.sign_final(session, ROOM)), Rv::OPERATION_NOT_INITIALIZED);
    module.verify_init(session, mechanism(), public).unwrap();
    module.verify_update(session, b"part").unwrap();
    assert_eq!(rv(module.verify(session, b"whole", &[0; 64])), Rv::OPERATION_NOT_INITIALIZED);
    assert_eq!(rv(module.verify_final(session, &[0; 64])), Rv::OPERATION_NOT_INITIALIZED);
    let aes = lab.aes(session, true);
    let ecb = || Some(Mechanism::plain(M::AES_ECB));
    module.encrypt_init(session, ecb(), aes).unwrap();
    bytes(module.encrypt_update(session, &[1; 16], ROOM));
    assert_eq!(rv(module.encrypt(session, &[1; 16], ROOM)), Rv::OPERATION_NOT_INITIALIZED);
    module.decrypt_init(session, ecb(), aes).unwrap();
    bytes(module.decrypt_update(session, &[1; 16], ROOM));
    assert_eq!(rv(module.decrypt(session, &[1; 16], ROOM)), Rv::OPERATION_NOT_INITIALIZED);
    [module.sign_init(session, mechanism(), private), module.encrypt_init(session, ecb(), aes)]
        .into_iter()
        .for_each(Result::unwrap);
}

#[test]
fn rsa_signs_with_every_mechanism_whole_and_in_parts() {
    let lab = Lab::new();
    let session = lab.user();
    let keys = lab.rsa(session, true);
    let rows = [
        (M::SHA1_RSA_PKCS, M::SHA1_RSA_PKCS_PSS, M::SHA_1, MgfType::MGF1_SHA1),
        (M::SHA224_RSA_PKCS, M::SHA224_RSA_PKCS_PSS, M::SHA224, MgfType::MGF1_SHA224),
        (M::SHA256_RSA_PKCS, M::SHA256_RSA_PKCS_PSS, M::SHA256, MgfType::MGF1_SHA256),
        (M::SHA384_RSA_PKCS, M::SHA384_RSA_PKCS_PSS, M::SHA384, MgfType::MGF1_SHA384),
        (M::SHA512_RSA_PKCS, M::SHA512_RSA_PKCS_PSS, M::SHA512, MgfType::MGF1_SHA512),
    ];
    for (pkcs, salted, hash, mgf) in rows {
        let plain = Mechanism::plain(pkcs);
        assert_eq!(
            both_ways(&lab, session, &plain, keys, b"the message"),
            both_ways(&lab, session, &plain, keys, b"the message"),
            "deterministic"
        );
        both_ways(&lab, session, &plain, keys, b"");
        both_ways(&lab, session, &pss(salted, hash, mgf), keys, b"the message");
    }
    let digest = digests::digest(Hash::Sha256, b"the message").to_vec();
    both_ways(&lab, session, &pss(M::RSA_PKCS_PSS, M::SHA256, MgfType::MGF1_SHA256), keys, &digest);
    both_ways(&lab, session, &Mechanism::plain(M::RSA_X_509), keys, &[&[0][..], &[1; 255]].concat());
}

#[test]
fn rsa_pkcs_signs_up_to_k_minus_11_bytes_also_in_parts_and_no_more() {
    let lab = Lab::new();
    let session = lab.user();
    let keys = lab.rsa(session, true);
    let raw = Mechanism::plain(M::RSA_PKCS);
    for bytes in [0, 19, 36, 245] {
        both_ways(&lab, session, &raw, keys, &vec![5; bytes]);
    }
    lab.module.sign_init(session, Some(raw.clone()), keys.1).unwrap();
    assert_eq!(rv(lab.module.sign(session, &[5; 246], ROOM)), Rv::DATA_LEN_RANGE);
    lab.module.sign_init(session, Some(raw), keys.1).unwrap();
    lab.module.sign_update(session, &[5; 245]).unwrap();
    assert_eq!(rv(lab.module.sign_update(session, &[5])), Rv::DATA_LEN_RANGE);
    assert_eq!(rv(lab.module.sign_final(session, ROOM)), Rv::OPERATION_NOT_INITIALIZED);
}

#[test]
fn ecdsa_signs_raw_and_hashed_whole_and_in_parts() {
    let lab = Lab::new();
    let session = lab.user();
    let keys = lab.p256(session, true);
    for mechanism in [M::ECDSA_SHA1, M::ECDSA_SHA224, M::ECDSA_SHA256, M::ECDSA_SHA384, M::ECDSA_SHA512] {
        assert_eq!(both_ways(&lab, session, &Mechanism::plain(mechanism), keys, b"the message").len(), 64);
    }
    let digest = digests::digest(Hash::Sha256, b"the message").to_vec();
    both_ways(&lab, session, &Mechanism::plain(M::ECDSA), keys, &digest);
}

#[test]
fn hmac_gives_the_known_answer_whole_and_in_parts() {
    let lab = Lab::new();
    let session = lab.user();
    // RFC 4231, test case 2.
    let key = lab.module.create_object(session, secret_template(KeyType::GENERIC_SECRET, b"Jefe")).unwrap();
    let data = b"what do ya want for nothing?";
    let known = [
        0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7, 0x5a,
        0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43,
    ];
    assert_eq!(both_ways(&lab, session, &Mechanism::plain(M::SHA256_HMAC), (key, key), data), known);
    let general = Mechanism {
        mechanism_type: M::SHA256_HMAC_GENERAL,
        parameters: Parameters::MacGeneral { mac_bytes: 10 },
    };
    assert_eq!(both_ways(&lab, session, &general, (key, key), data), known[..10]);
    for mechanism in [M::SHA_1_HMAC, M::SHA224_HMAC, M::SHA384_HMAC, M::SHA512_HMAC] {
        both_ways(&lab, session, &Mechanism::plain(mechanism), (key, key), data);
    }
}

#[test]
fn a_long_hmac_in_parts_is_that_of_the_whole() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.hmac_key(session, false);
    let data: Vec<u8> = (0..9_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mechanism = || Some(Mechanism::plain(M::SHA384_HMAC));
    lab.module.sign_init(session, mechanism(), key).unwrap();
    let whole = bytes(lab.module.sign(session, &data, ROOM));
    lab.module.sign_init(session, mechanism(), key).unwrap();
    for part in data.chunks(100_000) {
        lab.module.sign_update(session, part).unwrap();
    }
    assert_eq!(bytes(lab.module.sign_final(session, ROOM)), whole);
    lab.module.sign_init(session, mechanism(), key).unwrap();
    lab.module.sign_update(session, &data).unwrap();
    assert_eq!(bytes(lab.module.sign_final(session, ROOM)), whole);
}

#[test]
fn every_error_ends_the_operation_but_a_short_buffer() {
    let lab = Lab::new();
    let session = lab.user();
    let (_, key) = lab.rsa(session, true);
    let mechanism = || Some(Mechanism::plain(M::SHA256_RSA_PKCS));
    lab.module.sign_init(session, mechanism(), key).unwrap();
    assert_eq!(rv(lab.module.sign_init(session, mechanism(), key)), Rv::OPERATION_ACTIVE);
    lab.module.sign_update(session, b"the ").unwrap();
    assert_eq!(lab.module.sign_final(session, Room::Bytes(10)).unwrap(), Produced::TooSmall(256));
    lab.module.sign_update(session, b"message").unwrap();
    let parts = bytes(lab.module.sign_final(session, ROOM));
    lab.module.sign_init(session, mechanism(), key).unwrap();
    assert_eq!(bytes(lab.module.sign(session, b"the message", ROOM)), parts);
    lab.module.sign_init(session, mechanism(), key).unwrap();
    lab.module.sign_init(session, None, HandleObject(0)).unwrap();
    assert_eq!(rv(lab.module.sign(session, b"", ROOM)), Rv::OPERATION_NOT_INITIALIZED);
}

#[test]
fn signing_and_verifying_run_side_by_side_in_one_session() {
    let lab = Lab::new();
    let session = lab.user();
    let (public, private) = lab.p256(session, false);
    let mechanism = || Some(Mechanism::plain(M::ECDSA_SHA256));
    lab.module.sign_init(session, mechanism(), private).unwrap();
    let signature = bytes(lab.module.sign(session, b"message", ROOM));
    lab.module.sign_init(session, mechanism(), private).unwrap();
    lab.module.verify_init(session, mechanism(), public).unwrap();
    lab.module.sign_update(session, b"mess").unwrap();
    lab.module.verify_update(session, b"mess").unwrap();
    lab.module.verify_update(session, b"age").unwrap();
    lab.module.sign_update(session, b"age").unwrap();
    lab.module.verify_final(session, &signature).unwrap();
    assert_eq!(bytes(lab.module.sign_final(session, ROOM)).len(), 64);
}

#[test]
fn a_key_limited_to_hash_and_sign_is_hashed_by_the_members_and_never_signs_raw() {
    let lab = Lab::new();
    let session = lab.user();
    let oid = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let public = vec![Attribute::new(A::EC_PARAMS, oid), Attribute::bool(A::VERIFY, true)];
    let private = vec![
        Attribute::bool(A::SIGN, true),
        Attribute::new(A::ALLOWED_MECHANISMS, M::ECDSA_SHA256.0.to_le_bytes().to_vec()),
    ];
    let generation = Mechanism::plain(M::EC_KEY_PAIR_GEN);
    let keys = lab.module.generate_key_pair(session, generation, public.into(), private.into()).unwrap();
    let mechanism = Mechanism::plain(M::ECDSA_SHA256);
    both_ways(&lab, session, &mechanism, keys, b"the message");
    both_ways(&lab, session, &mechanism, keys, b"");
    lab.module.sign_init(session, Some(mechanism.clone()), keys.1).unwrap();
    for _ in 0..4 {
        lab.module.sign_update(session, &[1; 50_000]).unwrap();
        lab.restart_all();
    }
    let signature = bytes(lab.module.sign_final(session, ROOM));
    lab.module.verify_init(session, Some(mechanism), keys.0).unwrap();
    lab.module.verify(session, &[1; 200_000], &signature).unwrap();
    assert_eq!(
        rv(lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA)), keys.1)),
        Rv::MECHANISM_INVALID
    );
}

#[test]
fn a_key_that_wants_a_login_for_each_use_is_refused_without_one() {
    let lab = Lab::new();
    let session = lab.user();
    let oid = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let public = vec![Attribute::new(A::EC_PARAMS, oid)];
    let private = vec![Attribute::bool(A::SIGN, true), Attribute::bool(A::ALWAYS_AUTHENTICATE, true)];
    let generation = Mechanism::plain(M::EC_KEY_PAIR_GEN);
    let (_, key) = lab.module.generate_key_pair(session, generation, public.into(), private.into()).unwrap();
    lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA_SHA256)), key).unwrap();
    assert_eq!(rv(lab.module.sign(session, b"m", ROOM)), Rv::USER_NOT_LOGGED_IN);
}

#[test]
fn threads_sign_side_by_side_in_sessions_of_their_own_while_members_come_and_go() {
    let lab = Lab::new();
    let user = lab.user();
    let (public, private) = lab.p256(user, true);
    let mechanism = || Some(Mechanism::plain(M::ECDSA_SHA256));
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let lab = &lab;
            scope.spawn(move || {
                let session = lab.session();
                for round in 0..40_u8 {
                    lab.module.sign_init(session, mechanism(), private).unwrap();
                    let signature = bytes(lab.module.sign(session, &[thread, round], ROOM));
                    lab.module.verify_init(session, mechanism(), public).unwrap();
                    lab.module.verify(session, &[thread, round], &signature).unwrap();
                }
                lab.module.close_session(session).unwrap();
            });
        }
        for member in lab.members.iter().cycle().take(12) {
            lab.seam.set_down(*member, true);
            std::thread::sleep(std::time::Duration::from_millis(5));
            lab.seam.set_down(*member, false);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}
