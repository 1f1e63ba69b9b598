//! CKM_RSA_PKCS and the hash-and-sign forms over it (PKCS #11 v3.1, 6.1.6 and 6.1.14; RFC 8017, 7.2 and 8.2).

use super::{Bytes, Family, KeyMaterial, Placed, RsaPrivateKey, RsaPublicKey, Use, answer, fill_random};
use digests::padding::pkcs1::{self, OVERHEAD_BYTES};
use spec::Rv;
use spec::messages::{How, KeyFunction, OutputRule, PlanAnswer};
use std::borrow::Cow;

/// The family.
pub(super) struct RsaPkcs;

impl Family for RsaPkcs {
    fn plan(&self, job: &Use<'_>) -> Result<PlanAnswer, Rv> {
        let k = modulus_bytes(job.key)?;
        let most = k - OVERHEAD_BYTES;
        Ok(match job.function {
            KeyFunction::ENCRYPT => {
                PlanAnswer { input_bytes_max: most as u64, ..answer(How::WHOLE, OutputRule::FIXED, k) }
            }
            KeyFunction::DECRYPT => {
                PlanAnswer { input_bytes_max: k as u64, ..answer(How::WHOLE, OutputRule::AT_MOST, most) }
            }
            _ => job.signature_plan(k, most),
        })
    }

    fn sign(&self, job: &Use<'_>, message: &[u8]) -> Result<Bytes, Rv> {
        let key = private(job.key)?;
        let block = pkcs1::sign_block(&content(job, message), key.raw.modulus_bytes());
        private_op(key, &block.ok_or(Rv::DATA_LEN_RANGE)?)
    }

    fn verify(&self, job: &Use<'_>, message: &[u8], signature: &[u8]) -> Result<(), Rv> {
        public(job.key)?.verify(&job.scheme()?, message, signature)
    }

    fn encrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        public(job.key)?.encrypt(&job.scheme()?, data, &fill_random).map(Placed::from)
    }

    fn decrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        let key = private(job.key)?;
        let block = decrypted(key, data)?;
        Ok(pkcs1::decrypt_block(&block, data, &key.exponent_hash).into())
    }
}

/// What is padded: the data itself, or the DigestInfo over a digest.
fn content<'a>(job: &Use<'_>, message: &'a [u8]) -> Cow<'a, [u8]> {
    match job.hash_and_sign() {
        Some(hash) => Cow::Owned(pkcs1::digest_info(hash, message)),
        None => Cow::Borrowed(message),
    }
}

/// The private half of an RSA key.
pub(super) fn private(key: &KeyMaterial) -> Result<&RsaPrivateKey, Rv> {
    if let KeyMaterial::RsaPrivate(key) = key { Ok(key) } else { Err(Rv::KEY_FUNCTION_NOT_PERMITTED) }
}

/// The public half of an RSA key.
pub(super) fn public(key: &KeyMaterial) -> Result<&RsaPublicKey, Rv> {
    if let KeyMaterial::RsaPublic(key) = key { Ok(key) } else { Err(Rv::KEY_FUNCTION_NOT_PERMITTED) }
}

/// Length of an RSA key's modulus in bytes, k.
pub(super) fn modulus_bytes(key: &KeyMaterial) -> Result<usize, Rv> {
    match key {
        KeyMaterial::RsaPrivate(key) => Ok(key.raw.modulus_bytes()),
        KeyMaterial::RsaPublic(key) => Ok(key.modulus_bytes()),
        _ => Err(Rv::KEY_TYPE_INCONSISTENT),
    }
}

/// The private operation on a block of k bytes, for signing: a block that is not below the modulus is the caller's fault.
pub(super) fn private_op(key: &RsaPrivateKey, block: &[u8]) -> Result<Bytes, Rv> {
    key.raw.private_op(block).map_err(|fault| match fault {
        awsraw::Error::Input => Rv::DATA_INVALID,
        awsraw::Error::Key | awsraw::Error::Failed => Rv::FUNCTION_FAILED,
    })
}

/// The private operation on a ciphertext, with its length and range checked.
pub(super) fn decrypted(key: &RsaPrivateKey, ciphertext: &[u8]) -> Result<Bytes, Rv> {
    if ciphertext.len() != key.raw.modulus_bytes() {
        return Err(Rv::ENCRYPTED_DATA_LEN_RANGE);
    }
    key.raw.private_op(ciphertext).map_err(|fault| match fault {
        awsraw::Error::Input => Rv::ENCRYPTED_DATA_INVALID,
        awsraw::Error::Key | awsraw::Error::Failed => Rv::FUNCTION_FAILED,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use digests::{Hash, digest};
    use spec::{Mechanism, MechanismType as M};

    /// Form, hash, and the SHA-256 of the signature of "first second" by "RSA-2048".
    /// Source: OpenSSL 3.0, `openssl dgst -sha1 -sign key.pem` and so on.
    const FORMS: [(M, Hash, &str); 5] = [
        (M::SHA1_RSA_PKCS, Hash::Sha1, "4b238ff9ff183160e8b1456bf193e6de4c3f540733200ee589a8d9467583bf56"),
        (
            M::SHA224_RSA_PKCS,
            Hash::Sha224,
            "e58aa0277ff6b6726058d934c23293f80e2b47640e2a6e6b03c79e26a2720cab",
        ),
        (
            M::SHA256_RSA_PKCS,
            Hash::Sha256,
            "861fd9cd4037cd59aa28f4073699d2c8db1328f90283cebb048f07843860f064",
        ),
        (
            M::SHA384_RSA_PKCS,
            Hash::Sha384,
            "a3cdfc979b0bdaceb408bc527376dabd66e8c8fa64e56e8791a232a9a4e5a44f",
        ),
        (
            M::SHA512_RSA_PKCS,
            Hash::Sha512,
            "086cf97708263447d2525481600a45d57b47bcccc5922403a4b5f810e53fac34",
        ),
    ];

    /// Content, and the SHA-256 of its signature by "RSA-2048".
    /// Source: OpenSSL 3.0, `openssl pkeyutl -sign -pkeyopt rsa_padding_mode:pkcs1`; for 245 bytes `openssl rsautl -sign`.
    const CONTENTS: [(&[u8], &str); 3] = [
        (b"", "1d20da117b18af287da661c00d20ac4ca7566d0bb72da884414bca99e88a1d2c"),
        (&[0x36; 36], "2c732124fb7a13fbd185366717787e462683a13f8dd078ba15f19e639449c595"),
        (&[0xab; 245], "79a2c830609d38e0905170e5c1b2cb865950205a937ca3af196680e8fc067c40"),
    ];

    /// Source: OpenSSL, test/recipes/30-test_evp_data/evppkey_rsa_common.txt, "RSA-2048" with digest SHA1; the digest is the
    /// text 0123456789ABCDEF1234.
    const SIGNATURE: &str = concat!(
        "c09d402423cbf233d26cae21f954547bc43fe80fd41360a0336cfdbe9aedad05bef6fd2eaee6cd60089a52482d4809a2",
        "38149520df3bdde4cb9e23d9307b05c0a6f327052325a29adf2cc95b66523be7024e2a585c3d4db15dfbe146efe0ecdc",
        "0402e33fe5d40324ee96c5c3edd374a15cdc0f5d84aa243c0f07e188c6518fbfceae158a9943be398e31097da81b6207",
        "4f626eff738be6160741d5a26957a482b3251fd85d8df78b98148459de10aa93305dbb4a5230aa1da291a9b0e481918f",
        "99b7638d72bb687f97661d304ae145d64a474437a4ef39d7b8059332ddeb07e92bf6e0e3acaf8afedc93795e4511737e",
        "c1e7aab6d5bc9466afc950c1c17b48ad"
    );

    /// Source: the same file, the decryption tests of "RSA-2048": Hello World, and what a wrong last byte (79) gives.
    const CIPHERTEXT: &str = concat!(
        "550AF55A2904E7B9762352F8FB7FA235A9CB053AACB2D5FCB8CA48453CB2EE3619746C701ABF2D4CC67003471A187900",
        "B05AA812BD25ED05C675DFC8C97A24A7BF49BD6214992CAD766D05A9A2B57B74F26A737E0237B8B76C45F1F226A836D7",
        "CFBC75BA999BDBE48DBC09227AA46C88F21DCCBA7840141AD5A5D71FD122E6BD6AC3E564780DFE623FC1CA9B995A6037",
        "BF0BBD43B205A84AC5444F34202C05CE9113087176432476576DE6FFFF9A52EA57C08BE3EC2F49676CB8E12F762AC71F",
        "A3C321E00AC988910C85FF52F93825666CE0D40FFAA0592078919D4493F46D95CCF76364C6D57760DD0B64805F9AFC76",
        "A2365A5575CA301D5103F0EA76CB9A78"
    );
    const SYNTHETIC: &str = concat!(
        "4cbb988d6a46228379132b0b5f8c249b3860043848c93632fb982c807c7c82fffc7a9ef83f4908f890373ac181ffea63",
        "81e103bcaa27e65638b6ecebef38b59ed4226a9d12af675cfcb634d8c40e7a7aff"
    );

    #[test]
    fn signature_is_that_of_the_openssl_vector() {
        let info = pkcs1::digest_info(Hash::Sha1, b"0123456789ABCDEF1234");
        assert_eq!(*sign(&plain(M::RSA_PKCS), &rsa_private(), &info).unwrap(), unhex(SIGNATURE));
        let prehashed = use_prehash(&plain(M::SHA1_RSA_PKCS), &rsa_private(), b"0123456789ABCDEF1234");
        assert_eq!(*prehashed.unwrap(), unhex(SIGNATURE));
        assert_eq!(verify(&plain(M::RSA_PKCS), &rsa_public(), &info, &unhex(SIGNATURE)), Ok(()));
    }

    #[test]
    fn any_content_up_to_k_less_11_is_signed_as_openssl_and_the_rsa_crate_sign_it() {
        let raw = plain(M::RSA_PKCS);
        let mut contents: Vec<Vec<u8>> =
            Hash::ALL.iter().map(|hash| pkcs1::digest_info(*hash, &digest(*hash, b"message"))).collect();
        contents.push(vec![0; 1]);
        for (content, answer) in CONTENTS {
            let signature = sign(&raw, &rsa_private(), content).unwrap();
            assert_eq!(*digest(Hash::Sha256, &signature), unhex(answer), "{} bytes", content.len());
            contents.push(content.to_vec());
        }
        for content in contents {
            let signature = sign(&raw, &rsa_private(), &content).unwrap();
            let other = second_rsa().sign(rsa::Pkcs1v15Sign::new_unprefixed(), &content).unwrap();
            assert_eq!(*signature, other, "{} bytes", content.len());
            assert_eq!(verify(&raw, &rsa_public(), &content, &signature), Ok(()));
        }
        assert_eq!(sign(&raw, &rsa_private(), &[0xab; 246]).err(), Some(Rv::DATA_LEN_RANGE), "k - 10");
        assert_eq!(sign(&raw, &rsa_private(), &[0xab; 300]).err(), Some(Rv::DATA_LEN_RANGE));
        assert_eq!(verify(&raw, &rsa_public(), &[0xab; 246], &[1; 256]), Err(Rv::DATA_LEN_RANGE));
    }

    #[test]
    fn hash_and_sign_agrees_with_the_rsa_crate_whole_prehashed_and_in_parts() {
        for (form, hash, answer) in FORMS {
            let mechanism = plain(form);
            let info = pkcs1::digest_info(hash, &digest(hash, b"first second"));
            let expected = second_rsa().sign(rsa::Pkcs1v15Sign::new_unprefixed(), &info).unwrap();
            let whole = sign(&mechanism, &rsa_private(), b"first second").unwrap();
            assert_eq!(*whole, expected, "{form}");
            assert_eq!(*digest(Hash::Sha256, &whole), unhex(answer), "{form}");
            let digest = digest(hash, b"first second");
            assert_eq!(*use_prehash(&mechanism, &rsa_private(), &digest).unwrap(), expected);
            assert_eq!(
                *use_stream(&mechanism, &rsa_private(), &[b"first", b"", b" second"]).unwrap(),
                expected
            );
            assert_eq!(verify(&mechanism, &rsa_public(), b"first second", &whole), Ok(()));
            assert_eq!(
                verify(&mechanism, &rsa_public(), b"first secind", &whole),
                Err(Rv::SIGNATURE_INVALID)
            );
            assert_eq!(use_prehash(&mechanism, &rsa_private(), &digest[1..]).err(), Some(Rv::DATA_LEN_RANGE));
        }
    }

    #[test]
    fn signatures_of_wrong_length_range_or_padding_are_refused() {
        let raw = plain(M::RSA_PKCS);
        let signature = sign(&raw, &rsa_private(), b"data").unwrap();
        for wrong in [&signature[1..], &[], &[&[0], &signature[..]].concat()] {
            assert_eq!(verify(&raw, &rsa_public(), b"data", wrong), Err(Rv::SIGNATURE_LEN_RANGE));
        }
        assert_eq!(verify(&raw, &rsa_public(), b"data", &[0xff; 256]), Err(Rv::SIGNATURE_INVALID));
        assert_eq!(verify(&raw, &rsa_public(), b"dat", &signature), Err(Rv::SIGNATURE_INVALID));
        let type_2 = sign(&plain(M::RSA_X_509), &rsa_private(), &[&[0, 2], &[5; 250][..], &[0; 4]].concat());
        assert_eq!(verify(&raw, &rsa_public(), &[0; 3], &type_2.unwrap()), Err(Rv::SIGNATURE_INVALID));
    }

    #[test]
    fn decryption_is_that_of_the_openssl_vectors_with_implicit_rejection() {
        let raw = plain(M::RSA_PKCS);
        let mut ciphertext = unhex(CIPHERTEXT);
        assert_eq!(*decrypt(&raw, &rsa_private(), &ciphertext).unwrap(), b"Hello World");
        *ciphertext.last_mut().unwrap() = 0x79;
        for _ in 0..2 {
            assert_eq!(*decrypt(&raw, &rsa_private(), &ciphertext).unwrap(), unhex(SYNTHETIC));
        }
        // A key without its primes rejects to the same message: the exponent alone decides.
        let bare = rsa_private_of(&rsa_private_attributes()[..3]);
        assert_eq!(*decrypt(&raw, &bare, &ciphertext).unwrap(), unhex(SYNTHETIC));
        for trivial in [0, 1] {
            let ciphertext = [&[0; 255][..], &[trivial]].concat();
            assert!(decrypt(&raw, &rsa_private(), &ciphertext).unwrap().len() <= 245);
        }
        assert_eq!(decrypt(&raw, &rsa_private(), &[0xff; 256]).err(), Some(Rv::ENCRYPTED_DATA_INVALID));
        for wrong in [0, 255, 257] {
            let answer = decrypt(&raw, &rsa_private(), &vec![1; wrong]);
            assert_eq!(answer.err(), Some(Rv::ENCRYPTED_DATA_LEN_RANGE));
        }
    }

    #[test]
    fn encryption_is_undone_here_and_by_the_rsa_crate() {
        let raw = plain(M::RSA_PKCS);
        for bytes in [0, 1, 48, 245] {
            let data = vec![0x5c; bytes];
            let ciphertext = encrypt(&raw, &rsa_public(), &data).unwrap();
            assert_eq!(*decrypt(&raw, &rsa_private(), &ciphertext).unwrap(), data);
            assert_eq!(second_rsa().decrypt(rsa::Pkcs1v15Encrypt, &ciphertext).unwrap(), data);
            assert_ne!(encrypt(&raw, &rsa_public(), &data).unwrap(), ciphertext, "filling is random");
        }
        for bytes in [246, 253, 254, 1000] {
            assert_eq!(encrypt(&raw, &rsa_public(), &vec![1; bytes]).err(), Some(Rv::DATA_LEN_RANGE));
        }
    }

    #[test]
    fn plans_say_lengths_and_prehash_only_where_it_grants_nothing_new() {
        let raw = plan_of(&plain(M::RSA_PKCS), KeyFunction::SIGN, &rsa_private(), true).unwrap();
        assert_eq!((raw.how, raw.output_bytes, raw.input_bytes_max), (How::WHOLE.0, 256, 245));
        let form = Mechanism::plain(M::SHA256_RSA_PKCS);
        let free = plan_of(&form, KeyFunction::SIGN, &rsa_private(), true).unwrap();
        assert_eq!((free.how, free.prehash, free.input_bytes_max), (How::PREHASH.0, M::SHA256.0, 0));
        let held = plan_of(&form, KeyFunction::SIGN, &rsa_private(), false).unwrap();
        assert_eq!((held.how, held.prehash), (How::STREAM.0, 0));
        let bound = plan_of(&plain(M::RSA_PKCS), KeyFunction::DECRYPT, &rsa_private(), true).unwrap();
        assert_eq!((bound.output_rule, bound.output_bytes), (OutputRule::AT_MOST.0, 245));
    }
}
