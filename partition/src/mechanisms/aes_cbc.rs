//! CKM_AES_CBC and CKM_AES_CBC_PAD (PKCS #11 v3.1, 6.10.5 and 6.10.6; SP 800-38A, 6.2; RFC 5652, 6.3).
//!
//! The IV of a later part is the last ciphertext block of the part before, which the client has (RULES 1.7). Padding is
//! stripped in constant time with one answer for every fault of it.

use super::aes_ecb::{BLOCK_BYTES, unbound, whole_blocks};
use super::{Family, Placed, Use, answer};
use aws_lc_rs::cipher::{DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext};
use aws_lc_rs::iv::FixedLength;
use spec::messages::{How, KeyFunction, OutputRule, PlanAnswer};
use spec::{Parameters, Rv};
use subtle::{Choice, ConstantTimeEq, ConstantTimeGreater};

/// The family, with or without PKCS #7 padding.
pub(super) struct AesCbc {
    /// Whether the last part is padded.
    pub(super) padded: bool,
}

impl Family for AesCbc {
    fn plan(&self, job: &Use<'_>) -> Result<PlanAnswer, Rv> {
        let rule = match (self.padded, job.function) {
            (false, _) => OutputRule::SAME,
            (true, KeyFunction::ENCRYPT) => OutputRule::PADDED,
            (true, _) => OutputRule::UNPADDED,
        };
        Ok(PlanAnswer { block_bytes: 16, ..answer(How::CHAIN, rule, 0) })
    }

    fn encrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        self.chain(job, data, true)
    }

    fn decrypt(&self, job: &Use<'_>, data: &[u8]) -> Result<Placed, Rv> {
        self.chain(job, data, true)
    }

    fn chain(&self, job: &Use<'_>, data: &[u8], last: bool) -> Result<Placed, Rv> {
        let ends = self.padded && last;
        match (job.function, ends) {
            (KeyFunction::ENCRYPT, true) => cbc(job, pad(data)),
            (KeyFunction::ENCRYPT, false) => cbc(job, whole_blocks(job, data)?),
            (_, true) if data.is_empty() => Err(Rv::ENCRYPTED_DATA_LEN_RANGE),
            (_, true) => strip(cbc(job, whole_blocks(job, data)?)?),
            (_, false) => cbc(job, whole_blocks(job, data)?),
        }
    }
}

/// Runs CBC over whole blocks in place.
fn cbc(job: &Use<'_>, mut blocks: Placed) -> Result<Placed, Rv> {
    if blocks.is_empty() {
        return Ok(blocks);
    }
    let Parameters::Iv(iv) = job.parameters else {
        return Err(Rv::MECHANISM_PARAM_INVALID);
    };
    let iv: [u8; BLOCK_BYTES] = iv.as_slice().try_into().map_err(|_| Rv::MECHANISM_PARAM_INVALID)?;
    let (iv, key) = (FixedLength::from(iv), unbound(job)?);
    let done = if job.function == KeyFunction::ENCRYPT {
        EncryptingKey::cbc(key)
            .and_then(|key| key.less_safe_encrypt(&mut blocks, EncryptionContext::Iv128(iv)))
            .map(|_| ())
    } else {
        DecryptingKey::cbc(key)
            .and_then(|key| key.decrypt(&mut blocks, DecryptionContext::Iv128(iv)).map(|_| ()))
    };
    done.map(|()| blocks).map_err(|_| Rv::FUNCTION_FAILED)
}

/// Data and 1 to 16 bytes of padding, each of them the number of bytes.
fn pad(data: &[u8]) -> Placed {
    let filling = BLOCK_BYTES - data.len() % BLOCK_BYTES;
    let mut blocks = Placed::working_copy(data, data.len() + filling);
    let byte = u8::try_from(filling).expect("a filling has at most 16 bytes");
    blocks.extend_from_slice(&[byte; BLOCK_BYTES][..filling]);
    blocks
}

/// Takes the padding off. Time shows the length of what is left and nothing about why a padding is refused.
fn strip(mut blocks: Placed) -> Result<Placed, Rv> {
    let last = &blocks[blocks.len() - BLOCK_BYTES..];
    let filling = last[BLOCK_BYTES - 1];
    let mut valid = !filling.ct_eq(&0) & !filling.ct_gt(&16);
    for (distance, byte) in (1u8..).zip(last.iter().rev()) {
        let within: Choice = !distance.ct_gt(&filling);
        valid &= !within | byte.ct_eq(&filling);
    }
    if bool::from(valid) {
        let left = blocks.len() - usize::from(filling);
        blocks.truncate(left);
        Ok(blocks)
    } else {
        Err(Rv::ENCRYPTED_DATA_INVALID)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use spec::{Mechanism, MechanismType as M};

    const IV: &str = "000102030405060708090a0b0c0d0e0f";

    fn cbc(mechanism_type: M, iv: &[u8]) -> Mechanism {
        Mechanism { mechanism_type, parameters: Parameters::Iv(iv.to_vec()) }
    }

    /// Source: SP 800-38A, F.2.1, F.2.3 and F.2.5, all four blocks: key and ciphertext.
    const ANSWERS: [(&str, &str); 3] = [
        (
            AES_128_KEY,
            concat!(
                "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
                "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"
            ),
        ),
        (
            AES_192_KEY,
            concat!(
                "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
                "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd"
            ),
        ),
        (
            AES_256_KEY,
            concat!(
                "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
                "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"
            ),
        ),
    ];

    /// Key, IV and ciphertext of "Single block msg". Sources: RFC 3602, 4, case 1 for the first block;
    /// OpenSSL 3.0, `openssl enc -aes-128-cbc`, for the block of padding that follows.
    const RFC_3602: [&str; 3] = [
        "06a9214036b8a15b512e03d534120006",
        "3dafba429d9eb430b422da802c9fac41",
        "e353779c1079aeb82708942dbe77181ab97c825e1c785146542d396941bce55d",
    ];

    /// The same in the aes crate, block by block.
    fn second_cbc(key: &[u8], iv: &[u8], data: &[u8]) -> Vec<u8> {
        use aes_gcm::aes::cipher::{BlockEncrypt, KeyInit};
        let cipher = aes_gcm::aes::Aes128::new_from_slice(key).unwrap();
        let (mut before, mut out) = (iv.to_vec(), Vec::new());
        for block in data.chunks_exact(16) {
            let mut mixed: Vec<u8> = block.iter().zip(&before).map(|(a, b)| a ^ b).collect();
            cipher.encrypt_block(mixed.as_mut_slice().into());
            out.extend_from_slice(&mixed);
            before = mixed;
        }
        out
    }

    #[test]
    fn blocks_are_those_of_sp_800_38a_whole_and_in_parts() {
        for (key, ciphertext) in ANSWERS {
            let (key, data, ciphertext) = (aes(key), unhex(SP_800_38A), unhex(ciphertext));
            let whole = cbc(M::AES_CBC, &unhex(IV));
            assert_eq!(*encrypt(&whole, &key, &data).unwrap(), ciphertext);
            assert_eq!(*decrypt(&whole, &key, &ciphertext).unwrap(), data);
            let next = cbc(M::AES_CBC, &ciphertext[16..32]);
            for (function, from, to) in
                [(KeyFunction::ENCRYPT, &data, &ciphertext), (KeyFunction::DECRYPT, &ciphertext, &data)]
            {
                let head = use_chain(&whole, function, &key, &from[..32], false).unwrap();
                let tail = use_chain(&next, function, &key, &from[32..], true).unwrap();
                assert_eq!([head, tail].map(|part| part.to_vec()).concat(), *to);
            }
        }
    }

    #[test]
    fn padded_message_of_rfc_3602_agrees_with_openssl_and_the_aes_crate() {
        let [key, iv, ciphertext] = RFC_3602.map(unhex);
        let found = encrypt(&cbc(M::AES_CBC_PAD, &iv), &aes(RFC_3602[0]), b"Single block msg").unwrap();
        assert_eq!(*found, ciphertext);
        assert_eq!(*found, second_cbc(&key, &iv, &[&b"Single block msg"[..], &[16; 16]].concat()));
    }

    #[test]
    fn padding_of_every_length_comes_off_whole_and_in_parts() {
        let key = aes(AES_128_KEY);
        let pad = cbc(M::AES_CBC_PAD, &unhex(IV));
        for bytes in 0..50usize {
            let data = vec![0x42; bytes];
            let whole = encrypt(&pad, &key, &data).unwrap();
            assert_eq!(whole.len(), (bytes / 16 + 1) * 16);
            assert_eq!(*decrypt(&pad, &key, &whole).unwrap(), data);
            if bytes >= 16 {
                let head = use_chain(&pad, KeyFunction::ENCRYPT, &key, &data[..16], false).unwrap();
                let next = cbc(M::AES_CBC_PAD, &head);
                let tail = use_chain(&next, KeyFunction::ENCRYPT, &key, &data[16..], true).unwrap();
                assert_eq!([head.to_vec(), tail.to_vec()].concat(), *whole);
                let head = use_chain(&pad, KeyFunction::DECRYPT, &key, &whole[..16], false).unwrap();
                let tail = use_chain(&next, KeyFunction::DECRYPT, &key, &whole[16..], true).unwrap();
                assert_eq!([head.to_vec(), tail.to_vec()].concat(), data);
            }
        }
    }

    #[test]
    fn every_wrong_padding_has_one_answer() {
        let key = aes(AES_128_KEY);
        let (bare, pad) = (cbc(M::AES_CBC, &unhex(IV)), cbc(M::AES_CBC_PAD, &unhex(IV)));
        let decrypted = |block: &[u8]| decrypt(&pad, &key, &encrypt(&bare, &key, block).unwrap());
        for last in 0..=255u8 {
            let mut block = [0xee; 16];
            block[15] = last;
            let answer = decrypted(&block);
            if last == 1 {
                assert_eq!(answer.unwrap().len(), 15);
            } else {
                assert_eq!(answer.err(), Some(Rv::ENCRYPTED_DATA_INVALID), "{last}");
            }
        }
        for wrong in 0..15 {
            let mut block = [16; 16];
            block[wrong] = 15;
            assert_eq!(decrypted(&block).err(), Some(Rv::ENCRYPTED_DATA_INVALID));
        }
        assert!(decrypted(&[16; 16]).unwrap().is_empty());
        assert_eq!(decrypt(&pad, &key, &[]).err(), Some(Rv::ENCRYPTED_DATA_LEN_RANGE));
        assert_eq!(decrypt(&pad, &key, &[1; 17]).err(), Some(Rv::ENCRYPTED_DATA_LEN_RANGE));
        assert_eq!(encrypt(&bare, &key, &[1; 17]).err(), Some(Rv::DATA_LEN_RANGE));
        let part = use_chain(&pad, KeyFunction::ENCRYPT, &key, &[1; 17], false);
        assert_eq!(part.err(), Some(Rv::DATA_LEN_RANGE), "parts before the last are whole blocks, RULES 1.7");
    }

    #[test]
    fn plans_need_no_iv_and_uses_do() {
        let key = aes(AES_128_KEY);
        let without = cbc(M::AES_CBC_PAD, &[]);
        let plan = plan_of(&without, KeyFunction::ENCRYPT, &key, true).unwrap();
        assert_eq!((plan.how, plan.output_rule, plan.block_bytes), (How::CHAIN.0, OutputRule::PADDED.0, 16));
        let plan = plan_of(&without, KeyFunction::DECRYPT, &key, true).unwrap();
        assert_eq!(plan.output_rule, OutputRule::UNPADDED.0);
        assert_eq!(encrypt(&without, &key, &[1; 16]).err(), Some(Rv::MECHANISM_PARAM_INVALID));
    }
}
