//! Every encrypting mechanism, whole and in parts; lengths and short buffers (RULES 1.2, 1.6, 1.7).
use client::{Produced, Room};
use spec::numbers::MgfType;
use spec::{HandleObject, HandleSession, KeyType, Mechanism, MechanismType as M, Parameters, Rv};

use crate::lab::{Lab, ROOM, bytes, rv, secret_template};

fn cbc(mechanism_type: M) -> Mechanism {
    Mechanism { mechanism_type, parameters: Parameters::Iv(vec![9; 16]) }
}

fn gcm() -> Mechanism {
    let parameters = Parameters::Gcm { iv: vec![1; 12], aad: b"aad".to_vec(), tag_bits: 128 };
    Mechanism { mechanism_type: M::AES_GCM, parameters }
}

fn encrypt(
    lab: &Lab,
    session: HandleSession,
    mechanism: &Mechanism,
    key: HandleObject,
    data: &[u8],
) -> Vec<u8> {
    lab.module.encrypt_init(session, Some(mechanism.clone()), key).unwrap();
    bytes(lab.module.encrypt(session, data, ROOM))
}

fn decrypt(
    lab: &Lab,
    session: HandleSession,
    mechanism: &Mechanism,
    key: HandleObject,
    data: &[u8],
) -> Vec<u8> {
    lab.module.decrypt_init(session, Some(mechanism.clone()), key).unwrap();
    bytes(lab.module.decrypt(session, data, ROOM))
}

fn encrypt_parts(
    lab: &Lab,
    session: HandleSession,
    mechanism: &Mechanism,
    key: HandleObject,
    parts: &mut dyn Iterator<Item = &[u8]>,
) -> Vec<u8> {
    lab.module.encrypt_init(session, Some(mechanism.clone()), key).unwrap();
    let mut output = Vec::new();
    for part in parts {
        output.extend(told(lab.module.encrypt_update(session, part, Room::Ask), || {
            lab.module.encrypt_update(session, part, ROOM)
        }));
    }
    output.extend(told(lab.module.encrypt_final(session, Room::Ask), || {
        lab.module.encrypt_final(session, ROOM)
    }));
    output
}

fn decrypt_parts(
    lab: &Lab,
    session: HandleSession,
    mechanism: &Mechanism,
    key: HandleObject,
    parts: &mut dyn Iterator<Item = &[u8]>,
) -> Vec<u8> {
    lab.module.decrypt_init(session, Some(mechanism.clone()), key).unwrap();
    let mut output = Vec::new();
    for part in parts {
        output.extend(told(lab.module.decrypt_update(session, part, Room::Ask), || {
            lab.module.decrypt_update(session, part, ROOM)
        }));
    }
    output.extend(told(lab.module.decrypt_final(session, Room::Ask), || {
        lab.module.decrypt_final(session, ROOM)
    }));
    output
}

/// The output, which must not be longer than the length query said.
fn told(query: client::Result<Produced>, call: impl FnOnce() -> client::Result<Produced>) -> Vec<u8> {
    let Produced::Length(bound) = query.unwrap() else { panic!("wanted a length") };
    let output = bytes(call());
    assert!(output.len() <= bound, "{} bytes where {bound} were told", output.len());
    output
}

#[test]
fn aes_in_parts_of_any_size_is_aes_in_one_call() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, true);
    for mechanism in [Mechanism::plain(M::AES_ECB), cbc(M::AES_CBC), cbc(M::AES_CBC_PAD), gcm()] {
        let padded = !matches!(mechanism.mechanism_type, M::AES_ECB | M::AES_CBC);
        for bytes in
            [0, 16, 32, 48, 160].into_iter().chain(if padded { vec![1, 15, 17, 100] } else { vec![] })
        {
            let data: Vec<u8> = (0..bytes).map(|number| number as u8).collect();
            let whole = encrypt(&lab, session, &mechanism, key, &data);
            assert_eq!(decrypt(&lab, session, &mechanism, key, &whole), data);
            for part_bytes in [1, 5, 16, 17, 64] {
                let name = format!("{} {bytes} in {part_bytes}", mechanism.mechanism_type);
                let parts = encrypt_parts(&lab, session, &mechanism, key, &mut data.chunks(part_bytes));
                assert_eq!(parts, whole, "{name}");
                let back = decrypt_parts(&lab, session, &mechanism, key, &mut whole.chunks(part_bytes));
                assert_eq!(back, data, "{name}");
            }
        }
    }
}

#[test]
fn cbc_gives_the_known_answer() {
    let lab = Lab::new();
    let session = lab.user();
    // SP 800-38A, F.2.1, first block.
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let value = hex("2b7e151628aed2a6abf7158809cf4f3c");
    let key = lab.module.create_object(session, secret_template(KeyType::AES, &value)).unwrap();
    let iv = Parameters::Iv(hex("000102030405060708090a0b0c0d0e0f"));
    let mechanism = Mechanism { mechanism_type: M::AES_CBC, parameters: iv };
    let block = hex("6bc1bee22e409f96e93d7e117393172a");
    assert_eq!(encrypt(&lab, session, &mechanism, key, &block), hex("7649abac8119b246cee98e9b12e9197d"));
}

#[test]
fn lengths_that_are_no_blocks_are_refused_with_the_code_of_their_direction() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, true);
    for mechanism in [Mechanism::plain(M::AES_ECB), cbc(M::AES_CBC)] {
        lab.module.encrypt_init(session, Some(mechanism.clone()), key).unwrap();
        assert_eq!(rv(lab.module.encrypt(session, &[0; 17], ROOM)), Rv::DATA_LEN_RANGE);
        lab.module.decrypt_init(session, Some(mechanism.clone()), key).unwrap();
        assert_eq!(rv(lab.module.decrypt(session, &[0; 17], ROOM)), Rv::ENCRYPTED_DATA_LEN_RANGE);
        lab.module.encrypt_init(session, Some(mechanism.clone()), key).unwrap();
        bytes(lab.module.encrypt_update(session, &[0; 17], ROOM));
        assert_eq!(rv(lab.module.encrypt_final(session, ROOM)), Rv::DATA_LEN_RANGE);
        lab.module.decrypt_init(session, Some(mechanism), key).unwrap();
        bytes(lab.module.decrypt_update(session, &[0; 17], ROOM));
        assert_eq!(rv(lab.module.decrypt_final(session, ROOM)), Rv::ENCRYPTED_DATA_LEN_RANGE);
    }
    lab.module.decrypt_init(session, Some(cbc(M::AES_CBC_PAD)), key).unwrap();
    assert_eq!(rv(lab.module.decrypt_final(session, ROOM)), Rv::ENCRYPTED_DATA_LEN_RANGE);
}

#[test]
fn a_short_buffer_for_an_unknown_length_executes_once_and_keeps_the_result() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, true);
    let mechanism = cbc(M::AES_CBC_PAD);
    let ciphertext = encrypt(&lab, session, &mechanism, key, b"twenty bytes of text");
    lab.module.decrypt_init(session, Some(mechanism.clone()), key).unwrap();
    assert_eq!(lab.module.decrypt(session, &ciphertext, Room::Ask).unwrap(), Produced::Length(32));
    let before = lab.seam.count_all();
    assert_eq!(lab.module.decrypt(session, &ciphertext, Room::Bytes(19)).unwrap(), Produced::TooSmall(20));
    assert_eq!(lab.module.decrypt(session, &ciphertext, Room::Ask).unwrap(), Produced::Length(20));
    assert_eq!(bytes(lab.module.decrypt(session, &ciphertext, Room::Bytes(20))), b"twenty bytes of text");
    assert_eq!(lab.seam.count_all(), before + 1, "nothing is executed twice");
    assert_eq!(rv(lab.module.decrypt(session, &ciphertext, ROOM)), Rv::OPERATION_NOT_INITIALIZED);
    // The same for Final.
    lab.module.decrypt_init(session, Some(mechanism), key).unwrap();
    let mut plain = bytes(lab.module.decrypt_update(session, &ciphertext, ROOM));
    assert_eq!(lab.module.decrypt_final(session, Room::Bytes(0)).unwrap(), Produced::TooSmall(20));
    plain.extend(bytes(lab.module.decrypt_final(session, Room::Bytes(20))));
    assert_eq!(plain, b"twenty bytes of text");
}

#[test]
fn update_with_a_short_buffer_takes_nothing() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, true);
    let whole = encrypt(&lab, session, &cbc(M::AES_CBC), key, &[4; 32]);
    lab.module.encrypt_init(session, Some(cbc(M::AES_CBC)), key).unwrap();
    let before = lab.seam.count_all();
    assert_eq!(
        lab.module.encrypt_update(session, &[4; 32], Room::Bytes(31)).unwrap(),
        Produced::TooSmall(32)
    );
    assert_eq!(lab.seam.count_all(), before);
    assert_eq!(bytes(lab.module.encrypt_update(session, &[4; 32], Room::Bytes(32))), whole);
    assert!(bytes(lab.module.encrypt_final(session, Room::Bytes(0))).is_empty());
}

#[test]
fn gcm_never_gives_unverified_plaintext() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, true);
    let mut ciphertext = encrypt(&lab, session, &gcm(), key, b"some plaintext");
    ciphertext[3] ^= 1;
    lab.module.decrypt_init(session, Some(gcm()), key).unwrap();
    assert!(bytes(lab.module.decrypt_update(session, &ciphertext, ROOM)).is_empty());
    let code = rv(lab.module.decrypt_final(session, ROOM));
    assert!([Rv::ENCRYPTED_DATA_INVALID, Rv::AEAD_DECRYPT_FAILED].contains(&code), "{code}");
    assert_eq!(rv(lab.module.decrypt_final(session, ROOM)), Rv::OPERATION_NOT_INITIALIZED);
}

#[test]
fn gathered_data_is_bounded() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, true);
    lab.module.encrypt_init(session, Some(gcm()), key).unwrap();
    let mebibyte = vec![0; 1 << 20];
    for _ in 0..16 {
        bytes(lab.module.encrypt_update(session, &mebibyte, ROOM));
    }
    assert_eq!(rv(lab.module.encrypt_update(session, &[1], ROOM)), Rv::DATA_LEN_RANGE);
    assert_eq!(rv(lab.module.encrypt_final(session, ROOM)), Rv::OPERATION_NOT_INITIALIZED);
}

#[test]
fn rsa_encrypts_and_decrypts_with_every_padding_also_in_parts() {
    let lab = Lab::new();
    let session = lab.user();
    let (public, private) = lab.rsa(session, true);
    let oaep = Mechanism {
        mechanism_type: M::RSA_PKCS_OAEP,
        parameters: Parameters::Oaep { hash: M::SHA256, mgf: MgfType::MGF1_SHA256, label: b"label".to_vec() },
    };
    let raw = [&[0][..], &[3; 255]].concat();
    let rows: [(Mechanism, &[u8]); 5] = [
        (oaep.clone(), b"secret"),
        (oaep, b""),
        (Mechanism::plain(M::RSA_PKCS), b"secret"),
        (Mechanism::plain(M::RSA_PKCS), b""),
        (Mechanism::plain(M::RSA_X_509), &raw),
    ];
    for (mechanism, data) in rows {
        let name = mechanism.mechanism_type;
        let whole = encrypt(&lab, session, &mechanism, public, data);
        assert_eq!(whole.len(), 256, "{name}");
        assert_eq!(decrypt(&lab, session, &mechanism, private, &whole), data, "{name}");
        let parts = encrypt_parts(&lab, session, &mechanism, public, &mut data.chunks(4));
        assert_eq!(decrypt_parts(&lab, session, &mechanism, private, &mut parts.chunks(100)), data, "{name}");
    }
}

#[test]
fn large_data_in_one_call_is_that_in_parts() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, true);
    let data: Vec<u8> = (0..5_000_001_u32).map(|number| (number % 253) as u8).collect();
    let whole = encrypt(&lab, session, &cbc(M::AES_CBC_PAD), key, &data);
    let parts = encrypt_parts(&lab, session, &cbc(M::AES_CBC_PAD), key, &mut data.chunks(1 << 20));
    assert!(parts == whole);
    assert!(decrypt(&lab, session, &cbc(M::AES_CBC_PAD), key, &whole) == data);
}
