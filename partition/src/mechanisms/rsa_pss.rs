//! CKM_RSA_PKCS_PSS and the hash-and-sign forms over it (PKCS #11 v3.1, 6.1.10, 6.1.16, 6.1.17; RFC 8017, 8.1).

use super::rsa_pkcs::{modulus_bytes, opened, private, private_op, public};
use super::{Bytes, Family, Use, random};
use crate::padding::pss::Pss;
use digests::Hash;
use spec::mechanisms::mgf_hash;
use spec::messages::PlanAnswer;
use spec::{Parameters, Rv};

/// The family.
pub(super) struct RsaPss;

impl Family for RsaPss {
    fn plan(&self, job: &Use<'_>) -> Result<PlanAnswer, Rv> {
        let pss = choices(job)?;
        Ok(job.signature_plan(modulus_bytes(job.key)?, pss.hash.len_bytes()))
    }

    fn sign(&self, job: &Use<'_>, message: &[u8]) -> Result<Bytes, Rv> {
        let (key, pss) = (private(job.key)?, choices(job)?);
        let salt = random(pss.salt_bytes)?;
        private_op(key, &pss.encode(message, &salt, key.modulus_bits).ok_or(Rv::DATA_LEN_RANGE)?)
    }

    fn verify(&self, job: &Use<'_>, message: &[u8], signature: &[u8]) -> Result<(), Rv> {
        let (key, pss) = (public(job.key)?, choices(job)?);
        if message.len() != pss.hash.len_bytes() {
            return Err(Rv::DATA_LEN_RANGE);
        }
        let block = opened(key, signature)?;
        if pss.verifies(message, &block, key.modulus_bits) { Ok(()) } else { Err(Rv::SIGNATURE_INVALID) }
    }
}

/// The choices in the parameters, if hash and salt fit the key.
fn choices(job: &Use<'_>) -> Result<Pss, Rv> {
    let Parameters::Pss { hash, mgf, salt_bytes } = job.parameters else {
        return Err(Rv::MECHANISM_PARAM_INVALID);
    };
    let mask_hash = mgf_hash(*mgf).and_then(|hash| Hash::from_mechanism(hash.0));
    let (Some(hash), Some(mask_hash), Ok(salt_bytes)) =
        (Hash::from_mechanism(hash.0), mask_hash, usize::try_from(*salt_bytes))
    else {
        return Err(Rv::MECHANISM_PARAM_INVALID);
    };
    let pss = Pss { hash, mask_hash, salt_bytes };
    if pss.fits(job.key.bits()) { Ok(pss) } else { Err(Rv::MECHANISM_PARAM_INVALID) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use digests::digest;
    use spec::messages::{How, KeyFunction};
    use spec::numbers::MgfType;
    use spec::{Attribute, AttributeType as A, Mechanism, MechanismType as M};

    const FORMS: [(M, Hash, MgfType); 5] = [
        (M::SHA1_RSA_PKCS_PSS, Hash::Sha1, MgfType::MGF1_SHA1),
        (M::SHA224_RSA_PKCS_PSS, Hash::Sha224, MgfType::MGF1_SHA224),
        (M::SHA256_RSA_PKCS_PSS, Hash::Sha256, MgfType::MGF1_SHA256),
        (M::SHA384_RSA_PKCS_PSS, Hash::Sha384, MgfType::MGF1_SHA384),
        (M::SHA512_RSA_PKCS_PSS, Hash::Sha512, MgfType::MGF1_SHA512),
    ];

    fn pss(mechanism_type: M, hash: Hash, mgf: MgfType, salt_bytes: u64) -> Mechanism {
        let hash = M(hash.mechanism());
        Mechanism { mechanism_type, parameters: Parameters::Pss { hash, mgf, salt_bytes } }
    }

    /// Source: C2SP Wycheproof, testvectors_v1/rsa_pss_2048_sha256_mgf1_32_test.json, the group's key and test 3 ("Test").
    const MODULUS: &str = concat!(
        "a2b451a07d0aa5f96e455671513550514a8a5b462ebef717094fa1fee82224e637f9746d3f7cafd31878d80325b6ef5a",
        "1700f65903b469429e89d6eac8845097b5ab393189db92512ed8a7711a1253facd20f79c15e8247f3d3e42e46e48c98e",
        "254a2fe9765313a03eff8f17e1a029397a1fa26a8dce26f490ed81299615d9814c22da610428e09c7d9658594266f5c0",
        "21d0fceca08d945a12be82de4d1ece6b4c03145b5d3495d4ed5411eb878daf05fd7afc3e09ada0f1126422f590975a19",
        "69816f48698bcbba1b4d9cae79d460d8f9f85e7975005d9bc22c4e5ac0f7c1a45d12569a62807d3b9a02e5a530e77306",
        "6f453d1f5b4c2e9cf7820283f742b9d5"
    );
    const SIGNATURE: &str = concat!(
        "401eb03cdb47ca88033e3030f6bdecbac8f5c8fc1dd6a13d23d379ed9a2b309891d13d74fea9d21d159b9e6d8f37efa2",
        "489962e24555f56dd434ff1d31ce4f9f5abd3f22cbea8b691d6a11e44efb83e2bca155e6a164325e0fde2a8865afd5c9",
        "f51161a9d615f62af7ec2e31b3e5ab649c164490d31d88cfae35b84aea7925690f929a144b6d2f48e8fb894a52deecd1",
        "b9a6496990c4ecf1588699a42cacd10c53af350514e4291ea9a058e77f101e32c1c0cefa61d945f7bc931f8bd19e7ba3",
        "169358a60e5a8b0123bc3199b9fdcafe8e519c41ba675491a27b85e44ef2d77277c10fe107293c8290186913bc9a99b6",
        "40d8da041b64f31eab1d35920985f4a5"
    );

    #[test]
    fn wycheproof_signature_is_accepted_and_only_with_its_own_parameters() {
        let key = rsa_public_of(&[
            Attribute::new(A::MODULUS, unhex(MODULUS)),
            Attribute::new(A::PUBLIC_EXPONENT, vec![1, 0, 1]),
        ]);
        let right = pss(M::SHA256_RSA_PKCS_PSS, Hash::Sha256, MgfType::MGF1_SHA256, 32);
        assert_eq!(verify(&right, &key, b"Test", &unhex(SIGNATURE)), Ok(()));
        assert_eq!(verify(&right, &key, b"test", &unhex(SIGNATURE)), Err(Rv::SIGNATURE_INVALID));
        for wrong in [
            pss(M::SHA256_RSA_PKCS_PSS, Hash::Sha256, MgfType::MGF1_SHA256, 31),
            pss(M::SHA256_RSA_PKCS_PSS, Hash::Sha256, MgfType::MGF1_SHA1, 32),
        ] {
            assert_eq!(verify(&wrong, &key, b"Test", &unhex(SIGNATURE)), Err(Rv::SIGNATURE_INVALID));
        }
        let raw = pss(M::RSA_PKCS_PSS, Hash::Sha256, MgfType::MGF1_SHA256, 32);
        assert_eq!(verify(&raw, &key, &digest(Hash::Sha256, b"Test"), &unhex(SIGNATURE)), Ok(()));
    }

    #[test]
    fn every_form_signs_what_the_rsa_crate_accepts_and_the_other_way_round() {
        for (form, hash, mgf) in FORMS {
            let salt = hash.len_bytes();
            let mechanism = pss(form, hash, mgf, salt as u64);
            let (other, digest) = (second_pss(hash, salt), digest(hash, b"one two"));
            let whole = sign(&mechanism, &rsa_private(), b"one two").unwrap();
            let prehashed = use_prehash(&mechanism, &rsa_private(), &digest).unwrap();
            let streamed = use_stream(&mechanism, &rsa_private(), &[b"one", b" two"]).unwrap();
            let raw = pss(M::RSA_PKCS_PSS, hash, mgf, salt as u64);
            let bare = sign(&raw, &rsa_private(), &digest).unwrap();
            for signature in [whole, prehashed, streamed, bare] {
                second_rsa().to_public_key().verify(other(), &digest, &signature).unwrap();
                assert_eq!(verify(&mechanism, &rsa_public(), b"one two", &signature), Ok(()));
            }
            let theirs = second_rsa().sign_with_rng(&mut rsa::rand_core::OsRng, other(), &digest).unwrap();
            assert_eq!(verify(&mechanism, &rsa_public(), b"one two", &theirs), Ok(()));
        }
    }

    #[test]
    fn salts_that_do_not_fit_and_digests_of_other_lengths_are_refused() {
        let most = pss(M::RSA_PKCS_PSS, Hash::Sha256, MgfType::MGF1_SHA512, 222);
        let signature = sign(&most, &rsa_private(), &[1; 32]).unwrap();
        assert_eq!(verify(&most, &rsa_public(), &[1; 32], &signature), Ok(()));
        for salt in [223, u64::MAX] {
            let mechanism = pss(M::RSA_PKCS_PSS, Hash::Sha256, MgfType::MGF1_SHA256, salt);
            assert_eq!(
                plan_of(&mechanism, KeyFunction::SIGN, &rsa_private(), true).err(),
                Some(Rv::MECHANISM_PARAM_INVALID)
            );
        }
        let raw = pss(M::RSA_PKCS_PSS, Hash::Sha256, MgfType::MGF1_SHA256, 32);
        for bytes in [0, 20, 31, 33] {
            assert_eq!(sign(&raw, &rsa_private(), &vec![1; bytes]).err(), Some(Rv::DATA_LEN_RANGE));
            assert_eq!(verify(&raw, &rsa_public(), &vec![1; bytes], &[1; 256]), Err(Rv::DATA_LEN_RANGE));
        }
        let plan = plan_of(&raw, KeyFunction::SIGN, &rsa_private(), true).unwrap();
        assert_eq!((plan.how, plan.input_bytes_max, plan.output_bytes), (How::WHOLE.0, 32, 256));
    }
}
