//! CKM_AES_ECB (PKCS #11 v3.1, 6.10.4; SP 800-38A, 6.1), and the AES block operations that the other modes of blocks use.

use super::{Family, KeyMaterial, Placed, Use, answer};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    UnboundCipherKey,
};
use spec::Rv;
use spec::messages::{How, KeyFunction, OutputRule, PlanAnswer};

/// Length of an AES block in bytes.
pub(super) const BLOCK_BYTES: usize = 16;

/// The family.
pub(super) struct AesEcb;

impl Family for AesEcb {
    fn plan(&self, _job: &Use<'_>) -> Result<PlanAnswer, Rv> {
        Ok(PlanAnswer { block_bytes: 16, ..answer(How::CHAIN, OutputRule::SAME, 0) })
    }

    fn encrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        self.chain(job, data, true)
    }

    fn decrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        self.chain(job, data, true)
    }

    fn chain(&self, job: &Use<'_>, data: &[u8], _last: bool) -> Result<Placed, Rv> {
        let mut blocks = whole_blocks(job, data)?;
        if blocks.is_empty() {
            return Ok(blocks);
        }
        let key = unbound(job)?;
        let done = if job.function == KeyFunction::ENCRYPT {
            EncryptingKey::ecb(key)
                .and_then(|key| key.less_safe_encrypt(&mut blocks, EncryptionContext::None))
                .map(|_| ())
        } else {
            DecryptingKey::ecb(key)
                .and_then(|key| key.decrypt(&mut blocks, DecryptionContext::None).map(|_| ()))
        };
        done.map(|()| blocks).map_err(|_| Rv::FUNCTION_FAILED)
    }
}

/// A copy of data that must be whole blocks.
pub(super) fn whole_blocks(job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
    match (data.len().is_multiple_of(BLOCK_BYTES), job.function) {
        (true, _) => Ok(Placed::working_copy(data, data.len())),
        (false, KeyFunction::ENCRYPT) => Err(Rv::DATA_LEN_RANGE),
        (false, _) => Err(Rv::ENCRYPTED_DATA_LEN_RANGE),
    }
}

/// The AES key for the cipher of its length.
pub(super) fn unbound(job: &Use<'_>) -> Result<UnboundCipherKey, Rv> {
    let KeyMaterial::Secret(key) = job.key else {
        return Err(Rv::KEY_TYPE_INCONSISTENT);
    };
    let algorithm: &'static Algorithm = match key.bytes.len() {
        16 => &AES_128,
        24 => &AES_192,
        32 => &AES_256,
        _ => return Err(Rv::KEY_SIZE_RANGE),
    };
    UnboundCipherKey::new(algorithm, &key.bytes).map_err(|_| Rv::FUNCTION_FAILED)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use spec::MechanismType as M;

    /// Source: SP 800-38A, F.1.1, F.1.3 and F.1.5, all four blocks: key and ciphertext.
    const ANSWERS: [(&str, &str); 3] = [
        (
            AES_128_KEY,
            concat!(
                "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf",
                "43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4"
            ),
        ),
        (
            AES_192_KEY,
            concat!(
                "bd334f1d6e45f25ff712a214571fa5cc974104846d0ad3ad7734ecb3ecee4eef",
                "ef7afd2270e2e60adce0ba2face6444e9a4b41ba738d6c72fb16691603c18e0e"
            ),
        ),
        (
            AES_256_KEY,
            concat!(
                "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870",
                "b6ed21b99ca6f4f9f153e7b1beafed1d23304b7a39f9f3ff067d8d8f9e24ecc7"
            ),
        ),
    ];

    #[test]
    fn blocks_are_those_of_sp_800_38a_whole_and_in_parts() {
        let ecb = plain(M::AES_ECB);
        for (key, ciphertext) in ANSWERS {
            let (key, data, ciphertext) = (aes(key), unhex(SP_800_38A), unhex(ciphertext));
            assert_eq!(*encrypt(&ecb, &key, &data).unwrap(), ciphertext);
            assert_eq!(*decrypt(&ecb, &key, &ciphertext).unwrap(), data);
            let head = use_chain(&ecb, KeyFunction::ENCRYPT, &key, &data[..16], false).unwrap();
            let tail = use_chain(&ecb, KeyFunction::ENCRYPT, &key, &data[16..], true).unwrap();
            assert_eq!([head, tail].map(|part| part.to_vec()).concat(), ciphertext);
        }
    }

    #[test]
    fn blocks_agree_with_the_aes_crate() {
        use aes_gcm::aes::cipher::{BlockEncrypt, KeyInit};
        let other = aes_gcm::aes::Aes192::new_from_slice(&unhex(AES_192_KEY)).unwrap();
        let data: Vec<u8> = (0..160).collect();
        let mut expected = data.clone();
        expected.chunks_exact_mut(16).for_each(|block| other.encrypt_block(block.into()));
        assert_eq!(*encrypt(&plain(M::AES_ECB), &aes(AES_192_KEY), &data).unwrap(), expected);
    }

    #[test]
    fn broken_blocks_are_refused_and_nothing_gives_nothing() {
        let (ecb, key) = (plain(M::AES_ECB), aes(AES_128_KEY));
        assert_eq!(encrypt(&ecb, &key, &[0; 15]).err(), Some(Rv::DATA_LEN_RANGE));
        assert_eq!(decrypt(&ecb, &key, &[0; 17]).err(), Some(Rv::ENCRYPTED_DATA_LEN_RANGE));
        assert!(encrypt(&ecb, &key, &[]).unwrap().is_empty());
        assert!(decrypt(&ecb, &key, &[]).unwrap().is_empty());
    }
}
