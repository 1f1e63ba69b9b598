//! EMSA-PKCS1-v1_5 and RSAES-PKCS1-v1_5 (RFC 8017, 7.2 and 9.2). Decryption rejects implicitly: a bad padding gives a message
//! that depends on key and ciphertext alone, so there is nothing to tell apart (RULES 2.16, draft-irtf-cfrg-rsa-guidance).

use crate::Hash;
use aws_lc_rs::hmac;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater, ConstantTimeLess};
use zeroize::Zeroizing;

/// Bytes that the padding takes at least: 00, the block type, eight bytes, 00.
pub const OVERHEAD_BYTES: usize = 11;

/// The DER of `DigestInfo` over a digest.
pub fn digest_info(hash: Hash, digest: &[u8]) -> Vec<u8> {
    [hash.digest_info_prefix(), digest].concat()
}

/// Block type 1 around `data`: `00 01 ff.. 00 data`, `k` bytes. `None` if `data` has more than k - 11 bytes.
pub fn sign_block(data: &[u8], k: usize) -> Option<Vec<u8>> {
    let mut block = vec![0; k];
    write_sign_block([data, &[]], &mut block).map(|()| block)
}

/// The same around two pieces of data, one after the other, into all of `block`.
pub fn write_sign_block([first, second]: [&[u8]; 2], block: &mut [u8]) -> Option<()> {
    let bytes = first.len() + second.len();
    let filling = block.len().checked_sub(3 + bytes).filter(|filling| *filling >= 8)?;
    let (front, data) = block.split_at_mut(3 + filling);
    front.fill(0xff);
    front[0] = 0;
    front[1] = 1;
    front[2 + filling] = 0;
    let (one, other) = data.split_at_mut(first.len());
    one.copy_from_slice(first);
    other.copy_from_slice(second);
    Some(())
}

/// Block type 2 around `data`. `random` gives k - 3 - `data.len()` bytes, none of them zero. `None` if `data` has more than
/// k - 11 bytes or `random` breaks its promise.
pub fn encrypt_block(data: &[u8], random: &[u8], k: usize) -> Option<Zeroizing<Vec<u8>>> {
    let filling = k.checked_sub(3 + data.len()).filter(|filling| *filling >= 8)?;
    if random.len() != filling || random.contains(&0) {
        return None;
    }
    let mut block = Zeroizing::new(vec![0; k]);
    block[1] = 2;
    block[2..2 + filling].copy_from_slice(random);
    block[3 + filling..].copy_from_slice(data);
    Some(block)
}

/// The message in block type 2. `exponent_hash` is the SHA-256 of the private exponent in k bytes, `ciphertext` the k bytes that
/// were decrypted to `block`. It always gives a message of 0 to k - 11 bytes; how many is all that time shows.
pub fn decrypt_block(block: &[u8], ciphertext: &[u8], exponent_hash: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    let k = block.len();
    let key = hmac::Key::new(hmac::HMAC_SHA256, exponent_hash);
    let derivation = hmac::sign(&key, ciphertext);
    let key = hmac::Key::new(hmac::HMAC_SHA256, derivation.as_ref());
    let synthetic = expand(&key, b"message", k);
    let start_synthetic = k as u64 - synthetic_bytes(&key, k);

    let mut valid = block[0].ct_eq(&0) & block[1].ct_eq(&2);
    let (mut searching, mut zero_at) = (Choice::from(1), 0u64);
    for (i, byte) in (2u64..).zip(&block[2..]) {
        let here = searching & byte.ct_eq(&0);
        zero_at.conditional_assign(&i, here);
        searching &= !here;
    }
    // At least eight bytes stand before the zero; without a zero, zero_at is 0.
    valid &= zero_at.ct_gt(&9);

    let start = u64::conditional_select(&start_synthetic, &(zero_at + 1), valid);
    let mut message = synthetic;
    for (byte, real) in message.iter_mut().zip(block) {
        byte.conditional_assign(real, valid);
    }
    let start = usize::try_from(start).unwrap_or(k).min(k);
    Zeroizing::new(message[start..].to_vec())
}

/// The length of a synthetic message: the last of 128 candidates that is small enough.
fn synthetic_bytes(key: &hmac::Key, k: usize) -> u64 {
    // The separator of a valid block stands at index 10 at least, so a message is shorter than k - 10.
    let bound = k as u64 - 10;
    let mask = u64::MAX >> bound.leading_zeros();
    let mut bytes = 0;
    for candidate in expand(key, b"length", 256).chunks_exact(2) {
        let candidate = (u64::from(candidate[0]) << 8 | u64::from(candidate[1])) & mask;
        bytes.conditional_assign(&candidate, candidate.ct_lt(&bound));
    }
    bytes
}

/// The PRF of the draft: HMAC-SHA-256 over counter, label and output length in bits.
fn expand(key: &hmac::Key, label: &[u8], bytes: usize) -> Zeroizing<Vec<u8>> {
    let bits = u16::try_from(bytes * 8).expect("a modulus has at most 8192 bits");
    let mut out = Zeroizing::new(Vec::with_capacity(bytes + 32));
    for counter in 0u16.. {
        if out.len() >= bytes {
            break;
        }
        let mut context = hmac::Context::with_key(key);
        context.update(&counter.to_be_bytes());
        context.update(label);
        context.update(&bits.to_be_bytes());
        out.extend_from_slice(context.sign().as_ref());
    }
    out.truncate(bytes);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sign_block_takes_nothing_to_k_less_11_and_no_more() {
        let block = sign_block(b"", 128).unwrap();
        assert_eq!((block[..3].to_vec(), block[126], block[127]), (vec![0, 1, 0xff], 0xff, 0));
        let block = sign_block(&[7; 117], 128).unwrap();
        assert_eq!(block[..12], [0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 7]);
        let mut pieces = [3; 128];
        write_sign_block([&[7; 19], &[7; 98]], &mut pieces).unwrap();
        assert_eq!(pieces, *block);
        assert!(sign_block(&[7; 118], 128).is_none());
        assert!(sign_block(&[7; 200], 128).is_none());
    }

    #[test]
    fn encrypt_block_is_undone_and_refuses_bad_filling() {
        for bytes in [0, 1, 50, 117] {
            let data = vec![9; bytes];
            let block = encrypt_block(&data, &vec![3; 125 - bytes], 128).unwrap();
            assert_eq!(*decrypt_block(&block, &[5; 128], &[1; 32]), data);
        }
        assert!(encrypt_block(&[9; 118], &[3; 7], 128).is_none());
        assert!(encrypt_block(&[9; 10], &[3; 114], 128).is_none());
        assert!(encrypt_block(&[9; 117], &[3, 3, 3, 0, 3, 3, 3, 3], 128).is_none());
    }

    #[test]
    fn bad_padding_gives_a_message_fixed_by_key_and_ciphertext() {
        let good = encrypt_block(b"secret", &[3; 119], 128).unwrap();
        let damaged = |at: usize, value: u8| {
            let mut block = good.to_vec();
            block[at] = value;
            block
        };
        let mut no_zero = good.to_vec();
        no_zero[121] = 1;
        let bad = [damaged(0, 1), damaged(1, 1), damaged(2, 0), damaged(9, 0), no_zero];
        let answers: Vec<_> = bad.iter().map(|block| decrypt_block(block, &[5; 128], &[1; 32])).collect();
        assert!(answers.iter().all(|answer| answer == &answers[0] && answer.len() <= 117));
        assert_ne!(*answers[0], b"secret");
        assert_ne!(answers[0], decrypt_block(&bad[0], &[6; 128], &[1; 32]));
        assert_ne!(answers[0], decrypt_block(&bad[0], &[5; 128], &[2; 32]));
        assert_eq!(*decrypt_block(&damaged(10, 0), &[5; 128], &[1; 32]), good[11..]);
    }
}
