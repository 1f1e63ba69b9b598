//! CKM_ECDSA and the hash-and-sign forms over it on P-256, P-384 and P-521 (PKCS #11 v3.1, 6.3.13 and 6.3.14; FIPS 186-5, 6.4).
//! Signatures are `r || s`.

use super::{Bytes, EcPrivateKey, Family, KeyMaterial, Use};
use spec::Rv;
use spec::messages::PlanAnswer;
use zeroize::Zeroizing;

/// The family.
pub(super) struct Ecdsa;

impl Family for Ecdsa {
    fn plan(&self, job: &Use<'_>) -> Result<PlanAnswer, Rv> {
        Ok(job.signature_plan(2 * job.key.bits().div_ceil(8), 0))
    }

    fn sign(&self, job: &Use<'_>, message: &[u8]) -> Result<Bytes, Rv> {
        let KeyMaterial::EcPrivate(key) = job.key else {
            return Err(Rv::KEY_FUNCTION_NOT_PERMITTED);
        };
        // A signature of nothing is one of the number 0, which anybody forges.
        if message.is_empty() { Err(Rv::DATA_LEN_RANGE) } else { signature(key, message) }
    }

    fn verify(&self, job: &Use<'_>, message: &[u8], signature: &[u8]) -> Result<(), Rv> {
        let KeyMaterial::EcPublic(key) = job.key else {
            return Err(Rv::KEY_FUNCTION_NOT_PERMITTED);
        };
        key.verify(message, signature)
    }
}

/// Signs a digest of any length, of which the leftmost bits count.
///
/// DEVIATION: docs/adr/0006-deviations.md, item 11: by `awsraw`, also digests of up to 64 bytes (RULES 4).
fn signature(key: &EcPrivateKey, digest: &[u8]) -> Result<Bytes, Rv> {
    key.raw.sign_digest(digest).map(Zeroizing::new).map_err(|_| Rv::FUNCTION_FAILED)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use digests::{EcCurve, Hash, digest};
    use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
    use spec::MechanismType as M;
    use spec::messages::{How, KeyFunction};

    const FORMS: [(M, Hash); 5] = [
        (M::ECDSA_SHA1, Hash::Sha1),
        (M::ECDSA_SHA224, Hash::Sha224),
        (M::ECDSA_SHA256, Hash::Sha256),
        (M::ECDSA_SHA384, Hash::Sha384),
        (M::ECDSA_SHA512, Hash::Sha512),
    ];

    /// Verifies and signs with the crate of the curve, over the number that ECDSA takes of a digest.
    fn second_verifies(curve: EcCurve, digest: &[u8], signature: &[u8]) -> bool {
        let number = curve.truncated(digest);
        match curve {
            EcCurve::P256 => p256::ecdsa::SigningKey::from_slice(&ec_scalar(curve))
                .unwrap()
                .verifying_key()
                .verify_prehash(&number, &p256::ecdsa::Signature::from_slice(signature).unwrap())
                .is_ok(),
            EcCurve::P384 => p384::ecdsa::SigningKey::from_slice(&ec_scalar(curve))
                .unwrap()
                .verifying_key()
                .verify_prehash(&number, &p384::ecdsa::Signature::from_slice(signature).unwrap())
                .is_ok(),
            EcCurve::P521 => {
                let key = p521::ecdsa::SigningKey::from_slice(&ec_scalar(curve)).unwrap();
                p521::ecdsa::VerifyingKey::from(&key)
                    .verify_prehash(&number, &p521::ecdsa::Signature::from_slice(signature).unwrap())
                    .is_ok()
            }
        }
    }

    fn second_signs(curve: EcCurve, digest: &[u8]) -> Vec<u8> {
        let number = curve.truncated(digest);
        match curve {
            EcCurve::P256 => {
                let key = p256::ecdsa::SigningKey::from_slice(&ec_scalar(curve)).unwrap();
                let signature: p256::ecdsa::Signature = key.sign_prehash(&number).unwrap();
                signature.to_bytes().to_vec()
            }
            EcCurve::P384 => {
                let key = p384::ecdsa::SigningKey::from_slice(&ec_scalar(curve)).unwrap();
                let signature: p384::ecdsa::Signature = key.sign_prehash(&number).unwrap();
                signature.to_bytes().to_vec()
            }
            EcCurve::P521 => {
                let key = p521::ecdsa::SigningKey::from_slice(&ec_scalar(curve)).unwrap();
                let signature: p521::ecdsa::Signature = key.sign_prehash(&number).unwrap();
                signature.to_bytes().to_vec()
            }
        }
    }

    /// Signatures of "sample" on P-256. Source: RFC 6979, A.2.5; the key of `known::ec_scalar` is the one of that section.
    const SAMPLE: [(M, &str); 5] = [
        (
            M::ECDSA_SHA1,
            concat!(
                "61340C88C3AAEBEB4F6D667F672CA9759A6CCAA9FA8811313039EE4A35471D32",
                "6D7F147DAC089441BB2E2FE8F7A3FA264B9C475098FDCF6E00D7C996E1B8B7EB"
            ),
        ),
        (
            M::ECDSA_SHA224,
            concat!(
                "53B2FFF5D1752B2C689DF257C04C40A587FABABB3F6FC2702F1343AF7CA9AA3F",
                "B9AFB64FDC03DC1A131C7D2386D11E349F070AA432A4ACC918BEA988BF75C74C"
            ),
        ),
        (
            M::ECDSA_SHA256,
            concat!(
                "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
                "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
            ),
        ),
        (
            M::ECDSA_SHA384,
            concat!(
                "0EAFEA039B20E9B42309FB1D89E213057CBF973DC0CFC8F129EDDDC800EF7719",
                "4861F0491E6998B9455193E34E7B0D284DDD7149A74B95B9261F13ABDE940954"
            ),
        ),
        (
            M::ECDSA_SHA512,
            concat!(
                "8496A60B5E9B47C825488827E0495B0E3FA109EC4568FD3F8D1097678EB97F00",
                "2362AB1ADBE2B8ADF9CB9EDAB740EA6049C028114F2460F96554F61FAE3302FE"
            ),
        ),
    ];

    #[test]
    fn rfc_6979_signatures_are_accepted_in_raw_and_hashed_form() {
        let (key, raw) = (ec_public(EcCurve::P256), plain(M::ECDSA));
        for ((form, signature), (_, hash)) in SAMPLE.into_iter().zip(FORMS) {
            let (signature, sample) = (unhex(signature), digest(hash, b"sample"));
            assert_eq!(verify(&raw, &key, &sample, &signature), Ok(()), "{form}");
            assert_eq!(verify(&plain(form), &key, b"sample", &signature), Ok(()), "{form}");
            assert_eq!(verify(&plain(form), &key, b"simple", &signature), Err(Rv::SIGNATURE_INVALID));
            assert_eq!(verify(&raw, &key, &sample, &signature[1..]), Err(Rv::SIGNATURE_LEN_RANGE));
        }
    }

    #[test]
    fn every_hash_and_curve_agrees_with_the_crate_of_the_curve() {
        for curve in EcCurve::ALL {
            let (private, public) = (ec_private(curve), ec_public(curve));
            for (form, hash) in FORMS {
                let (mechanism, digest) = (plain(form), digest(hash, b"ab"));
                let whole = sign(&mechanism, &private, b"ab").unwrap();
                let prehashed = use_prehash(&mechanism, &private, &digest).unwrap();
                let streamed = use_stream(&mechanism, &private, &[b"a", b"b"]).unwrap();
                let raw = sign(&plain(M::ECDSA), &private, &digest).unwrap();
                for signature in [whole, prehashed, streamed, raw] {
                    assert_eq!(signature.len(), 2 * curve.scalar_bytes());
                    assert!(second_verifies(curve, &digest, &signature), "{form} {curve:?}");
                    assert_eq!(verify(&mechanism, &public, b"ab", &signature), Ok(()));
                }
                let theirs = second_signs(curve, &digest);
                assert_eq!(verify(&mechanism, &public, b"ab", &theirs), Ok(()), "{form} {curve:?}");
            }
        }
    }

    #[test]
    fn raw_digests_of_any_length_but_none_are_signed() {
        for curve in EcCurve::ALL {
            for bytes in [1, 20, 36, 64, 65, 66, 67, 128] {
                let data = vec![0xe7; bytes];
                let signature = sign(&plain(M::ECDSA), &ec_private(curve), &data).unwrap();
                assert!(second_verifies(curve, &data, &signature), "{bytes} {curve:?}");
                assert_eq!(verify(&plain(M::ECDSA), &ec_public(curve), &data, &signature), Ok(()));
            }
            let raw = plain(M::ECDSA);
            assert_eq!(sign(&raw, &ec_private(curve), b"").err(), Some(Rv::DATA_LEN_RANGE));
            let zeros = vec![0; 2 * curve.scalar_bytes()];
            assert_eq!(verify(&raw, &ec_public(curve), b"", &zeros), Err(Rv::DATA_LEN_RANGE));
        }
    }

    #[test]
    fn plans_give_the_length_of_r_and_s() {
        for (curve, bytes) in [(EcCurve::P256, 64), (EcCurve::P384, 96), (EcCurve::P521, 132)] {
            let plan = plan_of(&plain(M::ECDSA_SHA384), KeyFunction::SIGN, &ec_private(curve), true).unwrap();
            assert_eq!((plan.how, plan.prehash, plan.output_bytes), (How::PREHASH.0, M::SHA384.0, bytes));
        }
    }
}
