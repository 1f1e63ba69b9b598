//! Generation of keys and pairs: CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_EC_KEY_PAIR_GEN, CKM_AES_KEY_GEN, CKM_GENERIC_SECRET_KEY_GEN
//! (PKCS #11 v3.1, 6.1.4, 6.3.9, 6.10.3, 6.8.3). Randomness is AWS-LC's.

use super::key::{Lookup, curve_of, signing, to_octet_string};
use super::random;
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair};
use awsraw::RsaPrivate;
use digests::significant;
use spec::flags::mechanism::{GENERATE, GENERATE_KEY_PAIR};
use spec::mechanisms::{Row, Unit};
use spec::value::as_ulong;
use spec::{Attribute, AttributeType as A, Mechanism, MechanismType as M, Rv};

/// The public exponent where the template names none.
const F4: &[u8] = &[1, 0, 1];

/// The attribute values that a generation made. Templates and attribute rules add the rest.
pub enum Generated {
    /// A secret key's CKA_VALUE and CKA_VALUE_LEN.
    Secret(Vec<Attribute>),
    /// The numbers of a pair.
    Pair {
        /// RSA: CKA_MODULUS, CKA_MODULUS_BITS, CKA_PUBLIC_EXPONENT. EC: CKA_EC_PARAMS, CKA_EC_POINT.
        public: Vec<Attribute>,
        /// RSA: CKA_MODULUS, both exponents and the five CRT numbers. EC: CKA_EC_PARAMS, CKA_VALUE.
        private: Vec<Attribute>,
    },
}

/// Makes a key or pair. `get` looks into the template of the secret key, or of the public key of a pair.
///
/// Errs with CKR_MECHANISM_INVALID for a mechanism that generates nothing, CKR_MECHANISM_PARAM_INVALID,
/// CKR_TEMPLATE_INCOMPLETE without CKA_MODULUS_BITS, CKA_EC_PARAMS or CKA_VALUE_LEN, CKR_CURVE_NOT_SUPPORTED, and
/// CKR_ATTRIBUTE_VALUE_INVALID for a size or exponent out of range.
pub fn generate(mechanism: &Mechanism, get: Lookup<'_>) -> Result<Generated, Rv> {
    let row = mechanism.check()?;
    if !row.permits(GENERATE | GENERATE_KEY_PAIR) {
        return Err(Rv::MECHANISM_INVALID);
    }
    match mechanism.mechanism_type {
        M::RSA_PKCS_KEY_PAIR_GEN => rsa(row, get),
        M::EC_KEY_PAIR_GEN => ec(get),
        M::AES_KEY_GEN => {
            let bytes = size(row, A::VALUE_LEN, get)?;
            if bytes.is_multiple_of(8) { secret(bytes) } else { Err(Rv::ATTRIBUTE_VALUE_INVALID) }
        }
        M::GENERIC_SECRET_KEY_GEN => secret(size(row, A::VALUE_LEN, get)?),
        _ => Err(Rv::MECHANISM_INVALID),
    }
}

/// A size of the template, within the row's limits. CKA_VALUE_LEN counts bytes even where the row counts bits.
fn size(row: &Row, kind: A, get: Lookup<'_>) -> Result<u64, Rv> {
    let found = as_ulong(get(kind).ok_or(Rv::TEMPLATE_INCOMPLETE)?).ok_or(Rv::ATTRIBUTE_VALUE_INVALID)?;
    let unit = if kind == A::VALUE_LEN && row.key_size_unit == Unit::Bits { 8 } else { 1 };
    let within =
        found.checked_mul(unit).is_some_and(|size| (row.key_size_min..=row.key_size_max).contains(&size));
    if within { Ok(found) } else { Err(Rv::ATTRIBUTE_VALUE_INVALID) }
}

fn secret(bytes: u64) -> Result<Generated, Rv> {
    let value = random(usize::try_from(bytes).map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)?)?;
    Ok(Generated::Secret(vec![
        Attribute::new(A::VALUE, value.to_vec()),
        Attribute::ulong(A::VALUE_LEN, bytes),
    ]))
}

fn rsa(row: &Row, get: Lookup<'_>) -> Result<Generated, Rv> {
    let bits = u32::try_from(size(row, A::MODULUS_BITS, get)?).map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)?;
    let exponent = significant(get(A::PUBLIC_EXPONENT).unwrap_or(F4));
    let key = RsaPrivate::generate(bits, exponent).map_err(|fault| match fault {
        awsraw::Error::Key | awsraw::Error::Input => Rv::ATTRIBUTE_VALUE_INVALID,
        awsraw::Error::Failed => Rv::FUNCTION_FAILED,
    })?;
    let parts = key.components();
    let modulus = Attribute::new(A::MODULUS, parts.modulus);
    let exponent = Attribute::new(A::PUBLIC_EXPONENT, parts.public_exponent);
    let length = Attribute::ulong(A::MODULUS_BITS, u64::from(bits));
    let mut private = vec![modulus.clone(), exponent.clone()];
    private.push(Attribute::new(A::PRIVATE_EXPONENT, parts.private_exponent.to_vec()));
    let kinds = [A::PRIME_1, A::PRIME_2, A::EXPONENT_1, A::EXPONENT_2, A::COEFFICIENT];
    let numbers = parts.crt.ok_or(Rv::FUNCTION_FAILED)?;
    private.extend(kinds.iter().zip(&numbers).map(|(kind, number)| Attribute::new(*kind, number.to_vec())));
    Ok(Generated::Pair { public: vec![modulus, length, exponent], private })
}

fn ec(get: Lookup<'_>) -> Result<Generated, Rv> {
    let curve = curve_of(get(A::EC_PARAMS).ok_or(Rv::TEMPLATE_INCOMPLETE)?)?;
    let pair = EcdsaKeyPair::generate(signing(curve)).map_err(|_| Rv::FUNCTION_FAILED)?;
    let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(|_| Rv::FUNCTION_FAILED)?;
    let parameters = Attribute::new(A::EC_PARAMS, curve.parameters());
    let point = Attribute::new(A::EC_POINT, to_octet_string(pair.public_key().as_ref()));
    let value = Attribute::new(A::VALUE, scalar.as_ref());
    Ok(Generated::Pair { public: vec![parameters.clone(), point], private: vec![parameters, value] })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::KeyMaterial;
    use crate::mechanisms::known::*;
    use digests::EcCurve;
    use spec::{KeyType, ObjectClass};

    fn made(mechanism: M, template: &[Attribute]) -> Result<Generated, Rv> {
        generate(&plain(mechanism), &|kind| attributes(template, kind))
    }

    fn pair(
        mechanism: M,
        template: &[Attribute],
        key_type: KeyType,
    ) -> (KeyMaterial, KeyMaterial, Vec<Attribute>) {
        let Generated::Pair { public, private } = made(mechanism, template).unwrap() else {
            panic!("a pair was asked for");
        };
        let material = |class, list: &[Attribute]| {
            KeyMaterial::from_attributes(class, key_type, &|kind| attributes(list, kind)).unwrap()
        };
        (material(ObjectClass::PRIVATE_KEY, &private), material(ObjectClass::PUBLIC_KEY, &public), public)
    }

    #[test]
    fn rsa_pairs_sign_and_verify_and_have_the_size_and_exponent_asked_for() {
        // No vector exists for a random key; the rsa crate checks the pair instead.
        for exponent in [None, Some(vec![0, 0, 3])] {
            let mut template = vec![Attribute::ulong(A::MODULUS_BITS, 2048)];
            template.extend(exponent.clone().map(|e| Attribute::new(A::PUBLIC_EXPONENT, e)));
            let (private, public, list) = pair(M::RSA_PKCS_KEY_PAIR_GEN, &template, KeyType::RSA);
            assert_eq!((private.bits(), public.bits()), (2048, 2048));
            assert_eq!(attributes(&list, A::MODULUS_BITS), Some(&2048u64.to_le_bytes()[..]));
            let expected = exponent.map_or(F4.to_vec(), |_| vec![3]);
            assert_eq!(attributes(&list, A::PUBLIC_EXPONENT), Some(&expected[..]));
            let signature = sign(&plain(M::RSA_PKCS), &private, b"data").unwrap();
            assert_eq!(verify(&plain(M::RSA_PKCS), &public, b"data", &signature), Ok(()));
            let number = |kind| rsa::BigUint::from_bytes_be(attributes(&list, kind).unwrap());
            let other = rsa::RsaPublicKey::new(number(A::MODULUS), number(A::PUBLIC_EXPONENT)).unwrap();
            other.verify(rsa::Pkcs1v15Sign::new_unprefixed(), b"data", &signature).unwrap();
        }
    }

    #[test]
    fn rsa_sizes_and_exponents_out_of_range_are_refused() {
        let refused = |bits: u64, e: &[u8]| {
            let template = [Attribute::ulong(A::MODULUS_BITS, bits), Attribute::new(A::PUBLIC_EXPONENT, e)];
            made(M::RSA_PKCS_KEY_PAIR_GEN, &template).err()
        };
        for bits in [0, 1024, 2047, 2049, 2100, 8320, u64::MAX] {
            assert_eq!(refused(bits, F4), Some(Rv::ATTRIBUTE_VALUE_INVALID), "{bits}");
        }
        for e in [&[][..], &[0], &[1], &[4], &[1, 0, 0, 0, 1]] {
            assert_eq!(refused(2048, e), Some(Rv::ATTRIBUTE_VALUE_INVALID));
        }
        assert_eq!(made(M::RSA_PKCS_KEY_PAIR_GEN, &[]).err(), Some(Rv::TEMPLATE_INCOMPLETE));
    }

    #[test]
    fn ec_pairs_sign_and_verify_on_every_curve() {
        for curve in EcCurve::ALL {
            let template = [Attribute::new(A::EC_PARAMS, curve.parameters())];
            let (private, public, list) = pair(M::EC_KEY_PAIR_GEN, &template, KeyType::EC);
            let signature = sign(&plain(M::ECDSA), &private, &[7; 32]).unwrap();
            assert_eq!(verify(&plain(M::ECDSA), &public, &[7; 32], &signature), Ok(()));
            if curve == EcCurve::P256 {
                let point = &attributes(&list, A::EC_POINT).unwrap()[2..];
                p256::PublicKey::from_sec1_bytes(point).unwrap();
            }
        }
        let unknown = [Attribute::new(A::EC_PARAMS, [6, 5, 0x2b, 0x81, 4, 0, 0x0a])];
        assert_eq!(made(M::EC_KEY_PAIR_GEN, &unknown).err(), Some(Rv::CURVE_NOT_SUPPORTED));
        assert_eq!(made(M::EC_KEY_PAIR_GEN, &[]).err(), Some(Rv::TEMPLATE_INCOMPLETE));
    }

    #[test]
    fn secrets_are_random_and_of_the_length_asked_for() {
        let value = |mechanism, bytes| match made(mechanism, &[Attribute::ulong(A::VALUE_LEN, bytes)]) {
            Ok(Generated::Secret(list)) => Ok(attributes(&list, A::VALUE).unwrap().to_vec()),
            Ok(Generated::Pair { .. }) => panic!("a secret was asked for"),
            Err(rv) => Err(rv),
        };
        for bytes in [16, 24, 32] {
            let (one, two) = (value(M::AES_KEY_GEN, bytes).unwrap(), value(M::AES_KEY_GEN, bytes).unwrap());
            assert!(one.len() as u64 == bytes && one != two);
        }
        for bytes in [0, 8, 15, 20, 33, 40] {
            assert_eq!(value(M::AES_KEY_GEN, bytes), Err(Rv::ATTRIBUTE_VALUE_INVALID));
        }
        for bytes in [1, 20, 1024] {
            assert_eq!(value(M::GENERIC_SECRET_KEY_GEN, bytes).unwrap().len() as u64, bytes);
        }
        for bytes in [0, 1025, u64::MAX] {
            assert_eq!(value(M::GENERIC_SECRET_KEY_GEN, bytes), Err(Rv::ATTRIBUTE_VALUE_INVALID));
        }
        assert_eq!(made(M::AES_KEY_GEN, &[]).err(), Some(Rv::TEMPLATE_INCOMPLETE));
        assert_eq!(made(M::AES_CBC, &[]).err(), Some(Rv::MECHANISM_PARAM_INVALID));
        assert_eq!(made(M::AES_ECB, &[]).err(), Some(Rv::MECHANISM_INVALID));
    }
}
