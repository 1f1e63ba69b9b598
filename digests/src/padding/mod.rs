//! RSA paddings of RFC 8017 in safe Rust: pure functions over bytes, randomness as an argument (RULES 4).
//!
//! An encoded message always has k bytes, the length of the modulus. Where a padding is undone, the steps up to the
//! verdict take the same time for every message of one length.

pub mod oaep;
pub mod pkcs1;
pub mod pss;

use crate::{Hash, Running};

/// MGF1 (RFC 8017, B.2.1): the mask of `seed`, combined into `target` by exclusive or.
fn mask(hash: Hash, seed: &[u8], target: &mut [u8]) {
    let mut seeded = Running::new(hash);
    seeded.update(seed);
    for (counter, block) in (0u32..).zip(target.chunks_mut(hash.len_bytes())) {
        let mut running = seeded.clone();
        running.update(&counter.to_be_bytes());
        for (byte, mask) in block.iter_mut().zip(running.finish().iter()) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: the examples of "Mask generation function" in the English Wikipedia, computed from RFC 8017, B.2.1.
    #[test]
    fn mask_is_that_of_mgf1() {
        let mut three = [0; 3];
        mask(Hash::Sha1, b"foo", &mut three);
        assert_eq!(three, [0x1a, 0xc9, 0x07]);
        let mut long = [0; 50];
        mask(Hash::Sha256, b"bar", &mut long);
        assert_eq!(long[..8], [0x38, 0x25, 0x76, 0xa7, 0x84, 0x10, 0x21, 0xcc]);
        assert_eq!(long[42..], [0xcb, 0x81, 0x45, 0x02, 0xef, 0x04, 0xea, 0xe1]);
    }
}
