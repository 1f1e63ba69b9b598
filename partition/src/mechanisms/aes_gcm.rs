//! CKM_AES_GCM with an IV of 12 bytes and a tag of 16 (PKCS #11 v3.1, 6.13.2; SP 800-38D). Other lengths are refused.
//! The tag follows the ciphertext. It runs whole, so that unverified plaintext never leaves (RULES 1.6).

use super::{Family, KeyMaterial, Placed, SecretKey, Use, answer};
use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use spec::messages::{How, KeyFunction, OutputRule, PlanAnswer};
use spec::{Parameters, Rv};

const TAG_BYTES: usize = 16;

/// The family.
pub(super) struct AesGcm;

impl Family for AesGcm {
    fn plan(&self, job: &Use<'_>) -> Result<PlanAnswer, Rv> {
        parameters(job)?;
        let encrypts = job.function == KeyFunction::ENCRYPT;
        let rule = if encrypts { OutputRule::PLUS } else { OutputRule::MINUS };
        Ok(answer(How::WHOLE, rule, TAG_BYTES))
    }

    fn encrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        let ((nonce, aad), key) = (parameters(job)?, key(job)?);
        let mut sealed = Placed::working_copy(data, data.len() + TAG_BYTES);
        let tag = key.seal_in_place_separate_tag(nonce, aad, &mut sealed).map_err(|_| Rv::DATA_LEN_RANGE)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    fn decrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        let ((nonce, aad), key) = (parameters(job)?, key(job)?);
        let bytes = data.len().checked_sub(TAG_BYTES).ok_or(Rv::ENCRYPTED_DATA_LEN_RANGE)?;
        let mut opened = Placed::working_copy(data, bytes);
        key.open_in_place(nonce, aad, &mut opened).map_err(|_| Rv::ENCRYPTED_DATA_INVALID)?;
        opened.truncate(bytes);
        Ok(opened)
    }
}

fn parameters<'a>(job: &Use<'a>) -> Result<(Nonce, Aad<&'a [u8]>), Rv> {
    match job.parameters {
        Parameters::Gcm { iv, aad, tag_bits } if *tag_bits == 8 * TAG_BYTES as u64 => {
            let iv: [u8; NONCE_LEN] = iv.as_slice().try_into().map_err(|_| Rv::MECHANISM_PARAM_INVALID)?;
            Ok((Nonce::assume_unique_for_key(iv), Aad::from(aad.as_slice())))
        }
        _ => Err(Rv::MECHANISM_PARAM_INVALID),
    }
}

/// The key, expanded at its first use.
fn key<'a>(job: &Use<'a>) -> Result<&'a LessSafeKey, Rv> {
    let KeyMaterial::Secret(key) = job.key else {
        return Err(Rv::KEY_TYPE_INCONSISTENT);
    };
    match key.gcm.get() {
        Some(expanded) => Ok(expanded),
        None => {
            let expanded = expanded(key)?;
            Ok(key.gcm.get_or_init(|| Box::new(expanded)))
        }
    }
}

fn expanded(key: &SecretKey) -> Result<LessSafeKey, Rv> {
    let algorithm = match key.bytes.len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        32 => &AES_256_GCM,
        _ => return Err(Rv::KEY_SIZE_RANGE),
    };
    UnboundKey::new(algorithm, &key.bytes).map(LessSafeKey::new).map_err(|_| Rv::FUNCTION_FAILED)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use spec::{Mechanism, MechanismType as M};

    fn gcm(iv: &[u8], aad: &[u8], tag_bits: u64) -> Mechanism {
        let parameters = Parameters::Gcm { iv: iv.to_vec(), aad: aad.to_vec(), tag_bits };
        Mechanism { mechanism_type: M::AES_GCM, parameters }
    }

    /// Source: McGrew and Viega, The Galois/Counter Mode of Operation, appendix B, cases 4, 10 and 16: key, ciphertext with tag.
    const ANSWERS: [(&str, &str); 3] = [
        (
            "feffe9928665731c6d6a8f9467308308",
            concat!(
                "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e",
                "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
                "5bc94fbc3221a5db94fae95ae7121a47"
            ),
        ),
        (
            "feffe9928665731c6d6a8f9467308308feffe9928665731c",
            concat!(
                "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c",
                "7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710",
                "2519498e80f1478f37ba55bd6d27618c"
            ),
        ),
        (
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            concat!(
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
                "76fc6ece0f4e1768cddf8853bb2d551b"
            ),
        ),
    ];
    const IV: &str = "cafebabefacedbaddecaf888";
    const AAD: &str = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
    const DATA: &str = concat!(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    );

    #[test]
    fn answers_are_those_of_mcgrew_and_viega_and_every_alteration_is_refused() {
        let mechanism = gcm(&unhex(IV), &unhex(AAD), 128);
        for (key, ciphertext) in ANSWERS {
            let (key, ciphertext) = (aes(key), unhex(ciphertext));
            assert_eq!(*encrypt(&mechanism, &key, &unhex(DATA)).unwrap(), ciphertext);
            assert_eq!(*decrypt(&mechanism, &key, &ciphertext).unwrap(), unhex(DATA));
            for i in 0..ciphertext.len() {
                let mut altered = ciphertext.clone();
                altered[i] ^= 0x10;
                let answer = decrypt(&mechanism, &key, &altered);
                assert_eq!(answer.err(), Some(Rv::ENCRYPTED_DATA_INVALID));
            }
            let other = gcm(&unhex(IV), b"", 128);
            assert_eq!(decrypt(&other, &key, &ciphertext).err(), Some(Rv::ENCRYPTED_DATA_INVALID));
            let short = decrypt(&mechanism, &key, &ciphertext[..15]);
            assert_eq!(short.err(), Some(Rv::ENCRYPTED_DATA_LEN_RANGE));
        }
    }

    #[test]
    fn both_directions_agree_with_the_aes_gcm_crate() {
        use ::aes_gcm::aead::{AeadInPlace, KeyInit};
        let (key, iv) = (unhex(ANSWERS[2].0), [7; 12]);
        let other = ::aes_gcm::Aes256Gcm::new_from_slice(&key).unwrap();
        for bytes in [0, 1, 16, 100] {
            let mut theirs = vec![0x2f; bytes];
            let tag = other.encrypt_in_place_detached(&iv.into(), b"aad", &mut theirs).unwrap();
            theirs.extend_from_slice(&tag);
            let mechanism = gcm(&iv, b"aad", 128);
            assert_eq!(*encrypt(&mechanism, &aes(ANSWERS[2].0), &vec![0x2f; bytes]).unwrap(), theirs);
            assert_eq!(*decrypt(&mechanism, &aes(ANSWERS[2].0), &theirs).unwrap(), vec![0x2f; bytes]);
        }
    }

    #[test]
    fn other_lengths_of_iv_and_tag_are_refused_and_a_plan_needs_no_iv() {
        let key = aes(AES_128_KEY);
        for wrong in
            [gcm(&[1; 11], b"", 128), gcm(&[1; 16], b"", 128), gcm(&[1; 12], b"", 96), gcm(&[], b"", 128)]
        {
            assert_eq!(encrypt(&wrong, &key, b"x").err(), Some(Rv::MECHANISM_PARAM_INVALID));
        }
        let plan = plan_of(&gcm(&[], b"", 128), KeyFunction::ENCRYPT, &key, true).unwrap();
        assert_eq!((plan.how, plan.output_rule, plan.output_bytes), (How::WHOLE.0, OutputRule::PLUS.0, 16));
        let plan = plan_of(&gcm(&[], b"", 128), KeyFunction::DECRYPT, &key, true).unwrap();
        assert_eq!(plan.output_rule, OutputRule::MINUS.0);
        for wrong in [gcm(&[], b"", 64), gcm(&[1; 13], b"", 128)] {
            let answer = plan_of(&wrong, KeyFunction::ENCRYPT, &key, true);
            assert_eq!(answer.err(), Some(Rv::MECHANISM_PARAM_INVALID));
        }
    }
}
