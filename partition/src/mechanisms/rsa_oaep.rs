//! CKM_RSA_PKCS_OAEP with any hash, mask hash and label (PKCS #11 v3.1, 6.1.8; RFC 8017, 7.1).

use super::rsa_pkcs::{decrypted, modulus_bytes, private, public};
use super::{Family, Placed, Use, answer, fill_random};
use digests::Scheme;
use digests::padding::oaep::Oaep;
use spec::Rv;
use spec::messages::{How, KeyFunction, OutputRule, PlanAnswer};

/// The family.
pub(super) struct RsaOaep;

impl Family for RsaOaep {
    fn plan(&self, job: &Use<'_>) -> Result<PlanAnswer, Rv> {
        let k = modulus_bytes(job.key)?;
        let most = choices(job)?.message_bytes_max(k).ok_or(Rv::MECHANISM_PARAM_INVALID)?;
        Ok(if job.function == KeyFunction::ENCRYPT {
            PlanAnswer { input_bytes_max: most as u64, ..answer(How::WHOLE, OutputRule::FIXED, k) }
        } else {
            PlanAnswer { input_bytes_max: k as u64, ..answer(How::WHOLE, OutputRule::AT_MOST, most) }
        })
    }

    fn encrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        public(job.key)?.encrypt(&job.scheme()?, data, &fill_random).map(Placed::from)
    }

    fn decrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        let oaep = choices(job)?;
        let block = decrypted(private(job.key)?, data)?;
        oaep.decode(&block).map(Placed::from).ok_or(Rv::ENCRYPTED_DATA_INVALID)
    }
}

/// The choices in the parameters.
fn choices<'a>(job: &'a Use<'_>) -> Result<Oaep<'a>, Rv> {
    if let Scheme::Oaep(oaep) = job.scheme()? { Ok(oaep) } else { Err(Rv::MECHANISM_PARAM_INVALID) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use spec::numbers::MgfType;
    use spec::{Mechanism, MechanismType as M, Parameters};

    fn oaep(hash: M, mgf: MgfType, label: &[u8]) -> Mechanism {
        let parameters = Parameters::Oaep { hash, mgf, label: label.to_vec() };
        Mechanism { mechanism_type: M::RSA_PKCS_OAEP, parameters }
    }

    /// Source: OpenSSL, test/recipes/30-test_evp_data/evppkey_rsa_common.txt, "OAEP padding" with "RSA-2048" and SHA-1.
    const CIPHERTEXT: &str = concat!(
        "458708DFBD42A1297CE7A9C86C7087AB80B1754810929B89C5107CA55368587686986FCE94D86CC1595B3FB736223A65",
        "6EC0F34D18BA1CC5665593610F56C58E26B272D584F3D983A5C91085700755AEBD921FB280BBA3EDA7046EC07B43E729",
        "8E52D59EDC92BE4639A8CE08B2F85976ECF6D98CC469EEB9D5D8E2A32EA8A6626EDAFE1038B3DF455668A9F3C77CAD8B",
        "92FB872E00058C3D2A7EDE1A1F03FC5622084AE04D9D24F6BF0995C58D35B93B699B9763595E123F2AB0863CC9229EB2",
        "90E2EDE7715C7A8F39E0B9A3E2E1B56EBB62F1CBFBB5986FB212EBD785B83D01D968B11D1756C7337F70C1F1A63BFF03",
        "608E24F3A2FD44E67F832A8701C5D5AF"
    );

    #[test]
    fn openssl_vector_decrypts_and_altered_ones_are_refused_alike() {
        let sha_1 = oaep(M::SHA_1, MgfType::MGF1_SHA1, b"");
        let ciphertext = unhex(CIPHERTEXT);
        assert_eq!(*decrypt(&sha_1, &rsa_private(), &ciphertext).unwrap(), b"Hello World");
        for at in [10, 100, 255] {
            let mut altered = ciphertext.clone();
            altered[at] ^= 3;
            let answer = decrypt(&sha_1, &rsa_private(), &altered);
            assert_eq!(answer.err(), Some(Rv::ENCRYPTED_DATA_INVALID));
        }
        for other in [oaep(M::SHA_1, MgfType::MGF1_SHA1, b"x"), oaep(M::SHA256, MgfType::MGF1_SHA1, b"")] {
            assert_eq!(decrypt(&other, &rsa_private(), &ciphertext).err(), Some(Rv::ENCRYPTED_DATA_INVALID));
        }
        let answer = decrypt(&sha_1, &rsa_private(), &ciphertext[1..]);
        assert_eq!(answer.err(), Some(Rv::ENCRYPTED_DATA_LEN_RANGE));
    }

    #[test]
    fn both_directions_agree_with_the_rsa_crate_for_mixed_hashes() {
        let mixed = oaep(M::SHA256, MgfType::MGF1_SHA512, b"label");
        let other =
            || rsa::Oaep::new_with_mgf_hash_and_label::<rsa::sha2::Sha256, rsa::sha2::Sha512, _>("label");
        for bytes in [0, 1, 190] {
            let data = vec![0x6d; bytes];
            let ours = encrypt(&mixed, &rsa_public(), &data).unwrap();
            assert_eq!(second_rsa().decrypt(other(), &ours).unwrap(), data);
            let theirs = second_rsa().to_public_key();
            let theirs = theirs.encrypt(&mut rsa::rand_core::OsRng, other(), &data).unwrap();
            assert_eq!(*decrypt(&mixed, &rsa_private(), &theirs).unwrap(), data);
        }
        assert_eq!(encrypt(&mixed, &rsa_public(), &[0; 191]).err(), Some(Rv::DATA_LEN_RANGE));
        let plan = plan_of(&mixed, KeyFunction::ENCRYPT, &rsa_public(), true).unwrap();
        assert_eq!((plan.output_bytes, plan.input_bytes_max), (256, 190));
    }
}
