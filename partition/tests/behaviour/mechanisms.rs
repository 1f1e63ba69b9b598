//! Every mechanism that Status names works through the door, from generation to verdict.
use spec::mechanisms::{ParameterKind, ROWS, Row};
use spec::messages::*;
use spec::numbers::MgfType;
use spec::{
    AttributeType as A, KeyType, Mechanism, MechanismType as M, Parameters, flags::mechanism as bits,
};

use crate::bench::*;

fn mechanism(row: &Row) -> Mechanism {
    let hash = row.hash.unwrap_or(M::SHA256);
    let mgf = MgfType::MGF1_SHA256;
    let parameters = match row.parameters {
        ParameterKind::None => Parameters::None,
        ParameterKind::Iv16 => Parameters::Iv(vec![5; 16]),
        ParameterKind::Gcm => Parameters::Gcm { iv: vec![6; 12], aad: b"aad".to_vec(), tag_bits: 128 },
        ParameterKind::Pss => Parameters::Pss { hash, mgf, salt_bytes: 20 },
        ParameterKind::Oaep => Parameters::Oaep { hash, mgf, label: vec![] },
        ParameterKind::MacGeneral => Parameters::MacGeneral { mac_bytes: 10 },
    };
    Mechanism { mechanism_type: row.mechanism, parameters }
}

/// Data that the mechanism takes: a digest for raw PSS, whole blocks for block modes, below the modulus for raw RSA.
fn data(row: &Row) -> Vec<u8> {
    match row.mechanism {
        M::RSA_X_509 => [vec![0], vec![1; 255]].concat(),
        _ => vec![1; 32],
    }
}

#[test]
fn every_mechanism_signs_and_verifies_or_encrypts_and_decrypts() {
    let bench = Bench::logged_in();
    let rsa = bench.create(rsa_pair(vec![token()], vec![token()]));
    let ec = bench.create(ec_pair(vec![token()], vec![token()]));
    let aes = bench.key(vec![token()]);
    let generic = generate(M::GENERIC_SECRET_KEY_GEN, vec![token(), yes(A::SIGN), yes(A::VERIFY)]);
    let generic = bench.create(generic).remove(0);
    let status = bench.status();
    assert_eq!(status.mechanisms.len(), ROWS.len());
    for row in ROWS.iter().filter(|row| !row.key_types.is_empty()) {
        let (public, private) = match row.key_types[0] {
            KeyType::RSA => (&rsa[0], &rsa[1]),
            KeyType::EC => (&ec[0], &ec[1]),
            KeyType::AES => (&aes, &aes),
            _ => (&generic, &generic),
        };
        let (mechanism, data) = (mechanism(row), data(row));
        if row.permits(bits::SIGN) {
            let signature = bench.used(whole(KeyFunction::SIGN, &mechanism, private, &data)).output.clone();
            let verify = whole(KeyFunction::VERIFY, &mechanism, public, &data);
            bench.used(changed!(verify; signature: signature));
        }
        if row.permits(bits::ENCRYPT) {
            let sealed = bench.used(whole(KeyFunction::ENCRYPT, &mechanism, public, &data)).output.clone();
            assert_ne!(sealed, data);
            let opened = bench.used(whole(KeyFunction::DECRYPT, &mechanism, private, &sealed));
            assert_eq!(opened.output, data, "{}", row.name());
        }
    }
}
