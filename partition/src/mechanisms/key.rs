//! Key material: a key parsed once from its attributes, checked, and ready for use by many threads.
//!
//! Attribute values are canonical (`spec::value`). Nothing here has `Debug`; secret bytes are wiped when dropped.

use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair};
use awsraw::{Curve, EcdsaPrivate, RsaPrivate};
use digests::{EcCurve, EcPublicKey, Hash, RsaPublicKey, digest, significant};
use spec::mechanisms::SECRET_KEY_TYPES;
use spec::{Attribute, AttributeType as A, KeyType, ObjectClass, Rv};
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Largest secret that is taken, in bytes (the limit of the mechanism table).
const SECRET_BYTES_MAX: usize = 1024;

/// How attributes are looked up: the canonical value of a type, if there is one.
pub type Lookup<'a> = &'a dyn Fn(A) -> Option<&'a [u8]>;

/// A key ready for use.
pub enum KeyMaterial {
    /// RSA public key.
    RsaPublic(RsaPublicKey),
    /// RSA private key.
    RsaPrivate(RsaPrivateKey),
    /// Public key on a NIST curve.
    EcPublic(EcPublicKey),
    /// Private key on a NIST curve.
    EcPrivate(EcPrivateKey),
    /// AES key or generic secret.
    Secret(SecretKey),
}

/// An RSA private key.
pub struct RsaPrivateKey {
    pub(crate) raw: RsaPrivate,
    pub(crate) modulus_bits: usize,
    /// SHA-256 of the private exponent in k bytes, for implicit rejection (RULES 2.16).
    pub(crate) exponent_hash: Zeroizing<[u8; 32]>,
}

/// A private key on a curve.
pub struct EcPrivateKey {
    pub(crate) curve: EcCurve,
    pub(crate) raw: EcdsaPrivate,
    /// Its public key, uncompressed.
    pub(crate) point: Vec<u8>,
}

/// A secret key.
pub struct SecretKey {
    pub(crate) key_type: KeyType,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// Its expanded form for AES-GCM, from the first use on.
    pub(crate) gcm: OnceLock<Box<LessSafeKey>>,
}

impl KeyMaterial {
    /// The key of an object of this class and type, as C_CreateObject gives it or a record holds it.
    ///
    /// An RSA private key needs modulus and both exponents, and takes the five CRT numbers all or none. An EC private key needs
    /// EC_PARAMS and VALUE. Errs with CKR_TEMPLATE_INCOMPLETE (something is missing), CKR_TEMPLATE_INCONSISTENT (CRT numbers in
    /// part), CKR_CURVE_NOT_SUPPORTED, CKR_ATTRIBUTE_VALUE_INVALID (malformed, out of range, or numbers that contradict each
    /// other) or, for classes and types that hold no usable key, CKR_KEY_TYPE_INCONSISTENT.
    pub fn from_attributes(
        class: ObjectClass,
        key_type: KeyType,
        get: Lookup<'_>,
    ) -> Result<KeyMaterial, Rv> {
        match (class, key_type) {
            (ObjectClass::PUBLIC_KEY, KeyType::RSA) => rsa_public(get).map(KeyMaterial::RsaPublic),
            (ObjectClass::PRIVATE_KEY, KeyType::RSA) => rsa_private(get).map(KeyMaterial::RsaPrivate),
            (ObjectClass::PUBLIC_KEY, KeyType::EC) => ec_public(get).map(KeyMaterial::EcPublic),
            (ObjectClass::PRIVATE_KEY, KeyType::EC) => ec_private(get).map(KeyMaterial::EcPrivate),
            (ObjectClass::SECRET_KEY, _) => secret(key_type, get).map(KeyMaterial::Secret),
            _ => Err(Rv::KEY_TYPE_INCONSISTENT),
        }
    }

    /// The key's type.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match self {
            KeyMaterial::RsaPublic(_) | KeyMaterial::RsaPrivate(_) => KeyType::RSA,
            KeyMaterial::EcPublic(_) | KeyMaterial::EcPrivate(_) => KeyType::EC,
            KeyMaterial::Secret(key) => key.key_type,
        }
    }

    /// The key's size in bits: modulus, order of the curve, or secret bytes.
    #[must_use]
    pub fn bits(&self) -> usize {
        match self {
            KeyMaterial::RsaPublic(key) => key.modulus_bits(),
            KeyMaterial::RsaPrivate(key) => key.modulus_bits,
            KeyMaterial::EcPublic(key) => key.curve().order_bits(),
            KeyMaterial::EcPrivate(key) => key.curve.order_bits(),
            KeyMaterial::Secret(key) => key.bytes.len() * 8,
        }
    }

    /// The attributes that an object holding this key has besides those it was given: CKA_MODULUS_BITS of an RSA public key,
    /// CKA_VALUE_LEN of a secret (PKCS #11 v3.1, 6.1.2 and 4.10).
    #[must_use]
    pub fn implied(&self) -> Vec<Attribute> {
        match self {
            KeyMaterial::RsaPublic(key) => vec![Attribute::ulong(A::MODULUS_BITS, key.modulus_bits() as u64)],
            KeyMaterial::Secret(key) => vec![Attribute::ulong(A::VALUE_LEN, key.bytes.len() as u64)],
            KeyMaterial::RsaPrivate(_) | KeyMaterial::EcPublic(_) | KeyMaterial::EcPrivate(_) => Vec::new(),
        }
    }
}

/// A value that must be there.
fn needed<'a>(get: Lookup<'a>, kind: A) -> Result<&'a [u8], Rv> {
    get(kind).ok_or(Rv::TEMPLATE_INCOMPLETE)
}

fn rsa_public(get: Lookup<'_>) -> Result<RsaPublicKey, Rv> {
    let (n, e) = (needed(get, A::MODULUS)?, needed(get, A::PUBLIC_EXPONENT)?);
    RsaPublicKey::new(n, e).ok_or(Rv::ATTRIBUTE_VALUE_INVALID)
}

fn rsa_private(get: Lookup<'_>) -> Result<RsaPrivateKey, Rv> {
    let [n, e, d] = [A::MODULUS, A::PUBLIC_EXPONENT, A::PRIVATE_EXPONENT].map(|kind| needed(get, kind));
    let (n, d) = (n?, d?);
    let e = digests::public_exponent(e?).ok_or(Rv::ATTRIBUTE_VALUE_INVALID)?;
    let modulus_bits = digests::modulus_bits(n).ok_or(Rv::ATTRIBUTE_VALUE_INVALID)?;
    let crt = [A::PRIME_1, A::PRIME_2, A::EXPONENT_1, A::EXPONENT_2, A::COEFFICIENT].map(get);
    let crt = match crt {
        [Some(p), Some(q), Some(dp), Some(dq), Some(inverse)] => Some([p, q, dp, dq, inverse]),
        [None, None, None, None, None] => None,
        _ => return Err(Rv::TEMPLATE_INCONSISTENT),
    };
    let raw = RsaPrivate::from_components(n, e, d, crt).map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)?;
    Ok(RsaPrivateKey { exponent_hash: exponent_hash(d, raw.modulus_bytes()), raw, modulus_bits })
}

/// The SHA-256 of a private exponent in k bytes.
fn exponent_hash(d: &[u8], k: usize) -> Zeroizing<[u8; 32]> {
    let d = significant(d);
    let mut padded = Zeroizing::new(vec![0; k.max(d.len())]);
    let start = padded.len() - d.len();
    padded[start..].copy_from_slice(d);
    let mut hash = Zeroizing::new([0; 32]);
    hash.copy_from_slice(&digest(Hash::Sha256, &padded));
    hash
}

fn ec_public(get: Lookup<'_>) -> Result<EcPublicKey, Rv> {
    let curve = curve_of(needed(get, A::EC_PARAMS)?)?;
    let point = octet_string(needed(get, A::EC_POINT)?).ok_or(Rv::ATTRIBUTE_VALUE_INVALID)?;
    EcPublicKey::new(curve, point).ok_or(Rv::ATTRIBUTE_VALUE_INVALID)
}

fn ec_private(get: Lookup<'_>) -> Result<EcPrivateKey, Rv> {
    let curve = curve_of(needed(get, A::EC_PARAMS)?)?;
    let value = significant(needed(get, A::VALUE)?);
    if value.is_empty() || value.len() > curve.scalar_bytes() {
        return Err(Rv::ATTRIBUTE_VALUE_INVALID);
    }
    let mut scalar = Zeroizing::new(vec![0; curve.scalar_bytes()]);
    let start = scalar.len() - value.len();
    scalar[start..].copy_from_slice(value);
    let der = sec1(curve, &scalar);
    let pair =
        EcdsaKeyPair::from_private_key_der(signing(curve), &der).map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)?;
    // Some applications put the point into the private object too; then it must be the right one.
    match get(A::EC_POINT) {
        Some(point) if octet_string(point) != Some(pair.public_key().as_ref()) => {
            Err(Rv::ATTRIBUTE_VALUE_INVALID)
        }
        _ => {
            let raw = EcdsaPrivate::new(raw_curve(curve), &scalar);
            let point = pair.public_key().as_ref().to_vec();
            Ok(EcPrivateKey { curve, raw: raw.map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)?, point })
        }
    }
}

/// The curve as `awsraw` names it.
fn raw_curve(curve: EcCurve) -> Curve {
    match curve {
        EcCurve::P256 => Curve::P256,
        EcCurve::P384 => Curve::P384,
        EcCurve::P521 => Curve::P521,
    }
}

/// `ECPrivateKey` of RFC 5915 without its public key, which aws-lc-rs computes.
fn sec1(curve: EcCurve, scalar: &[u8]) -> Zeroizing<Vec<u8>> {
    let oid = curve.parameters();
    let short = |length: usize| {
        u8::try_from(length).expect("66 bytes of scalar and ten of OID fit a short DER length")
    };
    let mut der = Zeroizing::new(Vec::with_capacity(96));
    der.extend_from_slice(&[
        0x30,
        short(3 + 2 + scalar.len() + 2 + oid.len()),
        2,
        1,
        1,
        4,
        short(scalar.len()),
    ]);
    der.extend_from_slice(scalar);
    der.extend_from_slice(&[0xa0, short(oid.len())]);
    der.extend_from_slice(oid);
    der
}

fn secret(key_type: KeyType, get: Lookup<'_>) -> Result<SecretKey, Rv> {
    let value = needed(get, A::VALUE)?;
    let right = if key_type == KeyType::AES {
        matches!(value.len(), 16 | 24 | 32)
    } else if SECRET_KEY_TYPES.contains(&key_type) {
        (1..=SECRET_BYTES_MAX).contains(&value.len())
    } else {
        return Err(Rv::KEY_TYPE_INCONSISTENT);
    };
    let told =
        get(A::VALUE_LEN).is_none_or(|length| spec::value::as_ulong(length) == Some(value.len() as u64));
    if right && told {
        Ok(SecretKey { key_type, bytes: Zeroizing::new(value.to_vec()), gcm: OnceLock::new() })
    } else {
        Err(Rv::ATTRIBUTE_VALUE_INVALID)
    }
}

/// The curve of CKA_EC_PARAMS, which must be a named curve by its object identifier.
pub(crate) fn curve_of(parameters: &[u8]) -> Result<EcCurve, Rv> {
    let known = EcCurve::from_parameters(parameters);
    let well_formed = matches!(parameters, [0x06, length, oid @ ..] if oid.len() == usize::from(*length));
    known.ok_or(if well_formed { Rv::CURVE_NOT_SUPPORTED } else { Rv::ATTRIBUTE_VALUE_INVALID })
}

/// The algorithm that signs on a curve.
pub(crate) fn signing(curve: EcCurve) -> &'static signature::EcdsaSigningAlgorithm {
    match curve {
        EcCurve::P256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        EcCurve::P384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        EcCurve::P521 => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}

/// The DER of an OCTET STRING of up to 255 bytes, the value of CKA_EC_POINT.
pub(crate) fn to_octet_string(point: &[u8]) -> Vec<u8> {
    let length = u8::try_from(point.len()).expect("a point of the curves in scope has at most 133 bytes");
    let head: &[u8] = if length < 0x80 { &[4, length] } else { &[4, 0x81, length] };
    [head, point].concat()
}

/// What is inside the DER of an OCTET STRING that ends with the value.
fn octet_string(der: &[u8]) -> Option<&[u8]> {
    match der {
        [4, 0x81, length, inside @ ..] if *length >= 0x80 && inside.len() == usize::from(*length) => {
            Some(inside)
        }
        [4, length, inside @ ..] if *length < 0x80 && inside.len() == usize::from(*length) => Some(inside),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::{self, attributes};
    use p256::elliptic_curve::sec1::ToEncodedPoint;

    fn refusal(class: ObjectClass, key_type: KeyType, list: &[Attribute]) -> Option<Rv> {
        KeyMaterial::from_attributes(class, key_type, &|kind| attributes(list, kind)).err()
    }

    #[test]
    fn rsa_private_key_needs_three_numbers_and_takes_crt_all_or_none() {
        let full = known::rsa_private_attributes();
        let class = ObjectClass::PRIVATE_KEY;
        assert_eq!(refusal(class, KeyType::RSA, &full), None);
        assert_eq!(refusal(class, KeyType::RSA, &full[..3]), None);
        assert_eq!(refusal(class, KeyType::RSA, &full[..2]), Some(Rv::TEMPLATE_INCOMPLETE));
        assert_eq!(refusal(class, KeyType::RSA, &full[..5]), Some(Rv::TEMPLATE_INCONSISTENT));
        for i in 0..full.len() {
            let mut wrong = full.clone();
            wrong[i].value[0] ^= 0x20;
            assert_eq!(refusal(class, KeyType::RSA, &wrong), Some(Rv::ATTRIBUTE_VALUE_INVALID), "{i}");
        }
    }

    #[test]
    fn rsa_public_exponents_are_bounded() {
        let rsa = known::rsa_public_attributes();
        let of = |e: &[u8]| [rsa[0].clone(), Attribute::new(A::PUBLIC_EXPONENT, e)];
        let refused = |e: &[u8]| refusal(ObjectClass::PUBLIC_KEY, KeyType::RSA, &of(e));
        assert_eq!(refused(&[&[0; 8][..], &[0xff; 8]].concat()), None);
        assert_eq!(refused(&[0xff; 9]), Some(Rv::ATTRIBUTE_VALUE_INVALID));
        assert_eq!(refused(&rsa[0].value), Some(Rv::ATTRIBUTE_VALUE_INVALID));
        let mut private = known::rsa_private_attributes();
        private[1].value = vec![0xff; 9];
        let refused = refusal(ObjectClass::PRIVATE_KEY, KeyType::RSA, &private);
        assert_eq!(refused, Some(Rv::ATTRIBUTE_VALUE_INVALID));
    }

    #[test]
    fn public_keys_are_checked_and_bounded() {
        let class = ObjectClass::PUBLIC_KEY;
        let rsa = known::rsa_public_attributes();
        let key = KeyMaterial::from_attributes(class, KeyType::RSA, &|kind| attributes(&rsa, kind)).unwrap();
        assert_eq!(key.implied(), [Attribute::ulong(A::MODULUS_BITS, 2048)]);
        let long = [Attribute::new(A::MODULUS, vec![0xff; 1025]), rsa[1].clone()];
        let even = [Attribute::new(A::MODULUS, vec![0x80; 256]), rsa[1].clone()];
        let empty = [Attribute::new(A::MODULUS, vec![]), rsa[1].clone()];
        for wrong in [&long, &even, &empty] {
            assert_eq!(refusal(class, KeyType::RSA, wrong), Some(Rv::ATTRIBUTE_VALUE_INVALID));
        }
        assert_eq!(refusal(class, KeyType::RSA, &rsa[..1]), Some(Rv::TEMPLATE_INCOMPLETE));
        assert_eq!(refusal(class, KeyType::AES, &rsa), Some(Rv::KEY_TYPE_INCONSISTENT));
    }

    #[test]
    fn ec_keys_are_of_a_named_curve_with_a_point_on_it() {
        let key = p256::SecretKey::from_slice(&[0x17; 32]).unwrap();
        let point = key.public_key().to_encoded_point(false);
        let list = |parameters: &[u8], point: &[u8]| {
            vec![Attribute::new(A::EC_PARAMS, parameters), Attribute::new(A::EC_POINT, point)]
        };
        let p256 = EcCurve::P256.parameters();
        let good = to_octet_string(point.as_bytes());
        let refused = |list: Vec<Attribute>| refusal(ObjectClass::PUBLIC_KEY, KeyType::EC, &list);
        assert_eq!(refused(list(p256, &good)), None);
        let mut off = good.clone();
        off[66] ^= 1;
        let compressed = to_octet_string(key.public_key().to_encoded_point(true).as_bytes());
        for wrong in [&off[..], &compressed, point.as_bytes(), &good[..66], &[4, 1, 0], &[]] {
            assert_eq!(refused(list(p256, wrong)), Some(Rv::ATTRIBUTE_VALUE_INVALID));
        }
        let secp256k1 = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
        assert_eq!(refused(list(&secp256k1, &good)), Some(Rv::CURVE_NOT_SUPPORTED));
        assert_eq!(refused(list(b"secp256r1", &good)), Some(Rv::ATTRIBUTE_VALUE_INVALID));
        assert_eq!(refused(list(p256, &good)[..1].to_vec()), Some(Rv::TEMPLATE_INCOMPLETE));
    }

    #[test]
    fn ec_private_value_may_lack_leading_zeros_and_must_be_in_range() {
        for curve in EcCurve::ALL {
            let refused = |value: &[u8]| {
                let list =
                    [Attribute::new(A::EC_PARAMS, curve.parameters()), Attribute::new(A::VALUE, value)];
                refusal(ObjectClass::PRIVATE_KEY, KeyType::EC, &list)
            };
            assert_eq!(refused(&[5]), None);
            assert_eq!(refused(&[&[0], &vec![0x01; curve.scalar_bytes()][..]].concat()), None);
            for wrong in [&[][..], &[0; 40], &vec![0xff; curve.scalar_bytes()], &[1; 80]] {
                assert_eq!(refused(wrong), Some(Rv::ATTRIBUTE_VALUE_INVALID));
            }
        }
    }

    #[test]
    fn secrets_have_the_lengths_of_their_type() {
        let refused = |key_type, value: Vec<u8>| {
            refusal(ObjectClass::SECRET_KEY, key_type, &[Attribute::new(A::VALUE, value)])
        };
        for bytes in [16, 24, 32] {
            assert_eq!(refused(KeyType::AES, vec![1; bytes]), None);
        }
        for bytes in [0, 15, 17, 33, 64] {
            assert_eq!(refused(KeyType::AES, vec![1; bytes]), Some(Rv::ATTRIBUTE_VALUE_INVALID));
        }
        assert_eq!(refused(KeyType::GENERIC_SECRET, vec![1]), None);
        assert_eq!(refused(KeyType::SHA256_HMAC, vec![1; 1024]), None);
        assert_eq!(refused(KeyType::GENERIC_SECRET, vec![1; 1025]), Some(Rv::ATTRIBUTE_VALUE_INVALID));
        assert_eq!(refused(KeyType::DES3, vec![1; 24]), Some(Rv::KEY_TYPE_INCONSISTENT));
        let told = [Attribute::new(A::VALUE, vec![1; 16]), Attribute::ulong(A::VALUE_LEN, 32)];
        assert_eq!(refusal(ObjectClass::SECRET_KEY, KeyType::AES, &told), Some(Rv::ATTRIBUTE_VALUE_INVALID));
    }
}
