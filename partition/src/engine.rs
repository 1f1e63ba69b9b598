//! The narrow way from records to the mechanisms: parsing a record's key, and what follows from key material.
use aws_lc_rs::cipher::{AES_128, AES_192, AES_256, EncryptingKey, UnboundCipherKey};
use digests::{Hash, digest};
use spec::record::Record;
use spec::{AttributeType as A, KeyType, ObjectClass, Rv, value};

use crate::mechanisms::KeyMaterial;

/// A key parsed from a record.
pub(crate) struct Key(pub(crate) KeyMaterial);

impl Key {
    /// The key of a record; CKR_KEY_HANDLE_INVALID for a record that is no key.
    pub(crate) fn parse(record: &Record) -> Result<Key, Rv> {
        let number = |kind| record.get(kind).and_then(value::as_ulong);
        let class = number(A::CLASS).map(ObjectClass).ok_or(Rv::KEY_HANDLE_INVALID)?;
        if !spec::classes::is_key(class) {
            return Err(Rv::KEY_HANDLE_INVALID);
        }
        let key_type = number(A::KEY_TYPE).map(KeyType).ok_or(Rv::KEY_HANDLE_INVALID)?;
        KeyMaterial::from_attributes(class, key_type, &|kind| record.get(kind)).map(Key)
    }
}

/// `CKA_CHECK_VALUE` (PKCS #11 v3.1, 4.6.2, 4.10.2): of AES the first three bytes of an encrypted zero block, of
/// anything else the first three bytes of the SHA-1 of the value.
pub(crate) fn check_value(key_type: Option<KeyType>, value: &[u8]) -> Option<[u8; 3]> {
    let bytes = if key_type == Some(KeyType::AES) {
        let algorithm = match value.len() {
            16 => &AES_128,
            24 => &AES_192,
            32 => &AES_256,
            _ => return None,
        };
        let mut block = vec![0; 16];
        let key = EncryptingKey::ecb(UnboundCipherKey::new(algorithm, value).ok()?).ok()?;
        key.encrypt(&mut block).ok()?;
        block
    } else {
        digest(Hash::Sha1, value).to_vec()
    };
    bytes.get(..3)?.try_into().ok()
}

/// `CKA_PUBLIC_KEY_INFO`: the SubjectPublicKeyInfo (RFC 5280, 4.1) of a key or of its public half; none for secrets.
pub(crate) fn public_key_info(key: &KeyMaterial, get: &dyn Fn(A) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    match key {
        KeyMaterial::RsaPublic(_) | KeyMaterial::RsaPrivate(_) => {
            let numbers = [integer(&get(A::MODULUS)?), integer(&get(A::PUBLIC_EXPONENT)?)].concat();
            Some(subject_public_key_info(RSA_ENCRYPTION, &tagged(0x30, &numbers)))
        }
        KeyMaterial::EcPublic(key) => Some(ec_info(&get(A::EC_PARAMS)?, key.point())),
        KeyMaterial::EcPrivate(key) => Some(ec_info(&get(A::EC_PARAMS)?, &key.point)),
        KeyMaterial::Secret(_) => None,
    }
}

/// rsaEncryption with its NULL parameter (RFC 8017, A.1).
const RSA_ENCRYPTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// id-ecPublicKey (RFC 5480, 2.1.1); the curve follows.
const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";

fn ec_info(curve: &[u8], point: &[u8]) -> Vec<u8> {
    let algorithm = [EC_PUBLIC_KEY, curve].concat();
    subject_public_key_info(&algorithm, point)
}

fn subject_public_key_info(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let bits = [&[0], key].concat();
    tagged(0x30, &[tagged(0x30, algorithm), tagged(0x03, &bits)].concat())
}

/// An unsigned INTEGER.
fn integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[start..];
    let sign: &[u8] = if number.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
    tagged(0x02, &[sign, number].concat())
}

/// DER of one element; contents below 64 KiB.
fn tagged(tag: u8, inside: &[u8]) -> Vec<u8> {
    let length = (inside.len() as u64).to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    match inside.len() {
        0 => der.push(0),
        1..0x80 => der.extend_from_slice(significant),
        _ => {
            der.push(0x80 | u8::try_from(significant.len()).expect("a length has at most eight bytes"));
            der.extend_from_slice(significant);
        }
    }
    der.extend_from_slice(inside);
    der
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The encrypted zero block under the zero key is H of GCM's test case 1 (McGrew and Viega, appendix B).
    #[test]
    fn check_values_are_of_the_standard() {
        assert_eq!(check_value(Some(KeyType::AES), &[0; 16]), Some([0x66, 0xe9, 0x4b]));
        assert_eq!(check_value(Some(KeyType::GENERIC_SECRET), b"abc"), Some([0xa9, 0x99, 0x3e]));
        assert_eq!(check_value(None, b"abc"), Some([0xa9, 0x99, 0x3e]));
        assert_eq!(check_value(Some(KeyType::AES), &[0; 5]), None);
    }

    #[test]
    fn lengths_of_der_are_short_below_128_and_long_from_there() {
        assert_eq!(tagged(4, &[])[..], [4, 0]);
        assert_eq!(tagged(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(tagged(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(tagged(4, &[7; 256])[..4], [4, 0x82, 1, 0]);
        assert_eq!(integer(&[0, 0x80])[..], [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0])[..], [2, 1, 0]);
    }

    #[test]
    fn public_key_info_of_both_halves_is_what_another_implementation_writes() {
        use p256::pkcs8::EncodePublicKey;
        let secret = p256::SecretKey::from_slice(&[0x17; 32]).unwrap();
        let expected = secret.public_key().to_public_key_der().unwrap();
        let params: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
        let get = |kind| match kind {
            A::EC_PARAMS => Some(params),
            A::VALUE => Some(&[0x17; 32][..]),
            _ => None,
        };
        let key = KeyMaterial::from_attributes(ObjectClass::PRIVATE_KEY, KeyType::EC, &get).unwrap();
        assert_eq!(
            public_key_info(&key, &|kind| get(kind).map(<[u8]>::to_vec)).unwrap(),
            expected.as_bytes()
        );
    }
}
