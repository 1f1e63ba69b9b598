//! CKM_RSA_PKCS_PSS and the hash-and-sign forms over it (PKCS #11 v3.1, 6.1.10, 6.1.16, 6.1.17; RFC 8017, 8.1).

use super::rsa_pkcs::{modulus_bytes, private, private_op, public};
use super::{Bytes, Family, Use, random};
use digests::Scheme;
use digests::padding::pss::Pss;
use spec::Rv;
use spec::messages::PlanAnswer;

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
        public(job.key)?.verify(&Scheme::Pss(choices(job)?), message, signature)
    }
}

/// The choices in the parameters, if hash and salt fit the key.
fn choices(job: &Use<'_>) -> Result<Pss, Rv> {
    match job.scheme()? {
        Scheme::Pss(pss) if pss.fits(job.key.bits()) => Ok(pss),
        _ => Err(Rv::MECHANISM_PARAM_INVALID),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use digests::{Hash, digest};
    use spec::messages::{How, KeyFunction};
    use spec::numbers::MgfType;
    use spec::{Attribute, AttributeType as A, Mechanism, MechanismType as M, Parameters};

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

    /// Form and signature of "one two" by "RSA-2048", salt as long as the digest, masked by the same hash. SHA-256 has its vector above.
    /// Source: OpenSSL 3.0, `openssl dgst -sha1 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1 -sign key.pem` and so on.
    const OPENSSL: [(M, &str); 4] = [
        (
            M::SHA1_RSA_PKCS_PSS,
            concat!(
                "47e25ee3829368759cabc10f3273e9f177fd05ddabdbe1a384336c504d610b0bb4b9b904f456427dbdb7a15dc72d5d9e",
                "b67dfcd9897e4c7d3dcb5d59c0755c993010b0f1c2d2e40ad9b534912854668170c37e8ea2b6793f8366dcdf74059159",
                "1a43630540641e6bd45d5c4ce75156644d1f730d8728b21f113dd2a6feca4a4e6434587ab8e84c9767d16671ca095695",
                "257e590e229308d0d5505121d576cce0eef51f1a7245ab3117a50c1b4b2789e69661cbc12d4b9d25f1e75ef03b398289",
                "4c7923d72005257ed1ef36d97832da5eb6bd0501b76e056d16e61b04a0a250e42920e7b5e8aa46ecb6b45c83bf6c2f11",
                "6deb94c6b4998bbf3481757126806578",
            ),
        ),
        (
            M::SHA224_RSA_PKCS_PSS,
            concat!(
                "8102d6a2932ea57f4ce74fd87928246233478f5f53e4ea1345969f683ac3eb2c486a04b61b34fb2c93b5c869c55fa658",
                "709bb4041c3b6b360ded321341f154c02c67c48dbefaf106567a747d9dec44dca9342c201f21dceed55b45ad9271b6ff",
                "47bb47674be6c68b8a6aa0725579b93aa71a46cc69f972c0ad300efda30a31e4870c0562d0edd563e24f3111e9b10458",
                "7363304b0f2dd15ba96385f7169bb12278b797ef3e31450feab031e2e9d498bdef1112fbe323a394eebdfd66d4f5d59d",
                "50039b1dbdff541e5ef7cb75c1313894b19e307d2009b09a37cbc4c2a6dc77a2a92425d4aa2fc7524231716032bae7f2",
                "e9c49804fac3a7a99248bf99c864f1ef",
            ),
        ),
        (
            M::SHA384_RSA_PKCS_PSS,
            concat!(
                "c9bcfafecef625a4b1bc02dc1821e20214df8503909d99421013dbde69915f5e6bdcbc50b52d94667284386d307b000a",
                "36f6c0f1225e04d31c72303d2250168d1071150b7e61d1fdee14509e69c0d92de15ea37723a141bbc8144012d2e75fdf",
                "56ed706a2e15fd0111ad803176fe7d9ab4f9bd76b76e3e5a4f2977504ee2d9051be9e29b3b9f1665e74d24bdad90ce7d",
                "1d04427c48844dfccdfa6813f196af8f8a89f56c5ee93067cfc3a6865ffe341d3ef15c706752ea347cfcfbc7bad6b714",
                "fd2e8c9f9fcd8409060abbd170e467d380043f32e172170d83863f336db005635f6489bbd2b1934cc06af5e7b14b4705",
                "82329f69462565a9f6b596a4b5c66bb2",
            ),
        ),
        (
            M::SHA512_RSA_PKCS_PSS,
            concat!(
                "197075d7610ecccc21994a083b20dca03ea7975005aff5250806533b8b69ad9acc3e0f26860ac50916d4c3cf4d68a18a",
                "6572f0a01a8541a1854664a341a28f5c4eaae5025ded8d4c6f21a29b9f0bc2c30671e803476872790ad4f53a96c5a29e",
                "de16250c38ad88ebe7665d82c5dcd9da8656a8135ae4a3de81fe6985805f6c97df2e5f43c58b8c1e5f5fcb53848335b3",
                "97ccc4917ba671dd679bad884d042852735e54f1a6e65e070e20127898edc0626e8b9e9fec96fb408e09d9e8836f76d8",
                "fb067a3399529a76572c470a280c084e431c273ae72051d420aaa07aafe4b19460d345e86cc3692e874604f8beb11560",
                "9cc64f28bc2b40326f0fe2a99ad5cab0",
            ),
        ),
    ];

    #[test]
    fn openssl_signatures_of_the_other_hashes_are_accepted() {
        for (form, signature) in OPENSSL {
            let (_, hash, mgf) = FORMS.into_iter().find(|(mechanism, ..)| *mechanism == form).unwrap();
            let mechanism = pss(form, hash, mgf, hash.len_bytes() as u64);
            assert_eq!(verify(&mechanism, &rsa_public(), b"one two", &unhex(signature)), Ok(()), "{form}");
            let answer = verify(&mechanism, &rsa_public(), b"one tow", &unhex(signature));
            assert_eq!(answer, Err(Rv::SIGNATURE_INVALID));
        }
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
