//! CKM_RSA_X_509: the bare RSA operation (PKCS #11 v3.1, 6.1.12). Data shorter than the modulus is filled with zeros in front.

use super::rsa_pkcs::{decrypted, modulus_bytes, private, private_op, public};
use super::{Bytes, Family, Placed, Use, answer, fill_random};
use digests::filled;
use spec::Rv;
use spec::messages::{How, OutputRule, PlanAnswer};

/// The family.
pub(super) struct RsaX509;

impl Family for RsaX509 {
    fn plan(&self, job: &Use<'_>) -> Result<PlanAnswer, Rv> {
        let k = modulus_bytes(job.key)?;
        Ok(PlanAnswer { input_bytes_max: k as u64, ..answer(How::WHOLE, OutputRule::FIXED, k) })
    }

    fn sign(&self, job: &Use<'_>, message: &[u8]) -> Result<Bytes, Rv> {
        let key = private(job.key)?;
        private_op(key, &filled(message, key.raw.modulus_bytes())?)
    }

    fn verify(&self, job: &Use<'_>, message: &[u8], signature: &[u8]) -> Result<(), Rv> {
        public(job.key)?.verify(&job.scheme()?, message, signature)
    }

    fn encrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        public(job.key)?.encrypt(&job.scheme()?, data, &fill_random).map(Placed::from)
    }

    fn decrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        decrypted(private(job.key)?, data).map(Placed::from)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use rsa::traits::PublicKeyParts;
    use rsa::{BigUint, traits::PrivateKeyParts};
    use spec::MechanismType as M;

    /// Source: OpenSSL, test/recipes/30-test_evp_data/evppkey_rsa_common.txt, "RSADP Ciphertext = 2 should pass" with "RSA-2048".
    const TWO_DECRYPTED: &str = concat!(
        "93d0bae8ad0d94de400eb078dd10edd7418ef1bf11b8e8b5d2b86b142e77d603e108fbcca2b976aa7b5326e5369db3bb",
        "73bf74f8d47c36a6318e913888c873502a561fc69329e7c24a0a016d81310449a52b29e49a6a41bdfe6c10a8d90072d6",
        "4b4486756fd007c0071da2a8c7107a904621c11f0d81aa80b655a713c28170594ece28133dfbfddd61d4e4dad0d6781f",
        "6145a351a994054993fd57cd1330966ce97d7ac259b15616fd7235e2cac29fdc1c05f1612c61785614b80e7b650c03ef",
        "77d64163d75fa637cc2a9a7e570b3176fdcfb6ad6d25e8515f6ced02cfb3a441c87220044110fd27dcb53888f0377e17",
        "97bf297b7da27d3f033cd8b5d60ececc"
    );

    #[test]
    fn two_becomes_what_the_openssl_vector_says() {
        let bare = plain(M::RSA_X_509);
        let two = filled(&[2], 256).unwrap();
        assert_eq!(*decrypt(&bare, &rsa_private(), &two).unwrap(), unhex(TWO_DECRYPTED));
        assert_eq!(*sign(&bare, &rsa_private(), &[2]).unwrap(), unhex(TWO_DECRYPTED));
        assert_eq!(encrypt(&bare, &rsa_public(), &unhex(TWO_DECRYPTED)).unwrap(), two);
        assert_eq!(verify(&bare, &rsa_public(), &[0, 2], &unhex(TWO_DECRYPTED)), Ok(()));
        assert_eq!(verify(&bare, &rsa_public(), &[3], &unhex(TWO_DECRYPTED)), Err(Rv::SIGNATURE_INVALID));
    }

    #[test]
    fn results_agree_with_the_rsa_crate() {
        let other = second_rsa();
        for data in [&[][..], &[1], &[0x77; 100], &[0x77; 256]] {
            let expected = BigUint::from_bytes_be(data).modpow(other.d(), other.n()).to_bytes_be();
            let found = sign(&plain(M::RSA_X_509), &rsa_private(), data).unwrap();
            assert_eq!(BigUint::from_bytes_be(&found).to_bytes_be(), expected);
            assert_eq!(found.len(), 256);
        }
    }

    #[test]
    fn too_long_data_and_numbers_not_below_the_modulus_are_refused() {
        let bare = plain(M::RSA_X_509);
        assert_eq!(sign(&bare, &rsa_private(), &[1; 257]).err(), Some(Rv::DATA_LEN_RANGE));
        assert_eq!(sign(&bare, &rsa_private(), &[0xff; 256]).err(), Some(Rv::DATA_INVALID));
        assert_eq!(encrypt(&bare, &rsa_public(), &[0xff; 256]).err(), Some(Rv::DATA_INVALID));
        assert_eq!(decrypt(&bare, &rsa_private(), &[0xff; 256]).err(), Some(Rv::ENCRYPTED_DATA_INVALID));
        assert_eq!(decrypt(&bare, &rsa_private(), &[1; 255]).err(), Some(Rv::ENCRYPTED_DATA_LEN_RANGE));
        assert_eq!(verify(&bare, &rsa_public(), &[1], &[1; 255]), Err(Rv::SIGNATURE_LEN_RANGE));
    }
}
